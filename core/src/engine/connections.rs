//! Connections to relays: they are made, kept alive, lost, and made again.

use std::collections::VecDeque;
use std::time::Duration;

use super::document::{Document, Greeted};
use super::fault::{Fault, FaultKind};
use super::frame::Frame;
use super::interface::{Closed, Output, RelayId};
use super::link::{CONNECT_TIMEOUT, Link, Relay, State};
use super::pings::Pings;
use super::presence::send_presence;
use super::{Engine, backoff, current};
use crate::id::{ConnectionId, DocumentId, PeerId};
use crate::protocol;
use crate::session::{ClientSession, Local};

impl Engine {
    fn connect(&mut self, relay: RelayId) {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let session = ClientSession::new(Local {
            peer: self.config.peer.clone(),
            storage_id: self.config.storage_id.clone(),
        });
        let tried = &mut self.relays[relay.0];
        tried.tried_at = self.now;
        tried.state = State::Connecting {
            connection,
            session: Box::new(session),
            deadline: self.now + CONNECT_TIMEOUT,
        };
        self.relay_changes += 1;
        self.outputs.push_back(Output::Connect(relay, connection));
    }

    pub(super) fn connected(&mut self, connection: ConnectionId) {
        let Some(relay) = self.relay_of(connection) else {
            self.outputs.push_back(Output::Disconnect(connection));
            return;
        };
        let State::Connecting {
            session, deadline, ..
        } = &mut self.relays[relay.0].state
        else {
            return;
        };
        *deadline = self.now + CONNECT_TIMEOUT;
        let join = Frame::whole(session.join());
        self.outputs.push_back(Output::Send(connection, join));
    }

    pub(super) fn joined(&mut self, relay: RelayId, peer: PeerId, answers_pings: bool) {
        let waiting = State::Waiting(self.now);
        let state = std::mem::replace(&mut self.relays[relay.0].state, waiting);
        let State::Connecting {
            connection,
            session,
            ..
        } = state
        else {
            unreachable!("a session lets us in once");
        };
        self.relays[relay.0].fault = None;
        self.relay_changes += 1;
        self.counts.connections_made += 1;
        self.relays[relay.0].state = State::Open(Box::new(Link {
            connection,
            session,
            peer,
            since: self.now,
            heard_at: self.now,
            pinged: false,
            pings: Pings::new(self.asked),
            answers_pings,
            in_flight: 0,
            reads: Vec::new(),
            blocked: VecDeque::new(),
            presence: VecDeque::new(),
        }));
        for (document, found) in &mut self.documents {
            if let Some(opened) = &mut found.opened {
                opened.replica.join(connection);
            }
            self.due.insert(*document);
        }
    }

    /// Closes a connection from this side.
    pub(super) fn give_up(&mut self, relay: RelayId, kind: FaultKind, why: &str) {
        if let Some(connection) = self.relays[relay.0].connection() {
            self.outputs.push_back(Output::Disconnect(connection));
            self.closed(relay, Closed::Lost(Fault::new(kind, why)));
        }
    }

    pub(super) fn closed(&mut self, relay: RelayId, closed: Closed) {
        let gone = &mut self.relays[relay.0];
        let connection = gone.connection();
        if gone.link().is_some() {
            self.counts.connections_lost += 1;
        } else {
            self.counts.connections_failed += 1;
        }
        gone.count_failure(self.now);
        let (state, fault) = match closed {
            Closed::Lost(fault) => {
                let wait = backoff::wait(gone.failures, &mut self.random);
                (State::Waiting(self.now + wait), fault)
            }
            Closed::Refused(fault) => (State::Refused(fault.clone()), fault),
        };
        gone.state = state;
        gone.fault = Some(fault);
        self.relay_changes += 1;
        for (document, found) in &mut self.documents {
            let of_relay = &mut found.relays[relay.0];
            of_relay.greeted = Greeted::No;
            of_relay.acknowledge_at = None;
            of_relay.unavailable = false;
            of_relay.heard = false;
            of_relay.reset = false;
            of_relay.blocked = false;
            if let Some(connection) = connection {
                found.forget_messages(connection);
                if let Some(opened) = &mut found.opened {
                    opened.replica.leave(connection);
                }
            }
            self.due.insert(*document);
        }
    }

