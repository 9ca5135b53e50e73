//! What the workshop builds for a document. The result comes back through the mailbox; the document
//! goes on meanwhile.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use reconverge::history::Fold;
use reconverge::id::ConnectionId;
use reconverge::storage::{DocumentKey, StorageError};

use tokio_util::sync::DropGuard;

use super::parts::Parts;
use super::{Document, Incoming, Slot};
use crate::limits::fair::Turn;
use crate::limits::memory::Charge;
use crate::workshop::Done;

/// What is being built.
#[derive(Default)]
pub(super) struct Building {
    /// Per connection the message whose chunk is being unpacked, and what came after it.
    pub(super) uploads: HashMap<ConnectionId, Upload>,
    /// The same of a message that is taken in part by part.
    pub(super) parts: HashMap<ConnectionId, Parts>,
    /// Changes of the snapshot are being unpacked.
    pub(super) unfolds: bool,
    /// How often the history was opened or given another snapshot.
    openings: u64,
}

#[derive(Default)]
/// The message whose chunk is being unpacked, and what came after it.
pub(super) struct Upload {
    pub(super) waiting: VecDeque<Arc<Incoming>>,
    /// Ends the job, for which nobody waits any more.
    pub(super) job: Option<DropGuard>,
}

/// What a document was when a job began: if it is the same at the end, then its changes have the
/// same indexes, and the same of them are folded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Basis {
    openings: u64,
    len: u32,
}

/// What a check began with.
pub(crate) struct Checked {
    pub(super) epoch: u32,
    /// The changes with these indexes.
    pub(super) from: u32,
    pub(super) len: u32,
    /// The snapshot before them.
    pub(super) generation: u32,
    /// What is stored with the new snapshot, if one is wanted.
    pub(super) fold: Option<Fold>,
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
    pub(super) fn give_turns_back(&mut self) {
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

impl Document {
    pub(super) fn basis(&mut self) -> Basis {
        Basis {
            openings: self.building.openings,
            len: self.opened().history.len(),
        }
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
}
