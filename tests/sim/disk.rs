//! A disk that keeps all that was ever committed, so that it can be set back to any commit.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use automerge::{Automerge, ChangeHash};
use bytes::Bytes;
use reconverge::history::Row;
use reconverge::id::DocumentId;
use reconverge::storage::{
    Acknowledged, Batch, Blob, DocumentKey, MemoryStorage, Refused, Salvaged, Storage,
    StorageError, Stored, Write,
};
use reconverge_tests::world::{Failure, hashes};

/// A storage that fails on command. What a commit wrote before it failed is up to the command.
#[derive(Debug)]
pub(crate) struct Disk {
    id: Arc<str>,
    tables: MemoryStorage,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    log: Vec<Batch>,
    /// The first batches of the log, which no crash takes away.
    synced: usize,
    next_key: u64,
    fails: Option<Failure>,
    /// The process that used it crashed in a commit.
    crashes: bool,
    crashed: bool,
    reading_fails: bool,
    /// A commit returns before it is synced.
    #[cfg(feature = "planted")]
    hasty: bool,
    changes: HashMap<DocumentId, HashSet<ChangeHash>>,
}

impl Disk {
    /// A disk with these commits on it.
    pub(crate) fn holding(id: &str, log: &[Batch]) -> Arc<Self> {
        let disk = Self {
            id: id.into(),
            tables: MemoryStorage::new(id),
            state: Mutex::default(),
        };
        disk.state().next_key = 1;
        for batch in log {
            disk.write(batch);
        }
        let mut state = disk.state();
        state.synced = state.log.len();
        drop(state);
        Arc::new(disk)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All commits so far.
    pub(crate) fn log(&self) -> Vec<Batch> {
        self.state().log.clone()
    }

    /// What a crash leaves, if all writes that were not synced are lost.
    pub(crate) fn after_crash(&self) -> Arc<Self> {
        let state = self.state();
        Self::holding(&self.id, &state.log[..state.synced])
    }

    /// The next commit fails.
    pub(crate) fn fail_next(&self, failure: Failure) {
        self.state().fails = Some(failure);
    }

    /// The next commit does not return: the machine is gone.
    pub(crate) fn crash_at_next(&self, failure: Failure) {
        let mut state = self.state();
        state.fails = Some(failure);
        state.crashes = true;
    }

    /// The next document cannot be read.
    pub(crate) fn fail_next_reading(&self) {
        self.state().reading_fails = true;
    }

    /// Whether a commit crashed.
    pub(crate) fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// No fault any more.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.fails = None;
        state.crashes = false;
        state.reading_fails = false;
    }

    /// Commits return before they are synced.
    #[cfg(feature = "planted")]
    pub(crate) fn be_hasty(&self) {
        self.state().hasty = true;
    }

    /// Whether all these changes of a document are here.
    pub(crate) fn has<'a>(
        &self,
        document: &DocumentId,
        changes: impl IntoIterator<Item = &'a ChangeHash>,
    ) -> bool {
        let state = self.state();
        let here = state.changes.get(document);
        changes
            .into_iter()
            .all(|hash| here.is_some_and(|here| here.contains(hash)))
    }

    /// The hashes of a document's changes.
    pub(crate) fn changes_of(&self, document: &DocumentId) -> HashSet<ChangeHash> {
        self.state()
            .changes
            .get(document)
            .cloned()
            .unwrap_or_default()
    }

    fn write(&self, batch: &Batch) {
        let batches = std::slice::from_ref(batch);
        self.tables.commit(batches).expect("memory does not fail");
        let mut state = self.state();
        state.next_key = state.next_key.max(batch.key.0 + 1);
        for write in &batch.writes {
            match write {
                Write::Row { row, .. } => state
                    .changes
                    .entry(batch.document)
                    .or_default()
                    .extend(row.changes.iter().map(|change| change.hash)),
                Write::Blob(Blob::Snapshot(_), _) | Write::RemoveRowsFrom(_) => {
                    let stored = self.tables.load(&batch.document).expect("does not fail");
                    let stored = stored.expect("it has a record");
                    let mut all = match stored.record.generation {
                        0 => HashSet::new(),
                        generation => {
                            let blob = Blob::Snapshot(generation);
                            let snapshot = self.tables.blob(stored.key, blob).expect("is there");
                            hashes(&Automerge::load(&snapshot).expect("was built here"))
                        }
                    };
                    let after = stored.rows.iter().flat_map(|row| &row.changes);
                    all.extend(after.map(|change| change.hash));
                    state.changes.insert(batch.document, all);
                }
                Write::RemoveDocument | Write::RemoveContents => {
                    state.changes.remove(&batch.document);
                }
                _ => {}
            }
        }
        state.log.push(batch.clone());
    }
}

