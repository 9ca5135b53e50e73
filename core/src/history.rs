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
//! This file has the type, what always holds of it, and how it is opened and stored. The rest:
//!
//! * What comes in: [`receive`] takes a sync message by parts, as far as its [`budget`] goes.
//!   [`admission`] decides about each change; [`admit_orphans`] keeps those that lack others. [`learn`]
//!   notes what a message says of its sender.
//! * What goes out: [`peers`] come and go, [`peer`] is what is known of one, [`send`] says what it
//!   is sent. [`greeting`] is for a history that acts as a client.
//! * What changes in storage: [`folding`] makes a snapshot of changes, [`quarantine`] takes out those
//!   that the check found at fault.
//! * What there is of the document: [`graph`], [`heads`], [`outline`], [`clocks`], and the walks in
//!   [`ancestry`].
//! * Bytes: [`chunk`], [`change`], [`document_chunk`], [`stored`].
//!
//! # Invariants
//!
//! A change has a greater index than its parents. Heads, outline and graph are of the same changes.
//! What is `unsaved` are the last changes, `durable_len` counts those before them after a commit,
//! and `durable_heads` are the heads of these.
//!
//! Absent: clocks, sockets, files, the bytes of stored changes, and any notion of what a document
//! means.

#![expect(
    rustdoc::private_intra_doc_links,
    reason = "the map is for those who read the code"
)]

mod admission;
mod admit_orphans;
mod ancestry;
mod budget;
mod change;
pub mod chunk;
mod clocks;
pub mod document_chunk;
mod folding;
mod graph;
mod greeting;
mod heads;
#[cfg(feature = "native")]
mod heap_size;
mod indexes;
mod learn;
pub mod limits;
mod memory;
mod objects;
mod orphans;
mod outgoing;
mod outline;
mod peer;
mod peers;
mod progress;
mod quarantine;
mod receive;
mod recent;
mod refusal;
mod send;
mod steps;
mod stored;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use automerge::ChangeHash;
use bytes::Bytes;

pub use budget::Work;
pub use change::ChangeError;
pub(crate) use change::acts_in;
pub use folding::{
    CHECKED_FOLD_BYTES_MIN, FOLD_BYTES_MAX, FOLD_BYTES_MIN, FOLD_OPS_MIN, Fold, RETAINED_BYTES,
    Unpacked,
};
pub use graph::NeedGraph;
pub use learn::INVITE_DOCUMENT_CHANGES_MIN;
pub use limits::{
    ACTOR_BYTES_MAX, CHANGE_ACTORS_MAX, CHANGE_BYTES_MAX, CHANGE_DEPS_MAX, CHANGE_OPS_MAX,
    DOCUMENT_ACTORS_MAX, DOCUMENT_OBJECTS_MAX, DOCUMENT_OPS_MAX, LIGHT_STEPS_MAX, ORPHAN_BYTES_MAX,
    ORPHANS_MAX, REFUSED_MAX, SLICE_STEPS_MAX,
};
pub use objects::{ObjectKind, Objects};
pub use outgoing::{Claim, Outgoing};
pub use peer::AtRest;
pub use peers::Peers;
pub use progress::{Progress, Received};
pub use quarantine::{Removal, RemovedChange};
pub use receive::DocumentChunks;
pub use recent::RECENT_BYTES_MAX;
pub use refusal::{Refusal, by_code};
pub use send::{UNFOLDED_BYTES_MAX, WHOLE_BYTES_MAX, WHOLE_OPS_MAX};
pub use stored::{Quarantined, Record, Row, StoredChange, decode_heads, encode_heads};

use change::Header;
use chunk::Chunk;
use clocks::Clocks;
use folding::Tail;
use graph::{Graph, Node};
use heads::{BaseHeads, Head, Heads};
use memory::Weights;
use orphans::Orphans;
use outline::{ActorClock, Outline};
use peer::Peer;
use recent::Recent;
use refusal::RefusedSet;
use steps::Steps;

use crate::id::{ConnectionId, Space};
use crate::protocol::SYNC_BYTES_MAX;

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
    /// The changes after the snapshot.
    tail: Tail,
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
    weights: Weights,
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
            tail: Tail::after(outline.ops_len()),
            outline,
            recent: Recent::default(),
            orphans: Orphans::default(),
            refused: RefusedSet::default(),
            message_bytes_max: SYNC_BYTES_MAX as u64,
            whole_bytes_max: WHOLE_BYTES_MAX,
            interrupted: Received::default(),
            steps: Steps::default(),
            peers: HashMap::new(),
            weights: Weights::default(),
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
        self.tail.bytes()
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
        self.tail.enter(index, size, change.ops_len);
        self.recent.push(index, stored.bytes.clone());
        self.weights.unsaved(&stored);
        self.unsaved.push(stored);
        index
    }
}

/// What entered, and what of it is stored.
impl History {
    /// Whether there are changes that are lost with this history: they are not stored, or wait for
    /// others.
    #[must_use]
    pub fn has_more_than_is_stored(&self) -> bool {
        !self.unsaved.is_empty() || !self.orphans.is_empty()
    }

    /// Names the space of a document that was not stored yet.
    pub fn set_space(&mut self, space: Space) {
        self.record.space = space;
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
