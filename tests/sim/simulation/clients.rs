//! What the engines ask for, and what applications do with them.

use std::collections::HashSet;

use reconverge::engine::{Config, Engine, FRAMES_MAX, Input, Output, RelayId, Status};
use reconverge::id::{DocumentId, PeerId};
use reconverge::replica::{ChangeOptions, Replica};
use reconverge::storage::Storage;
use reconverge_tests::world::hashes;

use super::{Event, Simulation, name};
use crate::client::{Question, edit};
use crate::network::{Party, WireId};

impl Simulation {
    pub(super) fn start(&mut self, at: usize) {
        self.peers_made += 1;
        let client = &mut self.clients[at];
        let config = Config {
            peer: PeerId::new(&format!("peer-{}", self.peers_made)).expect("not empty"),
            storage_id: client.disk.storage_id(),
            session: format!("run-{}", self.peers_made),
            relays: client.relays.iter().map(|n| name(*n).into()).collect(),
            seed: self.random.number(),
            settle_at_once: [0, 100, usize::MAX][self.random.below(3) as usize],
        };
        client.life += 1;
        client.engine = Some(Engine::new(config));
        client.failed = false;
        client.name = format!("peer-{}", self.peers_made);
        client.heard.clear();
        client.wakes_at = None;
        let outbox = client.disk.outbox().expect("the disk is read");
        self.feed(at, Input::Outbox(outbox));
    }

    /// The process ends. Of the commits on their way some first ones are done.
    pub(super) fn stop(&mut self, at: usize) {
        let done = self.random.below(self.clients[at].commits.len() as u64 + 1);
        let client = &mut self.clients[at];
        client.engine = None;
        client.life += 1;
        client.opened.clear();
        client.questions.clear();
        for batch in std::mem::take(&mut client.commits)
            .into_iter()
            .take(done as usize)
        {
            // Nobody waits for the answer.
            let _ = client.disk.commit(&[batch]);
        }
        let mut wires: Vec<_> = std::mem::take(&mut client.wires).into_values().collect();
        wires.sort_unstable();
        let told = self.random.below(2) == 0;
        for id in wires {
            if !told && let Some(wire) = self.wires.get_mut(&id) {
                wire.up.dead = true;
            }
            self.client_closes(id);
        }
    }

    /// Asks whether a document is current, and remembers what relays have said of it by now.
    pub(super) fn ask(&mut self, at: usize, id: DocumentId) {
        let client = &mut self.clients[at];
        let engine = client.engine.as_mut().expect("it runs");
        let asked = engine.ask_current(id);
        let said = |wire: &WireId| {
            let told = self.wires.get(wire)?.told.get(&id);
            Some((*wire, told.cloned().unwrap_or_default()))
        };
        let question = Question {
            document: id,
            said: client.wires.values().filter_map(said).collect(),
            wires_made: self.wires_made,
        };
        client.questions.insert(asked, question);
        self.drain(at);
    }

    pub(super) fn feed(&mut self, at: usize, input: Input) {
        let now = self.now;
        let Some(engine) = &mut self.clients[at].engine else {
            return;
        };
        engine.handle(now, input);
        self.drain(at);
    }

    pub(super) fn drain(&mut self, at: usize) {
        for _ in 0..100_000 {
            let Some(engine) = &mut self.clients[at].engine else {
                return;
            };
            match engine.poll_output() {
                Output::Idle { wake_at } => {
                    let client = &mut self.clients[at];
                    if let Some(time) = wake_at
                        && client.wakes_at.is_none_or(|before| time < before)
                    {
                        client.wakes_at = Some(time);
                        let life = client.life;
                        self.at(time.max(self.now), Event::Wakes(at, life));
                    }
                    self.check_saved(at);
                    return;
                }
                output => self.perform(at, output),
            }
        }
        panic!("client {at} never comes to rest");
    }

