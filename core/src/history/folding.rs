//! Folding: when the changes after the snapshot become part of it, and what is stored then.

use bytes::Bytes;

use automerge::ChangeHash;

use super::History;
use super::stored::Record;

/// Operations after the snapshot below which they are no reason to compact a document.
pub const FOLD_OPS_MIN: u64 = 128 * 1024;

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

/// A change with at least this many operations counts by them, too, when folding is weighed.
const HEAVY_OPS: u64 = 1024;

/// The changes after the snapshot: how much they weigh, beside those in it.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: u64,
    /// Those of them with many operations: index, and how many.
    heavy: Vec<(u32, u64)>,
    /// Operations of the changes in the snapshot.
    folded_ops: u64,
}

impl Tail {
    /// No changes, after a snapshot with so many operations.
    pub(super) fn after(folded_ops: u64) -> Self {
        Self {
            folded_ops,
            ..Self::default()
        }
    }

    /// A change entered that has so many bytes and operations.
    pub(super) fn enter(&mut self, index: u32, bytes: u32, ops: u64) {
        self.bytes += u64::from(bytes);
        if ops >= HEAVY_OPS {
            self.heavy.push((index, ops));
        }
    }

    /// The changes below this index were folded. The others have so many bytes, and all together so
    /// many operations.
    fn folded(&mut self, index: u32, bytes: u64, ops: u64) {
        self.bytes = bytes;
        self.heavy.retain(|(of, _)| *of >= index);
        self.folded_ops = ops.saturating_sub(self.ops());
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The operations of the changes that have many.
    pub(super) fn ops(&self) -> u64 {
        self.heavy.iter().map(|(_, ops)| ops).sum()
    }

    /// Bytes of memory beside its own.
    #[cfg(feature = "native")]
    pub(super) fn heap_bytes(&self) -> usize {
        super::heap_size::list(&self.heavy)
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
        let outweighs = self.tail.bytes() >= snapshot.max(history)
            || self.tail.ops() >= self.tail.folded_ops.max(FOLD_OPS_MIN);
        self.durable_len == self.len() && outweighs
    }

    /// Whether folding pays when the document is built anyway, to be checked: then also changes are
    /// folded that have an eighth of the snapshot's weight, and those of a small document when they
    /// outweigh its snapshot. As a snapshot, it is sent in a fraction of the bytes.
    #[must_use]
    pub fn may_fold(&self) -> bool {
        let snapshot = self.record.snapshot_bytes;
        let outweighs = self.tail.bytes() >= (snapshot / 8).max(FOLD_BYTES_MIN)
            || self.tail.bytes() >= snapshot.max(CHECKED_FOLD_BYTES_MIN)
            || self.tail.ops() >= (self.tail.folded_ops / 8).max(FOLD_OPS_MIN);
        self.durable_len == self.len() && outweighs
    }

    /// How many operations there are, at least: their counters only grow, and those of changes that
    /// were made at the same time overlap.
    #[cfg(feature = "native")]
    #[must_use]
    pub fn operations_at_least(&self) -> u64 {
        let counted = self.heads.iter().map(|head| u64::from(head.max_op));
        counted.max().unwrap_or_default().max(self.tail.ops())
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

    /// The fold is stored, with the record as it is now stored.
    pub fn folded(&mut self, record: Record) {
        let sizes = (record.folded..self.len()).map(|index| self.graph.size(index).unwrap_or(0));
        let bytes = sizes.map(u64::from).sum();
        self.tail
            .folded(record.folded, bytes, self.outline.ops_len());
        self.record = record;
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
    pub(super) fn retained_bytes(&self) -> u64 {
        let record = &self.record;
        let lots = record.retained.iter();
        let kept = lots.filter(|(from, _)| *from >= record.rows_from);
        kept.map(|(_, bytes)| bytes).sum()
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
