//! Changes that wait for others that they depend on.

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
    pub(super) from: ConnectionId,
}

impl Orphan {
    fn bytes_held(bytes: usize, deps: usize) -> usize {
        bytes + deps * size_of::<ChangeHash>()
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
    pub(super) by_hash: HashMap<ChangeHash, Orphan>,
    waiting_for: HashMap<ChangeHash, Vec<ChangeHash>>,
    bytes: usize,
}

impl Orphans {
    pub(super) fn has_room(&self, bytes: usize, deps: usize) -> bool {
        let bytes = self.bytes + Orphan::bytes_held(bytes, deps);
        self.by_hash.len() < ORPHANS_MAX && bytes <= ORPHAN_BYTES_MAX
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

    pub(super) fn insert(&mut self, orphan: Orphan) {
        let (hash, missing) = (orphan.hash, orphan.missing);
        let len = Orphan::bytes_held(orphan.bytes.len(), orphan.deps.len());
        if self.by_hash.insert(hash, orphan).is_none() {
            self.bytes += len;
            self.waiting_for.entry(missing).or_default().push(hash);
        }
    }

    pub(super) fn take_waiting_for(&mut self, hash: &ChangeHash) -> Vec<Orphan> {
        let waiting = self.waiting_for.remove(hash).unwrap_or_default();
        let orphans: Vec<_> = waiting
            .iter()
            .filter_map(|hash| self.by_hash.remove(hash))
            .collect();
        self.bytes -= orphans
            .iter()
            .map(|orphan| Orphan::bytes_held(orphan.bytes.len(), orphan.deps.len()))
            .sum::<usize>();
        orphans
    }
}
