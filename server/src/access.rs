//! Who may do what: the hook into which tokens come later.

use std::fmt::Debug;

use reconverge::id::{Access, DocumentId, PeerId, Space};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The peer's own name for itself; nothing vouches for it yet.
    pub peer: &'a PeerId,
    /// The space of the url that it came with.
    pub space: &'a Space,
}

/// Decides what a peer may do with a document. Called once when a peer first speaks of a document
/// on a connection, so it must not block.
pub trait Authorize: Debug + Send + Sync + 'static {
    /// The access of `asking` to a document that belongs to `owner`; a document that was never
    /// stored belongs to the space of whoever asks.
    fn access(&self, asking: Asking<'_>, document: &DocumentId, owner: &Space) -> Access;
}

/// Everybody may write everything. For relays behind something else that decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl Authorize for Open {
    fn access(&self, _: Asking<'_>, _: &DocumentId, _: &Space) -> Access {
        Access::Write
    }
}
