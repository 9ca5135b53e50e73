//! A relay's document and its clients in one process, without sockets, clocks or threads.
//!
//! A [`Relay`] runs the turn around a [`History`] as the real relay does: take in, commit, poll.
//! A [`Client`] is Automerge itself, used as a stock client uses it. The [`World`] carries the
//! messages, in order on each connection and otherwise as its seed says, so that a run is repeated
//! by its seed.
//!
//! Whatever the relay sends is checked on the way: the heads that it names are in storage.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use automerge::sync::{Message, MessageVersion, State, SyncDoc};
use automerge::{AutoCommit, Automerge, Change, ChangeHash};
use bytes::Bytes;
use reconverge::contents::{self, Brought, Check, Digest, Reading, Unsound, Verdict, unpack};
use reconverge::history::chunk::first_document;
use reconverge::history::{
    Documents, Fold, History, NeedGraph, Outgoing, Peers, Quarantined, Record, Refusal, Unpacked,
};
use reconverge::id::{Access, ConnectionId, DocumentId, Space};
use reconverge::leb::push_unsigned;
use reconverge::protocol::{SYNC_BYTES_MAX, SyncMessage, Version, encode_sync};
use reconverge::storage::{Batch, Blob, DocumentKey, MemoryStorage, NewSnapshot, Storage, Write};

use crate::Random;

/// Most document chunks of one message that are unpacked, as in the relay.
const UNPACKS_MAX: u32 = 4;

/// What a commit that fails leaves behind; whoever commits learns only that it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was written.
    Nothing,
    /// All of it was written.
    Written,
}

/// A commit failed.
#[derive(Debug, Clone, Copy)]
struct Failed;

/// What comes to the document.
#[derive(Debug)]
enum Input {
    Message(ConnectionId, Bytes),
    Built(Built),
}

/// A job of the workshop, which is done when the world says so.
#[derive(Debug)]
enum Job {
    Unpack {
        from: ConnectionId,
        chunk: Bytes,
        known: Vec<ChangeHash>,
        segment_from: u32,
        changes: bool,
        tries: u32,
        basis: Basis,
    },
    Check {
        /// If a new snapshot is wanted.
        fold: Option<Fold>,
        from: u32,
        len: u32,
        epoch: u32,
        heads: Vec<ChangeHash>,
        snapshot: Option<Bytes>,
        changes: Vec<Bytes>,
    },
}

#[derive(Debug)]
enum Built {
    Unpacked {
        from: ConnectionId,
        tries: u32,
        basis: Basis,
        result: Result<Brought, String>,
    },
    Checked {
        fold: Option<Fold>,
        from: u32,
        len: u32,
        epoch: u32,
        verdict: Verdict,
    },
}

