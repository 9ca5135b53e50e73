//! A whole client, without IO: documents, relays, local storage, status.
//!
//! The shell hands in what happened ([`Engine::handle`]) and does what comes out
//! ([`Engine::poll_output`]) until that says [`Output::Idle`]. The application's calls
//! ([`Engine::find`], [`Engine::change`], ...) only change state; what follows from them comes out
//! of the next poll. Time is an argument, and so is everything random: ids, actors, the seed of
//! the jitter.
//!
//! What holds:
//!
//! * **A change is in local storage before it is sent.** A document's turn takes in what came,
//!   stores it in one commit, and only then answers. While a commit is on its way, the document
//!   waits; the application sees its own changes at once.
//! * **The status is what relays acknowledged.** A relay's sync heads are on its disk. Those that
//!   are known here are stored per relay; they make the next connection cheap, and they say which
//!   documents are *in the outbox*: those are synced at the next start, opened or not.
//! * **No edit is lost to a fork.** A change that no relay can take, because a copy of this process
//!   made another under the same actor and sequence number, is made again under a new actor.
//! * **Every queue has a limit.** A relay has at most [`FRAMES_MAX`] frames on their way; what
//!   comes meanwhile becomes one message per document when there is room.
//! * **What is not used leaves memory**, and stays in sync: documents that the application let go
//!   of, when every relay has all of them.
//!
//! Absent: sockets, files, clocks, randomness, threads, and waiting for anything.

mod backoff;
mod check;
mod create;
mod current;
mod document;
mod due;
mod fault;
mod frame;
mod link;
mod load;
mod relays;
mod release;
mod statistics;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::Transaction;
use automerge::{ActorId, Change, ChangeHash};
use bytes::Bytes;

pub use backoff::{BACKOFF_FIRST, BACKOFF_MAX};
pub use check::{Folded, Folding, fold, kept_aside};
pub use create::Taken;
pub use current::{Asked, NotCurrent};
pub use document::{FindError, MADE_AGAIN_MAX, Status};
pub use fault::{Fault, FaultKind, RelayState};
pub use frame::Frame;
pub use link::{CONNECT_TIMEOUT, FRAMES_MAX, PING_AFTER, PRESENCE_MAX, SILENCE_MAX};
pub use load::{Loaded, Reading, load, load_graph};
pub use relays::HURRY_AFTER;
pub use release::RELEASE_AFTER;
pub use statistics::Statistics;

use backoff::Random;
use current::Pings;
use document::{Document, Greeted, OfRelay, Opened, Phase, REFUSAL_BYTES_MAX};
use due::Due;
use link::{Link, Relay, State};

use crate::history::{Refusal, UNSOUND};
use crate::id::{ConnectionId, DocumentId, PeerId};
use crate::protocol::{self, Ephemeral, Message};
use crate::replica::{
    ChangeOptions, ContentsError, DocumentRef, Edited, LiveDocument, Made, Patches, Replica,
    Settling,
};
use crate::session::{ClientSession, Local, ServerEvent};
use crate::storage::{Batch, DocumentKey, Refused, StorageError};

/// Acknowledgements are written this long after they came, unless something else is written
/// sooner. Losing them costs the next connection some bytes, nothing else.
pub const ACKNOWLEDGEMENT_DELAY: Duration = Duration::from_secs(1);

/// A commit that failed is tried again after this long.
pub const STORE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What could not be read is tried again after this long; a document also when it is asked for.
pub const READ_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// While this many documents are being read from storage, the outbox waits.
pub const LOADS_MAX: usize = 16;

/// Most bytes of messages that wait for a document; a relay that sends more meanwhile loses its
/// connection, and is asked again for what is missing on the next.
pub const INBOX_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Most authors of presence messages that are remembered, so that one that comes by two relays is
/// heard once.
pub const AUTHORS_MAX: usize = 1024;

/// Who the client is and whom it syncs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name among peers; one per process.
    pub peer: PeerId,
    /// The id of its storage; empty if it keeps nothing.
    pub storage_id: Arc<str>,
    /// The name of this run, for presence messages.
    pub session: String,
    /// The relays, by the names under which what they acknowledged is stored. A relay keeps its
    /// name across restarts.
    pub relays: Vec<Arc<str>>,
    /// Makes the jitter of this client differ from that of others.
    pub seed: u64,
    /// Most bytes of received changes that are brought into a document's contents at once, if that
    /// takes little; others by [`Output::Settle`]. With `usize::MAX` all are, as always in a page, where
    /// there is one thread.
    pub settle_at_once: usize,
}

impl Config {
    fn at_once(&self) -> usize {
        if cfg!(target_family = "wasm") {
            usize::MAX
        } else {
            self.settle_at_once
        }
    }
}

