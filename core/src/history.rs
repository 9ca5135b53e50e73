//! One document without its contents: the graph of its changes, and what each peer knows of it.
//!
//! A [`History`] decides which changes may enter ([`History::receive`]), hands out what must be
//! stored ([`History::take_unsaved`]), and answers what each peer should be sent now
//! ([`History::poll_send`]). It names the chunks to send and does not hold their bytes. It never
//! builds a document.
//!
//! The order that its owner keeps is the *turn*: receive what came, store what is unsaved, report
//! [`History::committed`], and only then poll. Between the first and the third step nothing can be
//! polled, so a peer never hears of a change that is not stored.
//!
//! Absent: clocks, sockets, files, the bytes of stored changes, and any notion of what a document
//! means.

mod admission;
mod change;
pub mod chunk;
mod clocks;
pub mod document_chunk;
mod graph;
mod heads;
mod held;
mod indexes;
mod learn;
pub mod limits;
mod objects;
mod orphans;
mod outline;
mod peer;
mod receive;
mod refusal;
mod steps;
mod stored;

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use automerge::ChangeHash;
use automerge::sync::BloomFilter;
use bytes::Bytes;

pub use change::ChangeError;
pub(crate) use change::acts_in;
pub use graph::NeedGraph;
pub use limits::{
    ACTOR_BYTES_MAX, CHANGE_ACTORS_MAX, CHANGE_BYTES_MAX, CHANGE_DEPS_MAX, CHANGE_OPS_MAX,
    DOCUMENT_ACTORS_MAX, DOCUMENT_OBJECTS_MAX, DOCUMENT_OPS_MAX, LIGHT_STEPS_MAX, ORPHAN_BYTES_MAX,
    ORPHANS_MAX, REFUSED_MAX, SLICE_STEPS_MAX,
};
pub use objects::{ObjectKind, Objects};
pub use receive::{Progress, Work};
pub use refusal::Refusal;
pub(crate) use refusal::UNSOUND;
pub use stored::{Quarantined, Record, Row, StoredChange, decode_heads, encode_heads};

use change::Header;
use chunk::Chunk;
use clocks::Clocks;
use graph::{Graph, Node, unset_ranges};
use heads::{BaseHeads, Head, Heads};
use orphans::Orphans;
use outline::{ActorClock, Outline};
pub use peer::AtRest;
use refusal::RefusedSet;
use steps::Steps;

use peer::{Certainty, Peer, split_at_bytes};

use crate::id::{Access, ConnectionId, Space};
use crate::protocol::{Flags, SYNC_BYTES_MAX, Version, encode_sync};

/// A client that declares at least this many changes is invited to send them as a document chunk,
/// which is up to 90 times smaller, and costs a run of the workshop.
pub const INVITE_DOCUMENT_CHANGES_MIN: u32 = 8;

/// Bytes of the newest changes that stay in memory while a document is open, so that live edits are
/// passed on without reading them back.
pub const RECENT_BYTES_MAX: usize = 256 * 1024;

/// Most bytes of a message to a peer that has nothing of the document, so that a client which shows
/// what it has shows all. `samod` reads no message above 64 MiB.
pub const WHOLE_BYTES_MAX: u64 = 60 * 1024 * 1024;

/// Most operations after the snapshot that a peer which has nothing is sent as changes while they are
/// about to be folded: Automerge 2.2 takes 1 KB for each.
pub const WHOLE_OPS_MAX: u64 = 512 * 1024;

/// A change with at least this many operations counts by them, too, when folding is weighed.
const HEAVY_OPS: u64 = 1024;

/// Operations after the snapshot below which they are no reason to compact a document.
pub const FOLD_OPS_MIN: u64 = 128 * 1024;

/// Bytes of folded changes that are unpacked at a time for peers that take no document chunks; one
/// change may exceed it.
pub const UNFOLDED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of changes after the snapshot below which a document is never compacted.
pub const FOLD_BYTES_MIN: u64 = 64 * 1024;

/// The same when the document is built anyway, to be checked.
pub const CHECKED_FOLD_BYTES_MIN: u64 = 1024;

/// Bytes of changes after the snapshot for which a long history waits at most, unless its snapshot
/// is larger.
pub const FOLD_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of the newest folded changes that keep their own rows, so that a peer that was away for a
/// short time gets just what it missed. Lots of up to as many bytes are kept or let go, so there
/// may be twice as many.
pub const RETAINED_BYTES: u64 = 1024 * 1024;

/// One document without its contents. See the module's page.
#[derive(Debug)]
pub struct History {
    record: Record,
    graph: Graph,
    outline: Outline,
    /// The heads of the changes below the graph's base, and per actor their last operation.
    base_heads: BaseHeads,
    base_clock: Arc<[ActorClock]>,
    clocks: Clocks,
    heads: Heads,
    /// How many changes are stored, and the heads of those, in order.
    durable_len: u32,
    durable_heads: Arc<[ChangeHash]>,
    unsaved: Vec<StoredChange>,
    /// Bytes of the changes after the snapshot.
    tail_bytes: u64,
    /// Those of them with many operations: index, and how many.
    tail_heavy: Vec<(u32, u64)>,
    /// Operations of the changes in the snapshot.
    folded_ops: u64,
    recent: Recent,
    orphans: Orphans,
    refused: RefusedSet,
    message_bytes_max: u64,
    /// The same for a message to somebody who has nothing yet.
    whole_bytes_max: u64,
    /// What was found in a message whose taking in was interrupted, and is received again.
    interrupted: Received,
    steps: Steps,
    /// Boxed, because most documents have one peer and a map has room for four.
    peers: HashMap<ConnectionId, Box<Peer>>,
    weights: held::Weights,
}

