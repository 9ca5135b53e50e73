//! Why a client is not made.

use std::path::PathBuf;

use super::address::AddressError;
use crate::storage::StorageError;

/// Why a client was not made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It cannot speak to the relays that it was given.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The storage cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file cannot be opened.
    #[error("{}: {error}", file.display())]
    File {
        /// As it was given.
        file: PathBuf,
        /// Why.
        error: StorageError,
    },
    /// Somebody has the file open.
    #[error("{} is in use by {}, which must be shut down first", file.display(), if *here { "another client of this process" } else { "another process" })]
    InUse {
        /// As it was given.
        file: PathBuf,
        /// Whether it is a client of this process. Of one that was dropped and not
        /// [shut down](super::Repo::shutdown), the file is free a moment later.
        here: bool,
    },
    /// It was not called in a tokio runtime.
    #[error("a client is built in a tokio runtime, as with #[tokio::main]")]
    NoRuntime,
}
