//! Who sent the changes that are not checked yet, so that a fault can be told to its sender.

use std::collections::VecDeque;

use reconverge::id::PeerId;

/// For how many turns of senders a document remembers who sent what is not checked.
const SENDERS_MAX: usize = 64 * 1024;

/// Who sent the changes that are not checked: from which index on, in order.
#[derive(Default)]
pub(super) struct Senders(VecDeque<(u32, Option<PeerId>)>);

impl Senders {
    pub(super) fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }

    /// So many changes are stored; what came after them is lost.
    pub(super) fn stored(&mut self, len: u32) {
        self.0.retain(|(index, _)| *index < len);
    }

    pub(super) fn note(&mut self, index: u32, peer: Option<&PeerId>) {
        if self.0.back().is_some_and(|last| last.0 == index) {
            self.0.pop_back();
        }
        if self.0.back().is_none_or(|last| last.1.as_ref() != peer) {
            self.0.push_back((index, peer.cloned()));
        }
        if self.0.len() > SENDERS_MAX {
            self.0.pop_front();
        }
    }

    pub(super) fn of(&self, index: u32) -> &str {
        let at = self.0.partition_point(|(from, _)| *from <= index);
        let peer = at.checked_sub(1).and_then(|at| self.0[at].1.as_ref());
        peer.map_or("", PeerId::as_str)
    }

    /// The changes below `upto` are checked, of `len`.
    pub(super) fn verified(&mut self, upto: u32, len: u32) {
        if upto == len {
            self.0 = VecDeque::new();
        }
        while self.0.get(1).is_some_and(|(from, _)| *from <= upto) {
            self.0.pop_front();
        }
    }

    /// The changes with these indexes, in order, are taken out.
    pub(super) fn taken_out(&mut self, gone: &[u32]) {
        for (from, _) in &mut self.0 {
            *from -= gone.partition_point(|gone| gone < from) as u32;
        }
    }
}
