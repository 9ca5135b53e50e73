//! What is true of a document's changes: how far they came.
//!
//! All of it is computed from what was committed here and what relays acknowledged, and never from a
//! socket being open.

use automerge::ChangeHash;

use super::Engine;
use super::document::{Document, Phase, SyncState};
use super::interface::{Output, Reason, Status};
use super::link::{Relay, State};
use crate::id::DocumentId;
use crate::protocol::code;

/// What the application asks.
impl Engine {
    /// A document's status; `None` before it is ready.
    #[must_use]
    pub fn status(&self, document: &DocumentId) -> Option<&Status> {
        self.documents.get(document)?.status.as_ref()
    }

    /// Whether everything that was made or received of a document is in local storage.
    #[must_use]
    pub fn is_stored(&self, document: &DocumentId) -> bool {
        self.commits_due(document) == 0
    }

    /// After how many commits everything that was made or received so far is in local storage,
    /// whatever is made meanwhile.
    #[must_use]
    pub fn commits_due(&self, document: &DocumentId) -> u32 {
        let found = self.documents.get(document);
        found.map_or(0, |found| found.commits_due())
    }

    /// Whether, besides, it is stored what relays acknowledged.
    #[must_use]
    pub fn is_flushed(&self, document: &DocumentId) -> bool {
        let found = self.documents.get(document);
        let due = found.is_some_and(|found| found.acknowledgements_due.is_some());
        self.is_stored(document) && !due
    }

    /// Whether a relay has acknowledged these changes, or all relays have and there is one.
    #[must_use]
    pub fn is_acknowledged(
        &self,
        document: &DocumentId,
        changes: &[ChangeHash],
        by_all: bool,
    ) -> bool {
        let Some(found) = self.documents.get(document) else {
            return false;
        };
        let has = |relay: &SyncState| found.is_acknowledged(changes, relay);
        if by_all {
            self.all_wanted(found, has)
        } else {
            found.relays.iter().any(has)
        }
    }

    /// Whether every relay has acknowledged everything of a document, and there is one.
    #[must_use]
    pub fn is_everywhere(&self, document: &DocumentId) -> bool {
        let Some(found) = self.documents.get(document) else {
            return false;
        };
        let Some(opened) = &found.opened else {
            return self.all_wanted(found, |_| !found.in_outbox);
        };
        let heads = opened.replica.heads();
        !opened.replica.has_own() && self.all_wanted(found, |relay| relay.covers(&heads))
    }

    /// Whether all relays that are wanted have something of a document, and there is one.
    fn all_wanted(&self, document: &Document, has: impl Fn(&SyncState) -> bool) -> bool {
        let relays = self.relays.iter().zip(&document.relays);
        let mut wanted = relays.filter(|(relay, _)| !relay.is_away()).peekable();
        wanted.peek().is_some() && wanted.all(|(_, of_relay)| has(of_relay))
    }

    /// Whether a document has its place in the outbox: some relay lacks something, or there is none.
    #[must_use]
    pub fn belongs_in_outbox(&self, document: &DocumentId) -> bool {
        let found = self.documents.get(document);
        found.is_none_or(|found| found.belongs_in_outbox())
    }
}

/// What it is told.
impl Engine {
    pub(super) fn update_status(&mut self, id: DocumentId) {
        if let Some(mut document) = self.documents.remove(&id) {
            self.set_status(id, &mut document);
            self.documents.insert(id, document);
        }
    }

    pub(super) fn set_status(&mut self, id: DocumentId, document: &mut Document) {
        let status = match &document.phase {
            Phase::Unread(_, error) => Status::Refused(Reason::new("storage", error.to_string())),
            Phase::Failed(reason) => Status::Refused(reason.clone()),
            Phase::Ready => self.status_of(document),
            Phase::Loading | Phase::Searching | Phase::Unavailable | Phase::Released(_) => return,
        };
        if status == Status::Saved {
            document.rebases = 0;
        }
        if document.status.as_ref() != Some(&status) {
            document.status = Some(status.clone());
            self.outputs.push_back(Output::Status(id, status));
        }
    }

    fn status_of(&self, document: &Document) -> Status {
        if document.is_saved() {
            return Status::Saved;
        }
        let Some(replica) = document.opened.as_ref().map(|opened| &opened.replica) else {
            return Status::Offline;
        };
        let mut links = self.relays.iter().filter_map(Relay::link);
        if !document.refusals.is_empty() && links.next().is_some() {
            // What is refused may be made again.
            return Status::Saving;
        }
        let (mut reason, mut hope) = (None, false);
        for (relay, of_relay) in self.relays.iter().zip(&document.relays) {
            match &relay.state {
                State::Away => {}
                State::Refused(fault) => {
                    reason = Some(Reason::new(fault.kind.code(), &fault.message));
                }
                _ if let Some(refused) = &of_relay.refused => {
                    reason = Some(Reason::new(&refused.code, &refused.reason));
                }
                State::Open(link) if replica.is_refused_by(link.connection) => {
                    let why = "the relay takes no changes from us";
                    reason = Some(Reason::new(code::READ_ONLY, why));
                }
                State::Open(_) => return Status::Saving,
                State::Waiting(_) | State::Connecting { .. } => hope = true,
            }
        }
        match reason {
            Some(reason) if !hope => Status::Refused(reason),
            _ => Status::Offline,
        }
    }
}
