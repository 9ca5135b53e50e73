//! A document that somebody uses: its mailbox, and what it is between its turns.
//!
//! A slot has a mailbox and, while there is something in it, one task. The task takes all that
//! came, runs one turn and looks again; when the mailbox is empty it leaves the document in
//! the slot and ends, so an idle document costs no task.

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use reconverge::id::{ConnectionId, DocumentId};
use reconverge::storage::StorageError;
use tokio::sync::OwnedSemaphorePermit;
use tracing::error;

use super::dormant::Dormant;
use super::eviction_queue::EvictionEntry;
use super::{Document, Input, Services};
use crate::limits::wait_queue::{Invitation, Waiter};
use crate::peers::Connection;
use crate::remote_heads::RemoteHeads;

/// A document that somebody uses.
pub(crate) struct Slot {
    pub(super) id: DocumentId,
    pub(super) name: Arc<str>,
    pub(super) services: Arc<Services>,
    state: Mutex<State>,
    /// Who hears of presence.
    audience: RwLock<Arc<[Arc<Connection>]>>,
}

struct State {
    mailbox: VecDeque<Input>,
    running: bool,
    resting: Option<Resting>,
    used: Instant,
    /// It was used since it was last looked at whether to let go of it.
    was_used: bool,
    counted: EvictionEntry,
}

