//! Why bytes are not a change.

use super::super::chunk::ChunkError;

/// Why bytes are not a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The chunk around it is broken.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A field is missing or cut short.
    #[error("malformed change: {0}")]
    Malformed(&'static str),
    /// More of something than is allowed.
    #[error("{0} above the limit")]
    Limit(&'static str),
}

impl ChangeError {
    /// More than [`CHANGE_OPS_MAX`](super::super::limits::CHANGE_OPS_MAX).
    pub(crate) const TOO_MANY_OPERATIONS: Self = Self::Limit("number of operations in a change");
}
