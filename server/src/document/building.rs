//! What a document has built in the workshop: uploaded chunks unpacked, its history folded into a
//! snapshot. Both come back through the mailbox; the document goes on meanwhile.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use reconverge::history::chunk::first_document;
use reconverge::history::{Documents, Fold, Unpacked};
use reconverge::id::ConnectionId;
use reconverge::storage::{NewSnapshot, StorageError};
use tracing::{info, warn};

use super::{Document, Incoming, Input, Slot};
use crate::workshop::{Built, Job, JobError};

/// Most document chunks of one message that are unpacked; stock clients send one.
const UNPACKS_MAX: u32 = 4;

/// What is being built.
#[derive(Default)]
pub(super) struct Building {
    /// Per connection the message whose chunk is being unpacked, and what came after it.
    uploads: HashMap<ConnectionId, VecDeque<Arc<Incoming>>>,
    folding: bool,
    /// After a fold failed, the next one waits until there is this much to fold.
    fold_from_len: u32,
    /// How often the history was opened or given another snapshot.
    openings: u64,
}

/// What a document was when a job began: if it is the same at the end, then its changes have the
/// same indexes, and the same of them are folded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Basis {
    openings: u64,
    len: u32,
}

/// A finished job.
pub(crate) enum BuildResult {
    Unpacked {
        from: ConnectionId,
        basis: Basis,
        tries: u32,
        built: Result<Built, JobError>,
    },
    Folded {
        fold: Box<Fold>,
        built: Result<Built, JobError>,
    },
}

impl Building {
    /// The history was opened or got another snapshot: what was begun before does not fit.
    pub(super) fn history_changed(&mut self) {
        self.openings += 1;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.uploads.is_empty() && !self.folding
    }

    pub(super) fn waiting_behind(
        &mut self,
        connection: ConnectionId,
    ) -> Option<&mut VecDeque<Arc<Incoming>>> {
        self.uploads.get_mut(&connection)
    }

    pub(super) fn leave(&mut self, connection: ConnectionId) {
        self.uploads.remove(&connection);
    }
}

impl Document {
    fn basis(&mut self) -> Basis {
        Basis {
            openings: self.building.openings,
            len: self.opened().history.len(),
        }
    }

    /// Sends the first unknown document chunk of a message to the workshop.
    pub(super) fn unpack(
        &mut self,
        slot: &Arc<Slot>,
        message: Arc<Incoming>,
        tries: u32,
    ) -> Result<(), StorageError> {
        let Some(chunk) = first_document(&message.data) else {
            return Ok(());
        };
        let from = message.from.id;
        self.building
            .uploads
            .entry(from)
            .or_default()
            .push_front(message);
        self.start_unpacking(slot, from, chunk, tries, false)
    }

    fn start_unpacking(
        &mut self,
        slot: &Arc<Slot>,
        from: ConnectionId,
        chunk: Bytes,
        tries: u32,
        changes: bool,
    ) -> Result<(), StorageError> {
        let known = self.with_graph(slot, |history| history.hashes())?;
        let segment_from = self.opened().history.record().folded;
        let basis = self.basis();
        let job = Job::Unpack {
            chunk,
            known,
            segment_from,
            changes,
        };
        let slot = slot.clone();
        slot.relay.clone().tasks.spawn(async move {
            let Some(built) = slot.relay.build(job).await else {
                return;
            };
            slot.push(Input::Built(BuildResult::Unpacked {
                from,
                basis,
                tries,
                built,
            }));
        });
        Ok(())
    }

    /// Starts to fold the history into a new snapshot, when that pays.
    pub(super) fn fold_if_due(&mut self, slot: &Arc<Slot>) {
        let Some(open) = &self.history else { return };
        let due = open.history.should_fold() && open.history.len() >= self.building.fold_from_len;
        if !due || self.building.folding {
            return;
        }
        self.building.folding = true;
        let fold = Box::new(open.history.begin_fold());
        let old = open.history.record();
        let mut heads: Vec<_> = fold.record.heads.iter().map(|(_, hash, _)| *hash).collect();
        heads.sort_unstable();
        let job = Job::Fold {
            storage: slot.relay.storage.clone(),
            key: open.key,
            snapshot: (old.generation > 0).then_some((old.generation, old.snapshot_bytes)),
            changes: fold.from..fold.record.folded,
            heads,
        };
        let slot = slot.clone();
        slot.relay.clone().tasks.spawn(async move {
            let Some(built) = slot.relay.build(job).await else {
                return;
            };
            slot.push(Input::Built(BuildResult::Folded { fold, built }));
        });
    }

    pub(super) async fn built(
        &mut self,
        slot: &Arc<Slot>,
        result: &BuildResult,
    ) -> Result<(), StorageError> {
        match result {
            BuildResult::Folded { fold, built } => {
                self.building.folding = false;
                self.folded(slot, fold, built).await
            }
            BuildResult::Unpacked {
                from,
                basis,
                tries,
                built,
            } => self.unpacked(slot, *from, *basis, *tries, built).await,
        }
    }

