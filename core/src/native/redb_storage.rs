//! [`Storage`] in one redb file, which `docs/internals/stored-format.md` describes.

mod faults;
mod file;
mod folder;
mod format;
mod pages;
mod read;
mod recovery;
mod salvage;
mod space;
mod syncs;
mod tables;
mod transaction;
mod values;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use redb::{Builder, StorageBackend};

pub use format::FORMAT;

use faults::of_opening;
use file::{DANGLING, EMPTY, SameFile, make, open_file, unusable};
use recovery::{Open, RecoveringDatabase, Size};
use syncs::{Syncs, Watched};
use tables::{ACKNOWLEDGED, REFUSED};

use super::files::OpenHere;
use crate::history::{Row, decode_heads};
use crate::id::DocumentId;
use crate::storage::{
    Acknowledged, Batch, Blob, DocumentKey, Refused, Salvaged, Storage, StorageError, Stored,
    damaged,
};

/// Memory that redb may use for pages, in bytes, unless told otherwise.
pub const CACHE_BYTES_DEFAULT: usize = 32 * 1024 * 1024;

/// Documents in one redb file.
pub struct RedbStorage {
    database: RecoveringDatabase,
    next_key: AtomicU64,
    made: bool,
    /// The last to be dropped, when the file is closed.
    open_here: Option<OpenHere>,
}

impl fmt::Debug for RedbStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStorage")
            .field("storage_id", self.database.storage_id())
            .finish_non_exhaustive()
    }
}

impl RedbStorage {
    /// Opens or makes the file, and gives back to the file system what the last run freed. When it
    /// returns, the file's name is on disk too: the last run may have died before that.
    ///
    /// `new_storage_id` names the storage if it is made now. `cache_bytes` bounds redb's page
    /// cache.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another process has the file; [`StorageError::Unusable`] if it is
    /// empty or damaged; when it cannot be opened, or has another format.
    pub fn open(
        path: &Path,
        cache_bytes: usize,
        new_storage_id: &str,
    ) -> Result<Self, StorageError> {
        Self::open_syncing(path, cache_bytes, new_storage_id, folder::sync)
    }

    pub(super) fn is_open_here(&mut self, open_here: OpenHere) {
        self.open_here = Some(open_here);
    }

    /// The same, with another way to put a folder's entries on disk.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_syncing(
        path: &Path,
        cache_bytes: usize,
        new_storage_id: &str,
        sync_folder: impl Fn(&Path) -> std::io::Result<()>,
    ) -> Result<Self, StorageError> {
        let made = match std::fs::metadata(path) {
            Ok(file) if !file.is_file() => return Err(unusable(path, "it is no file")),
            Ok(file) if file.len() == 0 => return Err(unusable(path, EMPTY)),
            Ok(_) => false,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if path.is_symlink() {
                    return Err(unusable(path, DANGLING));
                }
                make(path, new_storage_id)?;
                true
            }
            Err(error) => return Err(StorageError::failed(error)),
        };
        folder::sync_all(path, sync_folder).map_err(StorageError::failed)?;
        let syncs = Arc::new(Syncs::default());
        let same = Arc::new(SameFile::default());
        let open = {
            let (path, syncs, same) = (path.to_owned(), syncs.clone(), same.clone());
            move || {
                same.check(&path).map_err(|e| unusable(&path, e))?;
                open_file(&path, cache_bytes, &syncs)
            }
        };
        let file: PathBuf = path.to_owned();
        let size = move || same.check(&file);
        let name = path.display().to_string();
        let opened = Self::with(Box::new(open), Box::new(size), syncs, new_storage_id);
        let mut storage = opened.map_err(|error| match error {
            StorageError::Unusable { what } if !what.starts_with(&name) => unusable(path, what),
            other => other,
        })?;
        storage.made = made;
        Ok(storage)
    }

    /// The same on any backend of redb. `backend` is called again after a failure, and then must
    /// give the same bytes; `size` tells how many it has, also while it is in use.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn with_backend<B: StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
        size: impl Fn() -> std::io::Result<u64> + Send + Sync + 'static,
        cache_bytes: usize,
        new_storage_id: &str,
    ) -> Result<Self, StorageError> {
        let syncs = Arc::new(Syncs::default());
        let open = {
            let syncs = syncs.clone();
            move || {
                let backend = Watched::new(backend(), syncs.clone());
                let opened = Builder::new()
                    .set_cache_size(cache_bytes)
                    .create_with_backend(backend);
                opened.map_err(of_opening)
            }
        };
        Self::with(Box::new(open), Box::new(size), syncs, new_storage_id)
    }

    fn with(
        open: Open,
        size: Size,
        syncs: Arc<Syncs>,
        new_storage_id: &str,
    ) -> Result<Self, StorageError> {
        let (database, next_key) = RecoveringDatabase::open(open, size, syncs, new_storage_id)?;
        Ok(Self {
            database,
            next_key: AtomicU64::new(next_key),
            made: false,
            open_here: None,
        })
    }

    /// Whether there was no file, so that an empty one was made.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.made
    }

    /// The documents that have quarantined changes, and how many lots of them.
    ///
    /// # Errors
    /// When reading fails or finds damage.
    pub fn quarantined(&self) -> Result<Vec<(DocumentId, DocumentKey, u32)>, StorageError> {
        self.database.read(read::quarantined)
    }

    /// Bytes of what is stored, without redb's own structure and free pages.
    ///
    /// # Errors
    /// When reading fails.
    pub fn live_bytes(&self) -> Result<u64, StorageError> {
        self.database.read(read::live_bytes)
    }
}

