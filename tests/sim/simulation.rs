//! The world of one seed: clients, relays, wires and disks in virtual time.
//!
//! What happens next is in `events`, by time. Every step the seed picks something to do or to
//! break; in between, time goes by. What must hold at any moment is checked where it could stop to
//! hold; the rest when everything is healed.

mod clients;
mod ending;
mod relays;
mod steps;
mod wires;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use automerge::{ActorId, ChangeHash};
use reconverge::engine::{Closed, Fault, Folding, Frame, Input, Reading, fold, load, load_graph};
use reconverge::id::{Access, ConnectionId, DocumentId};
use reconverge::protocol::SYNC_BYTES_MAX;
use reconverge::replica::Settling;
use reconverge::storage::DocumentKey;
use reconverge_tests::Random;

use crate::client::Client;
use crate::disk::Disk;
use crate::network::{Direction, Wire, WireId};
use crate::relay::Relay;

#[derive(Debug)]
enum Event {
    Arrives(WireId, Direction),
    Connected(WireId),
    NotConnected(usize, u64, ConnectionId),
    Leaves(WireId, Frame),
    ClientNotices(WireId),
    RelayNotices(WireId),
    Pinged(WireId),
    Pong(WireId),
    Commits(usize, u64),
    Loads(usize, u64, DocumentId, Reading),
    LoadsGraph(usize, u64, DocumentId, DocumentKey, u32),
    Settles(usize, u64, DocumentId, Box<Settling>),
    Folds(usize, u64, DocumentId, Box<Folding>),
    Wakes(usize, u64),
    JobEnds(usize, u64, DocumentId),
    Grace(usize, u64, DocumentId, WireId, u32),
    Retries(usize, u64, DocumentId),
}

/// How often something came about, so that a test can tell that it did.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

#[derive(Debug)]
pub(crate) struct Simulation {
    random: Random,
    pub(crate) now: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    events_made: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) relays: Vec<Relay>,
    pub(crate) wires: BTreeMap<WireId, Wire>,
    wires_made: WireId,
    /// Who cannot reach whom; `true` if nobody is told so.
    cuts: BTreeMap<(usize, usize), bool>,
    pub(crate) documents: Vec<DocumentId>,
    /// Every change that was made where it may be made.
    pub(crate) made: HashMap<DocumentId, HashSet<ChangeHash>>,
    /// Every change by those who may not.
    pub(crate) forbidden: HashMap<DocumentId, HashSet<ChangeHash>>,
    /// Whether there is a hostile peer, and whether it may write.
    hostile: Option<Access>,
    /// Whether it makes other changes under the numbers of honest ones, and of which documents.
    forges: bool,
    pub(crate) forked: BTreeSet<DocumentId>,
    /// Its connections by relay.
    hostile_wires: BTreeMap<usize, WireId>,
    overheard: Vec<Vec<u8>>,
    /// What was broadcast, by number: on which document, by whom.
    pub(crate) said: Vec<(DocumentId, String)>,
    /// Who heard which of it.
    pub(crate) heard: BTreeSet<(usize, u64)>,
    sync_messages: usize,
    slowness_ms: u64,
    peers_made: u64,
    /// The documents that a client deleted, found again or not.
    deleted: BTreeSet<(usize, DocumentId)>,
    /// A relay was restored from an older copy.
    pub(crate) restored: BTreeSet<usize>,
    pub(crate) counts: Counts,
    /// A digest of all that happened.
    pub(crate) trace: u64,
}

