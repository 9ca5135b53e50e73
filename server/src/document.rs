//! One document: a mailbox, and the turns that empty it.
//!
//! A [`Slot`] has a mailbox and, while there is something in it, one task. The task takes all that
//! came, runs one *turn* and looks again; when the mailbox is empty it lays the document down in
//! the slot and ends, so an idle document costs no task. A turn is: take in every message, commit
//! what is new, then ask the history what each peer should be sent and hand that to the peers that
//! have room. What a failed commit leaves behind is dropped and read again from disk; nobody was
//! told of it. What was to be committed is kept and tried again, and until that is done the document
//! takes no changes: their senders are asked for them afterwards, once.

mod building;
mod reminders;
mod salvaging;
mod sending;
mod verifying;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::FutureExt;
use reconverge::history::{AtRest, Documents, History, NeedGraph, Peers, Progress, Received, Work};
use reconverge::id::{Access, ConnectionId, DocumentId};
use reconverge::native::NotCommitted;
use reconverge::protocol::limits::REMOTE_HEADS_MAX;
use reconverge::protocol::{ChangeHash, SyncMessage};
use reconverge::storage::{Batch, Blob, DocumentKey, StorageError, Write};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, error, info, warn};

use crate::access::Asking;
use crate::config::Verify;
use crate::connection::{Connection, Permit, SPOKEN_OF_BYTES};
use crate::fair::Turn;
use crate::line::Called;
use crate::memory::{Charge, SMALL_BYTES};
use crate::open::Counted;
use crate::relay::Shared;
use crate::remote_heads::{RemoteHeads, Seen, shown};
use crate::trouble::Trouble;
use crate::unstored::Kept;

pub(crate) use building::BuildResult;
pub(crate) use reminders::Reminders;
use verifying::recall_quarantined;

/// A damaged document is begun anew at most so often; whoever speaks of it meanwhile makes it be
/// read again.
const SALVAGE_AFTER: Duration = Duration::from_secs(60);

/// What an open document holds beside its history.
const DOCUMENT_BYTES: usize = 1_500;

/// What is held because of a peer is charged to it from so many bytes on.
const CHARGED_BYTES_MIN: usize = 2 * 1024;

/// Messages above this size are not even read where sockets are served.
const LIGHT_BYTES_MAX: usize = 64 * 1024;

/// What comes to a document.
pub(crate) enum Input {
    /// A sync message.
    Message(Arc<Incoming>),
    /// Heads that a peer heard of.
    RemoteHeads {
        from: ConnectionId,
        heads: Vec<(String, Seen)>,
        _permit: Permit,
    },
    /// A peer wants to hear of these storages' heads.
    Replay {
        to: Arc<Connection>,
        storages: Arc<[String]>,
    },
    /// A connection ended.
    Leave(ConnectionId),
    /// The peer of one whose upload was being unpacked is gone.
    Gone(ConnectionId),
    /// There is room for this document where there was none.
    Room(Arc<Called>),
    /// A peer's request waited for so long.
    Grace(ConnectionId, Duration),
    /// A message that takes long has a turn, or its peer is gone for too long.
    Part {
        from: ConnectionId,
        _turn: Option<Turn>,
    },
    /// The workshop is done.
    Built(Box<BuildResult>),
    /// Changes were stored a while ago and are not checked yet.
    Verify(Arc<OwnedSemaphorePermit>),
    /// Storage failed a while ago.
    Retry,
    /// The same, and what was to be stored is to be tried again.
    Store,
}

impl Input {
    /// Whether it is taken in without the history.
    fn needs_nothing(&self) -> bool {
        matches!(
            self,
            Self::Leave(_) | Self::Gone(_) | Self::RemoteHeads { .. } | Self::Replay { .. }
        )
    }
}

/// A sync message, and the permit that bounds how many of them wait.
pub(crate) struct Incoming {
    pub(crate) from: Arc<Connection>,
    pub(crate) data: Bytes,
    pub(crate) _permit: Permit,
}

/// A document that somebody uses.
pub(crate) struct Slot {
    id: DocumentId,
    name: Arc<str>,
    relay: Arc<Shared>,
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
    counted: Counted,
}

/// A document for which nothing is to be done.
enum Resting {
    Laid(Box<Document>),
    /// It is not in memory, and its peers are at rest: they take some hundred bytes, so that one
    /// connection may speak of very many documents.
    Asleep(Box<Asleep>),
}

struct Asleep {
    peers: Vec<(Arc<Connection>, AtRest)>,
    remote_heads: RemoteHeads,
    not_told: Box<[ConnectionId]>,
}

