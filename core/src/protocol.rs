//! The words that peers exchange: automerge-repo's wire protocol, version "1".
//!
//! One WebSocket binary message carries one CBOR map, a [`Message`]. Messages of kind `sync` and
//! `request` carry one Automerge sync message, a [`SyncMessage`]. Both decoders are total: any
//! bytes give a value or a [`ProtocolError`], nothing is allocated by a length that a peer merely
//! claims, and every field has a largest length or count, which [`limits`] lists.
//!
//! Extensions travel as extra keys in `peerMetadata`; unknown keys are skipped. A new message type
//! is never sent to a peer that did not ask for it: `samod` closes the connection on one. There are
//! [`Refused`], for clients whose metadata has at least `reconverge: 1`, and [`PING`], for servers from
//! `reconverge: 2` on, which answer with [`PONG`].

mod codec;
pub mod limits;
mod sync;

pub use codec::{
    Ephemeral, HeadsOfStorage, Message, PeerMetadata, Refused, RemoteHeads, SyncEnvelope, decode,
    encode,
};
pub use limits::{
    BLOOM_PROBES_MAX, CHUNKS_MAX, EPHEMERAL_BYTES_MAX, HAVES_MAX, HEADS_MAX, MESSAGE_BYTES_MAX,
    NEED_MAX, NESTING_MAX, REFUSED_HASHES_MAX, SYNC_BYTES_MAX,
};
pub use sync::{Bloom, ChangeHash, Flags, Have, SyncMessage, Version, encode_sync, named_heads};

/// The only version of the automerge-repo protocol in use.
pub const PROTOCOL_VERSION: &str = "1";

/// The version of our extensions, as `reconverge` in the metadata.
pub const EXTENSIONS: u64 = 2;

/// The first version whose servers answer a [`PING`].
pub const PINGS_SINCE: u64 = 2;

/// Asks a server whether it is still there.
pub const PING: Message<'static> = Message::Unknown { kind: "ping" };

/// It is.
pub const PONG: Message<'static> = Message::Unknown { kind: "pong" };

/// Why bytes from a peer are not a message. The peer must act: its connection is closed, unless it is
/// a sync message that [exceeds a limit](ProtocolError::is_of_its_document).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Not a CBOR map of the expected form.
    #[error("malformed frame: {0}")]
    Cbor(String),
    /// A field that this kind of message must have is missing or has another type.
    #[error("message \"{}\" lacks field \"{field}\"", kind.escape_default())]
    Field {
        /// The message's `type`.
        kind: String,
        /// The field's name on the wire.
        field: &'static str,
    },
    /// Not an Automerge sync message.
    #[error("malformed sync message: {0}")]
    Sync(&'static str),
    /// More of something than is allowed.
    #[error("{what}: {found} is above the limit of {max}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much came.
        found: usize,
        /// How much is allowed.
        max: usize,
    },
    /// A message that this state of the conversation does not allow.
    #[error("{0}")]
    Unexpected(&'static str),
    /// The peer speaks automerge-repo's protocol of before 1.0, which had channels.
    #[error(
        "this is the protocol of automerge-repo before 1.0 (it has a \"channelId\"), and only \
         version 1 is spoken here: update the client to automerge-repo 1.0 or newer"
    )]
    BeforeV1,
    /// The peer speaks another version of the protocol.
    #[error("unsupported protocol version")]
    Version,
}

impl ProtocolError {
    /// Whether a sync message that is read with this error is one, but not of a size that is taken:
    /// that concerns its document, and no other document of the connection.
    #[must_use]
    pub fn is_of_its_document(&self) -> bool {
        matches!(self, Self::Limit { .. })
    }
}
