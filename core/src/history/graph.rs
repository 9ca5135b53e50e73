//! The change graph of one document, in compact arrays.
//!
//! A change's index is its place in the order of arrival, which is also a topological order: a
//! change enters only after its deps. So every prefix of the graph is a document of its own, a set
//! of changes is a few ranges of indexes, and ancestors always lie below.
//!
//! The graph may begin at a `base`: the changes below it are folded into the snapshot, and most of
//! the time nobody needs their hashes. What needs them answers [`NeedGraph`]; the caller then
//! loads the stored segments with [`Graph::load`] and asks again.
//!
//! At most 64 bytes per change resident: 32 hash, 4 each for parent, actor, last operation and
//! size, and 5 to 10 for the hash table.

use std::ops::Range;

use automerge::ChangeHash;
use hashbrown::HashTable;

use super::heads::Head;
use crate::leb::{Reader, push_unsigned};

/// The answer cannot be given without the part of the graph that is folded into the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedGraph;

/// A change without parents.
const NO_PARENT: u32 = u32::MAX;
/// Marks a parent entry as a place in `merges`.
const MERGE: u32 = 1 << 31;

/// Most changes of a document: indexes have 31 bits.
pub(crate) const CHANGES_MAX: usize = 1 << 31;

/// Fewest bytes of a change in a segment: a hash and four numbers.
const SEGMENT_CHANGE_BYTES_MIN: usize = 32 + 4;

/// What the graph keeps of one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) hash: ChangeHash,
    /// Indexes of its deps.
    pub(crate) parents: Vec<u32>,
    /// Its author's place in the outline.
    pub(crate) actor: u32,
    /// The counter of its last operation.
    pub(crate) max_op: u32,
    /// The size of its stored chunk in bytes.
    pub(crate) size: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Graph {
    base: u32,
    hashes: Vec<ChangeHash>,
    by_hash: HashTable<u32>,
    parents: Vec<u32>,
    merges: Vec<u32>,
    actors: Vec<u32>,
    max_ops: Vec<u32>,
    sizes: Vec<u32>,
}

fn slot(hash: &ChangeHash) -> u64 {
    u64::from_le_bytes(hash.0[..8].try_into().expect("8 of 32 bytes"))
}

impl Graph {
    pub(crate) fn at(base: u32) -> Self {
        Self {
            base,
            ..Self::default()
        }
    }

    /// The first index that is resident.
    pub(crate) fn base(&self) -> u32 {
        self.base
    }

    pub(crate) fn len(&self) -> u32 {
        self.base + self.hashes.len() as u32
    }

    pub(crate) fn push(&mut self, node: &Node) -> u32 {
        let index = self.len();
        let parent = match node.parents.as_slice() {
            [] => NO_PARENT,
            [one] => *one,
            several => {
                let at = self.merges.len() as u32;
                self.merges.push(several.len() as u32);
                self.merges.extend_from_slice(several);
                MERGE | at
            }
        };
        self.hashes.push(node.hash);
        self.parents.push(parent);
        self.actors.push(node.actor);
        self.max_ops.push(node.max_op);
        self.sizes.push(node.size);
        let (hashes, base) = (&self.hashes, self.base);
        let rehash = |at: &u32| slot(&hashes[(*at - base) as usize]);
        self.by_hash.insert_unique(slot(&node.hash), index, rehash);
        index
    }

    /// The index of a change, if it is resident.
    pub(crate) fn resident(&self, hash: &ChangeHash) -> Option<u32> {
        let is = |at: &u32| self.hashes[(*at - self.base) as usize] == *hash;
        self.by_hash.find(slot(hash), is).copied()
    }

    /// The index of a change; `Ok(None)` if the document certainly does not have it.
    pub(crate) fn find(&self, hash: &ChangeHash) -> Result<Option<u32>, NeedGraph> {
        match self.resident(hash) {
            None if self.base > 0 => Err(NeedGraph),
            found => Ok(found),
        }
    }

    fn row(&self, index: u32) -> Result<usize, NeedGraph> {
        index
            .checked_sub(self.base)
            .map(|row| row as usize)
            .ok_or(NeedGraph)
    }

    pub(crate) fn hash(&self, index: u32) -> Result<ChangeHash, NeedGraph> {
        Ok(self.hashes[self.row(index)?])
    }

    pub(crate) fn parents(&self, index: u32) -> Result<&[u32], NeedGraph> {
        let parent = &self.parents[self.row(index)?];
        Ok(match *parent {
            NO_PARENT => &[],
            at if at & MERGE != 0 => {
                let at = (at & !MERGE) as usize;
                &self.merges[at + 1..=at + self.merges[at] as usize]
            }
            _ => std::slice::from_ref(parent),
        })
    }

    pub(crate) fn actor(&self, index: u32) -> Result<u32, NeedGraph> {
        Ok(self.actors[self.row(index)?])
    }

    pub(crate) fn max_op(&self, index: u32) -> Result<u32, NeedGraph> {
        Ok(self.max_ops[self.row(index)?])
    }

    pub(crate) fn size(&self, index: u32) -> Result<u32, NeedGraph> {
        Ok(self.sizes[self.row(index)?])
    }

