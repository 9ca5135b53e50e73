//! Presence: what peers tell each other that is stored nowhere.

use std::sync::Arc;

use bytes::Bytes;
use reconverge::protocol::{self, Ephemeral, Message};

use super::ConnectionTask;
use crate::peers::{Connection, Frame};

/// Larger payloads of presence are shared between those who get them.
const LARGE_PRESENCE_BYTES: usize = 4 * 1024;

impl ConnectionTask {
    /// Passes presence on. One task does this for all documents of the sender, so what it sends
    /// arrives in its order.
    pub(super) fn broadcast(&self, from: &Connection, frame: &Bytes, ephemeral: &Ephemeral<'_>) {
        let Some(slot) = self.documents.get(&ephemeral.document) else {
            return;
        };
        // What is large is in memory once, however many it goes to.
        let shared = ephemeral.data.len() > LARGE_PRESENCE_BYTES;
        let payload = match shared {
            true => frame.slice_ref(ephemeral.data),
            false => Bytes::new(),
        };
        // Nor to another connection of the same name: a stock client passes on what it did not send
        // itself, and what it passes on in its own name would go round without end.
        let others = |to: &&Arc<Connection>| to.id != from.id && to.peer != from.peer;
        for to in slot.audience().iter().filter(others) {
            let ephemeral = Ephemeral {
                target: to.peer.as_str(),
                ..ephemeral.clone()
            };
            let head = match shared {
                true => ephemeral.encode_prefix(),
                false => protocol::encode(&Message::Ephemeral(ephemeral)),
            };
            to.outbox.present(Frame {
                head: head.into(),
                payload: payload.clone(),
                permit: None,
            });
        }
    }
}
