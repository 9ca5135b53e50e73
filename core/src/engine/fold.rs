//! Folding a document's history when that pays, and reading it again without what makes no document.

use super::Engine;
use super::document::{Document, Greeted, Opened, Phase};
use super::fold_job::{FoldOutcome, Folded, Folding};
use super::interface::Output;
use super::load::Reading;
use crate::id::DocumentId;
use crate::storage::StorageError;

impl Engine {
    /// Has the history folded when that pays, or stores what came of it.
    pub(super) fn fold(&mut self, id: DocumentId, document: &mut Document) {
        let Some(Opened { key, replica }) = document.opened.as_deref() else {
            return;
        };
        if let Some(new) = document.new_snapshot.take() {
            if self.is_being_read(id) {
                document.new_snapshot = Some(new);
                return;
            }
            let record = new.record.clone();
            self.store(id, document, new.into_writes(), Some(record));
            return;
        }
        if document.folding.is_some() || replica.len() < document.fold_from_len {
            return;
        }
        let (Some(fold), Some(built)) = (replica.begin_fold(), replica.try_document()) else {
            return;
        };
        self.foldings += 1;
        document.folding = Some(self.foldings);
        self.outputs.push_back(Output::Fold(
            id,
            Box::new(Folding {
                number: self.foldings,
                key: *key,
                generation: replica.record().generation,
                fold,
                heads: replica.heads(),
                document: built.clone(),
            }),
        ));
    }

    pub(super) fn folded(&mut self, id: DocumentId, folded: Result<Folded, StorageError>) {
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        let (Some(opened), Some(number)) = (&document.opened, document.folding) else {
            return;
        };
        let found = match folded {
            // What it was begun for is not there any more.
            Ok(folded) if folded.number != number => return,
            Ok(folded) => folded.found,
            Err(_) => FoldOutcome::Nothing,
        };
        document.folding = None;
        match found {
            FoldOutcome::New(new) => document.new_snapshot = Some(new),
            FoldOutcome::Unsound => document.is_unsound = true,
            FoldOutcome::Nothing => document.fold_from_len = opened.replica.len().saturating_mul(2),
        }
        self.due.insert(id);
    }

    /// Reads a document again in which something makes no document, when all of it is stored.
    pub(super) fn reread_sound(&mut self, id: DocumentId, document: &mut Document) {
        let opened = document.opened.take();
        document.reread = opened.map(|opened| opened.replica.is_observed());
        document.is_unsound = false;
        document.needs_graph = false;
        document.graph_again_at = None;
        document.folding = None;
        document.new_snapshot = None;
        document.was_released = true;
        for (relay, of_relay) in self.relays.iter().zip(&mut document.relays) {
            if relay.link().is_some() {
                // It counts on what it sent; what was taken out is refused when it comes again.
                of_relay.reset = of_relay.greeted != Greeted::No;
                of_relay.greeted = Greeted::No;
            }
        }
        document.phase = Phase::Loading;
        self.read(id, Reading::Sound);
    }
}