/// What [`History::receive`] has to say about a message.
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
    /// [`Documents::Unpacked`].
    pub unpack: bool,
    /// Whether more remains to be done: receive the message again with the same [`Progress`], where
    /// that holds up nobody.
    pub more: bool,
}

impl Received {
    /// Of so many chunks in which no hash could be read it is said why.
    const UNREAD_MAX: usize = 64;

    #[inline(never)]
    fn refuse_unread(&mut self, refusal: Refusal) {
        match self.refused.len() < Self::UNREAD_MAX {
            true => self.refused.push((None, refusal)),
            false => self.refused_more += 1,
        }
    }
}

/// What to do about document chunks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Documents {
    /// Report them by [`Received::unpack`].
    Report,
    /// Skip them, they were unpacked already.
    Unpacked,
}

/// What one peer should be sent now.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The heads to name.
    pub heads: Arc<[ChangeHash]>,
    /// The changes to ask for.
    pub need: Vec<ChangeHash>,
    /// What to claim to have.
    pub have: Claim,
    /// Whether the snapshot goes first.
    pub snapshot: bool,
    /// Then these changes, in order.
    pub changes: Vec<Range<u32>>,
    /// The flags, if any.
    pub flags: Option<Flags>,
}

/// What a sync message claims to have.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// Nothing is said: more follows.
    Nothing,
    /// Everything up to the heads that the message names.
    Heads,
    /// Everything up to some heads, and what a filter over these hashes contains.
    Filter {
        /// The heads that the peer certainly has.
        last_sync: Vec<ChangeHash>,
        /// Hashes of the changes after those.
        hashes: Vec<ChangeHash>,
    },
}

impl Outgoing {
    /// The sync message up to its chunks, of which `chunks` follow, each behind its length, and
    /// then the [`Self::flags`].
    #[must_use]
    pub fn encode_head(&self, chunks: usize) -> Vec<u8> {
        let bloom;
        let have: Option<(&[ChangeHash], _)> = match &self.have {
            Claim::Nothing => None,
            Claim::Heads => {
                bloom = BloomFilter::default();
                Some((&self.heads, &bloom))
            }
            Claim::Filter { last_sync, hashes } => {
                bloom = BloomFilter::from_hashes(hashes.iter());
                Some((last_sync, &bloom))
            }
        };
        let version = match self.snapshot {
            true => Version::V2,
            false => Version::V1,
        };
        encode_sync(version, &self.heads, &self.need, have, chunks)
    }
}

/// What folding the history into a new snapshot needs and writes. See [`History::begin_fold`].
#[derive(Debug, Clone)]
pub struct Fold {
    /// The record as it is after folding, but for the snapshot's size.
    pub record: Record,
    /// The graph of the changes that are newly folded.
    pub segment: Bytes,
    /// The outline of all folded changes.
    pub outline: Bytes,
    /// The first change that is not in the old snapshot.
    pub from: u32,
}

/// What unpacking a document chunk gives, when it covers everything that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// How many changes the document has now.
    pub len: u32,
    /// The graph of the changes that were not folded before.
    pub segment: Bytes,
    /// The outline of all of them.
    pub outline: Bytes,
    /// The heads: index, hash, counter of the last operation.
    pub heads: Vec<(u32, ChangeHash, u32)>,
}

/// What changes when some are taken out. See [`History::without`].
#[derive(Debug)]
pub struct Without {
    /// The first index of the stored rows that are to be replaced.
    pub rows_from: u32,
    /// What replaces them, each with the index of its last change.
    pub rows: Vec<(u32, Row)>,
    /// What was taken out, in order.
    pub taken_out: Vec<TakenOut>,
}

/// A change that was taken out.
#[derive(Debug)]
pub struct TakenOut {
    /// The index that it had.
    pub index: u32,
    /// Why.
    pub refusal: Refusal,
    /// The change.
    pub change: StoredChange,
}

impl History {
    /// A document that nobody has written yet.
    #[must_use]
    pub fn new(space: Space) -> Self {
        Self::from_parts(Record::new(space), Outline::default())
    }

    fn from_parts(record: Record, outline: Outline) -> Self {
        let head = |(index, hash, max_op): &_| Head {
            index: *index,
            hash: *hash,
            max_op: *max_op,
        };
        let heads: Vec<Head> = record.heads.iter().map(head).collect();
        let base_clock = outline.actors().iter().map(outline::Actor::clock).collect();
        let mut history = Self {
            graph: Graph::at(record.folded),
            durable_len: record.folded,
            record,
            heads: Heads::new(&heads),
            base_heads: BaseHeads::new(heads),
            base_clock,
            clocks: Clocks::default(),
            durable_heads: Arc::from([]),
            unsaved: Vec::new(),
            tail_bytes: 0,
            tail_heavy: Vec::new(),
            folded_ops: outline.ops_len(),
            outline,
            recent: Recent::default(),
            orphans: Orphans::default(),
            refused: RefusedSet::default(),
            message_bytes_max: SYNC_BYTES_MAX as u64,
            whole_bytes_max: WHOLE_BYTES_MAX,
            interrupted: Received::default(),
            steps: Steps::default(),
            peers: HashMap::new(),
            weights: held::Weights::default(),
        };
        history.durable_heads = history.sorted_heads();
        history
    }

