//! The stored outbox: documents with changes that some relay has not acknowledged. All of them are read
//! and synced, opened by the application or not.

use std::collections::{HashSet, VecDeque};

use super::Engine;
use super::load::Reading;
use super::open::LOADS_MAX;
use crate::id::DocumentId;

/// The outbox as storage has it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    stored: HashSet<DocumentId>,
    /// What of it is not read yet.
    waiting: VecDeque<DocumentId>,
}

impl Outbox {
    pub(super) fn contains(&self, document: &DocumentId) -> bool {
        self.stored.contains(document)
    }

    pub(super) fn remove(&mut self, document: &DocumentId) {
        self.stored.remove(document);
    }
}

impl Engine {
    /// These documents are in it, too.
    pub(super) fn put_into_outbox(&mut self, documents: Vec<DocumentId>) {
        self.outbox.stored.extend(documents.iter().copied());
        for document in &documents {
            if let Some(found) = self.documents.get_mut(document) {
                found.in_outbox = true;
                // It may have no place there.
                self.write_later(*document);
            }
        }
        self.outbox.waiting.extend(documents);
        self.load_outbox();
    }

    pub(super) fn load_outbox(&mut self) {
        while self.loads < LOADS_MAX
            && let Some(document) = self.outbox.waiting.pop_front()
        {
            if self.documents.contains_key(&document) {
                self.recall(document, Reading::History);
            } else {
                self.load(document, Reading::History);
            }
        }
    }
}