    fn perform(&mut self, at: usize, output: Output) {
        let life = self.clients[at].life;
        let delay = self.delay();
        match output {
            Output::Connect(RelayId(place), connection) => {
                let relay = self.clients[at].relays[place];
                match self.cuts.get(&(at, relay)) {
                    Some(true) => {}
                    None if self.relays[relay].up => {
                        let wire = self.connect(Party::Client(at, life, connection), relay);
                        self.clients[at].wires.insert(connection, wire);
                    }
                    _ => self.after(delay, Event::NotConnected(at, life, connection)),
                }
            }
            Output::Disconnect(connection) => {
                if let Some(wire) = self.clients[at].wires.get(&connection).copied() {
                    self.client_closes(wire);
                }
            }
            Output::Send(connection, frame) => {
                let Some(id) = self.clients[at].wires.get(&connection).copied() else {
                    return;
                };
                let wire = self.wires.get_mut(&id).expect("a client's wire is there");
                wire.unsent += 1;
                assert!(
                    wire.unsent <= FRAMES_MAX,
                    "more frames than may be on their way"
                );
                wire.leaving_until = wire.leaving_until.max(self.now) + wire.frame_takes;
                let (leaving, full) = (wire.leaving_until, wire.unsent == FRAMES_MAX);
                if full {
                    self.count("a full connection");
                }
                self.at(leaving, Event::Leaves(id, frame));
            }
            Output::Ping(connection) => {
                let Some(id) = self.clients[at].wires.get(&connection).copied() else {
                    return;
                };
                if !self.wires[&id].up.dead {
                    self.after(delay, Event::Pinged(id));
                }
            }
            Output::Load { document, contents } => {
                self.after(delay, Event::Loads(at, life, document, contents));
            }
            Output::LoadGraph {
                document,
                key,
                segments,
            } => {
                self.count("a client loaded a graph");
                self.after(delay, Event::LoadsGraph(at, life, document, key, segments));
            }
            Output::Settle(document, settling) => {
                self.count("a client's contents settled elsewhere");
                self.after(delay * 2, Event::Settles(at, life, document, settling));
            }
            Output::Fold(document, folding) => {
                self.count("a client's document folded");
                // The longer it takes, the more comes meanwhile.
                self.after(delay * 4, Event::Folds(at, life, document, folding));
            }
            Output::Store(batch) => {
                self.clients[at].commits.push_back(batch);
                self.after(delay, Event::Commits(at, life));
            }
            Output::StoreFailed(..) => self.count("a client's commit failed"),
            Output::Flushed(id) => {
                let client = &self.clients[at];
                let engine = client.engine.as_ref();
                if let Some(heads) = engine.and_then(|engine| engine.contents_heads(&id)) {
                    assert!(
                        client.disk.has(&id, heads),
                        "client {at} calls flushed what is not on its disk"
                    );
                }
            }
            Output::Deleted(id) => {
                self.deleted.insert((at, id));
                self.count("a document deleted");
            }
            Output::Status(_, status) => match status {
                Status::Saved => self.count("a document saved"),
                Status::Refused(_) => self.count("a document refused"),
                _ => {}
            },
            Output::Ephemeral {
                document,
                sender,
                data,
            } => self.check_heard(at, document, sender.as_str(), &data),
            Output::Found(id, Ok(())) => {
                let engine = self.clients[at].engine.as_ref();
                let replica = engine.and_then(|engine| engine.replica(&id));
                let replica = replica.expect("what is found can be read");
                let mut shown = replica.contents_heads().expect("it is built").to_vec();
                shown.sort_unstable();
                assert!(
                    replica.has_own() || shown == replica.heads(),
                    "client {at} finds a document that does not show what came of it"
                );
            }
            Output::Current(asked, answer) => self.check_current(at, asked, &answer),
            Output::Added(_)
            | Output::Found(..)
            | Output::Changed(_)
            | Output::TakenOut(_)
            | Output::Salvaged(_) => {}
            Output::Idle { .. } => unreachable!("handled by the caller"),
        }
    }

    pub(super) fn commits(&mut self, at: usize) {
        let Some(batch) = self.clients[at].commits.pop_front() else {
            return;
        };
        let document = batch.document;
        let result = self.clients[at].disk.commit(&[batch]);
        self.feed(at, Input::Stored(document, result));
    }

    fn new_document_id(&mut self) -> DocumentId {
        let id = self.random.document_id();
        self.documents.push(id);
        id
    }

    pub(super) fn insert(&mut self, at: usize, replica: Replica) {
        let id = self.new_document_id();
        let client = &mut self.clients[at];
        let key = client.disk.new_key();
        let engine = client.engine.as_mut().expect("it runs");
        engine.create(id, key, replica);
        let made = hashes(&engine.document(&id).expect("it is ready at once"));
        client.opened.insert(id);
        self.made.insert(id, made);
        self.drain(at);
    }

    pub(super) fn find(&mut self, at: usize, id: DocumentId) {
        let client = &mut self.clients[at];
        client.opened.insert(id);
        let engine = client.engine.as_mut().expect("it runs");
        engine.find(id);
        self.drain(at);
    }

    pub(super) fn broadcast(&mut self, at: usize, id: DocumentId) {
        let client = &mut self.clients[at];
        if let Some(engine) = &mut client.engine
            && engine.document(&id).is_some()
        {
            engine.broadcast(&id, &self.said.len().to_le_bytes());
            self.said.push((id, client.name.clone()));
            self.drain(at);
        }
    }

    pub(super) fn edit(&mut self, at: usize, id: DocumentId) {
        let (client, random) = (&mut self.clients[at], &mut self.random);
        let Some(engine) = &mut client.engine else {
            return;
        };
        let Some(live) = engine.editable_live(&id) else {
            return;
        };
        let before: HashSet<_> = live.read(false).get_heads().into_iter().collect();
        let writing = live.write().expect("it is the engine's");
        let made = writing.edit(ChangeOptions::default(), |tx| edit(tx, random));
        let (_, mut made) = made.expect("the edit is valid");
        if random.below(2) == 0 {
            // On another thread, the engine has to do with this document meanwhile.
            self.feed(at, Input::Tick);
        }
        let client = &mut self.clients[at];
        let Some(engine) = &mut client.engine else {
            return;
        };
        let Some(kept) = engine.keep(&id, &mut made) else {
            self.count("an edit taken back");
            return;
        };
        kept.expect("it is within limits");
        drop(made);
        let after = live.read(false).get_heads();
        let new = after.into_iter().filter(|head| !before.contains(head));
        let changes = if client.reader {
            &mut self.forbidden
        } else {
            &mut self.made
        };
        changes.entry(id).or_default().extend(new);
        self.count("an edit");
        self.drain(at);
    }
}
