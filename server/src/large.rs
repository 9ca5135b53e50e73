//! Large messages on their way out, over all connections.
//!
//! What waits for one connection is bounded by its outbox, but one message may be as large as a
//! document, and thousands of peers may ask for one and read slowly. So large messages are counted
//! together. When there are too many, no further ones are made until some are written, and whoever
//! takes long over one meanwhile is closed; small ones, the live edits, go on.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::connection::Connection;
use crate::document::Slot;
use crate::line::Line;

/// Messages up to this size are not counted.
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// How long a connection may take over a large message while others wait to be sent one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

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

    /// Has `slot` told when there is room, and closes those who take too long.
    pub(crate) fn wait(&self, slot: &Arc<Slot>) {
        let mut state = self.state();
        state.waiting.stand(slot);
        let slow = |(since, connection): &(Instant, Weak<Connection>)| {
            (since.elapsed() > PATIENCE).then(|| connection.upgrade())?
        };
        let slow: Vec<_> = state.sending.values().filter_map(slow).collect();
        drop(state);
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
        let before = self.large.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        state.sending.remove(&self.number);
        let room = before - self.bytes < self.large.bytes_max;
        let waiting = match room {
            true => state.waiting.all(),
            false => VecDeque::new(),
        };
        drop(state);
        waiting.iter().for_each(Slot::look_again);
    }
}
