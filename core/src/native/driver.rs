//! The one task that drives an engine: hands in what happened, does what comes out.
//!
//! It owns every other task of the client, and never waits for one of them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use automerge::{ActorId, ChangeHash};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::address::Address;
use super::connection::Connections;
use super::document_events::News;
use super::log::{Log, Note};
use super::news::{Broadcast, CHANGES_MAX, Changed, EPHEMERAL_MAX, Gone};
use super::socket::{self, FAREWELL, Order};
use super::traffic::Traffic;
use super::{COMMIT_BATCHES_MAX, Committer};
use crate::engine::{
    self, Asked, Engine, FRAMES_MAX, FindError, Input, NotCurrent, Output, Status,
};
use crate::id::{ConnectionId, DocumentId};
use crate::replica::LiveDocument;
use crate::storage::{Storage, StorageError};

/// What waits for the driver; when it is full, connections are not read, and commits that are done
/// wait to say so.
const INPUTS_MAX: usize = 256;

/// What waits for a connection: the frames that the engine allows, the join, and pings, of which
/// an engine sends none before the one before was answered.
const ORDERS_MAX: usize = FRAMES_MAX + 4;

/// After this long the driver lets those go first who want to hand something in.
const HOLD_MAX: Duration = Duration::from_micros(200);

/// So many documents may be watched without a handle before it is looked whether they still are.
const WATCHED_ALONE_MIN: usize = 16;

/// What the application's calls and the driver share. The lock is held for short: never across an
/// await, nor while a document is read or edited, which has a [lock of its own](LiveDocument). Who holds
/// that one may take this one, and never the other way round.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// The application changed something.
    pub(super) wake: Notify,
    pub(super) traffic: Traffic,
    /// Documents of which a last handle was dropped; whoever drops it may hold the other lock.
    dropped: Mutex<Vec<DocumentId>>,
    started: Instant,
}

/// Who waits for a document, and uses it from the moment in which it is found.
type Finder = oneshot::Sender<Result<Arc<Lease>, FindError>>;

#[derive(Debug)]
pub(super) struct State {
    pub(super) engine: Engine,
    pub(super) finders: HashMap<DocumentId, Vec<Finder>>,
    pub(super) deleters: HashMap<DocumentId, Vec<oneshot::Sender<Result<(), StorageError>>>>,
    watchers: HashMap<DocumentId, Watchers>,
    /// Documents that somebody watches without a handle, and when there are how many of them those
    /// are forgotten that nobody watches any more.
    watched_alone: Vec<DocumentId>,
    watched_alone_max: usize,
    leases: HashMap<DocumentId, Weak<Lease>>,
    /// Those who ask whether a document is current.
    pub(super) askers: HashMap<Asked, oneshot::Sender<Result<(), NotCurrent>>>,
    /// Those who want to hear which documents there are.
    pub(super) news: News,
    pub(super) connections: Connections,
    /// How many wait for a relay to acknowledge something.
    pub(super) syncers: usize,
    /// `None` after the client was shut down: nothing is taken in any more, and the file is free.
    pub(super) storage: Option<Arc<dyn Storage>>,
    /// What is to be said in the log.
    notes: Vec<Note>,
    /// The driver has ended: nothing that is not stored will be.
    pub(super) ended: bool,
}

/// Keeps a document in memory: its handles and the streams of its news have one together.
#[derive(Debug)]
pub(super) struct Lease {
    shared: Weak<Shared>,
    document: DocumentId,
    /// As it was when it was used last.
    live: Mutex<Option<Arc<LiveDocument>>>,
}

impl Lease {
    /// The contents, to be read.
    pub(super) fn live(&self, shared: &Shared) -> Result<Arc<LiveDocument>, Gone> {
        let mut live = self.live.lock();
        if let Some(live) = live.as_ref().filter(|live| !live.is_retired()) {
            return Ok(live.clone());
        }
        let state = shared.state();
        *live = state.engine.live(&self.document);
        live.clone().ok_or_else(|| state.why_gone(&self.document))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.dropped().push(self.document);
            shared.wake.notify_one();
        }
    }
}

