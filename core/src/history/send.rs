//! What a peer is sent: nothing is queued for it, all of it follows from what it lacks.

mod selection;

use std::ops::Range;
use std::sync::Arc;

use automerge::ChangeHash;

use super::graph::{Graph, NeedGraph, unset_ranges};
use super::outgoing::{Claim, Outgoing};
use super::peer::{Certainty, Peer};
use super::steps::Steps;
use super::{History, steps};
use crate::id::{Access, ConnectionId};
use crate::protocol::Flags;

/// Most bytes of a message to a peer that has nothing of the document, so that a client which shows
/// what it has shows all. `samod` reads no message above 64 MiB.
pub const WHOLE_BYTES_MAX: u64 = 60 * 1024 * 1024;

/// Most operations after the snapshot that a peer which has nothing is sent as changes while they are
/// about to be folded: Automerge 2.2 takes 1 KB for each.
pub const WHOLE_OPS_MAX: u64 = 512 * 1024;

/// Bytes of folded changes that are unpacked at a time for peers that take no document chunks; one
/// change may exceed it.
pub const UNFOLDED_BYTES_MAX: u64 = 16 * 1024 * 1024;

impl History {
    /// Whether [`Self::poll_send`] has something for this peer.
    #[must_use]
    pub fn has_news(&self, peer: ConnectionId) -> bool {
        let Some(peer) = self.peers.get(&peer) else {
            return false;
        };
        let silent = matches!(peer.access, None | Some(Access::None)) || peer.given_up;
        if silent || peer.certainty == Certainty::Unheard || self.durable_len != self.graph.len() {
            return false;
        }
        let asks = peer.writes() && !peer.need.is_empty();
        let told = peer.told.as_ref().is_some_and(|told| {
            Arc::ptr_eq(told, &self.durable_heads) || *told == self.durable_heads
        });
        let behind = !told || !peer.lacks.is_empty() || peer.upto < self.durable_len;
        // Who may write is asked for what it has; who may not would believe that it is here.
        let says = self.durable_len > 0 || (!peer.heads.is_empty() && !peer.writes());
        peer.reset || (!peer.awaiting && (asks || (behind && says)))
    }

    /// Whether all that [`Self::poll_send`] has for this peer is that we have what it named itself. It
    /// does not wait for that: what it sent last was whole, and was not its first message.
    #[must_use]
    pub fn only_acknowledges(&self, peer: ConnectionId) -> bool {
        let Some(peer) = self.peers.get(&peer) else {
            return false;
        };
        peer.told.is_some()
            && *peer.heads == *self.durable_heads
            && !peer.reset
            && peer.need.is_empty()
            && peer.missing(self.durable_len).is_empty()
    }

    /// About how many bytes of changes a peer lacks.
    #[must_use]
    pub fn bytes_to_send(&self, peer: ConnectionId) -> u64 {
        let Some(peer) = self.peers.get(&peer) else {
            return 0;
        };
        let missing = peer.missing(self.durable_len);
        let first = missing.first().map_or(u32::MAX, |range| range.start);
        if first < self.record.rows_from && peer.takes_documents {
            return self.record.snapshot_bytes + self.tail.bytes();
        }
        if first < self.graph.base() {
            return self.retained_bytes() + self.tail.bytes();
        }
        let is_all = matches!(missing.as_slice(), [all] if *all == (0..self.len()));
        if is_all && self.record.folded == 0 {
            // Who has nothing is often looked at while it waits for its turn.
            return self.tail.bytes();
        }
        let looked_at: usize = missing.iter().map(ExactSizeIterator::len).sum();
        self.steps.count(looked_at as u64 * steps::ROW);
        let size = |index| self.graph.size(index).map_or(0, u64::from);
        missing.into_iter().flatten().map(size).sum()
    }

    /// Whether a peer that has nothing of the document is served better when the changes after the
    /// snapshot are folded: they have too many bytes to go at once, or too many operations.
    #[must_use]
    pub fn is_better_folded(&self, to: ConnectionId) -> bool {
        let whole = self.peers.get(&to).is_some_and(|peer| peer.shows_parts());
        let is_much = || self.bytes_to_send(to) > self.whole_bytes_max;
        whole && (is_much() || self.tail.ops() > WHOLE_OPS_MAX)
    }

