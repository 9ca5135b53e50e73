//! The changes of a document that were refused, so that nobody is asked for them again.

use std::collections::{HashMap, VecDeque};

use automerge::ChangeHash;

use super::admission::Refusal;
use super::limits::REFUSED_MAX;

/// Why changes were refused, by their hashes; the oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct RefusedSet {
    pub(super) reasons: HashMap<ChangeHash, Refusal>,
    pub(super) order: VecDeque<ChangeHash>,
}

impl RefusedSet {
    pub(super) fn contains(&self, hash: &ChangeHash) -> bool {
        self.reasons.contains_key(hash)
    }

    pub(super) fn get(&self, hash: &ChangeHash) -> Option<&Refusal> {
        self.reasons.get(hash)
    }

    pub(super) fn insert(&mut self, hash: ChangeHash, refusal: Refusal) {
        if self.reasons.insert(hash, refusal).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > REFUSED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.reasons.remove(&oldest);
        }
    }
}
