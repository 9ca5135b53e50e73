//! Whether a document is here as a relay has it.
//!
//! A relay names its heads of a document when it is greeted, and again whenever they change, so what
//! it named last is what it has, less what is on its way. Whether anything is on its way, and whether
//! the connection still lives, shows by a ping that is sent after the question: what the relay sent
//! before it answered is here when the answer is.

use std::collections::VecDeque;

use super::Engine;
use super::document::{Document, Phase, SyncState};
use super::fault::{Fault, FaultKind};
use super::interface::{Asked, NotCurrent, Output};
use super::link::{Link, Relay, State};
use crate::id::{ConnectionId, DocumentId};
use crate::replica::Replica;

impl Engine {
    /// Asks whether a document that is open is here as some relay has it: that it names its heads of it
    /// after this call, or nothing new, and that all of them are here with all that they stand on.
    /// [`Output::Current`] follows when that is so, or when no relay may be asked.
    pub fn ask_current(&mut self, document: DocumentId) -> Asked {
        self.asked += 1;
        for link in self.relays.iter_mut().filter_map(Relay::link_mut) {
            if link.pings.ask() {
                ping(link, self.asked, &mut self.outputs);
            }
        }
        self.questions.push((self.asked, document));
        Asked(self.asked)
    }

    /// Nobody waits for the answer any more.
    pub fn withdraw(&mut self, asked: Asked) {
        self.questions.retain(|(number, _)| *number != asked.0);
    }

    /// Why there is no answer: no relay is connected, for this reason. `None` while one is, whose word
    /// is on its way, and if there is an answer.
    #[must_use]
    pub fn why_unanswered(&self, asked: Asked) -> Option<Fault> {
        let is_open = self.questions.iter().any(|(number, _)| *number == asked.0);
        let is_connected = self.relays.iter().any(|relay| relay.link().is_some());
        (is_open && !is_connected).then(|| self.why_nobody_is_asked())
    }

    /// The answer to a ping came.
    pub(super) fn ponged(&mut self, connection: ConnectionId) {
        let Some(relay) = self.relay_of(connection) else {
            return;
        };
        if let Some(link) = self.relays[relay.0].link_mut()
            && link.pings.answer()
        {
            ping(link, self.asked, &mut self.outputs);
        }
    }

    /// Answers what can be answered now; whether anything was.
    pub(super) fn answer_questions(&mut self) -> bool {
        let answer = |at: &usize| self.answer_to(self.questions[*at]).is_some();
        let Some(at) = (0..self.questions.len()).find(answer) else {
            return false;
        };
        let question = self.questions.swap_remove(at);
        let answer = self.answer_to(question).expect("as just now");
        let answer = Output::Current(Asked(question.0), answer);
        self.outputs.push_back(answer);
        true
    }

    fn answer_to(&self, (asked, document): (u64, DocumentId)) -> Option<Result<(), NotCurrent>> {
        let found = self.documents.get(&document);
        let found =
            found.filter(|found| !found.deleting && !matches!(found.phase, Phase::Failed(_)));
        let Some(found) = found else {
            return Some(Err(NotCurrent::Gone));
        };
        let mut is_hopeless = true;
        for (relay, of_relay) in self.relays.iter().zip(&found.relays) {
            if let Some(link) = relay.link()
                && link.pings.have_answered(asked)
                && is_all_here(link, found, of_relay)
            {
                return Some(Ok(()));
            }
            is_hopeless &= matches!(relay.state, State::Refused(_) | State::Away);
        }
        is_hopeless.then(|| Err(NotCurrent::Unreachable(self.why_nobody_is_asked())))
    }

    fn why_nobody_is_asked(&self) -> Fault {
        let wanted = self.relays.iter().find(|relay| !relay.is_away());
        let nobody = || Fault::new(FaultKind::Untried, "there is no relay");
        wanted.map_or_else(nobody, Relay::why_unreached)
    }
}

/// Has a relay say that its connection lives, if that is not on its way.
pub(super) fn ping(link: &mut Link, asked: u64, outputs: &mut VecDeque<Output>) {
    link.pinged = true;
    if link.pings.send(asked) {
        outputs.push_back(Output::Ping(link.connection));
    }
}

/// Whether all that a relay said of a document was taken in, and all that it named is here.
fn is_all_here(link: &Link, document: &Document, of_relay: &SyncState) -> bool {
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