impl Asleep {
    /// What it holds that no connection is charged for.
    fn bytes(&self) -> usize {
        let itself = match self.peers.is_empty() {
            true => SPOKEN_OF_BYTES,
            false => 0,
        };
        itself + self.remote_heads.bytes()
    }

    fn awoken(self) -> Document {
        let connections = self.peers.iter();
        let connections = connections.map(|(to, _)| (to.id, to.clone())).collect();
        let peers = self.peers.into_iter().map(|(to, rest)| (to.id, rest));
        Document {
            parked: Peers::awoken(peers),
            connections,
            remote_heads: self.remote_heads,
            not_told: self.not_told.into_iter().collect(),
            ..Document::default()
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Slot {
    pub(crate) fn new(id: DocumentId, relay: Arc<Shared>) -> Self {
        let state = State {
            mailbox: VecDeque::new(),
            running: false,
            resting: None,
            used: Instant::now(),
            was_used: false,
            counted: Counted::default(),
        };
        Self {
            id,
            name: id.to_string().into(),
            relay,
            state: Mutex::new(state),
            audience: RwLock::new(Arc::from([])),
        }
    }

    pub(crate) fn id(&self) -> DocumentId {
        self.id
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
            self.relay.tasks.spawn(async move { slot.run().await });
        }
    }

    fn damaged(&self, what: &'static str) -> StorageError {
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
            Some(Resting::Asleep(asleep)) if at_rest => {
                let mut peers = asleep.peers.iter();
                if let Some(at) = peers.position(|(peer, _)| peer.id == connection) {
                    let (peer, _) = asleep.peers.swap_remove(at);
                    if let Some(storage) = &peer.storage_id {
                        asleep.remote_heads.left(storage);
                    }
                }
                self.set_audience(asleep.peers.iter().map(|(peer, _)| peer));
            }
            Some(Resting::Laid(document)) if at_rest && document.is_quiet() => {
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
            true => self.relay.make_room(),
            false => self.relay.documents.forget_unused(self),
        }
    }

    /// Tells the document that there is room which it waited for.
    pub(crate) fn room(self: &Arc<Self>, called: Called) {
        self.push(Input::Room(Arc::new(called)));
    }

    /// Tells a peer what these storages were last seen with. Of most documents that is nothing, which
    /// takes no turn.
    pub(crate) fn replay(self: &Arc<Self>, to: &Arc<Connection>, storages: &Arc<[String]>) {
        let nothing = match &self.state().resting {
            Some(Resting::Laid(document)) => document.remote_heads.is_empty(),
            Some(Resting::Asleep(asleep)) => asleep.remote_heads.is_empty(),
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
    fn push_after(self: &Arc<Self>, delay: Duration, input: Input) {
        let slot = self.clone();
        self.relay.tasks.spawn(async move {
            tokio::select! {
                () = slot.relay.stopping.cancelled() => {}
                () = tokio::time::sleep(delay) => slot.push(input),
            }
        });
    }

    pub(crate) fn audience(&self) -> Arc<[Arc<Connection>]> {
        self.audience
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_audience<'a>(&self, connections: impl Iterator<Item = &'a Arc<Connection>>) {
        let audience = connections.cloned().collect();
        *self
            .audience
            .write()
            .unwrap_or_else(PoisonError::into_inner) = audience;
    }

    /// Empties the mailbox, turn by turn.
    async fn run(self: Arc<Self>) {
        let mut document = self.get_up();
        loop {
            let inputs = {
                let mut state = self.state();
                if state.mailbox.is_empty() {
                    // It was opened for a check, or its last peer left in the midst of something.
                    let is_over =
                        document.connections.is_empty() && document.remote_heads.is_empty();
                    self.lay_down(&mut state, document);
                    if is_over {
                        self.evict_now(&mut state);
                    }
                    drop(state);
                    if is_over {
                        self.relay.documents.forget_unused(&self);
                    }
                    self.relay.make_room();
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

    fn get_up(&self) -> Box<Document> {
        let resting = self.state().resting.take();
        let mut document = match resting {
            Some(Resting::Laid(document)) => return document,
            Some(Resting::Asleep(asleep)) => Box::new(asleep.awoken()),
            None => Box::default(),
        };
        document.verifying = self.relay.reminders.take_up(&self.id);
        document
    }

    fn lay_down(self: &Arc<Self>, state: &mut State, document: Box<Document>) {
        state.used = Instant::now();
        state.was_used = true;
        state.running = false;
        state.resting = Some(Resting::Laid(document));
        self.count(state);
    }

    /// Counts what a document at rest holds, and whether it is anything that can be let go of.
    fn count(self: &Arc<Self>, state: &mut State) -> bool {
        let (bytes, keeps) = match &state.resting {
            Some(Resting::Laid(document)) => {
                let keeps = document.history.is_some() || !document.remote_heads.is_empty();
                (document.bytes(), keeps)
            }
            Some(Resting::Asleep(asleep)) => (asleep.bytes(), !asleep.remote_heads.is_empty()),
            None => (0, false),
        };
        let open = &self.relay.open;
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
            self.relay.open.stand_last(self, &mut state.counted);
            return;
        }
        match &mut state.resting {
            Some(Resting::Laid(document)) => document.remote_heads = RemoteHeads::default(),
            Some(Resting::Asleep(asleep)) => asleep.remote_heads = RemoteHeads::default(),
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
        if let Some(Resting::Laid(document)) = &mut state.resting {
            document.evict();
            if let Some(asleep) = document.asleep(self) {
                state.resting = Some(Resting::Asleep(Box::new(asleep)));
            }
        }
        self.count(state);
    }

    /// Whether no connection uses the document and nothing is under way.
    pub(crate) fn is_unused(&self) -> bool {
        let state = self.state();
        let unused = state.resting.as_ref().is_none_or(|resting| match resting {
            Resting::Laid(document) => document.is_unused(),
            Resting::Asleep(asleep) => asleep.peers.is_empty(),
        });
        !state.running && state.mailbox.is_empty() && unused
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        self.relay.open.leave(&mut state.counted);
        self.relay.open.count(&mut state.counted, 0);
    }
}

/// A document that is open.
#[derive(Default)]
struct Document {
    /// Boxed, so that a document which was evicted is small.
    history: Option<Box<Open>>,
    /// The peers, while there is no history.
    parked: Peers,
    connections: HashMap<ConnectionId, Arc<Connection>>,
    remote_heads: RemoteHeads,
    /// What waits while storage fails.
    backlog: VecDeque<Input>,
    /// What could not be stored.
    unstored: Option<Kept>,
    /// Changes were sent and not taken or lost; their senders are asked for them when nothing waits
    /// to be stored.
    asks_again: bool,
    building: building::Building,
    verifying: verifying::Verifying,
    concerned: Concerned,
    /// When it was last begun anew, because it was damaged.
    salvaged: Option<Instant>,
    /// Those whose messages exceed a limit, which they were told.
    not_taken: HashSet<ConnectionId>,
    /// Those who have not read what they asked for, and are told when they have that the document is
    /// unavailable, and the heads of storages.
    not_told: HashSet<ConnectionId>,
    /// Those whose requests wait for somebody who has the document.
    graces: HashSet<ConnectionId>,
    /// There was something in it when somebody asked.
    had_contents: bool,
    /// Who called it in this turn.
    called: Vec<Arc<Called>>,
    /// Who spoke in this turn.
    spoke: Vec<ConnectionId>,
    /// What is held because of a peer, where that is much.
    charges: HashMap<ConnectionId, Charge>,
    /// What was taken in during this turn and is not stored yet, of those who sent much.
    unsaved: Vec<Charge>,
}

/// How much of a message was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    /// A document chunk is to be unpacked first.
    Unpack,
    /// What is left takes long.
    Part,
}

/// Who may have something to be sent at the end of the turn.
enum Concerned {
    All,
    Some(Vec<ConnectionId>),
}

impl Default for Concerned {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl Concerned {
    fn add(&mut self, connection: ConnectionId) {
        if let Self::Some(some) = self {
            some.push(connection);
        }
    }
}

struct Open {
    key: DocumentKey,
    history: History,
    /// Whether the record is stored.
    stored: bool,
}

impl Open {
    /// The graph of the folded changes, as it is stored.
    fn segments(&self, slot: &Slot) -> Result<Vec<Bytes>, StorageError> {
        (0..self.history.record().segments)
            .map(|number| slot.relay.storage.blob(self.key, Blob::Segment(number)))
            .collect()
    }
}

impl Document {
    fn is_unused(&self) -> bool {
        self.connections.is_empty() && self.is_quiet() && self.verifying.is_idle()
    }

    /// Whether nothing waits, and nothing is being built.
    fn is_quiet(&self) -> bool {
        self.backlog.is_empty() && self.unstored.is_none() && self.building.is_idle()
    }

    /// What it holds that nobody else is charged for.
    fn bytes(&self) -> usize {
        let held = match &self.history {
            Some(open) => open.history.held_bytes(),
            None => self.parked.held_bytes(),
        };
        let charged: usize = self.charges.values().map(Charge::bytes).sum();
        (DOCUMENT_BYTES + held).saturating_sub(charged) + self.remote_heads.bytes()
    }

    fn held_for(&self, peer: ConnectionId) -> usize {
        match &self.history {
            Some(open) => open.history.held_for(peer),
            None => self.parked.held_for(peer),
        }
    }

    /// What is to be charged to a peer: what is held because of it, if that is much; and however little
    /// it is, if the document cannot rest because of it. What that waits for may never come, and there
    /// may be very many such documents.
    fn due_from(&self, peer: ConnectionId) -> usize {
        let held = self.held_for(peer);
        let rests = match &self.history {
            _ if held > CHARGED_BYTES_MIN => return held,
            Some(open) => open.history.rests(peer),
            None => self.parked.rests(peer),
        };
        if rests { 0 } else { DOCUMENT_BYTES + held }
    }

    /// Charges a connection for so much.
    fn charge(&mut self, connection: &Connection, bytes: usize) {
        let charge = self.charges.entry(connection.id);
        let charge = charge.or_insert_with(|| connection.holder.charge(0));
        charge.resize(bytes);
    }

    /// Charges those who spoke in this turn, and those who are charged already: what they sent may not
    /// wait any more.
    fn charge_all(&mut self) {
        let mut spoke = std::mem::take(&mut self.spoke);
        spoke.dedup();
        for peer in spoke.drain(..) {
            let due = self.due_from(peer);
            if due > 0
                && let Some(connection) = self.connections.get(&peer).cloned()
            {
                self.charge(&connection, due);
            }
        }
        self.spoke = spoke;
        let mut charges = std::mem::take(&mut self.charges);
        charges.retain(|peer, charge| {
            charge.resize(self.due_from(*peer));
            charge.bytes() > 0
        });
        self.charges = charges;
    }

    /// Drops graph and caches, keeps the peers and what they know.
    fn evict(&mut self) {
        self.backlog.shrink_to_fit();
        if self.building.is_idle() && !self.verifying.runs() {
            self.park();
            self.charge_all();
        }
    }

    /// All that is to be remembered of it while nothing comes, if that is little.
    fn asleep(&mut self, slot: &Slot) -> Option<Asleep> {
        let is_little = self.history.is_none()
            && self.backlog.is_empty()
            && self.unstored.is_none()
            && !self.asks_again
            && self.not_taken.is_empty()
            && self.graces.is_empty()
            && self.salvaged.is_none()
            && self.building.is_idle()
            && self.verifying.may_rest();
        let rest = is_little.then(|| self.parked.at_rest())??;
        if rest.len() != self.connections.len() {
            return None;
        }
        let with_connection = |(id, rest)| Some((self.connections.get(&id)?.clone(), rest));
        let mut peers: Vec<_> = rest
            .into_iter()
            .map(with_connection)
            .collect::<Option<_>>()?;
        peers.shrink_to_fit();
        if self.verifying.is_reminded() {
            let verifying = self.verifying.rest();
            slot.relay.reminders.lay_down(slot.id, verifying);
        }
        Some(Asleep {
            peers,
            remote_heads: std::mem::take(&mut self.remote_heads),
            not_told: self.not_told.drain().collect(),
        })
    }

    fn park(&mut self) {
        if let Some(open) = self.history.take() {
            self.parked = open.history.into_peers();
        }
    }

    async fn turn(&mut self, slot: &Arc<Slot>, inputs: VecDeque<Input>) {
        if self.history.is_none()
            && self.backlog.is_empty()
            && inputs.iter().all(Input::needs_nothing)
        {
            for input in inputs {
                self.take_in_beside(slot, &input);
            }
            return;
        }
        self.backlog.extend(inputs);
        let result = self.try_turn(slot).await;
        self.called.clear();
        self.unsaved.clear();
        if let Err(failure) = result {
            Trouble::failed(&slot.relay, &slot.name, &failure);
            self.give_turns_back();
            self.verifying.give_place_back();
            if let Some(open) = self.history.take() {
                self.asks_again |= open.history.has_more_than_is_stored();
                self.parked = open.history.into_peers_after_failure();
            }
            let damaged = matches!(failure, StorageError::Damaged { .. });
            if damaged && self.unstored.take().is_some() {
                self.asks_again = true;
            }
            if !damaged {
                slot.push_after(slot.relay.config.storage_retry, Input::Retry);
            } else if self.salvage(slot).await {
                slot.push(Input::Retry);
            } else {
                slot.push_after(SALVAGE_AFTER, Input::Retry);
            }
        }
    }

    async fn try_turn(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        if self.backlog.iter().any(|i| matches!(i, Input::Store)) {
            self.backlog.retain(|i| !matches!(i, Input::Store));
            self.store_again(slot).await?;
        }
        self.open(slot).await?;
        if self.unstored.is_none() && std::mem::take(&mut self.asks_again) {
            self.opened().history.ask_again();
            self.concerned = Concerned::All;
        }
        self.ask_for_turns(slot);
        while let Some(input) = self.backlog.pop_front() {
            let taken_in = self.take_in(slot, &input).await;
            // Messages are kept where they wait for their turn.
            // The result of a check is made again.
            let is_kept = match &input {
                Input::Message(_) | Input::Part { .. } => true,
                Input::Built(result) => matches!(**result, BuildResult::Checked { .. }),
                _ => false,
            };
            if taken_in.is_err() && !is_kept {
                // Taking it in again finds what was taken in before.
                self.backlog.push_front(input);
            }
            taken_in?;
        }
        self.save(slot).await?;
        self.give_grace_if_emptied(slot);
        self.send(slot)?;
        self.charge_all();
        self.check_if_due(slot);
        Ok(())
    }

    /// Reads the document, if it is not open.
    async fn open(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        if self.history.is_some() {
            return Ok(());
        }
        let (relay, id) = (slot.relay.clone(), slot.id);
        let load = move || -> Result<_, StorageError> {
            Ok((relay.storage.load(&id)?, relay.storage.aside(&id)?))
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let (loaded, aside) = loaded.map_err(StorageError::failed)??;
        let mut open = match loaded {
            None => Open {
                key: slot.relay.storage.new_key(),
                // The space of whoever stores first; set when that is known.
                history: History::new(reconverge::id::Space::default()),
                stored: false,
            },
            Some(stored) => {
                let outline = stored.outline.as_deref();
                let history = History::open(stored.record, outline, &stored.rows);
                Open {
                    key: stored.key,
                    history: history
                        .ok_or_else(|| slot.damaged("its parts do not fit together"))?,
                    stored: true,
                }
            }
        };
        recall_quarantined(slot, &mut open)?;
        self.had_contents |= !open.history.is_empty();
        open.history.set_peers(std::mem::take(&mut self.parked));
        self.verifying.opened(open.history.len());
        self.history = Some(Box::new(open));
        self.building.history_changed();
        self.concerned = Concerned::All;
        if !aside.is_empty() {
            self.take_in_aside(slot, &aside)?;
        }
        if slot.relay.config.verify == Verify::Inline {
            // What was stored before is not served unchecked either.
            self.verify_inline(slot).await?;
        }
        Ok(())
    }

    fn opened(&mut self) -> &mut Open {
        self.history
            .as_mut()
            .expect("open() ran at the start of the turn")
    }

    async fn take_in(&mut self, slot: &Arc<Slot>, input: &Input) -> Result<(), StorageError> {
        match input {
            Input::Message(message) => {
                self.join(slot, &message.from);
                self.concerned.add(message.from.id);
                self.spoke.push(message.from.id);
                self.message(slot, message)?;
            }
            Input::RemoteHeads { .. } | Input::Replay { .. } | Input::Leave(_) | Input::Gone(_) => {
                self.take_in_beside(slot, input);
            }
            Input::Grace(connection, waited) => self.grace(slot, *connection, *waited),
            Input::Part { from, .. } => {
                self.concerned.add(*from);
                self.spoke.push(*from);
                self.take_in_part(slot, *from)?;
            }
            Input::Built(result) => {
                self.concerned = Concerned::All;
                self.built(slot, result).await?;
            }
            Input::Verify(place) => self.verifying.remind(place),
            // The rest of the turn does what these ask for.
            Input::Room(called) => {
                self.called.push(called.clone());
                self.concerned = Concerned::All;
                self.tell_again(slot);
            }
            Input::Retry => {
                self.concerned = Concerned::All;
                self.tell_again(slot);
            }
            Input::Store => self.concerned = Concerned::All,
        }
        Ok(())
    }

    /// Takes in what has nothing to do with the history.
    fn take_in_beside(&mut self, slot: &Arc<Slot>, input: &Input) {
        match input {
            Input::RemoteHeads { from, heads, .. } => {
                for (storage, seen) in heads {
                    self.gossip(slot, *from, storage, seen);
                }
            }
            Input::Replay { to, storages } => self.replay(slot, to, storages),
            Input::Leave(connection) if self.building.leaves_later(*connection) => {}
            Input::Leave(connection) => self.leave(slot, *connection),
            // It would send its upload again, and others wait for the worker.
            Input::Gone(connection) => self.building.leave(*connection),
            _ => {}
        }
    }

    fn join(&mut self, slot: &Arc<Slot>, connection: &Arc<Connection>) {
        if self.connections.contains_key(&connection.id) {
            return;
        }
        let open = self.opened();
        if !open.stored && open.history.is_empty() {
            open.history.set_space(connection.space.clone());
        }
        let asking = Asking {
            peer: &connection.peer,
            space: &connection.space,
        };
        let owner = &open.history.record().space;
        let access = slot.relay.authorize.access(asking, &slot.id, owner);
        open.history.join(connection.id, access);
        if connection.is_ours() {
            open.history.waits_for_all(connection.id);
        }
        self.connections.insert(connection.id, connection.clone());
        if access > Access::None {
            slot.set_audience(self.connections.values());
        }
    }

    fn leave(&mut self, slot: &Slot, connection: ConnectionId) {
        if let Some(connection) = self.connections.remove(&connection) {
            slot.set_audience(self.connections.values());
            if let Some(storage) = &connection.storage_id {
                self.remote_heads.left(storage);
            }
        }
        self.parked.leave(connection);
        if let Some(open) = &mut self.history {
            open.history.leave(connection);
        }
        self.building.leave(connection);
        self.not_taken.remove(&connection);
        self.not_told.remove(&connection);
        self.graces.remove(&connection);
        self.charges.remove(&connection);
    }

    fn message(&mut self, slot: &Arc<Slot>, message: &Arc<Incoming>) -> Result<(), StorageError> {
        if message.from.is_given_up() {
            return Ok(());
        }
        // Behind a document chunk that is being unpacked, the connection's messages wait in order.
        if let Some(waiting) = self.building.waiting_behind(message.from.id) {
            waiting.push_back(message.clone());
            return Ok(());
        }
        let first = VecDeque::from([message.clone()]);
        self.take_in_order(slot, message.from.id, first, Documents::Report, 0)
    }

    /// Takes in a sync message, or a part of it.
    fn receive(
        &mut self,
        slot: &Arc<Slot>,
        incoming: &Incoming,
        documents: Documents,
        progress: &mut Progress,
        work: Work,
    ) -> Result<Taken, StorageError> {
        let (from, data) = (&incoming.from, &incoming.data);
        if work == Work::Light && data.len() > LIGHT_BYTES_MAX {
            return Ok(Taken::Part);
        }
        let mut message = match SyncMessage::decode(data) {
            Ok(message) => message,
            Err(error) if error.is_of_its_document() => {
                if self.not_taken.insert(from.id) {
                    warn!(document = %slot.name, peer = %from.peer, %error,
                        "sync message not taken; the connection's other documents go on");
                    from.not_taken(&slot.name, &error);
                }
                return Ok(Taken::All);
            }
            Err(error) => {
                from.refuse_frame(&error);
                return Ok(Taken::All);
            }
        };
        if self.unstored.is_some()
            && !message.changes.is_empty()
            && self.opened().history.takes_from(from.id)
        {
            message.changes.clear();
            self.asks_again = true;
        }
        let (len, unsaved) = {
            let history = &self.opened().history;
            (history.len(), history.unsaved_bytes())
        };
        let part = |history: &mut History, progress: &mut Progress| {
            history.receive_part(from.id, &message, documents, progress, work)
        };
        // Also to read the graph takes long.
        let received = match work {
            Work::Light => part(&mut self.opened().history, progress),
            Work::Slice | Work::All => {
                Ok(self.with_graph(slot, |history| part(history, progress))?)
            }
        };
        let received = received.unwrap_or_else(|NeedGraph| Received {
            more: true,
            ..progress.found()
        });
        if self.unstored.is_some() {
            self.opened().history.ask_nothing(from.id);
        }
        self.note_senders(len, from, &received);
        self.report_refused(slot, from, &received);
        // What a small message leaves is charged at the end of the turn.
        if data.len() > SMALL_BYTES {
            let held = self.held_for(from.id);
            self.charge(from, held);
        }
        let more = self.opened().history.unsaved_bytes() - unsaved;
        if more > SMALL_BYTES {
            self.unsaved.push(from.holder.charge(more));
        }
        if received.unpack {
            return Ok(Taken::Unpack);
        }
        if received.more {
            return Ok(Taken::Part);
        }
        let empty = self.opened().history.is_empty();
        self.had_contents |= !empty;
        if empty && message.heads.is_empty() {
            self.give_grace(slot, from.id);
        }
        if let Some(storage) = &from.storage_id
            && (1..=REMOTE_HEADS_MAX).contains(&message.heads.len())
        {
            self.gossip_of(slot, from.id, storage, &message.heads);
        }
        Ok(Taken::All)
    }

    /// Logs what was refused, and tells its sender.
    fn report_refused(&self, slot: &Slot, from: &Connection, received: &Received) {
        from.refused(&slot.name, &received.refused);
        for (hash, refusal) in received.refused.iter().take(8) {
            let change = hash.map(|hash| hash.to_string());
            warn!(document = %slot.name, peer = %from.peer, change, reason = %refusal,
                "change refused");
        }
        let more = received.refused.len().saturating_sub(8) + received.refused_more;
        if more > 0 {
            warn!(document = %slot.name, peer = %from.peer, more, "more changes refused");
        }
    }

    /// Runs `step`, loading the folded part of the graph if it is needed.
    fn with_graph<T>(
        &mut self,
        slot: &Slot,
        mut step: impl FnMut(&mut History) -> Result<T, NeedGraph>,
    ) -> Result<T, StorageError> {
        let open = self.opened();
        if let Ok(done) = step(&mut open.history) {
            return Ok(done);
        }
        tokio::task::block_in_place(|| {
            let segments = open.segments(slot)?;
            open.history
                .load_graph(&segments)
                .ok_or_else(|| slot.damaged("its graph"))?;
            step(&mut open.history).map_err(|NeedGraph| slot.damaged("its graph has a gap"))
        })
    }

    /// Commits what is new.
    async fn save(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        let inline = slot.relay.config.verify == Verify::Inline;
        if inline {
            self.verify_inline(slot).await?;
        }
        let open = self.opened();
        let Some((last, row)) = open.history.take_unsaved() else {
            return Ok(());
        };
        let mut writes = vec![Write::Row { last, row }];
        if !open.stored {
            info!(document = %slot.name, space = open.history.record().space.as_str(), "created");
        }
        if inline || !open.stored {
            writes.push(Write::Record(open.history.record().clone()));
        }
        self.commit_or_keep(slot, writes).await?;
        let open = self.opened();
        open.stored = true;
        open.history.committed();
        self.concerned = Concerned::All;
        Ok(())
    }

    async fn commit(&mut self, slot: &Slot, writes: Vec<Write>) -> Result<(), StorageError> {
        if let Some(kept) = &mut self.unstored {
            // It was made for what was stored until now.
            kept.forget();
            self.asks_again = true;
        }
        self.try_commit(slot, writes).await?;
        Ok(())
    }

    async fn try_commit(&mut self, slot: &Slot, writes: Vec<Write>) -> Result<(), NotCommitted> {
        let batch = Batch {
            document: slot.id,
            key: self.opened().key,
            writes,
        };
        slot.relay.committer.commit(batch).await?;
        slot.relay.trouble.committed();
        Ok(())
    }

    /// Commits what peers sent. If that fails, it is kept and tried again.
    async fn commit_or_keep(
        &mut self,
        slot: &Arc<Slot>,
        writes: Vec<Write>,
    ) -> Result<(), StorageError> {
        let Err(failed) = self.try_commit(slot, writes).await else {
            return Ok(());
        };
        let kept = failed.batch.map(|batch| slot.relay.unstored.keep(batch));
        self.asks_again |= kept.as_ref().is_none_or(|kept| kept.batch().is_none());
        if kept.is_some() {
            self.unstored = kept;
            slot.push_after(slot.relay.config.storage_retry, Input::Store);
        }
        Err(failed.error)
    }

    /// Tries again to store what could not be stored.
    async fn store_again(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        let Some(kept) = &self.unstored else {
            return Ok(());
        };
        let stored = match kept.batch() {
            None if kept.has_room() => Ok(()),
            None => Err(None),
            Some(batch) => {
                let stored = slot.relay.committer.commit(batch.clone()).await;
                let stored = stored.map_err(|failed| Some(failed.error));
                if stored.is_ok() {
                    slot.relay.trouble.committed();
                }
                stored
            }
        };
        match stored {
            Ok(()) => {
                self.unstored = None;
                // What is open now is what was stored before.
                self.park();
                self.concerned = Concerned::All;
            }
            Err(Some(error @ StorageError::Damaged { .. })) => return Err(error),
            Err(error) => {
                if let Some(error) = error {
                    Trouble::failed(&slot.relay, &slot.name, &error);
                }
                slot.push_after(slot.relay.config.storage_retry, Input::Store);
            }
        }
        Ok(())
    }

    /// Whoever asked when there was something, which turned out to be damaged or to make no document,
    /// is answered like those who ask when there is nothing.
    fn give_grace_if_emptied(&mut self, slot: &Arc<Slot>) {
        if self.had_contents && self.opened().history.is_empty() {
            self.had_contents = false;
            let peers: Vec<_> = self.connections.keys().copied().collect();
            for peer in peers {
                self.give_grace(slot, peer);
            }
        }
    }

    /// Somebody may be about to upload what this peer asked for.
    fn give_grace(&mut self, slot: &Arc<Slot>, to: ConnectionId) {
        if self.graces.insert(to) {
            let grace = slot.relay.config.unavailable_grace;
            slot.push_after(grace, Input::Grace(to, grace));
        }
    }

    /// Answers a request for a document that nobody has, unless somebody is uploading it.
    fn grace(&mut self, slot: &Arc<Slot>, connection: ConnectionId, waited: Duration) {
        let Some(to) = self.connections.get(&connection).cloned() else {
            return;
        };
        let left = slot.relay.config.upload_grace.saturating_sub(waited);
        if self.opened().history.upload_expected() && !left.is_zero() {
            // Each time twice as long: very many may be announced and never come.
            let more = waited.min(left);
            slot.push_after(more, Input::Grace(connection, waited + more));
            return;
        }
        self.graces.remove(&connection);
        if to.outbox.is_crowded_for(slot) {
            // Who asks for many documents at once reads one answer after the other.
            self.not_told.insert(connection);
        } else {
            self.tell_unavailable(slot, &to);
        }
    }

    fn tell_unavailable(&mut self, slot: &Slot, to: &Connection) {
        if self.opened().history.poll_unavailable(to.id) {
            debug!(document = %slot.name, peer = %to.peer, "unavailable");
            to.unavailable(&slot.name);
        }
    }

    /// A storage's owner named these heads.
    fn gossip_of(
        &mut self,
        slot: &Arc<Slot>,
        from: ConnectionId,
        storage: &str,
        heads: &[ChangeHash],
    ) {
        let heard = self
            .connections
            .values()
            .any(|c| c.id != from && c.subscribes_to(storage));
        let news = self.remote_heads.see(storage, shown(heads), now_ms());
        if heard && let Some(seen) = news.cloned() {
            self.pass_on(slot, from, storage, &seen);
        }
    }

    fn gossip(&mut self, slot: &Arc<Slot>, from: ConnectionId, storage: &str, seen: &Seen) {
        if self.remote_heads.hear(storage, seen) {
            self.pass_on(slot, from, storage, seen);
        }
    }

    fn pass_on(&mut self, slot: &Arc<Slot>, from: ConnectionId, storage: &str, seen: &Seen) {
        for to in self.connections.values() {
            if to.id == from || !to.subscribes_to(storage) {
                continue;
            }
            if to.outbox.is_crowded_for(slot) {
                self.not_told.insert(to.id);
            } else {
                to.remote_heads(&slot.name, storage, seen);
            }
        }
    }

    /// Tells those who had not read what they asked for what they were not told.
    fn tell_again(&mut self, slot: &Arc<Slot>) {
        for id in std::mem::take(&mut self.not_told) {
            let Some(to) = self.connections.get(&id).cloned() else {
                continue;
            };
            if to.outbox.is_crowded_for(slot) {
                self.not_told.insert(id);
                continue;
            }
            if !self.graces.contains(&id) {
                self.tell_unavailable(slot, &to);
            }
            for (storage, seen) in self.remote_heads.iter() {
                if to.subscribes_to(storage) {
                    to.remote_heads(&slot.name, storage, seen);
                }
            }
        }
    }

    fn replay(&mut self, slot: &Arc<Slot>, to: &Arc<Connection>, storages: &[String]) {
        if to.outbox.is_crowded_for(slot) {
            self.not_told.insert(to.id);
            return;
        }
        for storage in storages {
            if let Some(seen) = self.remote_heads.get(storage) {
                to.remote_heads(&slot.name, storage, seen);
            }
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> f64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Whole milliseconds, as JavaScript's clock gives them.
    since.as_millis() as f64
}
