//! What the workshop unpacks: document chunks that were uploaded, and changes of the snapshot for
//! peers that take no document chunks. The result comes back through the mailbox; the document goes
//! on meanwhile.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use reconverge::contents::Brought;
use reconverge::history::chunk::first_document;
use reconverge::history::{Documents, Unpacked};
use reconverge::id::ConnectionId;
use reconverge::storage::{DocumentKey, NewSnapshot, StorageError};
use tracing::{info, warn};

use super::verifying::Checked;
use super::{Document, Incoming, Input, Slot};
use crate::unfolded::Window;
use crate::workshop::{Built, Job, JobError};

/// Most document chunks of one message that are unpacked; stock clients send one.
const UNPACKS_MAX: u32 = 4;

/// What is being built.
#[derive(Default)]
pub(super) struct Building {
    /// Per connection the message whose chunk is being unpacked, and what came after it.
    uploads: HashMap<ConnectionId, VecDeque<Arc<Incoming>>>,
    /// Changes of the snapshot are being unpacked.
    unfolds: bool,
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
    Unfolded {
        key: DocumentKey,
        range: Range<u32>,
        generation: u32,
        built: Result<Built, JobError>,
    },
    Checked {
        checked: Checked,
        built: Result<Built, JobError>,
    },
}

impl Building {
    /// The history was opened or got another snapshot: what was begun before does not fit.
    pub(super) fn history_changed(&mut self) {
        self.openings += 1;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.uploads.is_empty() && !self.unfolds
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
            slot.push(Input::Built(Box::new(BuildResult::Unpacked {
                from,
                basis,
                tries,
                built,
            })));
        });
        Ok(())
    }

    pub(super) async fn built(
        &mut self,
        slot: &Arc<Slot>,
        result: &BuildResult,
    ) -> Result<(), StorageError> {
        match result {
            BuildResult::Checked { checked, built } => self.checked(slot, checked, built).await,
            BuildResult::Unfolded {
                key,
                range,
                generation,
                built,
            } => {
                self.building.unfolds = false;
                // Begun anew meanwhile, it has other changes under the same indexes.
                if self.opened().key != *key {
                    return Ok(());
                }
                self.unfolded(slot, range, *generation, built)
            }
            BuildResult::Unpacked {
                from,
                basis,
                tries,
                built,
            } => self.unpacked(slot, *from, *basis, *tries, built).await,
        }
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
            // Taken when what waits is stored.
            _ if self.unstored.is_some() => {}
            Ok(Built::Unpacked(Brought::All(_))) if self.basis() != basis => {
                // Something else arrived meanwhile: take only what is unknown.
                let Some(chunk) = first_document(data) else {
                    return Ok(());
                };
                return self.start_unpacking(slot, from, chunk, tries, true);
            }
            Ok(Built::Unpacked(Brought::All(unpacked))) => {
                self.adopt(slot, data, unpacked).await?;
            }
            Ok(Built::Unpacked(Brought::Changes(changes))) => {
                let len = self.opened().history.len();
                let received = tokio::task::block_in_place(|| {
                    self.with_graph(slot, |history| history.receive_unpacked(from, changes))
                })?;
                self.note_senders(len, connection, &received);
                self.report_refused(slot, connection, &received);
            }
            Ok(Built::Checked(_) | Built::Unfolded(_)) => {}
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

    /// Has changes of the snapshot unpacked, unless some are. Their hashes are resident.
    pub(super) fn unfold(&mut self, slot: &Arc<Slot>, range: Range<u32>) {
        if std::mem::replace(&mut self.building.unfolds, true) {
            return;
        }
        let open = self.opened();
        let (history, record) = (&open.history, open.history.record());
        let (key, generation) = (open.key, record.generation);
        let wanted = history.hashes_of(range.clone()).unwrap_or_default();
        let job = Job::Unfold {
            storage: slot.relay.storage.clone(),
            key: open.key,
            snapshot: (generation, record.snapshot_bytes),
            wanted,
        };
        let slot = slot.clone();
        slot.relay.clone().tasks.spawn(async move {
            let Some(built) = slot.relay.build(job).await else {
                return;
            };
            slot.push(Input::Built(Box::new(BuildResult::Unfolded {
                key,
                range,
                generation,
                built,
            })));
        });
    }

    /// The end of the turn sends what was unpacked, or begins anew.
    fn unfolded(
        &mut self,
        slot: &Arc<Slot>,
        range: &Range<u32>,
        generation: u32,
        built: &Result<Built, JobError>,
    ) -> Result<(), StorageError> {
        let open = self
            .history
            .as_mut()
            .expect("opened at the start of the turn");
        let window = match built {
            Ok(Built::Unfolded(changes)) => Window::new(range.clone(), changes.clone()),
            Ok(_) => None,
            // Another snapshot took its place before it was read.
            Err(_) if open.history.record().generation != generation => return Ok(()),
            Err(JobError::Storage(error @ StorageError::Damaged { .. })) => {
                return Err(error.clone());
            }
            Err(error) => {
                warn!(document = %slot.name, %error, "its snapshot could not be unpacked");
                None
            }
        };
        if let Some(window) = window {
            slot.relay.unfolded.insert(open.key, window);
            return Ok(());
        }
        for connection in self.connections.values() {
            if matches!(open.history.unfolds_for(connection.id), Ok(Some(_))) {
                warn!(document = %slot.name, peer = %connection.peer,
                    "not sent: its client takes no document chunks (Automerge before 2.1), and the changes could not be unpacked");
                open.history.give_up(connection.id);
            }
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
        let nothing_new = unpacked.len == open.history.len();
        if nothing_new {
            return Ok(());
        }
        info!(document = %slot.name, changes = unpacked.len, bytes = chunk.len(), "uploaded");
        let new = NewSnapshot::unpacked(open.history.record(), chunk, unpacked);
        let (record, outline) = (new.record.clone(), new.outline.clone());
        self.commit_or_keep(slot, new.into_writes()).await?;
        let open = self.history.take().expect("is open");
        let history = open.history.adopted(record, &outline);
        self.building.history_changed();
        self.history = Some(Box::new(super::Open {
            key: open.key,
            history: history.ok_or_else(|| slot.damaged("the outline of an uploaded document"))?,
            stored: true,
        }));
        Ok(())
    }
}