    /// A document as it lies in storage: its record, its outline (if it has a snapshot), and the
    /// rows from the record's `folded` on, in order. `None` if they do not fit together.
    #[must_use]
    pub fn open(record: Record, outline: Option<&[u8]>, rows: &[Row]) -> Option<Self> {
        let outline = match outline {
            Some(bytes) => Outline::decode(bytes)?,
            None if record.folded == 0 => Outline::default(),
            None => return None,
        };
        let indexes_max = graph::CHANGES_MAX as u64;
        let added: usize = rows.iter().map(|row| row.changes.len()).sum();
        let fits = u64::from(record.folded) + (added as u64) < indexes_max
            && record.rows_from <= record.folded
            && record.heads.is_empty() == (record.folded == 0)
            && record.heads.iter().all(|head| head.0 < record.folded)
            && record.retained.iter().all(|lot| lot.0 <= record.folded)
            && record.verified >= record.folded
            && u64::from(record.verified) <= u64::from(record.folded) + added as u64;
        if !fits {
            return None;
        }
        let mut history = Self::from_parts(record, outline);
        for stored in rows.iter().flat_map(|row| &row.changes) {
            let (chunk, _) = Chunk::split(&stored.bytes).ok()?;
            let change = Header::of_stored(&chunk, stored)?;
            let actor = history.outline.actor(&change.actor);
            let last = actor.map_or(0, |at| history.outline.actors()[at as usize].max_op());
            let fits = stored.parents.iter().all(|parent| *parent < history.len())
                && change.start_op > u64::from(last)
                && stored
                    .objects
                    .are_within(change.start_op..=u64::from(stored.max_op));
            if !fits {
                return None;
            }
            history.enter(&change, stored.clone());
        }
        drop(history.take_unsaved());
        history.recent.let_go_of_rows();
        history.committed();
        Some(history)
    }

    /// Makes the folded part of the graph resident, from all segments in order. `None` if they do
    /// not fit.
    #[must_use]
    pub fn load_graph(&mut self, segments: &[impl AsRef<[u8]>]) -> Option<()> {
        let actors = self.outline.actors().len() as u32;
        self.graph
            .load(segments, actors, self.base_heads.as_slice())
    }

    /// The document's record, as it is stored or must be when the document is.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// How many changes there are, stored or not.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.graph.len()
    }

    /// About how many bytes the changes after the snapshot have.
    #[must_use]
    pub fn tail_bytes(&self) -> u64 {
        self.tail_bytes
    }

    /// How many steps of work were taken so far: what messages cost, without a clock. They are counted
    /// with the feature `native` only.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.taken()
    }

    /// Whether nobody has written anything yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts at most so many bytes of changes into one message, instead of [`SYNC_BYTES_MAX`] or
    /// [`WHOLE_BYTES_MAX`].
    pub fn set_message_bytes_max(&mut self, max: u64) {
        self.message_bytes_max = max;
        self.whole_bytes_max = max;
    }

    /// Whether a peer that has nothing of the document is served better when the changes after the
    /// snapshot are folded: they have too many bytes to go at once, or too many operations.
    #[must_use]
    pub fn is_better_folded(&self, to: ConnectionId) -> bool {
        let whole = self.peers.get(&to).is_some_and(|peer| peer.shows_parts());
        let is_much = || self.bytes_to_send(to) > self.whole_bytes_max;
        whole && (is_much() || self.tail_ops() > WHOLE_OPS_MAX)
    }

    /// The heads of what is stored, in order.
    #[must_use]
    pub fn durable_heads(&self) -> &Arc<[ChangeHash]> {
        &self.durable_heads
    }

    /// The hashes of all changes by index.
    ///
    /// # Errors
    /// [`NeedGraph`].
    pub fn hashes(&self) -> Result<Vec<ChangeHash>, NeedGraph> {
        (0..self.len())
            .map(|index| self.graph.hash(index))
            .collect()
    }

    /// The hashes of the changes with these indexes.
    ///
    /// # Errors
    /// [`NeedGraph`].
    pub fn hashes_of(&self, range: Range<u32>) -> Result<Vec<ChangeHash>, NeedGraph> {
        range.map(|index| self.graph.hash(index)).collect()
    }

    /// The bytes of a change, if they are still in memory.
    #[must_use]
    pub fn recent(&self, index: u32) -> Option<&Bytes> {
        self.recent.get(index)
    }

    fn sorted_heads(&self) -> Arc<[ChangeHash]> {
        let mut hashes: Vec<_> = self.heads.iter().map(|head| head.hash).collect();
        hashes.sort_unstable();
        hashes.into()
    }

    /// Whether all of `changes` lie in the past of `heads`, or are among them. Looks at the changes
    /// since the first of them only: a change has a greater index than its parents.
    pub(crate) fn includes(
        &self,
        heads: &[ChangeHash],
        changes: &[ChangeHash],
    ) -> Result<bool, NeedGraph> {
        let mut wanted = HashSet::new();
        for change in changes {
            let Some(index) = self.known(change)? else {
                return Ok(false);
            };
            wanted.insert(index);
        }
        let Some(first) = wanted.iter().copied().min() else {
            return Ok(true);
        };
        let mut ahead = BinaryHeap::new();
        for head in heads {
            ahead.extend(self.known(head)?);
        }
        while let Some(index) = ahead.pop()
            && index >= first
        {
            // It is there once for each change that was made on top of it.
            while ahead.peek() == Some(&index) {
                ahead.pop();
            }
            wanted.remove(&index);
            ahead.extend(self.graph.parents(index)?);
        }
        Ok(wanted.is_empty())
    }

    /// The index of a change; heads are known even if they are folded.
    pub(crate) fn known(&self, hash: &ChangeHash) -> Result<Option<u32>, NeedGraph> {
        if let Some(index) = self.graph.resident(hash) {
            return Ok(Some(index));
        }
        match self.base_heads.with_hash(hash) {
            Some(head) => Ok(Some(head.index)),
            None => self.graph.find(hash),
        }
    }

    fn is_head(&self, hash: &ChangeHash) -> bool {
        let folded = || self.base_heads.with_hash(hash).map(|head| head.index);
        let index = self.graph.resident(hash).or_else(folded);
        index.is_some_and(|index| self.heads.contains(index))
    }

    fn max_op(&self, index: u32) -> Result<u32, NeedGraph> {
        let folded = self.base_heads.with_index(index);
        folded.map_or_else(|| self.graph.max_op(index), |head| Ok(head.max_op))
    }

    /// Puts a change into graph, outline and heads. Its parents are known.
    fn enter(&mut self, change: &Header<'_>, stored: StoredChange) -> u32 {
        let start_op = u32::try_from(change.start_op).expect("checked when it was read");
        let actor = self
            .outline
            .add(&change.actor, start_op, stored.max_op, &stored.objects);
        let size = u32::try_from(stored.bytes.len()).expect("limited by CHANGE_BYTES_MAX");
        let node = Node {
            hash: stored.hash,
            parents: stored.parents.clone(),
            actor,
            max_op: stored.max_op,
            size,
        };
        let index = self.graph.push(&node);
        let head = Head {
            index,
            hash: node.hash,
            max_op: node.max_op,
        };
        self.heads.enter(head, &node.parents);
        self.tail_bytes += u64::from(size);
        if change.ops_len >= HEAVY_OPS {
            self.tail_heavy.push((index, change.ops_len));
        }
        self.recent.push(index, stored.bytes.clone());
        self.weights.unsaved(&stored);
        self.unsaved.push(stored);
        index
    }
}

