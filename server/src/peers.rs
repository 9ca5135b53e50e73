//! The peers that are connected, and what they are sent.

mod connection;
mod outbox;
mod subscriptions;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reconverge::id::{ConnectionId, PeerId};

pub(crate) use self::connection::{Connection, Joined, LEFT_MAX, MessagePermit};
pub(crate) use self::outbox::{Closing, Frame, Outbox, Wish};

/// Connections under one peer id that are asked for a sign of life when another one joins.
const PROBED_MAX: usize = 4;

/// Who is connected, by the name that each peer gives itself. Nothing vouches for these names, so
/// several connections may have one, and none is ended for what another one does.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<HashMap<PeerId, BTreeMap<ConnectionId, Arc<Connection>>>>);

impl Peers {
    fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, BTreeMap<ConnectionId, Arc<Connection>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer joined. Its older connection may be dead without a word, so those of its name are
    /// asked for a sign of life.
    pub(crate) fn enter(&self, connection: &Arc<Connection>) {
        let mut peers = self.peers();
        let same = peers.entry(connection.peer.clone()).or_default();
        for older in same.values().rev().take(PROBED_MAX) {
            older.outbox.probe();
        }
        same.insert(connection.id, connection.clone());
    }

    pub(crate) fn leave(&self, connection: &Connection) {
        let mut peers = self.peers();
        if let Some(same) = peers.get_mut(&connection.peer) {
            same.remove(&connection.id);
            if same.is_empty() {
                peers.remove(&connection.peer);
            }
        }
    }
}
