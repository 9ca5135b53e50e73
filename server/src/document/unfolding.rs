//! Changes of the snapshot for peers that take no document chunks: the workshop unpacks them.

use std::ops::Range;
use std::sync::Arc;

use reconverge::id::ConnectionId;
use reconverge::storage::StorageError;
use tracing::warn;

use super::building::BuildResult;
use super::unfolded_cache::Window;
use super::{Document, Input, Loaded, Slot};
use crate::limits::fair::Owner;
use crate::workshop::{Built, Job, JobError};

/// What a peer that takes no document chunks needs of the snapshot.
pub(super) enum Unfolding {
    Needless,
    Done(Arc<Window>),
    /// The changes with these indexes are to be unpacked.
    Wanted(Range<u32>),
}

impl Loaded {
    pub(super) fn unfolded(
        &mut self,
        slot: &Slot,
        peer: ConnectionId,
    ) -> Result<Unfolding, StorageError> {
        let wanted = self.with_graph(slot, |history| history.unfolds_for(peer))?;
        Ok(match wanted {
            None => Unfolding::Needless,
            Some(range) => match slot.services.unfolded.get(self.key, range.start) {
                Some(window) => Unfolding::Done(window),
                None => Unfolding::Wanted(range),
            },
        })
    }
}

impl Document {
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
            storage: slot.services.storage.clone(),
            key: open.key,
            snapshot: (generation, record.snapshot_bytes),
            wanted,
        };
        let slot = slot.clone();
        slot.services.clone().lifetime.spawn(async move {
            let Some(built) = slot.services.build(to, job).await else {
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
    pub(super) fn unfolded(
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
            slot.services.unfolded.insert(open.key, window);
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
}
