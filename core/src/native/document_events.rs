//! Documents come and go: what waits for those who want to hear of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::id::DocumentId;

/// A document came, or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DocumentEvent {
    /// It is here: it was when this was asked, or was made, imported or found at a relay since.
    Added(DocumentId),
    /// It was deleted here.
    Deleted(DocumentId),
}

/// Those who want to hear which documents there are.
#[derive(Debug, Default)]
pub(super) struct News(Vec<Weak<Queue>>);

impl News {
    pub(super) fn add(&mut self, queue: &Arc<Queue>) {
        // There may be no news for long, and others who come and go.
        self.0.retain(|queue| queue.strong_count() > 0);
        self.0.push(Arc::downgrade(queue));
    }

    pub(super) fn tell(&mut self, id: DocumentId, is_here: bool) {
        self.0.retain(|queue| match queue.upgrade() {
            Some(queue) => {
                queue.push(id, is_here);
                true
            }
            None => false,
        });
    }

    pub(super) fn end(&mut self) {
        for queue in self.0.drain(..).filter_map(|queue| queue.upgrade()) {
            queue.waiting().has_ended = true;
            queue.news.notify_one();
        }
    }
}

/// What waits for one of them: of each document what is so now.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// In the order in which they had news first.
    order: VecDeque<DocumentId>,
    pub(super) is_here: HashMap<DocumentId, bool>,
    pub(super) has_ended: bool,
}

impl Queue {
    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, id: DocumentId, is_here: bool) {
        let mut waiting = self.waiting();
        if waiting.is_here.insert(id, is_here).is_none() {
            waiting.order.push_back(id);
        }
        self.news.notify_one();
    }

    /// The next event; `None` when nothing more comes.
    pub(super) async fn next(&self) -> Option<DocumentEvent> {
        loop {
            {
                let mut waiting = self.waiting();
                if let Some(id) = waiting.order.pop_front() {
                    let is_here = waiting.is_here.remove(&id);
                    let event = match is_here.expect("as many as in the order") {
                        true => DocumentEvent::Added(id),
                        false => DocumentEvent::Deleted(id),
                    };
                    return Some(event);
                }
                if waiting.has_ended {
                    return None;
                }
            }
            self.news.notified().await;
        }
    }
}
