//! The part of a turn that stores, in one commit; and what its end means.

use std::time::Duration;

use super::Engine;
use super::document::{Document, Storing};
use super::interface::Output;
use crate::history::Record;
use crate::id::DocumentId;
use crate::storage::{Batch, StorageError, Write};

/// Acknowledgements are written this long after they came, unless something else is written
/// sooner. Losing them costs the next connection some bytes, nothing else.
pub const ACKNOWLEDGEMENT_DELAY: Duration = Duration::from_secs(1);

/// A commit that failed is tried again after this long.
pub const STORE_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Engine {
    /// What must be written now: new changes, and with them or after a while what relays
    /// acknowledged.
    pub(super) fn unsaved(&self, document: &mut Document) -> Vec<Write> {
        let Some(opened) = &mut document.opened else {
            return Vec::new();
        };
        let mut writes = opened.replica.take_unsaved().unwrap_or_default();
        let due = document
            .acknowledgements_due
            .is_some_and(|due| due <= self.now);
        let never_stored = opened.replica.durable_heads().is_empty();
        if writes.is_empty() && (!due || never_stored) {
            return writes;
        }
        document.acknowledgements_due = None;
        for (relay, of_relay) in self.relays.iter().zip(&mut document.relays) {
            if std::mem::take(&mut of_relay.dirty) {
                writes.push(Write::Acknowledged {
                    relay: relay.name.clone(),
                    heads: of_relay.acknowledged.clone(),
                });
            }
            if std::mem::take(&mut of_relay.refused_dirty) {
                writes.push(Write::Refused {
                    relay: relay.name.clone(),
                    refused: of_relay.refused.clone(),
                });
            }
        }
        let belongs = document.belongs_in_outbox();
        if belongs != document.in_outbox {
            document.in_outbox = belongs;
            writes.push(Write::Outbox(belongs));
        }
        writes
    }

    pub(super) fn store(
        &mut self,
        id: DocumentId,
        document: &mut Document,
        writes: Vec<Write>,
        fold: Option<Record>,
    ) {
        let Some(opened) = &document.opened else {
            return;
        };
        let batch = Batch {
            document: id,
            key: opened.key,
            writes,
        };
        self.outputs.push_back(Output::Store(batch.clone()));
        document.storing = Some(Box::new(Storing {
            batch,
            fold,
            again_at: None,
        }));
    }

    pub(super) fn stored(&mut self, id: DocumentId, result: Result<(), StorageError>) {
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        self.due.insert(id);
        if let Err(error) = result {
            if let Some(storing) = &mut document.storing {
                let again_at = self.now + STORE_AGAIN_AFTER;
                storing.again_at = Some(again_at);
                self.due.insert_at(again_at, id);
            }
            self.counts.commits_failed += 1;
            self.outputs.push_back(Output::StoreFailed(id, error));
            return;
        }
        self.counts.commits += 1;
        let Some(storing) = document.storing.take() else {
            return;
        };
        if storing.batch.writes == [Write::RemoveDocument] {
            self.documents.remove(&id);
            self.counts.documents_left += 1;
            // It left the stored outbox too; found again, it must be put there anew.
            self.outbox.remove(&id);
            self.outputs.push_back(Output::Deleted(id));
            return;
        }
        if let Some(opened) = &mut document.opened {
            match storing.fold {
                Some(record) => opened.replica.folded(record),
                None => opened.replica.committed(),
            }
        }
        if document.is_stored() {
            self.outputs.push_back(Output::Flushed(id));
        }
    }

    /// What relays say of a document is written a while after it was said.
    pub(super) fn write_soon(&mut self, id: DocumentId, document: &mut Document) {
        if document.acknowledgements_due.is_none() {
            let due = self.now + ACKNOWLEDGEMENT_DELAY;
            document.acknowledgements_due = Some(due);
            self.due.insert_at(due, id);
        }
    }

    pub(super) fn write_later(&mut self, id: DocumentId) {
        if let Some(mut document) = self.documents.remove(&id) {
            self.write_soon(id, &mut document);
            self.documents.insert(id, document);
        }
    }

    /// Writes what would be written later: acknowledgements.
    pub fn flush(&mut self) {
        for (document, found) in &mut self.documents {
            if found.acknowledgements_due.is_some() {
                found.acknowledgements_due = Some(self.now);
                self.due.insert(*document);
            }
        }
    }
}
