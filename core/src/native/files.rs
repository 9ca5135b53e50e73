//! The files of the clients of this process: who cannot open one is told whether it is one of these.

use std::io;
#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::build_error::BuildError;
use super::{CACHE_BYTES_DEFAULT, RedbStorage};
use crate::storage::{Storage, StorageError};

/// Those that are open.
static OPEN: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

/// What tells a file from others, by whatever name it was opened.
#[cfg(unix)]
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(file: &Path) -> io::Result<Identity> {
    let file = file.metadata()?;
    Ok((MetadataExt::dev(&file), MetadataExt::ino(&file)))
}

#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(not(unix))]
fn identity(file: &Path) -> io::Result<Identity> {
    file.canonicalize()
}

fn all_open() -> MutexGuard<'static, Vec<Identity>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// That a file is open here, until it is closed. That takes a while, in which nobody else can open it.
pub(super) struct OpenHere(Identity);

impl OpenHere {
    fn new(file: Identity) -> Self {
        all_open().push(Identity::clone(&file));
        Self(file)
    }
}

impl Drop for OpenHere {
    fn drop(&mut self) {
        let mut open = all_open();
        if let Some(at) = open.iter().position(|file| *file == self.0) {
            open.swap_remove(at);
        }
    }
}

pub(super) fn open(file: PathBuf) -> Result<Arc<dyn Storage>, BuildError> {
    let id = uuid::Uuid::new_v4().to_string();
    // Afterwards it may be closed.
    let was_open = is_open(&file);
    let mut storage = match RedbStorage::open(&file, CACHE_BYTES_DEFAULT, &id) {
        Ok(storage) => storage,
        Err(StorageError::InUse) => {
            let here = was_open || is_open(&file);
            return Err(BuildError::InUse { file, here });
        }
        // It names the file.
        Err(error @ StorageError::Unusable { .. }) => return Err(error.into()),
        Err(error) => return Err(BuildError::File { file, error }),
    };
    if let Ok(identity) = identity(&file) {
        storage.is_open_here(OpenHere::new(identity));
    }
    Ok(Arc::new(storage))
}

fn is_open(file: &Path) -> bool {
    identity(file).is_ok_and(|file| all_open().contains(&file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Repo;

    #[tokio::test]
    async fn a_client_that_is_ending_is_one_of_this_process() {
        let name = format!("reconverge-files-{}.redb", std::process::id());
        let file = std::env::temp_dir().join(name);
        let mut repo = Repo::builder().file(&file).build().await.unwrap();
        for _ in 0..20 {
            drop(repo);
            repo = loop {
                match Repo::builder().file(&file).build().await {
                    Ok(repo) => break repo,
                    Err(BuildError::InUse { here, .. }) => assert!(here),
                    Err(error) => panic!("{error}"),
                }
            };
        }
        repo.shutdown().await.unwrap();
        std::fs::remove_file(file).unwrap();
    }
}
