//! The world of one seed: clients, relays, wires and disks in virtual time.
//!
//! What happens next is in `events`, by time. Every step the seed picks something to do or to
//! break; in between, time goes by. What must hold at any moment is checked where it could stop to
//! hold; the rest when everything is healed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use automerge::{ActorId, ChangeHash};
use bytes::Bytes;
use reconverge::engine::{
    Closed, Config, Engine, FRAMES_MAX, Frame, Input, Output, RelayId, Status, load, load_graph,
};
use reconverge::id::{Access, ConnectionId, DocumentId, PeerId};
use reconverge::protocol::{self, Message};
use reconverge::replica::Replica;
use reconverge::storage::{DocumentKey, Storage};
use reconverge_tests::Random;
use reconverge_tests::world::{Failure, hashes};

use crate::client::{Client, edit};
use crate::disk::Disk;
use crate::hostile;
use crate::network::{Direction, Party, Way, Wire, WireId};
use crate::relay::{Relay, Then};

/// What happens in one run before everything is healed.
const STEPS: usize = 120;

/// Most clients, counting clones, and documents.
const CLIENTS_MAX: usize = 5;
const DOCUMENTS_MAX: usize = 4;

/// Frames that the network takes on before the relay has to wait.
const WINDOW: usize = 4;

/// Two pings and a second without a sign of life, as in the relay.
const RELAY_PATIENCE: Duration = Duration::from_secs(41);

/// How long a request waits before it is told that nobody has the document, as in the relay.
const GRACE: Duration = Duration::from_millis(300);
const GRACES_MAX: u32 = 33;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Enough for both sides to notice what is dead, and for the longest wait before the next try.
const HEALING: Duration = Duration::from_secs(240);

/// How long nobody may say anything when there is nothing left to say.
const QUIET: Duration = Duration::from_secs(120);

/// Sync messages that healing may take, for each client, document and relay.
const HEALING_MESSAGES_MAX: usize = 40;

