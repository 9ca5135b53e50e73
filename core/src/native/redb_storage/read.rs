//! Reading the tables, in the transaction that the caller began.

use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError};

use super::faults::of_redb;
use super::tables::{BLOBS, DOCUMENTS, META, OUTBOX, RECORDS, RELAYS, ROWS, blob_key};
use super::values::{SEALED, Whole, blob_place, decode_record, relay_place, row_place};
use crate::history::chunk::{chunk_hash, chunk_is_whole};
use crate::history::{Row, StoredChange};
use crate::id::DocumentId;
use crate::storage::{Blob, DocumentKey, StorageError, Stored, checksum, damaged, pick};

/// What is needed to open a document; `None` if it was never stored.
pub(super) fn document(
    transaction: &ReadTransaction,
    document: &DocumentId,
) -> Result<Option<Stored>, StorageError> {
    let place = || -> Result<_, redb::Error> {
        let documents = transaction.open_table(DOCUMENTS)?;
        let Some(key) = documents.get(document.as_bytes())?.map(|key| key.value()) else {
            return Ok(None);
        };
        let records = transaction.open_table(RECORDS)?;
        let record = records.get(key)?;
        let record = record.and_then(|bytes| decode_record(key, document, bytes.value()));
        Ok(Some((DocumentKey(key), record)))
    };
    let Some((key, record)) = place().map_err(of_redb)? else {
        return Ok(None);
    };
    let record = record.ok_or_else(|| damaged(document, "its record"))?;
    let outline = match record.generation {
        0 => None,
        generation => whole_blob(transaction, key, Blob::Outline(generation))?,
    };
    let mut rows = Vec::new();
    rows_from(transaction, key, record.folded, |_, row| {
        rows.push(row);
        true
    })?;
    Ok(Some(Stored {
        key,
        record,
        outline,
        rows,
    }))
}

/// A blob; `None` if there is none.
pub(super) fn whole_blob(
    transaction: &ReadTransaction,
    key: DocumentKey,
    blob: Blob,
) -> Result<Option<Bytes>, StorageError> {
    let (kind, number) = blob_key(blob);
    let read = || -> Result<_, redb::Error> {
        let blobs = transaction.open_table(BLOBS)?;
        let mut whole = Whole::default();
        for piece in blobs.range((key.0, kind, number, 0)..=(key.0, kind, number, u32::MAX))? {
            let (at, bytes) = piece?;
            let piece = at.value().3;
            whole.add(
                piece,
                &blob_place(key.0, kind, number, piece),
                bytes.value(),
            );
        }
        Ok(whole)
    };
    let whole = read().map_err(of_redb)?;
    if whole.pieces == 0 {
        return Ok(None);
    }
    let (bytes, is_checked) = whole.finish().ok_or_else(|| damaged(key.0, blob.name()))?;
    // Of version 1, only chunks have a checksum, which is their own.
    if !is_checked && matches!(blob, Blob::Snapshot(_)) && !chunk_is_whole(&bytes) {
        return Err(damaged(key.0, blob.name()));
    }
    Ok(Some(bytes))
}

/// A piece of a blob, empty after the last one; `None` if there is no such blob, or it is damaged.
pub(super) fn blob_piece(
    transaction: &ReadTransaction,
    key: DocumentKey,
    blob: Blob,
    number: u32,
) -> Result<Option<Bytes>, StorageError> {
    let (kind, of) = blob_key(blob);
    let read = || -> Result<_, redb::Error> {
        let blobs = transaction.open_table(BLOBS)?;
        let sealed = number | SEALED;
        if let Some(piece) = blobs.get((key.0, kind, of, sealed))? {
            let place = blob_place(key.0, kind, of, sealed);
            let piece = checksum::unseal_piece(&place, piece.value());
            return Ok(piece.map(|(piece, _)| Bytes::copy_from_slice(piece)));
        }
        if let Some(piece) = blobs.get((key.0, kind, of, number))? {
            return Ok(Some(Bytes::copy_from_slice(piece.value())));
        }
        // After the last one, if there is any.
        let before = number.checked_sub(1);
        let is_after = match before {
            Some(before) => match blobs.get((key.0, kind, of, before | SEALED))? {
                Some(piece) => {
                    let place = blob_place(key.0, kind, of, before | SEALED);
                    checksum::unseal_piece(&place, piece.value()).is_some_and(|last| last.1)
                }
                None => blobs.get((key.0, kind, of, 0))?.is_some(),
            },
            None => false,
        };
        Ok(is_after.then(Bytes::new))
    };
    read().map_err(of_redb)
}

/// The bytes of the changes with these indexes, in order, as far as they are there.
pub(super) fn changes(
    transaction: &ReadTransaction,
    key: DocumentKey,
    ranges: &[Range<u32>],
) -> Result<Vec<Bytes>, StorageError> {
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    rows_from(transaction, key, first.start, |index, row| {
        pick(&row, index, ranges, &mut found);
        index + 1 < last.end
    })?;
    Ok(found)
}

