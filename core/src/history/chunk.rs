//! Chunks: the units in which Automerge stores and sends changes.
//!
//! A chunk is `85 6f 4a 83`, four bytes of checksum, a kind, the length of its data (LEB128) and
//! the data. The hash of a change is SHA-256 over kind, length and data; the checksum is the
//! hash's first four bytes. A deflated change has the hash of its inflated form.

use std::borrow::Cow;
use std::io::Read;

use automerge::ChangeHash;
use bytes::Bytes;
use flate2::bufread::DeflateDecoder;
use sha2::{Digest, Sha256};

use super::limits::{CHANGE_BYTES_MAX, KEPT_RATIO_MAX};
use crate::leb::{Reader, push_unsigned};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkKind {
    /// A whole document with its history.
    Document,
    /// One change.
    Change,
    /// One change, deflated.
    DeflatedChange,
    /// Several changes in the form of a document; experimental in automerge 0.12.
    Bundle,
}

/// One chunk, borrowing from the bytes it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// What it holds.
    pub kind: ChunkKind,
    /// The first four bytes of its hash, as it claims.
    pub checksum: [u8; 4],
    /// What is behind the header.
    pub data: &'a [u8],
    /// All of it.
    pub bytes: &'a [u8],
}

/// Why bytes are not a chunk that may enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// No chunk starts here, or it is cut short.
    #[error("not an Automerge chunk")]
    Malformed,
    /// The checksum is not that of the data.
    #[error("checksum does not match")]
    Checksum,
    /// Inflating it gives nonsense or more than [`CHANGE_BYTES_MAX`], or it is as large without.
    #[error("does not inflate to a change of at most {CHANGE_BYTES_MAX} bytes")]
    Inflate,
}

impl<'a> Chunk<'a> {
    /// The chunk at the start of `bytes`, and what follows it.
    ///
    /// # Errors
    /// [`ChunkError::Malformed`]; the checksum is not looked at.
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ChunkError> {
        Self::read(bytes).ok_or(ChunkError::Malformed)
    }

    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader(bytes);
        if reader.take(4)? != MAGIC {
            return None;
        }
        let checksum = reader.take(4)?.try_into().ok()?;
        let kind = match reader.take(1)?[0] {
            0 => ChunkKind::Document,
            1 => ChunkKind::Change,
            2 => ChunkKind::DeflatedChange,
            3 => ChunkKind::Bundle,
            _ => return None,
        };
        let data = reader.prefixed()?;
        let len = bytes.len() - reader.0.len();
        Some((
            Self {
                kind,
                checksum,
                data,
                bytes: &bytes[..len],
            },
            reader.0,
        ))
    }

    /// The hash of this chunk's bytes as they are, its checksum verified.
    ///
    /// # Errors
    /// [`ChunkError::Checksum`].
    pub fn verified_hash(&self) -> Result<ChangeHash, ChunkError> {
        let kind = match self.kind {
            ChunkKind::Document => 0,
            ChunkKind::Change | ChunkKind::DeflatedChange => 1,
            ChunkKind::Bundle => 3,
        };
        let hash = hash(kind, self.data);
        if hash.0[..4] == self.checksum {
            Ok(hash)
        } else {
            Err(ChunkError::Checksum)
        }
    }

    /// This change in its inflated form.
    ///
    /// # Errors
    /// [`ChunkError::Inflate`], before more than [`CHANGE_BYTES_MAX`] is allocated.
    pub fn inflated(&self) -> Result<Cow<'a, [u8]>, ChunkError> {
        let inflated = self.inflated_within(CHANGE_BYTES_MAX)?;
        inflated.ok_or(ChunkError::Inflate)
    }

    /// The same, unless its data would have more than `max` bytes: then `None`, and nothing is
    /// allocated.
    ///
    /// # Errors
    /// [`ChunkError::Inflate`], if it is no deflated data, or has something behind it.
    pub(crate) fn inflated_within(&self, max: usize) -> Result<Option<Cow<'a, [u8]>>, ChunkError> {
        if self.kind != ChunkKind::DeflatedChange {
            let fits = self.data.len() <= max;
            return Ok(fits.then_some(Cow::Borrowed(self.bytes)));
        }
        let Some(len) = inflated_len(self.data, max)? else {
            return Ok(None);
        };
        let mut bytes = Vec::with_capacity(len + 24);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.checksum);
        bytes.push(1);
        push_unsigned(&mut bytes, len as u64);
        let read = DeflateDecoder::new(self.data).read_to_end(&mut bytes);
        read.map_err(|_| ChunkError::Inflate)?;
        Ok(Some(Cow::Owned(bytes)))
    }

    /// The first `len` bytes of the data of a deflated change, or all of it.
    pub(crate) fn inflated_beginning(&self, len: usize) -> Option<Vec<u8>> {
        let mut data = Vec::new();
        let mut inflate = DeflateDecoder::new(self.data).take(len as u64);
        inflate.read_to_end(&mut data).ok()?;
        Some(data)
    }

    /// The form in which a change is kept and passed on: inflated, in which it is of most use, or as
    /// it came if that is much shorter.
    pub(crate) fn kept(&self, inflated: &[u8]) -> Bytes {
        let is_much_shorter = inflated.len() > self.bytes.len() * KEPT_RATIO_MAX;
        Bytes::copy_from_slice(if is_much_shorter {
            self.bytes
        } else {
            inflated
        })
    }
}

/// How many bytes deflated data has, without keeping any of them; `None` if more than `max`.
fn inflated_len(deflated: &[u8], max: usize) -> Result<Option<usize>, ChunkError> {
    let mut decoder = DeflateDecoder::new(deflated);
    let limit = max as u64 + 1;
    let len = std::io::copy(&mut decoder.by_ref().take(limit), &mut std::io::sink());
    let len = len.map_err(|_| ChunkError::Inflate)?;
    if len == limit {
        return Ok(None);
    }
    let is_whole = decoder.total_in() == deflated.len() as u64;
    is_whole
        .then_some(Some(len as usize))
        .ok_or(ChunkError::Inflate)
}

/// The hash of a chunk that is not deflated, of which nothing is known; `None` if it is none.
#[must_use]
pub fn chunk_hash(bytes: &[u8]) -> Option<ChangeHash> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, hashed) = rest.split_first_chunk::<4>()?;
    let hash = ChangeHash(Sha256::digest(hashed).into());
    (*magic == MAGIC && hash.0.starts_with(checksum)).then_some(hash)
}

/// Whether a chunk that is not deflated is the one that its checksum says.
#[must_use]
pub fn chunk_is_whole(bytes: &[u8]) -> bool {
    chunk_hash(bytes).is_some()
}

/// The bytes of a change that Automerge read, inflated.
pub(crate) fn change_bytes(change: &automerge::Change) -> Bytes {
    Bytes::copy_from_slice(change.raw_bytes())
}

fn hash(kind: u8, data: &[u8]) -> ChangeHash {
    let mut header = vec![kind];
    push_unsigned(&mut header, data.len() as u64);
    ChangeHash(
        Sha256::new()
            .chain_update(&header)
            .chain_update(data)
            .finalize()
            .into(),
    )
}
