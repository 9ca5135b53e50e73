//! Large messages on their way out, over all connections.
//!
//! What waits for one connection is bounded by its outbox, but one message may be as large as a
//! document, and thousands of peers may ask for one and read slowly. So large messages are counted
//! together. When there are too many, no further ones are made until some are written, and whoever
//! takes long over one meanwhile is closed; small ones, the live edits, go on. Documents that wait are
//! called a few at a time.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::wait_queue::{Host, WaitQueue, Waiter, invite};

/// Messages up to this size are not counted.
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// How many documents are called at a time.
const CALLED_MAX: usize = 8;

/// How long a connection may take over a large message while others wait to be sent one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whoever is sent a large message.
pub(crate) trait Reader: Debug + Send + Sync {
    /// It takes too long over it while others wait.
    fn is_too_slow(&self);
}

#[derive(Debug)]
pub(crate) struct LargeMessages {
    bytes_max: usize,
    /// Bytes of all permits. Beside the lock, because it is read before every message.
    bytes: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    sending: HashMap<u64, (Instant, Weak<dyn Reader>)>,
    waiting: WaitQueue,
    /// How many documents were called and had no turn yet.
    called: usize,
}

/// Counts a large message until it is dropped.
#[derive(Debug)]
pub(crate) struct SendPermit {
    messages: Arc<LargeMessages>,
    number: u64,
    bytes: usize,
}

impl LargeMessages {
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
    fn call(&self, state: &mut State) -> Vec<Arc<dyn Waiter>> {
        let mut called = Vec::new();
        while !self.is_full()
            && state.called < CALLED_MAX
            && let Some(waiter) = state.waiting.next()
        {
            state.called += 1;
            called.push(waiter);
        }
        called
    }

    /// Has `waiter` told when there is room.
    pub(crate) fn wait<W: Waiter + 'static>(self: &Arc<Self>, waiter: &Arc<W>) {
        let mut state = self.state();
        state.waiting.stand(waiter);
        // There may be by now.
        let called = self.call(&mut state);
        drop(state);
        invite(self, called);
    }

    /// Tells those who take too long, if others wait. Called every second or so.
    pub(crate) fn lose_patience(&self) {
        let state = self.state();
        if state.waiting.is_empty() {
            return;
        }
        let slow = |(since, reader): &(Instant, Weak<dyn Reader>)| {
            (since.elapsed() > PATIENCE).then(|| reader.upgrade())?
        };
        let slow: Vec<_> = state.sending.values().filter_map(slow).collect();
        drop(state);
        slow.iter().for_each(|reader| reader.is_too_slow());
    }

    /// A permit for a message of `bytes` bytes, if it is large.
    pub(crate) fn permit<R: Reader + 'static>(
        self: &Arc<Self>,
        bytes: usize,
        to: &Arc<R>,
    ) -> Option<SendPermit> {
        if bytes <= LARGE_BYTES {
            return None;
        }
        let to: Weak<R> = Arc::downgrade(to);
        let mut state = self.state();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        state.next += 1;
        let number = state.next;
        state.sending.insert(number, (Instant::now(), to));
        Some(SendPermit {
            messages: self.clone(),
            number,
            bytes,
        })
    }
}

impl Drop for SendPermit {
    fn drop(&mut self) {
        let mut state = self.messages.state();
        self.messages.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        state.sending.remove(&self.number);
        let called = self.messages.call(&mut state);
        drop(state);
        invite(&self.messages, called);
    }
}

impl Host for LargeMessages {
    fn turn_ended(self: Arc<Self>) {
        let mut state = self.state();
        state.called -= 1;
        let next = self.call(&mut state);
        drop(state);
        invite(&self, next);
    }
}
