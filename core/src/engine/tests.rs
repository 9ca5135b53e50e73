//! Engines and relays in virtual time: no sockets, no clock, every run the same.

mod commit;
mod connections;
mod current;
mod fold;
mod outbox;
mod presence;
mod rebase;
mod relay;
mod release;
mod search;
mod status;
mod sync;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::{Transactable, Transaction};
use automerge::{ActorId, ChangeHash, ROOT, ReadDoc};
use bytes::Bytes;

use super::*;
use crate::id::{ConnectionId, PeerId};
use crate::protocol;
use crate::protocol::Message;
use crate::replica::{ChangeOptions, Replica};
use crate::session::{Event, Local, Session};
use crate::storage::{Batch, MemoryStorage, Storage, StorageError};
use relay::TestRelay;

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

const MOMENT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(120);

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
