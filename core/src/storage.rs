//! The contract between a relay (or a client) and its disk.
//!
//! A [`Storage`] keeps, per document, a small record, rows of changes as they arrived, and blobs:
//! snapshots, outlines, segments of the graph. A client also keeps which heads each relay
//! acknowledged and what it refused, and which documents have changes that some relay has not acknowledged. A storage
//! promises three things, which [`conformance`] checks for every backend:
//!
//! 1. [`Storage::commit`] is atomic over all its batches and durable when it returns `Ok`.
//! 2. After an `Err`, either all of it is there or none; whoever needs to know reads it back.
//! 3. What is read is what was committed, also by the threads of other readers meanwhile.
//!
//! Absent: merging, caching and any understanding of what the bytes mean.

pub mod checksum;
pub mod conformance;
mod memory;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use automerge::ChangeHash;
use bytes::Bytes;

use crate::history::{Fold, Quarantined, Record, Row, Unpacked, decode_heads, encode_heads};
use crate::id::{DocumentId, Space};

pub use memory::MemoryStorage;

/// A document's place in a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentKey(pub u64);

/// What went wrong between us and the disk. The world must act: the document's task ends and reads
/// again what is really there.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Reading or writing failed; nothing is known of the last commit until it is read back.
    #[error("storage failed: {0}")]
    Failed(Arc<dyn std::error::Error + Send + Sync>),
    /// The file is not as we left it, and says how to go on.
    #[error("{what}")]
    Unusable {
        /// The file, what is wrong with it, and what can be done.
        what: String,
    },
    /// Another process has the file.
    #[error("it is in use by another process, which must end first")]
    InUse,
    /// What was read is not what was written, or was written by a later version.
    #[error("stored data of document {document} is damaged: {what}")]
    Damaged {
        /// The document.
        document: String,
        /// What of it.
        what: &'static str,
    },
    /// The file was made by a version with another format.
    #[error("the file has format {found}, this version reads format {expected}")]
    Format {
        /// The file's format.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// The writer is gone, because the relay stops.
    #[error("storage is closed")]
    Closed,
}

impl StorageError {
    /// Wraps a backend's own error.
    pub fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(Arc::new(error))
    }
}

/// Large values of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Blob {
    /// A document chunk, by generation.
    Snapshot(u32),
    /// What admission must know of the changes in the snapshot of this generation.
    Outline(u32),
    /// A part of the graph of folded changes, counted from 0.
    Segment(u32),
    /// A lot of quarantined changes, counted from 0.
    Quarantine(u32),
}

impl Blob {
    /// What it is, for those who read of damage.
    #[cfg(feature = "native")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Snapshot(_) => "its snapshot",
            Self::Outline(_) => "its outline",
            Self::Segment(_) => "its graph",
            Self::Quarantine(_) => "a lot of quarantined changes",
        }
    }
}

/// One write of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Makes or replaces the document's record.
    Record(Record),
    /// Adds a row whose last change has this index.
    Row {
        /// The index of the row's last change.
        last: u32,
        /// The row.
        row: Row,
    },
    /// Adds a blob.
    Blob(Blob, Bytes),
    /// Removes a blob, if it is there.
    RemoveBlob(Blob),
    /// Removes the rows whose last change lies below this index.
    RemoveRowsBelow(u32),
    /// Removes the rows whose last change has this index or a higher one.
    RemoveRowsFrom(u32),
    /// Replaces the heads that a relay acknowledged.
    Acknowledged {
        /// The name under which the client knows the relay.
        relay: Arc<str>,
        /// Heads that are on the relay's disk.
        heads: Vec<ChangeHash>,
    },
    /// Replaces what a relay said it does not take; `None` if there is nothing like that any more.
    Refused {
        /// The name under which the client knows the relay.
        relay: Arc<str>,
        /// Its word.
        refused: Option<Refused>,
    },
    /// Puts the document into the outbox, or takes it out: it has changes that some relay has not
    /// acknowledged.
    Outbox(bool),
    /// Removes everything of the document, with what was quarantined and set aside of it.
    RemoveDocument,
    /// Removes what the document is made of, and what relays said of that; it has other contents
    /// from now on, which follow with their record. What was quarantined and set aside of it stays.
    RemoveContents,
    /// The document begins anew under the batch's key, with the record that follows. What it had
    /// under another, some of which is damaged, is left there; see [`Storage::aside`].
    SetAside,
}

