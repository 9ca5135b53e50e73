//! The documents that a connection speaks of.

use std::collections::HashMap;
use std::sync::Arc;

use reconverge::id::{ConnectionId, DocumentId};
use reconverge::protocol::{ProtocolError, SyncEnvelope};
use tracing::warn;

use crate::document::{SPOKEN_OF_BYTES, Services, Slot};
use crate::limits::memory::Charge;
use crate::peers::{Closing, Connection};

/// Documents that a connection which ended leaves in one turn.
const LEFT_AT_A_TIME: usize = 256;

pub(super) struct Documents {
    services: Arc<Services>,
    slots: HashMap<Box<str>, Arc<Slot>>,
    /// What is remembered of those.
    charge: Charge,
    /// How often one was one too many.
    refused: usize,
}

impl Documents {
    pub(super) fn new(services: Arc<Services>, of: ConnectionId) -> Self {
        Self {
            charge: services.spoken_of.holder(of).charge(0),
            services,
            slots: HashMap::new(),
            refused: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.slots.values()
    }

    /// One that it speaks of already.
    pub(super) fn get(&self, document: &str) -> Option<&Arc<Slot>> {
        self.slots.get(document)
    }

    /// One that it speaks of from now on; `None` if it speaks of too many others.
    pub(super) fn open(
        &mut self,
        from: &Connection,
        document: &str,
    ) -> Result<Option<Arc<Slot>>, Closing> {
        if let Some(slot) = self.slots.get(document) {
            return Ok(Some(slot.clone()));
        }
        let id: DocumentId = document.parse().map_err(|error| {
            warn!(connection = from.id.0, peer = %from.peer, %error,
                "bad document id; connection closed");
            Closing {
                code: 1002,
                reason: "bad document id".into(),
            }
        })?;
        let len = self.slots.len();
        if len >= self.services.config.documents_max || !self.charge.holder().has_room() {
            return Ok(None);
        }
        self.charge.resize((len + 1) * SPOKEN_OF_BYTES);
        let slot = self.services.slot(id);
        self.slots.insert(document.into(), slot.clone());
        Ok(Some(slot))
    }

    /// Refuses one document more than a connection may speak of. The others go on.
    pub(super) fn refuse(&mut self, from: &Connection, sync: &SyncEnvelope<'_>) {
        let max = self.slots.len();
        let (what, option) = match max >= self.services.config.documents_max {
            true => ("documents of one connection", ""),
            false => (
                "documents that the relay has memory for",
                " (see --memory-mib)",
            ),
        };
        self.refused += 1;
        if self.refused == 1 {
            warn!(connection = from.id.0, peer = %from.peer, max,
                "too many {what}{option}; further ones are refused");
        }
        let error = ProtocolError::Limit {
            what,
            found: max + 1,
            max,
        };
        from.not_taken(&sync.document, &error);
        if sync.request {
            // Who asks gets an answer, or it would wait for one.
            from.unavailable(&sync.document);
        }
    }

    /// Whether there is room by now for documents that were refused. Their peer knows nothing of that,
    /// and speaks of them again when it comes back.
    pub(super) fn has_room_again(&self) -> bool {
        let left = self.services.config.documents_max - self.slots.len();
        let more = self.refused.min(left);
        more > 0 && self.charge.holder().has_room_for(more * SPOKEN_OF_BYTES)
    }

    /// The connection ended.
    pub(super) async fn leave(&self, connection: ConnectionId) {
        for (at, slot) in self.slots.values().enumerate() {
            slot.leave(connection);
            if at % LEFT_AT_A_TIME == LEFT_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
        }
    }
}
