//! Making a document under an id that the caller chose, which may be known here.

use super::document::{Document, Opened, Phase};
use super::{Engine, Output};
use crate::id::DocumentId;
use crate::replica::Replica;
use crate::storage::DocumentKey;

/// Why a document cannot be made under an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdInUse {
    /// There is one.
    Exists,
    /// Whether there is one is being found out: [`Engine::find`] it first.
    Unread,
}

impl Engine {
    /// Adds a new document, which is ready at once. `key` is its place in storage. It stays in
    /// memory until [`Self::let_go`].
    pub fn create(&mut self, document: DocumentId, key: DocumentKey, replica: Replica) {
        let mut new = Document::new(self.relays.len());
        new.wanted = true;
        new.held = true;
        new.phase = Phase::Ready;
        new.opened = Some(Box::new(Opened { key, replica }));
        self.join_all(&mut new);
        self.documents.insert(document, new);
        self.outputs.push_back(Output::Added(document));
        self.counts.documents_entered += 1;
        self.counts.changes_made += 1;
        self.due.insert(document);
    }

    /// Whether a document that is not in storage can be made under this id: it is not known here, or
    /// was searched for in vain so far.
    ///
    /// # Errors
    /// When there is one, or may be.
    pub fn may_create(&self, document: &DocumentId) -> Result<(), IdInUse> {
        let Some(found) = self.documents.get(document) else {
            return Ok(());
        };
        match &found.phase {
            Phase::Searching | Phase::Unavailable if is_empty(found) => Ok(()),
            Phase::Loading | Phase::Searching | Phase::Unavailable | Phase::Unread(..) => {
                Err(IdInUse::Unread)
            }
            Phase::Ready | Phase::Released(_) | Phase::Failed(_) => Err(IdInUse::Exists),
        }
    }

    /// As [`Self::create`], if [`Self::may_create`] says so; nothing happens otherwise. Who searches
    /// for the document finds it.
    pub fn create_as(&mut self, document: DocumentId, key: DocumentKey, replica: Replica) {
        if self.may_create(&document).is_err() {
            return;
        }
        let Some(found) = self.documents.get_mut(&document) else {
            self.create(document, key, replica);
            // There may have been one that was deleted, and a relay counts on what it sent of that.
            let created = self.documents.get_mut(&document);
            for of_relay in created.into_iter().flat_map(|created| &mut created.relays) {
                of_relay.reset = true;
            }
            return;
        };
        // Relays were asked for it, which their connections have in mind: so it goes on as it is.
        let sought = found.opened.as_mut().map(|opened| &mut opened.replica);
        let made = replica.document().map(|made| made.get_changes(&[]));
        let (Some(sought), Some(made)) = (sought, made) else {
            return;
        };
        if sought.merge(made).is_ok() {
            found.phase = Phase::Ready;
            found.wanted = true;
            found.held = true;
            self.outputs.push_back(Output::Added(document));
            self.edited(&document);
        }
    }
}

/// Whether nothing of a document is here, nor came.
fn is_empty(document: &Document) -> bool {
    let opened = document.opened.as_ref();
    let is_empty = opened
        .is_some_and(|opened| opened.replica.is_empty() && opened.replica.document().is_some());
    is_empty && document.inbox.is_empty() && document.storing.is_none() && !document.deleting
}
