//! What the workshop unpacks: document chunks that were uploaded, and changes of the snapshot for
//! peers that take no document chunks. The result comes back through the mailbox; the document goes
//! on meanwhile.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reconverge::contents::Brought;
use reconverge::history::chunk::first_document;
use reconverge::history::{Documents, Progress, Unpacked, Work};
use reconverge::id::ConnectionId;
use reconverge::storage::{DocumentKey, NewSnapshot, StorageError};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::verifying::Checked;
use super::{Document, Incoming, Input, Slot, Taken};
use crate::connection::Connection;
use crate::fair::{Owner, Turn};
use crate::memory::Charge;
use crate::unfolded::Window;
use crate::workshop::{Built, Done, Job, JobError};

/// Most document chunks of one message that are unpacked; stock clients send one.
const UNPACKS_MAX: u32 = 4;

/// Results up to this size wait without a worker.
const SMALL_RESULT_BYTES: usize = 64 * 1024;

/// What is being built.
#[derive(Default)]
pub(super) struct Building {
    /// Per connection the message whose chunk is being unpacked, and what came after it.
    uploads: HashMap<ConnectionId, Upload>,
    /// The same of a message that is taken in part by part.
    parts: HashMap<ConnectionId, Parts>,
    /// Changes of the snapshot are being unpacked.
    unfolds: bool,
    /// How often the history was opened or given another snapshot.
    openings: u64,
}

#[derive(Default)]
struct Upload {
    waiting: VecDeque<Arc<Incoming>>,
    /// Ends the job, for which nobody waits any more.
    job: Option<DropGuard>,
}

/// A message that takes long, and what came after it.
struct Parts {
    waiting: VecDeque<Arc<Incoming>>,
    progress: Progress,
    documents: Documents,
    tries: u32,
    /// Its connection ended. What had come of it is taken in all the same, for a while.
    left: bool,
    /// It waits for a turn, or has one.
    asked: bool,
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
        built: Done,
        turn: Option<Turn>,
        /// For the result, if no worker is kept for it.
        _charge: Charge,
    },
    Unfolded {
        key: DocumentKey,
        range: Range<u32>,
        generation: u32,
        built: Done,
    },
    Checked {
        checked: Checked,
        built: Done,
    },
}

impl BuildResult {
    /// It is not taken in soon: nobody waits for it any more.
    fn give_turns_back(&mut self) {
        match self {
            Self::Unpacked { built, turn, .. } => {
                built.free_worker();
                *turn = None;
            }
            Self::Unfolded { built, .. } | Self::Checked { built, .. } => built.free_worker(),
        }
    }
}

impl Building {
    /// The history was opened or got another snapshot: what was begun before does not fit.
    pub(super) fn history_changed(&mut self) {
        self.openings += 1;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.uploads.is_empty() && self.parts.is_empty() && !self.unfolds
    }

    pub(super) fn waiting_behind(
        &mut self,
        connection: ConnectionId,
    ) -> Option<&mut VecDeque<Arc<Incoming>>> {
        let part = self.parts.get_mut(&connection);
        let part = part.map(|parts| &mut parts.waiting);
        part.or_else(|| {
            let upload = self.uploads.get_mut(&connection);
            upload.map(|upload| &mut upload.waiting)
        })
    }

    /// Whether messages of a connection that ended are still to be taken in, after which it leaves.
    pub(super) fn leaves_later(&mut self, connection: ConnectionId) -> bool {
        let parts = self.parts.get_mut(&connection);
        parts.map(|parts| parts.left = true).is_some()
    }

    pub(super) fn leave(&mut self, connection: ConnectionId) {
        self.uploads.remove(&connection);
    }
}