/// A snapshot that takes the place of the one before.
#[derive(Debug, Clone)]
pub struct NewSnapshot {
    /// The record that names it.
    pub record: Record,
    /// The document chunk.
    pub snapshot: Bytes,
    /// The outline of the changes in it.
    pub outline: Bytes,
    /// The graph of those that were not folded before: the record's last segment.
    pub segment: Bytes,
}

impl NewSnapshot {
    /// Of a history that was folded into `snapshot`.
    #[must_use]
    pub fn folded(fold: &Fold, snapshot: Bytes) -> Self {
        let mut record = fold.record.clone();
        record.snapshot_bytes = snapshot.len() as u64;
        Self {
            record,
            snapshot,
            outline: fold.outline.clone(),
            segment: fold.segment.clone(),
        }
    }

    /// Of a document whose record was `before`, and of which `chunk` covers everything.
    #[must_use]
    pub fn unpacked(before: &Record, chunk: Bytes, unpacked: &Unpacked) -> Self {
        let mut record = before.clone();
        record.folded = unpacked.len;
        record.rows_from = unpacked.len;
        record.verified = unpacked.len;
        record.generation += 1;
        record.segments += 1;
        record.snapshot_bytes = chunk.len() as u64;
        record.heads.clone_from(&unpacked.heads);
        Self {
            record,
            snapshot: chunk,
            outline: unpacked.outline.clone(),
            segment: unpacked.segment.clone(),
        }
    }

    /// What makes it current, and removes the snapshot and outline before it and the rows that are
    /// not kept any more.
    #[must_use]
    pub fn into_writes(self) -> Vec<Write> {
        let Record {
            generation,
            segments,
            rows_from,
            ..
        } = self.record;
        let mut writes = vec![
            Write::Blob(Blob::Snapshot(generation), self.snapshot),
            Write::Blob(Blob::Outline(generation), self.outline),
            Write::Blob(Blob::Segment(segments - 1), self.segment),
            Write::Record(self.record),
        ];
        if generation > 1 {
            writes.push(Write::RemoveBlob(Blob::Snapshot(generation - 1)));
            writes.push(Write::RemoveBlob(Blob::Outline(generation - 1)));
        }
        writes.push(Write::RemoveRowsBelow(rows_from));
        writes
    }
}

/// What one document writes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The document.
    pub document: DocumentId,
    /// Its place.
    pub key: DocumentKey,
    /// The writes, applied in order.
    pub writes: Vec<Write>,
}

impl Batch {
    /// About how many bytes it adds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = |write: &Write| match write {
            Write::Row { row, .. } => row.bytes(),
            Write::Blob(_, bytes) => bytes.len(),
            Write::Acknowledged { heads, .. } => 64 + 32 * heads.len(),
            Write::Refused { refused, .. } => {
                let bytes = |refused: &Refused| {
                    refused.code.len() + refused.reason.len() + 32 * refused.changes.len()
                };
                64 + refused.as_ref().map_or(0, bytes)
            }
            Write::Record(_)
            | Write::RemoveBlob(_)
            | Write::RemoveRowsBelow(_)
            | Write::Outbox(_)
            | Write::RemoveRowsFrom(_)
            | Write::SetAside
            | Write::RemoveContents
            | Write::RemoveDocument => 64,
        };
        self.writes.iter().map(bytes).sum()
    }
}

/// A document as it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its place.
    pub key: DocumentKey,
    /// Its record.
    pub record: Record,
    /// Its outline, if it has a snapshot.
    pub outline: Option<Bytes>,
    /// The rows after the snapshot, in order.
    pub rows: Vec<Row>,
}

/// What is whole of a document that is damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Its space.
    pub space: Option<Space>,
    /// Its snapshot.
    pub snapshot: Option<Bytes>,
    /// The chunks of changes in rows, in order.
    pub changes: Vec<Bytes>,
    /// The changes that were quarantined.
    pub quarantined: Vec<Quarantined>,
}

