//! Document chunks that are uploaded: the workshop unpacks them, and one that covers everything stored
//! becomes the snapshot as it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reconverge::contents::Brought;
use reconverge::history::document_chunk::first_document;
use reconverge::history::{DocumentChunks, Progress, Unpacked};
use reconverge::id::ConnectionId;
use reconverge::storage::{NewSnapshot, StorageError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::building::{Basis, BuildResult, Upload};
use super::parts::Parts;
use super::{Document, Incoming, Input, Loaded, Slot};
use crate::peers::Connection;
use crate::workshop::{Built, Job, JobError};

/// Most document chunks of one message that are unpacked; stock clients send one.
const UNPACKS_MAX: u32 = 4;

/// Results up to this size wait without a worker.
const SMALL_RESULT_BYTES: usize = 64 * 1024;

impl Document {
    /// Has the chunk of a message unpacked, behind which others wait.
    pub(super) fn unpack_first(
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
                documents: DocumentChunks::Report,
                tries,
                left: false,
                asked: false,
            };
            self.building.parts.insert(from, parts);
        }
        begun
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

    pub(super) fn start_unpacking(
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
        slot.services.clone().lifetime.spawn(async move {
            let built = tokio::select! {
                () = left.cancelled() => return,
                _ = connection.gone() => return slot.push(Input::Gone(from)),
                built = slot.services.build(owner, job) => built,
            };
            let Some(mut built) = built else { return };
            let bytes = built.bytes();
            charge.resize(bytes);
            let turn = if bytes <= SMALL_RESULT_BYTES {
                // Many of them are committed at once.
                built.free_worker();
                None
            } else {
                // What came out of it is taken in like what is sent in many messages.
                Some(slot.services.long_work.take(owner, Duration::ZERO).await)
            };
            slot.push(Input::Built(Box::new(BuildResult::Unpacked {
                from,
                basis,
                tries,
                built,
                turn,
                _charge: charge,
            })));
        });
        Ok(())
    }

    pub(super) async fn unpacked(
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
        let mut documents = DocumentChunks::Report;
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
                self.adopt(slot, from, data, unpacked).await?;
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
                documents = DocumentChunks::Unpacked;
            }
        }
        if tries + 1 >= UNPACKS_MAX {
            documents = DocumentChunks::Unpacked;
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

    /// Makes an uploaded chunk that covers everything stored the snapshot, as it is.
    pub(super) async fn adopt(
        &mut self,
        slot: &Arc<Slot>,
        from: ConnectionId,
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
        let damaged = || slot.damaged("the outline of an uploaded document");
        let mut history = history.ok_or_else(damaged)?;
        // Its message is taken in when the graph is read; until then it would be sent all of it.
        history.has_all(from);
        self.building.history_changed();
        self.history = Some(Box::new(Loaded {
            key: open.key,
            history,
            stored: true,
        }));
        Ok(())
    }
}
