//! The documents that are open between their turns, so that the next turn is cheap, and those of which
//! it is known what storages were last seen with.
//!
//! What they hold is counted, and shares a part of the memory with what connections
//! [speak of](crate::document::SPOKEN_OF_BYTES). When there is no more room, those are let go of that were opened
//! first and not used since they were last looked at (the second-chance rule).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Slot;

#[derive(Debug, Default)]
pub(crate) struct EvictionQueue {
    bytes: AtomicUsize,
    line: Mutex<OpenSlots>,
}

#[derive(Debug, Default)]
struct OpenSlots {
    slots: BTreeMap<u64, Weak<Slot>>,
    next: u64,
}

/// What is counted for an open document, and its place in the line.
#[derive(Debug, Default)]
pub(crate) struct EvictionEntry {
    bytes: usize,
    place: Option<u64>,
}

impl EvictionQueue {
    fn line(&self) -> MutexGuard<'_, OpenSlots> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A document holds so many bytes now.
    pub(crate) fn count(&self, counted: &mut EvictionEntry, bytes: usize) {
        // Wraps around where less is held than before, as the sum does.
        let more = bytes.wrapping_sub(counted.bytes);
        self.bytes.fetch_add(more, Ordering::Relaxed);
        counted.bytes = bytes;
    }

    /// Puts a document to the end of the line, if it has no place in it.
    pub(crate) fn stand_last(&self, slot: &Arc<Slot>, counted: &mut EvictionEntry) {
        if counted.place.is_some() {
            return;
        }
        let mut line = self.line();
        let place = line.next;
        line.next += 1;
        line.slots.insert(place, Arc::downgrade(slot));
        counted.place = Some(place);
    }

    /// Takes a document out of the line.
    pub(crate) fn leave(&self, counted: &mut EvictionEntry) {
        if let Some(place) = counted.place.take() {
            self.line().slots.remove(&place);
        }
    }

    /// Takes the first out of the line.
    pub(crate) fn first(&self) -> Option<Arc<Slot>> {
        let mut line = self.line();
        // Those whose slot is gone took their place with them, or are about to.
        std::iter::from_fn(|| line.slots.pop_first()).find_map(|(_, slot)| slot.upgrade())
    }

    /// How many stand in the line.
    pub(crate) fn len(&self) -> usize {
        self.line().slots.len()
    }
}

impl EvictionEntry {
    /// It was taken out of the line.
    pub(crate) fn stands_no_more(&mut self) {
        self.place = None;
    }
}