/// What an unpacking started from. While it is the same, its result fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Basis {
    /// Counts how often the history was opened, and with it how indexes may have changed.
    opening: u64,
    len: u32,
    generation: u32,
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
    storage: Arc<dyn Storage>,
    document: DocumentId,
    key: DocumentKey,
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
    fails: Option<Failure>,
    /// After a failure the owner calls [`Self::retry`]; otherwise the next turn follows at once.
    patient: bool,
    waits: bool,
    /// A commit failed: writers are asked again for what was lost. The real relay keeps that and asks
    /// only for what came later.
    asks_again: bool,
    message_bytes_max: u64,
    /// Everything that is in storage, noted when it is written.
    durable: HashSet<ChangeHash>,
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
        relay.durable = relay.stored_hashes();
        relay
    }

    fn with(storage: Arc<dyn Storage>, document: DocumentId) -> Self {
        let stored = storage.load(&document).unwrap();
        Self {
            document,
            key: stored.map_or_else(|| storage.new_key(), |stored| stored.key),
            storage,
            open: None,
            openings: 0,
            parked: Peers::default(),
            lines: BTreeMap::new(),
            backlog: VecDeque::new(),
            uploads: HashMap::new(),
            checking: false,
            epoch: 0,
            jobs: Vec::new(),
            fails: None,
            patient: false,
            waits: false,
            asks_again: false,
            message_bytes_max: SYNC_BYTES_MAX as u64,
            durable: HashSet::new(),
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
            durable: std::mem::take(&mut self.durable),
            openings: self.openings,
            refused: std::mem::take(&mut self.refused),
            graph_loads: self.graph_loads,
            snapshots: self.snapshots,
            unfolded_max: self.unfolded_max,
            unfoldings: self.unfoldings,
            taken_out: self.taken_out,
            ..Self::with(self.storage.clone(), self.document)
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
        self.fails = Some(failure);
    }

    /// The history, opened if it is not.
    pub fn history(&mut self) -> &mut History {
        self.ensure_open();
        &mut self.opened().history
    }

    /// Everything that is in storage, loaded by Automerge.
    #[must_use]
    pub fn stored(&self) -> Automerge {
        let Some(stored) = self.storage.load(&self.document).unwrap() else {
            return Automerge::new();
        };
        let mut document = match stored.record.generation {
            0 => Automerge::new(),
            generation => {
                let blob = Blob::Snapshot(generation);
                Automerge::load(&self.storage.blob(stored.key, blob).unwrap()).unwrap()
            }
        };
        assert_eq!(
            document.get_changes_meta(&[]).len(),
            stored.record.folded as usize
        );
        let changes = stored.rows.iter().flat_map(|row| &row.changes);
        let changes = changes.map(|c| Change::try_from(c.bytes.as_ref()).unwrap());
        document.apply_changes(changes).unwrap();
        document
    }

    /// The hashes of everything that is in storage, also of what makes no document.
    fn stored_hashes(&self) -> HashSet<ChangeHash> {
        let Some(stored) = self.storage.load(&self.document).unwrap() else {
            return HashSet::new();
        };
        let mut all = match stored.record.generation {
            0 => HashSet::new(),
            generation => {
                let snapshot = self.storage.blob(stored.key, Blob::Snapshot(generation));
                hashes(&Automerge::load(&snapshot.unwrap()).unwrap())
            }
        };
        let changes = stored.rows.iter().flat_map(|row| &row.changes);
        all.extend(changes.map(|change| change.hash));
        all
    }

    /// The record in storage.
    #[must_use]
    pub fn stored_record(&self) -> Option<Record> {
        Some(self.storage.load(&self.document).unwrap()?.record)
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
        self.durable = self.stored_hashes();
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
        let mut open = match self.storage.load(&self.document).unwrap() {
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
            let lot = self.storage.blob(self.key, Blob::Quarantine(number));
            let lot = Quarantined::decode(&lot.unwrap()).expect("a quarantined lot");
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
                } else if self.learn(*from, message, Documents::Report) {
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
    fn learn(&mut self, from: ConnectionId, message: &Bytes, documents: Documents) -> bool {
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
        let segments = 0..open.history.record().segments;
        let segment = |number| self.storage.blob(self.key, Blob::Segment(number)).unwrap();
        let segments: Vec<_> = segments.map(segment).collect();
        let loaded = open.history.load_graph(&segments);
        loaded.expect("the stored segments fit together");
        step(&mut open.history).expect("the whole graph is resident")
    }

    fn commit(&mut self, writes: Vec<Write>) -> Result<(), Failed> {
        let failure = self.fails.take();
        if failure != Some(Failure::Nothing) {
            let mut written = HashSet::new();
            for write in &writes {
                match write {
                    Write::Row { row, .. } => {
                        written.extend(row.changes.iter().map(|c| c.hash));
                    }
                    Write::Blob(Blob::Snapshot(_), bytes) => {
                        written.extend(hashes(&Automerge::load(bytes).unwrap()));
                    }
                    _ => {}
                }
            }
            let (document, key) = (self.document, self.key);
            let batch = Batch {
                document,
                key,
                writes,
            };
            self.storage.commit(&[batch]).map_err(|_| Failed)?;
            self.durable.extend(written);
        }
        failure.map_or(Ok(()), |_| Err(Failed))
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
        self.commit(writes)?;
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
                let unfolded = match unfold(open, &*self.storage, self.key, *connection) {
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
                let storage = &*self.storage;
                let message = encode(&open.history, storage, self.key, &outgoing, &unfolded);
                let decoded = Message::decode(&message).unwrap();
                for head in &decoded.heads {
                    assert!(self.durable.contains(head), "head {head} is not stored");
                }
                line.outbox.push_back(message);
            }
        }
    }
}

/// What is built: uploads, checks and foldings.
impl Relay {
    fn unpack(&mut self, from: ConnectionId, message: Bytes, tries: u32) {
        let chunk = first_document(&message).expect("a chunk was reported");
        self.uploads.entry(from).or_default().push_front(message);
        self.start_unpacking(from, chunk, tries, false);
    }

    fn start_unpacking(&mut self, from: ConnectionId, chunk: Bytes, tries: u32, changes: bool) {
        let known = self.with_graph(|history| history.hashes());
        let basis = self.basis();
        let segment_from = self.opened().history.record().folded;
        self.jobs.push(Job::Unpack {
            from,
            chunk,
            known,
            segment_from,
            changes,
            tries,
            basis,
        });
    }

    /// Whether something that is stored is not checked yet, as far as is known without opening.
    #[must_use]
    pub fn is_unverified(&self) -> bool {
        let history = self.open.as_ref().map(|open| &open.history);
        history.is_some_and(|history| history.verified() < history.len()) && !self.checking
    }

    /// Starts to fold everything into a new snapshot, however little it is.
    pub fn begin_fold(&mut self) {
        self.begin_check(true);
    }

    /// Starts to check what is stored, and to fold it if `folds`.
    pub fn begin_check(&mut self, folds: bool) {
        self.turn();
        let Some(open) = &self.open else {
            // A commit failed.
            return;
        };
        let history = &open.history;
        let record = history.record();
        let done = match folds {
            true => record.folded,
            false => history.verified(),
        };
        if self.checking || !open.stored || done == history.len() {
            return;
        }
        self.checking = true;
        let snapshot = match record.generation {
            0 => None,
            generation => {
                let blob = Blob::Snapshot(generation);
                Some(self.storage.blob(self.key, blob).unwrap())
            }
        };
        let range = record.folded..history.len();
        self.jobs.push(Job::Check {
            fold: folds.then(|| history.begin_fold()),
            from: record.folded,
            len: history.len(),
            epoch: self.epoch,
            heads: history.heads(),
            snapshot,
            changes: self.storage.changes(self.key, &[range]).unwrap(),
        });
    }

    /// Finishes a job, and turns.
    pub fn finish_job(&mut self, at: usize) {
        let built = match self.jobs.remove(at) {
            Job::Unpack {
                from,
                chunk,
                known,
                segment_from,
                changes,
                tries,
                basis,
            } => Built::Unpacked {
                from,
                tries,
                basis,
                result: unpack(&chunk, &known, segment_from, changes),
            },
            Job::Check {
                fold,
                from,
                len,
                epoch,
                heads,
                snapshot,
                changes,
            } => {
                let check = Check {
                    snapshot: snapshot.as_ref(),
                    changes: &changes,
                    heads: &heads,
                    len,
                    reading: Reading::Contents,
                    wants_snapshot: fold.is_some(),
                };
                Built::Checked {
                    fold,
                    from,
                    len,
                    epoch,
                    verdict: check.run().unwrap(),
                }
            }
        };
        self.backlog.push_back(Input::Built(built));
        self.turn();
    }

    fn checked(
        &mut self,
        fold: Option<&Fold>,
        from: u32,
        len: u32,
        verdict: &Verdict,
    ) -> Result<(), Failed> {
        self.save()?;
        match (verdict, fold) {
            (Verdict::Sound(Some(snapshot)), Some(fold)) => self.folded(fold, snapshot.clone()),
            (Verdict::Sound(_), _) => {
                let history = &mut self.opened().history;
                history.set_verified(len);
                let record = history.record().clone();
                self.commit(vec![Write::Record(record)])
            }
            (Verdict::Unsound(unsound), _) => self.take_out(from, unsound),
        }
    }

    fn folded(&mut self, fold: &Fold, snapshot: Bytes) -> Result<(), Failed> {
        if fold.record.generation != self.opened().history.record().generation + 1 {
            return Ok(());
        }
        let new = NewSnapshot::folded(fold, snapshot);
        #[cfg(feature = "planted")]
        let new = self.planted_snapshot(new);
        let record = new.record.clone();
        self.commit(new.into_writes())?;
        self.snapshots.0 += 1;
        self.opened().history.folded(record);
        Ok(())
    }

    #[cfg(feature = "planted")]
    fn planted_snapshot(&mut self, mut new: NewSnapshot) -> NewSnapshot {
        if reconverge::planted::is(reconverge::planted::Bug::SnapshotWithoutTail) {
            new.record.folded = self.opened().history.len();
            new.record.rows_from = new.record.folded;
            new.record.verified = new.record.folded;
        }
        new
    }

    /// Takes stored changes out, as if a check had found fault with them.
    pub fn quarantine(&mut self, indexes: &[u32]) {
        self.turn();
        let from = self.history().record().folded;
        let unsound: Vec<_> = indexes
            .iter()
            .map(|index| Unsound {
                at: index - from,
                reason: "the test says so".into(),
            })
            .collect();
        let verdict = Verdict::Unsound(unsound);
        self.backlog.push_back(Input::Built(Built::Checked {
            fold: None,
            from,
            len: 0,
            epoch: self.epoch,
            verdict,
        }));
        self.turn();
    }

    fn take_out(&mut self, from: u32, unsound: &[Unsound]) -> Result<(), Failed> {
        let folded = self.opened().history.record().folded;
        let unsound = unsound.iter();
        let refusal = |reason: &String| Refusal::Unsound(reason.clone());
        let unsound = unsound.map(|change| (from + change.at, refusal(&change.reason)));
        let unsound: HashMap<u32, Refusal> = unsound.filter(|(at, _)| *at >= folded).collect();
        if unsound.is_empty() {
            return Ok(());
        }
        let stored = self.storage.load(&self.document).unwrap().unwrap();
        let segments = (0..stored.record.segments)
            .map(|number| self.storage.blob(self.key, Blob::Segment(number)).unwrap());
        let segments: Vec<_> = segments.collect();
        let history = &mut self.opened().history;
        let outline = stored.outline.as_deref();
        let without = history.without(&unsound, outline, &segments, &stored.rows);
        let without = without.expect("its parts fit together");
        let record = history.record().clone();
        let blob = Blob::Quarantine(record.quarantined - 1);
        let (mut lot, mut refused) = (Vec::new(), Vec::new());
        for out in without.taken_out {
            refused.push((Some(out.change.hash), out.refusal.clone()));
            lot.push(Quarantined {
                hash: out.change.hash,
                reason: out.refusal.to_string(),
                sender: String::new(),
                bytes: out.change.bytes,
            });
        }
        let mut writes = vec![Write::RemoveRowsFrom(without.rows_from)];
        let rows = without.rows.into_iter();
        writes.extend(rows.map(|(last, row)| Write::Row { last, row }));
        writes.push(Write::Blob(blob, Quarantined::encode(&lot).into()));
        writes.push(Write::Record(record));
        let connections: Vec<_> = self.lines.keys().copied().collect();
        for connection in &connections {
            self.report(*connection, refused.clone());
        }
        self.openings += 1;
        self.epoch += 1;
        let committed = self.commit(writes);
        if committed.is_err() {
            for connection in connections {
                self.disconnect(connection);
                self.closed.push(connection);
            }
        }
        committed?;
        self.taken_out += lot.len();
        for change in lot {
            self.durable.remove(&change.hash);
        }
        self.opened().history.committed();
        Ok(())
    }

    fn unpacked(
        &mut self,
        from: ConnectionId,
        tries: u32,
        basis: Basis,
        result: &Result<Brought, String>,
    ) -> Result<(), Failed> {
        let waiting = self.uploads.get(&from).and_then(|w| w.front());
        let Some(message) = waiting.cloned() else {
            return Ok(());
        };
        let mut documents = Documents::Report;
        match result {
            Ok(Brought::All(_)) if self.basis() != basis => {
                let chunk = first_document(&message).expect("a chunk was reported");
                self.start_unpacking(from, chunk, tries, true);
                return Ok(());
            }
            Ok(Brought::All(unpacked)) => self.adopt(&message, unpacked)?,
            Ok(Brought::Changes(changes)) => {
                let received = self.with_graph(|h| h.receive_unpacked(from, changes));
                self.report(from, received.refused);
            }
            Err(reason) => {
                self.report(from, vec![(None, Refusal::Automerge(reason.clone()))]);
                documents = Documents::Unpacked;
            }
        }
        if tries + 1 >= UNPACKS_MAX {
            documents = Documents::Unpacked;
        }
        let mut waiting = self.uploads.remove(&from).unwrap_or_default();
        while let Some(message) = waiting.pop_front() {
            if self.learn(from, &message, documents) {
                self.uploads.insert(from, waiting);
                self.unpack(from, message, tries + 1);
                return Ok(());
            }
            documents = Documents::Report;
        }
        Ok(())
    }

    fn adopt(&mut self, message: &Bytes, unpacked: &Unpacked) -> Result<(), Failed> {
        self.save()?;
        let chunk = first_document(message).expect("a chunk was reported");
        let open = self.opened();
        if unpacked.len == open.history.len() {
            return Ok(());
        }
        let new = NewSnapshot::unpacked(open.history.record(), chunk, unpacked);
        let (record, outline) = (new.record.clone(), new.outline.clone());
        self.commit(new.into_writes())?;
        self.snapshots.1 += 1;
        let open = self.open.take().expect("it was opened before");
        let history = open.history.adopted(record, &outline);
        self.openings += 1;
        self.open = Some(Open {
            history: history.expect("its parts fit together"),
            stored: true,
        });
        Ok(())
    }
}

/// The hashes of all changes of a document.
#[must_use]
pub fn hashes(document: &Automerge) -> HashSet<ChangeHash> {
    let changes = document.get_changes_meta(&[]);
    changes.iter().map(|change| change.hash).collect()
}

/// The changes of the snapshot that a client of an old core needs now.
fn unfold(
    open: &mut Open,
    storage: &dyn Storage,
    key: DocumentKey,
    client: ConnectionId,
) -> Option<(Range<u32>, Vec<Bytes>)> {
    let range = open
        .history
        .unfolds_for(client)
        .unwrap_or_else(|NeedGraph| {
            let segments = 0..open.history.record().segments;
            let segment = |number| storage.blob(key, Blob::Segment(number)).unwrap();
            let segments: Vec<_> = segments.map(segment).collect();
            open.history
                .load_graph(&segments)
                .expect("the stored segments fit together");
            open.history
                .unfolds_for(client)
                .expect("the whole graph is resident")
        })?;
    let generation = open.history.record().generation;
    let snapshot = storage.blob(key, Blob::Snapshot(generation)).unwrap();
    let wanted = open
        .history
        .hashes_of(range.clone())
        .expect("it is resident");
    let changes = contents::unfold(&snapshot, &wanted).unwrap();
    Some((range, changes))
}

/// A sync message as the relay puts it on the wire.
fn encode(
    history: &History,
    storage: &dyn Storage,
    key: DocumentKey,
    outgoing: &Outgoing,
    (range, unfolded): &(Range<u32>, Vec<Bytes>),
) -> Vec<u8> {
    let indexes = outgoing.changes.iter().cloned().flatten();
    let recent = indexes.map(|index| history.recent(index).cloned());
    let chunks = match recent.collect::<Option<Vec<_>>>() {
        Some(recent) if !outgoing.snapshot => recent,
        _ => {
            let generation = history.record().generation;
            let snapshot = outgoing.snapshot.then_some(Blob::Snapshot(generation));
            let snapshot = snapshot.map(|blob| storage.blob(key, blob).unwrap());
            let indexes = outgoing.changes.iter().cloned().flatten();
            let changes = indexes.flat_map(|index| match range.contains(&index) {
                true => vec![unfolded[(index - range.start) as usize].clone()],
                false => storage
                    .changes(key, std::slice::from_ref(&(index..index + 1)))
                    .unwrap(),
            });
            snapshot.into_iter().chain(changes).collect()
        }
    };
    let mut message = outgoing.encode_head(chunks.len());
    push_chunks(&mut message, &chunks);
    if let Some(flags) = outgoing.flags {
        message.extend_from_slice(&flags.encode());
    }
    message
}

/// Appends chunks to a message that was said to have as many.
pub fn push_chunks(message: &mut Vec<u8>, chunks: &[impl AsRef<[u8]>]) {
    for chunk in chunks {
        push_unsigned(message, chunk.as_ref().len() as u64);
        message.extend_from_slice(chunk.as_ref());
    }
}

/// A sync message of whoever claims to have nothing but these heads.
#[must_use]
pub fn sync_message(heads: &[ChangeHash], need: &[ChangeHash], chunks: &[&[u8]]) -> Vec<u8> {
    let mut message = encode_sync(Version::V1, heads, need, None, chunks.len());
    push_chunks(&mut message, chunks);
    message
}

/// Which Automerge a client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// The current one.
    Current,
    /// One that sends no flags, skips those it gets, and so never sends a document chunk.
    Old,
}