/// A relay's place in [`Config::relays`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(pub usize);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The connection that [`Output::Connect`] asked for is there.
    Connected(ConnectionId),
    /// A binary WebSocket message came.
    Frame(ConnectionId, Bytes),
    /// The answer to a ping came.
    Pong(ConnectionId),
    /// A frame was handed to the socket; the second is what [`Frame::reads`] said of it.
    Sent(ConnectionId, Option<DocumentId>),
    /// A connection ended, or did not come about.
    Closed(ConnectionId, Closed),
    /// There is a network again: try at once.
    NetworkAvailable,
    /// These documents are in the stored outbox; handed in at the start, and when others were put
    /// there by [`Storage::name_relays`](crate::storage::Storage::name_relays).
    Outbox(Vec<DocumentId>),
    /// The answer to [`Output::Load`].
    Loaded(DocumentId, Result<Box<Loaded>, StorageError>),
    /// The answer to [`Output::LoadGraph`].
    Graph(DocumentId, Result<Vec<Bytes>, StorageError>),
    /// The answer to [`Output::Fold`].
    Folded(DocumentId, Result<Folded, StorageError>),
    /// The answer to [`Output::Store`].
    Stored(DocumentId, Result<(), StorageError>),
    /// Time went by.
    Tick,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// By the other side or the network; it is worth another try.
    Lost(Fault),
    /// The relay does not want us, for this reason, and will not another time.
    Refused(Fault),
}

/// What to do.
#[derive(Debug)]
pub enum Output {
    /// Connect to a relay, under this id.
    Connect(RelayId, ConnectionId),
    /// Close a connection; nothing is expected of it any more.
    Disconnect(ConnectionId),
    /// Send a message, after those before it.
    Send(ConnectionId, Frame),
    /// Send a WebSocket ping, or where that cannot be done what [`Engine::ping`] gives.
    Ping(ConnectionId),
    /// Read a document by [`load`], and build its contents if so told.
    Load {
        /// The document.
        document: DocumentId,
        /// What the application will want of it.
        contents: Reading,
    },
    /// Read a document's graph by [`load_graph`].
    LoadGraph {
        /// The document.
        document: DocumentId,
        /// Its place.
        key: DocumentKey,
        /// How many segments there are.
        segments: u32,
    },
    /// Fold a document's history by [`fold`].
    Fold(DocumentId, Box<Folding>),
    /// Bring a document's contents up to what was received, or unpack what was, by [`Settling::run`], and
    /// hand in what comes of it by [`Engine::settled`]. It may take long, and waits for those who use the
    /// document.
    Settle(DocumentId, Box<Settling>),
    /// Commit this.
    Store(Batch),
    /// Committing failed and is tried again: the document's changes are in memory only.
    StoreFailed(DocumentId, StorageError),
    /// Everything of a document is in local storage.
    Flushed(DocumentId),
    /// A document that was searched for is there, or is not.
    Found(DocumentId, Result<(), FindError>),
    /// A document's contents changed.
    Changed(DocumentId),
    /// Changes were taken out of a document, because together with their past they make none. See
    /// [`Engine::quarantined`] and [`kept_aside`].
    TakenOut(DocumentId),
    /// A part of a document is damaged in local storage, and stays there. The document begins anew
    /// with what is whole, and relays are asked for what they have of it. See [`Engine::damage`].
    Salvaged(DocumentId),
    /// A document's status changed.
    Status(DocumentId, Status),
    /// Somebody broadcast.
    Ephemeral {
        /// On which document.
        document: DocumentId,
        /// Who.
        sender: PeerId,
        /// What, as it came.
        data: Bytes,
    },
    /// A document exists here that did not: it was made, or searched for and found at a relay. A part of
    /// it may have been in local storage before.
    Added(DocumentId),
    /// A document is removed from local storage.
    Deleted(DocumentId),
    /// The answer to [`Engine::ask_current`].
    Current(Asked, Result<(), NotCurrent>),
    /// Nothing until something happens, or until then.
    Idle {
        /// When to hand in [`Input::Tick`].
        wake_at: Option<Duration>,
    },
}

/// A client. See the module's page.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    now: Duration,
    random: Random,
    relays: Vec<Relay>,
    next_connection: u64,
    documents: HashMap<DocumentId, Document>,
    due: Due,
    release_after: Duration,
    /// The outbox as it was stored at the start, and what of it is not read yet.
    outbox: HashSet<DocumentId>,
    outbox_waiting: VecDeque<DocumentId>,
    loads: usize,
    /// How many foldings were begun.
    foldings: u64,
    /// Relays that sent a document what is no sync message.
    broken: Vec<RelayId>,
    /// How often the connection to some relay changed.
    relay_changes: u64,
    /// Whether documents are current, by the numbers of the questions, and how often that was asked.
    questions: Vec<(u64, DocumentId)>,
    asked: u64,
    counts: Statistics,
    outputs: VecDeque<Output>,
    /// How many presence messages were sent in this run.
    presence_count: u64,
    /// The last count of each author's run, and the authors in the order in which they came.
    heard: HashMap<(PeerId, String), u64>,
    authors: VecDeque<(PeerId, String)>,
}

