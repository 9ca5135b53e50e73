//! Walks through the graph, each of whose steps is counted: what lies in the past of some changes.

use std::collections::{BinaryHeap, HashSet};

use automerge::ChangeHash;

use super::graph::NeedGraph;
use super::peer::Peer;
use super::{History, steps};

impl History {
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

    /// How many steps a walk through the graph takes at most.
    pub(super) fn walk(&self) -> u64 {
        u64::from(self.len() - self.graph.base()) * steps::ROW
    }

    /// See [`Graph::ancestors`](super::graph::Graph::ancestors).
    pub(super) fn ancestors(&self, tips: &[u32]) -> (Vec<bool>, Vec<u32>) {
        self.steps.count(self.walk());
        self.graph.ancestors(tips)
    }

    /// What a peer has from its `upto` on that names these, besides what it is known to have.
    pub(super) fn above(&self, known: &[u32], peer: &Peer) -> Vec<u32> {
        let is_new = |index: &u32| *index >= peer.upto && !peer.extra.contains(*index);
        let mut found = HashSet::new();
        let mut open: Vec<u32> = known.iter().copied().filter(is_new).collect();
        while let Some(index) = open.pop() {
            if found.insert(index) {
                let parents = self.graph.parents(index).unwrap_or_default();
                self.steps.count(parents.len() as u64 * steps::LOOKUP);
                open.extend(parents.iter().copied().filter(is_new));
            }
        }
        self.steps.count(found.len() as u64 * steps::LOOKUP);
        let mut found: Vec<u32> = found.into_iter().collect();
        found.sort_unstable();
        found
    }

    /// Whether folded changes that were reached from above stand for all of them (`false`: for
    /// none).
    pub(super) fn covers_base(&self, below: &[u32]) -> Result<bool, NeedGraph> {
        if below.is_empty() {
            return Ok(false);
        }
        let all = self.base_heads.are_among(below);
        if all { Ok(true) } else { Err(NeedGraph) }
    }
}
