//! Sync messages as they are put on the wire.

use automerge::ChangeHash;
use reconverge::leb::push_unsigned;
use reconverge::protocol::{Version, encode_sync};

/// Appends chunks to a message that was said to have as many.
pub fn push_chunks(message: &mut Vec<u8>, chunks: &[impl AsRef<[u8]>]) {
    for chunk in chunks {
        push_unsigned(message, chunk.as_ref().len() as u64);
        message.extend_from_slice(chunk.as_ref());
    }
}

/// A sync message of whoever claims to have nothing but these heads.
#[must_use]
pub fn sync_message(heads: &[ChangeHash], need: &[ChangeHash], chunks: &[&[u8]]) -> Vec<u8> {
    let mut message = encode_sync(Version::V1, heads, need, None, chunks.len());
    push_chunks(&mut message, chunks);
    message
}
