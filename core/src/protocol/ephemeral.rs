//! Ephemeral messages, of which presence is made: passed on and not kept.

use std::borrow::Cow;

use super::cbor_writer::FrameEncoder;

/// The fields of `ephemeral`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ephemeral<'a> {
    /// The author, who need not be the one it came from.
    pub sender: &'a str,
    /// For whom.
    pub target: &'a str,
    /// The document's id as text.
    pub document: Cow<'a, str>,
    /// Counts the author's messages in this session, across documents.
    pub count: u64,
    /// The author's run.
    pub session: &'a str,
    /// The payload, itself CBOR.
    pub data: &'a [u8],
}

impl Ephemeral<'_> {
    /// Everything of the frame but the payload, which comes last; so one payload serves many peers.
    #[must_use]
    pub fn encode_prefix(&self) -> Vec<u8> {
        let names = self.sender.len() + self.target.len() + self.document.len();
        let mut e = FrameEncoder::new(112 + names + self.session.len() + self.data.len().min(1024));
        e.begin(7, "ephemeral", Some(self.sender));
        e.pair("targetId", self.target);
        e.pair("documentId", &self.document);
        e.text("count");
        e.number(self.count as f64);
        e.pair("sessionId", self.session);
        e.text("data");
        e.bytes_header(self.data.len() as u64);
        e.frame()
    }
}