/// Has the document told when a message that takes long has a turn, or is not taken in any more.
fn ask_for_turn(slot: &Arc<Slot>, from: &Arc<Connection>) {
    let (slot, from) = (slot.clone(), from.clone());
    slot.relay.clone().tasks.spawn(async move {
        let _turn = tokio::select! {
            () = slot.relay.stopping.cancelled() => return,
            () = from.long_gone() => None,
            turn = slot.relay.long_work.take(from.owner(), Duration::ZERO) => Some(turn),
        };
        slot.push(Input::Part {
            from: from.id,
            _turn,
        });
    });
}

impl Document {
    /// Takes in a connection's messages in order, until one must wait for something. `documents` and
    /// `tries` are those of the first.
    ///
    /// # Errors
    /// When storage fails: then the messages wait until it is tried again.
    pub(super) fn take_in_order(
        &mut self,
        slot: &Arc<Slot>,
        from: ConnectionId,
        mut waiting: VecDeque<Arc<Incoming>>,
        mut documents: Documents,
        mut tries: u32,
    ) -> Result<(), StorageError> {
        while let Some(message) = waiting.front().cloned() {
            let mut progress = Progress::default();
            let taken = self.receive(slot, &message, documents, &mut progress, Work::Light);
            match taken {
                Ok(Taken::All) => drop(waiting.pop_front()),
                Ok(Taken::Unpack) => {
                    waiting.pop_front();
                    return self.unpack_first(slot, from, message, waiting, tries);
                }
                Ok(Taken::Part) | Err(_) => {
                    let parts = Parts {
                        waiting,
                        progress,
                        documents,
                        tries,
                        left: false,
                        asked: taken.is_ok(),
                    };
                    self.building.parts.insert(from, parts);
                    return taken.map(|_| ask_for_turn(slot, &message.from));
                }
            }
            (documents, tries) = (Documents::Report, 0);
        }
        Ok(())
    }

    /// Has the chunk of a message unpacked, behind which others wait.
    fn unpack_first(
        &mut self,
        slot: &Arc<Slot>,
        from: ConnectionId,
        message: Arc<Incoming>,
        waiting: VecDeque<Arc<Incoming>>,
        tries: u32,
    ) -> Result<(), StorageError> {
        let upload = Upload { waiting, job: None };
        self.building.uploads.insert(from, upload);
        let begun = self.unpack(slot, message, tries);
        if begun.is_err() {
            let upload = self.building.uploads.remove(&from);
            let parts = Parts {
                waiting: upload.unwrap_or_default().waiting,
                progress: Progress::default(),
                documents: Documents::Report,
                tries,
                left: false,
                asked: false,
            };
            self.building.parts.insert(from, parts);
        }
        begun
    }

    /// Takes in the next part of a message that takes long.
    pub(super) fn take_in_part(
        &mut self,
        slot: &Arc<Slot>,
        from: ConnectionId,
    ) -> Result<(), StorageError> {
        let Some(mut parts) = self.building.parts.remove(&from) else {
            // The connection ended meanwhile.
            return Ok(());
        };
        let Some(message) = parts.waiting.front().cloned() else {
            return Ok(());
        };
        if message.from.is_given_up() {
            if parts.left {
                self.leave(slot, from);
            }
            return Ok(());
        }
        let Parts {
            progress,
            documents,
            ..
        } = &mut parts;
        let taken = tokio::task::block_in_place(|| {
            self.receive(slot, &message, *documents, progress, Work::Slice)
        });
        if taken.is_ok() && !parts.progress.has_brought() {
            message.from.was_in_vain();
        }
        if !matches!(taken, Ok(Taken::All | Taken::Unpack)) {
            parts.asked = taken.is_ok();
            self.building.parts.insert(from, parts);
            return taken.map(|_| ask_for_turn(slot, &message.from));
        }
        parts.waiting.pop_front();
        let (waiting, left) = (parts.waiting, parts.left);
        let taken = match taken {
            Ok(Taken::Unpack) => self.unpack_first(slot, from, message, waiting, parts.tries),
            _ => self.take_in_order(slot, from, waiting, Documents::Report, 0),
        };
        if left && !self.building.leaves_later(from) {
            self.leave(slot, from);
        }
        taken
    }

