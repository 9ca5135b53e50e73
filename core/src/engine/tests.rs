//! Engines and relays in virtual time: no sockets, no clock, every run the same.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{
    ActorId, Automerge, AutomergeError, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue,
};
use bytes::Bytes;

mod current;

use super::backoff::Random;
use super::*;
use crate::history::{Documents, History, Refusal};
use crate::id::{Access, Space};
use crate::leb::push_unsigned;
use crate::protocol::{Flags, SyncEnvelope, SyncMessage};
use crate::session::{Event, Session};
use crate::storage::{MemoryStorage, Storage};

/// A relay that keeps everything in memory: `History` as the real one drives it.
#[derive(Default)]
struct TestRelay {
    down: bool,
    /// Lets nobody in but this client.
    only: Option<usize>,
    /// Takes in and does not commit, so names nothing new.
    held: bool,
    rejects: bool,
    /// Takes no change, and says so, for this reason.
    refuses: Option<&'static str>,
    /// Says that each change's actor was used by others, and takes none.
    claims_reuse: bool,
    /// Keeps to itself what it refuses.
    mute: bool,
    documents: BTreeMap<DocumentId, Kept>,
    sessions: HashMap<Line, Session>,
    /// Sync messages that came, by size.
    received: Vec<usize>,
}

#[derive(Default)]
struct Kept {
    history: Option<History>,
    changes: Vec<Bytes>,
}

fn refused(document: DocumentId, hashes: Vec<ChangeHash>, reason: &str) -> Vec<u8> {
    protocol::encode(&Message::Refused(protocol::Refused {
        sender: "relay",
        target: "",
        document: document.to_string().into(),
        hashes,
        reason,
    }))
}

/// A connection of a client to a relay.
type Line = (usize, ConnectionId);

fn id_of(line: Line) -> ConnectionId {
    ConnectionId(line.0 as u64 * 1_000_000 + line.1.0)
}

struct Client {
    engine: Engine,
    storage: Arc<MemoryStorage>,
    lines: HashMap<ConnectionId, usize>,
    /// Commits wait.
    held: bool,
    waiting: Vec<Batch>,
    failing: u32,
    /// So often nothing can be read.
    unreadable: u32,
    /// Histories are folded without anything to read from.
    folds_blindly: bool,
    found: Vec<(DocumentId, bool)>,
    /// What became of questions, with what of the document was here in that moment.
    answers: HashMap<Asked, current::Answer>,
    statuses: Vec<Status>,
    heard: Vec<Bytes>,
    connects: Vec<Duration>,
    /// Whether contents were built with each document that was read.
    loads: Vec<bool>,
}

impl Client {
    fn read<T>(
        &mut self,
        read: impl FnOnce(&MemoryStorage) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if self.unreadable > 0 {
            self.unreadable -= 1;
            return Err(StorageError::Closed);
        }
        read(&self.storage)
    }
}

struct World {
    now: Duration,
    clients: Vec<Client>,
    relays: Vec<TestRelay>,
    to_clients: VecDeque<(usize, Input)>,
    to_relays: VecDeque<(usize, Line, Bytes)>,
    made: u8,
}

fn names(relays: usize) -> Vec<Arc<str>> {
    (0..relays).map(|n| format!("relay-{n}").into()).collect()
}

fn storage() -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new("client"))
}

impl World {
    fn new(relays: usize) -> Self {
        Self {
            now: Duration::ZERO,
            clients: Vec::new(),
            relays: (0..relays).map(|_| TestRelay::default()).collect(),
            to_clients: VecDeque::new(),
            to_relays: VecDeque::new(),
            made: 0,
        }
    }

    fn config(&mut self, relays: usize) -> Config {
        self.made += 1;
        Config {
            peer: PeerId::new(&format!("client-{}", self.made)).unwrap(),
            storage_id: "client".into(),
            session: format!("run-{}", self.made),
            relays: names(relays),
            seed: u64::from(self.made),
            // One client in two has it done elsewhere.
            settle_at_once: [0, usize::MAX][self.made as usize % 2],
        }
    }

    fn join(&mut self, storage: &Arc<MemoryStorage>) -> usize {
        let config = self.config(self.relays.len());
        storage.name_relays(&config.relays).unwrap();
        let mut engine = Engine::new(config);
        engine.handle(self.now, Input::Outbox(storage.outbox().unwrap()));
        self.clients.push(Client {
            engine,
            storage: storage.clone(),
            lines: HashMap::new(),
            held: false,
            waiting: Vec::new(),
            failing: 0,
            unreadable: 0,
            folds_blindly: false,
            found: Vec::new(),
            answers: HashMap::new(),
            statuses: Vec::new(),
            heard: Vec::new(),
            connects: Vec::new(),
            loads: Vec::new(),
        });
        self.clients.len() - 1
    }

    /// The process of a client is gone, and starts again on the same storage.
    fn restart(&mut self, at: usize) -> usize {
        let storage = self.clients[at].storage.clone();
        for (connection, relay) in self.clients[at].lines.drain() {
            self.relays[relay].leave((at, connection));
        }
        // What it was is never polled again.
        self.clients[at].held = true;
        self.clients[at].engine = Engine::new(Config {
            relays: Vec::new(),
            ..self.config(0)
        });
        self.join(&storage)
    }

    fn actor(&mut self) -> ActorId {
        self.made += 1;
        ActorId::from(vec![self.made; 16])
    }

    fn create(&mut self, client: usize) -> DocumentId {
        let actor = self.actor();
        let mut replica = Replica::new(actor);
        replica.begin(0);
        self.insert(client, replica)
    }

    fn insert(&mut self, client: usize, replica: Replica) -> DocumentId {
        self.made += 1;
        let id = DocumentId::new(&[self.made; 16]).unwrap();
        let client = &mut self.clients[client];
        client.engine.create(id, client.storage.new_key(), replica);
        id
    }

    fn put(&mut self, client: usize, id: DocumentId, key: &str, value: i64) {
        let edit = |tx: &mut Transaction<'_>| tx.put(ROOT, key, value);
        let changed = self.clients[client]
            .engine
            .change(&id, ChangeOptions::default(), edit);
        changed.expect("ready").expect("valid");
    }

    fn get(&self, client: usize, id: DocumentId, key: &str) -> Option<i64> {
        let document = self.clients[client].engine.document(&id)?;
        let value = document.get(ROOT, key).unwrap();
        value.and_then(|(value, _)| value.as_i64())
    }

    fn status(&self, client: usize, id: DocumentId) -> Status {
        self.clients[client].engine.status(&id).unwrap().clone()
    }

    fn heads(&self, client: usize, id: DocumentId) -> Vec<ChangeHash> {
        let document = self.clients[client].engine.document(&id).unwrap();
        let mut heads = document.get_heads();
        heads.sort_unstable();
        heads
    }

    fn cut(&mut self, relay: usize) {
        self.relays[relay].down = true;
        for client in 0..self.clients.len() {
            let lines = std::mem::take(&mut self.clients[client].lines);
            for (connection, to) in lines {
                if to == relay {
                    self.relays[relay].leave((client, connection));
                    let closed = Input::Closed(connection, Closed::Lost(Fault::lost()));
                    self.clients[client].engine.handle(self.now, closed);
                } else {
                    self.clients[client].lines.insert(connection, to);
                }
            }
        }
        self.to_relays.retain(|(to, ..)| *to != relay);
    }

    /// Does all that is to be done now. Whether time must go by for more.
    fn settle(&mut self) -> Option<Duration> {
        for _ in 0..1_000_000 {
            if let Some((client, input)) = self.to_clients.pop_front() {
                self.clients[client].engine.handle(self.now, input);
            } else if let Some((relay, line, frame)) = self.to_relays.pop_front() {
                self.relay_frame(relay, line, &frame);
            } else {
                let (mut idle, mut wake_at) = (true, None);
                for client in 0..self.clients.len() {
                    match self.clients[client].engine.poll_output() {
                        Output::Idle { wake_at: at } => {
                            wake_at = at.into_iter().chain(wake_at).min();
                        }
                        output => {
                            self.perform(client, output);
                            idle = false;
                        }
                    }
                }
                if idle {
                    return wake_at;
                }
            }
        }
        panic!("they never fall silent");
    }

