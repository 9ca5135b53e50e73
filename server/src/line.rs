//! Documents that wait for something, in the order in which they came, each once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use reconverge::id::DocumentId;

use crate::document::Slot;

#[derive(Debug, Default)]
pub(crate) struct Line {
    order: VecDeque<Arc<Slot>>,
    ids: HashSet<DocumentId>,
}

impl Line {
    pub(crate) fn stand(&mut self, slot: &Arc<Slot>) {
        if self.ids.insert(slot.id()) {
            self.order.push_back(slot.clone());
        }
    }

    pub(crate) fn next(&mut self) -> Option<Arc<Slot>> {
        let next = self.order.pop_front()?;
        self.ids.remove(&next.id());
        Some(next)
    }

    pub(crate) fn all(&mut self) -> VecDeque<Arc<Slot>> {
        self.ids.clear();
        std::mem::take(&mut self.order)
    }
}
