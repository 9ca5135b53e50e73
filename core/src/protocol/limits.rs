//! The largest length or count of every field of every message, checked when it is read and before
//! anything is made of it.
//!
//! | field | most | what clients send |
//! |---|---|---|
//! | a WebSocket message | [`MESSAGE_BYTES_MAX`] | |
//! | `type` | [`KIND_BYTES_MAX`] bytes | 26 |
//! | `senderId`, `targetId` | [`PEER_ID_BYTES_MAX`] bytes | about 40 |
//! | `documentId` | [`DOCUMENT_ID_TEXT_BYTES_MAX`] bytes | 27 or 28 |
//! | `supportedProtocolVersions` | [`PROTOCOL_VERSIONS_MAX`] of [`PROTOCOL_VERSION_BYTES_MAX`] bytes | one, of 1 byte |
//! | `storageId`, and each in `add`, `remove`, `newHeads` | [`STORAGE_ID_BYTES_MAX`] bytes | 36 |
//! | `add`, `remove` | [`SUBSCRIPTIONS_MAX`] storage ids | few |
//! | `newHeads` | [`REMOTE_STORAGES_MAX`] storages | 1 |
//! | heads of a storage in `newHeads` | [`REMOTE_HEADS_MAX`], of [`HEAD_TEXT_BYTES_MAX`] bytes | mostly 1, of 51 bytes |
//! | `sessionId` | [`SESSION_ID_BYTES_MAX`] bytes | up to 36 |
//! | `data` of `ephemeral` | [`EPHEMERAL_BYTES_MAX`] bytes | |
//! | `message`, `reason` | [`REASON_BYTES_MAX`] bytes | |
//! | `code` of `refused` | [`CODE_BYTES_MAX`] bytes | up to 20 |
//! | `hashes` of `refused` | [`REFUSED_HASHES_MAX`] | |
//! | what is skipped | [`NESTING_MAX`] levels | |
//! | heads, `last_sync` | [`HEADS_MAX`] | mostly 1 |
//! | `need` | [`NEED_MAX`] | |
//! | `have` | [`HAVES_MAX`] | 1 |
//! | chunks | [`CHUNKS_MAX`] | |
//! | probes of a Bloom filter | [`BLOOM_PROBES_MAX`] | 7 |
//!
//! A message that has more of something is no message, and its sender is closed; except that more
//! heads, needs, haves or chunks concern their document only (see
//! [`ProtocolError::is_of_its_document`](super::ProtocolError::is_of_its_document)), and a storage
//! with more heads is left out of the gossip. What a change may have is listed in
//! [`history::limits`](crate::history::limits).

#[cfg(doc)]
use crate::id::PEER_ID_BYTES_MAX;

/// Largest WebSocket message in bytes, both ways; the `ws` server of npm has the same limit.
pub const MESSAGE_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Most change bytes that one sync message carries; a single larger chunk goes alone.
pub const SYNC_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest `type` in bytes.
pub const KIND_BYTES_MAX: usize = 64;

/// Longest text of a document id in bytes: 50 digits for 32 bytes, and `automerge:` before them.
pub const DOCUMENT_ID_TEXT_BYTES_MAX: usize = 80;

/// Most protocol versions in a `join`.
pub const PROTOCOL_VERSIONS_MAX: usize = 64;

/// Longest protocol version in bytes.
pub const PROTOCOL_VERSION_BYTES_MAX: usize = 64;

/// Longest id of a storage in bytes; clients use a UUID.
pub const STORAGE_ID_BYTES_MAX: usize = 64;

/// Most storage ids in each list of one `remote-subscription-change`, and most that one connection
/// may subscribe to.
pub const SUBSCRIPTIONS_MAX: usize = 1024;

/// Most storages in one `remote-heads-changed`; clients name one.
pub const REMOTE_STORAGES_MAX: usize = 256;

/// Most heads of one storage that are passed on.
pub const REMOTE_HEADS_MAX: usize = 256;

/// Longest text of a head in bytes: base58check of 32 bytes has 51.
pub const HEAD_TEXT_BYTES_MAX: usize = 64;

/// Longest session id of an ephemeral message in bytes.
pub const SESSION_ID_BYTES_MAX: usize = 128;

/// Largest ephemeral payload in bytes.
pub const EPHEMERAL_BYTES_MAX: usize = 1024 * 1024;

/// Longest reason in bytes, of an `error` or a `refused`.
pub const REASON_BYTES_MAX: usize = 4 * 1024;

/// Longest code in bytes.
pub const CODE_BYTES_MAX: usize = 64;

/// Most hashes in one `refused`.
pub const REFUSED_HASHES_MAX: usize = 64;

/// Deepest nesting of what is skipped in a frame, because nobody knows its key.
pub const NESTING_MAX: usize = 64;

/// Most heads in one sync message. A document has more heads only if as many replicas wrote at the
/// same time without hearing of each other. Each message names all of them, and each takes 32 bytes
/// or twice that: 100,000 make a message of 6.4 MB, which is sent to each peer again at each edit.
pub const HEADS_MAX: usize = 256 * 1024;

/// Most hashes that one message may ask for by name. A Bloom filter errs on 1 % of what it covers,
/// so a client that shares a million changes may ask for 10,000.
pub const NEED_MAX: usize = 64 * 1024;

/// Most `have` entries in one sync message; Automerge sends one.
pub const HAVES_MAX: usize = 16;

/// Most chunks in one sync message: 16 Mi changes do not fit into [`MESSAGE_BYTES_MAX`].
pub const CHUNKS_MAX: usize = 4 * 1024 * 1024;

/// Most probes of a Bloom filter; Automerge uses 7.
pub const BLOOM_PROBES_MAX: u32 = 32;
