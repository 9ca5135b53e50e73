//! What may enter: one change, which is known, was refused, waits for another, or enters.

mod rules;

use automerge::ChangeHash;
use bytes::Bytes;

use super::change::{Change, ChangeError};
use super::chunk::{Chunk, ChunkError};
use super::graph::{self, NeedGraph};
use super::limits::CHANGE_BYTES_MAX;
use super::progress::{Progress, Received, TakeInOutcome};
use super::refusal::Refusal;
use super::stored::StoredChange;
use super::{History, steps};
use crate::id::ConnectionId;

impl History {
    /// Whether a change that is made on top of all that is here can be kept: it is within all limits
    /// of changes and of documents, here and in a relay.
    ///
    /// # Errors
    /// The limit.
    pub(crate) fn has_room_for(&self, change: &automerge::Change) -> Result<(), Refusal> {
        let (chunk, _) = Chunk::split(change.raw_bytes()).map_err(ChangeError::from)?;
        chunk.inflated().map_err(ChangeError::from)?;
        let change = Change::read_trusted(&chunk, change.hash())?;
        rules::has_room_for(&change, &self.outline)?;
        match (self.len() as usize) < graph::CHANGES_MAX - 1 {
            true => Ok(()),
            false => Err(Refusal::DocumentFull("changes")),
        }
    }

    pub(super) fn admit_chunk(
        &mut self,
        from: ConnectionId,
        chunk: &Chunk<'_>,
        progress: &mut Progress,
    ) -> Result<TakeInOutcome, NeedGraph> {
        let max = progress.budget.inflated_max(self.steps.taken());
        let inflated = match chunk.inflated_within(max) {
            Ok(Some(inflated)) => inflated,
            // It was inflated as far as that.
            Ok(None) => {
                self.steps.count(max as u64 * steps::BYTE);
                if max < CHANGE_BYTES_MAX {
                    return Ok(progress.stopped());
                }
                progress.refuse_unread(ChunkError::Inflate.into());
                return Ok(TakeInOutcome::All);
            }
            Err(error) => {
                progress.refuse_unread(error.into());
                return Ok(TakeInOutcome::All);
            }
        };
        self.steps.count(inflated.len() as u64 * steps::BYTE);
        let whole = Chunk::split(&inflated).map_err(ChangeError::from);
        let change = match whole.and_then(|(whole, _)| Change::read(&whole)) {
            Ok(change) => change,
            Err(error) => {
                progress.refuse_unread(error);
                return Ok(TakeInOutcome::All);
            }
        };
        let kept = || chunk.kept(&inflated);
        let taken = self.take_in(from, &change, kept, Parsed::Not(&inflated), progress)?;
        if taken == TakeInOutcome::All {
            progress
                .budget
                .inflated(inflated.len() as u64, chunk.bytes.len() as u64);
        }
        Ok(taken)
    }

