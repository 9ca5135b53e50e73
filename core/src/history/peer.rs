//! What one peer knows of the document, and what it was told.
//!
//! A peer needs no queue: what it lacks is a set of change indexes, kept as ranges, and what it
//! should be sent now follows from that set and the durable heads. The transport is in order and
//! lossless while it lives, so what was sent counts as had; only the peer itself can take that
//! back (empty heads, a reset, an unmet need).

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use automerge::ChangeHash;

#[cfg(feature = "native")]
use super::heap_size;
use super::indexes::Indexes;
use super::limits::REFUSED_MAX;
use crate::id::Access;

/// How often one connection may make the relay send again what it was sent before, until it names
/// something newer than when this was last counted from 0. A peer that keeps losing what it gets is
/// not helped by more of it; one whose disk was full for a while is.
pub(crate) const RESENDS_MAX: u8 = 8;

/// Hashes that a peer may be asked for, and changes that it may ask for by name though it should
/// have them, per connection and document. A filter hides about 1 % of what it covers, so each of
/// these may be many; but each only once, since what was sent arrives as long as the connection
/// lives.
pub(crate) const ASKED_MAX: usize = 64 * 1024;

/// How much of a peer's word is known to be complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// Nothing was heard of it on this document.
    #[default]
    Unheard,
    /// What it lacks was computed from heads that are known here.
    Exact,
    /// Some changes were left out because its Bloom filter seemed to contain them; these heads
    /// it certainly has.
    Filtered(Vec<ChangeHash>),
}

/// The beginning of a hash, which tells it from others: who makes two that begin alike is not asked
/// for one of them.
pub(crate) type HashPrefix = u64;

fn short(hash: &ChangeHash) -> HashPrefix {
    u64::from_le_bytes(hash.0[..8].try_into().expect("8 of 32 bytes"))
}

#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) access: Option<Access>,
    pub(crate) certainty: Certainty,
    /// The heads that it was last told.
    pub(crate) told: Option<Arc<[ChangeHash]>>,
    /// The heads that it last named; mostly those that it and others were told.
    pub(crate) heads: Arc<[ChangeHash]>,
    /// Below this index it has everything but `lacks`.
    pub(crate) upto: u32,
    /// Those below `upto` that it lacks.
    pub(crate) lacks: Indexes,
    /// Indexes from `upto` on that it has, with all that those come after.
    pub(crate) extra: Indexes,
    /// Hashes to ask it for.
    pub(crate) need: Vec<ChangeHash>,
    /// Hashes that it was asked for.
    pub(crate) asked: HashSet<HashPrefix>,
    /// Changes of which it heard that they are refused.
    pub(crate) refused: HashSet<HashPrefix>,
    /// It was sent a part, and the next one follows its answer.
    pub(crate) awaiting: bool,
    /// It must be told to forget what it sent, because that was not kept.
    pub(crate) reset: bool,
    /// Resends and resets so far,
    pub(crate) resends: u8,
    /// since it named a change with at least the index that this was.
    pub(crate) resends_from: u32,
    /// Claims with a filter since then, and whether it spoke since the last one.
    pub(crate) claims: u8,
    pub(crate) spoke: bool,
    /// Single changes that it asked for by name though it should have them, since it was last
    /// computed what it lacks.
    pub(crate) resent: HashSet<u32>,
    /// The heads with which it last asked for everything.
    pub(crate) reset_answered: Option<Arc<[ChangeHash]>>,
    /// It takes a whole document as one chunk; cores before 2.1 do not.
    pub(crate) takes_documents: bool,
    /// What it lacks cannot be had in a form that it takes.
    pub(crate) given_up: bool,
    /// It shows nothing of a document before it has all that was named.
    pub(crate) waits_for_all: bool,
    /// It understands a reset flag.
    pub(crate) supports_reset: bool,
    /// It takes no changes.
    pub(crate) publishes_only: bool,
    /// It has so much to send that document chunks pay.
    pub(crate) invite_document: bool,
    /// It was told that nobody has the document.
    pub(crate) told_unavailable: bool,
    /// What was last weighed of it.
    #[cfg(feature = "native")]
    pub(crate) weight: usize,
}

