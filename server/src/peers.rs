//! The peers that are connected, and what they are sent.

mod connection;
mod outbox;
mod subscriptions;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reconverge::id::{ConnectionId, PeerId};

pub(crate) use self::connection::{Connection, Joined, LEFT_MAX, MessagePermit};
pub(crate) use self::outbox::{Closing, Frame, Outbox, Wish};

/// Connections under one peer id that are asked for a sign of life when another one joins.
const PROBED_MAX: usize = 4;

/// Who is connected, by the name that each peer gives itself. Nothing vouches for these names, so
/// several connections may have one, and none is ended for what another one does.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    joined: Mutex<HashMap<PeerId, BTreeMap<ConnectionId, Arc<Connection>>>>,
    /// How many are connected, also those that have not joined yet.
    connected: AtomicUsize,
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct Connected(Arc<Peers>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peers {
    fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, BTreeMap<ConnectionId, Arc<Connection>>>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody connected, who may join.
    pub(crate) fn connect(self: &Arc<Self>) -> Connected {
        self.connected.fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }

    /// Whether there is nobody but one, who asks.
    pub(crate) fn is_alone(&self) -> bool {
        self.connected.load(Ordering::Relaxed) <= 1
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
