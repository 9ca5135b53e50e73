//! A storage without a disk, for tests, and for relays and clients that need not remember.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    documents: HashMap<DocumentId, Location>,
    contents: HashMap<DocumentKey, Contents>,
    outbox: HashSet<DocumentId>,
    relays: Vec<Arc<str>>,
}

/// Where a document is.
#[derive(Debug, Default)]
struct Location {
    key: Option<DocumentKey>,
    /// Something was damaged where this memory was filled from, with the rest of it here.
    damaged: Option<DocumentKey>,
    /// The chunks of changes that it had before it began anew.
    aside: Vec<Bytes>,
}

/// What is kept at one key. Lists are in the order of what comes first in their entries.
#[derive(Debug, Default)]
struct Contents {
    record: Option<Record>,
    /// With the indexes of their last changes.
    rows: Vec<(u32, Row)>,
    blobs: HashMap<Blob, Bytes>,
    acknowledged: Vec<Acknowledged>,
    refused: Vec<(Arc<str>, Refused)>,
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
        self.tables().location(document).damaged = Some(key);
    }

    /// Removes all of a document.
    pub fn forget(&self, document: &DocumentId) {
        self.tables().remove(document);
    }

    /// Adds chunks of changes to those that were set aside of a document.
    pub fn keep_aside(&self, document: DocumentId, chunks: Vec<Bytes>) {
        self.tables().location(document).aside.extend(chunks);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Nothing panics while it is held; a poisoned lock still holds whole commits.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn remove(&mut self, document: &DocumentId) {
        self.outbox.remove(document);
        let location = self.documents.remove(document).unwrap_or_default();
        for key in [location.key, location.damaged].into_iter().flatten() {
            self.contents.remove(&key);
        }
    }

    fn location(&mut self, document: DocumentId) -> &mut Location {
        self.documents.entry(document).or_default()
    }

    fn key_of(&self, document: &DocumentId) -> Option<DocumentKey> {
        let location = self.documents.get(document)?;
        location.damaged.or(location.key)
    }

    fn at(&mut self, key: DocumentKey) -> &mut Contents {
        self.contents.entry(key).or_default()
    }

    /// The rows at `key` whose last change has at least the index `from`.
    fn rows(&self, key: DocumentKey, from: u32) -> &[(u32, Row)] {
        let rows = self.contents.get(&key).map_or(&[][..], |at| &at.rows);
        &rows[find(rows, &from).unwrap_or_else(|at| at)..]
    }

    /// The chunks of changes that the rows at `key` have.
    fn chunks(&self, key: DocumentKey) -> impl Iterator<Item = Bytes> {
        let changes = self.rows(key, 0).iter().flat_map(|(_, row)| &row.changes);
        changes.map(|change| change.bytes.clone())
    }
}

/// Where an entry is in a list that is in order, or where it would be.
fn find<K: Ord, V>(list: &[(K, V)], key: &K) -> Result<usize, usize> {
    list.binary_search_by(|(other, _)| other.cmp(key))
}