/// Reads the rows whose last change has at least the index `from`, while `each` says so.
pub(super) fn rows_from(
    transaction: &ReadTransaction,
    key: DocumentKey,
    from: u32,
    mut each: impl FnMut(u32, Row) -> bool,
) -> Result<(), StorageError> {
    let mut whole = Whole::default();
    let mut of = None;
    let mut next = from;
    let mut decode = |last: u32, whole: Whole| -> Result<bool, StorageError> {
        let row = whole.finish().and_then(|(bytes, is_checked)| {
            let row = Row::decode(&bytes)?;
            // Of version 1, only chunks have a checksum, which is their own.
            let is_whole = |change: &StoredChange| chunk_hash(&change.bytes) == Some(change.hash);
            (is_checked || row.changes.iter().all(is_whole)).then_some(row)
        });
        let row = row.ok_or_else(|| damaged(key.0, "a row of changes"))?;
        // The changes that come next are in it, or a row before it is gone.
        let first = (last as usize + 1).checked_sub(row.changes.len());
        if row.changes.is_empty() || first.is_none_or(|first| first > next as usize) {
            return Err(damaged(key.0, "a row of changes is missing"));
        }
        next = last + 1;
        Ok(each(last, row))
    };
    let rows = transaction.open_table(ROWS).map_err(of_redb)?;
    let range = rows.range((key.0, from, 0)..=(key.0, u32::MAX, u32::MAX));
    for piece in range.map_err(of_redb)? {
        let (place, bytes) = piece.map_err(of_redb)?;
        let (_, last, piece) = place.value();
        if let Some(before) = of.filter(|of| *of != last)
            && !decode(before, std::mem::take(&mut whole))?
        {
            return Ok(());
        }
        of = Some(last);
        whole.add(piece, &row_place(key.0, last, piece), bytes.value());
    }
    if let Some(last) = of {
        decode(last, whole)?;
    }
    Ok(())
}

/// What a table has of a document, by the names of relays.
pub(super) fn by_relay<T>(
    transaction: &ReadTransaction,
    key: DocumentKey,
    table: TableDefinition<'_, (u64, &'static str), &'static [u8]>,
    decode: impl Fn(&[u8]) -> Option<T>,
    what: &'static str,
) -> Result<Vec<(Arc<str>, T)>, StorageError> {
    let read = || -> Result<Vec<_>, redb::Error> {
        let table = match transaction.open_table(table) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            opened => opened?,
        };
        let entries = table.range((key.0, "")..(key.0 + 1, ""))?;
        entries
            .map(|entry| {
                let (place, bytes) = entry?;
                let relay = place.value().1;
                let value = checksum::unseal(&relay_place(key.0, relay), bytes.value());
                Ok((Arc::from(relay), value.and_then(&decode)))
            })
            .collect()
    };
    let entries = read().map_err(of_redb)?;
    let whole = |(relay, value): (Arc<str>, Option<T>)| Some((relay, value?));
    let whole: Option<Vec<_>> = entries.into_iter().map(whole).collect();
    whole.ok_or_else(|| damaged(key.0, what))
}

/// The documents in the outbox, in order.
pub(super) fn outbox(transaction: &ReadTransaction) -> Result<Vec<DocumentId>, StorageError> {
    let read = || -> Result<Vec<_>, redb::Error> {
        let outbox = match transaction.open_table(OUTBOX) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            opened => opened?,
        };
        let entries = outbox.iter()?;
        entries
            .map(|entry| Ok(DocumentId::new(entry?.0.value()).ok()))
            .collect()
    };
    let ids: Option<Vec<_>> = read().map_err(of_redb)?.into_iter().collect();
    ids.ok_or_else(|| damaged("outbox", "a document's id"))
}

/// The documents after this one in the order of their ids, at most so many.
pub(super) fn documents(
    transaction: &ReadTransaction,
    after: Option<&DocumentId>,
    max: usize,
) -> Result<Vec<DocumentId>, StorageError> {
    let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes()));
    let read = || -> Result<Vec<_>, redb::Error> {
        let documents = transaction.open_table(DOCUMENTS)?;
        let entries = documents.range::<&[u8]>((from, Bound::Unbounded))?;
        let ids = entries.take(max);
        ids.map(|entry| Ok(DocumentId::new(entry?.0.value()).ok()))
            .collect()
    };
    let ids: Option<Vec<_>> = read().map_err(of_redb)?.into_iter().collect();
    ids.ok_or_else(|| damaged("documents", "a document's id"))
}

/// The names of the relays for which the outbox speaks, one a line.
pub(super) fn relays(transaction: &ReadTransaction) -> Result<String, StorageError> {
    let read = || -> Result<_, redb::Error> {
        let named = transaction.open_table(META)?.get(RELAYS)?;
        Ok(named.map_or_else(String::new, |names| {
            String::from_utf8_lossy(names.value()).into_owned()
        }))
    };
    read().map_err(of_redb)
}

/// The documents that have quarantined changes, and how many lots of them.
pub(super) fn quarantined(
    transaction: &ReadTransaction,
) -> Result<Vec<(DocumentId, DocumentKey, u32)>, StorageError> {
    let read = || -> Result<_, redb::Error> {
        let records = transaction.open_table(RECORDS)?;
        let mut found = Vec::new();
        for entry in transaction.open_table(DOCUMENTS)?.iter()? {
            let (document, key) = entry?;
            let key = key.value();
            let document = DocumentId::new(document.value());
            let record = match &document {
                Ok(document) => records
                    .get(key)?
                    .and_then(|bytes| decode_record(key, document, bytes.value())),
                Err(_) => None,
            };
            found.push((document, DocumentKey(key), record));
        }
        Ok(found)
    };
    let mut quarantined = Vec::new();
    for (document, key, record) in read().map_err(of_redb)? {
        let document = document.map_err(|_| damaged(key.0, "its id"))?;
        let record = record.ok_or_else(|| damaged(document, "its record"))?;
        if record.quarantined > 0 {
            quarantined.push((document, key, record.quarantined));
        }
    }
    Ok(quarantined)
}

/// Bytes of keys and values, without redb's own structure and free pages.
pub(super) fn live_bytes(transaction: &ReadTransaction) -> Result<u64, StorageError> {
    let sum = || -> Result<u64, redb::Error> {
        let mut bytes = 0;
        for table in transaction.list_tables()? {
            let table = transaction.open_untyped_table(table)?;
            bytes += table.stats()?.stored_bytes();
        }
        Ok(bytes)
    };
    sum().map_err(of_redb)
}