    /// Admits a change, or says why not. Those that waited for it are still to be admitted.
    pub(super) fn take_in(
        &mut self,
        from: ConnectionId,
        change: &Change<'_>,
        kept: impl FnOnce() -> Bytes,
        parsed: Parsed<'_>,
        progress: &mut Progress,
    ) -> Result<TakeInOutcome, NeedGraph> {
        let hash = change.hash;
        match self.admit(from, change, kept, parsed, progress)? {
            // Some may wait for it still, if what they were taken in with was interrupted.
            Entry::Known => progress.entered.push(hash),
            Entry::Waits => {}
            Entry::TooHeavy => return Ok(progress.stopped()),
            Entry::Entered => {
                progress.found.admitted += 1;
                progress.brought = true;
                progress.entered.push(hash);
            }
            Entry::Refused(refusal) => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.hears_of_refused(hash);
                }
                self.refuse(hash, refusal, &mut progress.found);
            }
        }
        Ok(TakeInOutcome::All)
    }

    pub(super) fn refuse(&mut self, hash: ChangeHash, refusal: Refusal, received: &mut Received) {
        let mut refused = vec![(hash, refusal)];
        // Not by recursion: whoever sends orphans chooses how deep they hang on each other.
        while let Some((hash, refusal)) = refused.pop() {
            self.refused.insert(hash, refusal.clone());
            received.refused.push((Some(hash), refusal));
            for waiting in self.orphans.take_waiting_for(&hash) {
                self.steps.count(steps::LOOKUP);
                refused.push((waiting.hash, Refusal::DependsOnRefused(hash)));
            }
        }
    }

    /// Decides about one change; `kept` makes what is stored of it.
    pub(super) fn admit(
        &mut self,
        from: ConnectionId,
        change: &Change<'_>,
        kept: impl FnOnce() -> Bytes,
        parsed: Parsed<'_>,
        progress: &mut Progress,
    ) -> Result<Entry, NeedGraph> {
        self.steps.count(change.deps.len() as u64 * steps::LOOKUP);
        let on_a_head = change.deps.iter().any(|dep| self.is_head(dep));
        // What depends on a head was never here, or that would be no head.
        let known = if on_a_head {
            None
        } else {
            self.known(&change.hash)?
        };
        if let Some(index) = known.or_else(|| self.graph.resident(&change.hash)) {
            self.peer_has(from, index);
            return Ok(Entry::Known);
        }
        if let Some(refusal) = self.refused.get(&change.hash) {
            let peer = self.peers.get_mut(&from);
            return match peer.is_none_or(|peer| peer.hears_of_refused(change.hash)) {
                true => Ok(Entry::Refused(refusal.clone())),
                false => Ok(Entry::Known),
            };
        }
        if let Some(dep) = change.deps.iter().find(|dep| self.refused.contains(dep)) {
            return Ok(Entry::Refused(Refusal::DependsOnRefused(*dep)));
        }
        let mut parents = Vec::with_capacity(change.deps.len());
        for (at, dep) in change.deps.iter().enumerate() {
            match self.known(dep)? {
                Some(index) => parents.push(index),
                #[cfg(feature = "planted")]
                None if crate::planted::is(crate::planted::Bug::DependencyCheckSkipped) => {}
                None => return Ok(self.wait(from, change, kept(), at, progress)),
            }
        }
        let (weight, taken) = (change.weight(), self.steps.taken());
        let is_orphan = matches!(parsed, Parsed::Orphan(_));
        if !progress.budget.has_room_for(weight, is_orphan, taken) {
            return Ok(Entry::TooHeavy);
        }
        let mut deps_max_op = 0;
        for parent in &parents {
            deps_max_op = deps_max_op.max(self.max_op(*parent)?);
        }
        let Some(past) = self.past(&parents, &progress.budget)? else {
            return Ok(Entry::TooHeavy);
        };
        if !is_orphan {
            progress.budget.take(weight);
        }
        self.steps.count(weight * steps::OPERATION);
        let learned = match rules::admit(change, &self.outline, &past, deps_max_op) {
            Ok(learned) => learned,
            Err(refusal) => return Ok(Entry::Refused(refusal)),
        };
        if self.len() as usize >= graph::CHANGES_MAX - 1 {
            return Ok(Entry::Refused(Refusal::DocumentFull("changes")));
        }
        // The last word on the format has the parser that every peer will use.
        let said = |theirs: &automerge::Change| (theirs.len(), theirs.author().is_some());
        let theirs = match parsed {
            Parsed::Loaded(theirs) => Ok(said(theirs)),
            Parsed::Not(inflated) | Parsed::Orphan(inflated) => {
                automerge::Change::try_from(inflated).map(|theirs| said(&theirs))
            }
        };
        // Automerge ends where a later change than an actor's first one names an author.
        let theirs = match theirs {
            Ok((_, true)) if change.seq > 1 => {
                let why = "an author that is not in the first change of its actor";
                return Ok(Entry::Refused(Refusal::Automerge(why.into())));
            }
            theirs => theirs.map(|(ops, _)| ops),
        };
        match theirs {
            Ok(ops) if ops as u64 == change.ops_len => {}
            Ok(ops) => {
                let why = format!("{ops} operations instead of {}", change.ops_len);
                return Ok(Entry::Refused(Refusal::Automerge(why)));
            }
            Err(error) => return Ok(Entry::Refused(Refusal::by_automerge(&error))),
        }
        let stored = StoredChange {
            hash: change.hash,
            parents,
            max_op: change.max_op(),
            objects: learned.objects,
            bytes: kept(),
        };
        let index = self.enter(&change.into(), stored);
        self.clocks
            .entered(index, &past, &self.outline, &self.graph);
        self.peer_has(from, index);
        Ok(Entry::Entered)
    }
}

/// What became of a change.
#[derive(Debug)]
pub(super) enum Entry {
    Entered,
    /// It is here already, or its sender knows that it is refused.
    Known,
    /// It has more operations than may be taken in now.
    TooHeavy,
    Waits,
    Refused(Refusal),
}

/// A change as Automerge has it, or the bytes that it is still to read.
pub(super) enum Parsed<'a> {
    Loaded(&'a automerge::Change),
    Not(&'a [u8]),
    /// The same of one that waited, which counts for no message.
    Orphan(&'a [u8]),
}