/// What a client keeps over a disconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Its sync state, as a stock client stores it.
    State,
    /// Nothing of it.
    Nothing,
}

/// A stock client.
#[derive(Debug)]
pub struct Client {
    /// Its document.
    pub doc: AutoCommit,
    /// What it believes of the relay.
    pub state: State,
    /// Which Automerge it has.
    pub core: Core,
    /// What it may do.
    pub access: Access,
    /// Its connection, if it has one.
    pub connection: Option<ConnectionId>,
    /// What is on its way to the relay.
    outbox: VecDeque<Vec<u8>>,
    /// How many messages it was sent, and their bytes.
    pub received: (usize, usize),
    /// How many messages it sent, and their bytes.
    pub sent: (usize, usize),
    /// How many chunks it was sent.
    pub chunks_received: usize,
}

impl Client {
    /// The client's heads, in order.
    pub fn heads(&mut self) -> Vec<ChangeHash> {
        let mut heads = self.doc.get_heads();
        heads.sort_unstable();
        heads
    }

    /// Says what Automerge has to say now.
    fn speak(&mut self) {
        if self.connection.is_none() {
            return;
        }
        let Some(mut message) = self.doc.sync().generate_sync_message(&mut self.state) else {
            return;
        };
        if self.core == Core::Old {
            message.flags = None;
        }
        let message = message.encode();
        self.sent.0 += 1;
        self.sent.1 += message.len();
        self.outbox.push_back(message);
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.received.0 += 1;
        self.received.1 += bytes.len();
        let mut message = Message::decode(bytes).unwrap();
        self.chunks_received += message.changes.len();
        let documents = message.changes.iter().any(|chunk| chunk[8] == 0);
        if self.core == Core::Old {
            message.flags = None;
            assert!(!documents, "cores before 2.1 take no document chunks");
            assert_eq!(message.version, MessageVersion::V1);
        }
        assert!(
            !documents || message.version == MessageVersion::V2,
            "a document chunk goes in a message of version 2"
        );
        let mut sync = self.doc.sync();
        let received = sync.receive_sync_message(&mut self.state, message);
        drop(sync);
        received.expect("a client takes whatever the relay sends");
        self.speak();
    }
}

