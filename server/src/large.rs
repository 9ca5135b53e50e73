//! Large messages on their way out, over all connections.
//!
//! What waits for one connection is bounded by its outbox, but one message may be as large as a
//! document, and thousands of peers may ask for one and read slowly. So large messages are counted
//! together. When there are too many, no further ones are made until some are written, and whoever
//! takes long over one meanwhile is closed; small ones, the live edits, go on. Documents that wait are
//! called a few at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::connection::Connection;
use crate::document::Slot;
use crate::line::{self, Calls, Line};

/// Messages up to this size are not counted.
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// How many documents are called at a time.
const CALLED_MAX: usize = 8;

/// How long a connection may take over a large message while others wait to be sent one.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Large {
    bytes_max: usize,
    /// Bytes of all places. Beside the lock, because it is read before every message.
    bytes: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    sending: HashMap<u64, (Instant, Weak<Connection>)>,
    waiting: Line,
    /// How many documents were called and had no turn yet.
    called: usize,
}

/// A large message's place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    large: Arc<Large>,
    number: u64,
    bytes: usize,
}

impl Large {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another large message must wait.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.bytes_max
    }

    /// The documents that are to be told that there is room.
    fn call(&self, state: &mut State) -> Vec<Arc<Slot>> {
        let mut called = Vec::new();
        while !self.is_full()
            && state.called < CALLED_MAX
            && let Some(slot) = state.waiting.next()
        {
            state.called += 1;
            called.push(slot);
        }
        called
    }

    /// Has `slot` told when there is room.
    pub(crate) fn wait(self: &Arc<Self>, slot: &Arc<Slot>) {
        let mut state = self.state();
        state.waiting.stand(slot);
        // There may be by now.
        let called = self.call(&mut state);
        drop(state);
        line::call(self, called);
    }

    /// Closes those who take too long, if others wait. Called every second or so.
    pub(crate) fn lose_patience(&self) {
        let state = self.state();
        if state.waiting.is_empty() {
            return;
        }
        let slow = |(since, connection): &(Instant, Weak<Connection>)| {
            (since.elapsed() > PATIENCE).then(|| connection.upgrade())?
        };
        let slow: Vec<_> = state.sending.values().filter_map(slow).collect();
        drop(state);
        // One may have several.
        let slow = slow.iter().filter(|slow| !slow.outbox.is_closing());
        for connection in slow {
            warn!(peer = %connection.peer, "closed: reads a large message slowly while others wait");
            connection.outbox.close(1013, "too slow while others wait");
        }
    }

    /// A place for a message of `bytes` bytes, if it is large.
    pub(crate) fn place(self: &Arc<Self>, bytes: usize, to: &Arc<Connection>) -> Option<Place> {
        if bytes <= LARGE_BYTES {
            return None;
        }
        let mut state = self.state();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        state.next += 1;
        let number = state.next;
        let sending = (Instant::now(), Arc::downgrade(to));
        state.sending.insert(number, sending);
        Some(Place {
            large: self.clone(),
            number,
            bytes,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.large.state();
        self.large.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        state.sending.remove(&self.number);
        let called = self.large.call(&mut state);
        drop(state);
        line::call(&self.large, called);
    }
}

impl Calls for Large {
    fn had_its_turn(self: Arc<Self>) {
        let mut state = self.state();
        state.called -= 1;
        let next = self.call(&mut state);
        drop(state);
        line::call(&self, next);
    }
}
