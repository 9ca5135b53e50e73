//! What peers say of themselves in the handshake, `join` and `peer`.

use std::borrow::Cow;

use minicbor::Decoder;
use minicbor::data::Type;

use super::cbor_reader::{Entries, Texts, malformed, read_text, skip};
use super::cbor_writer::FrameEncoder;
use super::error::ProtocolError;
use super::limits::{PROTOCOL_VERSION_BYTES_MAX, PROTOCOL_VERSIONS_MAX, STORAGE_ID_BYTES_MAX};

/// The only version of the automerge-repo protocol in use.
pub const PROTOCOL_VERSION: &str = "1";

/// The versions of the protocol that a client speaks.
pub(super) const VERSIONS: Texts = Texts {
    list: "entries of supportedProtocolVersions",
    entries_max: PROTOCOL_VERSIONS_MAX,
    entry: "bytes of a protocol version",
    bytes_max: PROTOCOL_VERSION_BYTES_MAX,
};

/// What a peer says of itself in the handshake.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeerMetadata<'a> {
    /// The id of the storage behind it. A peer remembers across connections what we have of a
    /// document only if we present one.
    pub storage_id: Option<Cow<'a, str>>,
    /// Whether it keeps nothing.
    pub is_ephemeral: bool,
    /// The version of Reconverge's extensions that it understands, 0 for none.
    pub reconverge: u64,
}

impl<'a> PeerMetadata<'a> {
    pub(super) fn read(d: &mut Decoder<'a>) -> Result<Self, ProtocolError> {
        let mut metadata = Self::default();
        let mut map = Entries::open(d)?;
        while let Some(key) = map.next(d)? {
            let kind = d.datatype().map_err(malformed)?;
            match (key, kind) {
                ("storageId", Type::String) => {
                    let text = read_text(d, "storageId", STORAGE_ID_BYTES_MAX)?;
                    metadata.storage_id = Some(Cow::Borrowed(text));
                }
                ("isEphemeral", Type::Bool) => {
                    metadata.is_ephemeral = d.bool().map_err(malformed)?
                }
                ("reconverge", Type::U8) => metadata.reconverge = d.u64().map_err(malformed)?,
                _ => skip(d)?,
            }
        }
        Ok(metadata)
    }

    pub(super) fn write(&self, e: &mut FrameEncoder) {
        e.text("peerMetadata");
        let fields = 1 + u64::from(self.storage_id.is_some()) + u64::from(self.reconverge > 0);
        e.map(fields);
        if let Some(id) = &self.storage_id {
            e.pair("storageId", id);
        }
        e.text("isEphemeral");
        e.bool(self.is_ephemeral);
        if self.reconverge > 0 {
            e.text("reconverge");
            e.number(self.reconverge as f64);
        }
    }
}
