//! A storage without a disk, for tests, and for relays and clients that need not remember.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use automerge::ChangeHash;
use bytes::Bytes;

use super::{
    Acknowledged, BLOB_PIECE_BYTES, Batch, Blob, DocumentKey, Refused, Storage, StorageError,
    Stored, Write, damaged, pick,
};
use crate::history::{Record, Row};
use crate::id::DocumentId;

/// Keeps documents in memory. Durable as long as the process.
#[derive(Debug)]
pub struct MemoryStorage {
    storage_id: Arc<str>,
    next_key: AtomicU64,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    documents: HashMap<DocumentId, DocumentKey>,
    records: HashMap<DocumentKey, Record>,
    rows: BTreeMap<(DocumentKey, u32), Row>,
    blobs: HashMap<(DocumentKey, Blob), Bytes>,
    acknowledged: BTreeMap<(DocumentKey, Arc<str>), Vec<ChangeHash>>,
    refused: BTreeMap<(DocumentKey, Arc<str>), Refused>,
    outbox: BTreeSet<DocumentId>,
    relays: BTreeSet<Arc<str>>,
}

impl MemoryStorage {
    /// An empty storage under this id, which the caller draws.
    #[must_use]
    pub fn new(storage_id: &str) -> Self {
        Self {
            storage_id: storage_id.into(),
            next_key: AtomicU64::new(1),
            tables: Mutex::default(),
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Nothing panics while it is held; a poisoned lock still holds whole commits.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn remove(&mut self, document: &DocumentId, key: DocumentKey) {
        self.documents.remove(document);
        self.records.remove(&key);
        self.rows.retain(|(of, _), _| *of != key);
        self.blobs.retain(|(of, _), _| *of != key);
        self.acknowledged.retain(|(of, _), _| *of != key);
        self.refused.retain(|(of, _), _| *of != key);
        self.outbox.remove(document);
    }
}

impl Storage for MemoryStorage {
    fn storage_id(&self) -> Arc<str> {
        self.storage_id.clone()
    }

    fn new_key(&self) -> DocumentKey {
        DocumentKey(self.next_key.fetch_add(1, Ordering::Relaxed))
    }

    fn load(&self, document: &DocumentId) -> Result<Option<Stored>, StorageError> {
        let tables = self.tables();
        let Some(key) = tables.documents.get(document).copied() else {
            return Ok(None);
        };
        let record = tables
            .records
            .get(&key)
            .ok_or_else(|| damaged(document, "no record"))?;
        let outline = tables
            .blobs
            .get(&(key, Blob::Outline(record.generation)))
            .cloned();
        let rows = tables.rows.range((key, record.folded)..=(key, u32::MAX));
        let rows = rows.map(|(_, row)| row.clone()).collect();
        Ok(Some(Stored {
            key,
            record: record.clone(),
            outline,
            rows,
        }))
    }

    fn blob(&self, key: DocumentKey, blob: Blob) -> Result<Bytes, StorageError> {
        let found = self.tables().blobs.get(&(key, blob)).cloned();
        found.ok_or_else(|| damaged(key.0, "a blob is missing"))
    }

    fn changes(&self, key: DocumentKey, ranges: &[Range<u32>]) -> Result<Vec<Bytes>, StorageError> {
        let tables = self.tables();
        let mut found = Vec::new();
        let wanted: usize = ranges.iter().map(Range::len).sum();
        let from = ranges.first().map_or(0, |range| range.start);
        for ((_, last), row) in tables.rows.range((key, from)..=(key, u32::MAX)) {
            pick(row, *last, ranges, &mut found);
        }
        if found.len() == wanted {
            Ok(found)
        } else {
            Err(damaged(key.0, "a change is missing"))
        }
    }

    fn blob_piece(&self, key: DocumentKey, blob: Blob, number: u32) -> Result<Bytes, StorageError> {
        let whole = self.blob(key, blob)?;
        let from = whole.len().min(number as usize * BLOB_PIECE_BYTES);
        Ok(whole.slice(from..whole.len().min(from + BLOB_PIECE_BYTES)))
    }

    fn rows(
        &self,
        key: DocumentKey,
        from: u32,
        bytes: usize,
    ) -> Result<Vec<(u32, Row)>, StorageError> {
        let mut found = 0;
        let tables = self.tables();
        let rows = tables.rows.range((key, from)..=(key, u32::MAX));
        let enough = |(_, row): &(_, &Row)| {
            let before = found;
            found += row.bytes();
            before < bytes
        };
        let rows = rows.take_while(enough);
        Ok(rows.map(|((_, last), row)| (*last, row.clone())).collect())
    }

    fn acknowledged(&self, key: DocumentKey) -> Result<Vec<Acknowledged>, StorageError> {
        let tables = self.tables();
        let from = tables.acknowledged.range((key, Arc::from(""))..);
        let of_document = from.take_while(|((of, _), _)| *of == key);
        Ok(of_document
            .map(|((_, relay), heads)| (relay.clone(), heads.clone()))
            .collect())
    }

    fn refused(&self, key: DocumentKey) -> Result<Vec<(Arc<str>, Refused)>, StorageError> {
        let tables = self.tables();
        let from = tables.refused.range((key, Arc::from(""))..);
        let of_document = from.take_while(|((of, _), _)| *of == key);
        Ok(of_document
            .map(|((_, relay), refused)| (relay.clone(), refused.clone()))
            .collect())
    }

    fn outbox(&self) -> Result<Vec<DocumentId>, StorageError> {
        Ok(self.tables().outbox.iter().copied().collect())
    }

    fn name_relays(&self, relays: &[Arc<str>]) -> Result<(), StorageError> {
        let relays: BTreeSet<_> = relays.iter().cloned().collect();
        let mut tables = self.tables();
        if !relays.is_subset(&tables.relays) {
            let all: Vec<_> = tables.documents.keys().copied().collect();
            tables.outbox.extend(all);
        }
        tables.relays = relays;
        Ok(())
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StorageError> {
        let mut tables = self.tables();
        for batch in batches {
            let key = batch.key;
            for write in &batch.writes {
                match write {
                    Write::Record(record) => {
                        tables.documents.insert(batch.document, key);
                        tables.records.insert(key, record.clone());
                    }
                    Write::Row { last, row } => {
                        tables.rows.insert((key, *last), row.clone());
                    }
                    Write::Blob(blob, bytes) => {
                        tables.blobs.insert((key, *blob), bytes.clone());
                    }
                    Write::RemoveBlob(blob) => {
                        tables.blobs.remove(&(key, *blob));
                    }
                    Write::RemoveRowsBelow(index) => {
                        tables
                            .rows
                            .retain(|(of, last), _| *of != key || last >= index);
                    }
                    Write::RemoveRowsFrom(index) => {
                        tables
                            .rows
                            .retain(|(of, last), _| *of != key || last < index);
                    }
                    Write::Acknowledged { relay, heads } => {
                        tables
                            .acknowledged
                            .insert((key, relay.clone()), heads.clone());
                    }
                    Write::Refused { relay, refused } => {
                        let place = (key, relay.clone());
                        match refused {
                            Some(refused) => tables.refused.insert(place, refused.clone()),
                            None => tables.refused.remove(&place),
                        };
                    }
                    Write::Outbox(true) => {
                        tables.outbox.insert(batch.document);
                    }
                    Write::Outbox(false) => {
                        tables.outbox.remove(&batch.document);
                    }
                    Write::RemoveDocument => tables.remove(&batch.document, key),
                    // Memory is not damaged; the record says which key it has.
                    Write::SetAside => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_the_contract() {
        super::super::conformance::check(|| Arc::new(MemoryStorage::new("memory")));
    }
}
