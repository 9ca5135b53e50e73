//! Changes that wait for others: they are kept until those enter, and asked for from who named them.

use automerge::ChangeHash;
use bytes::Bytes;

use super::admission::{Entry, Parsed};
use super::change::Change;
use super::chunk::Chunk;
use super::graph::NeedGraph;
use super::orphans::Orphan;
use super::progress::{Progress, TakeInOutcome};
use super::{History, steps};
use crate::id::ConnectionId;

impl History {
    /// Admits the orphans that waited for changes that entered, and that a peer sent. What is left
    /// of them when work is interrupted is in the progress.
    pub(super) fn admit_waiting(
        &mut self,
        from: ConnectionId,
        mut entered: Vec<ChangeHash>,
        progress: &mut Progress,
    ) -> Result<TakeInOutcome, NeedGraph> {
        while let Some(hash) = entered.pop() {
            let mut waiting = self.orphans.take_waiting_for(&hash);
            while let Some(mut orphan) = waiting.pop() {
                let entry = if progress.budget.may_go_on(self.steps.taken()) {
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
                        return entry.map(|_| TakeInOutcome::Part);
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
                progress.budget.worked();
            }
        }
        Ok(TakeInOutcome::All)
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
        let max = progress.budget.orphan_max(self.steps.taken());
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

    pub(super) fn wait(
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