#[derive(Debug)]
enum Event {
    Arrives(WireId, Direction),
    Connected(WireId),
    NotConnected(usize, u64, ConnectionId),
    Leaves(WireId, Frame),
    ClientNotices(WireId),
    RelayNotices(WireId),
    Pong(WireId),
    Commits(usize, u64),
    Loads(usize, u64, DocumentId, bool),
    LoadsGraph(usize, u64, DocumentId, DocumentKey, u32),
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
    now: Duration,
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
    hostile_wire: Option<WireId>,
    overheard: Vec<Vec<u8>>,
    sync_messages: usize,
    slowness_ms: u64,
    peers_made: u64,
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
        let mut simulation = Self {
            now: Duration::ZERO,
            events: BTreeMap::new(),
            events_made: 0,
            clients: Vec::new(),
            relays: (0..relays).map(|n| Relay::new(&name(n))).collect(),
            wires: BTreeMap::new(),
            wires_made: 0,
            cuts: BTreeMap::new(),
            documents: Vec::new(),
            made: HashMap::new(),
            forbidden: HashMap::new(),
            hostile,
            hostile_wire: None,
            overheard: Vec::new(),
            sync_messages: 0,
            slowness_ms,
            peers_made: 0,
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

    fn count(&mut self, what: &'static str) {
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
                    self.feed(client, Input::Closed(connection, Closed::Lost));
                }
            }
            Event::Leaves(wire, frame) => self.leaves(wire, frame),
            Event::ClientNotices(wire) => self.client_notices(wire),
            Event::RelayNotices(wire) => self.relay_notices(wire),
            Event::Pong(wire) => {
                if let Some((client, connection)) = self.owner(wire) {
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

/// Wires.
impl Simulation {
    pub(crate) fn owner(&self, wire: WireId) -> Option<(usize, ConnectionId)> {
        let wire = self.wires.get(&wire)?;
        let Party::Client(client, life, connection) = wire.party else {
            return None;
        };
        let client_lives = self.clients[client].life == life;
        (client_lives && wire.client_open).then_some((client, connection))
    }

    fn connect(&mut self, party: Party, relay: usize) -> WireId {
        self.wires_made += 1;
        let id = self.wires_made;
        let slow = self.random.below(3) == 0;
        let frame_takes_ms = if slow { self.random.below(3000) } else { 0 };
        let frame_takes = Duration::from_millis(frame_takes_ms);
        self.wires.insert(id, Wire::new(party, relay, frame_takes));
        let delay = self.delay();
        self.after(delay, Event::Connected(id));
        id
    }

    fn connected(&mut self, id: WireId) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let relay = wire.relay;
        if !self.relays[relay].up {
            self.after(Duration::ZERO, Event::ClientNotices(id));
            return;
        }
        wire.relay_open = true;
        let access = match wire.party {
            Party::Client(client, ..) if self.clients[client].reader => Access::Read,
            Party::Client(..) => Access::Write,
            Party::Hostile => self.hostile.unwrap_or(Access::None),
        };
        self.relays[relay].open(id, access);
        if let Some((client, connection)) = self.owner(id) {
            self.feed(client, Input::Connected(connection));
        } else if self.hostile_wire == Some(id) {
            self.transmit(id, Direction::Up, hostile::join().into());
        }
    }

    /// A client's frame leaves the machine, and is read from storage for that.
    fn leaves(&mut self, id: WireId, frame: Frame) {
        let Some((client, connection)) = self.owner(id) else {
            return;
        };
        let reads = frame.reads();
        let bytes = frame.encode(&*self.clients[client].disk);
        let bytes = bytes.expect("what a frame names stays until it is sent");
        let wire = self.wires.get_mut(&id).expect("has an owner");
        if wire.up.dead {
            // The socket takes no more.
            return;
        }
        wire.unsent -= 1;
        if matches!(protocol::decode(&bytes), Ok(Message::Sync(_))) {
            self.sync_messages += 1;
            self.overheard.push(bytes.to_vec());
            if self.overheard.len() > 8 {
                self.overheard.remove(0);
            }
        }
        self.transmit(id, Direction::Up, bytes);
        self.feed(client, Input::Sent(connection, reads));
    }

    fn transmit(&mut self, id: WireId, direction: Direction, frame: Bytes) {
        let delay = self.delay();
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let way: &mut Way = wire.way(direction);
        way.frames.push_back(frame);
        if !way.dead {
            way.busy_until = way.busy_until.max(now + delay);
            let at = way.busy_until;
            self.at(at, Event::Arrives(id, direction));
        }
    }

    fn arrives(&mut self, id: WireId, direction: Direction) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let way = wire.way(direction);
        if way.dead {
            return;
        }
        let Some(frame) = way.frames.pop_front() else {
            return;
        };
        let (relay, relay_open) = (wire.relay, wire.relay_open);
        self.note(frame.len() as u64);
        match direction {
            Direction::Down => {
                if let Some((client, connection)) = self.owner(id) {
                    self.feed(client, Input::Frame(connection, frame));
                }
                self.pump(relay, id);
            }
            Direction::Up if relay_open => {
                self.check_claims(relay, id, &frame);
                match self.relays[relay].receive(id, &frame) {
                    Then::Nothing => self.pump(relay, id),
                    Then::Close => self.relay_notices(id),
                    Then::Turned => {}
                    Then::Asked(document) => {
                        let life = self.relays[relay].life;
                        self.after(GRACE, Event::Grace(relay, life, document, id, 1));
                    }
                }
                self.settle(relay);
            }
            Direction::Up => {}
        }
    }

    /// The client's side learns that a wire is gone.
    fn client_notices(&mut self, id: WireId) {
        if let Some((client, connection)) = self.owner(id) {
            self.client_closes(id);
            self.feed(client, Input::Closed(connection, Closed::Lost));
        } else {
            self.client_closes(id);
        }
    }

    /// The client's side is gone; the relay's learns of it.
    fn client_closes(&mut self, id: WireId) {
        let delay = self.delay();
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        wire.client_open = false;
        if let Party::Client(client, _, connection) = wire.party {
            self.clients[client].wires.remove(&connection);
        } else {
            self.hostile_wire = None;
        }
        if !wire.relay_open {
            self.wires.remove(&id);
        } else {
            let silent = wire.up.dead;
            // What was on its way arrives before the end does.
            let end = wire.up.busy_until.max(self.now + delay);
            let end = if silent {
                self.now + RELAY_PATIENCE
            } else {
                end
            };
            self.at(end, Event::RelayNotices(id));
        }
    }

    /// The relay's side ends; the client's learns of it, if anything reaches it.
    fn relay_notices(&mut self, id: WireId) {
        let delay = self.delay();
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let relay = wire.relay;
        let was_open = std::mem::replace(&mut wire.relay_open, false);
        if !wire.client_open {
            self.wires.remove(&id);
        } else if was_open && !wire.down.dead {
            let end = wire.down.busy_until.max(self.now + delay);
            self.at(end, Event::ClientNotices(id));
        }
        if was_open {
            self.relays[relay].close(id);
            self.settle(relay);
        }
    }

    /// Hands a relay's next frames to the network, as long as that takes them.
    fn pump(&mut self, relay: usize, id: WireId) {
        loop {
            let Some(wire) = self.wires.get(&id).filter(|wire| wire.relay_open) else {
                return;
            };
            if wire.down.frames.len() >= WINDOW {
                return;
            }
            let Some((frame, sync)) = self.relays[relay].next_frame(id) else {
                return;
            };
            if let Some((document, data)) = sync {
                self.sync_messages += 1;
                self.check_sent(relay, id, document, &data);
            }
            self.transmit(id, Direction::Down, frame);
        }
    }

    /// One or both directions of a wire die.
    fn kill_way(&mut self, id: WireId, up: bool, down: bool) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        wire.up.dead |= up;
        wire.down.dead |= down;
        // No pong comes back either way.
        self.after(RELAY_PATIENCE, Event::RelayNotices(id));
    }
}