    /// Lets time go by.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.settle().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            for client in &mut self.clients {
                client.engine.handle(self.now, Input::Tick);
            }
        }
        self.now = end;
    }

    fn perform(&mut self, at: usize, output: Output) {
        let client = &mut self.clients[at];
        match output {
            Output::Connect(relay, connection) => {
                client.connects.push(self.now);
                let name = &client.engine.relays[relay.0].name;
                let place = name.trim_start_matches("relay-").parse();
                let relay = RelayId(place.expect("as names() makes them"));
                let relay_is = &self.relays[relay.0];
                let away = relay_is.down || relay_is.only.is_some_and(|only| only != at);
                let input = if away {
                    Input::Closed(connection, Closed::Lost(Fault::lost()))
                } else {
                    client.lines.insert(connection, relay.0);
                    let session = Session::new(Local {
                        peer: PeerId::new("relay").unwrap(),
                        storage_id: "relay".into(),
                    });
                    self.relays[relay.0]
                        .sessions
                        .insert((at, connection), session);
                    Input::Connected(connection)
                };
                self.to_clients.push_back((at, input));
            }
            Output::Disconnect(connection) => {
                if let Some(relay) = client.lines.remove(&connection) {
                    self.relays[relay].leave((at, connection));
                }
            }
            Output::Send(connection, frame) => {
                let read = frame.reads();
                let bytes = frame.encode(&*client.storage).unwrap();
                if let Some(relay) = client.lines.get(&connection) {
                    self.to_relays.push_back((*relay, (at, connection), bytes));
                }
                self.to_clients
                    .push_back((at, Input::Sent(connection, read)));
            }
            Output::Ping(connection) => {
                if client.lines.contains_key(&connection) {
                    self.to_clients.push_back((at, Input::Pong(connection)));
                }
            }
            Output::Load { document, contents } => {
                let actor = self.actor();
                self.clients[at].loads.push(contents != Reading::History);
                let client = &mut self.clients[at];
                let loaded = client.read(|storage| load(storage, &document, contents, actor));
                self.to_clients
                    .push_back((at, Input::Loaded(document, loaded.map(Box::new))));
            }
            Output::LoadGraph {
                document,
                key,
                segments,
            } => {
                let graph = client.read(|storage| load_graph(storage, key, segments));
                self.to_clients
                    .push_back((at, Input::Graph(document, graph)));
            }
            Output::Settle(document, settling) => {
                client.engine.settled(document, settling.run());
            }
            Output::Fold(document, folding) => {
                let nothing = MemoryStorage::new("nothing");
                let folded = match client.folds_blindly {
                    true => fold(&nothing, &folding),
                    false => fold(&*client.storage, &folding),
                };
                self.to_clients
                    .push_back((at, Input::Folded(document, folded)));
            }
            Output::Store(batch) if client.held => client.waiting.push(batch),
            Output::Store(batch) => self.commit(at, &batch),
            Output::Found(document, result) => client.found.push((document, result.is_ok())),
            Output::Current(asked, answer) => current::note(client, asked, answer),
            Output::Status(_, status) => client.statuses.push(status),
            Output::Ephemeral { data, .. } => client.heard.push(data),
            Output::StoreFailed(..)
            | Output::Flushed(_)
            | Output::Changed(_)
            | Output::TakenOut(_)
            | Output::Salvaged(_)
            | Output::Added(_)
            | Output::Deleted(_) => {}
            Output::Idle { .. } => unreachable!("handled by the caller"),
        }
    }

    fn commit(&mut self, at: usize, batch: &Batch) {
        let client = &mut self.clients[at];
        let result = if client.failing > 0 {
            client.failing -= 1;
            Err(StorageError::Closed)
        } else {
            client.storage.commit(std::slice::from_ref(batch))
        };
        self.to_clients
            .push_back((at, Input::Stored(batch.document, result)));
    }

    fn release(&mut self, client: usize) {
        self.clients[client].held = false;
        for batch in std::mem::take(&mut self.clients[client].waiting) {
            self.commit(client, &batch);
        }
    }

    fn relay_frame(&mut self, at: usize, line: Line, frame: &Bytes) {
        let relay = &mut self.relays[at];
        let Some(session) = relay.sessions.get_mut(&line) else {
            return;
        };
        let mut answers = Vec::new();
        match session.handle(frame).expect("engines speak the protocol") {
            Event::Joined { reply, .. } if !relay.rejects => answers.push((line, reply)),
            Event::Joined { .. } => {
                let farewell = session.farewell(&protocol::ProtocolError::Version);
                answers.push((line, farewell));
            }
            Event::Sync(sync) => {
                relay.received.push(sync.data.len());
                let document: DocumentId = sync.document.parse().unwrap();
                answers = relay.receive(line, document, sync.data);
            }
            Event::Ephemeral(ephemeral) => {
                for other in relay.sessions.keys().filter(|other| **other != line) {
                    let mut copy = ephemeral.clone();
                    copy.target = "";
                    answers.push((*other, protocol::encode(&Message::Ephemeral(copy))));
                }
            }
            Event::Ping { reply } => answers.push((line, reply)),
            _ => {}
        }
        for ((client, connection), frame) in answers {
            self.to_clients
                .push_back((client, Input::Frame(connection, frame.into())));
        }
    }

    /// The relay commits again.
    fn commit_relay(&mut self, at: usize) {
        self.relays[at].held = false;
        let documents: Vec<_> = self.relays[at].documents.keys().copied().collect();
        for document in documents {
            for ((client, connection), frame) in self.relays[at].turn(document) {
                self.to_clients
                    .push_back((client, Input::Frame(connection, frame.into())));
            }
        }
    }
}

impl TestRelay {
    fn leave(&mut self, line: Line) {
        self.sessions.remove(&line);
        for kept in self.documents.values_mut() {
            if let Some(history) = &mut kept.history {
                history.leave(id_of(line));
            }
        }
    }

    fn receive(&mut self, from: Line, document: DocumentId, data: &[u8]) -> Vec<(Line, Vec<u8>)> {
        let message = SyncMessage::decode(data).unwrap();
        if let Some(reason) = self.refuses
            && !message.changes.is_empty()
        {
            return vec![(from, refused(document, message.heads, reason))];
        }
        if self.claims_reuse && !message.changes.is_empty() {
            let answer = |chunk: &&[u8]| {
                let change = Change::try_from(*chunk).unwrap();
                let reused = Refusal::ActorReused {
                    actor: change.actor_id().to_hex_string(),
                    seq: change.seq(),
                };
                (
                    from,
                    refused(document, vec![change.hash()], &reused.to_string()),
                )
            };
            return message.changes.iter().map(answer).collect();
        }
        let kept = self.documents.entry(document).or_default();
        let history = kept
            .history
            .get_or_insert_with(|| History::new(Space::default()));
        let peer = id_of(from);
        if !history.peers().any(|joined| joined == peer) {
            history.join(peer, Access::Write);
        }
        let mut received = history.receive(peer, &message, Documents::Report).unwrap();
        if received.unpack {
            for chunk in &message.changes {
                if let Ok(document) = Automerge::load(chunk) {
                    for change in document.get_changes(&[]) {
                        let bytes = [Bytes::copy_from_slice(change.raw_bytes())];
                        let unpacked = history.receive_unpacked(peer, &bytes).unwrap();
                        received.refused.extend(unpacked.refused);
                    }
                }
            }
            history
                .receive(peer, &message, Documents::Unpacked)
                .unwrap();
        }
        let mut answers = Vec::new();
        if let Some((_, refusal)) = received.refused.first() {
            assert!(
                matches!(
                    refusal,
                    Refusal::ActorReused { .. } | Refusal::DependsOnRefused(_)
                ),
                "an engine's change is refused: {refusal}"
            );
            let hashes = received.refused.iter().filter_map(|(hash, _)| *hash);
            let refused = refused(document, hashes.collect(), &refusal.to_string());
            answers.extend((!self.mute).then_some((from, refused)));
        }
        if history.is_empty() && message.heads.is_empty() && history.poll_unavailable(peer) {
            let unavailable = protocol::encode(&Message::DocUnavailable {
                sender: "relay",
                target: "",
                document: document.to_string().into(),
            });
            return vec![(from, unavailable)];
        }
        answers.extend(self.turn(document));
        answers
    }

