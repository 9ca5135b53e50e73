//! What relays say: each message is put where the document's next turn finds it.

use automerge::ChangeHash;
use bytes::Bytes;

use super::document::{Greeted, Phase};
use super::fault::{Fault, FaultKind};
use super::interface::{Closed, Output, RelayId};
use super::link::State;
use super::load::Reading;
use super::{Engine, release};
use crate::id::{ConnectionId, DocumentId};
use crate::protocol::{self, code};
use crate::session::ServerEvent;
use crate::storage::Refused;

/// Most bytes of messages that wait for a document; a relay that sends more meanwhile loses its
/// connection, and is asked again for what is missing on the next.
pub const INBOX_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Longest reason that is kept of a relay's refusal, in bytes.
const REASON_BYTES_MAX: usize = 256;

impl Engine {
    pub(super) fn frame(&mut self, connection: ConnectionId, frame: &Bytes) {
        let Some(relay) = self.relay_of(connection) else {
            return;
        };
        self.heard(connection);
        if !self.answers_pings(relay) {
            // There may be no other sign of life.
            self.ponged(connection);
        }
        let session = match &mut self.relays[relay.0].state {
            State::Connecting { session, .. } => session,
            State::Open(link) => &mut link.session,
            State::Waiting(_) | State::Refused(_) | State::Away => return,
        };
        match session.handle(frame) {
            Ok(ServerEvent::Joined {
                peer, reconverge, ..
            }) => self.joined(relay, peer, reconverge >= protocol::PINGS_SINCE),
            Ok(ServerEvent::Rejected { reason, joining }) => {
                self.outputs.push_back(Output::Disconnect(connection));
                let fault = Fault::new(FaultKind::Rejected, reason);
                let closed = if joining {
                    Closed::Refused(fault)
                } else {
                    Closed::Lost(fault)
                };
                self.closed(relay, closed);
            }
            Ok(ServerEvent::Sync(sync)) => {
                let data = frame.slice_ref(sync.data);
                if let Ok(document) = sync.document.parse() {
                    self.put_into_inbox(relay, connection, document, data);
                }
            }
            Ok(ServerEvent::Unavailable(document)) => {
                if let Ok(document) = document.parse::<DocumentId>()
                    && let Some(found) = self.documents.get_mut(&document)
                {
                    found.relays[relay.0].unavailable = true;
                    self.due.insert(document);
                }
            }
            Ok(ServerEvent::Refused(refused)) => self.refused(relay, refused),
            Ok(ServerEvent::Ephemeral(ephemeral)) => self.ephemeral(frame, &ephemeral),
            Ok(ServerEvent::Pong) => self.ponged(connection),
            Ok(ServerEvent::Ignored(_)) => {}
            Err(error) => self.give_up(relay, FaultKind::Protocol, &error.to_string()),
        }
    }

    fn put_into_inbox(
        &mut self,
        relay: RelayId,
        from: ConnectionId,
        document: DocumentId,
        data: Bytes,
    ) {
        // What was not asked for is not taken.
        let Some(found) = self.documents.get_mut(&document) else {
            return;
        };
        if found.relays[relay.0].greeted == Greeted::No || found.deleting {
            return;
        }
        if let Phase::Released(heads) = &found.phase {
            if release::says_nothing_new(&data, heads) {
                found.relays[relay.0].heard = true;
                return;
            }
            self.recall(document, Reading::History);
        }
        let found = self.documents.get_mut(&document).expect("found above");
        found.inbox_bytes += data.len();
        found.inbox.push_back((from, data));
        if found.inbox_bytes > INBOX_BYTES_MAX {
            let why = "it sent more than can wait to be stored";
            self.give_up(relay, FaultKind::Storage, why);
        }
        self.due.insert(document);
    }

    /// A relay does not take some changes.
    fn refused(&mut self, relay: RelayId, refused: protocol::Refused<'_>) {
        let Ok(document) = refused.document.parse::<DocumentId>() else {
            return;
        };
        let Some(found) = self.documents.get_mut(&document) else {
            return;
        };
        let Some(opened) = &found.opened else {
            return;
        };
        let is_here = |hash: &ChangeHash| opened.replica.knows(hash);
        if !refused.hashes.is_empty() && !refused.hashes.iter().any(is_here) {
            return;
        }
        let end = refused.reason.floor_char_boundary(REASON_BYTES_MAX);
        let refused = Refused {
            code: refused.code.to_owned(),
            reason: refused.reason[..end].to_owned(),
            changes: refused.hashes,
        };
        found.note_refusal(&refused);
        let of_relay = &mut found.relays[relay.0];
        // Said again, it was looked into before.
        if refused.code == code::UNSOUND && of_relay.refused.as_ref() != Some(&refused) {
            found.is_unsound = true;
        }
        of_relay.set_refused(Some(refused));
        self.write_later(document);
        self.due.insert(document);
    }
}
