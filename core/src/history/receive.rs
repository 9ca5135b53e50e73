//! What a peer says: a sync message, which may be taken in by parts.

use bytes::Bytes;

use super::admission::Parsed;
use super::budget::Work;
use super::change::{Change, ChangeError};
use super::chunk::{Chunk, ChunkKind, change_bytes};
use super::graph::NeedGraph;
use super::peer::Certainty;
use super::progress::{Progress, Received, TakeInOutcome};
use super::refusal::Refusal;
use super::{History, steps};
use crate::id::ConnectionId;
use crate::protocol::SyncMessage;

/// What to do about document chunks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentChunks {
    /// Report them by [`Received::unpack`].
    Report,
    /// Skip them, they were unpacked already.
    Unpacked,
}

impl History {
    /// Takes in a sync message of a peer that joined, all of it.
    ///
    /// # Errors
    /// [`NeedGraph`], when the message reaches into the folded part of the graph: load it and
    /// receive the same message again; what was admitted already is not admitted twice.
    pub fn receive(
        &mut self,
        from: ConnectionId,
        message: &SyncMessage<'_>,
        documents: DocumentChunks,
    ) -> Result<Received, NeedGraph> {
        let mut progress = Progress::after(std::mem::take(&mut self.interrupted));
        let received = self.receive_part(from, message, documents, &mut progress, Work::All);
        if received.is_err() {
            self.interrupted = progress.found;
        }
        received
    }

    /// Takes in a part of a sync message. As long as [`Received::more`] is said, the same message is
    /// to be received again with the same progress, which was new at first. Messages of other peers
    /// may come between.
    ///
    /// # Errors
    /// As for [`Self::receive`]; what was found before is said then.
    pub fn receive_part(
        &mut self,
        from: ConnectionId,
        message: &SyncMessage<'_>,
        documents: DocumentChunks,
        progress: &mut Progress,
        work: Work,
    ) -> Result<Received, NeedGraph> {
        let bytes = message.changes.iter().map(|bytes| bytes.len() as u64).sum();
        progress.begin(bytes, self.steps.taken(), work);
        if self.is_mere_acknowledgement(from, message) {
            return Ok(Received::default());
        }
        let received = self.take_part(from, message, documents, progress);
        self.weigh(from);
        received
    }