/// Relays.
impl Simulation {
    /// Does what follows from a relay's turns.
    fn settle(&mut self, relay: usize) {
        if self.relays[relay].disk.crashed() {
            self.count("a relay crashed in a commit");
            self.crash_relay(relay, true);
            return;
        }
        let life = self.relays[relay].life;
        let documents: Vec<_> = self.relays[relay].documents.keys().copied().collect();
        for id in documents {
            self.relays[relay].report(id);
            let document = self.relays[relay].document(id);
            let (jobs, waits) = (document.jobs_len(), document.waits());
            let busy = |event: &Event, job: bool| match event {
                Event::JobEnds(of, in_life, document) => {
                    job && (*of, *in_life, *document) == (relay, life, id)
                }
                Event::Retries(of, in_life, document) => {
                    !job && (*of, *in_life, *document) == (relay, life, id)
                }
                _ => false,
            };
            if jobs > 0 && !self.events.values().any(|event| busy(event, true)) {
                self.count("a job of the workshop");
                let delay = self.delay() * 4;
                self.after(delay, Event::JobEnds(relay, life, id));
            }
            if waits && !self.events.values().any(|event| busy(event, false)) {
                self.count("a relay's commit failed");
                self.after(RETRY_AFTER, Event::Retries(relay, life, id));
            }
        }
        let wires: Vec<_> = self.relays[relay].peers.keys().copied().collect();
        for wire in wires {
            self.pump(relay, wire);
        }
        // Taking frames out may have led to turns.
        if self.relays[relay].disk.crashed() {
            self.settle(relay);
        }
    }

    fn grace(&mut self, relay: usize, life: u64, id: DocumentId, wire: WireId, waited: u32) {
        if self.relays[relay].life != life || !self.relays[relay].peers.contains_key(&wire) {
            return;
        }
        let history = self.relays[relay].document(id).history();
        if history.upload_expected() && waited < GRACES_MAX {
            self.after(GRACE, Event::Grace(relay, life, id, wire, waited + 1));
        } else if history.poll_unavailable(ConnectionId(wire)) {
            self.relays[relay].say_unavailable(wire, id);
            self.pump(relay, wire);
        }
    }

    /// A relay's process ends. Its clients are told, or the machine is gone with it.
    fn crash_relay(&mut self, relay: usize, lose_unsynced: bool) {
        self.relays[relay].stop();
        let told = self.random.below(2) == 0;
        let wires = self.wires.iter().filter(|(_, wire)| wire.relay == relay);
        let wires: Vec<_> = wires.map(|(id, _)| *id).collect();
        for id in wires {
            let delay = self.delay();
            let wire = self.wires.get_mut(&id).expect("listed above");
            wire.relay_open = false;
            if !wire.client_open {
                self.wires.remove(&id);
            } else if told {
                self.after(delay, Event::ClientNotices(id));
            }
        }
        if lose_unsynced {
            let disk = self.relays[relay].disk.after_crash();
            self.replace_relay_disk(relay, &disk);
        }
        self.check_durable(relay);
    }

