//! Aim: whatever hostile peers say, over however many connections and documents, and in whatever
//! order: what it costs and what is held for it is in proportion to what they sent, and nothing is
//! held that is not charged.
//!
//! Method: sessions at random against the machines of the core, as the relay runs them, and after
//! each frame their counts of steps and of bytes held beside what came and what is allocated.
//!
//! * `RECONVERGE_SESSIONS_SEED` repeats one session, as printed;
//! * `RECONVERGE_SESSIONS` says how many there are, counted from 0.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

#[path = "../counting.rs"]
mod counting;
mod material;
mod peer;
mod relay;

use std::panic::{AssertUnwindSafe, catch_unwind};

use peer::{Frame, Hostile, join};
use reconverge::id::{Access, ConnectionId, DocumentId};
use reconverge_tests::Random;
use relay::Relay;

/// How many sessions there are.
const SESSIONS: u64 = 5_000;

const CONNECTIONS: u64 = 4;
const DOCUMENTS: u64 = 3;

/// Most frames of a session.
const FRAMES_MAX: u64 = 120;

/// Steps for each byte that came, for each that this inflates to and for each operation that it
/// declares, and besides in all.
const STEPS_PER_BYTE: u64 = 10;
const STEPS_PER_OPERATION: u64 = 64;
const STEPS: u64 = 64 * 1024;

/// Bytes charged for each that came, and besides for each document and each peer of one.
const HELD_PER_BYTE: u64 = 24;
const HELD_PER_DOCUMENT: u64 = 4 * 1024;
const HELD_PER_PEER: u64 = 1024;

/// Bytes allocated beyond twice what is charged.
const UNCHARGED: isize = 16 * 1024;

fn document(n: u64) -> DocumentId {
    DocumentId::new(&[n as u8 + 1; 16]).unwrap()
}

/// What came of the sessions so far, at most.
#[derive(Debug, Default)]
struct Most {
    steps: f64,
    held: f64,
    uncharged: f64,
}

/// A session, and what it may cost.
struct Session {
    relay: Relay,
    random: Random,
    /// Who is connected, by name.
    connections: Vec<ConnectionId>,
    ids: u64,
    peers: u64,
    allowed: u64,
    sent: Vec<Frame>,
}

impl Session {
    fn new(seed: u64) -> Self {
        let mut session = Self {
            relay: Relay::new(),
            random: Random::new(seed),
            connections: Vec::new(),
            ids: 0,
            peers: 0,
            allowed: 0,
            sent: Vec::new(),
        };
        for n in 0..CONNECTIONS {
            session.connections.push(ConnectionId(0));
            session.join(n as usize);
        }
        session
    }

    fn name(n: usize) -> String {
        format!("peer-{n}")
    }

    fn join(&mut self, n: usize) {
        self.ids += 1;
        self.peers += DOCUMENTS;
        let id = ConnectionId(self.ids);
        let access = match self.random.below(6) {
            0 => Access::Read,
            _ => Access::Write,
        };
        self.connections[n] = id;
        self.relay.connect(id, access);
        self.relay.receive(id, &join(&Self::name(n)));
    }

    fn step(&mut self, most: &mut Most) {
        let n = self.random.below(CONNECTIONS) as usize;
        let id = self.connections[n];
        if !self.relay.is_connected(id) {
            self.join(n);
            return;
        }
        match self.random.below(32) {
            0 => self.relay.disconnect(id),
            1 => {
                let reads = self.random.below(2) == 0;
                self.relay.set_reads(id, reads);
            }
            2 => {
                let document = document(self.random.below(DOCUMENTS));
                self.relay.fold_and_reopen(&document);
            }
            // Again, perhaps in another's name.
            3 if !self.sent.is_empty() => {
                let at = self.random.below(self.sent.len() as u64) as usize;
                let frame = self.sent.swap_remove(at);
                self.send(id, frame);
            }
            4..8 => self.relay.slice(),
            _ => {
                let document = document(self.random.below(DOCUMENTS));
                let name = Self::name(n);
                let frame = Hostile {
                    random: &mut self.random,
                    name: &name,
                    document,
                };
                let frame = { frame }.frame();
                self.send(id, frame);
            }
        }
        self.check(most);
    }

    fn send(&mut self, id: ConnectionId, frame: Frame) {
        self.allowed += STEPS_PER_BYTE * (frame.bytes.len() as u64 + frame.inflated)
            + STEPS_PER_OPERATION * frame.operations;
        self.relay.receive(id, &frame.bytes);
        self.sent.push(frame);
    }

    fn check(&self, most: &mut Most) {
        let steps = self.relay.steps();
        let max = self.allowed + STEPS;
        most.steps = most.steps.max(steps as f64 / max as f64);
        assert!(steps <= max, "{steps} steps of {max}");
        let (held, live) = (self.relay.held(), self.relay.live());
        let max = HELD_PER_BYTE * self.relay.received
            + HELD_PER_DOCUMENT * self.relay.documents_len() as u64
            + HELD_PER_PEER * self.peers;
        most.held = most.held.max(held as f64 / max as f64);
        let received = self.relay.received;
        assert!(
            held as u64 <= max,
            "{held} bytes held of {max}, {received} received"
        );
        for connection in &self.connections {
            assert!(self.relay.held_for(*connection) <= held);
        }
        let max = 2 * held.cast_signed() + UNCHARGED;
        most.uncharged = most.uncharged.max(live as f64 / max as f64);
        assert!(live <= max, "{live} bytes allocated of {max}");
    }
}

/// One session from its beginning to its end.
fn run(seed: u64, most: &mut Most) {
    let mut session = Session::new(seed);
    let frames = 1 + session.random.below(FRAMES_MAX);
    for _ in 0..frames {
        session.step(most);
    }
    while session.relay.is_busy() {
        session.relay.slice();
        session.check(most);
    }
    for n in 0..CONNECTIONS as usize {
        session.relay.disconnect(session.connections[n]);
    }
    session.check(most);
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The first seed of a session that goes wrong.
fn first_failure(seeds: std::ops::Range<u64>, most: &mut Most) -> Option<u64> {
    let mut seeds = seeds;
    seeds.find(|seed| catch_unwind(AssertUnwindSafe(|| run(*seed, most))).is_err())
}

#[test]
fn what_hostile_sessions_cost_is_in_proportion_to_what_they_send() {
    let one = from_environment("RECONVERGE_SESSIONS_SEED");
    let sessions = from_environment("RECONVERGE_SESSIONS").unwrap_or(SESSIONS);
    let seeds = one.map_or(0..sessions, |seed| seed..seed + 1);
    let mut most = Most::default();
    if let Some(seed) = first_failure(seeds, &mut most) {
        panic!(
            "repeat with RECONVERGE_SESSIONS_SEED={seed} \
             cargo test --release -p reconverge-tests --test hostile_sessions"
        );
    }
    println!("of what is allowed, at most: {most:.2?}");
}

/// With each of these mistakes built in, the sessions above find it.
#[cfg(feature = "planted")]
#[test]
fn every_planted_cost_is_caught() {
    use reconverge::planted::{Bug, plant};
    for bug in [Bug::NamesCompared, Bug::UnchargedBuffer] {
        plant(Some(bug));
        let caught = first_failure(0..SESSIONS, &mut Most::default());
        plant(None);
        println!("{bug:?}: caught by seed {caught:?}");
        assert!(caught.is_some(), "{bug:?} is not caught");
    }
}