/// The name of a relay, and the heads that it acknowledged of a document.
pub type Acknowledged = (Arc<str>, Vec<ChangeHash>);

/// Why a relay does not take some changes of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its code; empty if it gave none.
    pub code: String,
    /// Its words.
    pub reason: String,
    /// Some of the changes; none if it did not say which.
    pub changes: Vec<ChangeHash>,
}

/// Begins a code: no byte of a text in UTF-8.
const CODED: u8 = 0xff;

impl Refused {
    /// As it is stored: the length of the changes in 4 bytes, big endian; the changes; if there is a
    /// code, the byte 0xff, its length in a byte, and the code; the reason.
    ///
    /// # Panics
    /// When there are more changes than any message can name.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let changes = encode_heads(&self.changes);
        let len = u32::try_from(changes.len()).expect("limited by the message that named them");
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.extend_from_slice(&changes);
        if let Some(len) = u8::try_from(self.code.len()).ok().filter(|len| *len > 0) {
            bytes.extend_from_slice(&[CODED, len]);
            bytes.extend_from_slice(self.code.as_bytes());
        }
        bytes.extend_from_slice(self.reason.as_bytes());
        bytes
    }

    /// What [`Self::encode`] made; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let (changes, rest) = rest.split_at_checked(len)?;
        let (code, reason) = match rest {
            [CODED, len, rest @ ..] => rest.split_at_checked(usize::from(*len))?,
            reason => (&[][..], reason),
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        Some(Self {
            code: text(code)?,
            reason: text(reason)?,
            changes: decode_heads(changes)?,
        })
    }
}

/// A place where documents are kept. Methods block; they are called from threads that may.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// The id under which peers remember this storage, made when it was.
    fn storage_id(&self) -> Arc<str>;

    /// A place for a new document, never given twice, not even after a crash if something was
    /// committed there.
    fn new_key(&self) -> DocumentKey;

    /// What is needed to open a document; `None` if it was never stored.
    ///
    /// # Errors
    /// When reading fails or finds damage.
    fn load(&self, document: &DocumentId) -> Result<Option<Stored>, StorageError>;

    /// A blob.
    ///
    /// # Errors
    /// When reading fails, or the blob is not there.
    fn blob(&self, key: DocumentKey, blob: Blob) -> Result<Bytes, StorageError>;

    /// The bytes of the changes with these indexes, in order.
    ///
    /// # Errors
    /// When reading fails, or a change is not there.
    fn changes(&self, key: DocumentKey, ranges: &[Range<u32>]) -> Result<Vec<Bytes>, StorageError>;

    /// A part of a blob: [`BLOB_PIECE_BYTES`] from that many times `number` on, less at the
    /// blob's end, nothing after it.
    ///
    /// # Errors
    /// When reading fails, or the blob is not there.
    fn blob_piece(&self, key: DocumentKey, blob: Blob, number: u32) -> Result<Bytes, StorageError>;

    /// The rows whose last change has at least the index `from`, each with the index of its last
    /// change, in order: as many as have about `bytes` bytes, but one at least.
    ///
    /// # Errors
    /// When reading fails.
    fn rows(
        &self,
        key: DocumentKey,
        from: u32,
        bytes: usize,
    ) -> Result<Vec<(u32, Row)>, StorageError>;

    /// The heads that each relay acknowledged of a document, in the order of the relays' names.
    ///
    /// # Errors
    /// When reading fails or finds damage.
    fn acknowledged(&self, key: DocumentKey) -> Result<Vec<Acknowledged>, StorageError>;

    /// What relays said of a document that they do not take, in the order of the relays' names.
    ///
    /// # Errors
    /// When reading fails or finds damage.
    fn refused(&self, key: DocumentKey) -> Result<Vec<(Arc<str>, Refused)>, StorageError>;

    /// The documents in the outbox, in order.
    ///
    /// # Errors
    /// When reading fails or finds damage.
    fn outbox(&self) -> Result<Vec<DocumentId>, StorageError>;

    /// The documents that are stored, by their ids in order: those after this one, and at most so many.
    ///
    /// # Errors
    /// When reading fails or finds damage.
    fn documents(
        &self,
        after: Option<&DocumentId>,
        max: usize,
    ) -> Result<Vec<DocumentId>, StorageError>;

    /// Says for which relays the outbox speaks from now on. If one of them was not named the last
    /// time, every document is put into the outbox, in one commit: what that relay acknowledged,
    /// if anything, is older than the last changes.
    ///
    /// # Errors
    /// When anything failed; call it again.
    fn name_relays(&self, relays: &[Arc<str>]) -> Result<(), StorageError>;

    /// What is whole of a document that is damaged, as far as that can be read.
    ///
    /// # Errors
    /// When reading fails.
    fn salvage(&self, document: &DocumentId) -> Result<Salvaged, StorageError>;

    /// The chunks of changes that are whole in what was [set aside](Write::SetAside) of a document:
    /// some may be missing in it still.
    ///
    /// # Errors
    /// When reading fails.
    fn aside(&self, document: &DocumentId) -> Result<Vec<Bytes>, StorageError>;

    /// Writes all batches, or none of them.
    ///
    /// # Errors
    /// When anything failed. See the module's second promise.
    fn commit(&self, batches: &[Batch]) -> Result<(), StorageError>;
}

