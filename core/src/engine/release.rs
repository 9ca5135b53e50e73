//! Documents that nobody uses leave memory, and stay in sync.
//!
//! A document is released when the application let go of it, everything of it is in local storage
//! and acknowledged by every relay, and nothing happened to it for a while. What stays are its
//! heads. They are enough to greet a relay on a new connection, and to see that a message says
//! nothing new; whatever says more makes the document be read again, without its contents.
//!
//! A relay notices nothing of this: it counts on what it sent on a connection, and that is on our
//! disk. Read again, the replica is told what each relay said.

use std::time::Duration;

use automerge::ChangeHash;

use super::document::{Document, Greeted, Opened, Phase};
use super::frame::SyncFrame;
use super::{Engine, Frame, Output, Reading};
use crate::history::Outgoing;
use crate::id::DocumentId;
use crate::protocol::SyncMessage;
use crate::storage::DocumentKey;

/// A document that nobody uses stays in memory this long, unless told otherwise.
pub const RELEASE_AFTER: Duration = Duration::from_secs(60);

/// What becomes of a document after a turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Released {
    /// All or its heads.
    Kept,
    /// Nobody has it: nothing stays.
    Forgotten,
}

impl Engine {
    /// A document that nobody uses, and to which nothing happens, leaves memory after this long
    /// instead of [`RELEASE_AFTER`].
    pub fn release_after(&mut self, idle: Duration) {
        self.release_after = idle;
    }

    /// What nobody has and nobody waits for any more is forgotten after this long instead of
    /// [`RELEASE_AFTER`].
    pub fn forget_after(&mut self, idle: Duration) {
        self.forget_after = idle;
    }

    /// Keeps a document that is ready in memory until [`Self::let_go`].
    pub fn hold(&mut self, document: &DocumentId) {
        if let Some(found) = self.documents.get_mut(document) {
            found.held = true;
            found.wanted = true;
            self.due.insert(*document);
        }
        self.recall(*document, Reading::Contents);
    }

    /// The application uses a document no more that it found or created: it may leave memory.
    /// [`Self::find`] it before it is used again.
    pub fn let_go(&mut self, document: &DocumentId) {
        if let Some(found) = self.documents.get_mut(document) {
            found.held = false;
            found.wanted = false;
            self.due.insert(*document);
        }
    }

    /// Whether a document is open here and not in memory.
    #[must_use]
    pub fn is_released(&self, document: &DocumentId) -> bool {
        let found = self.documents.get(document);
        found.is_some_and(|found| matches!(found.phase, Phase::Released(_)))
    }

    /// Releases a document that was idle for long enough.
    pub(super) fn release(&mut self, id: DocumentId, document: &mut Document) -> Released {
        let everywhere = self.relays.is_empty() || !document.belongs_in_outbox();
        let used = document.held || document.asked;
        let nowhere = document.is_nowhere();
        if !nowhere && (used || !everywhere || !self.is_still(id, document)) {
            document.idle_until = None;
            return Released::Kept;
        }
        let idle = if nowhere {
            self.forget_after
        } else {
            self.release_after
        };
        let due = *document.idle_until.get_or_insert(self.now + idle);
        if due > self.now {
            let has_turn = |at: Duration| at > self.now && at <= due;
            if !document.idle_turn.is_some_and(has_turn) {
                document.idle_turn = Some(due);
                self.due.insert_at(due, id);
            }
            return Released::Kept;
        }
        if nowhere {
            return Released::Forgotten;
        }
        self.put_away(document);
        Released::Kept
    }

    /// Lets a document whose contents are wanted and not built be read again with them, if nothing
    /// is to be done for it: to build them here would hold up all other documents.
    pub(super) fn reread(&mut self, id: DocumentId) {
        let Some(mut document) = self.documents.remove(&id) else {
            return;
        };
        let unbuilt = |opened: &Opened| !opened.replica.is_built();
        if document.opened.as_deref().is_some_and(unbuilt) && self.is_still(id, &document) {
            self.put_away(&mut document);
        }
        self.documents.insert(id, document);
    }

    fn put_away(&mut self, document: &mut Document) {
        let Some(opened) = document.opened.take() else {
            return;
        };
        self.counts.documents_left += 1;
        document.phase = Phase::Released(opened.replica.heads());
        document.was_released = true;
        document.idle_until = None;
        for (relay, of_relay) in self.relays.iter().zip(&mut document.relays) {
            // Every relay that is connected was heard.
            of_relay.heard = relay.link().is_some();
            if of_relay.heard {
                of_relay.greeted = Greeted::Heads;
            }
        }
    }

    /// Whether everything of a document is in local storage and at all relays that are connected,
    /// and nothing is on its way.
    fn is_still(&self, id: DocumentId, document: &Document) -> bool {
        let busy = !document.inbox.is_empty()
            || document.needs_graph
            || document.deleting
            || document.is_unsound
            || document.is_settling
            || document.folding.is_some()
            || document.new_snapshot.is_some()
            || document.acknowledgements_due.is_some()
            || !document.refusals.is_empty()
            || !document.is_stored();
        let ready = matches!(document.phase, Phase::Ready);
        let Some(Opened { replica, .. }) = document.opened.as_deref() else {
            return false;
        };
        if busy || !ready {
            return false;
        }
        let heads = replica.heads();
        let mut relays = self.relays.iter().zip(&document.relays);
        relays.all(|(relay, of_relay)| {
            let Some(link) = relay.link() else {
                return true;
            };
            let named = replica.acknowledged(link.connection);
            // All that a relay named is here: nothing that came waits for what did not.
            named.is_some_and(|(_, all_known)| all_known)
                && of_relay.covers(&heads)
                && !replica.has_news(link.connection)
                && !link.reads.contains(&id)
        })
    }

    /// Reads a released document again.
    pub(super) fn recall(&mut self, id: DocumentId, contents: Reading) {
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        if matches!(document.phase, Phase::Released(_)) {
            document.phase = Phase::Loading;
            self.counts.documents_entered += 1;
            self.read(id, contents);
        }
    }

    /// Tells relays that were connected anew what a released document is at.
    pub(super) fn greet_released(&mut self, id: DocumentId, document: &mut Document) {
        let Phase::Released(heads) = &document.phase else {
            return;
        };
        for (relay, of_relay) in self.relays.iter_mut().zip(&mut document.relays) {
            let Some(link) = relay.link_mut() else {
                continue;
            };
            if of_relay.greeted != Greeted::No {
                continue;
            }
            if !link.has_room_for(id, of_relay) {
                continue;
            }
            of_relay.greeted = Greeted::Heads;
            of_relay.heard = false;
            let frame = Frame::sync(SyncFrame {
                sender: self.config.peer.clone(),
                target: link.peer.clone(),
                document: id,
                key: NO_PLACE,
                outgoing: Outgoing::greeting(heads.as_slice().into(), heads.clone(), Vec::new()),
                pieces: Vec::new(),
            });
            link.in_flight += 1;
            let connection = link.connection;
            self.outputs.push_back(Output::Send(connection, frame));
        }
    }
}

/// Nothing is read for a greeting.
const NO_PLACE: DocumentKey = DocumentKey(0);

/// Whether a message says of a document with these heads only that its sender has the same.
pub(super) fn says_nothing_new(data: &[u8], heads: &[ChangeHash]) -> bool {
    let Ok(message) = SyncMessage::decode(data) else {
        return false;
    };
    let resets = message.flags.is_some_and(|flags| flags.sync_reset) || message.is_reset();
    let mut named = message.heads;
    named.sort_unstable();
    named == heads && message.changes.is_empty() && message.need.is_empty() && !resets
}