impl Simulation {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let relays = 1 + random.below(2) as usize;
        let hostile = match random.below(4) {
            0 => None,
            1 => Some(Access::Read),
            _ => Some(Access::Write),
        };
        let slowness_ms = [2, 50, 1500][random.below(3) as usize];
        let forges = random.below(8) == 0;
        let message_bytes_max = match random.below(3) {
            0 => 2000 + random.below(4000),
            _ => SYNC_BYTES_MAX as u64,
        };
        let relay = |n| Relay::new(&name(n), message_bytes_max);
        let mut simulation = Self {
            now: Duration::ZERO,
            events: BTreeMap::new(),
            events_made: 0,
            clients: Vec::new(),
            relays: (0..relays).map(relay).collect(),
            wires: BTreeMap::new(),
            wires_made: 0,
            cuts: BTreeMap::new(),
            documents: Vec::new(),
            made: HashMap::new(),
            forbidden: HashMap::new(),
            hostile,
            forges,
            forked: BTreeSet::new(),
            hostile_wires: BTreeMap::new(),
            overheard: Vec::new(),
            said: Vec::new(),
            heard: BTreeSet::new(),
            sync_messages: 0,
            slowness_ms,
            peers_made: 0,
            deleted: BTreeSet::new(),
            restored: BTreeSet::new(),
            counts: Counts::new(),
            trace: seed,
            random,
        };
        #[cfg(feature = "planted")]
        if reconverge::planted::is(reconverge::planted::Bug::AcknowledgeBeforeSync) {
            for relay in &simulation.relays {
                relay.disk.be_hasty();
            }
        }
        for at in 0..2 + simulation.random.below(2) as usize {
            // The first one knows all relays, so that what one of them has can get to the others.
            let knows: Vec<usize> = (0..relays)
                .filter(|_| at == 0 || simulation.random.below(3) > 0)
                .collect();
            let knows = if knows.is_empty() { vec![0] } else { knows };
            let reader = at > 0 && simulation.random.below(4) == 0;
            let disk = Disk::holding(&format!("client-{at}"), &[]);
            simulation.clients.push(Client::new(disk, knows, reader));
            simulation.start(at);
        }
        simulation
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x0100_0000_01b3);
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.events_made += 1;
        self.events.insert((time, self.events_made), event);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(self.random.below(self.slowness_ms * 1000) + 100)
    }

    /// Lets time go by.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happens(event);
        }
        self.now = end;
    }

    fn happens(&mut self, event: Event) {
        self.note(self.now.as_nanos() as u64);
        match event {
            Event::Arrives(wire, direction) => self.arrives(wire, direction),
            Event::Connected(wire) => self.connected(wire),
            Event::NotConnected(client, life, connection) => {
                if self.clients[client].life == life {
                    self.feed(
                        client,
                        Input::Closed(connection, Closed::Lost(Fault::lost())),
                    );
                }
            }
            Event::Leaves(wire, frame) => self.leaves(wire, frame),
            Event::ClientNotices(wire) => self.client_notices(wire),
            Event::RelayNotices(wire) => self.relay_notices(wire),
            Event::Pinged(id) => self.pinged(id),
            Event::Pong(wire) => {
                // What was before it may be lost, and so is it then.
                let is_cut = self.wires.get(&wire).is_some_and(|wire| wire.down.dead);
                if let Some((client, connection)) = self.owner(wire).filter(|_| !is_cut) {
                    self.feed(client, Input::Pong(connection));
                }
            }
            Event::Commits(client, life) => {
                if self.clients[client].life == life {
                    self.commits(client);
                }
            }
            Event::Loads(client, life, document, contents) => {
                if self.clients[client].life == life {
                    let actor = ActorId::from(self.random.bytes().as_slice());
                    let disk = self.clients[client].disk.clone();
                    let loaded = load(&*disk, &document, contents, actor);
                    self.clients[client].failed |= loaded.is_err();
                    self.feed(client, Input::Loaded(document, loaded.map(Box::new)));
                }
            }
            Event::LoadsGraph(client, life, document, key, segments) => {
                if self.clients[client].life == life {
                    let graph = load_graph(&*self.clients[client].disk, key, segments);
                    self.feed(client, Input::Graph(document, graph));
                }
            }
            Event::Settles(at, life, document, settling) => {
                let client = &mut self.clients[at];
                if client.life == life
                    && let Some(engine) = &mut client.engine
                {
                    engine.settled(document, settling.run());
                    self.drain(at);
                }
            }
            Event::Folds(client, life, document, folding) => {
                if self.clients[client].life == life {
                    let folded = fold(&*self.clients[client].disk, &folding);
                    self.feed(client, Input::Folded(document, folded));
                }
            }
            Event::Wakes(client, life) => {
                if self.clients[client].life == life {
                    self.clients[client].wakes_at = None;
                    self.feed(client, Input::Tick);
                }
            }
            Event::JobEnds(relay, life, document) => {
                if self.relays[relay].life == life {
                    let document = self.relays[relay].document(document);
                    if document.jobs_len() > 0 {
                        document.finish_job(0);
                    }
                    self.settle(relay);
                }
            }
            Event::Grace(relay, life, document, wire, waited) => {
                self.grace(relay, life, document, wire, waited);
            }
            Event::Retries(relay, life, document) => {
                if self.relays[relay].life == life {
                    self.relays[relay].document(document).retry();
                    self.settle(relay);
                }
            }
        }
    }
}

fn name(relay: usize) -> String {
    format!("relay-{relay}")
}
