//! Documents that wait for room, in the order in which they came, each once.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use reconverge::id::DocumentId;

use crate::document::Slot;

/// Who calls documents, as many at a time as there may be room for.
pub(crate) trait Calls: std::fmt::Debug + Send + Sync {
    /// One of them had its turn. It may have needed no room: then the next is called.
    fn had_its_turn(self: Arc<Self>);
}

/// A document was called, and has not had its turn yet.
#[derive(Debug)]
pub(crate) struct Called(Arc<dyn Calls>);

/// Tells documents that there is room.
pub(crate) fn call(by: &Arc<impl Calls + 'static>, slots: Vec<Arc<Slot>>) {
    for slot in slots {
        slot.room(Called(by.clone()));
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        self.0.clone().had_its_turn();
    }
}

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

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}
