//! Who waits for room, in the order in which they came, each once.

use std::collections::{HashSet, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;

use reconverge::id::DocumentId;

/// What has room for a few at a time, and calls as many as there may be room for.
pub(crate) trait Host: Debug + Send + Sync {
    /// One that was called had its turn. It may have needed no room: then the next is called.
    fn turn_ended(self: Arc<Self>);
}

/// A document that waits.
pub(crate) trait Waiter: Send + Sync {
    fn id(&self) -> DocumentId;

    /// There may be room; it keeps the invitation until its turn is over.
    fn invite(self: Arc<Self>, invitation: Invitation);
}

/// Somebody was called, and has not had its turn yet.
#[derive(Debug)]
pub(crate) struct Invitation(Arc<dyn Host>);

impl Drop for Invitation {
    fn drop(&mut self) {
        self.0.clone().turn_ended();
    }
}

/// Tells these that there is room.
pub(crate) fn invite(host: &Arc<impl Host + 'static>, waiters: Vec<Arc<dyn Waiter>>) {
    for waiter in waiters {
        waiter.invite(Invitation(host.clone()));
    }
}

#[derive(Default)]
pub(crate) struct WaitQueue {
    order: VecDeque<Arc<dyn Waiter>>,
    ids: HashSet<DocumentId>,
}

impl Debug for WaitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(&self.ids).finish()
    }
}

impl WaitQueue {
    pub(crate) fn stand<W: Waiter + 'static>(&mut self, waiter: &Arc<W>) {
        if self.ids.insert(waiter.id()) {
            self.order.push_back(waiter.clone());
        }
    }

    pub(crate) fn next(&mut self) -> Option<Arc<dyn Waiter>> {
        let next = self.order.pop_front()?;
        self.ids.remove(&next.id());
        Some(next)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}