    async fn folded(
        &mut self,
        slot: &Arc<Slot>,
        fold: &Fold,
        built: &Result<Built, JobError>,
    ) -> Result<(), StorageError> {
        let open = self.opened();
        let mut record = fold.record.clone();
        if record.generation != open.history.record().generation + 1 {
            // An uploaded chunk became the snapshot meanwhile.
            return Ok(());
        }
        let snapshot = match built {
            Ok(Built::Snapshot(snapshot)) => snapshot.clone(),
            Ok(Built::Covers(_) | Built::Changes(_)) => return Ok(()),
            Err(error) => {
                self.building.fold_from_len = open.history.len().saturating_mul(2);
                warn!(document = %slot.name, %error, "compaction failed; the history stays as it is");
                return Ok(());
            }
        };
        record.snapshot_bytes = snapshot.len() as u64;
        info!(document = %slot.name, changes = record.folded, bytes = snapshot.len(), "compacted");
        // What arrived in this turn is newer than the fold, and stored before it.
        self.save(slot).await?;
        let new = NewSnapshot {
            record: record.clone(),
            snapshot,
            outline: fold.outline.clone().into(),
            segment: fold.segment.clone().into(),
        };
        self.commit(slot, new.into_writes()).await?;
        self.opened().history.folded(record);
        self.building.history_changed();
        Ok(())
    }

    async fn unpacked(
        &mut self,
        slot: &Arc<Slot>,
        from: ConnectionId,
        basis: Basis,
        tries: u32,
        built: &Result<Built, JobError>,
    ) -> Result<(), StorageError> {
        let waiting = self
            .building
            .uploads
            .get(&from)
            .and_then(|waiting| waiting.front());
        let Some(message) = waiting.cloned() else {
            // The connection ended meanwhile; what it uploaded it will upload again.
            return Ok(());
        };
        let (connection, data) = (&message.from, &message.data);
        let mut documents = Documents::Report;
        match built {
            Ok(Built::Covers(_)) if self.basis() != basis => {
                // Something else arrived meanwhile: take only what is unknown.
                let Some(chunk) = first_document(data) else {
                    return Ok(());
                };
                return self.start_unpacking(slot, from, chunk, tries, true);
            }
            Ok(Built::Covers(unpacked)) => self.adopt(slot, data, unpacked).await?,
            Ok(Built::Changes(changes)) => {
                let received = tokio::task::block_in_place(|| {
                    self.with_graph(slot, |history| history.receive_unpacked(from, changes))
                })?;
                self.report_refused(slot, connection, &received);
            }
            Ok(Built::Snapshot(_)) => {}
            Err(error) => {
                warn!(document = %slot.name, peer = %connection.peer, %error,
                    "uploaded document refused");
                documents = Documents::Unpacked;
            }
        }
        if tries + 1 >= UNPACKS_MAX {
            documents = Documents::Unpacked;
        }
        let mut waiting = self.building.uploads.remove(&from).unwrap_or_default();
        let refused = built.is_err();
        while let Some(message) = waiting.pop_front() {
            let unpack = self.receive(slot, &message.from, &message.data, documents)?;
            if unpack {
                // What waits goes on waiting, behind the next chunk.
                self.building.uploads.insert(from, waiting);
                return self.unpack(slot, message, tries + 1);
            }
            documents = Documents::Report;
        }
        if refused {
            self.opened().history.upload_refused(from);
        }
        Ok(())
    }

    /// Makes an uploaded chunk that covers everything stored the snapshot, as it is.
    async fn adopt(
        &mut self,
        slot: &Arc<Slot>,
        data: &Bytes,
        unpacked: &Unpacked,
    ) -> Result<(), StorageError> {
        self.save(slot).await?;
        let Some(chunk) = first_document(data) else {
            return Ok(());
        };
        let open = self.opened();
        let mut record = open.history.record().clone();
        let nothing_new = unpacked.len == open.history.len();
        if nothing_new {
            return Ok(());
        }
        info!(document = %slot.name, changes = unpacked.len, bytes = chunk.len(), "uploaded");
        record.folded = unpacked.len;
        record.rows_from = unpacked.len;
        record.generation += 1;
        record.segments += 1;
        record.snapshot_bytes = chunk.len() as u64;
        record.heads.clone_from(&unpacked.heads);
        let outline = Bytes::from(unpacked.outline.clone());
        let new = NewSnapshot {
            record: record.clone(),
            snapshot: chunk,
            outline: outline.clone(),
            segment: unpacked.segment.clone().into(),
        };
        self.commit(slot, new.into_writes()).await?;
        let open = self.history.take().expect("is open");
        let damaged = || StorageError::Damaged {
            document: slot.name.to_string(),
            what: "the outline of an uploaded document",
        };
        let history = open.history.adopted(record, &outline).ok_or_else(damaged)?;
        self.building.history_changed();
        self.history = Some(Box::new(super::Open {
            key: open.key,
            history,
            stored: true,
        }));
        Ok(())
    }
}
