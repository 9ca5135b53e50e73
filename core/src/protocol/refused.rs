//! What a server says of changes that it does not take. Only peers that understand it are sent it.

use std::borrow::Cow;

use automerge::ChangeHash;
use minicbor::Decoder;

use super::cbor_reader::{malformed, within};
use super::cbor_writer::FrameEncoder;
use super::error::ProtocolError;
use super::limits::REFUSED_HASHES_MAX;

/// Codes of `refused` by which a client acts. [`Refusal::code`](crate::history::Refusal::code) has
/// those of changes.
pub mod code {
    /// The changes use an actor and a sequence number that other changes have: they are to be made
    /// again under a new actor.
    pub const ACTOR_REUSED: &str = "actor_reused";
    /// The document with the changes cannot be built: the client checks its own.
    pub const UNSOUND: &str = "unsound";
    /// A message has more of something than is taken.
    pub const LIMIT: &str = "limit";
    /// The peer may read only.
    pub const READ_ONLY: &str = "read_only";
}

/// The fields of `refused`.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused<'a> {
    /// Who sends.
    pub sender: &'a str,
    /// For whom.
    pub target: &'a str,
    /// The document's id as text.
    pub document: Cow<'a, str>,
    /// The changes that are not taken, as far as they could be named and fit.
    pub hashes: Vec<ChangeHash>,
    /// Why, for a program: stable, and listed in `docs/internals/check.md`. Relays before it had none
    /// send none, which is the empty text.
    pub code: &'a str,
    /// Why, for a person to read.
    pub reason: &'a str,
}

pub(super) fn read_hashes(d: &mut Decoder<'_>) -> Result<Vec<ChangeHash>, ProtocolError> {
    let mut hashes = Vec::new();
    for bytes in d
        .array_iter::<&minicbor::bytes::ByteSlice>()
        .map_err(malformed)?
    {
        let bytes: &[u8] = bytes.map_err(malformed)?;
        let hash = <[u8; 32]>::try_from(bytes)
            .map_err(|_| ProtocolError::Cbor("a hash has 32 bytes".into()))?;
        within("hashes in refused", hashes.len() + 1, REFUSED_HASHES_MAX)?;
        hashes.push(ChangeHash(hash));
    }
    Ok(hashes)
}

impl Refused<'_> {
    pub(super) fn write(&self, e: &mut FrameEncoder) {
        e.begin(7, "refused", Some(self.sender));
        e.pair("targetId", self.target);
        e.pair("documentId", &self.document);
        e.text("hashes");
        e.hashes(&self.hashes);
        e.pair("code", self.code);
        e.pair("reason", self.reason);
    }
}