impl Engine {
    /// A client that has done nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let relays = config.relays.iter().cloned().map(Relay::new).collect();
        Self {
            random: Random::new(config.seed),
            config,
            now: Duration::ZERO,
            relays,
            next_connection: 0,
            documents: HashMap::new(),
            due: Due::default(),
            release_after: RELEASE_AFTER,
            outbox: HashSet::new(),
            outbox_waiting: VecDeque::new(),
            loads: 0,
            foldings: 0,
            broken: Vec::new(),
            relay_changes: 0,
            questions: Vec::new(),
            asked: 0,
            counts: Statistics::default(),
            outputs: VecDeque::new(),
            presence_count: 0,
            heard: HashMap::new(),
            authors: VecDeque::new(),
        }
    }

    /// Takes in what happened. `now` never goes back.
    pub fn handle(&mut self, now: Duration, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Connected(connection) => self.connected(connection),
            Input::Frame(connection, frame) => self.frame(connection, &frame),
            Input::Pong(connection) => {
                self.heard(connection);
                self.ponged(connection);
            }
            Input::Sent(connection, read) => self.sent(connection, read),
            Input::Closed(connection, closed) => {
                if let Some(relay) = self.relay_of(connection) {
                    self.closed(relay, closed);
                }
            }
            Input::NetworkAvailable => {
                for relay in &mut self.relays {
                    if let State::Waiting(until) = &mut relay.state {
                        *until = self.now;
                        relay.is_hoped_for = true;
                    }
                }
            }
            #[cfg(feature = "planted")]
            Input::Outbox(_) if crate::planted::is(crate::planted::Bug::OutboxForgotten) => {}
            Input::Outbox(documents) => {
                self.outbox.extend(documents.iter().copied());
                for document in &documents {
                    if let Some(found) = self.documents.get_mut(document) {
                        found.in_outbox = true;
                        // It may have no place there.
                        self.write_later(*document);
                    }
                }
                self.outbox_waiting.extend(documents);
                self.load_outbox();
            }
            Input::Loaded(document, loaded) => self.loaded(document, loaded),
            Input::Graph(document, segments) => self.graph_loaded(document, segments),
            Input::Folded(document, folded) => self.folded(document, folded),
            Input::Stored(document, result) => self.stored(document, result),
            Input::Tick => {}
        }
        self.tick();
    }

    /// What to do next; [`Output::Idle`] when there is nothing.
    pub fn poll_output(&mut self) -> Output {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            let next = self.due.pop(self.now);
            let Some(document) = next.or_else(|| self.pop_blocked()) else {
                if self.answer_questions() {
                    continue;
                }
                return Output::Idle {
                    wake_at: self.wake_at(),
                };
            };
            self.turn(document);
            for relay in std::mem::take(&mut self.broken) {
                let why = "it sent what is no sync message";
                self.give_up(relay, FaultKind::Protocol, why);
            }
        }
    }

    /// A document that waited for room on a connection that has some.
    fn pop_blocked(&mut self) -> Option<DocumentId> {
        for (at, relay) in self.relays.iter_mut().enumerate() {
            if let Some(link) = relay.link_mut()
                && link.has_room()
                && let Some(id) = link.blocked.pop_front()
            {
                if let Some(document) = self.documents.get_mut(&id) {
                    document.relays[at].blocked = false;
                }
                return Some(id);
            }
        }
        None
    }

    fn wake_at(&self) -> Option<Duration> {
        let relays = self.relays.iter().filter_map(Relay::deadline);
        relays.chain(self.due.next_at()).min()
    }

    /// What is due of relays by now.
    fn tick(&mut self) {
        for at in 0..self.relays.len() {
            let relay = &mut self.relays[at];
            if relay.deadline().is_none_or(|deadline| deadline > self.now) {
                continue;
            }
            match &mut relay.state {
                State::Waiting(_) => self.connect(RelayId(at)),
                State::Open(link) if !link.pinged => {
                    link.pinged = true;
                    link.pings.send(self.asked);
                    let ping = Output::Ping(link.connection);
                    self.outputs.push_back(ping);
                }
                State::Open(_) | State::Connecting { .. } => {
                    self.give_up(RelayId(at), FaultKind::Silence, "it did not answer in time");
                }
                State::Refused(_) | State::Away => {}
            }
        }
    }
}

/// For the application.
impl Engine {
    /// Looks for a document: here, then at the relays. [`Output::Found`] says how it went, also if
    /// it was there already. It stays in memory until [`Self::let_go`].
    ///
    /// Relays that cannot be reached are not waited for: [`FindError::Unreachable`].
    pub fn find(&mut self, document: DocumentId) {
        self.search(document, false);
    }

    /// The same, and goes on while a relay may still be reached, until [`Self::stop_finding`].
    pub fn find_patiently(&mut self, document: DocumentId) {
        self.search(document, true);
    }

    /// Nobody waits for a search any more.
    pub fn stop_finding(&mut self, document: &DocumentId) {
        if let Some(found) = self.documents.get_mut(document) {
            self.counts.searches_ended += u64::from(std::mem::take(&mut found.asked));
            found.is_patient = false;
            self.due.insert(*document);
        }
    }

