//! Chunks that no client makes: length and checksum are right, whatever is in them.

use reconverge::history::leb::push_unsigned;
use sha2::{Digest, Sha256};

/// A chunk around data.
#[must_use]
pub fn chunk(kind: u8, data: &[u8]) -> Vec<u8> {
    chunk_of_hash(kind, data, kind, data)
}

/// A chunk around `data` with the checksum of another form of it.
#[must_use]
pub fn chunk_of_hash(kind: u8, data: &[u8], hashed_kind: u8, hashed: &[u8]) -> Vec<u8> {
    let mut header = vec![hashed_kind];
    push_unsigned(&mut header, hashed.len() as u64);
    let hash = Sha256::new()
        .chain_update(&header)
        .chain_update(hashed)
        .finalize();
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83];
    bytes.extend_from_slice(&hash[..4]);
    bytes.push(kind);
    push_unsigned(&mut bytes, data.len() as u64);
    bytes.extend_from_slice(data);
    bytes
}
