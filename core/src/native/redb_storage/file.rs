//! The file: made whole or not at all, and opened again only while its name stands for the same
//! one.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use redb::backends::FileBackend;
use redb::{Builder, Database};

use super::CACHE_BYTES_DEFAULT;
use super::faults::of_opening;
use super::format::settle;
use super::syncs::{Syncs, Watched};
use crate::storage::StorageError;

/// What an operator can do about a file that is not as we left it.
pub(super) const EMPTY: &str = "it is empty. A store is given its name when it is whole, so \
    something else emptied or made this file: put a backup in its place, or, to begin with an empty \
    store, remove it";
pub(super) const DANGLING: &str = "it is a link to a file that is not there. Is a volume not \
    mounted? To begin with an empty store, remove the link";
const REMOVED: &str =
    "the file was removed or renamed while it was in use; put it back, or restart";
const REPLACED: &str = "another file was put in its place while it was in use; put it back, or \
    restart";

pub(super) fn unusable(path: &Path, what: impl fmt::Display) -> StorageError {
    StorageError::Unusable {
        what: format!("{}: {what}", path.display()),
    }
}

pub(super) fn open_file(
    path: &Path,
    cache_bytes: usize,
    syncs: &Arc<Syncs>,
) -> Result<Database, StorageError> {
    create_file(path, cache_bytes, false, syncs)
}

fn create_file(
    path: &Path,
    cache_bytes: usize,
    new: bool,
    syncs: &Arc<Syncs>,
) -> Result<Database, StorageError> {
    let mut options = std::fs::File::options();
    options.read(true).write(true).create_new(new);
    let file = options.open(path).map_err(StorageError::failed)?;
    if !new && file.metadata().map_err(StorageError::failed)?.len() == 0 {
        // While we had it, too.
        return Err(unusable(path, EMPTY));
    }
    let backend = FileBackend::new(file).map_err(of_opening)?;
    let opened = Builder::new()
        .set_cache_size(cache_bytes)
        .create_with_backend(Watched::new(backend, syncs.clone()));
    opened.map_err(|error| match of_opening(error) {
        StorageError::Unusable { what } => unusable(path, what),
        other => other,
    })
}

/// Makes the file under another name and renames it when it is whole: a crash while redb makes a
/// file leaves one that it does not open.
pub(super) fn make(path: &Path, storage_id: &str) -> Result<(), StorageError> {
    let unfinished = path.with_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StorageError::failed(error));
        }
        _ => {}
    }
    let syncs = Arc::new(Syncs::default());
    let database = create_file(&unfinished, CACHE_BYTES_DEFAULT, true, &syncs)?;
    settle(&database, storage_id)?;
    drop(database);
    let publish = || -> std::io::Result<()> {
        std::fs::File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    publish().map_err(StorageError::failed)
}

/// Whether the file's name still stands for the file that was opened first. Another one has other
/// documents, under keys that we may be about to use.
#[derive(Debug, Default)]
pub(super) struct SameFile(OnceLock<u64>);

impl SameFile {
    /// The file's size in bytes.
    pub(super) fn check(&self, path: &Path) -> std::io::Result<u64> {
        let file = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => std::io::Error::other(REMOVED),
            _ => error,
        })?;
        if *self.0.get_or_init(|| number_of(&file)) == number_of(&file) {
            Ok(file.len())
        } else {
            Err(std::io::Error::other(REPLACED))
        }
    }
}

#[cfg(unix)]
fn number_of(file: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(file)
}

#[cfg(not(unix))]
fn number_of(_: &std::fs::Metadata) -> u64 {
    0
}