/// A relay, its clients, and the wires between them.
#[derive(Debug)]
pub struct World {
    /// The relay.
    pub relay: Relay,
    /// The clients.
    pub clients: Vec<Client>,
    /// What decides about everything that is not said.
    pub random: Random,
    connections: u64,
}

impl World {
    /// A relay without clients.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            relay: Relay::new(),
            clients: Vec::new(),
            random: Random::new(seed),
            connections: 0,
        }
    }

    /// A client without a document, not connected; its place among the clients.
    pub fn add_client(&mut self, core: Core, access: Access) -> usize {
        let doc = self.new_document();
        self.clients.push(Client {
            doc,
            state: State::new(),
            core,
            access,
            connection: None,
            outbox: VecDeque::new(),
            received: (0, 0),
            sent: (0, 0),
            chunks_received: 0,
        });
        self.clients.len() - 1
    }

    /// A client as most are.
    pub fn add_writer(&mut self) -> usize {
        self.add_client(Core::Current, Access::Write)
    }

    /// An empty document under an actor id of its own.
    pub fn new_document(&mut self) -> AutoCommit {
        AutoCommit::new().with_actor(self.random.bytes().as_slice().into())
    }

    /// Connects a client and lets it speak.
    pub fn connect(&mut self, at: usize) {
        if self.clients[at].connection.is_some() {
            return;
        }
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let client = &mut self.clients[at];
        client.connection = Some(connection);
        client.state = State::decode(&client.state.encode()).unwrap();
        self.relay.connect(connection, client.access);
        client.speak();
    }

    /// Cuts a client's connection; what is on the wire is lost.
    pub fn disconnect(&mut self, at: usize, kept: Kept) {
        let client = &mut self.clients[at];
        if let Some(connection) = client.connection.take() {
            self.relay.disconnect(connection);
        }
        client.outbox.clear();
        if kept == Kept::Nothing {
            client.state = State::new();
        }
    }

    /// Restarts the relay, which cuts all connections.
    pub fn restart(&mut self) {
        for at in 0..self.clients.len() {
            self.disconnect(at, Kept::State);
        }
        self.relay.restart();
    }

    /// Changes a client's document, as one change, and lets the client speak.
    pub fn edit(&mut self, at: usize, edit: impl FnOnce(&mut AutoCommit)) {
        let client = &mut self.clients[at];
        edit(&mut client.doc);
        client.doc.commit();
        client.speak();
    }

    /// Delivers one message, or finishes one job. `false` if there is none.
    pub fn step(&mut self) -> bool {
        let up = |client: &Client| !client.outbox.is_empty();
        let relay = &self.relay;
        let down = |client: &Client| {
            let connection = client.connection;
            connection.is_some_and(|connection| relay.outbox_len(connection) > 0)
        };
        let mut choices = Vec::new();
        for (at, client) in self.clients.iter().enumerate() {
            if up(client) {
                choices.push((at, true));
            }
            if down(client) {
                choices.push((at, false));
            }
        }
        let jobs = self.relay.jobs_len();
        let choice = self.random.below((choices.len() + jobs) as u64) as usize;
        let Some((at, up)) = choices.get(choice).copied() else {
            if jobs > 0 {
                self.relay.finish_job(choice - choices.len());
            }
            return jobs > 0;
        };
        let client = &mut self.clients[at];
        let connection = client
            .connection
            .expect("only a connection carries something");
        if up {
            let message = client.outbox.pop_front().expect("looked at above");
            self.relay.push(connection, &message);
            // Sometimes a turn takes in several messages.
            if self.random.below(4) > 0 {
                self.relay.turn();
            }
        } else {
            let message = self.relay.take(connection).expect("looked at above");
            self.clients[at].hear(&message);
        }
        true
    }

    /// Delivers until nothing is left; how many messages and jobs that took.
    ///
    /// # Panics
    /// If it takes more than `steps_max`: they chatter without end.
    pub fn settle(&mut self, steps_max: usize) -> usize {
        for step in 0..=steps_max {
            if !self.step() {
                if !self.relay.is_busy() {
                    return step;
                }
                self.relay.turn();
            }
        }
        panic!("not quiet after {steps_max} messages");
    }

    /// Forgets what was counted so far.
    pub fn reset_counts(&mut self) {
        for client in &mut self.clients {
            (client.sent, client.received) = ((0, 0), (0, 0));
            client.chunks_received = 0;
        }
    }

    /// Checks that all clients (but those with a document of their own will) have what is stored.
    pub fn assert_converged(&mut self) {
        let stored = self.relay.stored();
        let mut heads = stored.get_heads();
        heads.sort_unstable();
        let contents = Digest::of(&stored).unwrap();
        assert_eq!(self.relay.history().durable_heads().as_ref(), heads);
        assert_eq!(
            self.relay.history().len() as usize,
            stored.get_changes_meta(&[]).len()
        );
        for (at, client) in self.clients.iter_mut().enumerate() {
            assert_eq!(client.heads(), heads, "the heads of client {at}");
            let found = Digest::of(client.doc.document()).unwrap();
            assert_eq!(found, contents, "the contents of client {at}");
        }
    }
}
