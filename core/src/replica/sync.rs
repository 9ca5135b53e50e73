//! What passes between a document and the relays that it syncs with.

use std::ops::Range;

use automerge::ChangeHash;
use bytes::Bytes;

use super::Replica;
use super::settling::Settling;
use super::unpacking::Unpacked;
use crate::history::{DocumentChunks, NeedGraph, Outgoing, Received, Refusal};
use crate::id::{Access, ConnectionId};
use crate::protocol::SyncMessage;

/// Most document chunks of one message that are unpacked; peers send one.
const UNPACKS_MAX: u32 = 4;

/// What becomes of a message.
#[derive(Debug)]
pub enum Incoming {
    /// It was taken in.
    Received(Received),
    /// This must be done first, and the message received again then.
    Unpack(Settling),
}

/// A part of what is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The snapshot of this generation, from storage.
    Snapshot(u32),
    /// One change.
    Change(Bytes),
    /// The changes with these indexes, from storage.
    Changes(Range<u32>),
}

impl Replica {
    /// Begins to sync with a relay, over a new connection. [`Self::greet`] it next.
    pub fn join(&mut self, relay: ConnectionId) {
        self.history.leave(relay);
        self.history.join(relay, Access::Write);
    }

    /// The connection is gone.
    pub fn leave(&mut self, relay: ConnectionId) {
        self.history.leave(relay);
    }

    /// The first message to a relay that joined, given the heads that it acknowledged before.
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and call again.
    pub fn greet(
        &mut self,
        relay: ConnectionId,
        acknowledged: &[ChangeHash],
    ) -> Result<Outgoing, NeedGraph> {
        self.history.greet(relay, acknowledged)
    }

    /// Goes on with a relay that joined and was greeted by an earlier replica of this document, of
    /// which everything is stored. If it was `heard`, it named the heads that are here.
    ///
    /// # Errors
    /// [`NeedGraph`], which the heads of a whole record do not need.
    pub fn resume(&mut self, relay: ConnectionId, heard: bool) -> Result<(), NeedGraph> {
        let heads = self.heads();
        // It was said, and need not be again.
        let _ = self.history.greet(relay, &heads)?;
        if heard {
            let named = SyncMessage {
                heads,
                need: Vec::new(),
                have: Vec::new(),
                changes: Vec::new(),
                flags: None,
            };
            self.history
                .receive(relay, &named, DocumentChunks::Report)?;
        }
        Ok(())
    }

    /// The heads that a relay last named, which it has on disk, and whether all are known here.
    #[must_use]
    pub fn acknowledged(&self, by: ConnectionId) -> Option<(&[ChangeHash], bool)> {
        self.history.acknowledged(by)
    }

    /// Whether a relay takes no changes from us.
    #[must_use]
    pub fn is_refused_by(&self, relay: ConnectionId) -> bool {
        self.history.is_refused_by(relay)
    }
}

/// What comes.
impl Replica {
    /// Gives the history the changes that were made here.
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and call again.
    pub fn enter_own(&mut self) -> Result<(), NeedGraph> {
        while let Some(change) = self.own.front() {
            let before = self.history.len();
            // Automerge made it, or has applied it: it need not be hashed and parsed once more.
            let received = self.history.receive_loaded(change)?;
            if let Some((_, refusal)) = received.refused.into_iter().next() {
                self.fault = Some(refusal);
            }
            #[cfg(feature = "planted")]
            if change.raw_bytes().len() > 150
                && crate::planted::is(crate::planted::Bug::LimitAfterShown)
            {
                self.fault = Some(crate::history::ChangeError::TOO_MANY_OPERATIONS.into());
            }
            self.own.pop_front();
            if self.history.len() > before {
                // The document has it already.
                self.given = before + 1;
                self.give();
            }
        }
        Ok(())
    }

    /// Why a change that was made here can be neither stored nor sent: it is beyond a limit. The
    /// replica is of no further use.
    #[must_use]
    pub fn fault(&self) -> Option<&Refusal> {
        self.fault.as_ref()
    }

    /// Takes in a sync message of a relay that joined. The contents follow at
    /// [`Self::settle`].
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and receive the same message again.
    pub fn receive(
        &mut self,
        from: ConnectionId,
        message: &SyncMessage<'_>,
    ) -> Result<Received, NeedGraph> {
        match self.receive_at_once(from, message, &mut None, usize::MAX)? {
            Incoming::Received(received) => Ok(received),
            Incoming::Unpack(_) => unreachable!("nothing is larger"),
        }
    }

    /// The same, but that a document chunk of more bytes than this is only unpacked if that was done
    /// before.
    ///
    /// # Errors
    /// As for [`Self::receive`].
    pub fn receive_at_once(
        &mut self,
        from: ConnectionId,
        message: &SyncMessage<'_>,
        unpacked: &mut Option<Unpacked>,
        bytes_max: usize,
    ) -> Result<Incoming, NeedGraph> {
        self.enter_own()?;
        let mut documents = DocumentChunks::Report;
        let mut refused = Vec::new();
        for unpacks in 0.. {
            let received = self.history.receive(from, message, documents);
            self.give();
            let mut received = received?;
            if !received.unpack {
                received.refused.append(&mut refused);
                return Ok(Incoming::Received(received));
            }
            let Some(packed) = self.packed(message)? else {
                documents = DocumentChunks::Unpacked;
                continue;
            };
            if bytes_max < usize::MAX
                && packed.len() > bytes_max
                && unpacked.is_none()
                && unpacks == 0
            {
                return Ok(Incoming::Unpack(Settling::unpack(packed)));
            }
            match self.take_unpacked(from, &packed, unpacked.take())? {
                Ok(of_chunk) => refused.extend(of_chunk.refused),
                Err(refusal) => {
                    refused.push((None, refusal));
                    documents = DocumentChunks::Unpacked;
                }
            }
            self.give();
            if unpacks + 1 == UNPACKS_MAX {
                documents = DocumentChunks::Unpacked;
            }
        }
        unreachable!("the loop above returns");
    }
}

/// What goes.
impl Replica {
    /// Whether anything may be sent: an adopted chunk must be stored first. Own changes that the
    /// history has not got yet do not hold up those before them.
    #[must_use]
    pub fn is_sendable(&self) -> bool {
        self.adopted.is_none()
    }

    /// Whether a relay should be sent something.
    #[must_use]
    pub fn has_news(&self, relay: ConnectionId) -> bool {
        self.is_sendable() && self.history.has_news(relay)
    }

    /// Whether a relay is to be told only that we have what it sent.
    pub fn only_acknowledges(&self, relay: ConnectionId) -> bool {
        self.history.only_acknowledges(relay)
    }

    /// What a relay should be sent now, as if it were sent. Nothing while anything is not stored.
    pub fn poll_send(&mut self, relay: ConnectionId) -> Option<(Outgoing, Vec<Piece>)> {
        if !self.is_sendable() {
            return None;
        }
        let outgoing = self.history.poll_send(relay)?;
        let mut pieces = Vec::new();
        if outgoing.snapshot {
            pieces.push(Piece::Snapshot(self.history.record().generation));
        }
        for index in outgoing.changes.iter().cloned().flatten() {
            match (self.history.recent(index), pieces.last_mut()) {
                (Some(bytes), _) => pieces.push(Piece::Change(bytes.clone())),
                (None, Some(Piece::Changes(range))) if range.end == index => range.end += 1,
                (None, _) => pieces.push(Piece::Changes(index..index + 1)),
            }
        }
        Some((outgoing, pieces))
    }
}
