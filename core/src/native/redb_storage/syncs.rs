//! Whether the disk has what the file shows. A sync that fails may drop what it was to write and
//! report so only once; what is read afterwards may be in the system's cache alone.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use redb::{BackendError, StorageBackend};

use super::pages::Pages;
use crate::storage::StorageError;

/// What became of the syncs of a file, over all times that it was opened.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    /// One failed, and none since is known to have put everything on disk.
    failed: AtomicBool,
    /// What is open now.
    open: Mutex<Option<Weak<dyn StorageBackend>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("a sync failed, so it is not known what the disk has")]
struct Uncertain;

impl Syncs {
    /// A commit that wrote something since the last failure is on disk, and so is all under it.
    pub(super) fn settled(&self) {
        self.failed.store(false, Ordering::Release);
    }

    /// Puts on disk what was written and not synced.
    ///
    /// # Errors
    /// When that fails, or if a sync failed before: then another one proves nothing.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().and_then(Weak::upgrade);
        let synced = open.is_some_and(|open| self.watch(open.sync_data()).is_ok());
        if synced && !self.failed.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(StorageError::failed(Uncertain))
        }
    }

    fn watch(&self, synced: io::Result<()>) -> io::Result<()> {
        if synced.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        synced
    }
}

/// A backend whose syncs are watched, and of whose pages only those are given out that are what was
/// written.
#[derive(Debug)]
pub(super) struct Watched<B> {
    backend: Arc<B>,
    pages: Pages,
    syncs: Arc<Syncs>,
}

impl<B: StorageBackend> Watched<B> {
    pub(super) fn new(backend: B, syncs: Arc<Syncs>) -> Self {
        let backend = Arc::new(backend);
        let open: Arc<dyn StorageBackend> = backend.clone();
        *syncs.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::downgrade(&open));
        Self {
            backend,
            pages: Pages::default(),
            syncs,
        }
    }
}

impl<B: StorageBackend> StorageBackend for Watched<B> {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)?;
        self.pages.check(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.syncs.watch(self.backend.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.pages.forget(offset);
        self.backend.write(offset, data)?;
        self.pages.wrote(offset, data);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
