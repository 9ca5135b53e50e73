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

mod cbor_reader;
mod cbor_writer;
mod decode;
mod encode;
mod ephemeral;
mod error;
mod handshake;
pub mod limits;
mod message;
mod refused;
mod remote_heads;
mod sync;
mod sync_envelope;

pub use automerge::ChangeHash;
pub use decode::decode;
pub use encode::encode;
pub use ephemeral::Ephemeral;
pub use error::ProtocolError;
pub use handshake::{PROTOCOL_VERSION, PeerMetadata};
pub use limits::{
    BLOOM_PROBES_MAX, CHUNKS_MAX, EPHEMERAL_BYTES_MAX, HAVES_MAX, HEADS_MAX, MESSAGE_BYTES_MAX,
    NEED_MAX, NESTING_MAX, REFUSED_HASHES_MAX, SYNC_BYTES_MAX,
};
pub use message::Message;
pub use refused::{Refused, code};
pub use remote_heads::{HeadsOfStorage, RemoteHeads};
pub use sync::{Bloom, Flags, Have, SyncMessage, Version, encode_sync, named_heads};
pub use sync_envelope::SyncEnvelope;

/// The version of our extensions, as `reconverge` in the metadata.
pub const EXTENSIONS: u64 = 2;

/// The first version whose servers answer a [`PING`].
pub const PINGS_SINCE: u64 = 2;

/// Asks a server whether it is still there.
pub const PING: Message<'static> = Message::Unknown { kind: "ping" };

/// It is.
pub const PONG: Message<'static> = Message::Unknown { kind: "pong" };