    fn turn(&mut self, document: DocumentId) -> Vec<(Line, Vec<u8>)> {
        let mut frames = Vec::new();
        let kept = self.documents.get_mut(&document).unwrap();
        let history = kept.history.as_mut().unwrap();
        if self.held {
            return frames;
        }
        if let Some((_, row)) = history.take_unsaved() {
            kept.changes
                .extend(row.changes.into_iter().map(|c| c.bytes));
        }
        history.committed();
        for line in self.sessions.keys() {
            while let Some(outgoing) = history.poll_send(id_of(*line)) {
                let chunks: Vec<_> = outgoing.changes.iter().cloned().flatten().collect();
                let mut data = outgoing.encode_head(chunks.len());
                for index in chunks {
                    let bytes = &kept.changes[index as usize];
                    push_unsigned(&mut data, bytes.len() as u64);
                    data.extend_from_slice(bytes);
                }
                data.extend(outgoing.flags.map(Flags::encode).into_iter().flatten());
                let envelope = SyncEnvelope {
                    sender: "relay",
                    target: "",
                    document: document.to_string().into(),
                    data: &data,
                    request: false,
                };
                frames.push((*line, protocol::encode(&Message::Sync(envelope))));
            }
        }
        frames
    }

    fn has(&self, document: DocumentId) -> Vec<ChangeHash> {
        let history = self
            .documents
            .get(&document)
            .and_then(|k| k.history.as_ref());
        history.map_or_else(Vec::new, |history| history.durable_heads().to_vec())
    }

    /// An older backup takes the place of what there is.
    fn restore(&mut self, document: DocumentId, len: usize) {
        let kept = self.documents.get_mut(&document).unwrap();
        kept.changes.truncate(len);
        let mut history = History::new(Space::default());
        history
            .receive_unpacked(ConnectionId(u64::MAX), &kept.changes)
            .unwrap();
        let _ = history.take_unsaved();
        history.committed();
        kept.history = Some(history);
    }
}

const MOMENT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(120);

#[test]
fn two_clients_agree_and_then_fall_silent() {
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.clients[bob].found, [(id, true)]);
    for n in 0..50 {
        world.put(ann, id, "ann", n);
        world.put(bob, id, "bob", n);
        if n % 7 == 0 {
            world.run(MOMENT);
        }
    }
    world.run(MOMENT);
    for client in [ann, bob] {
        assert_eq!(world.get(client, id, "ann"), Some(49));
        assert_eq!(world.get(client, id, "bob"), Some(49));
        assert_eq!(world.heads(client, id), world.relays[0].has(id));
        assert_eq!(world.status(client, id), Status::Saved);
    }
    let messages = world.relays[0].received.len();
    world.run(LONG);
    assert_eq!(
        world.relays[0].received.len(),
        messages,
        "nothing is left to say"
    );
    assert_eq!(world.clients[ann].storage.outbox().unwrap(), []);
}

#[test]
fn saved_means_that_the_relay_named_it() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.relays[0].held = true;
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saving);
    assert!(!world.clients[ann].statuses.contains(&Status::Saved));
    world.commit_relay(0);
    world.run(MOMENT);
    assert_eq!(world.status(ann, id), Status::Saved);
    world.put(ann, id, "n", 1);
    assert_eq!(world.status(ann, id), Status::Saving, "at once");
    world.run(MOMENT);
    assert_eq!(world.status(ann, id), Status::Saved);
    world.cut(0);
    world.run(MOMENT);
    assert_eq!(
        world.status(ann, id),
        Status::Saved,
        "it is on the relay's disk"
    );
    world.put(ann, id, "n", 2);
    assert_eq!(world.status(ann, id), Status::Offline);
}

#[test]
fn what_was_made_is_stored_and_acknowledged_whatever_is_made_after_it() {
    let mut world = World::new(2);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[ann].held = true;
    world.put(ann, id, "n", 1);
    world.run(MOMENT);
    let engine = |world: &World, of: &dyn Fn(&Engine) -> bool| of(&world.clients[ann].engine);
    let first = world.heads(ann, id);
    let due = world.clients[ann].engine.commits_due(&id);
    assert!(due > 0);
    // Commits that are under way do not have what is made now.
    for n in 2..10 {
        world.put(ann, id, "n", n);
        world.release(ann);
        world.clients[ann].held = true;
    }
    assert!(world.clients[ann].engine.commits_due(&id) > 0);
    for relay in 0..2 {
        assert!(!engine(&world, &|e| e.is_acknowledged(&id, &[], false)));
        world.relays[relay].held = true;
    }
    world.release(ann);
    world.run(MOMENT);
    assert_eq!(world.clients[ann].engine.commits_due(&id), 0);
    assert!(!engine(&world, &|e| e.is_acknowledged(&id, &first, false)));
    world.commit_relay(0);
    world.run(MOMENT);
    world.put(ann, id, "n", 10);
    assert_ne!(world.status(ann, id), Status::Saved);
    assert!(engine(&world, &|e| e.is_acknowledged(&id, &first, false)));
    assert!(!engine(&world, &|e| e.is_acknowledged(&id, &first, true)));
    let last = world.heads(ann, id);
    assert!(!engine(&world, &|e| e.is_acknowledged(&id, &last, false)));
    world.commit_relay(1);
    world.run(MOMENT);
    world.put(ann, id, "n", 11);
    assert!(engine(&world, &|e| e.is_acknowledged(&id, &first, true)));
    // It is not waited for what relays said to be stored.
    world.run(Duration::from_millis(100));
    assert!(engine(&world, &|e| e.is_stored(&id) && !e.is_flushed(&id)));
}

#[test]
fn nothing_is_sent_before_it_is_stored() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.clients[ann].held = true;
    world.run(LONG);
    assert_eq!(world.relays[0].received, []);
    world.release(ann);
    world.run(MOMENT);
    let sent = world.relays[0].has(id);
    assert_eq!(sent, world.heads(ann, id));
    world.clients[ann].held = true;
    world.put(ann, id, "n", 1);
    assert_eq!(world.get(ann, id, "n"), Some(1), "shown at once");
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), sent);
    world.release(ann);
    world.run(MOMENT);
    assert_eq!(world.relays[0].has(id), world.heads(ann, id));
}

#[test]
fn editing_without_pause_does_not_hold_up_what_is_stored() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[ann].held = true;
    world.put(ann, id, "n", 1);
    world.run(MOMENT);
    let first = world.heads(ann, id);
    for n in 2..100 {
        // Made while the commit of the one before is on its way.
        world.put(ann, id, "n", n);
        let waiting = world.clients[ann]
            .waiting
            .pop()
            .expect("a commit on its way");
        world.commit(ann, &waiting);
        world.run(Duration::ZERO);
    }
    assert_ne!(world.relays[0].has(id), first);
    assert_ne!(world.relays[0].has(id), world.heads(ann, id));
    let relayed = world.relays[0].has(id)[0];
    let document = world.clients[ann].engine.document(&id).unwrap();
    let change = document.get_change_by_hash(&relayed).unwrap();
    assert_eq!(change.seq(), 99, "all but the last, which is not stored");
    assert_eq!(world.status(ann, id), Status::Saving);
}

#[test]
fn a_failed_commit_is_tried_again_and_not_sent_before() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    let before = world.relays[0].has(id);
    world.clients[ann].failing = 1;
    world.put(ann, id, "n", 1);
    world.run(MOMENT);
    assert_eq!(world.relays[0].has(id), before);
    world.run(STORE_AGAIN_AFTER);
    assert_eq!(world.relays[0].has(id), world.heads(ann, id));
    assert_eq!(world.status(ann, id), Status::Saved);
    let again = world.restart(ann);
    world.clients[again].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.get(again, id, "n"), Some(1));
}

