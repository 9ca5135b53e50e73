//! Whether a document is here as a relay has it.
//!
//! A relay names its heads of a document when it is greeted, and again whenever they change, so what
//! it named last is what it has, less what is on its way. Whether anything is on its way, and whether
//! the connection still lives, shows by a ping that is sent after the question: what the relay sent
//! before it answered is here when the answer is.

use crate::id::{ConnectionId, DocumentId};
use crate::replica::Replica;

use super::document::{Document, OfRelay, Phase};
use super::fault::{Fault, FaultKind};
use super::link::{Link, Relay, State};
use super::{Engine, Output};

/// A question that [`Output::Current`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asked(pub u64);

/// Why a document does not become current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCurrent {
    /// No relay can be asked, for this reason.
    Unreachable(Fault),
    /// The document is not open, was deleted, or cannot be used.
    Gone,
}

#[derive(Debug)]
pub(super) struct Question {
    asked: Asked,
    document: DocumentId,
    /// The pings whose answers count, on the connections that were open. Whatever is said on later
    /// ones is said after the question.
    pings: Vec<(ConnectionId, u32)>,
}

/// The pings of a connection, of which one at a time is on its way.
#[derive(Debug, Default)]
pub(super) struct Pings {
    sent: u32,
    answered: u32,
    /// Somebody asked when one was on its way, whose answer may be as well.
    again: bool,
}

impl Pings {
    /// One is sent.
    pub(super) fn send(&mut self) {
        if self.sent == self.answered {
            self.sent += 1;
        }
    }

    /// The number of one that is sent from now on, and whether that is to be done now.
    fn ask(&mut self) -> (u32, bool) {
        let is_now = self.sent == self.answered;
        let number = self.sent + 1;
        self.send();
        self.again |= !is_now;
        (number, is_now)
    }

    /// Whether another one is to be sent now.
    fn answer(&mut self) -> bool {
        self.answered = self.sent;
        let again = std::mem::take(&mut self.again);
        if again {
            self.send();
        }
        again
    }
}

impl Engine {
    /// Asks whether a document that is open is here as some relay has it: that it names its heads of it
    /// after this call, or nothing new, and that all of them are here with all that they stand on.
    /// [`Output::Current`] follows when that is so, or when no relay may be asked.
    pub fn ask_current(&mut self, document: DocumentId) -> Asked {
        let asked = Asked(self.questions_asked);
        self.questions_asked += 1;
        let mut pings = Vec::new();
        for link in self.relays.iter_mut().filter_map(Relay::link_mut) {
            let (number, is_now) = link.pings.ask();
            pings.push((link.connection, number));
            if is_now {
                link.pinged = true;
                self.outputs.push_back(Output::Ping(link.connection));
            }
        }
        self.questions.push(Question {
            asked,
            document,
            pings,
        });
        asked
    }

    /// Nobody waits for the answer any more.
    pub fn withdraw(&mut self, asked: Asked) {
        self.questions.retain(|question| question.asked != asked);
    }

    /// Why there is no answer: no relay is connected, for this reason. `None` while one is, whose word
    /// is on its way, and if there is an answer.
    #[must_use]
    pub fn why_unanswered(&self, asked: Asked) -> Option<Fault> {
        let is_open = self
            .questions
            .iter()
            .any(|question| question.asked == asked);
        let is_connected = self.relays.iter().any(|relay| relay.link().is_some());
        (is_open && !is_connected).then(|| self.why_nobody_is_asked())
    }

    /// The answer to a ping came.
    pub(super) fn ponged(&mut self, connection: ConnectionId) {
        if let Some(link) = self.link(connection)
            && link.pings.answer()
        {
            link.pinged = true;
            self.outputs.push_back(Output::Ping(connection));
        }
    }

    /// Answers what can be answered now; whether anything was.
    pub(super) fn answer_questions(&mut self) -> bool {
        if self.questions.is_empty() {
            return false;
        }
        let mut questions = std::mem::take(&mut self.questions);
        let before = questions.len();
        questions.retain(|question| match self.answer_to(question) {
            None => true,
            Some(answer) => {
                self.outputs
                    .push_back(Output::Current(question.asked, answer));
                false
            }
        });
        let answered = questions.len() < before;
        self.questions = questions;
        answered
    }

    fn answer_to(&self, question: &Question) -> Option<Result<(), NotCurrent>> {
        let found = self.documents.get(&question.document);
        let Some(found) = found.filter(|found| !found.deleting) else {
            return Some(Err(NotCurrent::Gone));
        };
        if matches!(found.phase, Phase::Failed(_)) {
            return Some(Err(NotCurrent::Gone));
        }
        let mut relays = self.relays.iter().zip(&found.relays);
        let has_said = |(relay, of_relay): (&Relay, &OfRelay)| {
            let link = relay.link();
            link.is_some_and(|link| {
                question.is_answered(link) && is_all_here(link, found, of_relay)
            })
        };
        if relays.any(has_said) {
            return Some(Ok(()));
        }
        let is_out = |relay: &Relay| matches!(relay.state, State::Refused(_) | State::Away);
        self.relays
            .iter()
            .all(is_out)
            .then(|| Err(NotCurrent::Unreachable(self.why_nobody_is_asked())))
    }

    fn why_nobody_is_asked(&self) -> Fault {
        let wanted = self.relays.iter().find(|relay| !relay.is_away());
        let nobody = || Fault::new(FaultKind::Untried, "there is no relay");
        wanted.map_or_else(nobody, Relay::why_unreached)
    }
}

impl Question {
    fn is_answered(&self, link: &Link) -> bool {
        let ping = self.pings.iter().find(|(of, _)| *of == link.connection);
        ping.is_none_or(|(_, number)| link.pings.answered >= *number)
    }
}

/// Whether all that a relay said of a document was taken in, and all that it named is here.
fn is_all_here(link: &Link, document: &Document, of_relay: &OfRelay) -> bool {
    let waits = |(from, _): &(ConnectionId, _)| *from == link.connection;
    if document.inbox.iter().any(waits) || document.is_settling {
        return false;
    }
    let named = |replica: &Replica| match replica.acknowledged(link.connection) {
        Some((_, all_known)) => all_known,
        None => of_relay.unavailable,
    };
    match &document.phase {
        Phase::Released(_) => of_relay.heard,
        Phase::Ready | Phase::Searching | Phase::Unavailable => {
            let opened = document.opened.as_ref();
            opened.is_some_and(|opened| named(&opened.replica))
        }
        Phase::Loading | Phase::Unread(..) | Phase::Failed(_) => false,
    }
}