/// The turn: what comes in, what is stored, what goes out.
impl History {
    /// Begins to serve a peer, which has not spoken of this document yet.
    pub fn join(&mut self, peer: ConnectionId, access: Access) {
        self.peers.entry(peer).or_default().access = Some(access);
        self.weigh(peer);
    }

    /// A peer that joined shows nothing of a document before it has all that was named. So it is sent
    /// a large one in parts, and keeps those that came when its connection is cut.
    pub fn waits_for_all(&mut self, peer: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.waits_for_all = true;
        }
    }

    /// Forgets a peer, and the changes of it alone that wait for others: they were not acknowledged.
    /// (In a browser those stay.)
    pub fn leave(&mut self, peer: ConnectionId) {
        if let Some(left) = self.peers.remove(&peer) {
            self.weights.left(&left);
        }
        self.orphans.leave(peer);
    }

    /// The peers that joined.
    pub fn peers(&self) -> impl Iterator<Item = ConnectionId> {
        self.peers.keys().copied()
    }

    /// The heads that a peer last named.
    #[must_use]
    pub fn peer_heads(&self, peer: ConnectionId) -> &[ChangeHash] {
        self.peers.get(&peer).map_or(&[], |peer| &peer.heads)
    }

    /// Takes the peers out, to be put into the history that replaces this one. What they are
    /// believed to have stays; whose changes waited here for others is asked for them again.
    #[must_use]
    pub fn into_peers(self) -> Peers {
        let orphaned = self.orphans.senders();
        self.peers_asked_again(|id| orphaned.contains(&id))
    }

    /// The same after a commit failed. Nobody is asked for what was not kept before the next history
    /// is told to [ask again](Self::ask_again): to store it would fail as well.
    #[must_use]
    pub fn into_peers_after_failure(self) -> Peers {
        self.peers_asked_again(|_| false)
    }

    /// Asks everybody who writes for what was not kept of what they sent.
    pub fn ask_again(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.ask_again());
    }

    /// Whether a peer's changes are taken in.
    #[must_use]
    pub fn takes_from(&self, peer: ConnectionId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.writes())
    }

    /// Asks a peer for nothing that it named: it could not be stored.
    pub fn ask_nothing(&mut self, peer: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.need.clear();
        }
    }

    /// Whether there are changes that are lost with this history: they are not stored, or wait for
    /// others.
    #[must_use]
    pub fn has_more_than_is_stored(&self) -> bool {
        !self.unsaved.is_empty() || !self.orphans.is_empty()
    }

    fn peers_asked_again(self, asked_again: impl Fn(ConnectionId) -> bool) -> Peers {
        let durable_len = self.durable_len;
        let mut peers = self.peers;
        for (id, peer) in &mut peers {
            peer.extra.keep_below(durable_len);
            peer.resent.retain(|index| *index < durable_len);
            if asked_again(*id) {
                peer.ask_again();
            }
        }
        Peers(peers)
    }

    /// Names the space of a document that was not stored yet.
    pub fn set_space(&mut self, space: Space) {
        self.record.space = space;
    }

    /// Puts in the peers of the history that this one replaces.
    pub fn set_peers(&mut self, peers: Peers) {
        let mut peers = peers.0;
        for peer in peers.values_mut() {
            peer.upto = peer.upto.min(self.graph.len());
            peer.lacks.keep_below(peer.upto);
            if peer.certainty == Certainty::Exact {
                // What it named and was not known may be stored by now.
                let heads = peer.heads.iter();
                let known: Vec<_> = heads.filter_map(|hash| self.graph.resident(hash)).collect();
                let above = self.above(&known, peer);
                peer.has_also(&above);
            }
        }
        self.peers = peers;
        self.weigh_all();
    }

    /// The changes that entered and are not stored yet, as one row, behind the index of its last
    /// change. Store it, then report [`Self::committed`].
    #[must_use]
    pub fn take_unsaved(&mut self) -> Option<(u32, Row)> {
        if self.unsaved.is_empty() {
            return None;
        }
        let changes = std::mem::take(&mut self.unsaved);
        self.weights.saved();
        Some((self.len() - 1, Row { changes }))
    }

    /// Everything that was taken is on disk.
    pub fn committed(&mut self) {
        if self.unsaved.is_empty() && self.durable_len != self.len() {
            self.durable_len = self.len();
            self.durable_heads = self.sorted_heads();
            self.steps
                .count(self.durable_heads.len() as u64 * steps::ROW);
        }
    }

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

    /// About how many bytes of changes a peer lacks.
    #[must_use]
    pub fn bytes_to_send(&self, peer: ConnectionId) -> u64 {
        let Some(peer) = self.peers.get(&peer) else {
            return 0;
        };
        let missing = peer.missing(self.durable_len);
        let first = missing.first().map_or(u32::MAX, |range| range.start);
        if first < self.record.rows_from && peer.takes_documents {
            return self.record.snapshot_bytes + self.tail_bytes;
        }
        if first < self.graph.base() {
            return self.retained_bytes() + self.tail_bytes;
        }
        let is_all = matches!(missing.as_slice(), [all] if *all == (0..self.len()));
        if is_all && self.record.folded == 0 {
            // Who has nothing is often looked at while it waits for its turn.
            return self.tail_bytes;
        }
        let looked_at: usize = missing.iter().map(ExactSizeIterator::len).sum();
        self.steps.count(looked_at as u64 * steps::ROW);
        let size = |index| self.graph.size(index).map_or(0, u64::from);
        missing.into_iter().flatten().map(size).sum()
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

    /// What of `missing` goes into the next message, and what is left for later.
    fn select(
        &self,
        missing: Vec<Range<u32>>,
        bytes_max: u64,
    ) -> (bool, Vec<Range<u32>>, Vec<Range<u32>>) {
        let reaches_below = missing.first().is_some_and(|first| {
            // Who has nothing is served best by the snapshot, even if all rows are kept.
            let all = first.start == 0 && first.end >= self.record.folded;
            first.start < self.record.rows_from || (all && self.record.folded > 0)
        });
        if !reaches_below {
            return self.select_rows(missing, bytes_max);
        }
        let folded = self.record.folded;
        let after: Vec<_> = missing
            .iter()
            .map(|range| range.start.max(folded)..range.end)
            .filter(|range| !range.is_empty())
            .collect();
        let budget = bytes_max.saturating_sub(self.record.snapshot_bytes);
        if budget == 0 {
            return (true, Vec::new(), after);
        }
        let (first, rest) = self.split(after, budget);
        (true, first, rest)
    }

    /// The same when all of it goes as changes.
    fn select_rows(
        &self,
        missing: Vec<Range<u32>>,
        bytes_max: u64,
    ) -> (bool, Vec<Range<u32>>, Vec<Range<u32>>) {
        // Of folded changes that are not resident, only the sum of the sizes is known.
        let hidden = missing.first().is_some_and(|m| m.start < self.graph.base());
        let hidden = if hidden { self.retained_bytes() } else { 0 };
        let budget = bytes_max.saturating_sub(hidden);
        let (first, rest) = self.split(missing, budget);
        (false, first, rest)
    }

    /// See [`split_at_bytes`].
    fn split(&self, missing: Vec<Range<u32>>, budget: u64) -> (Vec<Range<u32>>, Vec<Range<u32>>) {
        let ranges = missing.len();
        let size = |index| self.graph.size(index).unwrap_or(0);
        let (first, rest) = split_at_bytes(missing, budget, size);
        let looked_at: usize = first.iter().map(ExactSizeIterator::len).sum();
        self.steps.count((ranges + looked_at) as u64 * steps::ROW);
        (first, rest)
    }

    /// The same for a peer that takes no snapshot, when all that it lacks below `unfolded_to`, and
    /// what has rows, can be sent as changes.
    fn select_unfolded(
        &self,
        missing: Vec<Range<u32>>,
        unfolded_to: u32,
        bytes_max: u64,
    ) -> (bool, Vec<Range<u32>>, Vec<Range<u32>>) {
        let rows_from = self.record.rows_from;
        let end = if unfolded_to < rows_from {
            unfolded_to
        } else {
            u32::MAX
        };
        let waits = missing.first().is_some_and(|first| first.start < rows_from);
        let (mut now, mut later) = (missing, Vec::new());
        if waits && end < u32::MAX {
            later = now
                .iter()
                .map(|range| range.start.max(end)..range.end)
                .filter(|range| !range.is_empty())
                .collect();
            now.retain_mut(|range| {
                range.end = range.end.min(end);
                range.start < range.end
            });
        }
        let (_, first, mut rest) = self.select_rows(now, bytes_max);
        match (rest.last_mut(), later.first()) {
            (Some(last), Some(next)) if last.end == next.start => {
                last.end = next.end;
                rest.extend_from_slice(&later[1..]);
            }
            _ => rest.append(&mut later),
        }
        (false, first, rest)
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

    /// What a peer uploaded was refused: nothing more is expected of what it announced.
    pub fn upload_refused(&mut self, from: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.heads = Arc::default();
        }
    }

    /// Whether a peer announced changes of a document that nobody else has: an upload is coming.
    #[must_use]
    pub fn upload_expected(&self) -> bool {
        self.is_empty()
            && self
                .peers
                .values()
                .any(|p| p.writes() && !p.heads.is_empty())
    }
}