/// Those who want to hear of a document.
#[derive(Debug)]
pub(super) struct Watchers {
    pub(super) changes: broadcast::Sender<Arc<Changed>>,
    /// The heads of the contents as they were last told.
    pub(super) heads: Vec<ChangeHash>,
    pub(super) status: watch::Sender<Status>,
    pub(super) quarantined: watch::Sender<Arc<[ChangeHash]>>,
    /// The heads of what is stored, once somebody follows that.
    durable: watch::Sender<Vec<ChangeHash>>,
    pub(super) ephemeral: broadcast::Sender<Broadcast>,
    /// How often everything was stored, and the last failure since.
    pub(super) stored: watch::Sender<(u64, Option<StorageError>)>,
}

impl Watchers {
    fn new(engine: &Engine, id: DocumentId) -> Self {
        let heads = engine.contents_heads(&id).unwrap_or_default();
        let status = engine.status(&id).cloned().unwrap_or(Status::Offline);
        Self {
            changes: broadcast::Sender::new(CHANGES_MAX),
            heads: heads.to_vec(),
            status: watch::Sender::new(status),
            quarantined: watch::Sender::new(engine.quarantined(&id)),
            durable: watch::Sender::new(engine.durable_heads(&id)),
            ephemeral: broadcast::Sender::new(EPHEMERAL_MAX),
            stored: watch::Sender::new((0, None)),
        }
    }

    /// Whether somebody watches; the streams use the document besides.
    fn are_there(&self) -> bool {
        self.status.receiver_count() > 0
            || self.quarantined.receiver_count() > 0
            || self.stored.receiver_count() > 0
    }
}

impl Shared {
    pub(super) fn new(engine: Engine, storage: Arc<dyn Storage>, relays: Vec<Arc<str>>) -> Self {
        Self {
            state: Mutex::new(State {
                connections: Connections::new(relays, &engine),
                syncers: 0,
                engine,
                finders: HashMap::new(),
                deleters: HashMap::new(),
                askers: HashMap::new(),
                news: News::default(),
                watchers: HashMap::new(),
                watched_alone: Vec::new(),
                watched_alone_max: WATCHED_ALONE_MIN,
                leases: HashMap::new(),
                storage: Some(storage),
                notes: Vec::new(),
                ended: false,
            }),
            wake: Notify::new(),
            traffic: Traffic::default(),
            dropped: Mutex::default(),
            started: Instant::now(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn dropped(&self) -> MutexGuard<'_, Vec<DocumentId>> {
        self.dropped.lock()
    }

    /// Somebody does not wait for a document any more. If nobody else does, it is not looked for, and
    /// what is not there leaves memory.
    pub(super) fn stop_searching(&self, document: DocumentId) {
        let mut state = self.state();
        let Some(finders) = state.finders.get_mut(&document) else {
            return;
        };
        finders.retain(|finder| !finder.is_closed());
        if finders.is_empty() {
            state.finders.remove(&document);
            state.engine.stop_finding(&document);
            state.let_go(vec![document]);
            self.wake.notify_one();
        }
    }

    /// Keeps a document that is ready in memory.
    pub(super) fn lease(self: &Arc<Self>, document: DocumentId) -> Arc<Lease> {
        self.state().lease(self, document)
    }
}

/// Tells those who watch, if it is something new.
fn tell<T: PartialEq>(watchers: &watch::Sender<T>, now: T) {
    watchers.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    });
}

impl State {
    /// Why a document that was found cannot be used.
    pub(super) fn why_gone(&self, id: &DocumentId) -> Gone {
        if self.engine.is_deleted(id) {
            Gone::Deleted
        } else if self.storage.is_none() {
            Gone::Closed
        } else {
            Gone::Unusable
        }
    }

    /// Looks at those who want to hear of a document. Of one that is not here any more there is
    /// nothing to hear: who listens then hears the end at once.
    pub(super) fn watch<T>(&mut self, id: DocumentId, look: impl FnOnce(&Watchers) -> T) -> T {
        if self.ended || !self.engine.is_open(&id) {
            return look(&Watchers::new(&self.engine, id));
        }
        if !self.watchers.contains_key(&id) && !self.is_used(&id) {
            self.watch_alone(id);
        }
        let new = || Watchers::new(&self.engine, id);
        look(self.watchers.entry(id).or_insert_with(new))
    }

