//! Changes that were unpacked of snapshots, for clients that take no document chunks.
//!
//! A snapshot does not hold the bytes of its changes; the workshop makes them again. What it made
//! serves the parts of one message after the other, and everybody who asks for the same. The cache
//! is bounded over all documents; who is thrown out is unpacked again.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reconverge::storage::DocumentKey;

/// Bytes of unpacked changes that are kept, over all documents; one window may exceed it.
const UNFOLDED_CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Some changes of one snapshot, in order. A change's index never changes while it is folded.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) range: Range<u32>,
    changes: Vec<Bytes>,
}

impl Window {
    /// `None` unless there is a change for each index.
    pub(crate) fn new(range: Range<u32>, changes: Vec<Bytes>) -> Option<Self> {
        (range.len() == changes.len()).then_some(Self { range, changes })
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Bytes> {
        let at = index.checked_sub(self.range.start)?;
        self.changes.get(at as usize)
    }

    fn len(&self) -> usize {
        self.changes.iter().map(Bytes::len).sum()
    }
}

/// Windows of all documents, the last used one last.
#[derive(Debug, Default)]
pub(crate) struct UnfoldedCache(Mutex<VecDeque<(DocumentKey, Arc<Window>)>>);

impl UnfoldedCache {
    /// The window in which this change of a document is.
    pub(crate) fn get(&self, key: DocumentKey, index: u32) -> Option<Arc<Window>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all
            .iter()
            .position(|(of, window)| *of == key && window.range.contains(&index))?;
        let found = all.remove(at)?;
        let window = found.1.clone();
        all.push_back(found);
        Some(window)
    }

    pub(crate) fn insert(&self, key: DocumentKey, window: Window) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_back((key, Arc::new(window)));
        let mut bytes: usize = all.iter().map(|(_, window)| window.len()).sum();
        while bytes > UNFOLDED_CACHE_BYTES_MAX && all.len() > 1 {
            bytes -= all.pop_front().map_or(0, |(_, window)| window.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_gives_way() {
        let window = |from: u32| {
            let bytes = Bytes::from(vec![0; UNFOLDED_CACHE_BYTES_MAX / 3]);
            Window::new(from..from + 1, vec![bytes]).expect("one change for one index")
        };
        let unfolded = UnfoldedCache::default();
        let key = DocumentKey(1);
        for from in 0..3 {
            unfolded.insert(key, window(from));
        }
        assert!(unfolded.get(key, 0).is_some(), "all three fit");
        unfolded.insert(DocumentKey(2), window(0));
        assert!(unfolded.get(key, 0).is_some(), "it was used last");
        assert!(unfolded.get(key, 1).is_none(), "it was not");
        let large = Bytes::from(vec![0; 2 * UNFOLDED_CACHE_BYTES_MAX]);
        unfolded.insert(key, Window::new(7..8, vec![large]).expect("one change"));
        assert!(unfolded.get(key, 7).is_some(), "one may exceed the limit");
        assert!(unfolded.get(DocumentKey(2), 0).is_none());
        assert!(Window::new(0..2, Vec::new()).is_none());
    }
}
