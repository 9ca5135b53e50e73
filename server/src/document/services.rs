//! What all documents of a relay share.

use std::sync::Arc;

use reconverge::id::DocumentId;
use reconverge::native::Committer;
use reconverge::storage::Storage;

use super::Slot;
use super::eviction_queue::EvictionQueue;
use super::registry::Registry;
use super::reminders::Reminders;
use super::unfolded_cache::UnfoldedCache;
use super::unsaved::UnsavedBatches;
use crate::access::Authorize;
use crate::config::Config;
use crate::lifetime::Lifetime;
use crate::limits::fair::{Owner, Turns};
use crate::limits::large_messages::LargeMessages;
use crate::limits::memory::Memory;
use crate::peers::Peers;
use crate::telemetry::storage_health::StorageHealth;
use crate::workshop::{Done, Job, Workshop};

#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) config: Config,
    pub(crate) lifetime: Lifetime,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) committer: Committer,
    pub(crate) authorize: Arc<dyn Authorize>,
    /// Who is connected.
    pub(crate) peers: Arc<Peers>,
    pub(crate) workshop: Workshop,
    /// Turns for taking in what takes long.
    pub(crate) long_work: Turns,
    /// Large messages that are being sent.
    pub(crate) large: Arc<LargeMessages>,
    /// What the documents hold that connections speak of.
    pub(crate) spoken_of: Arc<Memory>,
    pub(crate) storage_health: StorageHealth,
    /// The documents that somebody uses.
    pub(crate) documents: Registry,
    /// Those of them that can be evicted.
    pub(super) evictable: EvictionQueue,
    /// Changes that were unpacked of snapshots.
    pub(super) unfolded: UnfoldedCache,
    /// Documents with changes to be checked.
    pub(super) reminders: Reminders,
    /// What could not be stored.
    pub(super) unsaved: UnsavedBatches,
}

impl Services {
    pub(crate) fn new(
        config: Config,
        lifetime: Lifetime,
        storage: Arc<dyn Storage>,
        committer: Committer,
        authorize: Arc<dyn Authorize>,
    ) -> Self {
        Self {
            workshop: Workshop::new(config.workshop.clone(), config.result_bytes_max()),
            long_work: Turns::new(config.turns()),
            large: Arc::new(LargeMessages::new(config.sending_bytes_max())),
            spoken_of: Arc::new(Memory::new(config.document_bytes_max())),
            peers: Arc::default(),
            storage_health: StorageHealth::default(),
            documents: Registry::new(),
            evictable: EvictionQueue::default(),
            unfolded: UnfoldedCache::default(),
            reminders: Reminders::default(),
            unsaved: UnsavedBatches::default(),
            config,
            lifetime,
            storage,
            committer,
            authorize,
        }
    }

    /// The slot of a document.
    pub(crate) fn slot(self: &Arc<Self>, id: DocumentId) -> Arc<Slot> {
        self.documents.open(id, || Slot::new(id, self.clone()))
    }

    /// Runs a job in the workshop; `None` if the relay stops before it is done.
    pub(super) async fn build(&self, owner: Owner, job: Job) -> Option<Done> {
        let done = self.workshop.run(owner, job);
        self.lifetime.unless_stopping(done).await
    }

    /// Lets go of open documents while they hold more than there is room for.
    pub(super) fn make_room(&self) {
        // Each is looked at twice at most: those that are used are passed over once.
        let mut looks = None;
        while self.evictable.bytes() > self.spoken_of.free() {
            let looks = looks.get_or_insert_with(|| 2 * self.evictable.len());
            if *looks == 0 {
                return;
            }
            *looks -= 1;
            let Some(slot) = self.evictable.first() else {
                return;
            };
            slot.evict_or_pass_over();
            self.documents.forget_unused(&slot);
        }
    }
}