    /// Why a search has no result yet; `None` if it has.
    #[must_use]
    pub fn why_missing(&self, document: &DocumentId) -> Option<FindError> {
        let found = self.documents.get(document).filter(|found| found.asked)?;
        let unreached = self.unreached(found);
        Some(match found.phase {
            // What a relay that can be reached sends, or what is read, is on its way.
            Phase::Unavailable => unreached.map_or(FindError::Late, FindError::Unreachable),
            _ => FindError::Late,
        })
    }

    fn search(&mut self, document: DocumentId, is_patient: bool) {
        if !self.documents.contains_key(&document) {
            self.load(document, Reading::Contents);
        }
        self.reread(document);
        self.recall(document, Reading::Contents);
        let found = self.documents.get_mut(&document).expect("just inserted");
        found.wanted = true;
        found.held = true;
        self.counts.searches_begun += u64::from(!found.asked);
        found.asked = true;
        found.is_patient |= is_patient;
        if let Phase::Unread(again_at, _) = &mut found.phase {
            *again_at = self.now;
        }
        if matches!(found.phase, Phase::Unavailable) {
            found.phase = Phase::Searching;
            for relay in &mut found.relays {
                relay.unavailable = false;
                relay.greeted = Greeted::No;
            }
        }
        self.due.insert(document);
    }

    /// Adds a new document, which is ready at once. `key` is its place in storage. It stays in
    /// memory until [`Self::let_go`].
    pub fn create(&mut self, document: DocumentId, key: DocumentKey, replica: Replica) {
        let mut new = Document::new(self.relays.len());
        new.wanted = true;
        new.held = true;
        new.phase = Phase::Ready;
        new.opened = Some(Opened { key, replica });
        self.join_all(&mut new);
        self.documents.insert(document, new);
        self.outputs.push_back(Output::Added(document));
        self.counts.documents_entered += 1;
        self.counts.changes_made += 1;
        self.due.insert(document);
    }