/// What a client's side asks besides: it speaks first, and reads what the other side acknowledged.
impl History {
    /// The first message to a peer that joined and waits for us to speak, as if it were sent.
    /// `acknowledged` are heads that the peer is known to have stored; those that are known here
    /// make a filter unnecessary. Otherwise a filter covers everything.
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and call again.
    pub fn greet(
        &mut self,
        to: ConnectionId,
        acknowledged: &[ChangeHash],
    ) -> Result<Outgoing, NeedGraph> {
        let mut last_sync = Vec::with_capacity(acknowledged.len());
        for hash in acknowledged {
            if self.known(hash)?.is_some() {
                last_sync.push(*hash);
            }
        }
        last_sync.sort_unstable();
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::LastSyncBeyond) {
            last_sync = self.durable_heads.to_vec();
        }
        let hashes = if last_sync.is_empty() {
            let durable = 0..self.durable_len;
            durable
                .map(|index| self.graph.hash(index))
                .collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        let heads = self.durable_heads.clone();
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.told = Some(heads.clone());
            // Servers of this protocol are younger than document chunks, and ours invite some only
            // when it pays. Nor do they show anything.
            peer.takes_documents = true;
            peer.waits_for_all = true;
        }
        Ok(Outgoing {
            heads,
            need: Vec::new(),
            have: Claim::Filter { last_sync, hashes },
            snapshot: false,
            changes: Vec::new(),
            flags: Some(Flags {
                sync_reset: false,
                read_only: false,
                supports_sync_reset: true,
            }),
        })
    }

    /// The heads that a peer last named, and whether all of them are known here. `None` before it
    /// named any.
    #[must_use]
    pub fn acknowledged(&self, by: ConnectionId) -> Option<(&[ChangeHash], bool)> {
        let peer = self.peers.get(&by)?;
        let spoke = peer.certainty != Certainty::Unheard;
        let known = |head| matches!(self.known(head), Ok(Some(_)));
        spoke.then(|| (&*peer.heads, peer.heads.iter().all(known)))
    }

    /// Whether a peer said that it takes no changes from us.
    #[must_use]
    pub fn is_refused_by(&self, peer: ConnectionId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer| peer.publishes_only)
    }

    /// The heads of all that entered, stored or not, in order.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        if self.durable_len == self.len() {
            return self.durable_heads.to_vec();
        }
        self.sorted_heads().to_vec()
    }

    /// The changes that entered since the last [`Self::take_unsaved`].
    #[must_use]
    pub fn unsaved(&self) -> &[StoredChange] {
        &self.unsaved
    }
}

