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
    /// Bytes of the reasons' texts.
    #[cfg(feature = "native")]
    texts: usize,
}

impl RefusedSet {
    pub(super) fn contains(&self, hash: &ChangeHash) -> bool {
        self.reasons.contains_key(hash)
    }

    pub(super) fn get(&self, hash: &ChangeHash) -> Option<&Refusal> {
        self.reasons.get(hash)
    }

    pub(super) fn insert(&mut self, hash: ChangeHash, refusal: Refusal) {
        self.weigh(&refusal, usize::saturating_add);
        match self.reasons.insert(hash, refusal) {
            None => self.order.push_back(hash),
            Some(before) => self.weigh(&before, usize::saturating_sub),
        }
        if self.order.len() > REFUSED_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(forgotten) = self.reasons.remove(&oldest)
        {
            self.weigh(&forgotten, usize::saturating_sub);
        }
    }

    #[cfg(feature = "native")]
    fn weigh(&mut self, refusal: &Refusal, change: fn(usize, usize) -> usize) {
        self.texts = change(self.texts, refusal.held());
    }

    #[cfg(not(feature = "native"))]
    fn weigh(&self, _: &Refusal, _: fn(usize, usize) -> usize) {}

    /// Bytes of memory beside its own.
    #[cfg(feature = "native")]
    pub(super) fn held(&self) -> usize {
        let entry = size_of::<(ChangeHash, Refusal)>();
        let order = self.order.capacity() * size_of::<ChangeHash>();
        super::held::table(self.reasons.capacity(), entry) + order + self.texts
    }
}
