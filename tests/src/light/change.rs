//! Changes as they travel, of which only hashes, deps and numbers are read.

use automerge::ChangeHash;
use bytes::Bytes;
use reconverge::history::chunk::{Chunk, ChunkKind};
use reconverge::leb::Reader;

/// One change as its author sends it.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its hash.
    pub hash: ChangeHash,
    /// The change chunk, not compressed.
    pub bytes: Bytes,
}

impl From<&automerge::Change> for Change {
    fn from(change: &automerge::Change) -> Self {
        Self {
            hash: change.hash(),
            bytes: Bytes::copy_from_slice(change.raw_bytes()),
        }
    }
}

/// The first of these chunks, and its hash if it is a change that is not deflated: then its
/// checksum is verified.
pub(super) fn read_chunk(bytes: &[u8]) -> Option<(Chunk<'_>, ChangeHash)> {
    let (chunk, _) = Chunk::split(bytes).ok()?;
    // A document chunk's hash has no use here, and hashing it would take the driver's time.
    let hash = match chunk.kind {
        ChunkKind::Change => chunk.verified_hash().ok()?,
        _ => ChangeHash([0; 32]),
    };
    Some((chunk, hash))
}

/// The beginning of a change's data: deps, and the author's sequence number.
pub(super) fn deps_and_seq(data: &[u8]) -> Option<(&[u8], u64)> {
    let mut input = Reader(data);
    let deps: usize = input.number()?;
    let deps = input.take(deps.checked_mul(32)?)?;
    input.prefixed()?;
    Some((deps, input.unsigned()?))
}

/// The hashes that these bytes are.
pub(super) fn hashes(bytes: &[u8]) -> impl Iterator<Item = ChangeHash> + '_ {
    bytes
        .chunks_exact(32)
        .map(|hash| ChangeHash(hash.try_into().unwrap()))
}

/// Splits bytes into changes: what a trace's cache holds.
///
/// # Panics
/// When they are anything but change chunks back to back.
#[must_use]
pub fn split_changes(bytes: &Bytes) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (chunk, hash) = read_chunk(&bytes[at..]).expect("chunks back to back");
        assert_eq!(chunk.kind, ChunkKind::Change, "change chunks only");
        changes.push(Change {
            hash,
            bytes: bytes.slice_ref(chunk.bytes),
        });
        at += chunk.bytes.len();
    }
    changes
}
