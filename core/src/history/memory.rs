//! How many bytes of memory a history holds: in all, and for each of its peers.
//!
//! Everything is known from lengths, or was counted when it came and is taken off when it goes, so
//! asking is cheap however much there is.
//!
//! Absent: what is passed on (rows to store, messages to send) and what only one call uses.

#[cfg(feature = "native")]
pub(super) use native::*;

#[cfg(not(feature = "native"))]
pub(super) use nothing::*;

#[cfg(feature = "native")]
mod native {
    use std::mem::size_of;

    use automerge::ChangeHash;

    use super::super::History;
    use super::super::heap_size::{list, table};
    use super::super::outline::ActorClock;
    use super::super::peer::Peer;
    use super::super::peers::Peers;
    use super::super::stored::StoredChange;
    use crate::id::ConnectionId;

    /// What was counted as it came.
    #[derive(Debug, Default)]
    pub(in super::super) struct Weights {
        peers: usize,
        /// What the changes that are not saved hold beside their bytes, and their bytes.
        unsaved: usize,
        unsaved_bytes: usize,
    }

    impl Weights {
        pub(in super::super) fn unsaved(&mut self, change: &StoredChange) {
            self.unsaved += list(&change.parents) + change.objects.heap_bytes();
            self.unsaved_bytes += change.bytes.len();
        }

        pub(in super::super) fn saved(&mut self) {
            (self.unsaved, self.unsaved_bytes) = (0, 0);
        }

        pub(in super::super) fn left(&mut self, peer: &Peer) {
            self.peers -= peer.weight;
        }
    }

    impl History {
        /// Bytes of memory that are held because of this peer: what is known of it, what it was asked
        /// for, and the changes that it sent and that wait for others.
        #[must_use]
        pub fn held_for(&self, peer: ConnectionId) -> usize {
            let known = self.peers.get(&peer).map_or(0, |peer| peer.heap_bytes());
            known + self.orphans.held_for(peer)
        }

        /// Whether no more is to be remembered of this peer than of one that has all there is.
        #[must_use]
        pub fn rests(&self, peer: ConnectionId) -> bool {
            self.peers.get(&peer).is_none_or(|peer| peer.rests())
        }

        /// Bytes of the changes that wait to be stored.
        #[must_use]
        pub fn unsaved_bytes(&self) -> usize {
            self.weights.unsaved_bytes
        }

        /// Bytes of memory that are held in all, by the graph, by what waits to be stored or for
        /// other changes, and because of peers.
        #[must_use]
        pub fn held_bytes(&self) -> usize {
            // What is not saved is mostly among what is recent, and shares its bytes.
            let unshared = self
                .weights
                .unsaved_bytes
                .saturating_sub(self.recent.bytes());
            let interrupted = list(&self.interrupted.refused) + list(&self.interrupted.waited);
            size_of::<Self>()
                + list(&self.record.heads)
                + list(&self.record.retained)
                + self.graph.heap_bytes()
                + self.outline.heap_bytes()
                + self.base_heads.heap_bytes()
                + self.base_clock.len() * size_of::<ActorClock>()
                + self.clocks.heap_bytes()
                + self.heads.heap_bytes()
                + self.durable_heads.len() * size_of::<ChangeHash>()
                + list(&self.unsaved)
                + self.weights.unsaved
                + unshared
                + self.tail.heap_bytes()
                + self.recent.heap_bytes()
                + self.orphans.heap_bytes()
                + self.refused.heap_bytes()
                + interrupted
                + table(
                    self.peers.capacity(),
                    size_of::<(ConnectionId, Box<Peer>)>(),
                )
                + self.weights.peers
        }

        /// Counts what a peer holds by now.
        pub(in super::super) fn weigh(&mut self, peer: ConnectionId) {
            if let Some(peer) = self.peers.get_mut(&peer) {
                let held = peer.heap_bytes();
                let before = std::mem::replace(&mut peer.weight, held);
                self.weights.peers = self.weights.peers + held - before;
            }
        }

        /// The same of all, when they come from another history.
        pub(in super::super) fn weigh_all(&mut self) {
            for peer in self.peers.values_mut() {
                peer.weight = peer.heap_bytes();
            }
            self.weights.peers = self.peers.values().map(|peer| peer.weight).sum();
        }
    }

    impl Peers {
        /// Whether no more is to be remembered of this peer than of one that has all there is.
        #[must_use]
        pub fn rests(&self, peer: ConnectionId) -> bool {
            self.0.get(&peer).is_none_or(|peer| peer.rests())
        }

        /// Bytes of memory that are held because of this peer.
        #[must_use]
        pub fn held_for(&self, peer: ConnectionId) -> usize {
            self.0.get(&peer).map_or(0, |peer| peer.heap_bytes())
        }

        /// The same of all of them.
        #[must_use]
        pub fn held_bytes(&self) -> usize {
            self.0.values().map(|peer| peer.heap_bytes()).sum()
        }
    }
}

/// In a browser nobody asks.
#[cfg(not(feature = "native"))]
mod nothing {
    use super::super::History;
    use super::super::peer::Peer;
    use super::super::stored::StoredChange;
    use crate::id::ConnectionId;

    #[derive(Debug, Default)]
    pub(in super::super) struct Weights {}

    impl Weights {
        pub(in super::super) fn unsaved(&self, _: &StoredChange) {}

        pub(in super::super) fn saved(&self) {}

        pub(in super::super) fn left(&self, _: &Peer) {}
    }

    impl History {
        pub(in super::super) fn weigh(&self, _: ConnectionId) {}

        pub(in super::super) fn weigh_all(&self) {}
    }
}