/// A peer that has all there was, and of which nothing else is to be remembered: most peers of most
/// documents, most of the time. It takes a tenth of the memory.
#[derive(Debug)]
pub struct AtRest {
    told: Option<Arc<[ChangeHash]>>,
    upto: u32,
    access: Option<Access>,
    resends: u8,
    /// It named what it was told; otherwise nothing.
    named_told: bool,
    takes_documents: bool,
    waits_for_all: bool,
    supports_reset: bool,
    publishes_only: bool,
    told_unavailable: bool,
}

impl AtRest {
    /// `None` if there is more to be remembered of a peer.
    pub(crate) fn of(peer: &Peer) -> Option<Self> {
        peer.rests().then(|| Self {
            told: peer.told.clone(),
            upto: peer.upto,
            access: peer.access,
            resends: peer.resends,
            named_told: peer.named_told(),
            takes_documents: peer.takes_documents,
            waits_for_all: peer.waits_for_all,
            supports_reset: peer.supports_reset,
            publishes_only: peer.publishes_only,
            told_unavailable: peer.told_unavailable,
        })
    }

    pub(crate) fn into_peer(self) -> Peer {
        let heads = self.told.clone().filter(|_| self.named_told);
        Peer {
            access: self.access,
            certainty: Certainty::Exact,
            heads: heads.unwrap_or_default(),
            told: self.told,
            upto: self.upto,
            resends: self.resends,
            // It has all there was.
            resends_from: self.upto,
            takes_documents: self.takes_documents,
            waits_for_all: self.waits_for_all,
            supports_reset: self.supports_reset,
            publishes_only: self.publishes_only,
            told_unavailable: self.told_unavailable,
            ..Peer::default()
        }
    }
}

impl Peer {
    fn named_told(&self) -> bool {
        self.told.as_ref() == Some(&self.heads)
    }

    /// Whether it has all there was, and nothing else is to be remembered of it.
    pub(crate) fn rests(&self) -> bool {
        self.certainty == Certainty::Exact
            && (self.named_told() || self.heads.is_empty())
            && self.lacks.is_empty()
            && self.extra.is_empty()
            && self.need.is_empty()
            && self.asked.is_empty()
            && self.refused.is_empty()
            && self.resent.is_empty()
            && self.reset_answered.is_none()
            && !self.awaiting
            && !self.reset
            && !self.invite_document
            && !self.given_up
    }

    pub(crate) fn writes(&self) -> bool {
        self.access == Some(Access::Write)
    }

    /// Whether it has nothing of the document, nor was sent any of it, and would show a part of it as
    /// if it were all.
    pub(crate) fn shows_parts(&self) -> bool {
        let lacks_all = match self.lacks.ranges() {
            [] => self.upto == 0,
            [range] => *range == (0..self.upto),
            _ => false,
        };
        !self.waits_for_all && self.heads.is_empty() && self.extra.is_empty() && lacks_all
    }

    /// Whether it is known to have a change.
    pub(crate) fn has(&self, index: u32) -> bool {
        if index < self.upto {
            return !self.lacks.contains(index);
        }
        self.extra.contains(index)
    }

    /// Notes that it has these changes, in order, which it sent or named, or which come before those.
    pub(crate) fn has_also(&mut self, indexes: &[u32]) {
        let (below, above) = indexes.split_at(indexes.partition_point(|index| *index < self.upto));
        if !below.is_empty() {
            self.lacks.remove(below);
        }
        self.extra.add(above);
    }