/// A document for which nothing is to be done.
enum Resting {
    Loaded(Box<Document>),
    /// It is not in memory, and its peers are at rest: they take some hundred bytes, so that one
    /// connection may speak of very many documents.
    Dormant(Box<Dormant>),
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Slot {
    pub(crate) fn new(id: DocumentId, services: Arc<Services>) -> Self {
        let state = State {
            mailbox: VecDeque::new(),
            running: false,
            resting: None,
            used: Instant::now(),
            was_used: false,
            counted: EvictionEntry::default(),
        };
        Self {
            id,
            name: id.to_string().into(),
            services,
            state: Mutex::new(state),
            audience: RwLock::new(Arc::from([])),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something into the mailbox. How much may lie there is bounded by those who put it:
    /// each connection has a number of permits, and the rest comes one at a time.
    pub(crate) fn push(self: &Arc<Self>, input: Input) {
        let mut state = self.state();
        state.mailbox.push_back(input);
        let starts = !std::mem::replace(&mut state.running, true);
        drop(state);
        if starts {
            let slot = self.clone();
            self.services
                .lifetime
                .spawn(async move { slot.run().await });
        }
    }

    /// Tells the operator that storage failed.
    pub(super) fn storage_failed(&self, error: &StorageError) {
        let Services {
            storage_health,
            lifetime,
            ..
        } = &*self.services;
        storage_health.failed(lifetime, &self.name, error);
    }

    pub(super) fn damaged(&self, what: &'static str) -> StorageError {
        StorageError::Damaged {
            document: self.name.to_string(),
            what,
        }
    }

    /// A connection ended. A document at rest needs no turn for it: one connection may have spoken of
    /// very many.
    pub(crate) fn leave(self: &Arc<Self>, connection: ConnectionId) {
        let mut state = self.state();
        let at_rest = !state.running && state.mailbox.is_empty();
        match &mut state.resting {
            Some(Resting::Dormant(dormant)) if at_rest => {
                let mut peers = dormant.peers.iter();
                if let Some(at) = peers.position(|(peer, _)| peer.id == connection) {
                    let (peer, _) = dormant.peers.swap_remove(at);
                    if let Some(storage) = &peer.storage_id {
                        dormant.remote_heads.left(storage);
                    }
                }
                self.set_audience(dormant.peers.iter().map(|(peer, _)| peer));
            }
            Some(Resting::Loaded(document)) if at_rest && document.is_quiet() => {
                document.leave(self, connection);
            }
            _ => {
                drop(state);
                return self.push(Input::Leave(connection));
            }
        }
        // Whoever comes back soon finds what is kept.
        state.used = Instant::now();
        let keeps = self.count(&mut state);
        drop(state);
        match keeps {
            true => self.services.make_room(),
            false => self.services.documents.forget_unused(self),
        }
    }

    /// Tells a peer what these storages were last seen with. Of most documents that is nothing, which
    /// takes no turn.
    pub(crate) fn replay(self: &Arc<Self>, to: &Arc<Connection>, storages: &Arc<[String]>) {
        let nothing = match &self.state().resting {
            Some(Resting::Loaded(document)) => document.remote_heads.is_empty(),
            Some(Resting::Dormant(dormant)) => dormant.remote_heads.is_empty(),
            None => false,
        };
        if !nothing {
            self.push(Input::Replay {
                to: to.clone(),
                storages: storages.clone(),
            });
        }
    }

    /// Tells the document that it is time to check what is new. Until that is done, it has one of the
    /// places for such documents.
    pub(crate) fn verify(self: &Arc<Self>, place: OwnedSemaphorePermit) {
        self.push(Input::Verify(Arc::new(place)));
    }

    /// Puts something into the mailbox after a while, unless the relay stops before.
    pub(super) fn push_after(self: &Arc<Self>, delay: Duration, input: Input) {
        let slot = self.clone();
        self.services.lifetime.spawn(async move {
            if slot.services.lifetime.sleep(delay).await {
                slot.push(input);
            }
        });
    }

    pub(crate) fn audience(&self) -> Arc<[Arc<Connection>]> {
        self.audience
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_audience<'a>(&self, connections: impl Iterator<Item = &'a Arc<Connection>>) {
        let audience = connections.cloned().collect();
        *self
            .audience
            .write()
            .unwrap_or_else(PoisonError::into_inner) = audience;
    }

    /// Empties the mailbox, turn by turn.
    async fn run(self: Arc<Self>) {
        let mut document = self.resume();
        loop {
            let inputs = {
                let mut state = self.state();
                if state.mailbox.is_empty() {
                    // It was opened for a check, or its last peer left in the midst of something.
                    let is_over =
                        document.connections.is_empty() && document.remote_heads.is_empty();
                    self.rest(&mut state, document);
                    if is_over {
                        self.evict_now(&mut state);
                    }
                    drop(state);
                    if is_over {
                        self.services.documents.forget_unused(&self);
                    }
                    self.services.make_room();
                    return;
                }
                std::mem::take(&mut state.mailbox)
            };
            let turn = AssertUnwindSafe(document.turn(&self, inputs)).catch_unwind();
            if turn.await.is_err() {
                // A fault of ours that one document's input brought out: its peers are sent away
                // and come back to what is stored.
                error!(document = %self.name, "a turn panicked; the document is opened again");
                for connection in document.connections.values() {
                    connection.outbox.close(1011, "internal error");
                }
                self.set_audience(std::iter::empty());
                document = Box::default();
            }
        }
    }

    fn resume(&self) -> Box<Document> {
        let resting = self.state().resting.take();
        let mut document = match resting {
            Some(Resting::Loaded(document)) => return document,
            Some(Resting::Dormant(dormant)) => Box::new(dormant.wake()),
            None => Box::default(),
        };
        document.verifying = self.services.reminders.take_up(&self.id);
        document
    }

    fn rest(self: &Arc<Self>, state: &mut State, document: Box<Document>) {
        state.used = Instant::now();
        state.was_used = true;
        state.running = false;
        state.resting = Some(Resting::Loaded(document));
        self.count(state);
    }

    /// Counts what a document at rest holds, and whether it is anything that can be let go of.
    fn count(self: &Arc<Self>, state: &mut State) -> bool {
        let (bytes, keeps) = match &state.resting {
            Some(Resting::Loaded(document)) => {
                let keeps = document.history.is_some() || !document.remote_heads.is_empty();
                (document.bytes(), keeps)
            }
            Some(Resting::Dormant(dormant)) => (dormant.bytes(), !dormant.remote_heads.is_empty()),
            None => (0, false),
        };
        let open = &self.services.evictable;
        open.count(&mut state.counted, bytes);
        match keeps {
            true => open.stand_last(self, &mut state.counted),
            false => open.leave(&mut state.counted),
        }
        keeps
    }

    /// Lets go of what can be read or will be told again, unless it was used since this was last
    /// asked. It was taken out of the line of open documents.
    pub(crate) fn evict_or_pass_over(self: &Arc<Self>) {
        let mut state = self.state();
        state.counted.stands_no_more();
        if state.running || std::mem::take(&mut state.was_used) {
            self.services.evictable.stand_last(self, &mut state.counted);
            return;
        }
        match &mut state.resting {
            Some(Resting::Loaded(document)) => document.remote_heads = RemoteHeads::default(),
            Some(Resting::Dormant(dormant)) => dormant.remote_heads = RemoteHeads::default(),
            None => {}
        }
        self.evict_now(&mut state);
    }

    /// Whether nothing came for `idle`.
    pub(crate) fn is_idle(&self, idle: Duration) -> bool {
        let state = self.state();
        !state.running && state.used.elapsed() >= idle
    }

    /// Lets go of what can be read again.
    pub(crate) fn evict(self: &Arc<Self>) {
        self.evict_now(&mut self.state());
    }

    fn evict_now(self: &Arc<Self>, state: &mut State) {
        state.mailbox.shrink_to_fit();
        if let Some(Resting::Loaded(document)) = &mut state.resting {
            document.evict();
            if let Some(dormant) = document.dormant(self) {
                state.resting = Some(Resting::Dormant(Box::new(dormant)));
            }
        }
        self.count(state);
    }

    /// Whether no connection uses the document and nothing is under way.
    pub(crate) fn is_unused(&self) -> bool {
        let state = self.state();
        let unused = state.resting.as_ref().is_none_or(|resting| match resting {
            Resting::Loaded(document) => document.is_unused(),
            Resting::Dormant(dormant) => dormant.peers.is_empty(),
        });
        !state.running && state.mailbox.is_empty() && unused
    }
}

impl Waiter for Slot {
    fn id(&self) -> DocumentId {
        self.id
    }

    fn invite(self: Arc<Self>, invitation: Invitation) {
        self.push(Input::Room(Arc::new(invitation)));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        self.services.evictable.leave(&mut state.counted);
        self.services.evictable.count(&mut state.counted, 0);
    }
}
