//! What is heard of a document.

use automerge::{ChangeHash, Patch};
use bytes::Bytes;

use crate::id::PeerId;

/// Changes of a document that wait for a slow listener; when there are more, they become one.
pub const CHANGES_MAX: usize = 64;

/// Presence messages that wait for a slow listener; when there are more, the oldest are lost.
pub const EPHEMERAL_MAX: usize = 64;

/// A document changed, here or elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The heads before: those after the item before this one.
    pub before: Vec<ChangeHash>,
    /// The heads now.
    pub after: Vec<ChangeHash>,
    /// What lies between: the contents at `before` with these patches, one after the other, are
    /// the contents at `after`. The changes that they come from may be several, of several
    /// authors; within one change they are in the order in which it was written.
    ///
    /// When changes had to be made again under another actor, their objects have new names and
    /// `before` is not in the document any more; then these patches make everything anew, in the
    /// place of what was.
    pub patches: Vec<Patch>,
}

/// What somebody broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    /// Who, as they call themselves.
    pub sender: PeerId,
    /// What, as it came; CBOR if they use automerge-repo.
    pub data: Bytes,
}

/// Why a document cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Gone {
    /// It was deleted.
    #[error("the document was deleted")]
    Deleted,
    /// The client was shut down.
    #[error("the client is shut down")]
    Closed,
    /// It is being read again without a change that made no document, which takes a moment;
    /// [`DocHandle::changes`](super::DocHandle::changes) tells when it is there. Or it cannot be used at all, and its
    /// [status](super::DocHandle::status) says why.
    #[error("the document cannot be used now: its status tells whether it ever can")]
    Unusable,
}
