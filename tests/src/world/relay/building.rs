//! What the workshop builds for a document, and what becomes of it: uploads that are unpacked, and
//! checks of what is stored, which may fold it or take changes out.

use std::collections::HashMap;

use bytes::Bytes;
use reconverge::contents::{Brought, Unsound, Verdict};
use reconverge::history::document_chunk::first_document;
use reconverge::history::{DocumentChunks, Fold, Quarantined, Refusal, Unpacked};
use reconverge::id::ConnectionId;
use reconverge::storage::{Blob, NewSnapshot, Write};

use super::store::Failed;
use super::workshop::{Basis, Built, Job};
use super::{Input, Open, Relay};

/// Most document chunks of one message that are unpacked, as in the relay.
const UNPACKS_MAX: u32 = 4;

impl Relay {
    pub(super) fn unpack(&mut self, from: ConnectionId, message: Bytes, tries: u32) {
        let chunk = first_document(&message).expect("a chunk was reported");
        self.uploads.entry(from).or_default().push_front(message);
        self.start_unpacking(from, chunk, tries, false);
    }

    fn start_unpacking(&mut self, from: ConnectionId, chunk: Bytes, tries: u32, changes: bool) {
        let known = self.with_graph(|history| history.hashes());
        let basis = self.basis();
        let segment_from = self.opened().history.record().folded;
        self.jobs.push(Job::Unpack {
            from,
            chunk,
            known,
            segment_from,
            changes,
            tries,
            basis,
        });
    }

    /// Whether something that is stored is not checked yet, as far as is known without opening.
    #[must_use]
    pub fn is_unverified(&self) -> bool {
        let history = self.open.as_ref().map(|open| &open.history);
        history.is_some_and(|history| history.verified() < history.len()) && !self.checking
    }

    /// Starts to fold everything into a new snapshot, however little it is.
    pub fn begin_fold(&mut self) {
        self.begin_check(true);
    }

    /// Starts to check what is stored, and to fold it if `folds`.
    pub fn begin_check(&mut self, folds: bool) {
        self.turn();
        let Some(open) = &self.open else {
            // A commit failed.
            return;
        };
        let history = &open.history;
        let record = history.record();
        let done = match folds {
            true => record.folded,
            false => history.verified(),
        };
        if self.checking || !open.stored || done == history.len() {
            return;
        }
        self.checking = true;
        let range = record.folded..history.len();
        self.jobs.push(Job::Check {
            fold: folds.then(|| history.begin_fold()),
            from: record.folded,
            len: history.len(),
            epoch: self.epoch,
            heads: history.heads(),
            snapshot: self.store.snapshot(record.generation),
            changes: self.store.changes(range),
        });
    }

    /// Finishes a job, and turns.
    pub fn finish_job(&mut self, at: usize) {
        let built = self.jobs.remove(at).run();
        self.backlog.push_back(Input::Built(built));
        self.turn();
    }

    pub(super) fn checked(
        &mut self,
        fold: Option<&Fold>,
        from: u32,
        len: u32,
        verdict: &Verdict,
    ) -> Result<(), Failed> {
        self.save()?;
        match (verdict, fold) {
            (Verdict::Sound(Some(snapshot)), Some(fold)) => self.folded(fold, snapshot.clone()),
            (Verdict::Sound(_), _) => {
                let history = &mut self.opened().history;
                history.set_verified(len);
                let record = history.record().clone();
                self.store.commit(vec![Write::Record(record)])
            }
            (Verdict::Unsound(unsound), _) => self.take_out(from, unsound),
        }
    }

    fn folded(&mut self, fold: &Fold, snapshot: Bytes) -> Result<(), Failed> {
        if fold.record.generation != self.opened().history.record().generation + 1 {
            return Ok(());
        }
        let new = NewSnapshot::folded(fold, snapshot);
        #[cfg(feature = "planted")]
        let new = self.planted_snapshot(new);
        let record = new.record.clone();
        self.store.commit(new.into_writes())?;
        self.snapshots.0 += 1;
        self.opened().history.folded(record);
        Ok(())
    }

    #[cfg(feature = "planted")]
    fn planted_snapshot(&mut self, mut new: NewSnapshot) -> NewSnapshot {
        if reconverge::planted::is(reconverge::planted::Bug::SnapshotWithoutTail) {
            new.record.folded = self.opened().history.len();
            new.record.rows_from = new.record.folded;
            new.record.verified = new.record.folded;
        }
        new
    }

