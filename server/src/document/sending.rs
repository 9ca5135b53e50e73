//! The end of a turn: what each peer should be sent now.

use std::sync::Arc;

use bytes::Bytes;
use reconverge::history::Outgoing;
use reconverge::leb::push_unsigned;
use reconverge::storage::{Blob, StorageError};

use super::Services;
use super::unfolded_cache::Window;
use super::unfolding::Unfolding;
use super::{Document, Loaded, Recipients, Slot};
use crate::limits::large_messages::LARGE_BYTES;

/// Payloads encoded in this turn. Peers that stand at the same heads share one.
#[derive(Default)]
struct Encoded(Vec<(Outgoing, Bytes)>);

impl Document {
    /// Hands every peer that has room what it should be sent.
    pub(super) fn send(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        let Some(open) = &mut self.history else {
            return Ok(());
        };
        // Nothing more is sent once the relay stops, so that no client answers on a socket that
        // is being closed.
        if slot.services.lifetime.is_stopping() {
            return Ok(());
        }
        let mut encoded = Encoded::default();
        let mut unfolds = None;
        let folds = self.verifying.folds_soon(&open.history);
        // Most turns only take in acknowledgements; then nobody but their senders can have news.
        let concerned = std::mem::take(&mut self.concerned);
        let connections: Vec<_> = match concerned {
            Recipients::All => self.connections.values().collect(),
            Recipients::Some(ids) => ids
                .iter()
                .filter_map(|id| self.connections.get(id))
                .collect(),
        };
        for connection in connections {
            while open.history.has_news(connection.id) && connection.outbox.has_room(slot) {
                if folds && open.history.is_better_folded(connection.id) {
                    // It has nothing, and would show a part as if it were all.
                    break;
                }
                let large = &slot.services.large;
                if large.is_full() && open.history.bytes_to_send(connection.id) > LARGE_BYTES as u64
                {
                    large.wait(slot);
                    break;
                }
                let window = match open.unfolded(slot, connection.id)? {
                    Unfolding::Needless => None,
                    Unfolding::Done(window) => Some(window),
                    Unfolding::Wanted(range) => {
                        unfolds = Some((connection.owner(), range));
                        break;
                    }
                };
                let unfolded = window.as_ref().map_or(0..0, |window| window.range.clone());
                let outgoing = open.history.poll_send_unfolded(connection.id, unfolded);
                let Some(outgoing) = outgoing else {
                    break;
                };
                match encoded.get(&slot.services, open, outgoing, window.as_deref()) {
                    Ok(payload) => {
                        let place = large.permit(payload.len(), connection);
                        connection.sync(&slot.name, payload, place);
                    }
                    // The peers of a damaged document begin anew with it.
                    Err(error @ StorageError::Damaged { .. }) => return Err(error),
                    Err(error) => {
                        // The history believes that it was sent; only a new connection undoes
                        // that, for this peer and for all after it.
                        connection.outbox.close(1011, "storage failed");
                        return Err(error);
                    }
                }
            }
        }
        if let Some((to, range)) = unfolds {
            self.unfold(slot, to, range);
        }
        Ok(())
    }
}

impl Encoded {
    fn get(
        &mut self,
        relay: &Services,
        open: &Loaded,
        outgoing: Outgoing,
        window: Option<&Window>,
    ) -> Result<Bytes, StorageError> {
        if let Some((_, payload)) = self.0.iter().find(|(same, _)| *same == outgoing) {
            return Ok(payload.clone());
        }
        let chunks = chunks(relay, open, &outgoing, window)?;
        let size: usize = chunks.iter().map(|chunk| chunk.len() + 4).sum();
        let mut payload = outgoing.encode_head(chunks.len());
        payload.reserve(size + 3);
        for chunk in &chunks {
            push_unsigned(&mut payload, chunk.len() as u64);
            payload.extend_from_slice(chunk);
        }
        if let Some(flags) = outgoing.flags {
            payload.extend_from_slice(&flags.encode());
        }
        let payload = Bytes::from(payload);
        self.0.push((outgoing, payload.clone()));
        Ok(payload)
    }
}

/// The bytes of the chunks that a message carries: from memory, or else from the store.
fn chunks(
    relay: &Services,
    open: &Loaded,
    outgoing: &Outgoing,
    window: Option<&Window>,
) -> Result<Vec<Bytes>, StorageError> {
    let recent = |index| open.history.recent(index).cloned();
    if !outgoing.snapshot {
        let indexes = outgoing.changes.iter().cloned().flatten();
        if let Some(recent) = indexes.map(recent).collect::<Option<Vec<_>>>() {
            return Ok(recent);
        }
    }
    tokio::task::block_in_place(|| {
        let mut chunks = Vec::new();
        if outgoing.snapshot {
            let generation = open.history.record().generation;
            chunks.push(relay.storage.blob(open.key, Blob::Snapshot(generation))?);
        }
        let mut stored = outgoing.changes.clone();
        if let Some(window) = window {
            for range in &mut stored {
                let unfolded = range.clone().map_while(|index| window.get(index));
                chunks.extend(unfolded.cloned());
                range.start = range.start.max(window.range.end.min(range.end));
            }
            stored.retain(|range| !range.is_empty());
        }
        chunks.extend(relay.storage.changes(open.key, &stored)?);
        Ok(chunks)
    })
}