fn put<K: Ord, V>(list: &mut Vec<(K, V)>, key: K, value: V) {
    match find(list, &key) {
        Ok(at) => list[at].1 = value,
        Err(at) => list.insert(at, (key, value)),
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
        let location = tables.documents.get(document);
        if location.is_some_and(|location| location.damaged.is_some()) {
            return Err(damaged(document, "a value of it"));
        }
        let Some(key) = location.and_then(|location| location.key) else {
            return Ok(None);
        };
        let found = tables.contents.get(&key);
        let Some((found, record)) = found.and_then(|found| Some((found, found.record.as_ref()?)))
        else {
            return Err(damaged(document, "no record"));
        };
        let rows = tables.rows(key, record.folded).iter();
        Ok(Some(Stored {
            key,
            record: record.clone(),
            outline: found.blobs.get(&Blob::Outline(record.generation)).cloned(),
            rows: rows.map(|(_, row)| row.clone()).collect(),
        }))
    }

    fn blob(&self, key: DocumentKey, blob: Blob) -> Result<Bytes, StorageError> {
        let tables = self.tables();
        let found = tables.contents.get(&key).and_then(|at| at.blobs.get(&blob));
        found
            .cloned()
            .ok_or_else(|| damaged(key.0, "a blob is missing"))
    }

    fn changes(&self, key: DocumentKey, ranges: &[Range<u32>]) -> Result<Vec<Bytes>, StorageError> {
        let tables = self.tables();
        let mut found = Vec::new();
        let wanted: usize = ranges.iter().map(Range::len).sum();
        let from = ranges.first().map_or(0, |range| range.start);
        for (last, row) in tables.rows(key, from) {
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
        let enough = |(_, row): &&(u32, Row)| {
            let before = found;
            found += row.bytes();
            before < bytes
        };
        let tables = self.tables();
        let rows = tables.rows(key, from).iter().take_while(enough);
        Ok(rows.cloned().collect())
    }

    fn acknowledged(&self, key: DocumentKey) -> Result<Vec<Acknowledged>, StorageError> {
        let tables = self.tables();
        let found = tables.contents.get(&key);
        Ok(found.map_or_else(Vec::new, |at| at.acknowledged.clone()))
    }

    fn refused(&self, key: DocumentKey) -> Result<Vec<(Arc<str>, Refused)>, StorageError> {
        let tables = self.tables();
        let found = tables.contents.get(&key);
        Ok(found.map_or_else(Vec::new, |at| at.refused.clone()))
    }

    fn outbox(&self) -> Result<Vec<DocumentId>, StorageError> {
        let mut outbox: Vec<_> = self.tables().outbox.iter().copied().collect();
        outbox.sort_unstable();
        Ok(outbox)
    }

    fn documents(
        &self,
        after: Option<&DocumentId>,
        max: usize,
    ) -> Result<Vec<DocumentId>, StorageError> {
        let tables = self.tables();
        let stored = tables
            .documents
            .iter()
            .filter(|(_, location)| location.key.is_some());
        let stored = stored.map(|(document, _)| *document);
        let mut found: Vec<_> = stored.filter(|document| Some(document) > after).collect();
        found.sort_unstable();
        found.truncate(max);
        Ok(found)
    }

    fn name_relays(&self, relays: &[Arc<str>]) -> Result<(), StorageError> {
        let mut tables = self.tables();
        if !relays.iter().all(|relay| tables.relays.contains(relay)) {
            let Tables {
                documents, outbox, ..
            } = &mut *tables;
            let stored = documents
                .iter()
                .filter(|(_, location)| location.key.is_some());
            outbox.extend(stored.map(|(document, _)| document));
        }
        tables.relays = relays.to_vec();
        Ok(())
    }

    fn salvage(&self, document: &DocumentId) -> Result<Salvaged, StorageError> {
        let tables = self.tables();
        let mut salvaged = Salvaged::default();
        if let Some(key) = tables.key_of(document) {
            let found = tables.contents.get(&key);
            let record = found.and_then(|at| at.record.as_ref());
            salvaged.space = record.map(|record| record.space.clone());
            for (blob, bytes) in found.into_iter().flat_map(|at| &at.blobs) {
                match blob {
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
        if let Some(location) = tables.documents.get(document) {
            salvaged.changes.extend_from_slice(&location.aside);
        }
        Ok(salvaged)
    }

    fn aside(&self, document: &DocumentId) -> Result<Vec<Bytes>, StorageError> {
        let tables = self.tables();
        let location = tables.documents.get(document);
        Ok(location.map_or_else(Vec::new, |location| location.aside.clone()))
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StorageError> {
        let mut tables = self.tables();
        for batch in batches {
            let key = batch.key;
            for write in &batch.writes {
                match write {
                    Write::Record(record) => {
                        tables.location(batch.document).key = Some(key);
                        tables.at(key).record = Some(record.clone());
                    }
                    Write::Row { last, row } => put(&mut tables.at(key).rows, *last, row.clone()),
                    Write::Blob(blob, bytes) => {
                        tables.at(key).blobs.insert(*blob, bytes.clone());
                    }
                    Write::RemoveBlob(blob) => {
                        tables.at(key).blobs.remove(blob);
                    }
                    Write::RemoveRowsBelow(index) => {
                        tables.at(key).rows.retain(|(last, _)| last >= index);
                    }
                    Write::RemoveRowsFrom(index) => {
                        tables.at(key).rows.retain(|(last, _)| last < index);
                    }
                    Write::Acknowledged { relay, heads } => {
                        put(
                            &mut tables.at(key).acknowledged,
                            relay.clone(),
                            heads.clone(),
                        );
                    }
                    Write::Refused { relay, refused } => {
                        let all = &mut tables.at(key).refused;
                        match (refused, find(all, relay)) {
                            (Some(refused), _) => put(all, relay.clone(), refused.clone()),
                            (None, Ok(at)) => drop(all.remove(at)),
                            (None, Err(_)) => {}
                        }
                    }
                    Write::Outbox(true) => {
                        tables.outbox.insert(batch.document);
                    }
                    Write::Outbox(false) => {
                        tables.outbox.remove(&batch.document);
                    }
                    Write::RemoveDocument => tables.remove(&batch.document),
                    Write::RemoveContents => {
                        tables.outbox.remove(&batch.document);
                        let mut blobs = std::mem::take(&mut tables.at(key).blobs);
                        blobs.retain(|blob, _| matches!(blob, Blob::Quarantine(_)));
                        *tables.at(key) = Contents {
                            blobs,
                            ..Contents::default()
                        };
                    }
                    Write::SetAside => {
                        if let Some(before) = tables.key_of(&batch.document) {
                            let chunks: Vec<_> = tables.chunks(before).collect();
                            let location = tables.location(batch.document);
                            location.aside.extend(chunks);
                            location.damaged = None;
                            tables.contents.remove(&before);
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
