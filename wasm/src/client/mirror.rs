//! What is here of local storage, which JavaScript reads and writes: the stored documents that are
//! open, in memory, so that reading them never waits.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use js_sys::{Array, Uint8Array};
use reconverge::id::DocumentId;
use reconverge::storage::{Batch, Blob, MemoryStorage, Storage, StorageError, Stored, Write};
use wasm_bindgen::JsCast;

use crate::keys;

#[derive(Debug)]
pub(super) struct Mirror {
    storage: MemoryStorage,
    /// The documents of which something is in `storage`.
    documents: HashSet<DocumentId>,
    /// What was found damaged of a document, which is kept elsewhere when it begins anew.
    damaged: HashMap<DocumentId, Vec<DamagedEntry>>,
}

/// A key after the document's id, and the value that is damaged.
type DamagedEntry = (Vec<String>, Bytes);

impl Mirror {
    pub(super) fn new(storage_id: &str) -> Self {
        Self {
            storage: MemoryStorage::new(storage_id),
            documents: HashSet::new(),
            damaged: HashMap::new(),
        }
    }

    pub(super) fn storage(&self) -> &MemoryStorage {
        &self.storage
    }

    /// Whether something of a document is here.
    pub(super) fn has(&self, id: &DocumentId) -> bool {
        self.documents.contains(id)
    }

    /// Puts what JavaScript read where the engine reads it.
    pub(super) fn restore(
        &mut self,
        id: DocumentId,
        entries: &[Array],
    ) -> Result<(), StorageError> {
        let mut writes = Vec::new();
        let name = id.to_string();
        let (mut aside, mut damaged) = (Vec::new(), Vec::new());
        for entry in entries {
            let key: Array = entry.get(0).unchecked_into();
            let key: Vec<String> = key.iter().filter_map(|part| part.as_string()).collect();
            let value: Uint8Array = entry.get(1).unchecked_into();
            let value = Bytes::from(value.to_vec());
            let kind = key.first().map_or("", String::as_str);
            if kind == keys::ASIDE {
                match keys::unsealed(&name, &key, &value) {
                    Some(chunk) => aside.push(chunk),
                    None => damaged.push((key, value)),
                }
                continue;
            }
            let write = keys::entry(&name, &key, &value);
            if write.is_none() && matches!(kind, "acknowledged" | "refused") {
                // Without these, relays are asked and say it again.
                continue;
            }
            match write {
                Some(write) => writes.push(write),
                None => damaged.push((key, value)),
            }
        }
        let key = self.storage.new_key();
        if !aside.is_empty() {
            self.storage.keep_aside(id, aside);
        }
        if !damaged.is_empty() {
            self.storage.mark_damaged(id, key);
            self.damaged.insert(id, damaged);
        }
        if !writes.is_empty() {
            self.storage.commit(&[Batch {
                document: id,
                key,
                writes,
            }])?;
            self.documents.insert(id);
        }
        Ok(())
    }

    /// Takes in what is to be committed; the writes that do so.
    pub(super) fn store(&mut self, batch: &Batch) -> Array {
        // A commit that fails is given out again until it succeeds, so this only runs ahead.
        let committed = self.storage.commit(std::slice::from_ref(batch));
        committed.expect("memory does not fail");
        if batch.writes.contains(&Write::RemoveDocument) {
            self.documents.remove(&batch.document);
        } else {
            self.documents.insert(batch.document);
        }
        let writes = keys::writes(batch);
        if batch.writes.contains(&Write::SetAside) {
            self.keep_aside(batch.document, &writes);
        }
        writes
    }

    /// The writes for what was set aside of a document, and is damaged.
    fn keep_aside(&self, document: DocumentId, writes: &Array) {
        let id = document.to_string();
        let aside = self.storage.aside(&document);
        let aside = aside.expect("memory does not fail");
        for (number, chunk) in aside.iter().enumerate() {
            writes.push(&keys::aside(&id, number, chunk));
        }
        let damaged = self.damaged.get(&document);
        for (key, value) in damaged.into_iter().flatten() {
            writes.push(&keys::damaged(&id, key, value));
        }
    }

    /// All that is kept of a document that is open, as writes for a storage that lost it.
    pub(super) fn kept(
        &self,
        id: DocumentId,
        belongs_in_outbox: bool,
    ) -> Result<Array, StorageError> {
        let batch = match self.kept_batch(id, belongs_in_outbox) {
            // It begins anew, with a commit that has all that is whole.
            Err(StorageError::Damaged { .. }) => None,
            kept => kept?,
        };
        let writes = batch.map_or_else(Array::new, |batch| keys::writes(&batch));
        self.keep_aside(id, &writes);
        Ok(writes)
    }

    /// Documents that left the engine's memory leave this one too.
    pub(super) fn forget(&mut self, is_released: impl Fn(&DocumentId) -> bool) {
        let storage = &self.storage;
        self.damaged.retain(|id, _| !is_released(id));
        self.documents.retain(|id| {
            if is_released(id) {
                storage.forget(id);
                return false;
            }
            true
        });
    }

    fn kept_batch(
        &self,
        document: DocumentId,
        belongs_in_outbox: bool,
    ) -> Result<Option<Batch>, StorageError> {
        let Some(Stored { key, record, .. }) = self.storage.load(&document)? else {
            return Ok(None);
        };
        let generation = record.generation;
        let current = [Blob::Snapshot(generation), Blob::Outline(generation)];
        let numbered = (0..record.segments)
            .map(Blob::Segment)
            .chain((0..record.quarantined).map(Blob::Quarantine));
        let mut writes = Vec::new();
        for blob in current
            .into_iter()
            .filter(|_| generation > 0)
            .chain(numbered)
        {
            writes.push(Write::Blob(blob, self.storage.blob(key, blob)?));
        }
        let rows = self.storage.rows(key, record.rows_from, usize::MAX)?;
        writes.extend(rows.into_iter().map(|(last, row)| Write::Row { last, row }));
        for (relay, heads) in self.storage.acknowledged(key)? {
            writes.push(Write::Acknowledged { relay, heads });
        }
        for (relay, refused) in self.storage.refused(key)? {
            let refused = Some(refused);
            writes.push(Write::Refused { relay, refused });
        }
        writes.push(Write::Outbox(belongs_in_outbox));
        writes.push(Write::Record(record));
        Ok(Some(Batch {
            document,
            key,
            writes,
        }))
    }
}