    /// Notes that it lacks changes after all, for which it asks by name. Each counts once.
    pub(crate) fn lost(&mut self, mut indexes: Vec<u32>) {
        if indexes.is_empty() {
            return;
        }
        indexes.sort_unstable();
        indexes.dedup();
        indexes.retain(|index| self.has(*index) && !self.resent.contains(index));
        indexes.truncate(ASKED_MAX - self.resent.len().min(ASKED_MAX));
        self.resent.extend(&indexes);
        let (below, above) = indexes.split_at(indexes.partition_point(|index| *index < self.upto));
        self.lacks.add(below);
        self.extra.remove(above);
    }

    /// Everything below `len` that it lacks.
    pub(crate) fn missing(&self, len: u32) -> Vec<Range<u32>> {
        let mut missing = self.lacks.ranges().to_vec();
        let mut next = self.upto;
        for had in self
            .extra
            .ranges()
            .iter()
            .cloned()
            .chain(std::iter::once(len..len))
        {
            let end = had.start.min(len);
            if next < end {
                match missing.last_mut() {
                    Some(last) if last.end == next => last.end = end,
                    _ => missing.push(next..end),
                }
            }
            next = had.end;
        }
        missing
    }

    /// Notes that all below `len` was sent but `lacks`.
    pub(crate) fn sent(&mut self, len: u32, lacks: Vec<Range<u32>>) {
        self.upto = len;
        self.lacks = lacks.into();
        self.extra.keep_from(len);
    }

    /// These indexes, in order, are taken out; what was above moves down.
    pub(crate) fn forget(&mut self, gone: &[u32]) {
        let moved = |index: u32| index - gone.partition_point(|gone| *gone < index) as u32;
        self.upto = moved(self.upto);
        self.resends_from = moved(self.resends_from);
        self.lacks.moved(moved);
        self.extra.remove(gone);
        self.extra.moved(moved);
        let resent = std::mem::take(&mut self.resent).into_iter();
        let stays = resent.filter(|index| gone.binary_search(index).is_err());
        self.resent = stays.map(moved).collect();
    }

    /// Asks for a change by name, once per connection.
    pub(crate) fn ask(&mut self, hash: ChangeHash) {
        if self.asked.len() < ASKED_MAX && self.asked.insert(short(&hash)) {
            self.need.push(hash);
        }
    }

    /// Has it send again what was not kept of what it sent.
    pub(crate) fn ask_again(&mut self) {
        if self.writes() && self.certainty != Certainty::Unheard {
            self.reset = true;
            self.asked.clear();
        }
    }

    /// Whether it should hear that a change is refused: once per connection.
    pub(crate) fn hears_of_refused(&mut self, hash: ChangeHash) -> bool {
        self.refused.len() < REFUSED_MAX && self.refused.insert(short(&hash))
    }

    /// It names changes with these indexes, of `len`. If one is newer than all that there was when
    /// its resends were last counted from 0, then what it is sent does arrive.
    pub(crate) fn names(&mut self, known: &[u32], len: u32) {
        if known.iter().any(|index| *index >= self.resends_from) {
            (self.resends, self.resends_from) = (0, len);
            self.claims = 0;
        }
    }

    /// Whether one more resend will be allowed when it has named these.
    pub(crate) fn has_resends(&self, known: &[u32]) -> bool {
        self.resends < RESENDS_MAX || known.iter().any(|index| *index >= self.resends_from)
    }

    /// Whether what it is sent now may claim by a filter what is here; counts it. A filter covers all
    /// that the peer does not certainly have, perhaps the whole history, so there is one for each time
    /// that it speaks, and only so many of those: then it is asked for what it names.
    pub(crate) fn may_claim(&mut self) -> bool {
        let may = self.spoke && self.claims < RESENDS_MAX;
        self.claims += u8::from(may);
        self.spoke = false;
        may
    }

    /// Whether one more resend is allowed; counts it.
    pub(crate) fn may_resend(&mut self) -> bool {
        let may = self.resends < RESENDS_MAX;
        self.resends = self.resends.saturating_add(1);
        may
    }
}

