//! One document in a relay's storage, and commits that fail when they are told to.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use automerge::{Automerge, Change, ChangeHash};
use bytes::Bytes;
use reconverge::id::DocumentId;
use reconverge::storage::{Batch, Blob, DocumentKey, Storage, Stored, Write, segments};

/// What a commit that fails leaves behind; whoever commits learns only that it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was written.
    Nothing,
    /// All of it was written.
    Written,
}

/// A commit failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed;

/// One document in a relay's storage.
#[derive(Debug)]
pub(super) struct Store {
    storage: Arc<dyn Storage>,
    document: DocumentId,
    key: DocumentKey,
    fails: Option<Failure>,
    /// Everything that is in storage, noted when it is written.
    durable: HashSet<ChangeHash>,
}

impl Store {
    /// A document that nobody wrote to before, or of which it does not matter what was written.
    pub(super) fn new(storage: Arc<dyn Storage>, document: DocumentId) -> Self {
        let stored = storage.load(&document).unwrap();
        Self {
            document,
            key: stored.map_or_else(|| storage.new_key(), |stored| stored.key),
            storage,
            fails: None,
            durable: HashSet::new(),
        }
    }

    /// The same document, as a relay finds it that starts again.
    pub(super) fn found_again(&mut self) -> Self {
        Self {
            durable: std::mem::take(&mut self.durable),
            ..Self::new(self.storage.clone(), self.document)
        }
    }

    /// The next commit fails.
    pub(super) fn fail_next(&mut self, failure: Failure) {
        self.fails = Some(failure);
    }

    /// Notes what is there, however it was written.
    pub(super) fn read_back(&mut self) {
        self.durable = self.hashes();
    }

    /// Whether this change is in storage.
    pub(super) fn has(&self, change: &ChangeHash) -> bool {
        self.durable.contains(change)
    }

    /// Notes that a change was taken out.
    pub(super) fn taken_out(&mut self, change: &ChangeHash) {
        self.durable.remove(change);
    }

    /// What is there, but for blobs.
    pub(super) fn load(&self) -> Option<Stored> {
        self.storage.load(&self.document).unwrap()
    }

    pub(super) fn blob(&self, blob: Blob) -> Bytes {
        self.storage.blob(self.key, blob).unwrap()
    }

    /// The snapshot of a generation; the first has none.
    pub(super) fn snapshot(&self, generation: u32) -> Option<Bytes> {
        (generation > 0).then(|| self.blob(Blob::Snapshot(generation)))
    }

    /// The first segments of the graph.
    pub(super) fn segments(&self, count: u32) -> Vec<Bytes> {
        segments(&*self.storage, self.key, count).unwrap()
    }

    pub(super) fn changes(&self, range: Range<u32>) -> Vec<Bytes> {
        self.storage.changes(self.key, &[range]).unwrap()
    }

    /// Commits, or fails as it was told to.
    pub(super) fn commit(&mut self, writes: Vec<Write>) -> Result<(), Failed> {
        let failure = self.fails.take();
        if failure != Some(Failure::Nothing) {
            let mut written = HashSet::new();
            for write in &writes {
                match write {
                    Write::Row { row, .. } => {
                        written.extend(row.changes.iter().map(|c| c.hash));
                    }
                    Write::Blob(Blob::Snapshot(_), bytes) => {
                        written.extend(hashes(&Automerge::load(bytes).unwrap()));
                    }
                    _ => {}
                }
            }
            let (document, key) = (self.document, self.key);
            let batch = Batch {
                document,
                key,
                writes,
            };
            self.storage.commit(&[batch]).map_err(|_| Failed)?;
            self.durable.extend(written);
        }
        failure.map_or(Ok(()), |_| Err(Failed))
    }

    /// Everything, loaded by Automerge.
    pub(super) fn contents(&self) -> Automerge {
        let Some(stored) = self.load() else {
            return Automerge::new();
        };
        let snapshot = self.snapshot(stored.record.generation);
        let mut document = snapshot.map_or_else(Automerge::new, |snapshot| {
            Automerge::load(&snapshot).unwrap()
        });
        assert_eq!(
            document.get_changes_meta(&[]).len(),
            stored.record.folded as usize
        );
        let changes = stored.rows.iter().flat_map(|row| &row.changes);
        let changes = changes.map(|c| Change::try_from(c.bytes.as_ref()).unwrap());
        document.apply_changes(changes).unwrap();
        document
    }

    /// The hashes of everything, also of what makes no document.
    fn hashes(&self) -> HashSet<ChangeHash> {
        let Some(stored) = self.load() else {
            return HashSet::new();
        };
        let snapshot = self.snapshot(stored.record.generation);
        let mut all = snapshot.map_or_else(HashSet::new, |snapshot| {
            hashes(&Automerge::load(&snapshot).unwrap())
        });
        let changes = stored.rows.iter().flat_map(|row| &row.changes);
        all.extend(changes.map(|change| change.hash));
        all
    }
}

/// The hashes of all changes of a document.
#[must_use]
pub fn hashes(document: &Automerge) -> HashSet<ChangeHash> {
    let changes = document.get_changes_meta(&[]);
    changes.iter().map(|change| change.hash).collect()
}
