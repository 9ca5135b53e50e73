//! The parts that touch the operating system: storage in redb, the writer that groups commits, and
//! the client for services, [`Repo`] and [`DocHandle`].

mod address;
mod build_error;
mod committer;
mod connection;
mod create;
mod critical_section;
mod current;
mod document_events;
mod documents;
mod driver;
mod editing;
mod files;
mod follow;
mod handle;
mod log;
mod merge;
mod news;
mod redb_storage;
mod repo;
mod search;
mod shown;
mod socket;
mod statistics;
#[cfg(feature = "testing")]
pub mod testing;
mod times;
mod traffic;
mod versions;

pub use crate::engine::{Fault, FaultKind, FindError, Reason, RelayState, Statistics, Status};
pub use address::AddressError;
pub use build_error::BuildError;
pub use committer::{COMMIT_BATCHES_MAX, COMMIT_BYTES_MAX, Committer, NotCommitted};
pub use connection::Connection;
pub use create::CreateError;
pub use current::CurrentError;
pub use document_events::DocumentEvent;
pub use handle::{ChangeError, DocHandle, HistoryEntry, PastError, SyncError};
pub use merge::MergeError;
pub use news::{Broadcast, CHANGES_MAX, Changed, EPHEMERAL_MAX, Gone};
pub use redb_storage::{CACHE_BYTES_DEFAULT, FORMAT, RedbStorage};
pub use repo::{FLUSH_MAX, ImportError, Repo, RepoBuilder};
pub use search::REACH_WITHIN;