/// The rarer events: compaction and unpacked documents.
impl History {
    /// Whether the changes after the snapshot outweigh it, so that folding them pays: all foldings
    /// of a growing document together then cost a small multiple of the last one. A long history
    /// in a small snapshot waits for more changes too, up to [`FOLD_BYTES_MAX`], because folding
    /// builds all of it. Operations count as well as bytes: a few bytes may be thousands of them,
    /// which cost a client that gets them as changes much more memory than in a snapshot.
    #[must_use]
    pub fn should_fold(&self) -> bool {
        let snapshot = self.record.snapshot_bytes.max(FOLD_BYTES_MIN);
        let history = (u64::from(self.record.folded) * 16).min(FOLD_BYTES_MAX);
        let outweighs = self.tail_bytes >= snapshot.max(history)
            || self.tail_ops() >= self.folded_ops.max(FOLD_OPS_MIN);
        self.durable_len == self.len() && outweighs
    }

    /// Whether folding pays when the document is built anyway, to be checked: then also changes are
    /// folded that have an eighth of the snapshot's weight, and those of a small document when they
    /// outweigh its snapshot. As a snapshot, it is sent in a fraction of the bytes.
    #[must_use]
    pub fn may_fold(&self) -> bool {
        let snapshot = self.record.snapshot_bytes;
        let outweighs = self.tail_bytes >= (snapshot / 8).max(FOLD_BYTES_MIN)
            || self.tail_bytes >= snapshot.max(CHECKED_FOLD_BYTES_MIN)
            || self.tail_ops() >= (self.folded_ops / 8).max(FOLD_OPS_MIN);
        self.durable_len == self.len() && outweighs
    }

    /// The operations of the changes after the snapshot that have many.
    fn tail_ops(&self) -> u64 {
        self.tail_heavy.iter().map(|(_, ops)| ops).sum()
    }

    /// How many operations there are, at least: their counters only grow, and those of changes that
    /// were made at the same time overlap.
    #[cfg(feature = "native")]
    #[must_use]
    pub fn operations_at_least(&self) -> u64 {
        let counted = self.heads.iter().map(|head| u64::from(head.max_op));
        counted.max().unwrap_or_default().max(self.tail_ops())
    }

