//! One document of a relay: the turn around a [`History`] as the real relay does it, with what would
//! happen elsewhere (connections, storage, the workshop) held as values.

mod building;
mod sending;
mod store;
mod workshop;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use automerge::sync::Message;
use automerge::{Automerge, ChangeHash};
use bytes::Bytes;
use reconverge::history::{
    DocumentChunks, History, NeedGraph, Peers, Quarantined, Record, Refusal,
};
use reconverge::id::{Access, ConnectionId, DocumentId, Space};
use reconverge::protocol::{SYNC_BYTES_MAX, SyncMessage};
use reconverge::storage::{Blob, MemoryStorage, Storage, Write};

use self::sending::{encode, load_graph, unfold};
use self::store::{Failed, Store};
pub use self::store::{Failure, hashes};
use self::workshop::{Basis, Built, Job};

/// What comes to the document.
#[derive(Debug)]
enum Input {
    Message(ConnectionId, Bytes),
    Built(Built),
}

#[derive(Debug)]
struct Line {
    access: Access,
    joined: bool,
    /// How many messages it takes before it must be emptied.
    room: usize,
    outbox: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct Open {
    history: History,
    stored: bool,
}

/// One document of a relay.
#[derive(Debug)]
pub struct Relay {
    store: Store,
    open: Option<Open>,
    openings: u64,
    parked: Peers,
    lines: BTreeMap<ConnectionId, Line>,
    backlog: VecDeque<Input>,
    uploads: HashMap<ConnectionId, VecDeque<Bytes>>,
    checking: bool,
    /// How often stored changes were taken out, which gives others new indexes.
    epoch: u32,
    jobs: Vec<Job>,
    /// After a failure the owner calls [`Self::retry`]; otherwise the next turn follows at once.
    patient: bool,
    waits: bool,
    /// A commit failed: writers are asked again for what was lost. The real relay keeps that and asks
    /// only for what came later.
    asks_again: bool,
    message_bytes_max: u64,
    /// What was refused so far.
    pub refused: Vec<(Option<ChangeHash>, Refusal)>,
    /// The same with who sent it, until the owner takes it to tell them.
    pub reports: Vec<(ConnectionId, Option<ChangeHash>, Refusal)>,
    /// How often the folded part of the graph was loaded.
    pub graph_loads: usize,
    /// How many snapshots came from folding, and how many from uploads.
    pub snapshots: (usize, usize),
    /// Most changes of a snapshot that are unpacked at a time for a client of an old core.
    pub unfolded_max: u32,
    /// How often changes of a snapshot were unpacked for a client.
    pub unfoldings: usize,
    /// How many changes were taken out of what is stored.
    pub taken_out: usize,
    /// Connections that the relay closed; the owner takes them to tell the other side.
    pub closed: Vec<ConnectionId>,
}

impl Default for Relay {
    fn default() -> Self {
        Self::new()
    }
}

impl Relay {
    /// A relay that has nothing.
    #[must_use]
    pub fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new("world"));
        Self::with(storage, DocumentId::new(&[7; 16]).unwrap())
    }

    /// One document of a relay on this storage. After a commit failed it does nothing until
    /// [`Self::retry`].
    #[must_use]
    pub fn on(storage: Arc<dyn Storage>, document: DocumentId) -> Self {
        let mut relay = Self::with(storage, document);
        relay.patient = true;
        relay.store.read_back();
        relay
    }

    fn with(storage: Arc<dyn Storage>, document: DocumentId) -> Self {
        Self::in_store(Store::new(storage, document))
    }

    fn in_store(store: Store) -> Self {
        Self {
            store,
            open: None,
            openings: 0,
            parked: Peers::default(),
            lines: BTreeMap::new(),
            backlog: VecDeque::new(),
            uploads: HashMap::new(),
            checking: false,
            epoch: 0,
            jobs: Vec::new(),
            patient: false,
            waits: false,
            asks_again: false,
            message_bytes_max: SYNC_BYTES_MAX as u64,
            refused: Vec::new(),
            reports: Vec::new(),
            graph_loads: 0,
            snapshots: (0, 0),
            unfolded_max: 1000,
            unfoldings: 0,
            taken_out: 0,
            closed: Vec::new(),
        }
    }

    /// Begins a connection.
    pub fn connect(&mut self, connection: ConnectionId, access: Access) {
        let line = Line {
            access,
            joined: false,
            room: 8,
            outbox: VecDeque::new(),
        };
        self.lines.insert(connection, line);
    }

    /// Begins a connection, unless it is there.
    pub fn connect_once(&mut self, connection: ConnectionId, access: Access, room: usize) {
        if !self.lines.contains_key(&connection) {
            self.connect(connection, access);
            self.set_room(connection, room);
        }
    }

    /// Ends a connection.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.lines.remove(&connection);
        self.uploads.remove(&connection);
        self.parked.leave(connection);
        if let Some(open) = &mut self.open {
            open.history.leave(connection);
        }
    }

    /// The connections that spoke of the document.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.lines.keys().copied()
    }

    /// How many bytes of changes are put into one message, before the document is opened.
    #[must_use]
    pub fn with_message_bytes_max(mut self, max: u64) -> Self {
        self.message_bytes_max = max;
        self
    }

    /// How many messages wait for a connection.
    #[must_use]
    pub fn outbox_len(&self, connection: ConnectionId) -> usize {
        self.lines.get(&connection).map_or(0, |l| l.outbox.len())
    }

    /// The next message for a connection.
    pub fn take(&mut self, connection: ConnectionId) -> Option<Vec<u8>> {
        let line = self.lines.get_mut(&connection)?;
        let full = line.outbox.len() >= line.room;
        let message = line.outbox.pop_front();
        if full {
            self.turn();
        }
        message
    }

    /// How many messages may wait for a connection.
    pub fn set_room(&mut self, connection: ConnectionId, room: usize) {
        if let Some(line) = self.lines.get_mut(&connection) {
            line.room = room;
        }
        self.turn();
    }

    /// Puts a message into the mailbox; the next turn takes it in.
    pub fn push(&mut self, from: ConnectionId, message: &[u8]) {
        let message = Bytes::copy_from_slice(message);
        self.backlog.push_back(Input::Message(from, message));
    }

    /// A turn for one message.
    pub fn receive(&mut self, from: ConnectionId, message: &[u8]) {
        self.push(from, message);
        self.turn();
    }

    /// Whether something is left to do without anybody's message.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty() || !self.backlog.is_empty()
    }

    /// How many jobs the workshop has.
    #[must_use]
    pub fn jobs_len(&self) -> usize {
        self.jobs.len()
    }

    /// The relay stops and starts again on what it stored. All connections end.
    pub fn restart(&mut self) {
        *self = Self {
            openings: self.openings,
            refused: std::mem::take(&mut self.refused),
            graph_loads: self.graph_loads,
            snapshots: self.snapshots,
            unfolded_max: self.unfolded_max,
            unfoldings: self.unfoldings,
            taken_out: self.taken_out,
            ..Self::in_store(self.store.found_again())
        };
    }

    /// Lets go of the history, if nothing is being built.
    pub fn evict(&mut self) {
        if self.jobs.is_empty() && self.uploads.is_empty() && !self.checking {
            self.park();
        }
    }

    fn park(&mut self) {
        if let Some(open) = self.open.take() {
            self.parked = open.history.into_peers();
        }
    }

    /// The next commit fails.
    pub fn fail_next_commit(&mut self, failure: Failure) {
        self.store.fail_next(failure);
    }

    /// The history, opened if it is not.
    pub fn history(&mut self) -> &mut History {
        self.ensure_open();
        &mut self.opened().history
    }

    /// Everything that is in storage, loaded by Automerge.
    #[must_use]
    pub fn stored(&self) -> Automerge {
        self.store.contents()
    }

    /// The record in storage.
    #[must_use]
    pub fn stored_record(&self) -> Option<Record> {
        Some(self.store.load()?.record)
    }

    /// What comes in is taken in, what is new is stored, what there is to say is said.
    pub fn turn(&mut self) {
        if self.waits {
            return;
        }
        if self.try_turn().is_err()
            && let Some(open) = self.open.take()
        {
            self.parked = open.history.into_peers_after_failure();
            self.asks_again = true;
            // The real relay waits a second and turns again.
            self.waits = self.patient;
            self.turn();
        }
    }

    /// Whether a commit failed, and nothing goes on until [`Self::retry`].
    #[must_use]
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Turns again after a failure.
    pub fn retry(&mut self) {
        self.waits = false;
        // What the commit that failed wrote all the same is found when it is read back.
        self.store.read_back();
        self.turn();
    }

    fn try_turn(&mut self) -> Result<(), Failed> {
        self.ensure_open();
        while let Some(input) = self.backlog.pop_front() {
            if let Err(failed) = self.take_in(&input) {
                self.backlog.push_front(input);
                return Err(failed);
            }
        }
        self.save()?;
        self.send();
        Ok(())
    }

    fn ensure_open(&mut self) {
        if self.open.is_some() {
            return;
        }
        self.openings += 1;
        let mut open = match self.store.load() {
            None => Open {
                history: History::new(Space::default()),
                stored: false,
            },
            Some(stored) => {
                let outline = stored.outline.as_deref();
                let history = History::open(stored.record, outline, &stored.rows);
                Open {
                    history: history.expect("what is stored fits together"),
                    stored: true,
                }
            }
        };
        for number in 0..open.history.record().quarantined {
            let lot = self.store.blob(Blob::Quarantine(number));
            let lot = Quarantined::decode(&lot).expect("a quarantined lot");
            open.history.quarantine(&lot);
        }
        open.history.set_message_bytes_max(self.message_bytes_max);
        open.history.set_peers(std::mem::take(&mut self.parked));
        if std::mem::take(&mut self.asks_again) {
            open.history.ask_again();
        }
        self.open = Some(open);
    }

    fn opened(&mut self) -> &mut Open {
        self.open.as_mut().expect("it was opened before")
    }

    fn basis(&mut self) -> Basis {
        let opening = self.openings;
        let history = &self.opened().history;
        Basis {
            opening,
            len: history.len(),
            generation: history.record().generation,
        }
    }

    fn take_in(&mut self, input: &Input) -> Result<(), Failed> {
        match input {
            Input::Message(from, message) => {
                let Some(line) = self.lines.get_mut(from) else {
                    return Ok(());
                };
                if !std::mem::replace(&mut line.joined, true) {
                    let access = line.access;
                    self.opened().history.join(*from, access);
                }
                if let Some(waiting) = self.uploads.get_mut(from) {
                    waiting.push_back(message.clone());
                } else if self.learn(*from, message, DocumentChunks::Report) {
                    self.unpack(*from, message.clone(), 0);
                }
                Ok(())
            }
            Input::Built(Built::Checked {
                fold,
                from,
                len,
                epoch,
                verdict,
            }) => {
                self.checking = false;
                if *epoch == self.epoch {
                    self.checked(fold.as_ref(), *from, *len, verdict)?;
                }
                Ok(())
            }
            Input::Built(Built::Unpacked {
                from,
                tries,
                basis,
                result,
            }) => self.unpacked(*from, *tries, *basis, result),
        }
    }

    /// Takes in a sync message. Whether it has a document chunk to be unpacked first.
    fn learn(&mut self, from: ConnectionId, message: &Bytes, documents: DocumentChunks) -> bool {
        let message = SyncMessage::decode(message).unwrap();
        let received = self.with_graph(|history| history.receive(from, &message, documents));
        self.report(from, received.refused);
        received.unpack
    }

    fn report(&mut self, from: ConnectionId, refused: Vec<(Option<ChangeHash>, Refusal)>) {
        let reports = refused.iter().cloned();
        self.reports
            .extend(reports.map(|(hash, refusal)| (from, hash, refusal)));
        self.refused.extend(refused);
    }

    fn with_graph<T>(&mut self, mut step: impl FnMut(&mut History) -> Result<T, NeedGraph>) -> T {
        let open = self.open.as_mut().expect("it was opened before");
        if let Ok(done) = step(&mut open.history) {
            return done;
        }
        self.graph_loads += 1;
        load_graph(&mut open.history, &self.store);
        step(&mut open.history).expect("the whole graph is resident")
    }

    fn save(&mut self) -> Result<(), Failed> {
        let open = self.opened();
        let Some((last, row)) = open.history.take_unsaved() else {
            return Ok(());
        };
        let mut writes = vec![Write::Row { last, row }];
        if !open.stored {
            writes.push(Write::Record(open.history.record().clone()));
        }
        self.store.commit(writes)?;
        let open = self.opened();
        open.stored = true;
        open.history.committed();
        Ok(())
    }

    fn send(&mut self) {
        let open = self.open.as_mut().expect("it was opened before");
        for (connection, line) in &mut self.lines {
            while line.outbox.len() < line.room {
                let news = open.history.has_news(*connection);
                let unfolded = match unfold(&mut open.history, &self.store, *connection) {
                    // Less than it could be, so that there are several windows.
                    Some((range, changes)) => {
                        let end = range.end.min(range.start + self.unfolded_max);
                        self.unfoldings += 1;
                        (range.start..end, changes)
                    }
                    None => (0..0, Vec::new()),
                };
                let polled = open
                    .history
                    .poll_send_unfolded(*connection, unfolded.0.clone());
                let Some(outgoing) = polled else {
                    break;
                };
                assert!(news, "what has something to say has news");
                let message = encode(&open.history, &self.store, &outgoing, &unfolded);
                let decoded = Message::decode(&message).unwrap();
                for head in &decoded.heads {
                    assert!(self.store.has(head), "head {head} is not stored");
                }
                line.outbox.push_back(message);
            }
        }
    }
}