impl Storage for RedbStorage {
    fn storage_id(&self) -> Arc<str> {
        self.database.storage_id().clone()
    }

    fn new_key(&self) -> DocumentKey {
        DocumentKey(self.next_key.fetch_add(1, Ordering::Relaxed))
    }

    fn load(&self, document: &DocumentId) -> Result<Option<Stored>, StorageError> {
        let read = |transaction: &_| read::document(transaction, document);
        self.database.read_of(document, read)
    }

    fn blob(&self, key: DocumentKey, blob: Blob) -> Result<Bytes, StorageError> {
        let read = |transaction: &_| read::whole_blob(transaction, key, blob);
        let found = self.database.read_of(key.0, read)?;
        found.ok_or_else(|| damaged(key.0, "a blob is missing"))
    }

    fn changes(&self, key: DocumentKey, ranges: &[Range<u32>]) -> Result<Vec<Bytes>, StorageError> {
        let read = |transaction: &_| read::changes(transaction, key, ranges);
        let found = self.database.read_of(key.0, read)?;
        let wanted: usize = ranges.iter().map(Range::len).sum();
        if found.len() == wanted {
            Ok(found)
        } else {
            Err(damaged(key.0, "a change is missing"))
        }
    }

    fn blob_piece(&self, key: DocumentKey, blob: Blob, number: u32) -> Result<Bytes, StorageError> {
        let read = |transaction: &_| read::blob_piece(transaction, key, blob, number);
        let found = self.database.read_of(key.0, read)?;
        found.ok_or_else(|| damaged(key.0, blob.name()))
    }

    fn rows(
        &self,
        key: DocumentKey,
        from: u32,
        bytes: usize,
    ) -> Result<Vec<(u32, Row)>, StorageError> {
        let (mut rows, mut found) = (Vec::new(), 0);
        self.database.read_of(key.0, |transaction| {
            read::rows_from(transaction, key, from, |last, row| {
                found += row.bytes();
                rows.push((last, row));
                found < bytes
            })
        })?;
        Ok(rows)
    }

    fn acknowledged(&self, key: DocumentKey) -> Result<Vec<Acknowledged>, StorageError> {
        self.database.read_of(key.0, |transaction| {
            let what = "acknowledged heads";
            read::by_relay(transaction, key, ACKNOWLEDGED, decode_heads, what)
        })
    }

    fn refused(&self, key: DocumentKey) -> Result<Vec<(Arc<str>, Refused)>, StorageError> {
        self.database.read_of(key.0, |transaction| {
            read::by_relay(transaction, key, REFUSED, Refused::decode, "a refusal")
        })
    }

    fn outbox(&self) -> Result<Vec<DocumentId>, StorageError> {
        self.database.read(read::outbox)
    }

    fn documents(
        &self,
        after: Option<&DocumentId>,
        max: usize,
    ) -> Result<Vec<DocumentId>, StorageError> {
        let read = |transaction: &_| read::documents(transaction, after, max);
        self.database.read(read)
    }

    fn name_relays(&self, relays: &[Arc<str>]) -> Result<(), StorageError> {
        let mut relays = relays.to_vec();
        relays.sort_unstable();
        relays.dedup();
        let named = self.database.read(read::relays)?;
        let lines = relays.join("\n");
        if lines == named {
            return Ok(());
        }
        let is_new = |relay: &Arc<str>| named.lines().all(|line| *line != **relay);
        let all = relays.iter().any(is_new);
        let write = |transaction: &_| transaction::name_relays(transaction, &lines, all);
        self.database.write(write)
    }

    fn salvage(&self, document: &DocumentId) -> Result<Salvaged, StorageError> {
        let mut salvaged = Salvaged::default();
        for key in self.keys_of(document)? {
            self.salvage_key(document, key, &mut salvaged);
        }
        Ok(salvaged)
    }

    fn aside(&self, document: &DocumentId) -> Result<Vec<Bytes>, StorageError> {
        let mut salvaged = Salvaged::default();
        for key in self.keys_aside(document)? {
            self.salvage_rows(key, &mut salvaged);
        }
        Ok(salvaged.changes)
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StorageError> {
        let write = |transaction: &_| transaction::apply(transaction, batches);
        self.database.write(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    #[test]
    fn redb_keeps_the_contract() {
        crate::storage::conformance::check(|| {
            let storage =
                RedbStorage::with_backend(InMemoryBackend::new, || Ok(0), 1 << 20, "redb");
            Arc::new(storage.unwrap())
        });
    }
}