    /// The contents of a document that is ready.
    #[must_use]
    pub fn document(&self, document: &DocumentId) -> Option<DocumentRef<'_>> {
        self.replica(document)?.document()
    }

    /// The same, to be read and edited without the engine, by several threads: see [`Self::keep`].
    #[must_use]
    pub fn live(&self, document: &DocumentId) -> Option<Arc<LiveDocument>> {
        self.replica(document)?.live()
    }

    /// The heads of the contents of a document that is ready, those of edits included that are not
    /// stored yet.
    #[must_use]
    pub fn contents_heads(&self, document: &DocumentId) -> Option<&[ChangeHash]> {
        self.replica(document)?.contents_heads()
    }

    /// The changes that were taken out of a document that was read, because together with their past
    /// they make none: they are [`kept_aside`]. [`Output::TakenOut`] tells when there are more.
    #[must_use]
    pub fn quarantined(&self, document: &DocumentId) -> Arc<[ChangeHash]> {
        let found = self.documents.get(document);
        found.map_or_else(Arc::default, |found| found.quarantined.clone())
    }

    /// What was found damaged when a document was read.
    #[must_use]
    pub fn damage(&self, document: &DocumentId) -> Option<&StorageError> {
        self.documents.get(document)?.damage.as_ref()
    }

    /// Edits a document that is ready, as one change, which comes with the result if there was
    /// anything to change. `None` if it is not ready, or was deleted.
    ///
    /// # Errors
    /// As for [`Replica::change`]; then nothing happened.
    pub fn change<T, E>(
        &mut self,
        document: &DocumentId,
        options: ChangeOptions<'_>,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Option<Edited<T, E>> {
        let result = self.editable(document)?.change(options, edit);
        if let Ok((_, Some(_))) = &result {
            self.edited(document);
        }
        Some(result)
    }

    /// The contents of a document that is ready, to be [edited](LiveDocument::write) without the
    /// engine; [`Self::keep`] what was made. `None` if it is not ready, or was deleted.
    #[must_use]
    pub fn editable_live(&self, document: &DocumentId) -> Option<Arc<LiveDocument>> {
        let found = self.documents.get(document)?;
        let opened = found.opened.as_ref().filter(|_| found.is_editable())?;
        opened.replica.live()
    }

    /// Takes what was made in the contents of a document: it is stored and sent. The last change, if
    /// there is any. `None` if the document is not ready any more, or was deleted; drop what was made,
    /// and it is taken back.
    ///
    /// # Errors
    /// As for [`Replica::keep`].
    pub fn keep(
        &mut self,
        document: &DocumentId,
        made: &mut Made<'_>,
    ) -> Option<Result<Option<ChangeHash>, Refusal>> {
        let replica = self.editable(document)?;
        if !replica.has(made) {
            return None;
        }
        let kept = replica.keep(made);
        if let Ok(Some(_)) = &kept {
            self.edited(document);
        }
        Some(kept)
    }

    /// From now on, what is edited in a document is edited in the name of this author; see
    /// [`Replica::write_as`].
    pub fn write_as(
        &mut self,
        document: &DocumentId,
        author: Option<&str>,
        fresh: impl FnOnce() -> ActorId,
    ) {
        if let Some(replica) = self.editable(document) {
            replica.write_as(author, fresh);
        }
    }

    /// A document that is ready, with what is known of it here.
    #[must_use]
    pub fn replica(&self, document: &DocumentId) -> Option<&Replica> {
        let found = self.documents.get(document)?;
        let is_ready = matches!(found.phase, Phase::Ready | Phase::Failed(_));
        let opened = found.opened.as_ref().filter(|_| is_ready)?;
        opened.replica.is_built().then_some(&opened.replica)
    }

    /// Takes changes of another document into one that is ready, as if they were made here; `None`
    /// if it is not ready. Whether there was anything new. See [`Replica::merge`].
    pub fn merge(
        &mut self,
        document: &DocumentId,
        changes: Vec<Change>,
    ) -> Option<Result<bool, ContentsError>> {
        let result = self.editable(document)?.merge(changes);
        if let Ok(true) = &result {
            self.edited(document);
        }
        Some(result)
    }

    fn editable(&mut self, document: &DocumentId) -> Option<&mut Replica> {
        let found = self.documents.get_mut(document)?;
        if !found.is_editable() {
            return None;
        }
        let replica = &mut found.opened.as_mut()?.replica;
        replica.is_built().then_some(replica)
    }

    fn edited(&mut self, document: &DocumentId) {
        self.counts.changes_made += 1;
        self.outputs.push_back(Output::Changed(*document));
        self.update_status(*document);
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::LostDirtyFlag) {
            return;
        }
        self.due.insert(*document);
    }

    /// From now on, or no longer, remembers what changes in a document's contents. Who wants that
    /// must [`Self::take_patches`] at each [`Output::Changed`].
    pub fn observe(&mut self, document: &DocumentId, observed: bool) {
        let Some(found) = self.documents.get_mut(document) else {
            return;
        };
        if let Some(opened) = &mut found.opened {
            opened.replica.observe(observed);
        } else if let Some(was_observed) = &mut found.reread {
            *was_observed = observed;
        }
    }

    /// What changed in a document's contents since this was last called; nothing unless it is
    /// observed.
    pub fn take_patches(&mut self, document: &DocumentId) -> Patches {
        let opened = self.opened_mut(document);
        opened.map_or_else(Patches::default, |opened| opened.replica.take_patches())
    }

    fn opened_mut(&mut self, document: &DocumentId) -> Option<&mut Opened> {
        self.documents.get_mut(document)?.opened.as_mut()
    }

    /// What happened so far, counted.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.counts
    }

    /// A document's status; `None` before it is ready.
    #[must_use]
    pub fn status(&self, document: &DocumentId) -> Option<&Status> {
        self.documents.get(document)?.status.as_ref()
    }

    /// The heads of what is in local storage of a document that is open, in order.
    #[must_use]
    pub fn durable_heads(&self, document: &DocumentId) -> Vec<ChangeHash> {
        let found = self.documents.get(document);
        let opened = found.and_then(|found| found.opened.as_ref());
        opened.map_or_else(Vec::new, |opened| opened.replica.durable_heads().to_vec())
    }

    /// Whether a change of a document that is open is here, whether it is stored and shows or not; the
    /// folded part of the graph is not looked at.
    #[must_use]
    pub fn knows(&self, document: &DocumentId, change: &ChangeHash) -> bool {
        let found = self.documents.get(document);
        let opened = found.and_then(|found| found.opened.as_ref());
        opened.is_some_and(|opened| opened.replica.knows(change))
    }

    /// Whether everything that was made or received of a document is in local storage.
    #[must_use]
    pub fn is_stored(&self, document: &DocumentId) -> bool {
        self.commits_due(document) == 0
    }

    /// After how many commits everything that was made or received so far is in local storage,
    /// whatever is made meanwhile.
    #[must_use]
    pub fn commits_due(&self, document: &DocumentId) -> u32 {
        let found = self.documents.get(document);
        found.map_or(0, Document::commits_due)
    }

    /// Whether, besides, it is stored what relays acknowledged.
    #[must_use]
    pub fn is_flushed(&self, document: &DocumentId) -> bool {
        let due = |found: &Document| found.acknowledgements_due.is_some();
        self.is_stored(document) && !self.documents.get(document).is_some_and(due)
    }

    /// Whether a relay has acknowledged these changes, or all relays have and there is one.
    #[must_use]
    pub fn is_acknowledged(
        &self,
        document: &DocumentId,
        changes: &[ChangeHash],
        by_all: bool,
    ) -> bool {
        let Some(found) = self.documents.get(document) else {
            return false;
        };
        let has = |relay: &OfRelay| found.is_acknowledged(changes, relay);
        if by_all {
            self.all_wanted(found, has)
        } else {
            found.relays.iter().any(has)
        }
    }

    /// Whether every relay has acknowledged everything of a document, and there is one.
    #[must_use]
    pub fn is_everywhere(&self, document: &DocumentId) -> bool {
        let Some(found) = self.documents.get(document) else {
            return false;
        };
        let Some(opened) = &found.opened else {
            return self.all_wanted(found, |_| !found.in_outbox);
        };
        let heads = opened.replica.heads();
        !opened.replica.has_own() && self.all_wanted(found, |relay| relay.covers(&heads))
    }

    /// Whether all relays that are wanted have something of a document, and there is one.
    fn all_wanted(&self, document: &Document, has: impl Fn(&OfRelay) -> bool) -> bool {
        let relays = self.relays.iter().zip(&document.relays);
        let mut wanted = relays.filter(|(relay, _)| !relay.is_away()).peekable();
        wanted.peek().is_some() && wanted.all(|(_, of_relay)| has(of_relay))
    }

    /// Whether a document has its place in the outbox: some relay lacks something, or there is none.
    #[must_use]
    pub fn belongs_in_outbox(&self, document: &DocumentId) -> bool {
        let found = self.documents.get(document);
        found.is_none_or(Document::belongs_in_outbox)
    }

    /// Why a document cannot go on: what is not stored of it will not be.
    #[must_use]
    pub fn failure(&self, document: &DocumentId) -> Option<&str> {
        match &self.documents.get(document)?.phase {
            Phase::Failed(reason) => Some(reason),
            _ => None,
        }
    }

    /// The documents that are open.
    pub fn documents(&self) -> impl Iterator<Item = &DocumentId> {
        self.documents.keys()
    }

    /// Those of them that exist here, as far as is known: not those that are searched for, or still to be
    /// read.
    pub fn existing(&self) -> impl Iterator<Item = &DocumentId> {
        let exists = |found: &Document| {
            let is_here = matches!(found.phase, Phase::Ready | Phase::Released(_));
            is_here && !found.deleting
        };
        let existing = self
            .documents
            .iter()
            .filter(move |(_, found)| exists(found));
        existing.map(|(document, _)| document)
    }

    /// Those of which [`Output::Added`] is still to come.
    pub fn unannounced(&self) -> impl Iterator<Item = &DocumentId> {
        self.outputs.iter().filter_map(|output| match output {
            Output::Added(document) => Some(document),
            _ => None,
        })
    }

    /// Whether a document is open, in whatever state.
    #[must_use]
    pub fn is_open(&self, document: &DocumentId) -> bool {
        self.documents.contains_key(document)
    }

    /// Whether a document that was open was deleted, or is about to be.
    #[must_use]
    pub fn is_deleted(&self, document: &DocumentId) -> bool {
        let found = self.documents.get(document);
        found.is_none_or(|found| found.deleting)
    }

    /// Whether a relay's connection is open, as far as is known.
    #[must_use]
    pub fn is_connected(&self, relay: RelayId) -> bool {
        self.relays
            .get(relay.0)
            .is_some_and(|relay| relay.link().is_some())
    }

    /// Writes what would be written later: acknowledgements.
    pub fn flush(&mut self) {
        for (document, found) in &mut self.documents {
            if found.acknowledgements_due.is_some() {
                found.acknowledgements_due = Some(self.now);
                self.due.insert(*document);
            }
        }
    }

    /// Sends a message to all who have the document open, now or never. Nothing is kept; `data` is
    /// passed on as it is, and is CBOR among automerge-repo clients.
    pub fn broadcast(&mut self, document: &DocumentId, data: &[u8]) {
        self.presence_count += 1;
        let name = document.to_string();
        for relay in &mut self.relays {
            let Some(link) = relay.link_mut() else {
                continue;
            };
            link.presence
                .push_back(protocol::encode(&Message::Ephemeral(Ephemeral {
                    sender: self.config.peer.as_str(),
                    target: link.peer.as_str(),
                    document: name.as_str().into(),
                    count: self.presence_count,
                    session: &self.config.session,
                    data,
                })));
            if link.presence.len() > PRESENCE_MAX {
                link.presence.pop_front();
            }
            send_presence(link, &mut self.outputs);
        }
    }

    /// Removes a document from local storage and from here; relays and other peers keep it.
    /// [`Output::Deleted`] follows.
    pub fn delete(&mut self, document: &DocumentId) {
        let Some(found) = self.documents.get_mut(document) else {
            self.outputs.push_back(Output::Deleted(*document));
            return;
        };
        found.deleting = true;
        // Its place is not known while it is released.
        self.recall(*document, Reading::History);
        self.due.insert(*document);
    }
}

