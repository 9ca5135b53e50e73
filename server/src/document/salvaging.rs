//! A document of which something stored is damaged: nothing of that is passed on, and the document
//! begins anew with what is whole, under a key of its own. What is missing then is missing like any
//! change that never came: peers that write are asked for all that they have. The damaged values
//! stay in the file, and so do changes that wait for missing ones; they are offered to the document
//! each time that it is opened.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reconverge::contents::Brought;
use reconverge::history::{History, Quarantined};
use reconverge::id::ConnectionId;
use reconverge::storage::{Batch, Blob, NewSnapshot, Salvaged, StorageError, Write};
use tracing::{error, info};

use super::{Document, Recipients, SALVAGE_AFTER, Slot};
use crate::limits::fair::RELAY;
use crate::workshop::{Built, Job};

/// Who sends what comes out of our own file. Connections are counted from 1.
const OURSELVES: ConnectionId = ConnectionId(0);

impl Document {
    /// Begins the document anew with what is whole. Whether that is done; if not, it is tried again
    /// later.
    pub(super) async fn salvage(&mut self, slot: &Arc<Slot>) -> bool {
        let now = Instant::now();
        let recently = |at: Instant| now.duration_since(at) < SALVAGE_AFTER;
        if self.salvaged.is_some_and(recently) {
            return false;
        }
        self.salvaged = Some(now);
        match self.begin_anew(slot).await {
            Ok(()) => true,
            Err(error) => {
                error!(document = %slot.name, %error,
                    "what is whole of the damaged document could not be stored anew");
                false
            }
        }
    }

    async fn begin_anew(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        let (relay, id) = (slot.services.clone(), slot.id);
        let read = tokio::task::spawn_blocking(move || relay.storage.salvage(&id)).await;
        let Salvaged {
            space,
            snapshot,
            changes,
            quarantined,
        } = read.map_err(StorageError::failed)??;
        let anybody = || self.connections.values().next().map(|c| c.space.clone());
        let mut history = History::new(space.or_else(anybody).unwrap_or_default());
        let mut writes = vec![Write::SetAside];
        let has_snapshot = snapshot.is_some();
        let mut segments = Vec::new();
        if let Some((new, brought)) = self.unpack_again(slot, &history, snapshot).await {
            let (record, outline) = (new.record.clone(), new.outline.clone());
            segments.push(brought);
            writes.extend(new.into_writes());
            let adopted = history.adopted(record, &outline);
            history = adopted.ok_or_else(|| slot.damaged("the outline of its snapshot"))?;
        }
        if !quarantined.is_empty() {
            history.quarantine_anew(&quarantined);
        }
        let received = tokio::task::block_in_place(|| {
            if history.load_graph(&segments).is_none() {
                return Err(slot.damaged("the graph of its snapshot"));
            }
            let received = history.receive_unpacked(OURSELVES, &changes);
            received.map_err(|_| slot.damaged("its graph has a gap"))
        })?;
        let in_snapshot = history.record().folded;
        if let Some((last, row)) = history.take_unsaved() {
            writes.push(Write::Row { last, row });
        }
        let record = history.record().clone();
        if record.quarantined > 0 {
            let lot = Quarantined::encode(&quarantined).into();
            writes.push(Write::Blob(Blob::Quarantine(0), lot));
        }
        writes.push(Write::Record(record));
        let batch = Batch {
            document: slot.id,
            key: slot.services.storage.new_key(),
            writes,
        };
        slot.services.committer.commit(batch).await?;
        error!(document = %slot.name, has_snapshot, changes_in_snapshot = in_snapshot,
            changes_after = received.admitted,
            "a part of it is damaged, and left in the file; what is whole is served, and whoever has \
             the rest is asked for it. To be sure that nothing is missing, let a client connect that \
             has the whole document, or take it from a backup");
        self.parked = std::mem::take(&mut self.parked).begun_anew();
        self.verifying.begun_anew();
        self.building.history_changed();
        self.concerned = Recipients::All;
        Ok(())
    }

    /// What becomes of a snapshot that is whole, and its segment of the graph; `None` if it cannot
    /// be unpacked.
    async fn unpack_again(
        &self,
        slot: &Arc<Slot>,
        history: &History,
        snapshot: Option<Bytes>,
    ) -> Option<(NewSnapshot, Bytes)> {
        let chunk = snapshot?;
        let job = Job::Unpack {
            chunk: chunk.clone(),
            known: Arc::default(),
            segment_from: 0,
            changes: false,
        };
        match slot.services.workshop.run_in_turn(RELAY, job).await.result {
            Ok(Built::Unpacked(Brought::All(unpacked))) => {
                let new = NewSnapshot::unpacked(history.record(), chunk, &unpacked);
                Some((new, unpacked.segment))
            }
            Ok(_) => None,
            Err(error) => {
                error!(document = %slot.name, %error, "its snapshot could not be unpacked");
                None
            }
        }
    }

    /// Offers the document what is whole of what was set aside.
    pub(super) fn take_in_aside(
        &mut self,
        slot: &Arc<Slot>,
        aside: &[Bytes],
    ) -> Result<(), StorageError> {
        let received = tokio::task::block_in_place(|| {
            self.with_graph(slot, |history| history.receive_unpacked(OURSELVES, aside))
        })?;
        if received.admitted > 0 {
            info!(document = %slot.name, changes = received.admitted,
                "changes that were set aside fit again");
        }
        Ok(())
    }
}
