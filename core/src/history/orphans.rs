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
    /// Who sent it and did not leave: at least one.
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

/// What one peer sent of them.
#[derive(Debug, Default)]
struct Sent {
    hashes: HashSet<ChangeHash>,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Orphans {
    by_hash: HashMap<ChangeHash, Orphan>,
    waiting_for: HashMap<ChangeHash, Vec<ChangeHash>>,
    /// Boxed, as peers are.
    sent: HashMap<ConnectionId, Box<Sent>>,
    bytes: usize,
}

impl Orphans {
    pub(super) fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// Everybody who sent one of them.
    pub(super) fn senders(&self) -> HashSet<ConnectionId> {
        self.sent.keys().copied().collect()
    }

    pub(super) fn has_room(&self, bytes: usize, deps: usize) -> bool {
        let bytes = self.bytes + Orphan::held(bytes, deps);
        self.by_hash.len() < ORPHANS_MAX && bytes <= ORPHAN_BYTES_MAX
    }

    /// Whether a change waits already; then it is kept also for this sender.
    pub(super) fn is_sent_again(&mut self, hash: &ChangeHash, from: ConnectionId) -> bool {
        let Some(orphan) = self.by_hash.get_mut(hash) else {
            return false;
        };
        let sent = self.sent.entry(from).or_default();
        if sent.hashes.insert(*hash) {
            sent.bytes += orphan.bytes_held();
            orphan.from.push(from);
            self.bytes += Orphan::SENDER;
        }
        true
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
            let sent = self.sent.entry(*from).or_default();
            sent.hashes.insert(orphan.hash);
            sent.bytes += bytes;
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

    /// Tables keep the size that they had, with nothing that is charged in them.
    fn shrink(&mut self) {
        let len = self.by_hash.len();
        if self.by_hash.capacity() > 8 + 4 * len {
            self.by_hash.shrink_to(2 * len);
            self.waiting_for.shrink_to(2 * len);
        }
    }

    fn is_gone(&mut self, orphan: &Orphan) {
        let bytes = orphan.bytes_held();
        self.bytes -= bytes + Orphan::SENDER * orphan.from.len().saturating_sub(1);
        for from in &orphan.from {
            if let Some(sent) = self.sent.get_mut(from)
                && sent.hashes.remove(&orphan.hash)
            {
                sent.bytes -= bytes;
                if sent.hashes.is_empty() {
                    self.sent.remove(from);
                }
            }
        }
    }

    /// Drops what this peer alone sent: it was not acknowledged, and whoever names it is asked for
    /// it again.
    pub(super) fn leave(&mut self, peer: ConnectionId) {
        let Some(sent) = self.sent.remove(&peer) else {
            return;
        };
        for hash in &sent.hashes {
            let Some(orphan) = self.by_hash.get_mut(hash) else {
                continue;
            };
            orphan.from.retain(|from| *from != peer);
            if !orphan.from.is_empty() {
                self.bytes -= Orphan::SENDER;
            } else if let Some(orphan) = self.by_hash.remove(hash) {
                self.is_gone(&orphan);
            }
        }
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
    /// Bytes in memory.
    pub(super) fn held(&self) -> usize {
        self.bytes
    }

    /// Bytes in memory of those that this peer sent.
    pub(super) fn held_for(&self, peer: ConnectionId) -> usize {
        self.sent.get(&peer).map_or(0, |sent| sent.bytes)
    }
}
