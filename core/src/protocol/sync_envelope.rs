//! The frame around a sync message.

use std::borrow::Cow;

use super::cbor_writer::FrameEncoder;

/// The fields of `sync` and `request`.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncEnvelope<'a> {
    /// Who sends.
    pub sender: &'a str,
    /// For whom.
    pub target: &'a str,
    /// The document's id as text.
    pub document: Cow<'a, str>,
    /// The sync message's bytes.
    pub data: &'a [u8],
    /// Whether the type is `request`.
    pub request: bool,
}

impl SyncEnvelope<'_> {
    /// Everything of the frame but the sync message itself, which is its last `data_len` bytes; so
    /// one encoded sync message serves many peers. Room for `spare` more bytes is reserved.
    #[must_use]
    pub fn encode_prefix(&self, data_len: usize, spare: usize) -> Vec<u8> {
        let names = self.sender.len() + self.target.len() + self.document.len();
        let mut e = FrameEncoder::new(80 + names + spare);
        e.begin(
            5,
            if self.request { "request" } else { "sync" },
            Some(self.sender),
        );
        e.pair("targetId", self.target);
        e.pair("documentId", &self.document);
        e.text("data");
        e.bytes_header(data_len as u64);
        e.frame()
    }
}