    /// What must be unpacked of the snapshot before this peer can be sent what it lacks, because it
    /// takes no document chunks: the changes with these indexes, in order, which have about
    /// [`UNFOLDED_BYTES_MAX`] bytes. Hand them to [`Self::poll_send_unfolded`].
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and call again.
    pub fn unfolds_for(&self, peer: ConnectionId) -> Result<Option<Range<u32>>, NeedGraph> {
        let Some(peer) = self.peers.get(&peer).filter(|peer| !peer.takes_documents) else {
            return Ok(None);
        };
        let Some(from) = self.first_unfolded(peer) else {
            return Ok(None);
        };
        let (mut end, mut bytes) = (from, 0);
        while end < self.record.rows_from && (bytes < UNFOLDED_BYTES_MAX || end == from) {
            bytes += u64::from(self.graph.size(end)?);
            end += 1;
        }
        self.steps.count(u64::from(end - from) * steps::ROW);
        Ok(Some(from..end))
    }

    /// The first change that a peer lacks, if it lies in the snapshot alone and the peer takes no
    /// document chunks.
    fn first_unfolded(&self, peer: &Peer) -> Option<u32> {
        if peer.takes_documents || peer.publishes_only || peer.reset {
            return None;
        }
        let first = match peer.lacks.ranges().first() {
            Some(range) => range.start,
            None => peer.missing(self.durable_len).first()?.start,
        };
        (first < self.record.rows_from).then_some(first)
    }