#[cfg(feature = "native")]
impl Peer {
    /// Bytes of memory, its own included.
    pub(super) fn heap_bytes(&self) -> usize {
        let certainty = match &self.certainty {
            Certainty::Filtered(last_sync) => heap_size::list(last_sync),
            Certainty::Unheard | Certainty::Exact => 0,
        };
        // Lists of heads are mostly shared by all who were told the same.
        let shared = |list: &Arc<[ChangeHash]>| size_of_val(&**list) / Arc::strong_count(list);
        size_of::<Self>()
            + certainty
            + shared(&self.heads)
            + self.reset_answered.as_ref().map_or(0, shared)
            + heap_size::list(&self.need)
            + self.lacks.heap_bytes()
            + self.extra.heap_bytes()
            + heap_size::table(self.asked.capacity(), size_of::<u64>())
            + heap_size::table(self.refused.capacity(), size_of::<u64>())
            + heap_size::table(self.resent.capacity(), size_of::<u32>())
            + self.told.as_ref().map_or(0, shared)
    }
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "a set of indexes is a list of ranges"
)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_follows_from_what_it_has() {
        let mut peer = Peer {
            upto: 4,
            lacks: vec![1..2].into(),
            ..Peer::default()
        };
        peer.has_also(&[6]);
        peer.has_also(&[4]);
        assert_eq!(peer.missing(9), [1..2, 5..6, 7..9]);
        assert_eq!(peer.missing(6), [1..2, 5..6]);
        assert_eq!(peer.missing(4), [1..2]);
        peer.lost(vec![3, 6, 3]);
        assert_eq!(peer.missing(9), [1..2, 3..4, 5..9]);
        peer.sent(9, vec![]);
        assert_eq!(peer.missing(9), []);
        // What it asked for before, or lacked, it cannot have lost again.
        peer.lost(vec![3, 6]);
        assert_eq!(peer.missing(9), []);
        peer.lost(vec![1]);
        assert_eq!(peer.missing(9), [1..2]);
    }

    #[test]
    fn a_peer_at_rest_is_the_same_afterwards() {
        let hashes = [ChangeHash([1; 32]), ChangeHash([2; 32])];
        let peer = |heads: &[ChangeHash]| Peer {
            access: Some(Access::Write),
            certainty: Certainty::Exact,
            told: Some(Arc::from(hashes)),
            heads: heads.into(),
            upto: 7,
            resends: 3,
            resends_from: 7,
            takes_documents: true,
            waits_for_all: true,
            told_unavailable: true,
            ..Peer::default()
        };
        for heads in [&hashes[..], &[]] {
            let again = AtRest::of(&peer(heads)).map(AtRest::into_peer);
            assert_eq!(format!("{again:?}"), format!("{:?}", Some(peer(heads))));
        }
        assert!(AtRest::of(&peer(&hashes[..1])).is_none(), "it is behind");
        let lacks = Peer {
            lacks: vec![1..2].into(),
            ..peer(&hashes)
        };
        assert!(AtRest::of(&lacks).is_none());
        assert!(AtRest::of(&Peer::default()).is_none(), "it said nothing");
    }

    #[test]
    fn what_is_above_a_forgotten_change_moves_down() {
        let mut peer = Peer {
            upto: 8,
            lacks: vec![1..3, 4..5, 6..8].into(),
            extra: vec![9..10, 11..12].into(),
            resent: HashSet::from([4, 5]),
            ..Peer::default()
        };
        peer.forget(&[2, 4, 9]);
        assert_eq!(peer.upto, 6);
        assert_eq!(peer.lacks.ranges(), [1..2, 4..6]);
        assert_eq!(peer.extra.ranges(), [8..9]);
        assert_eq!(peer.resent, HashSet::from([3]));
    }
}