    /// What must be stored together with a new snapshot of everything that is stored now. Build
    /// the snapshot, store all of it in one commit, then call [`Self::folded`]; what arrives
    /// meanwhile stays after the snapshot.
    ///
    /// # Panics
    /// If anything is not stored yet.
    #[must_use]
    pub fn begin_fold(&self) -> Fold {
        assert_eq!(self.durable_len, self.len(), "fold only what is stored");
        let from = self.record.folded;
        let segment = self.graph.segment(from..self.len());
        let mut record = self.record.clone();
        record.folded = self.len();
        record.verified = self.len();
        record.heads = self
            .heads
            .iter()
            .map(|h| (h.index, h.hash, h.max_op))
            .collect();
        record.generation += 1;
        record.segments += 1;
        record.retained = self.retained();
        record.rows_from = record.retained[0].0;
        Fold {
            record,
            segment: segment.expect("what is not folded is resident").into(),
            outline: self.outline.encode().into(),
            from,
        }
    }

    /// What a relay needs to adopt this document, whose snapshot it has and of which it has folded
    /// the changes below `segment_from`. `None` unless all changes from there on are resident.
    #[must_use]
    pub fn unpacked(&self, segment_from: u32) -> Option<Unpacked> {
        Some(Unpacked {
            len: self.len(),
            segment: self.graph.segment(segment_from..self.len()).ok()?.into(),
            outline: self.outline.encode().into(),
            heads: self
                .heads
                .iter()
                .map(|h| (h.index, h.hash, h.max_op))
                .collect(),
        })
    }

    /// The newest changes that keep their rows when all are folded, in lots: those of this folding,
    /// and of earlier ones, whose sizes are not resident any more, as many lots as are needed.
    fn retained(&self) -> Vec<(u32, u64)> {
        let record = &self.record;
        let (mut from, mut bytes) = (self.len(), 0);
        while from > record.folded {
            let size = self.graph.size(from - 1);
            let size = u64::from(size.expect("what is not folded is resident"));
            if bytes + size > RETAINED_BYTES {
                break;
            }
            bytes += size;
            from -= 1;
        }
        let mut retained = vec![(from, bytes)];
        if from == record.folded {
            let earlier = record.retained.iter().rev();
            for lot in earlier.take_while(|lot| lot.0 >= record.rows_from) {
                if bytes >= RETAINED_BYTES {
                    break;
                }
                bytes += lot.1;
                retained.push(*lot);
            }
        }
        retained.reverse();
        retained
    }

    /// The bytes of the folded changes that have rows.
    fn retained_bytes(&self) -> u64 {
        let record = &self.record;
        let lots = record.retained.iter();
        let kept = lots.filter(|(from, _)| *from >= record.rows_from);
        kept.map(|(_, bytes)| bytes).sum()
    }

    /// How many of the changes were checked by building the document: those with lower indexes.
    #[must_use]
    pub fn verified(&self) -> u32 {
        self.record.verified
    }

    /// The changes below `upto` were checked, and make a document.
    pub fn set_verified(&mut self, upto: u32) {
        self.record.verified = self.record.verified.max(upto);
    }

    /// Never takes these changes, which were quarantined before.
    pub fn quarantine(&mut self, lot: &[Quarantined]) {
        for change in lot {
            let refusal = Refusal::Unsound(change.reason.clone());
            self.refused.insert(change.hash, refusal);
        }
    }

    /// The same for a history that was made anew: they are to be stored as its first lot.
    pub fn quarantine_anew(&mut self, lot: &[Quarantined]) {
        self.quarantine(lot);
        self.record.quarantined = 1;
    }

    /// The same for a history that takes the place of `before`, whose quarantined changes stay where
    /// they are stored.
    pub fn keep_quarantine(&mut self, before: &Self) {
        self.record.quarantined = before.record.quarantined;
        for hash in &before.refused.order {
            let refusal = &before.refused.reasons[hash];
            if matches!(refusal, Refusal::Unsound(_)) {
                self.refused.insert(*hash, refusal.clone());
            }
        }
    }

    /// Takes changes out that are `refused`, by their indexes, and what depends on them; they are
    /// refused from now on. `outline`, `segments` and `rows` (from the record's `folded` on, in order) are as
    /// they lie in storage; if they do not fit, it is `None` and nothing happened.
    ///
    /// When something of it was stored, there is one lot more in the record. Store that lot,
    /// replace the rows from [`Without::rows_from`] on, and report [`Self::committed`]; all in one
    /// commit. What was not saved still is not.
    #[must_use]
    pub fn without(
        &mut self,
        refused: &HashMap<u32, Refusal>,
        outline: Option<&[u8]>,
        segments: &[impl AsRef<[u8]>],
        rows: &[Row],
    ) -> Option<Without> {
        let mut index = self.record.folded;
        let stay = rows.iter().take_while(|row| {
            let end = index + row.changes.len() as u32;
            let stays = !(index..end).any(|index| refused.contains_key(&index));
            index = if stays { end } else { index };
            stays
        });
        let (stay, again) = rows.split_at(stay.count());
        let rows_from = index;
        let durable_len = self.durable_len;
        let mut record = self.record.clone();
        record.verified = record.verified.min(rows_from);
        let mut history = Self::open(record, outline, stay)?;
        if !segments.is_empty() {
            history.load_graph(segments)?;
        }
        let mut taken_out = Vec::new();
        let mut admit = |history: &mut Self, change: &StoredChange| {
            if let Some(refusal) = refused.get(&index) {
                history.refused.insert(change.hash, refusal.clone());
                taken_out.push(TakenOut {
                    index,
                    refusal: refusal.clone(),
                    change: change.clone(),
                });
            } else {
                let bytes = std::slice::from_ref(&change.bytes);
                let received = history.receive_unpacked(ConnectionId::NOBODY, bytes).ok()?;
                let refused = received.refused.into_iter();
                taken_out.extend(refused.map(|(_, refusal)| TakenOut {
                    index,
                    refusal,
                    change: change.clone(),
                }));
            }
            index += 1;
            Some(())
        };
        let mut replaced = Vec::new();
        for row in again {
            for change in &row.changes {
                admit(&mut history, change)?;
            }
            replaced.extend(history.take_unsaved());
        }
        for change in &self.unsaved {
            admit(&mut history, change)?;
        }
        history.message_bytes_max = self.message_bytes_max;
        history.whole_bytes_max = self.whole_bytes_max;
        history.orphans = std::mem::take(&mut self.orphans);
        history.peers = std::mem::take(&mut self.peers);
        let before = std::mem::take(&mut self.refused);
        for hash in before.order {
            history.refused.insert(hash, before.reasons[&hash].clone());
        }
        let gone: Vec<u32> = taken_out.iter().map(|out| out.index).collect();
        for peer in history.peers.values_mut() {
            peer.forget(&gone);
        }
        history.weigh_all();
        let first = gone.first().copied().unwrap_or(u32::MAX);
        history.record.quarantined += u32::from(first < durable_len);
        *self = history;
        Some(Without {
            rows_from,
            rows: replaced,
            taken_out,
        })
    }