    /// Writes the changes of `range` as a segment, the form in which folded changes are stored.
    pub(crate) fn segment(&self, range: Range<u32>) -> Result<Vec<u8>, NeedGraph> {
        let mut out = vec![super::stored::VERSION];
        push_unsigned(&mut out, u64::from(range.start));
        push_unsigned(&mut out, u64::from(range.end));
        let mut above = 0;
        for index in range {
            out.extend_from_slice(&self.hash(index)?.0);
            let parents = self.parents(index)?;
            push_unsigned(&mut out, parents.len() as u64);
            for parent in parents {
                // Parents are mostly the change before.
                push_unsigned(&mut out, u64::from(index - parent));
            }
            push_unsigned(&mut out, u64::from(self.actor(index)?));
            let max_op = self.max_op(index)?;
            super::stored::push_difference(&mut out, max_op, above);
            above = max_op;
            push_unsigned(&mut out, u64::from(self.size(index)?));
        }
        Ok(out)
    }

    /// Makes everything resident, from all segments in order. `None` when they are not the ones
    /// that belong to this graph, to a document of so many actors and of these heads of what is
    /// folded.
    pub(crate) fn load(
        &mut self,
        segments: &[impl AsRef<[u8]>],
        actors: u32,
        heads: &[Head],
    ) -> Option<()> {
        let mut whole = Self::default();
        // A record may say anything; what is there is at least this long.
        let bytes: usize = segments.iter().map(|segment| segment.as_ref().len()).sum();
        let folded = (self.base as usize).min(bytes / SEGMENT_CHANGE_BYTES_MIN);
        whole.reserve(folded + self.hashes.len());
        for segment in segments {
            whole.read_segment(segment.as_ref())?;
        }
        // A compaction since this graph was made folded more than lies below its base.
        let is_there = |head: &Head| whole.hash(head.index) == Ok(head.hash);
        if !(self.base..=self.len()).contains(&whole.len())
            || !heads.iter().all(is_there)
            || whole.actors.iter().any(|actor| *actor >= actors)
        {
            return None;
        }
        for index in whole.len()..self.len() {
            let node = self.node(index).ok()?;
            whole.push(&node);
        }
        *self = whole;
        Some(())
    }

    /// Bytes of memory beside its own.
    #[cfg(feature = "native")]
    pub(crate) fn heap_bytes(&self) -> usize {
        let columns = [
            &self.parents,
            &self.merges,
            &self.actors,
            &self.max_ops,
            &self.sizes,
        ];
        let columns: usize = columns.into_iter().map(super::heap_size::list).sum();
        super::heap_size::list(&self.hashes) + self.by_hash.allocation_size() + columns
    }

    fn reserve(&mut self, changes: usize) {
        for column in [
            &mut self.parents,
            &mut self.actors,
            &mut self.max_ops,
            &mut self.sizes,
        ] {
            column.reserve_exact(changes);
        }
        self.hashes.reserve_exact(changes);
        let (hashes, base) = (&self.hashes, self.base);
        self.by_hash
            .reserve(changes, |at| slot(&hashes[(*at - base) as usize]));
    }

    fn read_segment(&mut self, bytes: &[u8]) -> Option<()> {
        let mut input = Reader(bytes);
        if input.take(1)? != [super::stored::VERSION] {
            return None;
        }
        let (start, end) = (input.number::<u32>()?, input.number::<u32>()?);
        if start != self.len() {
            return None;
        }
        let mut above = 0;
        for index in start..end {
            let hash = input.hash()?;
            let parents = input.unsigned()?;
            let parent = |_| index.checked_sub(input.number()?).filter(|at| *at < index);
            let parents = (0..parents).map(parent).collect::<Option<Vec<_>>>()?;
            let actor = input.number()?;
            above = super::stored::read_difference(&mut input, above)?;
            self.push(&Node {
                hash,
                parents,
                actor,
                max_op: above,
                size: input.number()?,
            });
        }
        input.is_empty().then_some(())
    }

    pub(crate) fn node(&self, index: u32) -> Result<Node, NeedGraph> {
        Ok(Node {
            hash: self.hash(index)?,
            parents: self.parents(index)?.to_vec(),
            actor: self.actor(index)?,
            max_op: self.max_op(index)?,
            size: self.size(index)?,
        })
    }

    /// Marks, for all indexes in `from..len`, which are among `tips` or their ancestors.
    ///
    /// Below the base nothing can be told apart; the second value says which of the folded changes
    /// were reached as direct parents (or tips), so that the caller may know that all were.
    pub(crate) fn ancestors(&self, tips: &[u32]) -> (Vec<bool>, Vec<u32>) {
        let mut marked = vec![false; self.hashes.len()];
        let mut below = Vec::new();
        let mut mark = |index: u32, marked: &mut Vec<bool>| match self.row(index) {
            Ok(row) => marked[row] = true,
            Err(NeedGraph) => below.push(index),
        };
        for tip in tips {
            mark(*tip, &mut marked);
        }
        for row in (0..marked.len()).rev() {
            if marked[row] {
                let parents = self.parents(self.base + row as u32).expect("resident");
                for parent in parents {
                    mark(*parent, &mut marked);
                }
            }
        }
        below.sort_unstable();
        below.dedup();
        (marked, below)
    }
}

/// The ranges of unset marks, offset by `base`.
pub(crate) fn unset_ranges(marks: &[bool], base: u32) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for (row, _) in marks.iter().enumerate().filter(|(_, marked)| !**marked) {
        add_index(&mut ranges, base + row as u32);
    }
    ranges
}

/// Adds an index above all others.
pub(crate) fn add_index(ranges: &mut Vec<Range<u32>>, index: u32) {
    match ranges.last_mut() {
        Some(last) if last.end == index => last.end += 1,
        _ => ranges.push(index..index + 1),
    }
}