    /// Takes stored changes out, as if a check had found fault with them.
    pub fn quarantine(&mut self, indexes: &[u32]) {
        self.turn();
        let from = self.history().record().folded;
        let unsound: Vec<_> = indexes
            .iter()
            .map(|index| Unsound {
                at: index - from,
                reason: "the test says so".into(),
            })
            .collect();
        let verdict = Verdict::Unsound(unsound);
        self.backlog.push_back(Input::Built(Built::Checked {
            fold: None,
            from,
            len: 0,
            epoch: self.epoch,
            verdict,
        }));
        self.turn();
    }

    fn take_out(&mut self, from: u32, unsound: &[Unsound]) -> Result<(), Failed> {
        let folded = self.opened().history.record().folded;
        let unsound = unsound.iter();
        let refusal = |reason: &String| Refusal::Unsound(reason.clone());
        let unsound = unsound.map(|change| (from + change.at, refusal(&change.reason)));
        let unsound: HashMap<u32, Refusal> = unsound.filter(|(at, _)| *at >= folded).collect();
        if unsound.is_empty() {
            return Ok(());
        }
        let stored = self.store.load().unwrap();
        let segments = self.store.segments(stored.record.segments);
        let history = &mut self.opened().history;
        let outline = stored.outline.as_deref();
        let removal = history.remove(&unsound, outline, &segments, &stored.rows);
        let removal = removal.expect("its parts fit together");
        let record = history.record().clone();
        let blob = Blob::Quarantine(record.quarantined - 1);
        let (mut lot, mut refused) = (Vec::new(), Vec::new());
        for removed in removal.removed {
            refused.push((Some(removed.change.hash), removed.refusal.clone()));
            lot.push(removed.into_quarantined(String::new()));
        }
        let mut writes = vec![Write::RemoveRowsFrom(removal.rows_from)];
        let rows = removal.rows.into_iter();
        writes.extend(rows.map(|(last, row)| Write::Row { last, row }));
        writes.push(Write::Blob(blob, Quarantined::encode(&lot).into()));
        writes.push(Write::Record(record));
        let connections: Vec<_> = self.lines.keys().copied().collect();
        for connection in &connections {
            self.report(*connection, refused.clone());
        }
        self.openings += 1;
        self.epoch += 1;
        let committed = self.store.commit(writes);
        if committed.is_err() {
            for connection in connections {
                self.disconnect(connection);
                self.closed.push(connection);
            }
        }
        committed?;
        self.taken_out += lot.len();
        for change in lot {
            self.store.taken_out(&change.hash);
        }
        self.opened().history.committed();
        Ok(())
    }

    pub(super) fn unpacked(
        &mut self,
        from: ConnectionId,
        tries: u32,
        basis: Basis,
        result: &Result<Brought, String>,
    ) -> Result<(), Failed> {
        let waiting = self.uploads.get(&from).and_then(|w| w.front());
        let Some(message) = waiting.cloned() else {
            return Ok(());
        };
        let mut documents = DocumentChunks::Report;
        match result {
            Ok(Brought::All(_)) if self.basis() != basis => {
                let chunk = first_document(&message).expect("a chunk was reported");
                self.start_unpacking(from, chunk, tries, true);
                return Ok(());
            }
            Ok(Brought::All(unpacked)) => self.adopt(from, &message, unpacked)?,
            Ok(Brought::Changes(changes)) => {
                let received = self.with_graph(|h| h.receive_unpacked(from, changes));
                self.report(from, received.refused);
            }
            Err(reason) => {
                self.report(from, vec![(None, Refusal::Automerge(reason.clone()))]);
                documents = DocumentChunks::Unpacked;
            }
        }
        if tries + 1 >= UNPACKS_MAX {
            documents = DocumentChunks::Unpacked;
        }
        let mut waiting = self.uploads.remove(&from).unwrap_or_default();
        while let Some(message) = waiting.pop_front() {
            if self.learn(from, &message, documents) {
                self.uploads.insert(from, waiting);
                self.unpack(from, message, tries + 1);
                return Ok(());
            }
            documents = DocumentChunks::Report;
        }
        Ok(())
    }

    fn adopt(
        &mut self,
        from: ConnectionId,
        message: &Bytes,
        unpacked: &Unpacked,
    ) -> Result<(), Failed> {
        self.save()?;
        let chunk = first_document(message).expect("a chunk was reported");
        let open = self.opened();
        if unpacked.len == open.history.len() {
            return Ok(());
        }
        let new = NewSnapshot::unpacked(open.history.record(), chunk, unpacked);
        let (record, outline) = (new.record.clone(), new.outline.clone());
        self.store.commit(new.into_writes())?;
        self.snapshots.1 += 1;
        let open = self.open.take().expect("it was opened before");
        let history = open.history.adopted(record, &outline);
        let mut history = history.expect("its parts fit together");
        history.has_all(from);
        self.openings += 1;
        self.open = Some(Open {
            history,
            stored: true,
        });
        Ok(())
    }
}