    /// The fold is stored, with the record as it is now stored.
    pub fn folded(&mut self, record: Record) {
        let sizes = (record.folded..self.len()).map(|index| self.graph.size(index).unwrap_or(0));
        self.tail_bytes = sizes.map(u64::from).sum();
        self.tail_heavy.retain(|(index, _)| *index >= record.folded);
        self.folded_ops = self.outline.ops_len().saturating_sub(self.tail_ops());
        self.record = record;
    }

    /// The history after an unpacked document chunk became its snapshot; `record` is as stored.
    /// Peers keep what they know. `None` if the parts do not fit together.
    #[must_use]
    pub fn adopted(self, record: Record, outline: &[u8]) -> Option<Self> {
        let mut adopted = Self::open(record, Some(outline), &[])?;
        adopted.refused = self.refused;
        adopted.message_bytes_max = self.message_bytes_max;
        adopted.whole_bytes_max = self.whole_bytes_max;
        adopted.peers = self.peers;
        adopted.weigh_all();
        Some(adopted)
    }
}

/// The peers of a history, between two histories. See [`History::into_peers`].
#[derive(Debug, Default)]
pub struct Peers(HashMap<ConnectionId, Box<Peer>>);

impl Peers {
    /// What is to be remembered of them, if that is little of each.
    #[must_use]
    pub fn at_rest(&self) -> Option<Vec<(ConnectionId, AtRest)>> {
        let peers = self.0.iter();
        peers
            .map(|(id, peer)| Some((*id, AtRest::of(peer)?)))
            .collect()
    }

    /// They as they were.
    pub fn awoken(rest: impl IntoIterator<Item = (ConnectionId, AtRest)>) -> Self {
        let peer = |(id, rest): (ConnectionId, AtRest)| (id, Box::new(rest.into_peer()));
        Self(rest.into_iter().map(peer).collect())
    }

    /// Forgets a peer.
    pub fn leave(&mut self, peer: ConnectionId) {
        self.0.remove(&peer);
    }

    /// The peers of a document that lost changes and begins anew: what each has is not known any
    /// more, and who writes is asked for everything.
    #[must_use]
    pub fn begun_anew(self) -> Self {
        let anew = |peer: &Peer| Peer {
            access: peer.access,
            certainty: match peer.certainty {
                Certainty::Unheard => Certainty::Unheard,
                _ => Certainty::Filtered(Vec::new()),
            },
            heads: peer.heads.clone(),
            refused: peer.refused.clone(),
            reset: peer.writes() && peer.certainty != Certainty::Unheard,
            resends: peer.resends,
            supports_reset: peer.supports_reset,
            publishes_only: peer.publishes_only,
            // It may have all of it, and then a document chunk is the shortest way.
            invite_document: true,
            ..Peer::default()
        };
        let peers = self.0.into_iter();
        Self(
            peers
                .map(|(id, peer)| (id, Box::new(anew(&peer))))
                .collect(),
        )
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

/// The bytes of the newest changes.
#[derive(Debug, Default)]
struct Recent {
    first: u32,
    changes: VecDeque<Bytes>,
    bytes: usize,
}

impl Recent {
    fn push(&mut self, index: u32, change: Bytes) {
        if self.first + self.changes.len() as u32 != index {
            *self = Self {
                first: index,
                ..Self::default()
            };
        }
        self.bytes += change.len();
        self.changes.push_back(change);
        while self.bytes > RECENT_BYTES_MAX
            && let Some(oldest) = self.changes.pop_front()
        {
            self.bytes -= oldest.len();
            self.first += 1;
        }
    }

    /// Keeps bytes of their own: those that were read share the bytes of whole rows.
    fn let_go_of_rows(&mut self) {
        for change in &mut self.changes {
            *change = Bytes::copy_from_slice(change);
        }
    }

    fn get(&self, index: u32) -> Option<&Bytes> {
        self.changes.get(index.checked_sub(self.first)? as usize)
    }
}
