//! Taking in a sync message, or a part of it.

use std::collections::VecDeque;
use std::sync::Arc;

use reconverge::history::{DocumentChunks, History, NeedGraph, Progress, Received, Work};
use reconverge::protocol::SyncMessage;
use reconverge::protocol::limits::REMOTE_HEADS_MAX;
use reconverge::storage::StorageError;
use tracing::warn;

use super::{Document, Incoming, Slot};
use crate::limits::memory::SMALL_BYTES;
use crate::peers::Connection;

/// Messages above this size are not even read where sockets are served.
const LIGHT_BYTES_MAX: usize = 64 * 1024;

/// How much of a message was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakeInOutcome {
    All,
    /// A document chunk is to be unpacked first.
    Unpack,
    /// What is left takes long.
    Part,
}

impl Document {
    pub(super) fn message(
        &mut self,
        slot: &Arc<Slot>,
        message: &Arc<Incoming>,
    ) -> Result<(), StorageError> {
        if message.from.is_given_up() {
            return Ok(());
        }
        // Behind a document chunk that is being unpacked, the connection's messages wait in order.
        if let Some(waiting) = self.building.waiting_behind(message.from.id) {
            waiting.push_back(message.clone());
            return Ok(());
        }
        let first = VecDeque::from([message.clone()]);
        self.take_in_order(slot, message.from.id, first, DocumentChunks::Report, 0)
    }

    /// Takes in a sync message, or a part of it.
    pub(super) fn receive(
        &mut self,
        slot: &Arc<Slot>,
        incoming: &Incoming,
        documents: DocumentChunks,
        progress: &mut Progress,
        work: Work,
    ) -> Result<TakeInOutcome, StorageError> {
        let (from, data) = (&incoming.from, &incoming.data);
        if work == Work::Light && data.len() > LIGHT_BYTES_MAX {
            return Ok(TakeInOutcome::Part);
        }
        let mut message = match SyncMessage::decode(data) {
            Ok(message) => message,
            Err(error) if error.is_of_its_document() => {
                if self.not_taken.insert(from.id) {
                    from.not_taken(&slot.name, &error);
                    warn!(document = %slot.name, peer = %from.peer, %error,
                        "sync message not taken; the connection's other documents go on");
                }
                return Ok(TakeInOutcome::All);
            }
            Err(error) => {
                from.refuse_frame(&error);
                return Ok(TakeInOutcome::All);
            }
        };
        if self.unstored.is_some()
            && !message.changes.is_empty()
            && self.opened().history.takes_from(from.id)
        {
            message.changes.clear();
            self.asks_again = true;
        }
        let (len, unsaved) = {
            let history = &self.opened().history;
            (history.len(), history.unsaved_bytes())
        };
        let part = |history: &mut History, progress: &mut Progress| {
            history.receive_part(from.id, &message, documents, progress, work)
        };
        // Also to read the graph takes long.
        let received = match work {
            Work::Light => part(&mut self.opened().history, progress),
            Work::Slice | Work::All => {
                Ok(self.with_graph(slot, |history| part(history, progress))?)
            }
        };
        let received = received.unwrap_or_else(|NeedGraph| Received {
            more: true,
            ..progress.found()
        });
        if self.unstored.is_some() {
            self.opened().history.ask_nothing(from.id);
        }
        self.note_senders(len, from, &received);
        self.report_refused(slot, from, &received);
        // What a small message leaves is charged at the end of the turn.
        if data.len() > SMALL_BYTES {
            let held = self.held_for(from.id);
            self.charge(from, held);
        }
        let more = self.opened().history.unsaved_bytes() - unsaved;
        if more > SMALL_BYTES {
            self.unsaved.push(from.holder.charge(more));
        }
        if received.unpack {
            return Ok(TakeInOutcome::Unpack);
        }
        if received.more {
            return Ok(TakeInOutcome::Part);
        }
        let empty = self.opened().history.is_empty();
        self.had_contents |= !empty;
        if empty && message.heads.is_empty() {
            self.give_grace(slot, from.id);
        }
        if let Some(storage) = &from.storage_id
            && (1..=REMOTE_HEADS_MAX).contains(&message.heads.len())
        {
            self.gossip_of(slot, from.id, storage, &message.heads);
        }
        Ok(TakeInOutcome::All)
    }

    /// Logs what was refused, and tells its sender.
    pub(super) fn report_refused(&self, slot: &Slot, from: &Connection, received: &Received) {
        from.refused(&slot.name, &received.refused);
        for (hash, refusal) in received.refused.iter().take(8) {
            let change = hash.map(|hash| hash.to_string());
            warn!(document = %slot.name, peer = %from.peer, change, reason = %refusal,
                "change refused");
        }
        let more = received.refused.len().saturating_sub(8) + received.refused_more;
        if more > 0 {
            warn!(document = %slot.name, peer = %from.peer, more, "more changes refused");
        }
    }
}
