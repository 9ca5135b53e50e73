//! A stock client: Automerge itself, and a sync state for its one relay.

use std::collections::VecDeque;

use automerge::sync::{Message, MessageVersion, State, SyncDoc};
use automerge::{AutoCommit, ChangeHash};
use reconverge::id::{Access, ConnectionId};

/// Which Automerge a client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// The current one.
    Current,
    /// One that sends no flags, skips those it gets, and so never sends a document chunk.
    Old,
}

/// What a client keeps over a disconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Its sync state, as a stock client stores it.
    State,
    /// Nothing of it.
    Nothing,
}

/// A stock client.
#[derive(Debug)]
pub struct Client {
    /// Its document.
    pub doc: AutoCommit,
    /// What it believes of the relay.
    pub state: State,
    /// Which Automerge it has.
    pub core: Core,
    /// What it may do.
    pub access: Access,
    /// Its connection, if it has one.
    pub connection: Option<ConnectionId>,
    /// What is on its way to the relay.
    outbox: VecDeque<Vec<u8>>,
    /// How many messages it was sent, and their bytes.
    pub received: (usize, usize),
    /// How many messages it sent, and their bytes.
    pub sent: (usize, usize),
    /// How many chunks it was sent.
    pub chunks_received: usize,
}

impl Client {
    /// A client with this document, not connected.
    pub(super) fn new(doc: AutoCommit, core: Core, access: Access) -> Self {
        Self {
            doc,
            state: State::new(),
            core,
            access,
            connection: None,
            outbox: VecDeque::new(),
            received: (0, 0),
            sent: (0, 0),
            chunks_received: 0,
        }
    }

    /// Begins a connection with the sync state as it is read back from where it was stored, and
    /// speaks.
    pub(super) fn connect(&mut self, connection: ConnectionId) {
        self.connection = Some(connection);
        self.state = State::decode(&self.state.encode()).unwrap();
        self.speak();
    }

    /// Ends the connection, if there is one; what is on its way is lost.
    pub(super) fn disconnect(&mut self, kept: Kept) -> Option<ConnectionId> {
        self.outbox.clear();
        if kept == Kept::Nothing {
            self.state = State::new();
        }
        self.connection.take()
    }

    /// Whether something is on its way to the relay.
    pub(super) fn has_said(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next message that is on its way to the relay.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// Forgets what was counted so far.
    pub(super) fn reset_counts(&mut self) {
        (self.sent, self.received) = ((0, 0), (0, 0));
        self.chunks_received = 0;
    }

    /// The client's heads, in order.
    pub fn heads(&mut self) -> Vec<ChangeHash> {
        let mut heads = self.doc.get_heads();
        heads.sort_unstable();
        heads
    }

    /// Says what Automerge has to say now.
    pub(super) fn speak(&mut self) {
        if self.connection.is_none() {
            return;
        }
        let Some(mut message) = self.doc.sync().generate_sync_message(&mut self.state) else {
            return;
        };
        if self.core == Core::Old {
            message.flags = None;
        }
        let message = message.encode();
        self.sent.0 += 1;
        self.sent.1 += message.len();
        self.outbox.push_back(message);
    }

    /// Takes in what the relay sent, and answers.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.received.0 += 1;
        self.received.1 += bytes.len();
        let mut message = Message::decode(bytes).unwrap();
        self.chunks_received += message.changes.len();
        let documents = message.changes.iter().any(|chunk| chunk[8] == 0);
        if self.core == Core::Old {
            message.flags = None;
            assert!(!documents, "cores before 2.1 take no document chunks");
            assert_eq!(message.version, MessageVersion::V1);
        }
        assert!(
            !documents || message.version == MessageVersion::V2,
            "a document chunk goes in a message of version 2"
        );
        let mut sync = self.doc.sync();
        let received = sync.receive_sync_message(&mut self.state, message);
        drop(sync);
        received.expect("a client takes whatever the relay sends");
        self.speak();
    }
}