/// The size of all pieces of a blob but the last, in bytes: with its key, a piece fills a page of
/// 64 KiB.
pub const BLOB_PIECE_BYTES: usize = 64 * 1024 - 512;

/// How much [`each_change`] reads at a time.
const READ_BYTES: usize = 1024 * 1024;

/// Hands out a blob piece by piece; nothing stays open between them. Whoever replaces the blob
/// meanwhile makes this fail.
///
/// # Errors
/// When reading fails, or what `each` returns.
pub fn each_piece<E: From<StorageError>>(
    storage: &dyn Storage,
    key: DocumentKey,
    blob: Blob,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    for number in 0.. {
        let piece = storage.blob_piece(key, blob, number)?;
        each(&piece)?;
        if piece.len() < BLOB_PIECE_BYTES {
            break;
        }
    }
    Ok(())
}

/// The first segments of a document's graph, in order.
///
/// # Errors
/// When reading fails, or one is not there.
pub fn segments(
    storage: &dyn Storage,
    key: DocumentKey,
    count: u32,
) -> Result<Vec<Bytes>, StorageError> {
    (0..count)
        .map(|number| storage.blob(key, Blob::Segment(number)))
        .collect()
}

/// Hands out the bytes of the changes with these indexes in order; nothing stays open between
/// them. Whoever removes them meanwhile makes this fail.
///
/// # Errors
/// When reading fails, or what `each` returns.
pub fn each_change<E: From<StorageError>>(
    storage: &dyn Storage,
    key: DocumentKey,
    range: Range<u32>,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut next = range.start;
    while next < range.end {
        let rows = storage.rows(key, next, READ_BYTES)?;
        if rows.is_empty() {
            return Err(damaged(key.0, "a change is missing").into());
        }
        for (last, row) in rows {
            let mut changes = Vec::new();
            pick(
                &row,
                last,
                std::slice::from_ref(&(next..range.end)),
                &mut changes,
            );
            if changes.len() != (last + 1).min(range.end).saturating_sub(next) as usize {
                return Err(damaged(key.0, "a change is missing").into());
            }
            changes.iter().try_for_each(|bytes| each(bytes))?;
            next = last + 1;
        }
    }
    Ok(())
}

pub(crate) fn damaged(document: impl ToString, what: &'static str) -> StorageError {
    StorageError::Damaged {
        document: document.to_string(),
        what,
    }
}

/// Takes from `row`, whose last change has the index `last`, the changes that lie in `ranges`.
pub(crate) fn pick(row: &Row, last: u32, ranges: &[Range<u32>], into: &mut Vec<Bytes>) {
    let first = last + 1 - row.changes.len() as u32;
    for (at, change) in row.changes.iter().enumerate() {
        let index = first + at as u32;
        if ranges.iter().any(|range| range.contains(&index)) {
            into.push(change.bytes.clone());
        }
    }
}
