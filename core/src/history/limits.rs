//! What a change, and a document, may have at most, and what taking in a message may cost. The lengths
//! of messages are listed in [`protocol::limits`](crate::protocol::limits).

/// Largest inflated change in bytes.
pub const CHANGE_BYTES_MAX: usize = 96 * 1024 * 1024;

/// Most deps of a change: as many as a sync message may name heads, all of which it may merge.
pub const CHANGE_DEPS_MAX: usize = 256 * 1024;

/// Most actors that a change refers to: one that merges the edits of as many people as there may be
/// heads may take back something of each.
pub const CHANGE_ACTORS_MAX: usize = 256 * 1024;

/// Most operations in a change, and most operations that it replaces. A few bytes can claim any
/// number, and every peer would have to build them.
pub const CHANGE_OPS_MAX: u64 = 16 * 1024 * 1024;

/// Longest id of an actor in bytes; Automerge draws 16, and applications may bring their own. Each
/// is kept for as long as its document is.
pub const ACTOR_BYTES_MAX: usize = 128;

/// A change that comes deflated is kept as it came if it inflates to more than so many times its
/// size, and inflated otherwise. So what is stored is at most so many times what was received.
pub const KEPT_RATIO_MAX: usize = 4;

/// Bytes to which the changes of one message may inflate, besides [`MESSAGE_INFLATED_RATIO`] for
/// each byte of them.
pub const MESSAGE_INFLATED_BYTES_MAX: u64 = CHANGE_BYTES_MAX as u64;

/// See [`MESSAGE_INFLATED_BYTES_MAX`]. Texts deflate to a third or a fourth.
pub const MESSAGE_INFLATED_RATIO: u64 = 16;

/// Steps of work up to which a message is taken in where sockets are served: about a millisecond.
pub const LIGHT_STEPS_MAX: u64 = 128 * 1024;

/// Steps after which the taking in of a message makes room for others: some 40 ms. One change may
/// exceed it.
pub const SLICE_STEPS_MAX: u64 = 4 * 1024 * 1024;

/// Most actors of a document.
pub const DOCUMENT_ACTORS_MAX: usize = 1024 * 1024;

/// Most operations that an uploaded document chunk may declare.
pub const DOCUMENT_OPS_MAX: u64 = 64 * 1024 * 1024;

/// Most objects of a document.
pub const DOCUMENT_OBJECTS_MAX: usize = 16 * 1024 * 1024;

/// Most changes of a document that wait for a change they depend on.
pub const ORPHANS_MAX: usize = 4096;

/// Most bytes of such changes.
pub const ORPHAN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many refused hashes a document remembers, so that it asks for none of them again.
pub const REFUSED_MAX: usize = 4096;
