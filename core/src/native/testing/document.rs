//! One document of a test relay.

use std::collections::VecDeque;

use automerge::ChangeHash;
use bytes::Bytes;

use crate::contents::{Brought, unpack};
use crate::history::document_chunk::first_document;
use crate::history::{
    DocumentChunks, History, NeedGraph, Outgoing, Received, Refusal, Row, StoredChange,
};
use crate::id::{Access, ConnectionId, Space};
use crate::leb::push_unsigned;
use crate::protocol::SyncMessage;

/// Most document chunks of one message that are unpacked.
const UNPACKS_MAX: usize = 4;

/// A document: its history, and what is on the disk that there is not.
///
/// It is never folded, so that the whole graph is in memory, and the index of a change is its place among
/// all changes.
#[derive(Debug)]
pub(super) struct Document {
    history: History,
    stored: Vec<StoredChange>,
    /// What waits to be stored; what comes meanwhile waits in turn.
    unstored: Option<Row>,
    mailbox: VecDeque<(ConnectionId, Bytes)>,
}

/// What was not taken of a message, and why; the hash is missing where none could be read.
type NotTaken = Vec<(Option<ChangeHash>, Refusal)>;

/// What came of messages.
#[derive(Debug, Default)]
pub(super) struct Came {
    /// What was not taken, and of whom.
    pub(super) refused: Vec<(ConnectionId, NotTaken)>,
    /// Whose changes were refused because the test says so.
    pub(super) unwanted: Vec<ConnectionId>,
}

impl Document {
    pub(super) fn new() -> Self {
        Self {
            history: History::new(Space::default()),
            stored: Vec::new(),
            unstored: None,
            mailbox: VecDeque::new(),
        }
    }

    /// It as it is read after a crash. `None` if nothing of it was stored.
    pub(super) fn reopened(self) -> Option<Self> {
        if self.stored.is_empty() {
            return None;
        }
        let record = self.history.record().clone();
        let row = Row {
            changes: self.stored,
        };
        let history = History::open(record, None, std::slice::from_ref(&row));
        Some(Self {
            history: history.expect("what was stored fits together"),
            stored: row.changes,
            unstored: None,
            mailbox: VecDeque::new(),
        })
    }

    pub(super) fn join(&mut self, peer: ConnectionId, waits_for_all: bool) {
        self.history.join(peer, Access::Write);
        if waits_for_all {
            self.history.waits_for_all(peer);
        }
    }

    pub(super) fn leave(&mut self, peer: ConnectionId) {
        self.history.leave(peer);
        self.mailbox.retain(|(from, _)| *from != peer);
    }

    pub(super) fn peers(&self) -> Vec<ConnectionId> {
        self.history.peers().collect()
    }

    pub(super) fn push(&mut self, from: ConnectionId, data: Bytes) {
        self.mailbox.push_back((from, data));
    }

    /// What is stored, in order.
    pub(super) fn stored(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.stored.iter().map(|change| &change.bytes)
    }

    /// Whether something waits to be stored.
    pub(super) fn waits(&self) -> bool {
        self.unstored.is_some()
    }

    /// Asks for everything that was not kept.
    pub(super) fn ask_again(&mut self) {
        self.history.ask_again();
    }

    /// Takes in what came, one message after the other, and stores it unless that is held.
    pub(super) fn turn(&mut self, holds: bool, refuses: bool) -> Came {
        let mut came = Came::default();
        loop {
            if holds && self.unstored.is_some() {
                return came;
            }
            if let Some(row) = self.unstored.take() {
                self.stored.extend(row.changes);
                self.history.committed();
            }
            let Some((from, data)) = self.mailbox.pop_front() else {
                return came;
            };
            let refused = self.receive(from, &data, refuses, &mut came);
            if !refused.is_empty() {
                came.refused.push((from, refused));
            }
            self.unstored = self.history.take_unsaved().map(|(_, row)| row);
        }
    }

    fn receive(
        &mut self,
        from: ConnectionId,
        data: &Bytes,
        refuses: bool,
        came: &mut Came,
    ) -> NotTaken {
        let mut message = SyncMessage::decode(data).expect("it was read before");
        let unwanted = refuses && !message.changes.is_empty();
        if unwanted {
            message.changes.clear();
            came.unwanted.push(from);
        }
        let mut refused = Vec::new();
        let mut documents = DocumentChunks::Report;
        for tries in 1.. {
            let received = resident(self.history.receive(from, &message, documents));
            refused.extend(received.refused);
            if !received.unpack {
                break;
            }
            let chunk = first_document(data).expect("a chunk was reported");
            let known = resident(self.history.hashes());
            match unpack(&chunk, &known, 0, true) {
                Ok(Brought::Changes(changes)) => {
                    let received: Received =
                        resident(self.history.receive_unpacked(from, &changes));
                    refused.extend(received.refused);
                }
                Ok(Brought::All(_)) => unreachable!("only changes were asked for"),
                Err(reason) => {
                    refused.push((None, Refusal::Automerge(reason)));
                    documents = DocumentChunks::Unpacked;
                }
            }
            if tries == UNPACKS_MAX {
                documents = DocumentChunks::Unpacked;
            }
        }
        if unwanted {
            self.history.ask_nothing(from);
            self.history.upload_refused(from);
        }
        refused
    }

    /// Those who asked for a document that nobody has, each once.
    pub(super) fn unavailable_to(&mut self) -> Vec<ConnectionId> {
        if !self.history.is_empty() || self.history.upload_expected() {
            return Vec::new();
        }
        let mut peers = self.peers();
        peers.retain(|peer| self.history.poll_unavailable(*peer));
        peers
    }

    /// The next sync message for a peer, as if it were sent.
    pub(super) fn next_message(&mut self, to: ConnectionId) -> Option<Vec<u8>> {
        let outgoing = self.history.poll_send(to)?;
        Some(self.encode(&outgoing))
    }

    fn encode(&self, outgoing: &Outgoing) -> Vec<u8> {
        let indexes = outgoing.changes.iter().cloned().flatten();
        let chunks: Vec<&Bytes> = indexes
            .map(|index| &self.stored[index as usize].bytes)
            .collect();
        let mut message = outgoing.encode_head(chunks.len());
        for chunk in chunks {
            push_unsigned(&mut message, chunk.len() as u64);
            message.extend_from_slice(chunk);
        }
        if let Some(flags) = outgoing.flags {
            message.extend_from_slice(&flags.encode());
        }
        message
    }
}

fn resident<T>(result: Result<T, NeedGraph>) -> T {
    result.unwrap_or_else(|NeedGraph| unreachable!("nothing is folded"))
}
