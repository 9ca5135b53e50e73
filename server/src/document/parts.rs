//! Messages that take long are taken in part by part, each part in a turn that is shared fairly between
//! connections. What comes behind one waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use reconverge::history::{DocumentChunks, Progress, Work};
use reconverge::id::ConnectionId;
use reconverge::storage::StorageError;

use super::receiving::TakeInOutcome;
use super::{Document, Incoming, Input, Slot};
use crate::peers::Connection;

/// A message that takes long, and what came after it.
pub(super) struct Parts {
    pub(super) waiting: VecDeque<Arc<Incoming>>,
    pub(super) progress: Progress,
    pub(super) documents: DocumentChunks,
    pub(super) tries: u32,
    /// Its connection ended. What had come of it is taken in all the same, for a while.
    pub(super) left: bool,
    /// It waits for a turn, or has one.
    pub(super) asked: bool,
}

/// Has the document told when a message that takes long has a turn, or is not taken in any more.
fn ask_for_turn(slot: &Arc<Slot>, from: &Arc<Connection>) {
    let (slot, from) = (slot.clone(), from.clone());
    slot.services.clone().lifetime.spawn(async move {
        let _turn = tokio::select! {
            () = slot.services.lifetime.stopping() => return,
            () = from.long_gone() => None,
            turn = slot.services.long_work.take(from.owner(), Duration::ZERO) => Some(turn),
        };
        slot.push(Input::Part {
            from: from.id,
            _turn,
        });
    });
}

impl Document {
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
        mut documents: DocumentChunks,
        mut tries: u32,
    ) -> Result<(), StorageError> {
        while let Some(message) = waiting.front().cloned() {
            let mut progress = Progress::default();
            let taken = self.receive(slot, &message, documents, &mut progress, Work::Light);
            match taken {
                Ok(TakeInOutcome::All) => drop(waiting.pop_front()),
                Ok(TakeInOutcome::Unpack) => {
                    waiting.pop_front();
                    return self.unpack_first(slot, from, message, waiting, tries);
                }
                Ok(TakeInOutcome::Part) | Err(_) => {
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
            (documents, tries) = (DocumentChunks::Report, 0);
        }
        Ok(())
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
        if !matches!(taken, Ok(TakeInOutcome::All | TakeInOutcome::Unpack)) {
            parts.asked = taken.is_ok();
            self.building.parts.insert(from, parts);
            return taken.map(|_| ask_for_turn(slot, &message.from));
        }
        parts.waiting.pop_front();
        let (waiting, left) = (parts.waiting, parts.left);
        let taken = match taken {
            Ok(TakeInOutcome::Unpack) => {
                self.unpack_first(slot, from, message, waiting, parts.tries)
            }
            _ => self.take_in_order(slot, from, waiting, DocumentChunks::Report, 0),
        };
        if left && !self.building.leaves_later(from) {
            self.leave(slot, from);
        }
        taken
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
}
