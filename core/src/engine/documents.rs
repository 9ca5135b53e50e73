//! Which documents there are, and what is known of them besides their contents.

use std::sync::Arc;

use automerge::ChangeHash;

use super::Engine;
use super::document::{Document, Phase};
use super::interface::Output;
use super::load::Reading;
use crate::id::DocumentId;
use crate::storage::StorageError;

impl Engine {
    /// The documents that are open.
    pub fn documents(&self) -> impl Iterator<Item = &DocumentId> {
        self.documents.keys()
    }

    /// Those of them that exist here, as far as is known: not those that are searched for, or still to be
    /// read.
    pub fn existing(&self) -> impl Iterator<Item = &DocumentId> {
        let exists = |found: &Document| {
            let is_here = matches!(found.phase, Phase::Ready | Phase::Released(_));
            is_here && !found.deleting
        };
        let existing = self
            .documents
            .iter()
            .filter(move |(_, found)| exists(found));
        existing.map(|(document, _)| document)
    }

    /// Those of which [`Output::Added`] is still to come.
    pub fn unannounced(&self) -> impl Iterator<Item = &DocumentId> {
        self.outputs.iter().filter_map(|output| match output {
            Output::Added(document) => Some(document),
            _ => None,
        })
    }

    /// Whether a document is open, in whatever state.
    #[must_use]
    pub fn is_open(&self, document: &DocumentId) -> bool {
        self.documents.contains_key(document)
    }

    /// Whether a document that was open was deleted, or is about to be.
    #[must_use]
    pub fn is_deleted(&self, document: &DocumentId) -> bool {
        let found = self.documents.get(document);
        found.is_none_or(|found| found.deleting)
    }

    /// Removes a document from local storage and from here; relays and other peers keep it.
    /// [`Output::Deleted`] follows.
    pub fn delete(&mut self, document: &DocumentId) {
        let Some(found) = self.documents.get_mut(document) else {
            self.outputs.push_back(Output::Deleted(*document));
            return;
        };
        found.deleting = true;
        // Its place is not known while it is released.
        self.recall(*document, Reading::History);
        self.due.insert(*document);
    }

    /// The changes that were taken out of a document that was read, because together with their past
    /// they make none: they are [`kept_aside`](super::kept_aside). [`Output::TakenOut`] tells when there are more.
    #[must_use]
    pub fn quarantined(&self, document: &DocumentId) -> Arc<[ChangeHash]> {
        let found = self.documents.get(document);
        found.map_or_else(Arc::default, |found| found.quarantined.clone())
    }

    /// What was found damaged when a document was read.
    #[must_use]
    pub fn damage(&self, document: &DocumentId) -> Option<&StorageError> {
        self.documents.get(document)?.damage.as_ref()
    }

    /// Why a document cannot go on: what is not stored of it will not be.
    #[must_use]
    pub fn failure(&self, document: &DocumentId) -> Option<&str> {
        match &self.documents.get(document)?.phase {
            Phase::Failed(reason) => Some(&reason.text),
            _ => None,
        }
    }

    /// The heads of what is in local storage of a document that is open, in order.
    #[must_use]
    pub fn durable_heads(&self, document: &DocumentId) -> Vec<ChangeHash> {
        let found = self.documents.get(document);
        let opened = found.and_then(|found| found.opened.as_ref());
        opened.map_or_else(Vec::new, |opened| opened.replica.durable_heads().to_vec())
    }

    /// Whether a change of a document that is open is here, whether it is stored and shows or not; the
    /// folded part of the graph is not looked at.
    #[must_use]
    pub fn knows(&self, document: &DocumentId, change: &ChangeHash) -> bool {
        let found = self.documents.get(document);
        let opened = found.and_then(|found| found.opened.as_ref());
        opened.is_some_and(|opened| opened.replica.knows(change))
    }
}
