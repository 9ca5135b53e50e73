//! The parts that touch the operating system: storage in redb, and the writer that groups commits.

mod committer;
mod redb_storage;
mod space;

pub use committer::{COMMIT_BATCHES_MAX, COMMIT_BYTES_MAX, Committer};
pub use redb_storage::{CACHE_BYTES_DEFAULT, FORMAT, RedbStorage};
