//! What a sync message says of its sender: what it has, what it lacks, what it asks for.

use std::collections::HashSet;
use std::ops::Range;

use automerge::ChangeHash;

use super::budget::Budget;
use super::graph::{self, NeedGraph, unset_ranges};
use super::peer::Certainty;
use super::{History, steps};
use crate::id::ConnectionId;
use crate::protocol::{Have, SyncMessage};

/// A client that declares at least this many changes is invited to send them as a document chunk,
/// which is up to 90 times smaller, and costs a run of the workshop.
pub const INVITE_DOCUMENT_CHANGES_MIN: u32 = 8;

impl History {
    /// A peer has all of the document: it uploaded what became the snapshot.
    pub fn has_all(&mut self, peer: ConnectionId) {
        let len = self.len();
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.sent(len, Vec::new());
        }
    }

    /// Takes in what a message says of its sender. Whether it could, or that takes a longer walk than
    /// may be done now.
    pub(super) fn learn(
        &mut self,
        from: ConnectionId,
        message: &SyncMessage<'_>,
        budget: &Budget,
    ) -> Result<bool, NeedGraph> {
        let Some(peer) = self.peers.get(&from) else {
            return Ok(true);
        };
        let hashes = (message.heads.len() + message.need.len()) as u64;
        let lookups = hashes * steps::LOOKUP;
        if !budget.may_walk(lookups, self.steps.taken()) {
            return Ok(false);
        }
        self.steps.count(lookups);
        let heads = distinct(&message.heads);
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::NamesCompared) {
            for (at, head) in heads.iter().enumerate() {
                let before = heads[..at].iter().filter(|other| *other == head);
                self.steps
                    .count(at as u64 * steps::LOOKUP + before.count() as u64);
            }
        }
        let sync_reset = message.flags.is_some_and(|flags| flags.sync_reset);
        let takes_changes = message.flags.is_some_and(|flags| !flags.read_only);
        let takes_changes_again = peer.publishes_only && takes_changes;
        let asks_for_all = message.is_reset() && peer.certainty != Certainty::Unheard;
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for head in &heads {
            match self.known(head)? {
                Some(index) => known.push(index),
                None => unknown.push(*head),
            }
        }
        let mut needed = Vec::new();
        for hash in &message.need {
            needed.extend(self.known(hash)?);
        }
        let first = peer.certainty == Certainty::Unheard;
        let anew = match peer.certainty {
            Certainty::Unheard => true,
            Certainty::Filtered(_) => unknown.is_empty(),
            Certainty::Exact => sync_reset || takes_changes_again,
        };
        let lost_all = message.heads.is_empty() && peer.upto > 0 && !anew;
        let repeated = peer.reset_answered.as_deref() == Some(heads.as_slice());
        let reset = asks_for_all && !repeated && !lost_all;
        // What it lacks is not looked for again when it would not be sent.
        let resends = first || peer.has_resends(&known);
        let computes = (anew || reset) && resends;
        let walks = computes || !known.iter().all(|index| peer.has(*index));
        if walks && !budget.may_walk(self.walk(), self.steps.taken()) {
            return Ok(false);
        }
        let lacks = if computes {
            Some(self.lacking(&known, &unknown, message.have.first())?)
        } else {
            None
        };
        let extra = match anew || reset || !walks {
            true => Vec::new(),
            false => self.above(&known, peer),
        };

        let len = self.len();
        let peer = self.peers.get_mut(&from).expect("looked up above");
        peer.awaiting = false;
        peer.spoke = true;
        if peer.writes() && message.have.is_empty() && !message.changes.is_empty() {
            // More follows our answer, also if nothing of this was new.
            peer.told = None;
        }
        peer.heads = match &peer.told {
            Some(told) if **told == *heads => told.clone(),
            _ => heads.into(),
        };
        peer.names(&known, len);
        if message.heads.is_empty() {
            peer.told_unavailable = false;
        }
        if let Some(flags) = message.flags {
            peer.takes_documents = true;
            peer.supports_reset |= flags.supports_sync_reset;
            peer.publishes_only = flags.read_only;
        }
        let declared = message.have.first().map_or(0, |have| have.bloom.entries);
        if !unknown.is_empty() && declared >= INVITE_DOCUMENT_CHANGES_MIN {
            peer.invite_document = true;
        }
        if asks_for_all {
            peer.reset_answered = Some(peer.heads.clone());
        }
        if let Some((lacks, certainty)) = lacks
            && (first || peer.may_resend())
        {
            peer.certainty = certainty;
            peer.extra.clear();
            peer.resent.clear();
            peer.sent(len, lacks);
            if !first {
                peer.told = None;
            }
        } else if lost_all && peer.may_resend() {
            peer.upto = 0;
            peer.lacks.clear();
            peer.extra.clear();
            peer.resent.clear();
            peer.told = None;
        }
        peer.has_also(&extra);
        let (rows_from, takes_documents) = (self.record.rows_from, peer.takes_documents);
        let needed = needed.into_iter().map(|index| {
            // What has no row comes with the snapshot, which brings all that have none.
            let in_snapshot = index < rows_from && takes_documents;
            if in_snapshot { 0 } else { index }
        });
        peer.lost(needed.collect());
        unknown.retain(|hash| !self.refused.contains(hash));
        // Whoever sent an orphan may be gone, or never meant to send what it lacks.
        self.ask_for(from, &unknown);
        Ok(true)
    }

    /// Notes that a peer has a change, which it sent.
    pub(super) fn peer_has(&mut self, from: ConnectionId, index: u32) {
        let Some(peer) = self.peers.get(&from) else {
            return;
        };
        let parents = self.graph.parents(index).unwrap_or_default();
        let all = index < peer.upto || parents.iter().all(|parent| peer.has(*parent));
        let has = match all {
            true => vec![index],
            false => self.above(&[index], peer),
        };
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.has_also(&has);
        }
    }

    /// What a peer lacks that named these heads, and how sure that is.
    fn lacking(
        &self,
        known: &[u32],
        unknown: &[ChangeHash],
        have: Option<&Have<'_>>,
    ) -> Result<(Vec<Range<u32>>, Certainty), NeedGraph> {
        let mut tips = known.to_vec();
        let mut last_sync = Vec::new();
        // Heads that are all known say everything; the filter would only blur it.
        if let Some(have) = have.filter(|_| !unknown.is_empty()) {
            self.steps
                .count(have.last_sync.len() as u64 * steps::LOOKUP);
            for hash in &have.last_sync {
                if let Some(index) = self.known(hash)? {
                    tips.push(index);
                    last_sync.push(*hash);
                }
            }
        }
        if self.heads.are_among(&tips) {
            return Ok((Vec::new(), Certainty::Exact));
        }
        let (marks, below) = self.ancestors(&tips);
        let base = self.graph.base();
        let mut lacks = unset_ranges(&marks, base);
        if base > 0 && !self.covers_base(&below)? {
            match lacks.first_mut() {
                Some(first) if first.start == base => first.start = 0,
                _ => lacks.insert(0, 0..base),
            }
        }
        let Some(have) = have.filter(|have| !unknown.is_empty() && have.bloom.entries > 0) else {
            return Ok((lacks, Certainty::Exact));
        };
        let mut send = HashSet::new();
        let (mut filtered, mut left_out) = (Vec::new(), false);
        for index in lacks.into_iter().flatten() {
            self.steps.count(steps::LOOKUP);
            let parents = self.graph.parents(index)?;
            let after_sent = parents.iter().any(|parent| send.contains(parent));
            if after_sent || !have.bloom.contains(&self.graph.hash(index)?) {
                send.insert(index);
                graph::add_index(&mut filtered, index);
            } else {
                left_out = true;
            }
        }
        last_sync.extend(
            known
                .iter()
                .filter_map(|index| self.graph.hash(*index).ok()),
        );
        last_sync.sort_unstable();
        last_sync.dedup();
        let certainty = if left_out {
            Certainty::Filtered(last_sync)
        } else {
            Certainty::Exact
        };
        Ok((filtered, certainty))
    }
}

/// These hashes in order, each once.
fn distinct(hashes: &[ChangeHash]) -> Vec<ChangeHash> {
    let mut hashes = hashes.to_vec();
    if !hashes.is_sorted_by(|a, b| a < b) {
        hashes.sort_unstable();
        hashes.dedup();
    }
    hashes
}