    /// What this peer lacks cannot be unpacked: it is sent nothing more.
    pub fn give_up(&mut self, peer: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.given_up = true;
        }
    }

    /// What a peer should be sent now, as if it were sent: the next call says what comes after.
    /// Nothing while anything is not stored, or must be [unpacked](Self::unfolds_for).
    pub fn poll_send(&mut self, to: ConnectionId) -> Option<Outgoing> {
        self.poll_send_unfolded(to, 0..0)
    }

    /// The same when these changes of the snapshot are unpacked.
    pub fn poll_send_unfolded(
        &mut self,
        to: ConnectionId,
        unfolded: Range<u32>,
    ) -> Option<Outgoing> {
        if !self.has_news(to) {
            return None;
        }
        let outgoing = self.next_outgoing(to, unfolded);
        self.weigh(to);
        outgoing
    }

    fn next_outgoing(&mut self, to: ConnectionId, unfolded: Range<u32>) -> Option<Outgoing> {
        let peer = self.peers.get(&to)?;
        let first = self.first_unfolded(peer);
        if first.is_some_and(|first| !unfolded.contains(&first)) {
            return None;
        }
        let takes_documents = peer.takes_documents;
        let empty = self.durable_len == 0;
        let peer = self.peers.get_mut(&to)?;
        if peer.reset {
            return Some(self.poll_reset(to));
        }
        let need = if peer.writes() {
            std::mem::take(&mut peer.need)
        } else {
            Vec::new()
        };
        let need: Vec<_> = need
            .into_iter()
            .filter(|hash| self.graph.resident(hash).is_none())
            .collect();
        if empty && need.is_empty() && (peer.writes() || peer.heads.is_empty()) {
            return None;
        }
        let missing = if peer.publishes_only {
            Vec::new()
        } else {
            peer.missing(self.durable_len)
        };
        let named = (self.durable_heads.len() + need.len() + missing.len()) as u64;
        self.steps.count(named * steps::LOOKUP);
        let told = peer.told.as_ref() == Some(&self.durable_heads);
        if told && need.is_empty() && missing.is_empty() {
            // It has the rest from elsewhere.
            peer.sent(self.durable_len, Vec::new());
            return None;
        }
        // A stock client shows what it has of a document as soon as it has some of it.
        let whole = self.peers.get(&to)?.shows_parts();
        let bytes_max = match whole && self.bytes_to_send(to) <= self.whole_bytes_max {
            true => self.whole_bytes_max,
            false => self.message_bytes_max,
        };
        let (snapshot, changes, rest) = if takes_documents {
            self.select(missing, bytes_max)
        } else {
            self.select_unfolded(missing, unfolded.end, bytes_max)
        };
        let peer = self.peers.get_mut(&to)?;
        let is_filtered = matches!(peer.certainty, Certainty::Filtered(_));
        let may_claim = is_filtered && rest.is_empty() && peer.may_claim();
        let have = match &peer.certainty {
            _ if !rest.is_empty() => Claim::Nothing,
            Certainty::Filtered(_) if !may_claim => Claim::Nothing,
            Certainty::Filtered(last_sync) => filter_claim(&self.graph, &self.steps, last_sync),
            // It was not sent what it lacks, so it has no more than it named.
            _ if peer.publishes_only => Claim::Filter {
                last_sync: known_heads(&self.graph, &self.steps, &peer.heads),
                hashes: Vec::new(),
            },
            Certainty::Exact | Certainty::Unheard => Claim::Heads,
        };
        peer.awaiting = !rest.is_empty();
        if !peer.publishes_only {
            peer.sent(self.durable_len, rest);
        }
        peer.told = Some(self.durable_heads.clone());
        let invites = std::mem::take(&mut peer.invite_document);
        let read_only = !peer.writes();
        let flags = (invites || read_only).then_some(Flags {
            sync_reset: false,
            read_only,
            supports_sync_reset: true,
        });
        let mut need = need;
        need.sort_unstable();
        Some(Outgoing {
            heads: self.durable_heads.clone(),
            need,
            have,
            snapshot,
            changes,
            flags,
        })
    }

    /// A message that makes the peer send again what was not kept.
    fn poll_reset(&mut self, to: ConnectionId) -> Outgoing {
        let heads = self.durable_heads.clone();
        let peer = self.peers.get_mut(&to).expect("the caller looked it up");
        peer.reset = false;
        peer.asked.clear();
        // Only who was sent everything has all that these heads stand for.
        let have = if peer.missing(self.durable_len).is_empty() {
            Claim::Filter {
                last_sync: heads.to_vec(),
                hashes: Vec::new(),
            }
        } else {
            let known = known_heads(&self.graph, &self.steps, &peer.heads);
            filter_claim(&self.graph, &self.steps, &known)
        };
        // A peer that does not know the flag takes empty heads as the loss of everything, and
        // then learns the true heads from the next message.
        let flag = peer.supports_reset;
        peer.told = Some(if flag { heads.clone() } else { Arc::from([]) });
        let flags = Flags {
            sync_reset: true,
            read_only: false,
            supports_sync_reset: true,
        };
        Outgoing {
            need: Vec::new(),
            have,
            heads: if flag { heads } else { Arc::from([]) },
            snapshot: false,
            changes: Vec::new(),
            flags: flag.then_some(flags),
        }
    }

    /// Whether this peer asked for a document that nobody has, and was not told so yet; says it is
    /// being told.
    pub fn poll_unavailable(&mut self, to: ConnectionId) -> bool {
        let empty = self.is_empty();
        let Some(peer) = self.peers.get_mut(&to) else {
            return false;
        };
        let waits = peer.certainty != Certainty::Unheard && peer.heads.is_empty();
        let hidden = peer.access == Some(Access::None);
        if peer.told_unavailable || !(hidden || (empty && waits)) {
            return false;
        }
        peer.told_unavailable = true;
        true
    }
}

/// Those of a peer's heads that are known, in order.
fn known_heads(graph: &Graph, steps: &Steps, heads: &[ChangeHash]) -> Vec<ChangeHash> {
    steps.count(heads.len() as u64 * steps::LOOKUP);
    let known = |head: &&ChangeHash| graph.resident(head).is_some();
    let mut heads: Vec<_> = heads.iter().filter(known).copied().collect();
    heads.sort_unstable();
    heads
}

fn filter_claim(graph: &Graph, steps: &Steps, last_sync: &[ChangeHash]) -> Claim {
    let tips: Vec<_> = last_sync
        .iter()
        .filter_map(|hash| graph.resident(hash))
        .collect();
    let (marks, _) = graph.ancestors(&tips);
    let after = unset_ranges(&marks, graph.base());
    let covered: usize = after.iter().map(ExactSizeIterator::len).sum();
    let lookups = (tips.len() + covered) as u64 * steps::LOOKUP;
    steps.count(marks.len() as u64 * steps::ROW + lookups);
    let hashes = after.into_iter().flatten().map(|index| graph.hash(index));
    match hashes.collect() {
        Ok(hashes) => Claim::Filter {
            last_sync: last_sync.to_vec(),
            hashes,
        },
        Err(NeedGraph) => Claim::Nothing,
    }
}