    /// Storage failed: nobody keeps a turn or a call meanwhile, and what was taken in is lost with the
    /// history.
    pub(super) fn give_turns_back(&mut self) {
        for parts in self.building.parts.values_mut() {
            parts.progress = Progress::default();
        }
        self.backlog.retain_mut(|input| match input {
            Input::Part { from, .. } => {
                if let Some(parts) = self.building.parts.get_mut(from) {
                    parts.asked = false;
                }
                false
            }
            // All are looked after when it is tried again.
            Input::Room(_) => false,
            Input::Built(result) => {
                result.give_turns_back();
                true
            }
            _ => true,
        });
    }

    /// Has those go on that gave their turns back.
    pub(super) fn ask_for_turns(&mut self, slot: &Arc<Slot>) {
        for parts in self.building.parts.values_mut() {
            if let Some(message) = parts.waiting.front()
                && !std::mem::replace(&mut parts.asked, true)
            {
                ask_for_turn(slot, &message.from);
            }
        }
    }

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
        let connection = message.from.clone();
        self.building
            .uploads
            .entry(connection.id)
            .or_default()
            .waiting
            .push_front(message);
        self.start_unpacking(slot, &connection, chunk, tries, false)
    }

    fn start_unpacking(
        &mut self,
        slot: &Arc<Slot>,
        connection: &Arc<Connection>,
        chunk: Bytes,
        tries: u32,
        changes: bool,
    ) -> Result<(), StorageError> {
        let known: Arc<[_]> = self.with_graph(slot, |history| history.hashes())?.into();
        // They wait with the job.
        let mut charge = connection.holder.charge(size_of_val(&*known));
        let (from, owner) = (connection.id, connection.owner());
        let connection = connection.clone();
        let left = CancellationToken::new();
        let upload = self.building.uploads.entry(from).or_default();
        upload.job = Some(left.clone().drop_guard());
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
            let built = tokio::select! {
                () = left.cancelled() => return,
                _ = connection.gone() => return slot.push(Input::Gone(from)),
                built = slot.relay.build(owner, job) => built,
            };
            let Some(mut built) = built else { return };
            let bytes = built.bytes();
            charge.resize(bytes);
            if bytes <= SMALL_RESULT_BYTES {
                built.free_worker();
            }
            // What came out of it is taken in like what is sent in many messages.
            let turn = slot.relay.long_work.take(owner, Duration::ZERO).await;
            slot.push(Input::Built(Box::new(BuildResult::Unpacked {
                from,
                basis,
                tries,
                built,
                turn: Some(turn),
                _charge: charge,
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
            BuildResult::Checked { checked, built } => {
                self.checked(slot, checked, &built.result).await
            }
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
                self.unfolded(slot, range, *generation, &built.result)
            }
            BuildResult::Unpacked {
                from,
                basis,
                tries,
                built,
                ..
            } => {
                self.unpacked(slot, *from, *basis, *tries, &built.result)
                    .await
            }
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
            .and_then(|upload| upload.waiting.front());
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
                return self.start_unpacking(slot, connection, chunk, tries, true);
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
                    "uploaded document refused{}", error.advice());
                documents = Documents::Unpacked;
            }
        }
        if tries + 1 >= UNPACKS_MAX {
            documents = Documents::Unpacked;
        }
        let upload = self.building.uploads.remove(&from).unwrap_or_default();
        let waiting = upload.waiting;
        // What waits goes on waiting, if there is another chunk.
        self.take_in_order(slot, from, waiting, documents, tries + 1)?;
        if built.is_err() {
            self.opened().history.upload_refused(from);
        }
        Ok(())
    }

    /// Has changes of the snapshot unpacked, unless some are. Their hashes are resident.
    pub(super) fn unfold(&mut self, slot: &Arc<Slot>, to: Owner, range: Range<u32>) {
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
            let Some(built) = slot.relay.build(to, job).await else {
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
