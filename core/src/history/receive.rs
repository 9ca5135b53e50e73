//! What may enter: the changes of a message, one after the other, those that wait for others, and
//! those that are refused.

use automerge::ChangeHash;
use bytes::Bytes;

use super::admission;
use super::change::{Change, ChangeError};
use super::chunk::{Chunk, ChunkError, ChunkKind, change_bytes};
use super::graph::{self, NeedGraph};
use super::limits::{
    CHANGE_BYTES_MAX, CHANGE_OPS_MAX, LIGHT_STEPS_MAX, MESSAGE_INFLATED_BYTES_MAX,
    MESSAGE_INFLATED_RATIO, SLICE_STEPS_MAX,
};
use super::orphans::Orphan;
use super::peer::Certainty;
use super::refusal::Refusal;
use super::{Documents, History, Received, StoredChange, steps};
use crate::id::ConnectionId;
use crate::protocol::SyncMessage;

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
        documents: Documents,
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
        documents: Documents,
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
        documents: Documents,
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
                Taken::All => {}
                Taken::Unpack => progress.found.unpack = true,
                Taken::Part => progress.found.more = true,
                Taken::TooMuch => self.leave_out(from, progress),
            }
        } else if !message.changes.is_empty() && !progress.read_only {
            progress.read_only = true;
            progress.found.refuse_unread(Refusal::ReadOnly);
        }
        if !progress.found.unpack && !progress.found.more {
            progress.found.more = !self.learn(from, message, progress)?;
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
        documents: Documents,
        progress: &mut Progress,
    ) -> Result<Taken, NeedGraph> {
        // Those that waited for what was taken in when work was interrupted.
        let entered = std::mem::take(&mut progress.entered);
        if self.admit_waiting(from, entered, progress)? == Taken::Part {
            return Ok(Taken::Part);
        }
        while let Some(bytes) = message.changes.get(progress.chunk) {
            let Some(bytes) = bytes.get(progress.offset..).filter(|rest| !rest.is_empty()) else {
                progress.next_chunk();
                continue;
            };
            if !progress.may_go_on(self.steps.taken()) {
                return Ok(Taken::Part);
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
                ChunkKind::Document if documents == Documents::Report => {
                    if !self.has_all_of(&chunk)? {
                        return Ok(Taken::Unpack);
                    }
                }
                ChunkKind::Document => {}
                ChunkKind::Change | ChunkKind::DeflatedChange => {
                    match self.admit_chunk(from, &chunk, progress)? {
                        Taken::All | Taken::Unpack => {}
                        stopped => return Ok(stopped),
                    }
                }
            }
            progress.offset += chunk.bytes.len();
            progress.worked = true;
            // What waited for it does not wait for the next part of the message.
            let entered = std::mem::take(&mut progress.entered);
            if self.admit_waiting(from, entered, progress)? == Taken::Part {
                return Ok(Taken::Part);
            }
        }
        Ok(Taken::All)
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

    /// Whether a change that is made on top of all that is here can be kept: it is within all limits
    /// of changes and of documents, here and in a relay.
    ///
    /// # Errors
    /// The limit.
    pub(crate) fn has_room_for(&self, change: &automerge::Change) -> Result<(), Refusal> {
        let (chunk, _) = Chunk::split(change.raw_bytes()).map_err(ChangeError::from)?;
        chunk.inflated().map_err(ChangeError::from)?;
        let change = Change::read_trusted(&chunk, change.hash())?;
        admission::has_room_for(&change, &self.outline)?;
        match (self.len() as usize) < graph::CHANGES_MAX - 1 {
            true => Ok(()),
            false => Err(Refusal::DocumentFull("changes")),
        }
    }

    fn admit_chunk(
        &mut self,
        from: ConnectionId,
        chunk: &Chunk<'_>,
        progress: &mut Progress,
    ) -> Result<Taken, NeedGraph> {
        let max = progress.inflated_max(self.steps.taken());
        let inflated = match chunk.inflated_within(max) {
            Ok(Some(inflated)) => inflated,
            // It was inflated as far as that.
            Ok(None) => {
                self.steps.count(max as u64 * steps::BYTE);
                if max < CHANGE_BYTES_MAX {
                    return Ok(progress.stopped());
                }
                progress.refuse_unread(ChunkError::Inflate.into());
                return Ok(Taken::All);
            }
            Err(error) => {
                progress.refuse_unread(error.into());
                return Ok(Taken::All);
            }
        };
        self.steps.count(inflated.len() as u64 * steps::BYTE);
        let whole = Chunk::split(&inflated).map_err(ChangeError::from);
        let change = match whole.and_then(|(whole, _)| Change::read(&whole)) {
            Ok(change) => change,
            Err(error) => {
                progress.refuse_unread(error);
                return Ok(Taken::All);
            }
        };
        let kept = || chunk.kept(&inflated);
        let taken = self.take_in(from, &change, kept, Parsed::Not(&inflated), progress)?;
        if taken == Taken::All {
            progress.inflated(inflated.len() as u64, chunk.bytes.len() as u64);
        }
        Ok(taken)
    }

    /// Admits a change, or says why not. Those that waited for it are still to be admitted.
    fn take_in(
        &mut self,
        from: ConnectionId,
        change: &Change<'_>,
        kept: impl FnOnce() -> Bytes,
        parsed: Parsed<'_>,
        progress: &mut Progress,
    ) -> Result<Taken, NeedGraph> {
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
        Ok(Taken::All)
    }

    fn refuse(&mut self, hash: ChangeHash, refusal: Refusal, received: &mut Received) {
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

    /// Admits the orphans that waited for changes that entered, and that a peer sent. What is left
    /// of them when work is interrupted is in the progress.
    fn admit_waiting(
        &mut self,
        from: ConnectionId,
        mut entered: Vec<ChangeHash>,
        progress: &mut Progress,
    ) -> Result<Taken, NeedGraph> {
        while let Some(hash) = entered.pop() {
            let mut waiting = self.orphans.take_waiting_for(&hash);
            while let Some(mut orphan) = waiting.pop() {
                let entry = if progress.may_go_on(self.steps.taken()) {
                    match self.still_missing(&orphan) {
                        Ok(Some((at, dep))) => {
                            (orphan.missing, orphan.missing_at) = (dep, at);
                            self.orphans.insert(orphan);
                            self.ask_for(from, &[dep]);
                            continue;
                        }
                        Ok(None) => self.admit_orphan(&orphan, progress),
                        Err(NeedGraph) => Err(NeedGraph),
                    }
                } else {
                    Ok(Entry::TooHeavy)
                };
                match entry {
                    Err(NeedGraph) | Ok(Entry::TooHeavy) => {
                        // Wait on, so that receiving again finds them.
                        waiting.push(orphan);
                        for orphan in waiting {
                            self.orphans.insert(orphan);
                        }
                        entered.push(hash);
                        progress.entered = entered;
                        return entry.map(|_| Taken::Part);
                    }
                    Ok(Entry::Entered) => {
                        progress.found.admitted += 1;
                        progress.brought = true;
                        let index = self.len() - 1;
                        let first = orphan.from.first().copied().unwrap_or(ConnectionId::NOBODY);
                        progress.found.waited.push((index, first));
                        for sender in &orphan.from {
                            self.peer_has(*sender, index);
                            self.weigh(*sender);
                        }
                        entered.push(orphan.hash);
                    }
                    Ok(Entry::Refused(refusal)) => {
                        self.refuse(orphan.hash, refusal, &mut progress.found);
                    }
                    Ok(Entry::Waits) => self.ask_for(from, &[orphan.hash]),
                    Ok(Entry::Known) => {}
                }
                progress.worked = true;
            }
        }
        Ok(Taken::All)
    }

    /// Asks a peer for what must come before these changes can enter; for those, if they are not
    /// here.
    pub(super) fn ask_for(&mut self, from: ConnectionId, hashes: &[ChangeHash]) {
        let missing = self.orphans.missing_for(hashes);
        self.steps.count(missing.looked_at * steps::LOOKUP);
        if let Some(peer) = self.peers.get_mut(&from) {
            for hash in missing.hashes {
                peer.ask(hash);
            }
        }
    }

    /// The next dep that an orphan lacks, now that the one it waited for is here. All together look
    /// at each dep once, however many there are and in which order they come.
    fn still_missing(&self, orphan: &Orphan) -> Result<Option<(usize, ChangeHash)>, NeedGraph> {
        for (at, dep) in orphan
            .deps
            .iter()
            .copied()
            .enumerate()
            .skip(orphan.missing_at)
        {
            self.steps.count(steps::LOOKUP);
            if self.refused.contains(&dep) {
                // It is found by whoever reads all of it.
                return Ok(None);
            }
            if self.known(&dep)?.is_none() {
                return Ok(Some((at, dep)));
            }
        }
        Ok(None)
    }

    fn admit_orphan(
        &mut self,
        orphan: &Orphan,
        progress: &mut Progress,
    ) -> Result<Entry, NeedGraph> {
        let (chunk, _) = Chunk::split(&orphan.bytes).expect("was split before");
        let max = progress.orphan_max(self.steps.taken());
        let inflated = chunk.inflated_within(max).expect("was inflated before");
        let Some(inflated) = inflated else {
            self.steps.count(max as u64 * steps::BYTE);
            return Ok(Entry::TooHeavy);
        };
        self.steps
            .count(steps::CHUNK + inflated.len() as u64 * steps::BYTE);
        let (whole, _) = Chunk::split(&inflated).expect("was split before");
        let change = Change::read_trusted(&whole, orphan.hash).expect("was read before");
        let kept = || orphan.bytes.clone();
        let parsed = Parsed::Orphan(&inflated);
        let from = orphan.from.first().copied().unwrap_or(ConnectionId::NOBODY);
        self.admit(from, &change, kept, parsed, progress)
    }

    /// Decides about one change; `kept` makes what is stored of it.
    fn admit(
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
        if !progress.has_room_for(weight, is_orphan, taken) {
            return Ok(Entry::TooHeavy);
        }
        let mut deps_max_op = 0;
        for parent in &parents {
            deps_max_op = deps_max_op.max(self.max_op(*parent)?);
        }
        let Some(past) = self.past(&parents, progress)? else {
            return Ok(Entry::TooHeavy);
        };
        if !is_orphan {
            progress.operations_left -= weight;
        }
        self.steps.count(weight * steps::OPERATION);
        let learned = match admission::admit(change, &self.outline, &past, deps_max_op) {
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

    fn wait(
        &mut self,
        from: ConnectionId,
        change: &Change<'_>,
        bytes: Bytes,
        missing_at: usize,
        progress: &mut Progress,
    ) -> Entry {
        let missing = change.deps[missing_at];
        if self.orphans.is_sent_again(&change.hash, from) {
            self.ask_for(from, &[missing]);
            return Entry::Waits;
        }
        let fits = self.orphans.has_room(bytes.len(), change.deps.len());
        if let Some(peer) = self.peers.get_mut(&from) {
            if fits {
                peer.ask(missing);
            } else if !peer.reset && peer.may_resend() {
                // Once for all of them that come before it is told.
                peer.reset = true;
            }
        }
        if fits {
            progress.brought = true;
            self.orphans.insert(Orphan {
                hash: change.hash,
                missing,
                missing_at,
                deps: change.deps.as_slice().into(),
                bytes,
                from: vec![from],
            });
        }
        Entry::Waits
    }
}

/// What became of a change.
#[derive(Debug)]
enum Entry {
    Entered,
    /// It is here already, or its sender knows that it is refused.
    Known,
    /// It has more operations than may be taken in now.
    TooHeavy,
    Waits,
    Refused(Refusal),
}

/// A change as Automerge has it, or the bytes that it is still to read.
enum Parsed<'a> {
    Loaded(&'a automerge::Change),
    Not(&'a [u8]),
    /// The same of one that waited, which counts for no message.
    Orphan(&'a [u8]),
}

/// How much of a message was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    /// A document chunk is to be unpacked first.
    Unpack,
    /// Work was interrupted.
    Part,
    /// The rest is more than a message may have.
    TooMuch,
}

/// How much work is to be done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// What is short: up to [`LIGHT_STEPS_MAX`].
    Light,
    /// About [`SLICE_STEPS_MAX`], and at least one change, whatever it takes.
    Slice,
    /// All of it.
    All,
}

/// How far the taking in of one message has come.
#[derive(Debug, Default)]
pub struct Progress {
    begun: bool,
    /// The next chunk: its place in the list, and where it begins there.
    chunk: usize,
    offset: usize,
    /// Changes that entered, for which others may wait.
    entered: Vec<ChangeHash>,
    /// Its sender heard that it may not write.
    read_only: bool,
    /// What was found and is not said yet.
    found: Received,
    /// What the message may still have.
    operations_left: u64,
    inflated_left: u64,
    /// Where this part began, and how many steps it may take.
    steps_from: u64,
    steps_max: u64,
    work: Option<Work>,
    /// Something was done in this part.
    worked: bool,
    /// Something came in this part that was not here.
    brought: bool,
}

impl Progress {
    /// The beginning of a message in which this was found before.
    fn after(found: Received) -> Self {
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

    fn begin(&mut self, bytes: u64, taken: u64, work: Work) {
        if !std::mem::replace(&mut self.begun, true) {
            self.operations_left = CHANGE_OPS_MAX.saturating_add(bytes);
            let ratio = bytes.saturating_mul(MESSAGE_INFLATED_RATIO);
            self.inflated_left = MESSAGE_INFLATED_BYTES_MAX.saturating_add(ratio);
        }
        self.steps_from = taken;
        self.steps_max = match work {
            Work::Light => LIGHT_STEPS_MAX,
            Work::Slice => SLICE_STEPS_MAX,
            Work::All => u64::MAX,
        };
        (self.work, self.worked, self.brought) = (Some(work), false, false);
    }

    fn is_light(&self) -> bool {
        self.work == Some(Work::Light)
    }

    fn steps_left(&self, taken: u64) -> u64 {
        self.steps_max.saturating_sub(taken - self.steps_from)
    }

    /// Whether this part may do one thing more.
    fn may_go_on(&self, taken: u64) -> bool {
        self.steps_left(taken) > 0 || (!self.worked && !self.is_light())
    }

    /// Whether a walk of so many steps, of which the whole is done at once, may be done.
    pub(super) fn may_walk(&self, walk: u64, taken: u64) -> bool {
        !self.is_light() || walk <= self.steps_left(taken)
    }

    /// To how many bytes the next change may inflate.
    fn inflated_max(&self, taken: u64) -> usize {
        let left = self.inflated_left.min(CHANGE_BYTES_MAX as u64);
        let max = match self.is_light() {
            true => left.min(self.steps_left(taken) / steps::BYTE),
            false => left,
        };
        max as usize
    }

    /// A change inflated to so many bytes, of which as many came.
    fn inflated(&mut self, bytes: u64, came: u64) {
        if bytes > came {
            self.inflated_left = self.inflated_left.saturating_sub(bytes);
        }
    }

    /// The same for one that waited, which was taken for another message.
    fn orphan_max(&self, taken: u64) -> usize {
        match self.is_light() {
            true => (self.steps_left(taken) / steps::BYTE) as usize,
            false => CHANGE_BYTES_MAX,
        }
    }

    /// Whether so many operations may be taken in.
    fn has_room_for(&self, operations: u64, is_orphan: bool, taken: u64) -> bool {
        let steps = operations.saturating_mul(steps::OPERATION);
        let is_short = !self.is_light() || steps <= self.steps_left(taken);
        is_short && (is_orphan || operations <= self.operations_left)
    }

    /// What a change means that does not fit: it comes later, or is too much.
    fn stopped(&self) -> Taken {
        match self.is_light() {
            true => Taken::Part,
            false => Taken::TooMuch,
        }
    }

    fn next_chunk(&mut self) {
        (self.chunk, self.offset) = (self.chunk.saturating_add(1), 0);
        self.worked = true;
    }

    fn refuse_unread(&mut self, error: ChangeError) {
        self.found.refuse_unread(error.into());
    }
}