    /// A document is watched without a handle. Nothing tells when that ends, so from time to time
    /// it is looked at.
    fn watch_alone(&mut self, id: DocumentId) {
        if self.watched_alone.len() >= self.watched_alone_max {
            let mut alone = std::mem::take(&mut self.watched_alone);
            alone.retain(|id| {
                let is_watched = self.watchers.get(id).is_some_and(Watchers::are_there);
                let is_used = self.is_used(id);
                if !is_watched && !is_used {
                    self.watchers.remove(id);
                }
                is_watched && !is_used
            });
            self.watched_alone_max = (2 * alone.len()).max(WATCHED_ALONE_MIN);
            self.watched_alone = alone;
        }
        self.watched_alone.push(id);
    }

    fn is_used(&self, id: &DocumentId) -> bool {
        let used = self.leases.get(id);
        used.is_some_and(|used| used.strong_count() > 0)
    }

    /// The heads of what is stored of a document, now and from now on.
    pub(super) fn watch_durable(&mut self, id: DocumentId) -> watch::Receiver<Vec<ChangeHash>> {
        let now = self.engine.durable_heads(&id);
        self.watch(id, |watchers| {
            tell(&watchers.durable, now);
            watchers.durable.subscribe()
        })
    }

    /// Something of a document was stored.
    fn stored(&self, id: DocumentId) {
        if let Some(watchers) = self.watchers.get(&id)
            && watchers.durable.receiver_count() > 0
        {
            tell(&watchers.durable, self.engine.durable_heads(&id));
        }
    }

    /// Begins to remember what changes in a document, and gives the heads from which on.
    pub(super) fn listen(
        &mut self,
        id: DocumentId,
    ) -> (Vec<ChangeHash>, broadcast::Receiver<Arc<Changed>>) {
        // What shows already is none of their news, though nobody was told of it yet.
        self.publish(id);
        self.engine.observe(&id, true);
        self.watch(id, |watchers| {
            (watchers.heads.clone(), watchers.changes.subscribe())
        })
    }

    /// Tells those who watch what is so now.
    pub(super) fn publish(&mut self, id: DocumentId) {
        let heads = self.engine.contents_heads(&id).map(<[_]>::to_vec);
        let status = self.engine.status(&id).cloned();
        let quarantined = self.engine.quarantined(&id);
        let Some(watchers) = self.watchers.get_mut(&id) else {
            return;
        };
        if let Some(heads) = heads
            && watchers.heads != heads
        {
            let before = std::mem::replace(&mut watchers.heads, heads.clone());
            if watchers.changes.receiver_count() > 0 {
                let patches = self.engine.take_patches(&id).list;
                // Nobody minds if the last listener has just gone.
                let _ = watchers.changes.send(Arc::new(Changed {
                    before,
                    after: heads,
                    patches,
                }));
            } else {
                self.engine.observe(&id, false);
            }
        }
        if let Some(status) = status {
            tell(&watchers.status, status);
        }
        // A document that is read again has none for that moment.
        if !quarantined.is_empty() {
            tell(&watchers.quarantined, quarantined);
        }
    }

    fn lease(&mut self, shared: &Arc<Shared>, document: DocumentId) -> Arc<Lease> {
        if let Some(used) = self.leases.get(&document).and_then(Weak::upgrade) {
            return used;
        }
        let used = Arc::new(Lease {
            shared: Arc::downgrade(shared),
            document,
            live: Mutex::default(),
        });
        self.leases.insert(document, Arc::downgrade(&used));
        self.engine.hold(&document);
        used
    }

    /// Lets go of documents whose handles and streams are all gone.
    fn let_go(&mut self, dropped: Vec<DocumentId>) {
        for id in dropped {
            if self.is_used(&id) {
                continue;
            }
            self.leases.remove(&id);
            if !self.finders.contains_key(&id) {
                self.engine.let_go(&id);
            }
            match self.watchers.get(&id).map(Watchers::are_there) {
                Some(true) => self.watch_alone(id),
                Some(false) => {
                    self.watchers.remove(&id);
                }
                None => {}
            }
        }
    }

