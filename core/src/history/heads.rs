//! The heads of a document: mostly one, and as many as there are people when all of them answer
//! without hearing of each other. So nothing here costs more than what it is given, or the heads
//! that it names.

use std::collections::HashMap;

use automerge::ChangeHash;

/// A head of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) index: u32,
    pub(crate) hash: ChangeHash,
    pub(crate) max_op: u32,
}

/// The heads of what entered, by index.
#[derive(Debug, Default)]
pub(crate) struct Heads(HashMap<u32, Head>);

impl Heads {
    pub(crate) fn new(heads: &[Head]) -> Self {
        Self(heads.iter().map(|head| (head.index, *head)).collect())
    }

    /// A change with these parents entered.
    pub(crate) fn enter(&mut self, head: Head, parents: &[u32]) {
        for parent in parents {
            self.0.remove(parent);
        }
        self.0.insert(head.index, head);
        // What is empty is looked through too.
        if self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to_fit();
        }
    }

    pub(crate) fn contains(&self, index: u32) -> bool {
        self.0.contains_key(&index)
    }

    /// In no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Head> {
        self.0.values()
    }

    /// Bytes of memory beside its own.
    #[cfg(feature = "native")]
    pub(crate) fn heap_bytes(&self) -> usize {
        super::heap_size::table(self.0.capacity(), size_of::<(u32, Head)>())
    }

    /// Whether all of them are among these indexes.
    pub(crate) fn are_among(&self, indexes: &[u32]) -> bool {
        are_among(self.0.len(), self.0.keys().copied(), indexes)
    }
}

/// The heads of the folded changes, which stay while others enter.
#[derive(Debug, Default)]
pub(crate) struct BaseHeads {
    /// By index.
    heads: Vec<Head>,
    /// Their places, by hash.
    by_hash: Vec<u32>,
}

impl BaseHeads {
    pub(crate) fn new(mut heads: Vec<Head>) -> Self {
        heads.sort_unstable_by_key(|head| head.index);
        let mut by_hash: Vec<u32> = (0..heads.len() as u32).collect();
        by_hash.sort_unstable_by_key(|at| heads[*at as usize].hash);
        Self { heads, by_hash }
    }

    pub(crate) fn as_slice(&self) -> &[Head] {
        &self.heads
    }

    /// Bytes of memory beside its own.
    #[cfg(feature = "native")]
    pub(crate) fn heap_bytes(&self) -> usize {
        super::heap_size::list(&self.heads) + super::heap_size::list(&self.by_hash)
    }

    pub(crate) fn with_hash(&self, hash: &ChangeHash) -> Option<&Head> {
        let hash_at = |at: &u32| self.heads[*at as usize].hash;
        let found = self.by_hash.binary_search_by(|at| hash_at(at).cmp(hash));
        found.ok().map(|at| &self.heads[self.by_hash[at] as usize])
    }

    pub(crate) fn with_index(&self, index: u32) -> Option<&Head> {
        let found = self.heads.binary_search_by_key(&index, |head| head.index);
        found.ok().map(|at| &self.heads[at])
    }

    /// Whether all of them are among these indexes.
    pub(crate) fn are_among(&self, indexes: &[u32]) -> bool {
        let heads = self.heads.iter().map(|head| head.index);
        are_among(self.heads.len(), heads, indexes)
    }
}

fn are_among(len: usize, mut heads: impl Iterator<Item = u32>, indexes: &[u32]) -> bool {
    /// As many are compared one by one sooner than they are sorted.
    const FEW: usize = 8;
    if len > indexes.len() {
        // Also where some are named twice: there are no more than these.
        return false;
    }
    if len <= FEW {
        return heads.all(|head| indexes.contains(&head));
    }
    let mut sorted = indexes.to_vec();
    sorted.sort_unstable();
    heads.all(|head| sorted.binary_search(&head).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(index: u32) -> Head {
        // Not in the order of the indexes.
        let hash = ChangeHash([u8::MAX - index as u8; 32]);
        Head {
            index,
            hash,
            max_op: index + 100,
        }
    }

    #[test]
    fn heads_are_found_by_index_and_by_hash() {
        let some: Vec<Head> = [7, 3, 9].map(head).to_vec();
        let base = BaseHeads::new(some.clone());
        for head in &some {
            assert_eq!(base.with_hash(&head.hash), Some(head));
            assert_eq!(base.with_index(head.index), Some(head));
        }
        assert_eq!(base.with_index(4), None);
        assert_eq!(base.with_hash(&head(4).hash), None);
        let mut heads = Heads::new(&some);
        heads.enter(head(12), &[3, 5, 9]);
        let mut indexes: Vec<u32> = heads.iter().map(|head| head.index).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, [7, 12]);
        assert!(heads.contains(7) && !heads.contains(3));
    }

    #[test]
    fn all_heads_are_among_these_or_not() {
        for n in [1, 8, 9, 40] {
            let some: Vec<Head> = (0..n).map(head).collect();
            let (heads, base) = (Heads::new(&some), BaseHeads::new(some));
            let check = |indexes: &[u32], expect| {
                assert_eq!(heads.are_among(indexes), expect, "{n}");
                assert_eq!(base.are_among(indexes), expect, "{n}");
            };
            let all: Vec<u32> = (0..n + 3).rev().collect();
            check(&all, true);
            check(&all[3..], true);
            check(&all[4..], false);
            check(&[&all[4..], &all[4..]].concat(), n == 0);
            check(&[], false);
        }
    }
}