/// A client with a document that its relay has not heard of, because it is down.
fn unsent(world: &mut World) -> (usize, DocumentId) {
    world.relays[0].down = true;
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.put(ann, id, "n", 7);
    world.run(MOMENT);
    (ann, id)
}

#[test]
fn what_was_not_acknowledged_is_sent_after_a_restart_though_nobody_opens_it() {
    let mut world = World::new(1);
    let (ann, id) = unsent(&mut world);
    assert_eq!(world.status(ann, id), Status::Offline);
    assert_eq!(world.clients[ann].storage.outbox().unwrap(), [id]);
    let heads = world.heads(ann, id);
    let again = world.restart(ann);
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), heads);
    assert_eq!(world.clients[again].storage.outbox().unwrap(), []);
    assert!(world.clients[again].found.is_empty(), "nobody asked for it");
    // The third run has nothing to send.
    world.relays[0].received.clear();
    world.restart(again);
    world.run(LONG);
    assert_eq!(world.relays[0].received, []);
}

#[test]
fn what_cannot_be_read_for_a_moment_is_read_when_it_is_asked_for_again() {
    let mut world = World::new(0);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.put(ann, id, "n", 7);
    world.run(MOMENT);
    let again = world.restart(ann);
    world.clients[again].unreadable = 1;
    for expected in [false, true] {
        world.clients[again].engine.find(id);
        world.run(MOMENT);
        let found = world.clients[again].found.pop();
        assert_eq!(found, Some((id, expected)));
    }
    assert_eq!(world.get(again, id, "n"), Some(7));
    world.put(again, id, "n", 8);
    world.run(MOMENT);
    assert!(world.clients[again].engine.is_stored(&id));
}

#[test]
fn what_cannot_be_read_for_a_moment_is_sent_though_nobody_asks_for_it() {
    let mut world = World::new(1);
    let (ann, id) = unsent(&mut world);
    let heads = world.heads(ann, id);
    let again = world.restart(ann);
    world.clients[again].unreadable = 3;
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), heads);
    assert_eq!(world.clients[again].storage.outbox().unwrap(), []);
}

#[test]
fn a_reconnect_needs_no_filter() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    for n in 0..1000 {
        world.put(ann, id, "n", n);
    }
    world.run(LONG);
    let again = world.restart(ann);
    world.clients[again].engine.find(id);
    world.relays[0].received.clear();
    world.run(MOMENT);
    assert_eq!(world.status(again, id), Status::Saved);
    assert_eq!(world.relays[0].received.len(), 1, "its heads, no answer");
    assert!(world.relays[0].received[0] < 128);
    // And with an edit made while the relay was away, just that edit.
    world.cut(0);
    world.put(again, id, "n", -1);
    world.relays[0].down = false;
    world.relays[0].received.clear();
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), world.heads(again, id));
    assert!(world.relays[0].received.iter().sum::<usize>() < 512);
}

#[test]
fn tries_are_spread_and_bounded_and_the_network_ends_the_wait() {
    let mut world = World::new(1);
    world.relays[0].down = true;
    let ann = world.join(&storage());
    world.run(Duration::from_secs(3600));
    let tries = world.clients[ann].connects.clone();
    // With full jitter the wait is half of the longest on average.
    assert!((120..480).contains(&tries.len()), "{} tries", tries.len());
    for (failures, pair) in (1..).zip(tries.windows(2)) {
        let longest = (BACKOFF_FIRST * 2u32.pow(failures.min(8) - 1)).min(BACKOFF_MAX);
        assert!(pair[1] - pair[0] <= longest);
    }
    world.relays[0].down = false;
    let now = world.now;
    world.clients[ann]
        .engine
        .handle(now, Input::NetworkAvailable);
    world.run(Duration::ZERO);
    assert!(world.clients[ann].engine.is_connected(RelayId(0)));
}

#[test]
fn a_relay_that_says_nothing_is_left() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    world.run(LONG);
    assert_eq!(world.clients[ann].connects.len(), 1, "pongs keep it alive");
    // The line is dead, and nobody says so.
    world.clients[ann].lines.clear();
    world.run(SILENCE_MAX + BACKOFF_FIRST);
    assert_eq!(world.clients[ann].connects.len(), 2);
}

#[test]
fn a_client_carries_documents_between_two_relays() {
    let mut world = World::new(2);
    let ann = world.join(&storage());
    world.relays[1].down = true;
    let id = world.create(ann);
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
    let outbox = world.clients[ann].storage.outbox().unwrap();
    assert_eq!(outbox, [id], "the second relay lacks it");
    let again = world.restart(ann);
    world.relays[1].down = false;
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), world.relays[1].has(id));
    assert_eq!(world.clients[again].storage.outbox().unwrap(), []);
    // Somebody who knows the second relay only.
    world.relays[0].down = true;
    let bob = world.join(&storage());
    world.clients[bob].engine.find(id);
    world.run(LONG);
    assert_eq!(world.clients[bob].found, [(id, true)]);
    world.relays[0].down = false;
    world.put(bob, id, "n", 3);
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), world.heads(bob, id));
}

#[test]
fn a_relay_that_is_added_gets_everything_though_nobody_opens_it() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let ids = [(); 40].map(|()| world.create(ann));
    world.run(LONG);
    assert_eq!(world.clients[ann].storage.outbox().unwrap(), []);
    world.relays.push(TestRelay {
        down: true,
        ..TestRelay::default()
    });
    let second = world.restart(ann);
    world.run(LONG);
    // It was away the first time.
    world.relays[1].down = false;
    let third = world.restart(second);
    world.run(LONG);
    for id in ids {
        assert_eq!(world.relays[1].has(id), world.relays[0].has(id));
    }
    assert!(world.clients[third].found.is_empty(), "nobody asked");
    assert_eq!(world.clients[third].storage.outbox().unwrap(), []);
    // Without it for a while, with nothing new: the outbox is soon empty again.
    world.cut(1);
    let mut away = world.relays.pop().unwrap();
    away.down = false;
    let fourth = world.restart(third);
    world.run(LONG);
    world.relays.push(away);
    let fifth = world.restart(fourth);
    assert_eq!(world.clients[fifth].storage.outbox().unwrap().len(), 40);
    world.run(LONG);
    assert_eq!(world.clients[fifth].storage.outbox().unwrap(), []);
}

#[test]
fn a_document_on_one_relay_only_is_offered_to_the_one_that_said_it_has_none() {
    let mut world = World::new(2);
    let ann = world.join(&storage());
    world.relays[1].down = true;
    let id = world.create(ann);
    world.run(MOMENT);
    world.restart(ann);
    world.relays[1].down = false;
    let bob = world.join(&storage());
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.clients[bob].found, [(id, true)]);
    assert_eq!(world.relays[1].has(id), world.heads(bob, id));
}

#[test]
fn what_nobody_has_is_unavailable_until_it_appears() {
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = DocumentId::new(&[99; 16]).unwrap();
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.clients[bob].found, [(id, false)]);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(
        world.clients[bob].found.len(),
        2,
        "asked again, answered again"
    );
    let mut replica = Replica::new(world.actor());
    replica.begin(0);
    let key = world.clients[ann].storage.new_key();
    world.clients[ann].engine.create(id, key, replica);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.clients[bob].found.last(), Some(&(id, true)));
    assert_eq!(world.heads(bob, id), world.heads(ann, id));
}

#[test]
fn a_search_without_a_relay_ends() {
    let mut world = World::new(1);
    world.relays[0].down = true;
    let ann = world.join(&storage());
    let id = DocumentId::new(&[99; 16]).unwrap();
    world.clients[ann].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.clients[ann].found, [(id, false)]);
}

#[test]
fn a_relay_restored_from_an_older_file_gets_everything_again() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    for n in 0..10 {
        world.put(ann, id, "n", n);
    }
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
    world.cut(0);
    world.relays[0].restore(id, 4);
    world.relays[0].held = true;
    world.relays[0].down = false;
    world.run(LONG);
    world.put(ann, id, "more", 1);
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saving);
    world.commit_relay(0);
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), world.heads(ann, id));
    assert_eq!(world.status(ann, id), Status::Saved);
}

