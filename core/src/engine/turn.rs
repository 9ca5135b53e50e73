//! A document's turn: send what is stored, take in what came, store it, send again.
//!
//! Events only mark documents as due; what follows from them is decided here. A turn begins with
//! sending, so that a document which is edited without pause is sent without pause too: what is
//! edited while a commit is on its way waits for the next turn.

use super::Engine;
use super::document::{Document, Phase};
use super::interface::Output;
use super::link::{Link, Relay};
use super::release::Released;
use crate::id::DocumentId;
use crate::storage::{Write, damaged};

impl Engine {
    pub(super) fn turn(&mut self, id: DocumentId) {
        let Some(mut document) = self.documents.remove(&id) else {
            return;
        };
        self.run(id, &mut document);
        self.settle_phase(id, &mut document);
        if document.asked {
            self.answer(id, &mut document);
        }
        self.set_status(id, &mut document);
        if self.release(id, &mut document) == Released::Forgotten {
            self.counts.documents_left += 1;
            return;
        }
        self.documents.insert(id, document);
    }

    fn run(&mut self, id: DocumentId, document: &mut Document) {
        self.read_again(id, document);
        self.greet_released(id, document);
        let failed = matches!(document.phase, Phase::Failed(_) | Phase::Unread(..));
        let Some(opened) = &document.opened else {
            if failed && document.deleting {
                // Its place in storage is not known.
                document.deleting = false;
                let damaged = damaged(id, "it could not be read, so it is not removed");
                self.outputs.push_back(Output::StoreFailed(id, damaged));
            }
            return;
        };
        if document.wanted && !failed && !opened.replica.is_built() {
            self.settle_elsewhere(id, document);
        }
        if let Some(storing) = &mut document.storing {
            if storing.again_at.is_some_and(|at| at <= self.now) {
                storing.again_at = None;
                let batch = storing.batch.clone();
                self.outputs.push_back(Output::Store(batch));
            }
            return;
        }
        if document.is_settling {
            return;
        }
        // The answer to what was asked must not come to a document that takes this one's place.
        if document.deleting && !document.needs_graph {
            self.store(id, document, vec![Write::RemoveDocument], None);
            return;
        }
        if failed || document.deleting {
            return;
        }
        if document.is_unsound {
            self.take_in_own(id, document);
        } else {
            self.send(id, document);
            self.take_in(id, document);
        }
        if matches!(document.phase, Phase::Failed(_)) {
            return;
        }
        if !document.is_unsound && !document.is_settling {
            self.rebase(id, document);
        }
        if document.is_settling {
            return;
        }
        let writes = self.unsaved(document);
        if !writes.is_empty() {
            self.store(id, document, writes, None);
            return;
        }
        if document.is_unsound {
            if document.is_stored() && !self.is_being_read(id) {
                self.reread_sound(id, document);
            }
            return;
        }
        self.send(id, document);
        self.fold(id, document);
    }

    /// Whether something that is being sent is still to be read from storage.
    pub(super) fn is_being_read(&self, id: DocumentId) -> bool {
        let is_read = |link: &Link| link.reads.contains(&id);
        self.relays.iter().filter_map(Relay::link).any(is_read)
    }
}