/// Relays.
impl Engine {
    /// A message that the relay answers, in place of a WebSocket ping; `None` if it does not.
    #[must_use]
    pub fn ping(&self, connection: ConnectionId) -> Option<Vec<u8>> {
        let relay = self.relay_of(connection)?;
        self.answers_pings(relay)
            .then(|| protocol::encode(&protocol::PING))
    }

    fn answers_pings(&self, relay: RelayId) -> bool {
        let link = self.relays[relay.0].link();
        link.is_some_and(|link| link.answers_pings)
    }

    fn relay_of(&self, connection: ConnectionId) -> Option<RelayId> {
        let is = |relay: &Relay| relay.connection() == Some(connection);
        self.relays.iter().position(is).map(RelayId)
    }

    fn link(&mut self, connection: ConnectionId) -> Option<&mut Link> {
        let relay = self.relay_of(connection)?;
        self.relays[relay.0].link_mut()
    }

    fn heard(&mut self, connection: ConnectionId) {
        let now = self.now;
        if let Some(link) = self.link(connection) {
            link.heard_at = now;
            link.pinged = false;
        }
    }

    fn connect(&mut self, relay: RelayId) {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let session = ClientSession::new(Local {
            peer: self.config.peer.clone(),
            storage_id: self.config.storage_id.clone(),
        });
        let tried = &mut self.relays[relay.0];
        tried.tried_at = self.now;
        tried.state = State::Connecting {
            connection,
            session: Box::new(session),
            deadline: self.now + CONNECT_TIMEOUT,
        };
        self.relay_changes += 1;
        self.outputs.push_back(Output::Connect(relay, connection));
    }

