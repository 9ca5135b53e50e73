//! Values as they lie in the tables: each with a checksum that covers its place too, and large ones
//! cut into pieces.

use bytes::{Bytes, BytesMut};

use crate::history::Record;
use crate::id::DocumentId;
use crate::storage::{BLOB_PIECE_BYTES, checksum};

/// This bit of a piece's number says that it is sealed; version 1 did not set it.
pub(super) const SEALED: u32 = 1 << 31;

pub(super) fn record_place(key: u64, document: &DocumentId) -> Vec<u8> {
    let mut place = vec![b'r'];
    place.extend_from_slice(&key.to_le_bytes());
    place.extend_from_slice(document.as_bytes());
    place
}

pub(super) fn relay_place(key: u64, relay: &str) -> Vec<u8> {
    let mut place = vec![b'a'];
    place.extend_from_slice(&key.to_le_bytes());
    place.extend_from_slice(relay.as_bytes());
    place
}

pub(super) fn row_place(key: u64, last: u32, piece: u32) -> [u8; 17] {
    let mut place = [b'w'; 17];
    place[1..9].copy_from_slice(&key.to_le_bytes());
    place[9..13].copy_from_slice(&last.to_le_bytes());
    place[13..].copy_from_slice(&piece.to_le_bytes());
    place
}

pub(super) fn blob_place(key: u64, kind: u8, number: u32, piece: u32) -> [u8; 18] {
    let mut place = [b'b'; 18];
    place[1..9].copy_from_slice(&key.to_le_bytes());
    place[9] = kind;
    place[10..14].copy_from_slice(&number.to_le_bytes());
    place[14..].copy_from_slice(&piece.to_le_bytes());
    place
}

pub(super) fn decode_record(key: u64, document: &DocumentId, stored: &[u8]) -> Option<Record> {
    Record::decode(checksum::unseal(&record_place(key, document), stored)?)
}

/// Cuts a value into numbered pieces and seals each; an empty one is one empty piece. redb rounds
/// the pages of large values up to a power of two.
pub(super) fn pieces<P: AsRef<[u8]>>(
    bytes: &[u8],
    place: impl Fn(u32) -> P,
) -> impl Iterator<Item = (u32, Vec<u8>)> {
    let empty = bytes.is_empty().then_some(bytes);
    let mut pieces = empty
        .into_iter()
        .chain(bytes.chunks(BLOB_PIECE_BYTES))
        .peekable();
    let mut number = 0;
    std::iter::from_fn(move || {
        let piece = pieces.next()?;
        let at = number | SEALED;
        number += 1;
        let is_last = pieces.peek().is_none();
        Some((at, checksum::seal_piece(place(at).as_ref(), piece, is_last)))
    })
}

/// A value that is put together from its pieces, in order.
#[derive(Debug, Default)]
pub(super) struct Whole {
    bytes: BytesMut,
    pub(super) pieces: u32,
    /// Each piece has its checksum.
    sealed: bool,
    /// The last one came.
    ended: bool,
    damaged: bool,
}

impl Whole {
    pub(super) fn add(&mut self, number: u32, place: &[u8], stored: &[u8]) {
        let is_sealed = number & SEALED != 0;
        self.damaged |= number & !SEALED != self.pieces;
        self.damaged |= self.pieces > 0 && (is_sealed != self.sealed || self.ended);
        self.sealed = is_sealed;
        self.pieces += 1;
        if !is_sealed {
            self.bytes.extend_from_slice(stored);
        } else if let Some((piece, is_last)) = checksum::unseal_piece(place, stored) {
            self.bytes.extend_from_slice(piece);
            self.ended = is_last;
        } else {
            self.damaged = true;
        }
    }

    /// The value, and whether its checksum was seen to be right; `None` if it is damaged.
    pub(super) fn finish(self) -> Option<(Bytes, bool)> {
        let whole = !self.damaged && (self.ended || !self.sealed);
        whole.then(|| (self.bytes.freeze(), self.sealed))
    }
}
