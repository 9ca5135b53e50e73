//! The gossip of remote heads: which storages have which heads of a document, and who wants to hear of
//! them.

use std::borrow::Cow;

use minicbor::Decoder;

use super::cbor_reader::{Entries, Texts, each_text, read_number, skip, within};
use super::cbor_writer::FrameEncoder;
use super::error::ProtocolError;
use super::limits::{
    HEAD_TEXT_BYTES_MAX, REMOTE_HEADS_MAX, REMOTE_STORAGES_MAX, STORAGE_ID_BYTES_MAX,
    SUBSCRIPTIONS_MAX,
};

/// The storages in a list of those whose heads are wanted, or not any more.
pub(super) const SUBSCRIPTIONS: Texts = Texts {
    list: "storage ids in a remote-subscription-change",
    entries_max: SUBSCRIPTIONS_MAX,
    entry: "bytes of a storage id",
    bytes_max: STORAGE_ID_BYTES_MAX,
};

/// The fields of `remote-heads-changed`.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteHeads<'a> {
    /// Who sends.
    pub sender: &'a str,
    /// For whom.
    pub target: &'a str,
    /// The document's id as text.
    pub document: Cow<'a, str>,
    /// What is known, per storage.
    pub heads: Vec<HeadsOfStorage<'a>>,
}

/// One storage's heads of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadsOfStorage<'a> {
    /// The storage's id.
    pub storage: &'a str,
    /// The heads, each base58check of 32 bytes.
    pub heads: Vec<Cow<'a, str>>,
    /// When they were seen, in milliseconds since 1970.
    pub timestamp_ms: f64,
}

/// A storage with more than [`REMOTE_HEADS_MAX`] heads is left out: its document goes on, and nobody
/// hears how far it got.
pub(super) fn read_new_heads<'a>(
    d: &mut Decoder<'a>,
) -> Result<Vec<HeadsOfStorage<'a>>, ProtocolError> {
    let mut all = Vec::new();
    let mut storages = 0;
    let mut map = Entries::open(d)?;
    while let Some(storage) = map.next(d)? {
        storages += 1;
        within("storages in newHeads", storages, REMOTE_STORAGES_MAX)?;
        within("bytes of a storage id", storage.len(), STORAGE_ID_BYTES_MAX)?;
        let mut of_storage = HeadsOfStorage {
            storage,
            heads: Vec::new(),
            timestamp_ms: 0.0,
        };
        let mut heads = 0;
        let mut fields = Entries::open(d)?;
        while let Some(key) = fields.next(d)? {
            match key {
                "heads" => each_text(d, |head| {
                    within("bytes of a head", head.len(), HEAD_TEXT_BYTES_MAX)?;
                    heads += 1;
                    if heads <= REMOTE_HEADS_MAX {
                        of_storage.heads.push(Cow::Borrowed(head));
                    }
                    Ok(())
                })?,
                "timestamp" => of_storage.timestamp_ms = read_number(d)?,
                _ => skip(d)?,
            }
        }
        if heads <= REMOTE_HEADS_MAX {
            all.push(of_storage);
        }
    }
    Ok(all)
}

impl RemoteHeads<'_> {
    pub(super) fn write(&self, e: &mut FrameEncoder) {
        e.begin(5, "remote-heads-changed", Some(self.sender));
        e.pair("targetId", self.target);
        e.pair("documentId", &self.document);
        e.text("newHeads");
        e.map(self.heads.len() as u64);
        for of_storage in &self.heads {
            e.text(of_storage.storage);
            e.map(2);
            e.text("heads");
            e.strings(&of_storage.heads);
            e.text("timestamp");
            e.number(of_storage.timestamp_ms);
        }
    }
}
