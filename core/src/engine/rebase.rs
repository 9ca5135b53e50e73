//! The part of a turn that makes changes again which no relay can take.

use std::collections::HashSet;

use automerge::{Change, ChangeHash};

use super::Engine;
use super::document::{Document, Greeted, Reused};
use super::interface::Output;
use crate::id::DocumentId;
use crate::protocol::code;
use crate::storage::Refused;

/// How often a document's changes are made again before some relay has everything; a relay that
/// refuses them all the same is believed then.
pub const REBASES_MAX: u32 = 3;

/// Most changes of a document that are noted until they are looked at.
const REFUSALS_MAX: usize = 1024;

impl Document {
    /// Notes which changes a relay refused because others have their actor and sequence numbers,
    /// until the turn that makes them again.
    pub(super) fn note_refusal(&mut self, refused: &Refused) {
        if refused.code == code::ACTOR_REUSED {
            let changes = refused.changes.iter();
            changes.for_each(|change| self.note_reused(Reused::Change(*change)));
        }
    }

    pub(super) fn note_reused(&mut self, reused: Reused) {
        let has_room = self.refusals.len() < REFUSALS_MAX && self.rebases < REBASES_MAX;
        if has_room && !self.refusals.contains(&reused) {
            self.refusals.push(reused);
        }
    }
}

impl Engine {
    /// Makes changes again that no relay can take, because another change has their actor and
    /// sequence number: a relay said so of ours, or sent the other one.
    pub(super) fn rebase(&mut self, id: DocumentId, document: &mut Document) {
        let wait = document.needs_graph || self.is_being_read(id);
        let Some(opened) = &mut document.opened else {
            return;
        };
        if document.refusals.is_empty() || wait {
            return;
        }
        if !opened.replica.is_built() {
            self.settle_elsewhere(id, document);
            return;
        }
        let refusals = std::mem::take(&mut document.refusals);
        let acknowledged = document.relays.iter().flat_map(|relay| &relay.acknowledged);
        let acknowledged: Vec<ChangeHash> = acknowledged.copied().collect();
        let reused: HashSet<&Reused> = refusals.iter().collect();
        let is_refused = |change: &Change| {
            let number = || Reused::Number {
                actor: change.actor_id().to_hex_string(),
                seq: change.seq(),
            };
            reused.contains(&Reused::Change(change.hash())) || reused.contains(&number())
        };
        match opened.replica.rebase(&acknowledged, is_refused) {
            None => {
                document.refusals = refusals;
                // Whoever is in the way is waited for.
                self.settle_elsewhere(id, document);
                return;
            }
            Some(Ok(true)) => {}
            Some(Ok(false)) => return,
            Some(Err(_)) => {
                // The relay's word stands.
                document.rebases = REBASES_MAX;
                return;
            }
        }
        document.folding = None;
        document.new_snapshot = None;
        document.rebases += 1;
        document.in_outbox = false;
        let replica = &mut opened.replica;
        for (relay, of_relay) in self.relays.iter().zip(&mut document.relays) {
            of_relay.dirty = !of_relay.acknowledged.is_empty();
            let stands = |hash: &ChangeHash| replica.knows(hash);
            let gone = |refused: &Refused| {
                !refused.changes.is_empty() && !refused.changes.iter().any(stands)
            };
            if of_relay.refused.as_ref().is_some_and(gone) {
                of_relay.refused = None;
            }
            of_relay.refused_dirty = of_relay.refused.is_some();
            if let Some(link) = relay.link() {
                replica.join(link.connection);
                of_relay.reset = of_relay.greeted != Greeted::No;
                of_relay.greeted = Greeted::No;
            }
        }
        self.outputs.push_back(Output::Changed(id));
    }
}