    fn replace_relay_disk(&mut self, relay: usize, disk: &std::sync::Arc<Disk>) {
        #[cfg(feature = "planted")]
        if reconverge::planted::is(reconverge::planted::Bug::AcknowledgeBeforeSync) {
            disk.be_hasty();
        }
        self.relays[relay].disk = disk.clone();
    }

    /// An older copy takes the place of a relay's disk.
    fn restore_relay(&mut self, relay: usize) {
        self.count("a relay restored from an older copy");
        self.crash_relay(relay, false);
        self.restored.insert(relay);
        let log = self.relays[relay].disk.log();
        let kept = self.random.below(log.len() as u64 + 1) as usize;
        let disk = Disk::holding(&name(relay), &log[..kept]);
        for id in self.documents.clone() {
            let before = self.relays[relay].disk.changes_of(&id);
            let lost: Vec<_> = before.difference(&disk.changes_of(&id)).copied().collect();
            let of_relay = &mut self.relays[relay];
            of_relay.lost.entry(id).or_default().extend(lost);
        }
        self.replace_relay_disk(relay, &disk);
    }
}

/// Clients.
impl Simulation {
    fn start(&mut self, at: usize) {
        self.peers_made += 1;
        let client = &mut self.clients[at];
        let config = Config {
            peer: PeerId::new(&format!("peer-{}", self.peers_made)).expect("not empty"),
            storage_id: client.disk.storage_id(),
            session: format!("run-{}", self.peers_made),
            relays: client.relays.iter().map(|n| name(*n).into()).collect(),
            seed: self.random.number(),
        };
        client.life += 1;
        client.engine = Some(Engine::new(config));
        client.failed = false;
        client.wakes_at = None;
        let outbox = client.disk.outbox().expect("the disk is read");
        self.feed(at, Input::Outbox(outbox));
    }

