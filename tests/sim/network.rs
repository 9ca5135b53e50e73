//! Wires between clients and relays: in order and without loss while they live. A wire can be dead
//! in one direction or both, and then whoever waits at its end learns so only by a deadline.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use automerge::ChangeHash;
use bytes::Bytes;
use reconverge::id::{ConnectionId, DocumentId};

/// A connection's name on the relay's side, and in the simulation.
pub(crate) type WireId = u64;

/// Most frames that a wire takes on before the relay has to wait.
pub(crate) const WINDOW_MAX: usize = 4;

/// Who is at the client's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// A client by its place, in one of its lives, and the engine's name of the connection.
    Client(usize, u64, ConnectionId),
    Hostile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

#[derive(Debug, Default)]
pub(crate) struct Way {
    pub(crate) frames: VecDeque<Bytes>,
    /// What is sent does not arrive.
    pub(crate) dead: bool,
    /// When the last frame that is on its way arrives.
    pub(crate) busy_until: Duration,
}

#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) party: Party,
    pub(crate) relay: usize,
    /// Whether each side believes in it.
    pub(crate) client_open: bool,
    pub(crate) relay_open: bool,
    pub(crate) up: Way,
    pub(crate) down: Way,
    /// How long the client's machine takes to send a frame, and to read one.
    pub(crate) frame_takes: Duration,
    pub(crate) reading_takes: Duration,
    /// Frames that it takes on before the relay has to wait.
    pub(crate) window: usize,
    /// When the client's last frame leaves its machine.
    pub(crate) leaving_until: Duration,
    /// Frames that left the engine and were not reported as sent.
    pub(crate) unsent: usize,
    /// What the relay sent on it.
    pub(crate) given: HashMap<DocumentId, HashSet<ChangeHash>>,
    /// The heads that the relay named on it last.
    pub(crate) told: HashMap<DocumentId, Vec<ChangeHash>>,
    /// What the relay received on it.
    pub(crate) taken: HashMap<DocumentId, HashSet<ChangeHash>>,
    /// The heads that the client named on it.
    pub(crate) named: HashMap<DocumentId, HashSet<ChangeHash>>,
}

impl Wire {
    pub(crate) fn new(party: Party, relay: usize) -> Self {
        Self {
            party,
            relay,
            client_open: true,
            relay_open: false,
            up: Way::default(),
            down: Way::default(),
            frame_takes: Duration::ZERO,
            reading_takes: Duration::ZERO,
            window: WINDOW_MAX,
            leaving_until: Duration::ZERO,
            unsent: 0,
            given: HashMap::new(),
            told: HashMap::new(),
            taken: HashMap::new(),
            named: HashMap::new(),
        }
    }

    pub(crate) fn way(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}