    fn take_part(
        &mut self,
        from: ConnectionId,
        message: &SyncMessage<'_>,
        documents: DocumentChunks,
        progress: &mut Progress,
    ) -> Result<Received, NeedGraph> {
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::UnchargedBuffer) {
            crate::planted::keep(&message.changes);
        }
        let writes = self.peers.get(&from).is_some_and(|peer| peer.writes());
        #[cfg(feature = "planted")]
        let writes = writes || crate::planted::is(crate::planted::Bug::ReadersWrite);
        if writes {
            match self.admit_chunks(from, message, documents, progress)? {
                TakeInOutcome::All => {}
                TakeInOutcome::Unpack => progress.found.unpack = true,
                TakeInOutcome::Part => progress.found.more = true,
                TakeInOutcome::TooMuch => self.leave_out(from, progress),
            }
        } else if !message.changes.is_empty() && !progress.read_only {
            progress.read_only = true;
            progress.found.refuse_unread(Refusal::ReadOnly);
        }
        if !progress.found.unpack && !progress.found.more {
            progress.found.more = !self.learn(from, message, &progress.budget)?;
        }
        Ok(std::mem::take(&mut progress.found))
    }

    /// What is left of the message is more than one may have: its sender is asked for it again.
    fn leave_out(&mut self, from: ConnectionId, progress: &mut Progress) {
        progress.chunk = usize::MAX;
        progress.found.refuse_unread(Refusal::MessageOperations);
        if let Some(peer) = self.peers.get_mut(&from)
            && !peer.reset
            && peer.may_resend()
        {
            peer.reset = true;
        }
    }

    /// Whether a message only confirms what its sender was told, as most messages do.
    fn is_mere_acknowledgement(&mut self, from: ConnectionId, message: &SyncMessage<'_>) -> bool {
        let Some(peer) = self.peers.get_mut(&from) else {
            return false;
        };
        let confirms = message.changes.is_empty()
            && message.need.is_empty()
            && peer.certainty == Certainty::Exact
            && !message.heads.is_empty()
            && message.flags.is_none_or(|flags| !flags.sync_reset)
            && !message.is_reset();
        let told = peer.told.as_ref();
        let Some(told) = told.filter(|told| confirms && ***told == *message.heads) else {
            return false;
        };
        peer.heads = told.clone();
        peer.awaiting = false;
        true
    }

    fn admit_chunks(
        &mut self,
        from: ConnectionId,
        message: &SyncMessage<'_>,
        documents: DocumentChunks,
        progress: &mut Progress,
    ) -> Result<TakeInOutcome, NeedGraph> {
        // Those that waited for what was taken in when work was interrupted.
        let entered = std::mem::take(&mut progress.entered);
        if self.admit_waiting(from, entered, progress)? == TakeInOutcome::Part {
            return Ok(TakeInOutcome::Part);
        }
        while let Some(bytes) = message.changes.get(progress.chunk) {
            let Some(bytes) = bytes.get(progress.offset..).filter(|rest| !rest.is_empty()) else {
                progress.next_chunk();
                continue;
            };
            if !progress.budget.may_go_on(self.steps.taken()) {
                return Ok(TakeInOutcome::Part);
            }
            self.steps.count(steps::CHUNK);
            let chunk = match Chunk::split(bytes) {
                Ok((chunk, _)) => chunk,
                Err(error) => {
                    progress.refuse_unread(error.into());
                    progress.next_chunk();
                    continue;
                }
            };
            match chunk.kind {
                ChunkKind::Bundle => progress.found.refuse_unread(Refusal::Bundle),
                ChunkKind::Document if documents == DocumentChunks::Report => {
                    if !self.has_all_of(&chunk)? {
                        return Ok(TakeInOutcome::Unpack);
                    }
                }
                ChunkKind::Document => {}
                ChunkKind::Change | ChunkKind::DeflatedChange => {
                    match self.admit_chunk(from, &chunk, progress)? {
                        TakeInOutcome::All | TakeInOutcome::Unpack => {}
                        stopped => return Ok(stopped),
                    }
                }
            }
            progress.offset += chunk.bytes.len();
            progress.budget.worked();
            // What waited for it does not wait for the next part of the message.
            let entered = std::mem::take(&mut progress.entered);
            if self.admit_waiting(from, entered, progress)? == TakeInOutcome::Part {
                return Ok(TakeInOutcome::Part);
            }
        }
        Ok(TakeInOutcome::All)
    }

    /// Whether all heads that a document chunk names are known; then so is all below them.
    pub(crate) fn has_all_of(&self, chunk: &Chunk<'_>) -> Result<bool, NeedGraph> {
        let Some(heads) = chunk.document_heads() else {
            return Ok(false);
        };
        for head in &heads {
            self.steps.count(steps::LOOKUP);
            if self.known(head)?.is_none() {
                return Ok(false);
            }
        }
        Ok(!heads.is_empty())
    }

    /// Admits changes that came out of a document chunk, in order.
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and call again.
    pub fn receive_unpacked(
        &mut self,
        from: ConnectionId,
        changes: &[Bytes],
    ) -> Result<Received, NeedGraph> {
        let mut progress = Progress::default();
        progress.begin(u64::MAX, self.steps.taken(), Work::All);
        for change in changes {
            self.receive_one(from, change, &mut progress)?;
        }
        self.weigh(from);
        Ok(progress.found)
    }

    fn receive_one(
        &mut self,
        from: ConnectionId,
        bytes: &Bytes,
        progress: &mut Progress,
    ) -> Result<(), NeedGraph> {
        match Chunk::split(bytes) {
            Ok((chunk, _)) => drop(self.admit_chunk(from, &chunk, progress)?),
            Err(error) => progress.refuse_unread(error.into()),
        }
        let entered = std::mem::take(&mut progress.entered);
        self.admit_waiting(from, entered, progress)?;
        progress.next_chunk();
        Ok(())
    }

    /// Admits a change of a document that Automerge loaded: it hashed the change and knows its
    /// format, which are two thirds of the work.
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and call again.
    pub(crate) fn receive_loaded(
        &mut self,
        change: &automerge::Change,
    ) -> Result<Received, NeedGraph> {
        let mut progress = Progress::default();
        progress.begin(u64::MAX, self.steps.taken(), Work::All);
        let read = Chunk::split(change.raw_bytes()).map_err(ChangeError::from);
        match read.and_then(|(chunk, _)| Change::read_trusted(&chunk, change.hash())) {
            Ok(read) => {
                let bytes = || change_bytes(change);
                let parsed = Parsed::Loaded(change);
                self.take_in(ConnectionId::NOBODY, &read, bytes, parsed, &mut progress)?;
            }
            Err(error) => progress.refuse_unread(error),
        }
        let entered = std::mem::take(&mut progress.entered);
        self.admit_waiting(ConnectionId::NOBODY, entered, &mut progress)?;
        Ok(progress.found)
    }
}
