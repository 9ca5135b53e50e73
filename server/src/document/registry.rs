//! The documents that somebody uses: one slot each, made on first use, and forgotten when nobody uses
//! it any more.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reconverge::id::DocumentId;

use super::{Services, Slot};

const SHARDS: usize = 16;

#[derive(Debug)]
pub(crate) struct Registry {
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<DocumentId, Arc<Slot>>>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            hasher: RandomState::new(),
            shards,
        }
    }

    fn shard(&self, id: &DocumentId) -> MutexGuard<'_, HashMap<DocumentId, Arc<Slot>>> {
        let shard = &self.shards[self.hasher.hash_one(id) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The document's slot, made by `make` if nobody uses the document yet.
    pub(crate) fn open(&self, id: DocumentId, make: impl FnOnce() -> Slot) -> Arc<Slot> {
        self.shard(&id)
            .entry(id)
            .or_insert_with(|| Arc::new(make()))
            .clone()
    }

    /// Forgets all of them, which hold on to the relay as it holds on to them.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Evicts what rests in documents that were idle, and forgets those that nobody uses.
    pub(crate) async fn sweep(&self, is_idle: impl Fn(&Slot) -> bool) {
        for shard in &self.shards {
            // There may be a million of them.
            tokio::task::yield_now().await;
            let slots: Vec<Arc<Slot>> = {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard
                    .values()
                    .filter(|slot| is_idle(slot))
                    .cloned()
                    .collect()
            };
            for slot in slots {
                slot.evict();
                self.forget_unused(&slot);
            }
        }
    }

    /// Forgets a document, if nobody uses it.
    pub(crate) fn forget_unused(&self, slot: &Arc<Slot>) {
        let mut shard = self.shard(&slot.id);
        // The shard's own and this one: nobody else holds it, and nobody can get it while the shard
        // is locked.
        if Arc::strong_count(slot) == 2 && slot.is_unused() {
            shard.remove(&slot.id);
            if shard.len() < shard.capacity() / 4 {
                let len = shard.len();
                shard.shrink_to(2 * len);
            }
        }
    }
}

/// Evicts documents that nobody used for a while.
pub(crate) async fn sweep(services: Arc<Services>) {
    let idle = services.config.idle_timeout;
    while services.lifetime.sleep(idle / 2).await {
        services.documents.sweep(|slot| slot.is_idle(idle)).await;
    }
}
