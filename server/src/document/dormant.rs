//! What is kept of a document that is not in memory, while nothing comes.

use std::sync::Arc;

use reconverge::history::{AtRest, Peers};
use reconverge::id::ConnectionId;

use super::{Document, SPOKEN_OF_BYTES, Slot};
use crate::peers::Connection;
use crate::remote_heads::RemoteHeads;

/// Its peers are at rest: they take some hundred bytes, so that one connection may speak of very many
/// documents.
pub(super) struct Dormant {
    pub(super) peers: Vec<(Arc<Connection>, AtRest)>,
    pub(super) remote_heads: RemoteHeads,
    not_told: Box<[ConnectionId]>,
}

impl Dormant {
    /// What it holds that no connection is charged for.
    pub(super) fn bytes(&self) -> usize {
        let itself = match self.peers.is_empty() {
            true => SPOKEN_OF_BYTES,
            false => 0,
        };
        itself + self.remote_heads.bytes()
    }

    pub(super) fn wake(self) -> Document {
        let connections = self.peers.iter();
        let connections = connections.map(|(to, _)| (to.id, to.clone())).collect();
        let peers = self.peers.into_iter().map(|(to, rest)| (to.id, rest));
        Document {
            parked: Peers::awoken(peers),
            connections,
            remote_heads: self.remote_heads,
            not_told: self.not_told.into_iter().collect(),
            ..Document::default()
        }
    }
}

impl Document {
    /// Drops graph and caches, keeps the peers and what they know.
    pub(super) fn evict(&mut self) {
        self.backlog.shrink_to_fit();
        if self.building.is_idle() && !self.verifying.runs() {
            self.park();
            self.charge_all();
        }
    }

    /// All that is to be remembered of it while nothing comes, if that is little.
    pub(super) fn dormant(&mut self, slot: &Slot) -> Option<Dormant> {
        let is_little = self.history.is_none()
            && self.backlog.is_empty()
            && self.unstored.is_none()
            && !self.asks_again
            && self.not_taken.is_empty()
            && self.graces.is_empty()
            && self.salvaged.is_none()
            && self.building.is_idle()
            && self.verifying.may_rest();
        let rest = is_little.then(|| self.parked.at_rest())??;
        if rest.len() != self.connections.len() {
            return None;
        }
        let with_connection = |(id, rest)| Some((self.connections.get(&id)?.clone(), rest));
        let mut peers: Vec<_> = rest
            .into_iter()
            .map(with_connection)
            .collect::<Option<_>>()?;
        peers.shrink_to_fit();
        if self.verifying.is_reminded() {
            let verifying = self.verifying.rest();
            slot.services.reminders.lay_down(slot.id, verifying);
        }
        Some(Dormant {
            peers,
            remote_heads: std::mem::take(&mut self.remote_heads),
            not_told: self.not_told.drain().collect(),
        })
    }

    pub(super) fn park(&mut self) {
        if let Some(open) = self.history.take() {
            self.parked = open.history.into_peers();
        }
    }
}