    /// The process ends. Of the commits on their way some first ones are done.
    fn stop(&mut self, at: usize) {
        let done = self.random.below(self.clients[at].commits.len() as u64 + 1);
        let client = &mut self.clients[at];
        client.engine = None;
        client.life += 1;
        client.opened.clear();
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

    fn feed(&mut self, at: usize, input: Input) {
        let now = self.now;
        let Some(engine) = &mut self.clients[at].engine else {
            return;
        };
        engine.handle(now, input);
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
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
                let wire = &self.wires[&id];
                if wire.relay_open && !wire.up.dead && !wire.down.dead {
                    self.after(delay * 2, Event::Pong(id));
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
            Output::Store(batch) => {
                self.clients[at].commits.push_back(batch);
                self.after(delay, Event::Commits(at, life));
            }
            Output::StoreFailed(..) => self.count("a client's commit failed"),
            Output::Flushed(id) => {
                let client = &self.clients[at];
                if let Some(document) = client.engine.as_ref().and_then(|e| e.document(&id)) {
                    let heads = document.get_heads();
                    assert!(
                        client.disk.has(&id, &heads),
                        "client {at} calls flushed what is not on its disk"
                    );
                }
            }
            Output::Deleted(_) => self.count("a document deleted"),
            Output::Status(_, status) => match status {
                Status::Saved => self.count("a document saved"),
                Status::Refused(_) => self.count("a document refused"),
                _ => {}
            },
            Output::Found(..) | Output::Changed(_) | Output::Ephemeral { .. } => {}
            Output::Idle { .. } => unreachable!("handled by the caller"),
        }
    }

    fn commits(&mut self, at: usize) {
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

    fn insert(&mut self, at: usize, replica: Replica) {
        let id = self.new_document_id();
        let client = &mut self.clients[at];
        let key = client.disk.new_key();
        let engine = client.engine.as_mut().expect("it runs");
        engine.create(id, key, replica);
        let made = hashes(engine.document(&id).expect("it is ready at once"));
        client.opened.insert(id);
        self.made.insert(id, made);
        self.drain(at);
    }

    fn find(&mut self, at: usize, id: DocumentId) {
        let client = &mut self.clients[at];
        client.opened.insert(id);
        let engine = client.engine.as_mut().expect("it runs");
        engine.find(id);
        self.drain(at);
    }

    fn edit(&mut self, at: usize, id: DocumentId) {
        let (client, random) = (&mut self.clients[at], &mut self.random);
        let Some(engine) = &mut client.engine else {
            return;
        };
        let Some(document) = engine.document(&id) else {
            return;
        };
        let before: HashSet<_> = document.get_heads().into_iter().collect();
        let Some(result) = engine.change(&id, 0, |tx| edit(tx, random)) else {
            return;
        };
        result.expect("the edit is valid");
        let after = engine.document(&id).expect("it is ready").get_heads();
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

/// What the seed does.
impl Simulation {
    pub(crate) fn live(&mut self) {
        for _ in 0..STEPS {
            self.step();
            let pause = match self.random.below(12) {
                0 => self.random.below(60_000),
                1 | 2 => self.random.below(3_000),
                _ => self.random.below(2 * self.slowness_ms + 1),
            };
            self.run(Duration::from_millis(pause));
        }
        // Now and then it is on a full connection that everything comes to rest.
        let at = self.any_client();
        if let Some(id) = self.any_document()
            && self.random.below(2) == 0
        {
            self.burst(at, id);
        }
    }

    /// More than fits on a slow connection, and then the other documents.
    fn burst(&mut self, at: usize, id: DocumentId) {
        for _ in 0..2 * FRAMES_MAX {
            self.edit(at, id);
            self.run(Duration::from_millis(self.slowness_ms));
        }
        for other in self.documents.clone() {
            self.edit(at, other);
        }
    }

    fn any_client(&mut self) -> usize {
        self.random.below(self.clients.len() as u64) as usize
    }

    fn any_document(&mut self) -> Option<DocumentId> {
        let len = self.documents.len() as u64;
        (len > 0).then(|| self.documents[self.random.below(len) as usize])
    }

    fn any_wire(&mut self) -> Option<WireId> {
        let at = self.random.below(self.wires.len() as u64) as usize;
        self.wires.keys().nth(at).copied()
    }

    fn step(&mut self) {
        let at = self.any_client();
        let relay = self.random.below(self.relays.len() as u64) as usize;
        let document = self.any_document();
        let runs = self.clients[at].engine.is_some();
        let step = self.random.below(100);
        self.note(step);
        match (step, document) {
            (0..=7, _)
                if runs && !self.clients[at].reader && self.documents.len() < DOCUMENTS_MAX =>
            {
                let mut replica = Replica::new(self.random.bytes().as_slice().into());
                replica.begin(0);
                self.insert(at, replica);
            }
            (8..=11, Some(id)) if runs => {
                self.burst(at, id);
            }
            (12..=39, Some(id)) if runs => {
                for _ in 0..=self.random.below(4) {
                    self.edit(at, id);
                }
            }
            (40..=49, Some(id)) if runs => self.find(at, id),
            (50..=51, Some(id)) if runs && !self.clients[at].reader => self.import(at, id),
            (52, Some(id)) if runs => {
                let engine = self.clients[at].engine.as_mut().expect("it runs");
                engine.delete(&id);
                self.clients[at].opened.remove(&id);
                self.drain(at);
            }
            (53..=58, _) => {
                if runs {
                    self.count("a client stopped");
                    self.stop(at);
                } else {
                    self.start(at);
                }
            }
            (59..=61, _) if !runs => self.start(at),
            (59, _) => {
                self.count("a client's storage wiped");
                self.stop(at);
                let id = self.clients[at].disk.storage_id();
                self.clients[at].disk = Disk::holding(&format!("{id}-wiped"), &[]);
                self.start(at);
            }
            (60..=61, _) if self.clients.len() < CLIENTS_MAX => {
                self.count("a client's storage cloned");
                let client = &self.clients[at];
                let disk = Disk::holding(&client.disk.storage_id(), &client.disk.log());
                let clone = Client::new(disk, client.relays.clone(), client.reader);
                self.clients.push(clone);
                self.start(self.clients.len() - 1);
            }
            (62..=66, _) => {
                if self.relays[relay].up {
                    self.count("a relay stopped");
                    self.crash_relay(relay, true);
                } else {
                    self.relays[relay].up = true;
                }
            }
            (67..=69, _) if self.relays[relay].up => {
                let failure = self.any_failure();
                self.relays[relay].disk.crash_at_next(failure);
            }
            (67..=73, _) if !self.relays[relay].up => self.relays[relay].up = true,
            (70..=72, _) => {
                let failure = self.any_failure();
                self.relays[relay].disk.fail_next(failure);
            }
            (73, _) => self.restore_relay(relay),
            (74..=76, _) => {
                let failure = self.any_failure();
                self.clients[at].disk.fail_next(failure);
            }
            (77, _) => self.clients[at].disk.fail_next_reading(),
            (78..=80, _) => {
                if let Some(wire) = self.any_wire() {
                    self.count("a connection cut");
                    self.client_notices(wire);
                }
            }
            (81..=83, _) => {
                if let Some(wire) = self.any_wire() {
                    let which = self.random.below(3);
                    self.count(["dead upwards", "dead downwards", "half-open"][which as usize]);
                    self.kill_way(wire, which != 1, which != 0);
                }
            }
            (84..=86, _) => {
                let silent = self.random.below(2) == 0;
                self.count("a client separated from a relay");
                self.cuts.insert((at, relay), silent);
                let wire = self.wires.iter().find(|(_, wire)| {
                    wire.relay == relay
                        && matches!(wire.party, Party::Client(client, ..) if client == at)
                });
                if let Some(id) = wire.map(|(id, _)| *id) {
                    self.kill_way(id, true, true);
                }
            }
            (87..=89, _) => self.cuts.clear(),
            (90..=92, Some(id)) if self.relays[relay].up => {
                self.relays[relay].document(id).begin_fold();
                self.settle(relay);
            }
            (93, Some(id)) if self.relays[relay].up => {
                self.relays[relay].document(id).evict();
            }
            (94..=99, Some(_)) => self.attack(),
            _ => {}
        }
    }

    fn any_failure(&mut self) -> Failure {
        [Failure::Nothing, Failure::Written][self.random.below(2) as usize]
    }

    /// A new document out of another one's export.
    fn import(&mut self, at: usize, id: DocumentId) {
        let engine = self.clients[at].engine.as_ref().expect("it runs");
        let Some(document) = engine.document(&id) else {
            return;
        };
        if self.documents.len() < DOCUMENTS_MAX {
            let saved = document.save();
            let actor = ActorId::from(self.random.bytes().as_slice());
            let replica = Replica::import(&saved, actor).expect("it was exported here");
            self.count("a document imported");
            self.insert(at, replica);
        }
    }

    fn attack(&mut self) {
        if self.hostile.is_none() || !self.relays[0].up {
            return;
        }
        let Some(wire) = self.hostile_wire else {
            self.hostile_wire = Some(self.connect(Party::Hostile, 0));
            return;
        };
        for _ in 0..=self.random.below(3) {
            let (frame, made) = hostile::frame(&mut self.random, &self.documents, &self.overheard);
            if let Some((document, hash)) = made {
                let changes = if self.hostile == Some(Access::Write) {
                    &mut self.made
                } else {
                    &mut self.forbidden
                };
                changes.entry(document).or_default().insert(hash);
            }
            self.count("a hostile frame");
            self.transmit(wire, Direction::Up, frame.into());
        }
    }
}

/// The end.
impl Simulation {
    /// All faults end; all that is reachable comes to be the same everywhere; then silence.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.hostile = None;
        if let Some(wire) = self.hostile_wire {
            self.client_closes(wire);
        }
        for relay in &mut self.relays {
            relay.disk.heal();
            relay.up = true;
        }
        for at in 0..self.clients.len() {
            self.clients[at].disk.heal();
            if self.clients[at].failed {
                self.stop(at);
            }
            if self.clients[at].engine.is_none() {
                self.start(at);
            }
        }
        let before = self.sync_messages;
        self.run(HEALING);
        self.check_outboxes();
        for at in 0..self.clients.len() {
            for id in self.documents.clone() {
                self.find(at, id);
            }
        }
        self.run(HEALING);
        let messages = self.sync_messages - before;
        let all = self.clients.len() * self.documents.len() * self.relays.len();
        assert!(
            messages <= HEALING_MESSAGES_MAX * all,
            "{messages} messages for {all} copies"
        );
        self.counts.insert(
            "messages for one copy, at most",
            (messages / all.max(1)) as u64,
        );
        let before = self.sync_messages;
        self.run(QUIET);
        assert_eq!(self.sync_messages, before, "they go on though all is said");
        self.check_all();
    }
}