#[test]
fn heads_that_a_relay_lost_are_saved_no_more() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    for n in 0..10 {
        world.put(ann, id, "n", n);
    }
    world.run(LONG);
    world.cut(0);
    world.relays[0].restore(id, 4);
    world.relays[0].down = false;
    world.clients[ann].statuses.clear();
    world.run(LONG);
    let statuses = &world.clients[ann].statuses;
    assert_eq!(statuses, &[Status::Saving, Status::Saved]);
    assert_eq!(world.relays[0].has(id), world.heads(ann, id));
}

#[test]
fn presence_by_two_relays_is_heard_once_and_not_by_its_author() {
    let mut world = World::new(2);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    for n in 0..3 {
        world.clients[ann].engine.broadcast(&id, &[n]);
    }
    world.run(MOMENT);
    assert_eq!(
        world.clients[bob].heard,
        [[0], [1], [2]].map(|data| Bytes::copy_from_slice(&data))
    );
    assert!(world.clients[ann].heard.is_empty());
}

#[test]
fn a_client_that_is_not_let_in_says_why_and_does_not_try_again() {
    let mut world = World::new(1);
    world.relays[0].rejects = true;
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(Duration::from_secs(3600));
    let refused = Status::Refused("unsupported protocol version".into());
    assert_eq!(world.status(ann, id), refused);
    assert_eq!(world.clients[ann].connects.len(), 1);
}

#[test]
fn a_refused_change_is_reported_and_taken_by_another_relay() {
    let mut world = World::new(2);
    let ann = world.join(&storage());
    world.cut(1);
    world.relays[0].refuses = Some("it was told to");
    let id = world.create(ann);
    world.run(MOMENT);
    let refused = Status::Refused("it was told to".into());
    assert_eq!(
        world.status(ann, id),
        Status::Offline,
        "the other may take it"
    );
    world.relays[1].refuses = Some("it was told to");
    world.relays[1].down = false;
    world.run(LONG);
    assert_eq!(world.status(ann, id), refused);
    world.cut(1);
    world.relays[1].refuses = None;
    world.relays[1].down = false;
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
}

/// A relay says that something makes no document: the client looks for itself, once, and goes on
/// if it finds nothing.
#[test]
fn a_document_that_a_relay_calls_unsound_is_checked() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    world.relays[0].refuses = Some("its contents make no document: says who");
    let id = world.create(ann);
    world.run(LONG);
    let status = Status::Refused("its contents make no document: says who".into());
    assert_eq!(world.status(ann, id), status);
    assert_eq!(world.clients[ann].loads.len(), 1, "read again, once");
    // An edit of the same moment is not lost by that.
    let frame = refused(
        id,
        world.heads(ann, id),
        "its contents make no document: says another",
    );
    let connection = *world.clients[ann].lines.keys().next().unwrap();
    world.put(ann, id, "same", 1);
    let input = Input::Frame(connection, frame.into());
    world.to_clients.push_back((ann, input));
    world.run(LONG);
    assert_eq!(world.get(ann, id, "same"), Some(1));
    assert_eq!(world.clients[ann].loads.len(), 3, "for both words once");
    world.put(ann, id, "n", 1);
    world.run(LONG);
    assert_eq!(world.get(ann, id, "n"), Some(1));
    let loads = world.clients[ann].loads.len();
    world.relays[0].refuses = None;
    world.cut(0);
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
    assert_eq!(world.relays[0].has(id), world.heads(ann, id));
    assert_eq!(world.clients[ann].loads.len(), loads);
}

/// A process with a document is copied while it runs: both copies write on under one actor.
fn copied(world: &mut World, relays: usize) -> (usize, usize, DocumentId, ObjId) {
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let (actor, id) = (world.actor(), DocumentId::new(&[77; 16]).unwrap());
    let mut text = ROOT;
    for client in [ann, bob] {
        let mut replica = Replica::new(actor.clone());
        let begin = |tx: &mut Transaction<'_>| {
            tx.put(ROOT, "n", ScalarValue::counter(0))?;
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "begun").map(|()| text)
        };
        text = replica.change(ChangeOptions::default(), begin).unwrap().0;
        let client = &mut world.clients[client];
        client.engine.create(id, client.storage.new_key(), replica);
    }
    world.run(LONG);
    assert_eq!(world.heads(ann, id), world.heads(bob, id));
    (0..relays).for_each(|relay| assert_eq!(world.relays[relay].has(id), world.heads(ann, id)));
    (ann, bob, id, text)
}

fn write(world: &mut World, client: usize, id: DocumentId, text: &ObjId, word: &str) {
    let edit = |tx: &mut Transaction<'_>| -> Result<(), AutomergeError> {
        tx.increment(ROOT, "n", 1)?;
        let end = tx.length(text);
        tx.splice_text(text, end, 0, word)?;
        tx.mark(
            text,
            Mark::new(word.into(), true, end, end + 1),
            ExpandMark::None,
        )
    };
    let changed = world.clients[client]
        .engine
        .change(&id, ChangeOptions::default(), edit);
    changed.expect("ready").expect("valid");
}

fn text_of(world: &World, client: usize, id: DocumentId) -> (String, i64, usize) {
    let document = world.clients[client].engine.document(&id).unwrap();
    let (_, text) = document.get(ROOT, "text").unwrap().unwrap();
    let (n, _) = document.get(ROOT, "n").unwrap().unwrap();
    let marks = document.marks(&text).unwrap().len();
    (document.text(&text).unwrap(), n.as_i64().unwrap(), marks)
}

/// Ann's change is the one that the relay has; Bob's is made again.
#[test]
fn a_change_under_a_reused_actor_is_made_again_and_not_lost() {
    for mute in [false, true] {
        let mut world = World::new(1);
        let (ann, bob, id, text) = copied(&mut world, 1);
        world.relays[0].mute = mute;
        world.cut(0);
        write(&mut world, ann, id, &text, " ann");
        write(&mut world, bob, id, &text, " bob");
        world.run(MOMENT);
        write(&mut world, bob, id, &text, " bob2");
        world.run(MOMENT);
        world.relays[0].down = false;
        world.relays[0].only = Some(ann);
        world.run(LONG);
        world.relays[0].only = None;
        world.run(LONG);
        let (said, n, marks) = text_of(&world, bob, id);
        assert_eq!(n, 3, "mute: {mute}");
        assert_eq!(marks, 3);
        for part in ["begun", " ann", " bob", " bob2"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(text_of(&world, ann, id), (said, n, marks));
        for client in [ann, bob] {
            assert_eq!(world.status(client, id), Status::Saved);
            assert_eq!(world.heads(client, id), world.relays[0].has(id));
            assert_eq!(world.clients[client].storage.outbox().unwrap(), []);
        }
        // Both write on, and what was made again is what is stored.
        for client in [ann, bob] {
            world.put(client, id, "on", 1);
            world.run(LONG);
        }
        let heads = world.heads(bob, id);
        let again = world.restart(bob);
        world.clients[again].engine.find(id);
        world.run(LONG);
        assert_eq!(world.heads(again, id), heads);
        assert_eq!(world.heads(ann, id), heads);
        assert_eq!(world.status(again, id), Status::Saved);
    }
}

/// Nothing of Bob's document stays as it was, and what is made again is all that is stored.
#[test]
fn a_first_change_under_a_reused_actor_is_made_again_and_stored() {
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let (actor, id) = (world.actor(), DocumentId::new(&[77; 16]).unwrap());
    world.cut(0);
    for (client, key) in [(ann, "ann"), (bob, "bob")] {
        let mut replica = Replica::new(actor.clone());
        let begin = |tx: &mut Transaction<'_>| tx.put(ROOT, key, 1);
        replica.change(ChangeOptions::default(), begin).unwrap();
        let client = &mut world.clients[client];
        client.engine.create(id, client.storage.new_key(), replica);
    }
    world.run(MOMENT);
    world.relays[0].down = false;
    world.relays[0].only = Some(ann);
    world.run(LONG);
    world.relays[0].only = None;
    world.run(LONG);
    assert_eq!(world.status(bob, id), Status::Saved);
    let stored = world.clients[bob].storage.load(&id).unwrap();
    assert!(stored.is_some(), "not even a record");
    for client in [ann, bob] {
        assert_eq!(world.get(client, id, "ann"), Some(1));
        assert_eq!(world.get(client, id, "bob"), Some(1));
    }
}

#[test]
fn a_crash_before_what_is_made_again_is_stored_changes_nothing() {
    let mut heads = Vec::new();
    for crash in [false, true] {
        let mut world = World::new(1);
        let (ann, mut bob, id, text) = copied(&mut world, 1);
        world.cut(0);
        write(&mut world, ann, id, &text, " ann");
        write(&mut world, bob, id, &text, " bob");
        world.run(MOMENT);
        world.relays[0].down = false;
        world.relays[0].only = Some(ann);
        world.run(LONG);
        world.relays[0].only = None;
        if crash {
            world.clients[bob].held = true;
            world.run(LONG);
            assert!(!world.clients[bob].waiting.is_empty(), "made again");
            bob = world.restart(bob);
            // Nobody opens it.
            world.run(LONG);
            assert_eq!(world.clients[bob].storage.outbox().unwrap(), []);
            world.clients[bob].engine.find(id);
        }
        world.run(LONG);
        assert_eq!(world.status(bob, id), Status::Saved);
        assert_eq!(world.heads(bob, id), world.relays[0].has(id));
        assert_eq!(text_of(&world, ann, id), text_of(&world, bob, id));
        heads.push(world.heads(bob, id));
    }
    assert_eq!(
        heads[0], heads[1],
        "made again twice, it is the same change"
    );
}

#[test]
fn what_is_refused_is_still_so_after_a_restart() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    world.relays[0].refuses = Some("it was told to");
    let id = world.create(ann);
    world.run(LONG);
    let refused = Status::Refused("it was told to".into());
    assert_eq!(world.status(ann, id), refused);
    // The relay says it once.
    world.relays[0].refuses = None;
    world.relays[0].held = true;
    let again = world.restart(ann);
    world.clients[again].engine.find(id);
    world.run(LONG);
    assert_eq!(world.status(again, id), refused);
    world.commit_relay(0);
    world.run(LONG);
    assert_eq!(world.status(again, id), Status::Saved);
    let third = world.restart(again);
    world.clients[third].engine.find(id);
    world.relays[0].down = true;
    world.settle();
    world.put(third, id, "n", 1);
    world.run(LONG);
    assert_eq!(
        world.status(third, id),
        Status::Offline,
        "it was taken back"
    );
}