    /// Makes a new document known to all connections.
    pub(super) fn join_all(&self, document: &mut Document) {
        let Some(opened) = &mut document.opened else {
            return;
        };
        for link in self.relays.iter().filter_map(Relay::link) {
            opened.replica.join(link.connection);
        }
    }

    pub(super) fn network_available(&mut self) {
        for relay in &mut self.relays {
            if let State::Waiting(until) = &mut relay.state {
                *until = self.now;
                relay.is_hoped_for = true;
            }
        }
    }

    /// What is due of relays by now.
    pub(super) fn tick(&mut self) {
        for at in 0..self.relays.len() {
            let relay = &mut self.relays[at];
            if relay.deadline().is_none_or(|deadline| deadline > self.now) {
                continue;
            }
            match &mut relay.state {
                State::Waiting(_) => self.connect(RelayId(at)),
                State::Open(link) if !link.pinged => {
                    current::ping(link, self.asked, &mut self.outputs);
                }
                State::Open(_) | State::Connecting { .. } => {
                    self.give_up(RelayId(at), FaultKind::Silence, "it did not answer in time");
                }
                State::Refused(_) | State::Away => {}
            }
        }
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        let relays = self.relays.iter().filter_map(Relay::deadline);
        relays.chain(self.due.next_at()).min()
    }

    /// Whether a relay's connection is open, as far as is known.
    #[must_use]
    pub fn is_connected(&self, relay: RelayId) -> bool {
        self.relays
            .get(relay.0)
            .is_some_and(|relay| relay.link().is_some())
    }
}

/// Whose connection it is, and what came over it.
impl Engine {
    pub(super) fn relay_of(&self, connection: ConnectionId) -> Option<RelayId> {
        let is = |relay: &Relay| relay.connection() == Some(connection);
        self.relays.iter().position(is).map(RelayId)
    }

    fn link(&mut self, connection: ConnectionId) -> Option<&mut Link> {
        let relay = self.relay_of(connection)?;
        self.relays[relay.0].link_mut()
    }

    pub(super) fn heard(&mut self, connection: ConnectionId) {
        let now = self.now;
        if let Some(link) = self.link(connection) {
            link.heard_at = now;
            link.pinged = false;
        }
    }

    pub(super) fn sent(&mut self, connection: ConnectionId, read: Option<DocumentId>) {
        let Some(relay) = self.relay_of(connection) else {
            return;
        };
        let Some(link) = self.relays[relay.0].link_mut() else {
            // The join, which counts for nothing.
            return;
        };
        link.in_flight = link.in_flight.saturating_sub(1);
        if let Some(document) = read
            && let Some(at) = link.reads.iter().position(|of| *of == document)
        {
            link.reads.swap_remove(at);
            if !link.reads.contains(&document) {
                // It may have waited to be folded.
                self.due.insert(document);
            }
        }
        send_presence(link, &mut self.outputs);
    }

    /// A document that waited for room on a connection that has some.
    pub(super) fn pop_blocked(&mut self) -> Option<DocumentId> {
        for (at, relay) in self.relays.iter_mut().enumerate() {
            if let Some(link) = relay.link_mut()
                && link.has_room()
                && let Some(id) = link.blocked.pop_front()
            {
                if let Some(document) = self.documents.get_mut(&id) {
                    document.relays[at].blocked = false;
                }
                return Some(id);
            }
        }
        None
    }

    /// A message that the relay answers, in place of a WebSocket ping; `None` if it does not.
    #[must_use]
    pub fn ping(&self, connection: ConnectionId) -> Option<Vec<u8>> {
        let relay = self.relay_of(connection)?;
        self.answers_pings(relay)
            .then(|| protocol::encode(&protocol::PING))
    }

    pub(super) fn answers_pings(&self, relay: RelayId) -> bool {
        let link = self.relays[relay.0].link();
        link.is_some_and(|link| link.answers_pings)
    }
}