impl Storage for Disk {
    fn storage_id(&self) -> Arc<str> {
        self.id.clone()
    }

    fn new_key(&self) -> DocumentKey {
        let mut state = self.state();
        state.next_key += 1;
        DocumentKey(state.next_key - 1)
    }

    fn load(&self, document: &DocumentId) -> Result<Option<Stored>, StorageError> {
        if std::mem::take(&mut self.state().reading_fails) {
            return Err(StorageError::failed(io::Error::other("as it was told")));
        }
        self.tables.load(document)
    }

    fn refused(&self, key: DocumentKey) -> Result<Vec<(Arc<str>, Refused)>, StorageError> {
        self.tables.refused(key)
    }

    fn blob(&self, key: DocumentKey, blob: Blob) -> Result<Bytes, StorageError> {
        self.tables.blob(key, blob)
    }

    fn changes(&self, key: DocumentKey, ranges: &[Range<u32>]) -> Result<Vec<Bytes>, StorageError> {
        self.tables.changes(key, ranges)
    }

    fn blob_piece(&self, key: DocumentKey, blob: Blob, number: u32) -> Result<Bytes, StorageError> {
        self.tables.blob_piece(key, blob, number)
    }

    fn rows(
        &self,
        key: DocumentKey,
        from: u32,
        bytes: usize,
    ) -> Result<Vec<(u32, Row)>, StorageError> {
        self.tables.rows(key, from, bytes)
    }

    fn acknowledged(&self, key: DocumentKey) -> Result<Vec<Acknowledged>, StorageError> {
        self.tables.acknowledged(key)
    }

    fn outbox(&self) -> Result<Vec<DocumentId>, StorageError> {
        self.tables.outbox()
    }

    fn documents(
        &self,
        after: Option<&DocumentId>,
        max: usize,
    ) -> Result<Vec<DocumentId>, StorageError> {
        self.tables.documents(after, max)
    }

    /// The simulation's clients know their relays from the start.
    fn name_relays(&self, _: &[Arc<str>]) -> Result<(), StorageError> {
        Ok(())
    }

    fn salvage(&self, document: &DocumentId) -> Result<Salvaged, StorageError> {
        self.tables.salvage(document)
    }

    fn aside(&self, document: &DocumentId) -> Result<Vec<Bytes>, StorageError> {
        self.tables.aside(document)
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StorageError> {
        let mut state = self.state();
        if state.crashed {
            return Err(StorageError::Closed);
        }
        let failure = state.fails.take();
        if failure.is_some() {
            state.crashed = std::mem::take(&mut state.crashes);
        }
        drop(state);
        if failure != Some(Failure::Nothing) {
            #[cfg(feature = "planted")]
            let before = self.state().log.len();
            batches.iter().for_each(|batch| self.write(batch));
            let mut state = self.state();
            state.synced = state.log.len();
            #[cfg(feature = "planted")]
            if state.hasty {
                state.synced = before;
            }
        }
        match failure {
            None => Ok(()),
            Some(_) => Err(StorageError::failed(io::Error::other("as it was told"))),
        }
    }
}
