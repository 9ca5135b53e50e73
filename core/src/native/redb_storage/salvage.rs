//! What is whole of documents that are damaged. Each value is read by itself, as far as redb finds
//! its way.

use std::collections::BTreeSet;

use redb::TableError;

use super::RedbStorage;
use super::faults::of_redb;
use super::read::rows_from;
use super::tables::{ASIDE, BLOBS, DOCUMENTS, PieceKey, RECORDS, ROWS};
use super::values::decode_record;
use crate::history::Quarantined;
use crate::id::DocumentId;
use crate::storage::{Blob, DocumentKey, Salvaged, Storage, StorageError};

impl RedbStorage {
    /// The keys of what was set aside of a document, oldest first.
    pub(super) fn keys_aside(&self, document: &DocumentId) -> Result<Vec<u64>, StorageError> {
        self.database.read_of(document, |transaction| {
            let read = || -> Result<Vec<_>, redb::Error> {
                let aside = match transaction.open_table(ASIDE) {
                    Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                    opened => opened?,
                };
                let id = document.as_bytes();
                let keys = aside.range((id, 0)..=(id, u64::MAX))?;
                keys.map(|entry| Ok(entry?.0.value().1)).collect()
            };
            read().map_err(of_redb)
        })
    }

    /// The same, and its key now.
    pub(super) fn keys_of(&self, document: &DocumentId) -> Result<Vec<u64>, StorageError> {
        let mut keys = self.keys_aside(document).unwrap_or_default();
        let now = self.database.read_of(document, |transaction| {
            let read = || -> Result<_, redb::Error> {
                let documents = transaction.open_table(DOCUMENTS)?;
                Ok(documents.get(document.as_bytes())?.map(|key| key.value()))
            };
            read().map_err(of_redb)
        })?;
        keys.extend(now);
        Ok(keys)
    }

    pub(super) fn salvage_key(&self, document: &DocumentId, key: u64, salvaged: &mut Salvaged) {
        let record = self.database.read_of(key, |transaction| {
            let read = || -> Result<_, redb::Error> {
                let records = transaction.open_table(RECORDS)?;
                let record = records.get(key)?;
                Ok(record.and_then(|bytes| decode_record(key, document, bytes.value())))
            };
            read().map_err(of_redb)
        });
        if let Ok(Some(record)) = record {
            salvaged.space = Some(record.space);
        }
        let numbers = self.database.read_of(key, |transaction| {
            let read = || -> Result<BTreeSet<(u8, u32)>, redb::Error> {
                let blobs = transaction.open_table(BLOBS)?;
                let all = blobs.range((key, 0, 0, 0)..=(key, u8::MAX, u32::MAX, u32::MAX))?;
                let number = |place: PieceKey| (place.1, place.2);
                all.map(|entry| Ok(number(entry?.0.value()))).collect()
            };
            read().map_err(of_redb)
        });
        for (kind, number) in numbers.unwrap_or_default() {
            let blob = match kind {
                1 => Blob::Snapshot(number),
                4 => Blob::Quarantine(number),
                _ => continue,
            };
            match (blob, self.blob(DocumentKey(key), blob)) {
                (Blob::Snapshot(_), Ok(snapshot)) => salvaged.snapshot = Some(snapshot),
                (_, Ok(lot)) => {
                    let lot = Quarantined::decode(&lot).unwrap_or_default();
                    salvaged.quarantined.extend(lot);
                }
                (_, Err(_)) => {}
            }
        }
        self.salvage_rows(key, salvaged);
    }

    pub(super) fn salvage_rows(&self, key: u64, salvaged: &mut Salvaged) {
        let mut from = Some(0);
        while let Some(next) = from {
            let found = self.database.read_of(key, |transaction| {
                let mut last = None;
                let rows = transaction.open_table(ROWS).map_err(of_redb)?;
                let mut of_document = rows
                    .range((key, next, 0)..=(key, u32::MAX, u32::MAX))
                    .map_err(of_redb)?;
                if let Some(place) = of_document.next() {
                    last = Some(place.map_err(of_redb)?.0.value().1);
                }
                Ok(last)
            });
            let Ok(Some(last)) = found else {
                return;
            };
            let row = self.database.read_of(key, |transaction| {
                let mut row = None;
                // From its own index on, so that no gap before it counts.
                let read = rows_from(transaction, DocumentKey(key), last, |_, found| {
                    row = Some(found);
                    false
                });
                read.map(|()| row)
            });
            if let Ok(Some(row)) = row {
                salvaged
                    .changes
                    .extend(row.changes.into_iter().map(|change| change.bytes));
            }
            from = last.checked_add(1);
        }
    }
}
