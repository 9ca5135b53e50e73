//! What a document chunk says of itself, read without unpacking it. All of it is a claim.
//!
//! The data of a document chunk: actors; heads; the columns of changes and of operations
//! (specification and length each); their data.

use std::borrow::Cow;
use std::io::Read;

use automerge::ChangeHash;
use bytes::Bytes;
use flate2::bufread::DeflateDecoder;

use super::change::count_rows;
use super::chunk::{Chunk, ChunkKind};
use super::limits::CHANGE_BYTES_MAX;
use crate::leb::Reader;
use crate::protocol::{HEADS_MAX, SyncMessage};

impl Chunk<'_> {
    /// The heads that a document chunk names, without unpacking it. They are a claim.
    #[must_use]
    pub fn document_heads(&self) -> Option<Vec<ChangeHash>> {
        let mut input = Reader(self.data);
        for _ in 0..input.unsigned()? {
            input.prefixed()?;
        }
        let heads = input.unsigned()?;
        if heads > HEADS_MAX as u64 {
            return None;
        }
        (0..heads).map(|_| input.hash()).collect()
    }

    /// How many changes and operations a document chunk declares together, counted from the runs of
    /// a column of each without building a row. `None` if the columns are malformed, or those that are
    /// counted inflate to more than [`CHANGE_BYTES_MAX`] together.
    #[must_use]
    pub fn declared_rows(&self) -> Option<u64> {
        self.declared_rows_within(CHANGE_BYTES_MAX)
    }

    /// The same, if the columns inflate to at most `max` bytes, all together: an honest chunk has one of
    /// each kind, and a hostile one may repeat them.
    #[must_use]
    pub fn declared_rows_within(&self, max: usize) -> Option<u64> {
        let mut left = max;
        /// Of the changes: who made each.
        const ACTOR: u32 = 0x01;
        /// Of the operations: what each does.
        const ACTION: u32 = 0x42;
        const DEFLATED: u32 = 0x08;
        let mut input = Reader(self.data);
        for _ in 0..input.unsigned()? {
            input.prefixed()?;
        }
        let heads: usize = input.number()?;
        input.take(heads.checked_mul(32)?)?;
        // The column whose rows are counted, and a column.
        let mut columns = Vec::new();
        for counted in [ACTOR, ACTION] {
            for _ in 0..input.unsigned()? {
                columns.push((counted, input.number::<u32>()?, input.number()?));
            }
        }
        let mut rows = 0u64;
        for (counted, spec, len) in columns {
            let column = input.take(len)?;
            if spec & !DEFLATED == counted {
                let column = match spec & DEFLATED {
                    0 => Cow::Borrowed(column),
                    _ => {
                        let column = inflate(column, left)?;
                        left -= column.len();
                        column.into()
                    }
                };
                rows = rows.saturating_add(count_rows(&column)?);
            }
        }
        Some(rows)
    }
}

/// The first document chunk of an encoded sync message, sharing its bytes. `None` if there is none.
#[must_use]
pub fn first_document(message: &Bytes) -> Option<Bytes> {
    let decoded = SyncMessage::decode(message).ok()?;
    for mut bytes in decoded.changes {
        while let Ok((chunk, rest)) = Chunk::split(bytes) {
            if chunk.kind == ChunkKind::Document {
                return Some(message.slice_ref(chunk.bytes));
            }
            bytes = rest;
        }
    }
    None
}

/// `None` if it is nonsense or more than `max` bytes, before more is allocated.
fn inflate(deflated: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let read = DeflateDecoder::new(deflated)
        .take(max as u64 + 1)
        .read_to_end(&mut data);
    (read.ok()? <= max).then_some(data)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;
    use crate::leb::push_unsigned;

    /// A chunk with so many columns of who made each change, deflated, of 1 MiB each.
    fn chunk_with_columns(columns: u64) -> Vec<u8> {
        let mut column = DeflateEncoder::new(Vec::new(), Compression::best());
        column.write_all(&[1; 1 << 20]).unwrap();
        let column = column.finish().unwrap();
        let mut data = vec![0, 0];
        push_unsigned(&mut data, columns);
        for _ in 0..columns {
            data.push(0x09);
            push_unsigned(&mut data, column.len() as u64);
        }
        data.push(0);
        (0..columns).for_each(|_| data.extend_from_slice(&column));
        let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 0];
        push_unsigned(&mut chunk, data.len() as u64);
        chunk.extend_from_slice(&data);
        chunk
    }

    #[test]
    fn columns_that_are_repeated_are_inflated_up_to_the_limit_together() {
        let declared = |columns| {
            let chunk = chunk_with_columns(columns);
            let (chunk, _) = Chunk::split(&chunk).unwrap();
            chunk.declared_rows_within(1 << 20)
        };
        assert_eq!(declared(1), Some(1 << 19));
        assert_eq!(declared(2), None);
    }
}