#[test]
fn what_another_relay_has_is_not_made_again() {
    let mut world = World::new(2);
    let (ann, bob, id, text) = copied(&mut world, 2);
    world.cut(0);
    world.cut(1);
    write(&mut world, ann, id, &text, " ann");
    write(&mut world, bob, id, &text, " bob");
    for (relay, only) in [(0, ann), (1, bob)] {
        world.relays[relay].down = false;
        world.relays[relay].only = Some(only);
    }
    world.run(LONG);
    let heads = [ann, bob].map(|client| world.heads(client, id));
    world.relays.iter_mut().for_each(|relay| relay.only = None);
    world.run(LONG);
    for (client, heads) in [ann, bob].into_iter().zip(heads) {
        assert_eq!(world.heads(client, id), heads);
        assert_eq!(world.status(client, id), Status::Saved, "one relay has it");
    }
    let said: usize = world.relays.iter().map(|relay| relay.received.len()).sum();
    world.run(LONG);
    let after: usize = world.relays.iter().map(|relay| relay.received.len()).sum();
    assert_eq!(after, said, "they fall silent");
}

#[test]
fn a_relay_that_refuses_again_what_was_made_again_is_believed() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    world.relays[0].claims_reuse = true;
    let id = world.create(ann);
    world.run(LONG);
    assert!(matches!(world.status(ann, id), Status::Refused(_)));
    let messages = world.relays[0].received.len();
    assert!(messages <= 4 * (1 + MADE_AGAIN_MAX as usize), "{messages}");
    world.run(LONG);
    assert_eq!(world.relays[0].received.len(), messages);
    world.cut(0);
    world.relays[0].claims_reuse = false;
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
}

#[test]
fn an_imported_document_arrives_whole_and_is_read_back() {
    let mut imported = Automerge::new();
    for n in 0..200 {
        let put = |tx: &mut Transaction<'_>| tx.put(ROOT, "n", n);
        imported.transact::<_, _, AutomergeError>(put).unwrap();
    }
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let actor = world.actor();
    let replica = Replica::import(&imported.save(), actor).unwrap();
    let id = world.insert(ann, replica);
    world.put(ann, id, "after", 1);
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
    world.clients[bob].engine.find(id);
    world.run(LONG);
    assert_eq!(world.heads(bob, id), world.heads(ann, id));
    let again = world.restart(ann);
    world.cut(0);
    world.clients[again].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.get(again, id, "n"), Some(199));
    assert_eq!(world.get(again, id, "after"), Some(1));
}

#[test]
fn a_long_history_is_folded_and_goes_on() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    // The document is in memory, and is not built once more of what was stored.
    world.clients[ann].folds_blindly = true;
    let id = world.create(ann);
    for n in 0..3000 {
        world.put(ann, id, &format!("{}", n % 50), n);
        if n % 100 == 0 {
            world.run(MOMENT);
        }
    }
    world.run(LONG);
    let stored = world.clients[ann].storage.load(&id).unwrap().unwrap();
    assert!(stored.record.generation > 0, "it was folded");
    let heads = world.heads(ann, id);
    assert_eq!(world.relays[0].has(id), heads);
    let again = world.restart(ann);
    world.clients[again].engine.find(id);
    world.run(LONG);
    assert_eq!(world.heads(again, id), heads);
    // A relay that lost everything is sent snapshot and tail.
    world.cut(0);
    world.relays[0].documents.clear();
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), heads);
}

#[test]
fn a_change_made_on_top_of_what_was_folded_is_taken() {
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = world.create(ann);
    world.put(ann, id, "n", 0);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(LONG);
    world.cut(0);
    for n in 0..3000 {
        world.put(ann, id, &format!("{}", n % 50), n);
        if n % 100 == 0 {
            world.run(MOMENT);
        }
    }
    world.put(bob, id, "bob", 1);
    world.run(LONG);
    let stored = world.clients[ann].storage.load(&id).unwrap().unwrap();
    assert!(stored.record.folded > 1000, "the fork lies below the fold");
    // Started again, ann's client has none of the folded graph in memory, and cannot read it at first.
    let again = world.restart(ann);
    world.clients[again].engine.find(id);
    world.run(MOMENT);
    world.clients[again].unreadable = 2;
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.clients[again].unreadable, 0);
    assert_eq!(world.get(again, id, "bob"), Some(1));
    assert_eq!(world.heads(again, id), world.heads(bob, id));
    assert_eq!(world.heads(again, id), world.relays[0].has(id));
    assert_eq!(world.status(again, id), Status::Saved);
}

#[test]
fn the_graph_of_an_adopted_chunk_is_read_when_it_is_stored() {
    let mut theirs = Automerge::new();
    let put = |tx: &mut Transaction<'_>| tx.put(ROOT, "n", 1);
    theirs.transact::<_, _, AutomergeError>(put).unwrap();
    let mut fork = theirs.fork();
    let put = |tx: &mut Transaction<'_>| tx.put(ROOT, "fork", 2);
    fork.transact::<_, _, AutomergeError>(put).unwrap();
    let forked = fork.get_last_local_change().unwrap();
    for n in 0..5 {
        let put = |tx: &mut Transaction<'_>| tx.put(ROOT, "n", n);
        theirs.transact::<_, _, AutomergeError>(put).unwrap();
    }
    let mut world = World::new(1);
    let bob = world.join(&storage());
    let id = DocumentId::new(&[200; 16]).unwrap();
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    // Both come before the first one is stored, and the second reaches into it.
    let connection = *world.clients[bob].lines.keys().next().unwrap();
    for (heads, chunk) in [
        (theirs.get_heads(), theirs.save()),
        (vec![forked.hash()], forked.raw_bytes().to_vec()),
    ] {
        let mut data = protocol::encode_sync(protocol::Version::V1, &heads, &[], None, 1);
        push_unsigned(&mut data, chunk.len() as u64);
        data.extend(chunk);
        let frame = protocol::encode(&Message::Sync(SyncEnvelope {
            sender: "relay",
            target: "",
            document: id.to_string().into(),
            data: &data,
            request: false,
        }));
        let input = Input::Frame(connection, frame.into());
        world.to_clients.push_back((bob, input));
    }
    world.run(LONG);
    assert_eq!(world.clients[bob].engine.failure(&id), None);
    assert_eq!(world.get(bob, id, "n"), Some(4));
    assert_eq!(world.get(bob, id, "fork"), Some(2));
}

