//! The files of the clients of this process: who cannot open one is told whether it is one of these.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::repo::BuildError;
use super::{CACHE_BYTES_DEFAULT, RedbStorage};
use crate::storage::{Storage, StorageError};

/// Those that are open, by their paths without links, and some that were.
static OPEN: Mutex<Vec<(PathBuf, Weak<RedbStorage>)>> = Mutex::new(Vec::new());

pub(super) fn open(file: PathBuf) -> Result<Arc<dyn Storage>, BuildError> {
    let id = uuid::Uuid::new_v4().to_string();
    let storage = match RedbStorage::open(&file, CACHE_BYTES_DEFAULT, &id) {
        Ok(storage) => Arc::new(storage),
        Err(StorageError::InUse) => {
            let here = is_open(&file);
            return Err(BuildError::InUse { file, here });
        }
        // It names the file.
        Err(error @ StorageError::Unusable { .. }) => return Err(error.into()),
        Err(error) => return Err(BuildError::File { file, error }),
    };
    if let Ok(path) = file.canonicalize() {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, storage)| storage.strong_count() > 0);
        open.push((path, Arc::downgrade(&storage)));
    }
    Ok(storage)
}

fn is_open(file: &Path) -> bool {
    let Ok(path) = file.canonicalize() else {
        return false;
    };
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.iter()
        .any(|(other, storage)| *other == path && storage.strong_count() > 0)
}
