//! Changes that wait for others that they depend on, and who sent them.

use std::collections::{HashMap, HashSet};

use automerge::ChangeHash;
use bytes::Bytes;

use super::limits::{ORPHAN_BYTES_MAX, ORPHANS_MAX};
use crate::id::ConnectionId;

/// A change that waits for one of its deps.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) hash: ChangeHash,
    /// The dep that it waits for, and its place among the deps: those before it are here.
    pub(super) missing: ChangeHash,
    pub(super) missing_at: usize,
    pub(super) deps: Box<[ChangeHash]>,
    /// As it is kept, perhaps deflated.
    pub(super) bytes: Bytes,
    /// Who sent it and did not leave, in order: at least one.
    pub(super) from: Vec<ConnectionId>,
}

impl Orphan {
    /// What an orphan takes in memory beside its bytes and deps: its place in three tables that are
    /// three quarters full, and three lists of one.
    const ENTRY: usize = 512;
    /// What each sender but the first one takes beside that.
    const SENDER: usize = 96;

    fn held(bytes: usize, deps: usize) -> usize {
        Self::ENTRY + bytes + deps * size_of::<ChangeHash>()
    }

    fn bytes_held(&self) -> usize {
        Self::held(self.bytes.len(), self.deps.len())
    }
}

/// What some changes wait for.
pub(super) struct Missing {
    pub(super) hashes: Vec<ChangeHash>,
    /// How many were looked at to find it.
    pub(super) looked_at: u64,
}

#[derive(Debug, Default)]
pub(super) struct Orphans {
    by_hash: HashMap<ChangeHash, Orphan>,
    waiting_for: HashMap<ChangeHash, Vec<ChangeHash>>,
    bytes: usize,
    /// The bytes of those that a peer sent.
    #[cfg(feature = "native")]
    sent: HashMap<ConnectionId, usize>,
}

impl Orphans {
    pub(super) fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// Everybody who sent one of them.
    pub(super) fn senders(&self) -> HashSet<ConnectionId> {
        let orphans = self.by_hash.values();
        orphans.flat_map(|orphan| &orphan.from).copied().collect()
    }

    pub(super) fn has_room(&self, bytes: usize, deps: usize) -> bool {
        let bytes = self.bytes + Orphan::held(bytes, deps);
        self.by_hash.len() < ORPHANS_MAX && bytes <= ORPHAN_BYTES_MAX
    }

    /// Whether a change waits already; then it is kept also for this sender.
    pub(super) fn is_sent_again(&mut self, hash: &ChangeHash, from: ConnectionId) -> bool {
        let waits = self.by_hash.contains_key(hash);
        if waits {
            self.keep_for(hash, from);
        }
        waits
    }

    /// The changes that must come before these can enter; these, if they are not here. However long
    /// the chains are, each of them is looked at once.
    pub(super) fn missing_for(&self, hashes: &[ChangeHash]) -> Missing {
        let mut looked_at = HashSet::new();
        let mut missing = Vec::new();
        for hash in hashes {
            let mut hash = *hash;
            while looked_at.insert(hash) {
                match self.by_hash.get(&hash) {
                    Some(orphan) => hash = orphan.missing,
                    None => missing.push(hash),
                }
            }
        }
        Missing {
            hashes: missing,
            looked_at: (looked_at.len() + hashes.len()) as u64,
        }
    }

    /// Keeps one that is not here.
    pub(super) fn insert(&mut self, orphan: Orphan) {
        let bytes = orphan.bytes_held();
        self.bytes += bytes + Orphan::SENDER * (orphan.from.len() - 1);
        for from in &orphan.from {
            self.charge(*from, bytes);
        }
        let waiting = self.waiting_for.entry(orphan.missing).or_default();
        waiting.reserve_exact(usize::from(waiting.is_empty()));
        waiting.push(orphan.hash);
        let before = self.by_hash.insert(orphan.hash, orphan);
        debug_assert!(
            before.is_none(),
            "the caller asked whether it is sent again"
        );
    }

    pub(super) fn take_waiting_for(&mut self, hash: &ChangeHash) -> Vec<Orphan> {
        let waiting = self.waiting_for.remove(hash).unwrap_or_default();
        let orphans: Vec<_> = waiting
            .iter()
            .filter_map(|hash| self.by_hash.remove(hash))
            .collect();
        for orphan in &orphans {
            self.is_gone(orphan);
        }
        self.shrink();
        orphans
    }

    fn is_gone(&mut self, orphan: &Orphan) {
        let bytes = orphan.bytes_held();
        self.bytes -= bytes + Orphan::SENDER * (orphan.from.len() - 1);
        for from in &orphan.from {
            self.give_back(*from, bytes);
        }
    }

    /// Drops what this peer alone sent: it was not acknowledged, and whoever names it is asked for
    /// it again.
    pub(super) fn leave(&mut self, peer: ConnectionId) {
        if !self.has_some_of(peer) {
            return;
        }
        let mut bytes = 0;
        self.by_hash.retain(|_, orphan| {
            let Ok(at) = orphan.from.binary_search(&peer) else {
                return true;
            };
            let is_last = orphan.from.len() == 1;
            bytes += match is_last {
                true => orphan.bytes_held(),
                false => Orphan::SENDER,
            };
            orphan.from.remove(at);
            !is_last
        });
        self.bytes -= bytes;
        let here = &self.by_hash;
        self.waiting_for.retain(|_, waiting| {
            waiting.retain(|hash| here.contains_key(hash));
            !waiting.is_empty()
        });
        self.shrink();
    }
}

#[cfg(feature = "native")]
impl Orphans {
    fn keep_for(&mut self, hash: &ChangeHash, from: ConnectionId) {
        let Some(orphan) = self.by_hash.get_mut(hash) else {
            return;
        };
        if let Err(place) = orphan.from.binary_search(&from) {
            let bytes = orphan.bytes_held();
            orphan.from.insert(place, from);
            self.bytes += Orphan::SENDER;
            self.charge(from, bytes);
        }
    }

    fn charge(&mut self, from: ConnectionId, bytes: usize) {
        *self.sent.entry(from).or_default() += bytes;
    }

    fn give_back(&mut self, from: ConnectionId, bytes: usize) {
        if let Some(sent) = self.sent.get_mut(&from) {
            *sent -= bytes;
            if *sent == 0 {
                self.sent.remove(&from);
            }
        }
    }

    /// Tables keep the size that they had, with nothing that is charged in them.
    fn shrink(&mut self) {
        let len = self.by_hash.len();
        if self.by_hash.capacity() > 8 + 4 * len {
            self.by_hash.shrink_to(2 * len);
            self.waiting_for.shrink_to(2 * len);
        }
    }

    /// Whether some of them are of this peer, which is not charged for them any more.
    fn has_some_of(&mut self, peer: ConnectionId) -> bool {
        self.sent.remove(&peer).is_some()
    }

    /// Bytes in memory.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes in memory of those that this peer sent.
    pub(super) fn held_for(&self, peer: ConnectionId) -> usize {
        self.sent.get(&peer).copied().unwrap_or(0)
    }
}

/// In a browser nobody is charged.
#[cfg(not(feature = "native"))]
impl Orphans {
    fn keep_for(&self, _: &ChangeHash, _: ConnectionId) {}

    fn shrink(&self) {}

    fn charge(&self, _: ConnectionId, _: usize) {}

    fn give_back(&self, _: ConnectionId, _: usize) {}

    /// Nor dropped: a relay comes back with the same.
    fn has_some_of(&self, _: ConnectionId) -> bool {
        false
    }
}
