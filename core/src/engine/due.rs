//! The documents that have a turn, now or at some time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::id::DocumentId;

/// By time, and then by their ids, so that it does not matter in which order they came. What is
/// noted several times for one time has one turn.
#[derive(Debug, Default)]
pub(super) struct Due(BinaryHeap<Reverse<(Duration, DocumentId)>>);

impl Due {
    /// Now.
    pub(super) fn insert(&mut self, document: DocumentId) {
        self.insert_at(Duration::ZERO, document);
    }

    pub(super) fn insert_at(&mut self, at: Duration, document: DocumentId) {
        self.0.push(Reverse((at, document)));
    }

    /// When somebody is due next.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn pop(&mut self, now: Duration) -> Option<DocumentId> {
        if self.next_at()? > now {
            return None;
        }
        let next = self.0.pop()?;
        while self.0.peek() == Some(&next) {
            self.0.pop();
        }
        Some(next.0.1)
    }
}