    /// Does the next thing that needs no IO, or adds to those that do; or says that there is nothing
    /// more, until then.
    fn step(&mut self, shared: &Arc<Shared>, outputs: &mut Vec<Output>) -> Option<Wake> {
        let output = self.engine.poll_output();
        self.notes.extend(Note::of(&output, &self.engine));
        match output {
            Output::Idle { wake_at } => {
                self.connections.publish(&self.engine);
                return Some(Wake(wake_at));
            }
            Output::Found(id, result) => {
                // Who gives up before they look at the answer drop the use with it.
                let result = result.map(|()| self.lease(shared, id));
                for finder in self.finders.remove(&id).unwrap_or_default() {
                    let _ = finder.send(result.clone());
                }
                if result.is_err() {
                    self.let_go(vec![id]);
                }
            }
            Output::Changed(id)
            | Output::Status(id, _)
            | Output::TakenOut(id)
            | Output::Salvaged(id) => {
                self.publish(id);
            }
            Output::Ephemeral {
                document,
                sender,
                data,
            } => {
                if let Some(watchers) = self.watchers.get(&document) {
                    let _ = watchers.ephemeral.send(Broadcast { sender, data });
                }
            }
            Output::Flushed(id) => {
                if let Some(watchers) = self.watchers.get(&id) {
                    watchers
                        .stored
                        .send_modify(|(count, error)| (*count, *error) = (*count + 1, None));
                }
            }
            Output::StoreFailed(id, error) => {
                for deleter in self.deleters.remove(&id).unwrap_or_default() {
                    let _ = deleter.send(Err(error.clone()));
                }
                if let Some(watchers) = self.watchers.get(&id) {
                    watchers.stored.send_modify(|stored| stored.1 = Some(error));
                }
            }
            Output::Added(id) => self.news.tell(id, true),
            Output::Deleted(id) => {
                self.news.tell(id, false);
                self.watchers.remove(&id);
                for deleter in self.deleters.remove(&id).unwrap_or_default() {
                    let _ = deleter.send(Ok(()));
                }
            }
            Output::Current(asked, answer) => {
                if let Some(asker) = self.askers.remove(&asked) {
                    let _ = asker.send(answer);
                }
            }
            output => outputs.push(output),
        }
        None
    }
}

/// When there is something to do again, if nothing happens before.
struct Wake(Option<Duration>);

/// Drives the engine until `stop` is dropped or told so, then lets connections and the writer end.
pub(super) async fn drive(
    end: EndGuard,
    storage: Arc<dyn Storage>,
    addresses: Vec<Address>,
    committer: Committer,
    mut stop: oneshot::Receiver<()>,
) {
    let shared = end.0.clone();
    let (inputs, mut received) = mpsc::channel(INPUTS_MAX);
    let mut driver = Driver {
        shared: shared.clone(),
        storage,
        addresses,
        relays: shared.state().connections.names(),
        traffic: shared.traffic.clone(),
        committer,
        inputs,
        lines: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let (mut batch, mut outputs) = (Vec::new(), Vec::new());
    let mut log = Log::default();
    let mut connections = shared.state().connections.watch();
    loop {
        let (wake_at, notes) = {
            let dropped = std::mem::take(&mut *shared.dropped());
            let mut state = shared.state();
            state.let_go(dropped);
            let now = shared.now();
            if batch.is_empty() {
                state.engine.handle(now, Input::Tick);
            }
            // All that came is taken in before anything is decided.
            for input in batch.drain(..) {
                let stored = match &input {
                    Input::Stored(id, Ok(())) => Some(*id),
                    _ => None,
                };
                state.engine.handle(now, input);
                if let Some(id) = stored {
                    state.stored(id);
                }
            }
            if !state.finders.is_empty() || state.syncers > 0 {
                state.engine.hurry();
            }
            let mut since = Instant::now();
            loop {
                if let Some(Wake(wake_at)) = state.step(&shared, &mut outputs) {
                    break (wake_at, std::mem::take(&mut state.notes));
                }
                if since.elapsed() > HOLD_MAX {
                    MutexGuard::bump(&mut state);
                    since = Instant::now();
                }
            }
        };
        notes.iter().for_each(|note| log.note(note));
        if connections.has_changed().unwrap_or(false) {
            log.connections(connections.borrow_and_update().clone());
        }
        for output in outputs.drain(..) {
            driver.perform(output);
        }
        let idle = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(shared.started + at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut stop => break,
            _ = received.recv_many(&mut batch, INPUTS_MAX) => {}
            () = shared.wake.notified() => {}
            () = idle => {}
            // What ended said so by an input.
            Some(_) = driver.tasks.join_next() => {}
        }
    }
    driver.lines.clear();
    drop(received);
    let farewells = async { while driver.tasks.join_next().await.is_some() {} };
    // Who is still being connected to is not waited for.
    let _ = tokio::time::timeout(2 * FAREWELL, farewells).await;
    driver.tasks.shutdown().await;
}

/// However the driver ends, nobody waits for it in vain: also if its runtime ends before it ran at all.
pub(super) struct EndGuard(Arc<Shared>);

impl EndGuard {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self(shared.clone())
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.ended = true;
        state.storage = None;
        state.finders.clear();
        state.deleters.clear();
        state.askers.clear();
        state.news.end();
        state.connections.end();
        state.watchers.clear();
    }
}

