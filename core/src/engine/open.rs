//! Opening documents: each is read from storage, in the background, and takes its place here.

use std::time::Duration;

use super::Engine;
use super::document::{Document, Greeted, Opened, Phase};
use super::interface::{Output, Reason};
use super::load::{Loaded, Reading};
use crate::id::DocumentId;
use crate::storage::StorageError;

/// What could not be read is tried again after this long; a document also when it is asked for.
pub const READ_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// While this many documents are being read from storage, the outbox waits.
pub const LOADS_MAX: usize = 16;

impl Engine {
    pub(super) fn load(&mut self, document: DocumentId, contents: Reading) {
        self.documents
            .insert(document, Document::new(self.relays.len()));
        self.counts.documents_entered += 1;
        self.read(document, contents);
    }

    /// Has a document read that is [`Phase::Loading`].
    pub(super) fn read(&mut self, document: DocumentId, contents: Reading) {
        self.loads += 1;
        self.outputs.push_back(Output::Load { document, contents });
    }

    /// What could not be read a while ago.
    pub(super) fn read_again(&mut self, id: DocumentId, document: &mut Document) {
        if document.graph_again_at.is_some_and(|at| at <= self.now) {
            document.graph_again_at = None;
            document.needs_graph = false;
            self.ask_for_graph(id, document);
        }
        let Phase::Unread(again_at, _) = document.phase else {
            return;
        };
        let is_needed = document.wanted || !document.inbox.is_empty() || self.outbox.contains(&id);
        if again_at > self.now || !is_needed {
            return;
        }
        document.phase = Phase::Loading;
        let contents = match document.reread {
            Some(_) => Reading::Sound,
            None if document.wanted => Reading::Contents,
            None => Reading::History,
        };
        self.read(id, contents);
    }

    pub(super) fn loaded(&mut self, id: DocumentId, loaded: Result<Box<Loaded>, StorageError>) {
        self.loads = self.loads.saturating_sub(1);
        self.load_outbox();
        self.due.insert(id);
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(damage @ StorageError::Damaged { .. }) => {
                document.phase = Phase::Failed(Reason::new("damaged", damage.to_string()));
                return;
            }
            Err(error) => {
                let again_at = self.now + READ_AGAIN_AFTER;
                document.phase = Phase::Unread(again_at, error);
                self.due.insert_at(again_at, id);
                return;
            }
        };
        document.phase = if loaded.replica.is_empty() {
            Phase::Searching
        } else {
            Phase::Ready
        };
        let recalled = std::mem::take(&mut document.was_released);
        if !recalled {
            document.in_outbox = self.outbox.contains(&id);
        }
        for (name, refused) in loaded.refused {
            if let Some(at) = self.relays.iter().position(|relay| relay.name == name) {
                // It may be of changes that were not made again yet.
                document.note_refusal(&refused);
                document.relays[at].refused = Some(refused);
            }
        }
        if let Some(damage) = loaded.damage {
            document.damage = Some(damage);
            self.outputs.push_back(Output::Salvaged(id));
            for of_relay in &mut document.relays {
                // What it was told is not here any more, as far as we know.
                of_relay.acknowledged.clear();
                of_relay.reset = of_relay.greeted != Greeted::No;
                of_relay.greeted = Greeted::No;
            }
        }
        for (name, heads) in loaded.acknowledged {
            if let Some(at) = self.relays.iter().position(|relay| relay.name == name) {
                document.relays[at].acknowledged = heads;
            }
        }
        let quarantined = std::mem::replace(&mut document.quarantined, loaded.quarantined);
        let mut replica = loaded.replica;
        for (relay, of_relay) in self.relays.iter().zip(&document.relays) {
            let Some(link) = relay.link() else {
                continue;
            };
            replica.join(link.connection);
            // Whom it is told of by its first message needs no word of ours.
            if of_relay.greeted == Greeted::Heads
                && replica.resume(link.connection, of_relay.heard).is_err()
            {
                document.phase =
                    Phase::Failed(Reason::new("damaged", "its heads are not in its record"));
                return;
            }
        }
        if let Some(observed) = document.reread.take() {
            if observed {
                replica.observe_anew();
            }
            self.outputs.push_back(Output::Changed(id));
            if document.quarantined.len() > quarantined.len() {
                self.outputs.push_back(Output::TakenOut(id));
            }
        }
        document.opened = Some(Box::new(Opened {
            key: loaded.key,
            replica,
        }));
        if document.in_outbox && !document.belongs_in_outbox() {
            // A relay that was away for a while has everything all the same.
            self.write_later(id);
        }
    }
}
