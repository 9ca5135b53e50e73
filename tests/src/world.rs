//! A relay's document and its clients in one process, without sockets, clocks or threads.
//!
//! A [`Relay`] runs the turn around a `History` as the real relay does: take in, commit, poll.
//! A [`Client`] is Automerge itself, used as a stock client uses it. The [`World`] carries the
//! messages, in order on each connection and otherwise as its seed says, so that a run is repeated
//! by its seed.
//!
//! Whatever the relay sends is checked on the way: the heads that it names are in storage.

mod client;
mod message;
mod relay;

use automerge::AutoCommit;
use reconverge::contents::Digest;
use reconverge::id::{Access, ConnectionId};

pub use self::client::{Client, Core, Kept};
pub use self::message::{push_chunks, sync_message};
pub use self::relay::{Failure, Relay, hashes};
use crate::Random;

/// A relay, its clients, and the wires between them.
#[derive(Debug)]
pub struct World {
    /// The relay.
    pub relay: Relay,
    /// The clients.
    pub clients: Vec<Client>,
    /// What decides about everything that is not said.
    pub random: Random,
    connections: u64,
}

impl World {
    /// A relay without clients.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            relay: Relay::new(),
            clients: Vec::new(),
            random: Random::new(seed),
            connections: 0,
        }
    }

    /// A client without a document, not connected; its place among the clients.
    pub fn add_client(&mut self, core: Core, access: Access) -> usize {
        let doc = self.new_document();
        self.clients.push(Client::new(doc, core, access));
        self.clients.len() - 1
    }

    /// A client as most are.
    pub fn add_writer(&mut self) -> usize {
        self.add_client(Core::Current, Access::Write)
    }

    /// An empty document under an actor id of its own.
    pub fn new_document(&mut self) -> AutoCommit {
        AutoCommit::new().with_actor(self.random.bytes().as_slice().into())
    }

    /// Connects a client and lets it speak.
    pub fn connect(&mut self, at: usize) {
        if self.clients[at].connection.is_some() {
            return;
        }
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let client = &mut self.clients[at];
        self.relay.connect(connection, client.access);
        client.connect(connection);
    }

    /// Cuts a client's connection; what is on the wire is lost.
    pub fn disconnect(&mut self, at: usize, kept: Kept) {
        if let Some(connection) = self.clients[at].disconnect(kept) {
            self.relay.disconnect(connection);
        }
    }

    /// Restarts the relay, which cuts all connections.
    pub fn restart(&mut self) {
        for at in 0..self.clients.len() {
            self.disconnect(at, Kept::State);
        }
        self.relay.restart();
    }

    /// Changes a client's document, as one change, and lets the client speak.
    pub fn edit(&mut self, at: usize, edit: impl FnOnce(&mut AutoCommit)) {
        let client = &mut self.clients[at];
        edit(&mut client.doc);
        client.doc.commit();
        client.speak();
    }

    /// Delivers one message, or finishes one job. `false` if there is none.
    pub fn step(&mut self) -> bool {
        let relay = &self.relay;
        let down = |client: &Client| {
            let connection = client.connection;
            connection.is_some_and(|connection| relay.outbox_len(connection) > 0)
        };
        let mut choices = Vec::new();
        for (at, client) in self.clients.iter().enumerate() {
            if client.has_said() {
                choices.push((at, true));
            }
            if down(client) {
                choices.push((at, false));
            }
        }
        let jobs = self.relay.jobs_len();
        let choice = self.random.below((choices.len() + jobs) as u64) as usize;
        let Some((at, up)) = choices.get(choice).copied() else {
            if jobs > 0 {
                self.relay.finish_job(choice - choices.len());
            }
            return jobs > 0;
        };
        let client = &mut self.clients[at];
        let connection = client
            .connection
            .expect("only a connection carries something");
        if up {
            let message = client.take().expect("looked at above");
            self.relay.push(connection, &message);
            // Sometimes a turn takes in several messages.
            if self.random.below(4) > 0 {
                self.relay.turn();
            }
        } else {
            let message = self.relay.take(connection).expect("looked at above");
            self.clients[at].hear(&message);
        }
        true
    }

    /// Delivers until nothing is left; how many messages and jobs that took.
    ///
    /// # Panics
    /// If it takes more than `steps_max`: they chatter without end.
    pub fn settle(&mut self, steps_max: usize) -> usize {
        for step in 0..=steps_max {
            if !self.step() {
                if !self.relay.is_busy() {
                    return step;
                }
                self.relay.turn();
            }
        }
        panic!("not quiet after {steps_max} messages");
    }

    /// Forgets what was counted so far.
    pub fn reset_counts(&mut self) {
        for client in &mut self.clients {
            client.reset_counts();
        }
    }

    /// Checks that all clients (but those with a document of their own will) have what is stored.
    pub fn assert_converged(&mut self) {
        let stored = self.relay.stored();
        let mut heads = stored.get_heads();
        heads.sort_unstable();
        let contents = Digest::of(&stored).unwrap();
        assert_eq!(self.relay.history().durable_heads().as_ref(), heads);
        assert_eq!(
            self.relay.history().len() as usize,
            stored.get_changes_meta(&[]).len()
        );
        for (at, client) in self.clients.iter_mut().enumerate() {
            assert_eq!(client.heads(), heads, "the heads of client {at}");
            let found = Digest::of(client.doc.document()).unwrap();
            assert_eq!(found, contents, "the contents of client {at}");
        }
    }
}