struct Driver {
    shared: Arc<Shared>,
    storage: Arc<dyn Storage>,
    addresses: Vec<Address>,
    relays: Vec<Arc<str>>,
    traffic: Traffic,
    committer: Committer,
    inputs: mpsc::Sender<Input>,
    lines: HashMap<ConnectionId, mpsc::Sender<Order>>,
    tasks: JoinSet<()>,
}

impl Driver {
    fn perform(&mut self, output: Output) {
        match output {
            Output::Connect(relay, connection) => {
                let (orders, receiver) = mpsc::channel(ORDERS_MAX);
                self.lines.insert(connection, orders);
                let (address, storage) = (self.addresses[relay.0].clone(), self.storage.clone());
                let line = socket::Line {
                    relay: self.relays[relay.0].clone(),
                    connection,
                    inputs: self.inputs.clone(),
                    traffic: self.traffic.clone(),
                };
                self.tasks
                    .spawn(socket::run(line, address, storage, receiver));
            }
            Output::Disconnect(connection) => {
                self.lines.remove(&connection);
            }
            Output::Send(connection, frame) => self.order(connection, Order::Send(frame)),
            Output::Ping(connection) => self.order(connection, Order::Ping),
            Output::Load { document, contents } => {
                let storage = self.storage.clone();
                self.spawn_blocking(
                    move || engine::load(&*storage, &document, contents, new_actor()),
                    move |loaded| Input::Loaded(document, loaded.map(Box::new)),
                );
            }
            Output::LoadGraph {
                document,
                key,
                segments,
            } => {
                let storage = self.storage.clone();
                self.spawn_blocking(
                    move || engine::load_graph(&*storage, key, segments),
                    move |graph| Input::Graph(document, graph),
                );
            }
            Output::Fold(document, folding) => {
                let storage = self.storage.clone();
                self.spawn_blocking(
                    move || engine::fold(&*storage, &folding),
                    move |folded| Input::Folded(document, folded),
                );
            }
            Output::Settle(document, settling) => {
                let shared = self.shared.clone();
                let settle = move || {
                    let settled = settling.run();
                    shared.state().engine.settled(document, settled);
                    shared.wake.notify_one();
                };
                // Whoever ends the client does not wait for those who read the document.
                self.tasks.spawn(async move {
                    let _ = tokio::task::spawn_blocking(settle).await;
                });
            }
            Output::Store(batch) => {
                let (committer, inputs) = (self.committer.clone(), self.inputs.clone());
                // At most one per document, and at most so many wait for the writer.
                const _: () = assert!(COMMIT_BATCHES_MAX > 0);
                self.tasks.spawn(async move {
                    let document = batch.document;
                    let result = committer.commit(batch).await.map_err(StorageError::from);
                    let _ = inputs.send(Input::Stored(document, result)).await;
                });
            }
            Output::Idle { .. }
            | Output::Found(..)
            | Output::Changed(_)
            | Output::TakenOut(_)
            | Output::Salvaged(_)
            | Output::Status(..)
            | Output::Ephemeral { .. }
            | Output::Flushed(_)
            | Output::StoreFailed(..)
            | Output::Added(_)
            | Output::Deleted(_)
            | Output::Current(..) => unreachable!("needs no IO"),
        }
    }

    fn order(&mut self, connection: ConnectionId, order: Order) {
        let Some(line) = self.lines.get(&connection) else {
            return;
        };
        // The engine counts what is on its way, so there is room unless the connection ended.
        if line.try_send(order).is_err() {
            self.lines.remove(&connection);
        }
    }

    fn spawn_blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
        input: impl FnOnce(Result<T, StorageError>) -> Input + Send + 'static,
    ) {
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            let result = tokio::task::spawn_blocking(work).await;
            let result = result.unwrap_or_else(|panic| Err(StorageError::failed(panic)));
            let _ = inputs.send(input(result)).await;
        });
    }
}

/// An actor that nobody used before.
pub(super) fn new_actor() -> ActorId {
    ActorId::from(uuid::Uuid::new_v4().into_bytes().to_vec())
}
