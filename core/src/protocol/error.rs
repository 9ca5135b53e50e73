//! Why bytes are not a message, or not one that may come now.

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
