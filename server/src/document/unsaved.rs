//! What was taken in and could not be stored, over all documents: it is kept to be tried again, so
//! that nobody is asked for it before there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reconverge::storage::Batch;

/// Bytes of batches that are kept, over all documents; a single larger one is kept alone. The rest
/// is asked for again when others are stored.
const UNSTORED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How much is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnsavedBatches(Arc<AtomicUsize>);

impl UnsavedBatches {
    /// Keeps a batch, if there is room.
    pub(crate) fn keep(&self, batch: Batch) -> UnsavedBatch {
        let bytes = batch.bytes();
        let mut kept = UnsavedBatch {
            all: self.clone(),
            bytes,
            batch: None,
        };
        let counted = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
                has_room(all, bytes).then_some(all + bytes)
            });
        if counted.is_ok() {
            kept.batch = Some(batch);
        }
        kept
    }
}

fn has_room(all: usize, bytes: usize) -> bool {
    all == 0 || all + bytes <= UNSTORED_BYTES_MAX
}

/// What one document could not store. While it has this, it takes no changes.
#[derive(Debug)]
pub(crate) struct UnsavedBatch {
    all: UnsavedBatches,
    bytes: usize,
    batch: Option<Batch>,
}

impl UnsavedBatch {
    /// It, unless there was no room for it.
    pub(crate) fn batch(&self) -> Option<&Batch> {
        self.batch.as_ref()
    }

    /// Whether there would be room for it.
    pub(crate) fn has_room(&self) -> bool {
        has_room(self.all.0.load(Ordering::Relaxed), self.bytes)
    }

    /// Lets go of it.
    pub(crate) fn forget(&mut self) {
        if self.batch.take().is_some() {
            self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for UnsavedBatch {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use reconverge::id::DocumentId;
    use reconverge::storage::{Blob, DocumentKey, Write};

    #[test]
    fn what_is_kept_is_bounded_and_a_single_batch_always_is() {
        let all = UnsavedBatches::default();
        let keep = |bytes| {
            let chunk = Bytes::from(vec![0; bytes]);
            all.keep(Batch {
                document: DocumentId::new(&[7; 16]).unwrap(),
                key: DocumentKey(1),
                writes: vec![Write::Blob(Blob::Snapshot(1), chunk)],
            })
        };
        let large = keep(UNSTORED_BYTES_MAX + 1);
        assert!(large.batch().is_some());
        let small = keep(1);
        assert!(small.batch().is_none() && !small.has_room());
        drop(large);
        assert!(small.has_room());
        let mut small = keep(1);
        assert!(keep(UNSTORED_BYTES_MAX).batch().is_none());
        small.forget();
        assert!(keep(UNSTORED_BYTES_MAX).batch().is_some());
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }
}
