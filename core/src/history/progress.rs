//! How far the taking in of a message has come, and what was found in it.

use automerge::ChangeHash;

use super::budget::{Budget, Work};
use super::change::ChangeError;
use super::refusal::Refusal;
use crate::id::ConnectionId;

/// What [`History::receive`](super::History::receive) has to say about a message.
#[derive(Debug, Default)]
pub struct Received {
    /// How many changes entered.
    pub admitted: u32,
    /// Those of them that had waited for another one: index, and who sent it.
    pub waited: Vec<(u32, ConnectionId)>,
    /// What was not taken, and why; the hash is missing where none could be read.
    pub refused: Vec<(Option<ChangeHash>, Refusal)>,
    /// How many more of those without a hash there were, of which not each is said.
    pub refused_more: usize,
    /// Whether the message carries a document chunk with changes that are not known here. Nothing
    /// of the message was taken in: unpack the chunk first, then receive the message again with
    /// [`DocumentChunks::Unpacked`](super::DocumentChunks::Unpacked).
    pub unpack: bool,
    /// Whether more remains to be done: receive the message again with the same [`Progress`], where
    /// that holds up nobody.
    pub more: bool,
}

impl Received {
    /// Of so many chunks in which no hash could be read it is said why.
    const UNREAD_MAX: usize = 64;

    #[inline(never)]
    pub(super) fn refuse_unread(&mut self, refusal: Refusal) {
        match self.refused.len() < Self::UNREAD_MAX {
            true => self.refused.push((None, refusal)),
            false => self.refused_more += 1,
        }
    }
}

/// How much of a message was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakeInOutcome {
    All,
    /// A document chunk is to be unpacked first.
    Unpack,
    /// Work was interrupted.
    Part,
    /// The rest is more than a message may have.
    TooMuch,
}

/// How far the taking in of one message has come.
#[derive(Debug, Default)]
pub struct Progress {
    /// The next chunk: its place in the list, and where it begins there.
    pub(super) chunk: usize,
    pub(super) offset: usize,
    /// Changes that entered, for which others may wait.
    pub(super) entered: Vec<ChangeHash>,
    /// Its sender heard that it may not write.
    pub(super) read_only: bool,
    /// What was found and is not said yet.
    pub(super) found: Received,
    pub(super) budget: Budget,
    /// Something came in this part that was not here.
    pub(super) brought: bool,
}

impl Progress {
    /// The beginning of a message in which this was found before.
    pub(super) fn after(found: Received) -> Self {
        Self {
            found,
            ..Self::default()
        }
    }

    /// What was found before the graph was needed.
    pub fn found(&mut self) -> Received {
        std::mem::take(&mut self.found)
    }

    /// Whether a change came in the last part that was not here and is kept.
    #[must_use]
    pub fn has_brought(&self) -> bool {
        self.brought
    }

    pub(super) fn begin(&mut self, bytes: u64, taken: u64, work: Work) {
        self.budget.begin(bytes, taken, work);
        self.brought = false;
    }

    /// What a change means that does not fit: it comes later, or is too much.
    pub(super) fn stopped(&self) -> TakeInOutcome {
        match self.budget.is_light() {
            true => TakeInOutcome::Part,
            false => TakeInOutcome::TooMuch,
        }
    }

    pub(super) fn next_chunk(&mut self) {
        (self.chunk, self.offset) = (self.chunk.saturating_add(1), 0);
        self.budget.worked();
    }

    pub(super) fn refuse_unread(&mut self, error: ChangeError) {
        self.found.refuse_unread(error.into());
    }
}
