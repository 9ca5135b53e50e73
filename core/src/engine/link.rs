//! One relay: waiting for the next try, being connected to, or open.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::document::SyncState;
use super::fault::{Fault, FaultKind};
use super::pings::Pings;
use crate::id::{ConnectionId, DocumentId, PeerId};
use crate::session::ClientSession;

/// How long a connection may take to come about, and then as long again until the relay lets us
/// in.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After this long without a word from a relay it is pinged.
pub const PING_AFTER: Duration = Duration::from_secs(20);

/// After this long without a word from a relay its connection counts as lost.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);

/// A connection that lived this long was a success: the next failure is the first.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// Most frames on their way to a relay. What does not fit is put together when there is room, as
/// one message per document.
pub const FRAMES_MAX: usize = 8;

/// Most presence messages that wait for a relay; when there are more, the oldest go.
pub const PRESENCE_MAX: usize = 64;

/// A relay and the connection to it.
#[derive(Debug)]
pub(super) struct Relay {
    /// Under this name its acknowledgements are stored.
    pub(super) name: Arc<str>,
    pub(super) state: State,
    /// Failures in a row.
    pub(super) failures: u32,
    /// The last of them.
    pub(super) fault: Option<Fault>,
    /// When it was tried last.
    pub(super) tried_at: Duration,
    /// Something changed since the last of them, so that the next try may succeed.
    pub(super) is_hoped_for: bool,
}

#[derive(Debug)]
pub(super) enum State {
    /// Tried again at this time.
    Waiting(Duration),
    /// The shell connects, or the relay has not let us in yet.
    Connecting {
        connection: ConnectionId,
        session: Box<ClientSession>,
        deadline: Duration,
    },
    Open(Box<Link>),
    /// Not tried again, for this reason.
    Refused(Fault),
    /// Nobody wants a connection to it now; the outbox speaks for it all the same.
    Away,
}

/// A connection on which both sides talk.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: ConnectionId,
    pub(super) session: Box<ClientSession>,
    pub(super) peer: PeerId,
    pub(super) since: Duration,
    pub(super) heard_at: Duration,
    pub(super) pinged: bool,
    pub(super) pings: Pings,
    /// It answers a ping that is a message.
    pub(super) answers_pings: bool,
    /// Frames that the shell has not sent yet, and of whose storage each of them reads that does.
    pub(super) in_flight: usize,
    pub(super) reads: Vec<DocumentId>,
    /// Documents with news for which there was no room; they know it.
    pub(super) blocked: VecDeque<DocumentId>,
    pub(super) presence: VecDeque<Vec<u8>>,
}

impl Relay {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            state: State::Waiting(Duration::ZERO),
            failures: 0,
            fault: None,
            tried_at: Duration::ZERO,
            is_hoped_for: false,
        }
    }

    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match &self.state {
            State::Connecting { connection, .. } => Some(*connection),
            State::Open(link) => Some(link.connection),
            State::Waiting(_) | State::Refused(_) | State::Away => None,
        }
    }

    pub(super) fn link(&self) -> Option<&Link> {
        match &self.state {
            State::Open(link) => Some(link),
            _ => None,
        }
    }

    pub(super) fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Open(link) => Some(link),
            _ => None,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        matches!(self.state, State::Away)
    }

    /// Why it cannot be asked for anything now.
    pub(super) fn why_unreached(&self) -> Fault {
        let untried = || Fault::new(FaultKind::Untried, "it is not connected yet");
        self.fault.clone().unwrap_or_else(untried)
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Waiting(until) => Some(*until),
            State::Connecting { deadline, .. } => Some(*deadline),
            State::Open(link) if link.pinged => Some(link.heard_at + SILENCE_MAX),
            State::Open(link) => Some(link.heard_at + PING_AFTER),
            State::Refused(_) | State::Away => None,
        }
    }

    /// Whether it will not answer soon, as far as is known: it was tried in vain.
    pub(super) fn is_out_of_reach(&self) -> bool {
        match &self.state {
            State::Waiting(_) | State::Connecting { .. } => self.failures > 0 && !self.is_hoped_for,
            State::Refused(_) | State::Away => true,
            State::Open(_) => false,
        }
    }

    /// Counts the end of the current connection.
    pub(super) fn count_failure(&mut self, now: Duration) {
        let stable = self
            .link()
            .is_some_and(|link| now.saturating_sub(link.since) >= STABLE_AFTER);
        self.failures = if stable { 1 } else { self.failures + 1 };
        self.is_hoped_for = false;
    }
}

impl Link {
    /// Whether there is room for a frame of a document; else it waits.
    pub(super) fn has_room_for(&mut self, id: DocumentId, of_relay: &mut SyncState) -> bool {
        let room = self.has_room();
        if !room && !std::mem::replace(&mut of_relay.blocked, true) {
            self.blocked.push_back(id);
        }
        room
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight < FRAMES_MAX
    }
}
