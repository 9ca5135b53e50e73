//! Looking for a document: here, then at the relays.

use super::Engine;
use super::document::{Document, Greeted, Phase, SyncState};
use super::fault::Fault;
use super::interface::{FindError, Output};
use super::link::{Link, Relay, State};
use super::load::Reading;
use crate::id::DocumentId;
use crate::replica::Replica;

impl Engine {
    /// Looks for a document: here, then at the relays. [`Output::Found`] says how it went, also if
    /// it was there already. It stays in memory until [`Self::let_go`].
    ///
    /// Relays that cannot be reached are not waited for: [`FindError::Unreachable`].
    pub fn find(&mut self, document: DocumentId) {
        self.search(document, false);
    }

    /// The same, and goes on while a relay may still be reached, until [`Self::stop_finding`].
    pub fn find_patiently(&mut self, document: DocumentId) {
        self.search(document, true);
    }

    /// Nobody waits for a search any more.
    pub fn stop_finding(&mut self, document: &DocumentId) {
        if let Some(found) = self.documents.get_mut(document) {
            self.counts.searches_ended += u64::from(std::mem::take(&mut found.asked));
            found.is_patient = false;
            self.due.insert(*document);
        }
    }

    /// Why a search has no result yet; `None` if it has.
    #[must_use]
    pub fn why_missing(&self, document: &DocumentId) -> Option<FindError> {
        let found = self.documents.get(document).filter(|found| found.asked)?;
        let unreached = self.unreached(found);
        Some(match found.phase {
            // What a relay that can be reached sends, or what is read, is on its way.
            Phase::Unavailable => unreached.map_or(FindError::Late, FindError::Unreachable),
            _ => FindError::Late,
        })
    }

    fn search(&mut self, document: DocumentId, is_patient: bool) {
        if !self.documents.contains_key(&document) {
            self.load(document, Reading::Contents);
        }
        self.reread(document);
        self.recall(document, Reading::Contents);
        let found = self.documents.get_mut(&document).expect("just inserted");
        found.wanted = true;
        found.held = true;
        self.counts.searches_begun += u64::from(!found.asked);
        found.asked = true;
        found.is_patient |= is_patient;
        if let Phase::Unread(again_at, _) = &mut found.phase {
            *again_at = self.now;
        }
        if matches!(found.phase, Phase::Unavailable) {
            found.phase = Phase::Searching;
            for relay in &mut found.relays {
                relay.unavailable = false;
                relay.greeted = Greeted::No;
            }
        }
        self.due.insert(document);
    }
}

/// What became of a search.
impl Engine {
    /// Whether a document that was searched for is there, or cannot be had.
    pub(super) fn settle_phase(&mut self, id: DocumentId, document: &mut Document) {
        if !matches!(document.phase, Phase::Searching | Phase::Unavailable) || document.is_settling
        {
            return;
        }
        let Some(replica) = document.opened.as_ref().map(|opened| &opened.replica) else {
            return;
        };
        if !replica.is_empty() {
            if is_whole(replica, &self.relays) {
                document.phase = Phase::Ready;
                self.outputs.push_back(Output::Added(id));
            }
            return;
        }
        let gave_up = |(relay, unavailable): (&Relay, bool)| unavailable || relay.is_out_of_reach();
        let unavailable = document.relays.iter().map(|relay| relay.unavailable);
        // One that came back may have it.
        document.phase = if self.relays.iter().zip(unavailable).all(gave_up) {
            Phase::Unavailable
        } else {
            Phase::Searching
        };
    }

    pub(super) fn answer(&mut self, id: DocumentId, document: &mut Document) {
        #[cfg(feature = "planted")]
        let is_settling =
            document.is_settling && !crate::planted::is(crate::planted::Bug::FoundBeforeItShows);
        #[cfg(not(feature = "planted"))]
        let is_settling = document.is_settling;
        if is_settling && !document.deleting {
            return;
        }
        let answer = match &document.phase {
            _ if document.deleting => Err(FindError::Deleted),
            Phase::Ready => Ok(()),
            Phase::Unavailable => match self.unreached(document) {
                None => Err(FindError::Unavailable),
                Some(_) if document.is_patient && self.may_be_reached(document) => return,
                Some(fault) => Err(FindError::Unreachable(fault)),
            },
            Phase::Unread(_, error) => Err(FindError::Storage(error.clone())),
            Phase::Failed(reason) => Err(FindError::Damaged(reason.text.clone())),
            Phase::Loading | Phase::Searching | Phase::Released(_) => return,
        };
        document.asked = false;
        document.is_patient = false;
        self.counts.searches_ended += 1;
        self.outputs.push_back(Output::Found(id, answer));
    }

    /// Why a relay did not say whether it has a document; `None` if all did.
    pub(super) fn unreached(&self, document: &Document) -> Option<Fault> {
        let (relay, _) = self.unasked(document).next()?;
        Some(relay.why_unreached())
    }

    /// Whether one of those will be tried again.
    fn may_be_reached(&self, document: &Document) -> bool {
        let is_refused = |relay: &Relay| matches!(relay.state, State::Refused(_));
        self.unasked(document).any(|(relay, _)| !is_refused(relay))
    }

    /// The relays that are not connected and did not say whether they have a document.
    fn unasked<'a>(
        &'a self,
        document: &'a Document,
    ) -> impl Iterator<Item = (&'a Relay, &'a SyncState)> {
        let relays = self.relays.iter().zip(&document.relays);
        relays.filter(|(relay, of_relay)| {
            !relay.is_away() && !of_relay.unavailable && relay.link().is_none()
        })
    }
}

/// Whether all that some relay named is here, or no relay is there to send the rest.
fn is_whole(replica: &Replica, relays: &[Relay]) -> bool {
    let mut links = relays.iter().filter_map(Relay::link).peekable();
    let whole = |link: &Link| {
        let named = replica.acknowledged(link.connection);
        named.is_some_and(|(heads, all_known)| all_known && !heads.is_empty())
    };
    links.peek().is_none() || links.any(whole)
}