#[test]
fn a_deleted_document_is_gone_from_storage() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[ann].engine.delete(&id);
    world.run(MOMENT);
    assert_eq!(world.clients[ann].storage.load(&id).unwrap(), None);
    assert!(world.clients[ann].engine.document(&id).is_none());
    assert_eq!(world.clients[ann].storage.outbox().unwrap(), []);
}

/// Two clients with a document, of which the second let go; it is not in memory any more.
fn released(world: &mut World) -> (usize, usize, DocumentId) {
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = world.create(ann);
    world.put(ann, id, "n", 1);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    world.clients[bob].engine.let_go(&id);
    world.run(RELEASE_AFTER / 2);
    assert!(!world.clients[bob].engine.is_released(&id));
    assert_eq!(world.get(bob, id, "n"), Some(1));
    let messages = world.relays[0].received.len();
    world.run(LONG);
    assert!(world.clients[bob].engine.is_released(&id));
    assert_eq!(world.relays[0].received.len(), messages, "nobody noticed");
    assert_eq!(world.status(bob, id), Status::Saved);
    (ann, bob, id)
}

#[test]
fn what_nobody_uses_leaves_memory_and_stays_in_sync() {
    let mut world = World::new(1);
    let (ann, bob, id) = released(&mut world);
    world.put(ann, id, "n", 2);
    world.run(MOMENT);
    let stored = world.clients[bob].storage.load(&id).unwrap().unwrap();
    let changes = stored.rows.iter().flat_map(|row| &row.changes);
    let last = changes.last().unwrap().hash;
    assert_eq!([last], *world.heads(ann, id), "it is stored");
    world.run(LONG);
    assert!(world.clients[bob].engine.is_released(&id), "again");
    // Used again, on the same connection, of which nothing is heard meanwhile.
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.get(bob, id, "n"), Some(2));
    world.put(bob, id, "n", 3);
    assert_eq!(world.status(bob, id), Status::Saving);
    world.run(MOMENT);
    assert_eq!(world.status(bob, id), Status::Saved);
    assert_eq!(world.get(ann, id, "n"), Some(3));
    world.run(LONG);
    assert!(!world.clients[bob].engine.is_released(&id), "it is used");
    world.clients[bob].engine.delete(&id);
    world.run(MOMENT);
    assert_eq!(world.clients[bob].storage.load(&id).unwrap(), None);
}

#[test]
fn a_released_document_greets_a_relay_that_comes_back() {
    let mut world = World::new(1);
    let (ann, bob, id) = released(&mut world);
    world.cut(0);
    world.relays[0].down = false;
    world.relays[0].received.clear();
    world.run(Duration::from_secs(40));
    assert!(world.clients[bob].engine.is_released(&id));
    assert!(world.relays[0].received.iter().all(|bytes| *bytes < 128));
    assert_eq!(world.relays[0].received.len(), 2, "both, once");
    world.put(ann, id, "n", 2);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(Duration::ZERO);
    assert_eq!(world.get(bob, id, "n"), Some(2), "it came by itself");
    // And with what was written while it was away.
    world.clients[bob].engine.let_go(&id);
    world.run(LONG);
    assert!(world.clients[bob].engine.is_released(&id));
    world.cut(0);
    world.put(ann, id, "n", 3);
    world.relays[0].down = false;
    world.run(LONG);
    world.cut(0);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.get(bob, id, "n"), Some(3));
    assert_eq!(world.heads(bob, id), world.heads(ann, id));
}

#[test]
fn a_released_document_is_given_to_a_relay_that_lost_it() {
    let mut world = World::new(1);
    let (ann, bob, id) = released(&mut world);
    let heads = world.heads(ann, id);
    for lost_all in [false, true] {
        world.cut(0);
        if lost_all {
            world.relays[0].documents.clear();
        } else {
            world.relays[0].restore(id, 1);
        }
        // Ann stays away.
        world.relays[0].only = Some(bob);
        world.relays[0].down = false;
        world.run(LONG);
        assert_eq!(world.relays[0].has(id), heads, "lost all: {lost_all}");
        assert_eq!(world.status(bob, id), Status::Saved);
        assert!(world.clients[bob].engine.is_released(&id));
    }
}

/// In a large document they take a second, in which all others would wait.
#[test]
fn contents_are_built_by_whoever_reads_and_not_by_the_engine() {
    for away in [true, false] {
        let mut world = World::new(1);
        world.relays[0].down = true;
        let ann = world.join(&storage());
        let id = world.create(ann);
        world.put(ann, id, "n", 1);
        world.run(MOMENT);
        // The outbox brings it in without contents.
        world.relays[0].down = away;
        let ann = world.restart(ann);
        world.run(LONG / 3);
        assert_eq!(world.clients[ann].loads, [false]);
        world.clients[ann].engine.find(id);
        world.run(Duration::ZERO);
        assert_eq!(world.clients[ann].loads, [false, true]);
        assert_eq!(world.get(ann, id, "n"), Some(1));
        world.put(ann, id, "n", 2);
        world.relays[0].down = false;
        world.run(LONG);
        assert_eq!(world.status(ann, id), Status::Saved);
        assert_eq!(world.relays[0].has(id), world.heads(ann, id));
        assert_eq!(world.clients[ann].storage.outbox().unwrap(), []);
    }
}

#[test]
fn what_some_relay_lacks_stays_in_memory() {
    let mut world = World::new(2);
    let ann = world.join(&storage());
    world.cut(1);
    let id = world.create(ann);
    world.clients[ann].engine.let_go(&id);
    world.run(LONG);
    assert!(!world.clients[ann].engine.is_released(&id));
    world.relays[1].down = false;
    world.run(LONG);
    assert!(world.clients[ann].engine.is_released(&id));
    // What the outbox brought in leaves too.
    world.relays.push(TestRelay::default());
    let again = world.restart(ann);
    world.run(MOMENT);
    assert_eq!(world.relays[2].has(id), world.relays[0].has(id));
    world.run(LONG);
    assert!(world.clients[again].engine.is_released(&id));
}

/// It left the stored outbox with everything else of it, so it must be put there anew.
#[test]
fn a_document_that_was_deleted_and_found_again_enters_the_outbox() {
    let mut world = World::new(1);
    let storage = storage();
    let ann = world.join(&storage);
    let id = world.create(ann);
    world.put(ann, id, "n", 1);
    world.run(MOMENT);
    world.cut(0);
    world.put(ann, id, "n", 2);
    world.run(MOMENT);
    assert_eq!(storage.outbox().unwrap(), [id]);
    // The outbox of the start names it, until it is deleted.
    let ann = world.restart(ann);
    world.run(MOMENT);
    world.clients[ann].engine.delete(&id);
    world.run(MOMENT);
    assert_eq!(storage.outbox().unwrap(), []);
    world.relays[0].down = false;
    world.run(LONG);
    world.clients[ann].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.get(ann, id, "n"), Some(1));
    assert_eq!(world.status(ann, id), Status::Saved);
    world.cut(0);
    world.put(ann, id, "n", 3);
    world.run(MOMENT);
    assert_eq!(storage.outbox().unwrap(), [id]);
}

