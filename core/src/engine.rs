//! A whole client, without IO: documents, relays, local storage, status.
//!
//! The shell hands in what happened ([`Engine::handle`]) and does what comes out
//! ([`Engine::poll_output`]) until that says [`Output::Idle`]. The application's calls
//! ([`Engine::find`], [`Engine::change`], ...) only change state; what follows from them comes out
//! of the next poll. Time is an argument, and so is everything random: ids, actors, the seed of
//! the jitter.
//!
//! What holds:
//!
//! * **A change is in local storage before it is sent.** A document's turn takes in what came,
//!   stores it in one commit, and only then answers. While a commit is on its way, the document
//!   waits; the application sees its own changes at once.
//! * **The status is what relays acknowledged.** A relay's sync heads are on its disk. Those that
//!   are known here are stored per relay; they make the next connection cheap, and they say which
//!   documents are *in the outbox*: those are synced at the next start, opened or not.
//! * **No edit is lost to a fork.** A change that no relay can take, because a copy of this process
//!   made another under the same actor and sequence number, is made again under a new actor.
//! * **Every queue has a limit.** A relay has at most [`FRAMES_MAX`] frames on their way; what
//!   comes meanwhile becomes one message per document when there is room.
//! * **What is not used leaves memory**, and stays in sync: documents that the application let go
//!   of, when every relay has all of them.
//!
//! Absent: sockets, files, clocks, randomness, threads, and waiting for anything.

mod backoff;
mod commit;
mod connections;
mod create;
mod current;
mod document;
mod documents;
mod due;
mod edit;
mod fault;
mod fold;
mod fold_job;
mod frame;
mod graph;
mod interface;
mod link;
mod load;
mod messages;
mod open;
mod outbox;
mod pings;
mod presence;
mod quarantine;
mod rebase;
mod receive;
mod relays;
mod release;
mod search;
mod send;
mod settle;
mod statistics;
mod status;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use backoff::Random;
use document::Document;
use due::Due;
use link::Relay;
use outbox::Outbox;
use presence::Presence;

use crate::id::DocumentId;

pub use backoff::{BACKOFF_FIRST, BACKOFF_MAX};
pub use commit::{ACKNOWLEDGEMENT_DELAY, STORE_AGAIN_AFTER};
pub use create::IdInUse;
pub use fault::{Fault, FaultKind, RelayState};
pub use fold_job::{Folded, Folding, fold};
pub use frame::Frame;
pub use interface::{
    Asked, Closed, Config, FindError, Input, NotCurrent, Output, Reason, RelayId, Status,
};
pub use link::{CONNECT_TIMEOUT, FRAMES_MAX, PING_AFTER, PRESENCE_MAX, SILENCE_MAX};
pub use load::{Loaded, Reading, load, load_graph};
pub use messages::INBOX_BYTES_MAX;
pub use open::{LOADS_MAX, READ_AGAIN_AFTER};
pub use presence::AUTHORS_MAX;
pub use quarantine::kept_aside;
pub use rebase::REBASES_MAX;
pub use relays::HURRY_AFTER;
pub use release::RELEASE_AFTER;
pub use statistics::Statistics;

/// A client. See the module's page.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    now: Duration,
    random: Random,
    relays: Vec<Relay>,
    next_connection: u64,
    documents: HashMap<DocumentId, Box<Document>>,
    due: Due,
    release_after: Duration,
    forget_after: Duration,
    outbox: Outbox,
    /// How many documents are being read from storage.
    loads: usize,
    /// How many foldings were begun.
    foldings: u64,
    /// Relays that sent a document what is no sync message.
    broken: Vec<RelayId>,
    /// How often the connection to some relay changed.
    relay_changes: u64,
    /// Whether documents are current, by the numbers of the questions, and how often that was asked.
    questions: Vec<(u64, DocumentId)>,
    asked: u64,
    counts: Statistics,
    outputs: VecDeque<Output>,
    presence: Presence,
}

impl Engine {
    /// A client that has done nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let relays = config.relays.iter().cloned().map(Relay::new).collect();
        Self {
            random: Random::new(config.seed),
            config,
            now: Duration::ZERO,
            relays,
            next_connection: 0,
            documents: HashMap::new(),
            due: Due::default(),
            release_after: RELEASE_AFTER,
            forget_after: RELEASE_AFTER,
            outbox: Outbox::default(),
            loads: 0,
            foldings: 0,
            broken: Vec::new(),
            relay_changes: 0,
            questions: Vec::new(),
            asked: 0,
            counts: Statistics::default(),
            outputs: VecDeque::new(),
            presence: Presence::default(),
        }
    }

    /// Takes in what happened. `now` never goes back.
    pub fn handle(&mut self, now: Duration, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Connected(connection) => self.connected(connection),
            Input::Frame(connection, frame) => self.frame(connection, &frame),
            Input::Pong(connection) => {
                self.heard(connection);
                self.ponged(connection);
            }
            Input::Sent(connection, read) => self.sent(connection, read),
            Input::Closed(connection, closed) => {
                if let Some(relay) = self.relay_of(connection) {
                    self.closed(relay, closed);
                }
            }
            Input::NetworkAvailable => self.network_available(),
            #[cfg(feature = "planted")]
            Input::Outbox(_) if crate::planted::is(crate::planted::Bug::OutboxForgotten) => {}
            Input::Outbox(documents) => self.put_into_outbox(documents),
            Input::Loaded(document, loaded) => self.loaded(document, loaded),
            Input::Graph(document, segments) => self.graph_loaded(document, segments),
            Input::Folded(document, folded) => self.folded(document, folded),
            Input::Stored(document, result) => self.stored(document, result),
            Input::Tick => {}
        }
        self.tick();
    }

    /// What to do next; [`Output::Idle`] when there is nothing.
    pub fn poll_output(&mut self) -> Output {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            let next = self.due.pop(self.now);
            let Some(document) = next.or_else(|| self.pop_blocked()) else {
                if self.answer_questions() {
                    continue;
                }
                return Output::Idle {
                    wake_at: self.wake_at(),
                };
            };
            self.turn(document);
            for relay in std::mem::take(&mut self.broken) {
                let why = "it sent what is no sync message";
                self.give_up(relay, FaultKind::Protocol, why);
            }
        }
    }

    /// What happened so far, counted.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.counts
    }
}