    fn connected(&mut self, connection: ConnectionId) {
        let Some(relay) = self.relay_of(connection) else {
            self.outputs.push_back(Output::Disconnect(connection));
            return;
        };
        let State::Connecting {
            session, deadline, ..
        } = &mut self.relays[relay.0].state
        else {
            return;
        };
        *deadline = self.now + CONNECT_TIMEOUT;
        let join = Frame::whole(session.join());
        self.outputs.push_back(Output::Send(connection, join));
    }

    fn sent(&mut self, connection: ConnectionId, read: Option<DocumentId>) {
        let Some(relay) = self.relay_of(connection) else {
            return;
        };
        let Some(link) = self.relays[relay.0].link_mut() else {
            // The join, which counts for nothing.
            return;
        };
        link.in_flight = link.in_flight.saturating_sub(1);
        if let Some(document) = read
            && let Some(at) = link.reads.iter().position(|of| *of == document)
        {
            link.reads.swap_remove(at);
            if !link.reads.contains(&document) {
                // It may have waited to be folded.
                self.due.insert(document);
            }
        }
        send_presence(link, &mut self.outputs);
    }

    fn frame(&mut self, connection: ConnectionId, frame: &Bytes) {
        let Some(relay) = self.relay_of(connection) else {
            return;
        };
        self.heard(connection);
        if !self.answers_pings(relay) {
            // There may be no other sign of life.
            self.ponged(connection);
        }
        let session = match &mut self.relays[relay.0].state {
            State::Connecting { session, .. } => session,
            State::Open(link) => &mut link.session,
            State::Waiting(_) | State::Refused(_) | State::Away => return,
        };
        match session.handle(frame) {
            Ok(ServerEvent::Joined {
                peer, reconverge, ..
            }) => self.joined(relay, peer, reconverge >= protocol::PINGS_SINCE),
            Ok(ServerEvent::Rejected { reason, joining }) => {
                self.outputs.push_back(Output::Disconnect(connection));
                let fault = Fault::new(FaultKind::Rejected, reason);
                let closed = if joining {
                    Closed::Refused(fault)
                } else {
                    Closed::Lost(fault)
                };
                self.closed(relay, closed);
            }
            Ok(ServerEvent::Sync(sync)) => {
                let data = frame.slice_ref(sync.data);
                let Ok(document) = sync.document.parse::<DocumentId>() else {
                    return;
                };
                // What was not asked for is not taken.
                let Some(found) = self.documents.get_mut(&document) else {
                    return;
                };
                if found.relays[relay.0].greeted == Greeted::No || found.deleting {
                    return;
                }
                if let Phase::Released(heads) = &found.phase {
                    if release::says_nothing_new(&data, heads) {
                        found.relays[relay.0].heard = true;
                        return;
                    }
                    self.recall(document, Reading::History);
                }
                let found = self.documents.get_mut(&document).expect("found above");
                found.inbox_bytes += data.len();
                found.inbox.push_back((connection, data));
                if found.inbox_bytes > INBOX_BYTES_MAX {
                    let why = "it sent more than can wait to be stored";
                    self.give_up(relay, FaultKind::Storage, why);
                }
                self.due.insert(document);
            }
            Ok(ServerEvent::Unavailable(document)) => {
                if let Ok(document) = document.parse::<DocumentId>()
                    && let Some(found) = self.documents.get_mut(&document)
                {
                    found.relays[relay.0].unavailable = true;
                    self.due.insert(document);
                }
            }
            Ok(ServerEvent::Refused(refused)) => {
                if let Ok(document) = refused.document.parse::<DocumentId>()
                    && let Some(found) = self.documents.get_mut(&document)
                    && let Some(opened) = &found.opened
                    && (refused.hashes.is_empty()
                        || refused.hashes.iter().any(|hash| opened.replica.knows(hash)))
                {
                    if !refused.hashes.is_empty() {
                        found.note_refusal(refused.reason);
                    }
                    let end = refused.reason.floor_char_boundary(REFUSAL_BYTES_MAX);
                    let refused = Refused {
                        reason: refused.reason[..end].to_owned(),
                        changes: refused.hashes,
                    };
                    let of_relay = &mut found.relays[relay.0];
                    // Said again, it was looked into before.
                    if refused.reason.starts_with(UNSOUND)
                        && of_relay.refused.as_ref() != Some(&refused)
                    {
                        found.is_unsound = true;
                    }
                    of_relay.set_refused(Some(refused));
                    self.write_later(document);
                    self.due.insert(document);
                }
            }
            Ok(ServerEvent::Ephemeral(ephemeral)) => self.ephemeral(frame, &ephemeral),
            Ok(ServerEvent::Pong) => self.ponged(connection),
            Ok(ServerEvent::Ignored(_)) => {}
            Err(error) => self.give_up(relay, FaultKind::Protocol, &error.to_string()),
        }
    }

