//! How many bytes of memory a history holds: in all, and for each of its peers.
//!
//! Lists and tables count with the room that they have, not with what is in them. Everything is
//! known from lengths, or was counted when it came and is taken off when it goes, so asking is
//! cheap however much there is.
//!
//! Absent: what is passed on (rows to store, messages to send) and what only one call uses.

#[cfg(feature = "native")]
pub(super) use native::*;

#[cfg(not(feature = "native"))]
pub(super) use nothing::*;

#[cfg(feature = "native")]
mod native {
    use std::mem::size_of;
    use std::sync::Arc;

    use automerge::ChangeHash;

    use super::super::outline::ActorClock;
    use super::super::peer::{Certainty, Peer};
    use super::super::refusal::Refusal;
    use super::super::{History, Peers, Recent, StoredChange};
    use crate::id::ConnectionId;

    /// Bytes of a hash table with room for so many entries of a size: one byte more for each, and
    /// an eighth stays free.
    pub(in super::super) fn table(capacity: usize, entry: usize) -> usize {
        match capacity {
            0 => 0,
            room => (room * 8 / 7).next_power_of_two().max(4) * (entry + 1) + 16,
        }
    }

    pub(in super::super) fn list<T>(list: &Vec<T>) -> usize {
        list.capacity() * size_of::<T>()
    }

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
            self.unsaved += list(&change.parents) + change.objects.held();
            self.unsaved_bytes += change.bytes.len();
        }

        pub(in super::super) fn saved(&mut self) {
            (self.unsaved, self.unsaved_bytes) = (0, 0);
        }

        pub(in super::super) fn left(&mut self, peer: &Peer) {
            self.peers -= peer.weight;
        }
    }

    impl Peer {
        fn held(&self) -> usize {
            let certainty = match &self.certainty {
                Certainty::Filtered(last_sync) => list(last_sync),
                Certainty::Unheard | Certainty::Exact => 0,
            };
            // Lists of heads are mostly shared by all who were told the same.
            let shared = |list: &Arc<[ChangeHash]>| size_of_val(&**list) / Arc::strong_count(list);
            size_of::<Self>()
                + certainty
                + shared(&self.heads)
                + self.reset_answered.as_ref().map_or(0, shared)
                + list(&self.need)
                + self.lacks.held()
                + self.extra.held()
                + table(self.asked.capacity(), size_of::<u64>())
                + table(self.refused.capacity(), size_of::<u64>())
                + table(self.resent.capacity(), size_of::<u32>())
                + self.told.as_ref().map_or(0, shared)
        }
    }

    impl Refusal {
        /// Bytes that it holds beside itself.
        pub(in super::super) fn held(&self) -> usize {
            match self {
                Self::Automerge(text)
                | Self::ActorReused { actor: text, .. }
                | Self::Sequence { actor: text, .. }
                | Self::UnknownOperation(text)
                | Self::UnknownObject(text)
                | Self::ObjectKind(text)
                | Self::Unsound(text)
                | Self::Unchecked(text) => text.capacity(),
                Self::Change(_)
                | Self::StartOp { .. }
                | Self::Operation(_)
                | Self::MessageOperations
                | Self::DependsOnRefused(_)
                | Self::DocumentFull(_)
                | Self::ReadOnly
                | Self::Bundle => 0,
            }
        }
    }

    impl Recent {
        fn held(&self) -> usize {
            // Each is shared with whoever is sent it, which takes some bytes more.
            let each = 2 * size_of::<bytes::Bytes>();
            self.changes.capacity() * each + self.bytes
        }
    }

    impl History {
        /// Bytes of memory that are held because of this peer: what is known of it, what it was asked
        /// for, and the changes that it sent and that wait for others.
        #[must_use]
        pub fn held_for(&self, peer: ConnectionId) -> usize {
            let known = self.peers.get(&peer).map_or(0, |peer| peer.held());
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
            let unshared = self.weights.unsaved_bytes.saturating_sub(self.recent.bytes);
            let interrupted = list(&self.interrupted.refused) + list(&self.interrupted.waited);
            size_of::<Self>()
                + list(&self.record.heads)
                + list(&self.record.retained)
                + self.graph.held()
                + self.outline.held()
                + self.base_heads.held()
                + self.base_clock.len() * size_of::<ActorClock>()
                + self.clocks.held()
                + self.heads.held()
                + self.durable_heads.len() * size_of::<ChangeHash>()
                + list(&self.unsaved)
                + self.weights.unsaved
                + unshared
                + list(&self.tail_heavy)
                + self.recent.held()
                + self.orphans.held()
                + self.refused.held()
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
                let held = peer.held();
                let before = std::mem::replace(&mut peer.weight, held);
                self.weights.peers = self.weights.peers + held - before;
            }
        }

        /// The same of all, when they come from another history.
        pub(in super::super) fn weigh_all(&mut self) {
            for peer in self.peers.values_mut() {
                peer.weight = peer.held();
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
            self.0.get(&peer).map_or(0, |peer| peer.held())
        }

        /// The same of all of them.
        #[must_use]
        pub fn held_bytes(&self) -> usize {
            self.0.values().map(|peer| peer.held()).sum()
        }
    }
}

/// In a browser nobody asks.
#[cfg(not(feature = "native"))]
mod nothing {
    use super::super::peer::Peer;
    use super::super::{History, StoredChange};
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
