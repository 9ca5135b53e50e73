//! A storage without a disk, for tests, and for relays and clients that need not remember.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use automerge::ChangeHash;
use bytes::Bytes;

use super::{
    Acknowledged, BLOB_PIECE_BYTES, Batch, Blob, DocumentKey, Refused, Salvaged, Storage,
    StorageError, Stored, Write, damaged, pick,
};
use crate::history::{Quarantined, Record, Row};
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
    /// Documents of which something was damaged where this memory was filled from.
    damaged: HashMap<DocumentId, DocumentKey>,
    /// The chunks of changes of those that began anew.
    aside: HashMap<DocumentId, Vec<Bytes>>,
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

    /// What was read into this memory at `key`, from elsewhere, is not all of the document: the rest
    /// is damaged there.
    pub fn mark_damaged(&self, document: DocumentId, key: DocumentKey) {
        self.tables().damaged.insert(document, key);
    }

    /// Removes all of a document.
    pub fn forget(&self, document: &DocumentId) {
        let mut tables = self.tables();
        if let Some(key) = tables.key_of(document) {
            tables.remove(document, key);
        }
    }

    /// Adds chunks of changes to those that were set aside of a document.
    pub fn keep_aside(&self, document: DocumentId, chunks: Vec<Bytes>) {
        let mut tables = self.tables();
        tables.aside.entry(document).or_default().extend(chunks);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Nothing panics while it is held; a poisoned lock still holds whole commits.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn remove(&mut self, document: &DocumentId, key: DocumentKey) {
        self.documents.remove(document);
        self.outbox.remove(document);
        self.aside.remove(document);
        if let Some(damaged) = self.damaged.remove(document) {
            self.remove_key(damaged);
        }
        self.remove_key(key);
    }

    fn remove_key(&mut self, key: DocumentKey) {
        self.remove_contents(key);
        self.blobs.retain(|(of, _), _| *of != key);
    }

    fn remove_contents(&mut self, key: DocumentKey) {
        self.records.remove(&key);
        self.rows.retain(|(of, _), _| *of != key);
        let stays = |blob: &Blob| matches!(blob, Blob::Quarantine(_));
        self.blobs.retain(|(of, blob), _| *of != key || stays(blob));
        self.acknowledged.retain(|(of, _), _| *of != key);
        self.refused.retain(|(of, _), _| *of != key);
    }

    fn key_of(&self, document: &DocumentId) -> Option<DocumentKey> {
        let damaged = self.damaged.get(document);
        damaged.or_else(|| self.documents.get(document)).copied()
    }

    /// The chunks of changes that the rows at `key` have.
    fn chunks(&self, key: DocumentKey) -> impl Iterator<Item = Bytes> {
        let rows = self.rows.range((key, 0)..=(key, u32::MAX));
        rows.flat_map(|(_, row)| row.changes.iter().map(|change| change.bytes.clone()))
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
        if tables.damaged.contains_key(document) {
            return Err(damaged(document, "a value of it"));
        }
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

    fn salvage(&self, document: &DocumentId) -> Result<Salvaged, StorageError> {
        let tables = self.tables();
        let mut salvaged = Salvaged::default();
        if let Some(key) = tables.key_of(document) {
            salvaged.space = tables.records.get(&key).map(|record| record.space.clone());
            for ((of, blob), bytes) in &tables.blobs {
                match blob {
                    _ if *of != key => {}
                    Blob::Snapshot(_) => salvaged.snapshot = Some(bytes.clone()),
                    Blob::Quarantine(_) => {
                        let lot = Quarantined::decode(bytes).unwrap_or_default();
                        salvaged.quarantined.extend(lot);
                    }
                    Blob::Outline(_) | Blob::Segment(_) => {}
                }
            }
            salvaged.changes.extend(tables.chunks(key));
        }
        let aside = tables.aside.get(document).into_iter().flatten().cloned();
        salvaged.changes.extend(aside);
        Ok(salvaged)
    }

    fn aside(&self, document: &DocumentId) -> Result<Vec<Bytes>, StorageError> {
        let tables = self.tables();
        Ok(tables.aside.get(document).cloned().unwrap_or_default())
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
                    Write::RemoveContents => {
                        tables.outbox.remove(&batch.document);
                        tables.remove_contents(key);
                    }
                    Write::SetAside => {
                        if let Some(before) = tables.key_of(&batch.document) {
                            let chunks: Vec<_> = tables.chunks(before).collect();
                            let aside = tables.aside.entry(batch.document).or_default();
                            aside.extend(chunks);
                            tables.remove_key(before);
                            tables.damaged.remove(&batch.document);
                        }
                    }
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