    fn ephemeral(&mut self, frame: &Bytes, ephemeral: &Ephemeral<'_>) {
        let (Ok(document), Some(sender)) = (
            ephemeral.document.parse::<DocumentId>(),
            PeerId::new(ephemeral.sender),
        ) else {
            return;
        };
        let author = (sender.clone(), ephemeral.session.to_owned());
        match self.heard.get_mut(&author) {
            Some(last) if *last >= ephemeral.count => return,
            Some(last) => *last = ephemeral.count,
            None => {
                self.authors.push_back(author.clone());
                self.heard.insert(author, ephemeral.count);
                if self.authors.len() > AUTHORS_MAX
                    && let Some(oldest) = self.authors.pop_front()
                {
                    self.heard.remove(&oldest);
                }
            }
        }
        if self.documents.contains_key(&document) {
            self.outputs.push_back(Output::Ephemeral {
                document,
                sender,
                data: frame.slice_ref(ephemeral.data),
            });
        }
    }

    fn joined(&mut self, relay: RelayId, peer: PeerId, answers_pings: bool) {
        let waiting = State::Waiting(self.now);
        let state = std::mem::replace(&mut self.relays[relay.0].state, waiting);
        let State::Connecting {
            connection,
            session,
            ..
        } = state
        else {
            unreachable!("a session lets us in once");
        };
        self.relays[relay.0].fault = None;
        self.relay_changes += 1;
        self.counts.connections_made += 1;
        self.relays[relay.0].state = State::Open(Box::new(Link {
            connection,
            session,
            peer,
            since: self.now,
            heard_at: self.now,
            pinged: false,
            pings: Pings::new(self.asked),
            answers_pings,
            in_flight: 0,
            reads: Vec::new(),
            blocked: VecDeque::new(),
            presence: VecDeque::new(),
        }));
        for (document, found) in &mut self.documents {
            if let Some(opened) = &mut found.opened {
                opened.replica.join(connection);
            }
            self.due.insert(*document);
        }
    }

    /// Closes a connection from this side.
    fn give_up(&mut self, relay: RelayId, kind: FaultKind, why: &str) {
        if let Some(connection) = self.relays[relay.0].connection() {
            self.outputs.push_back(Output::Disconnect(connection));
            self.closed(relay, Closed::Lost(Fault::new(kind, why)));
        }
    }

    fn closed(&mut self, relay: RelayId, closed: Closed) {
        let gone = &mut self.relays[relay.0];
        let connection = gone.connection();
        if gone.link().is_some() {
            self.counts.connections_lost += 1;
        } else {
            self.counts.connections_failed += 1;
        }
        gone.count_failure(self.now);
        let (state, fault) = match closed {
            Closed::Lost(fault) => {
                let wait = backoff::wait(gone.failures, &mut self.random);
                (State::Waiting(self.now + wait), fault)
            }
            Closed::Refused(fault) => (State::Refused(fault.message.clone()), fault),
        };
        gone.state = state;
        gone.fault = Some(fault);
        self.relay_changes += 1;
        for (document, found) in &mut self.documents {
            let of_relay = &mut found.relays[relay.0];
            of_relay.greeted = Greeted::No;
            of_relay.unavailable = false;
            of_relay.heard = false;
            of_relay.reset = false;
            of_relay.blocked = false;
            if let Some(connection) = connection {
                found.forget_messages(connection);
                if let Some(opened) = &mut found.opened {
                    opened.replica.leave(connection);
                }
            }
            self.due.insert(*document);
        }
    }

    /// Makes a new document known to all connections.
    fn join_all(&self, document: &mut Document) {
        let Some(opened) = &mut document.opened else {
            return;
        };
        for link in self.relays.iter().filter_map(Relay::link) {
            opened.replica.join(link.connection);
        }
    }
}

/// Hands presence to the shell while there is room.
fn send_presence(link: &mut Link, outputs: &mut VecDeque<Output>) {
    while link.has_room()
        && let Some(frame) = link.presence.pop_front()
    {
        link.in_flight += 1;
        outputs.push_back(Output::Send(link.connection, Frame::whole(frame)));
    }
}