#[test]
fn thousands_of_documents_are_sent_when_the_relay_comes() {
    let mut world = World::new(1);
    world.relays[0].down = true;
    let ann = world.join(&storage());
    let mut ids = Vec::new();
    for n in 0..3000u32 {
        let mut replica = Replica::new(ActorId::from(n.to_be_bytes().to_vec()));
        replica.begin(0);
        let id = DocumentId::new(&n.to_be_bytes()).unwrap();
        let client = &mut world.clients[ann];
        client.engine.create(id, client.storage.new_key(), replica);
        ids.push(id);
    }
    world.run(MOMENT);
    world.relays[0].down = false;
    world.run(LONG);
    for id in ids {
        assert_eq!(world.status(ann, id), Status::Saved);
    }
    assert_eq!(world.clients[ann].storage.outbox().unwrap(), []);
    // Two messages each: heads, then the change.
    assert_eq!(world.relays[0].received.len(), 6000);
}

/// Many clients write while relays come and go and clients start again; at the end all agree, and
/// nothing that was made is lost.
/// Numbers below others, which a seed repeats.
fn picks(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = Random::new(seed);
    move |end| backoff::wait(20, &mut random).as_nanos() as u64 % end
}

/// Two relays, and three clients that have one document.
fn three_with_one_document() -> (World, Vec<usize>, DocumentId) {
    let mut world = World::new(2);
    let clients: Vec<usize> = (0..3).map(|_| world.join(&storage())).collect();
    let id = world.create(clients[0]);
    world.run(MOMENT);
    for client in &clients[1..] {
        world.clients[*client].engine.find(id);
    }
    world.run(MOMENT);
    (world, clients, id)
}

#[test]
fn whatever_is_cut_all_agree_in_the_end() {
    for seed in 0..30 {
        let mut pick = picks(seed);
        let (mut world, mut clients, id) = three_with_one_document();
        let mut made = HashSet::new();
        for step in 0..120 {
            let at = pick(3) as usize;
            match pick(11) {
                0 => world.cut(pick(2) as usize),
                1 | 2 => {
                    let relay = pick(2) as usize;
                    world.relays[relay].down = false;
                }
                3 => {
                    // What is not stored yet dies with the process; so store it.
                    world.settle();
                    clients[at] = world.restart(clients[at]);
                    world.clients[clients[at]].engine.find(id);
                    world.run(MOMENT);
                }
                4 | 5 => world.run(Duration::from_millis(pick(3000))),
                6 => {
                    // Released, if all is acknowledged.
                    let engine = &mut world.clients[clients[at]].engine;
                    engine.release_after(Duration::from_secs(1));
                    engine.let_go(&id);
                    world.run(Duration::from_millis(pick(5000)));
                    world.clients[clients[at]].engine.find(id);
                    world.run(Duration::ZERO);
                }
                _ => {
                    world.put(clients[at], id, &format!("{at}"), step);
                    made.extend(world.heads(clients[at], id));
                }
            }
        }
        world.relays.iter_mut().for_each(|relay| relay.down = false);
        world.run(LONG);
        let heads = world.heads(clients[0], id);
        for client in &clients {
            assert_eq!(world.heads(*client, id), heads, "seed {seed}");
            assert_eq!(world.status(*client, id), Status::Saved, "seed {seed}");
            let outbox = world.clients[*client].storage.outbox().unwrap();
            assert_eq!(outbox, [], "seed {seed}");
        }
        let document = world.clients[clients[0]].engine.document(&id).unwrap();
        for hash in made {
            assert!(document.get_change_by_hash(&hash).is_some(), "seed {seed}");
        }
        for relay in &world.relays {
            assert_eq!(relay.has(id), heads, "seed {seed}");
        }
    }
}

/// Names the relays of a client anew, as its storage knows before.
fn name_relays(world: &mut World, client: usize, wanted: &[usize], away: &[usize]) {
    world.settle();
    let names = names(world.relays.len());
    let named = |places: &[usize]| -> Vec<Arc<str>> {
        places.iter().map(|place| names[*place].clone()).collect()
    };
    let all: Vec<_> = wanted.iter().chain(away).copied().collect();
    let client = &mut world.clients[client];
    client.storage.name_relays(&named(&all)).unwrap();
    let engine = &mut client.engine;
    engine.name_relays(world.now, named(wanted), named(away));
    engine.handle(world.now, Input::Outbox(client.storage.outbox().unwrap()));
    world.settle();
}

#[test]
fn relays_come_and_go_while_it_runs() {
    let mut world = World::new(3);
    let ann = world.join(&storage());
    name_relays(&mut world, ann, &[1], &[]);
    let [kept, released] = [world.create(ann), world.create(ann)];
    for id in [kept, released] {
        world.put(ann, id, "key", 1);
    }
    world.settle();
    world.clients[ann].engine.let_go(&released);
    world.run(RELEASE_AFTER * 2);
    assert!(world.clients[ann].engine.is_released(&released));
    assert!(world.clients[ann].engine.is_everywhere(&kept));
    assert!(world.relays[0].documents.is_empty() && world.relays[2].documents.is_empty());
    // A new one gets all, also what is not in memory, and takes another's place.
    name_relays(&mut world, ann, &[2, 1], &[]);
    let engine = |world: &World| -> Vec<bool> {
        let connected = |relay| world.clients[ann].engine.is_connected(RelayId(relay));
        (0..3).map(connected).collect()
    };
    assert_eq!(engine(&world), [true, true, false]);
    for id in [kept, released] {
        assert_eq!(world.relays[2].has(id), world.relays[1].has(id));
    }
    world.run(ACKNOWLEDGEMENT_DELAY);
    let storage = world.clients[ann].storage.clone();
    assert_eq!(storage.outbox().unwrap(), []);
    // Nobody waits for one that is away; the outbox does.
    name_relays(&mut world, ann, &[2], &[1]);
    assert_eq!(engine(&world), [true, false, false]);
    world.put(ann, kept, "key", 2);
    world.settle();
    let heads = world.heads(ann, kept);
    assert_eq!(world.status(ann, kept), Status::Saved);
    assert!(world.clients[ann].engine.is_everywhere(&kept));
    assert!(
        world.clients[ann]
            .engine
            .is_acknowledged(&kept, &heads, true)
    );
    assert!(world.clients[ann].engine.belongs_in_outbox(&kept));
    world.run(ACKNOWLEDGEMENT_DELAY);
    assert_eq!(storage.outbox().unwrap(), [kept]);
    name_relays(&mut world, ann, &[1], &[2]);
    assert_eq!(engine(&world), [true, false, false]);
    assert_eq!(world.relays[1].has(kept), heads);
    // Gone is gone.
    name_relays(&mut world, ann, &[0], &[]);
    world.put(ann, kept, "key", 3);
    world.run(ACKNOWLEDGEMENT_DELAY);
    assert_eq!(world.relays[0].has(kept), world.heads(ann, kept));
    assert_eq!(world.relays[1].has(kept), heads);
    assert_eq!(storage.outbox().unwrap(), []);
    name_relays(&mut world, ann, &[], &[]);
    assert_eq!(world.status(ann, kept), Status::Offline);
}

#[test]
fn a_relay_that_refused_is_tried_again_when_told_so() {
    let mut world = World::new(1);
    world.relays[0].rejects = true;
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(BACKOFF_MAX * 2);
    assert!(matches!(world.status(ann, id), Status::Refused(_)));
    assert_eq!(world.clients[ann].connects.len(), 1);
    world.relays[0].rejects = false;
    world.clients[ann].engine.retry(world.now, RelayId(0));
    world.settle();
    assert_eq!(world.status(ann, id), Status::Saved);
    world.clients[ann].engine.retry(world.now, RelayId(0));
    world.clients[ann].engine.retry(world.now, RelayId(9));
    world.settle();
    assert_eq!(world.clients[ann].connects.len(), 2);
}

#[test]
fn a_relay_is_pinged_by_a_message_where_there_is_no_other_way() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    world.settle();
    let connection = *world.clients[ann].lines.keys().next().unwrap();
    let ping = world.clients[ann].engine.ping(connection).unwrap();
    let before = world.to_clients.len();
    world.relay_frame(0, (ann, connection), &ping.into());
    assert_eq!(world.to_clients.len(), before + 1);
    world.run(PING_AFTER);
    assert!(world.clients[ann].engine.is_connected(RelayId(0)));
    assert_eq!(world.clients[ann].engine.ping(ConnectionId(99)), None);
}
