//! One account of the memory that is held for peers: what was received of them and is not taken in
//! yet, what they asked for, what waits to be written to them.
//!
//! Whoever holds bytes for a connection holds a [`Charge`], which gives them back at its end. A
//! connection may read more as long as it holds no more than three times what is free (Choudhury and
//! Hahne's dynamic threshold, 1998): a single one may hold three quarters of all, two hogs three
//! sevenths each, and there is always a third free of what the largest of them holds. So nobody has to
//! be looked for when memory gets short, and who holds little goes on. When somebody has waited for
//! [`PATIENCE`], the connection that held most for longest is closed; if many held about as much, an
//! eighth of them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Context;
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use reconverge::id::ConnectionId;

/// What every connection may hold, however little is free: a small edit always passes.
pub(crate) const SMALL_BYTES: usize = 4 * 1024;

/// How many times what is free a connection may hold. More would leave less to others; less would not
/// let a single one send the largest message.
const SHARE: usize = 3;

/// How long a connection may wait for room while it holds more than is free.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// All that is held.
#[derive(Debug)]
pub(crate) struct Memory {
    bytes_max: usize,
    bytes: AtomicUsize,
    /// Whether anybody waits; beside the lock, because it is looked at whenever bytes are given back.
    is_waited_for: AtomicBool,
    state: Mutex<State>,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    holders: HashMap<ConnectionId, Weak<Holder>>,
    /// The connections that wait for room.
    waiting: HashSet<ConnectionId>,
}

/// What is held for one connection.
#[derive(Debug)]
pub(crate) struct Holder {
    id: ConnectionId,
    memory: Arc<Memory>,
    bytes: AtomicUsize,
    /// Since when it holds more than a little, in milliseconds since the account was opened.
    much_since: AtomicU64,
    /// Since when it takes in nothing whole because it must wait for room again and again, in the same
    /// milliseconds; 0 if it need not.
    held_up_since: AtomicU64,
    /// It holds too much for too long, and is to be closed.
    is_evicted: AtomicBool,
    task: AtomicWaker,
}

/// Bytes that are held for a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    holder: Arc<Holder>,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: AtomicUsize::new(0),
            is_waited_for: AtomicBool::new(false),
            state: Mutex::default(),
            started: Instant::now(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn free(&self) -> usize {
        self.bytes_max
            .saturating_sub(self.bytes.load(Ordering::SeqCst))
    }

    fn since_started(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// A connection, which holds nothing yet.
    pub(crate) fn holder(self: &Arc<Self>, id: ConnectionId) -> Arc<Holder> {
        let holder = Arc::new(Holder {
            id,
            memory: self.clone(),
            bytes: AtomicUsize::new(0),
            much_since: AtomicU64::new(0),
            held_up_since: AtomicU64::new(0),
            is_evicted: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        let weak = Arc::downgrade(&holder);
        self.state().holders.insert(id, weak);
        holder
    }

    /// Wakes all that wait; those for whom there is still no room wait on.
    fn wake(&self) {
        let state = self.state();
        let waiting = state.waiting.iter();
        let holders: Vec<_> = waiting
            .filter_map(|id| state.holders.get(id)?.upgrade())
            .collect();
        drop(state);
        holders.iter().for_each(|holder| holder.task.wake());
    }

    /// Has the one closed who held most for longest, if somebody has waited for too long, or an eighth
    /// of those who come next to it. Called every second or so: what they give back may suffice for the
    /// others.
    pub(crate) fn lose_patience(&self, now: Instant) {
        let state = self.state();
        if state.waiting.is_empty() {
            return;
        }
        let now = self.since_started(now);
        let waits = |id| {
            let since = state.holders.get(id).and_then(Weak::upgrade);
            let since = since.map_or(now, |holder| holder.held_up_since.load(Ordering::Relaxed));
            now.saturating_sub(since) > PATIENCE.as_millis() as u64
        };
        let holders: Vec<_> = match state.waiting.iter().any(waits) {
            true => state.holders.values().filter_map(Weak::upgrade).collect(),
            false => Vec::new(),
        };
        drop(state);
        let held_most = |holder: &Arc<Holder>| {
            let held_for = now.saturating_sub(holder.much_since.load(Ordering::Relaxed));
            holder.bytes() as u128 * u128::from(held_for)
        };
        let mut holders: Vec<_> = holders
            .iter()
            .map(|holder| (held_most(holder), holder))
            .collect();
        let most = holders.iter().map(|(held, _)| *held).max().unwrap_or(0);
        holders.retain(|(held, _)| *held >= most / 2);
        holders.sort_unstable_by_key(|(held, _)| std::cmp::Reverse(*held));
        for (_, holder) in &holders[..holders.len().div_ceil(8)] {
            holder.is_evicted.store(true, Ordering::SeqCst);
            holder.task.wake();
        }
    }
}

impl Holder {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Holds so many bytes more.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let mut charge = Charge {
            holder: self.clone(),
            bytes: 0,
        };
        charge.resize(bytes);
        charge
    }

    /// Whether it may hold more.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes() <= SMALL_BYTES || self.has_room_for(0)
    }

    /// Whether it may hold so many bytes more.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let free = self.memory.free().saturating_sub(bytes);
        self.bytes() + bytes <= free.saturating_mul(SHARE)
    }

    /// Has the caller woken when the connection may read again, or is to be closed.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.task.register(cx.waker());
    }

    /// Whether it is to be closed.
    pub(crate) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Relaxed)
    }

    /// Whether it may take in more; if not, whoever is [registered](Self::register) is woken when
    /// that may have changed.
    pub(crate) fn may_read(&self) -> bool {
        if self.has_room() {
            if self.memory.is_waited_for.load(Ordering::Relaxed) {
                self.waits_no_more();
            }
            return true;
        }
        let now = self.memory.since_started(Instant::now()).max(1);
        let _ = self
            .held_up_since
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        let mut state = self.memory.state();
        state.waiting.insert(self.id);
        self.memory.is_waited_for.store(true, Ordering::SeqCst);
        drop(state);
        // Room that came before it stood there would wake nobody.
        let has_room = self.has_room();
        if has_room {
            self.waits_no_more();
        }
        has_room
    }

    /// It took in something whole.
    pub(crate) fn goes_on(&self) {
        if self.held_up_since.load(Ordering::Relaxed) > 0 {
            self.held_up_since.store(0, Ordering::Relaxed);
        }
    }

    fn waits_no_more(&self) {
        let mut state = self.memory.state();
        state.waiting.remove(&self.id);
        self.memory
            .is_waited_for
            .store(!state.waiting.is_empty(), Ordering::SeqCst);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.waits_no_more();
        self.memory.state().holders.remove(&self.id);
    }
}

impl Charge {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn holder(&self) -> &Arc<Holder> {
        &self.holder
    }

    /// Holds so many bytes instead.
    pub(crate) fn resize(&mut self, bytes: usize) {
        let memory = &self.holder.memory;
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let before = self.holder.bytes.fetch_add(more, Ordering::SeqCst);
            if before <= SMALL_BYTES && before + more > SMALL_BYTES {
                let now = memory.since_started(Instant::now());
                self.holder.much_since.store(now, Ordering::Relaxed);
            }
            memory.bytes.fetch_add(more, Ordering::SeqCst);
        } else if bytes < self.bytes {
            let less = self.bytes - bytes;
            self.holder.bytes.fetch_sub(less, Ordering::SeqCst);
            memory.bytes.fetch_sub(less, Ordering::SeqCst);
            if memory.is_waited_for.load(Ordering::SeqCst) {
                memory.wake();
            }
        }
        self.bytes = bytes;
    }

    /// Gives it to another holder of bytes of the same connection.
    pub(crate) fn take(&mut self) -> Self {
        Self {
            holder: self.holder.clone(),
            bytes: std::mem::take(&mut self.bytes),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<Memory> {
        Arc::new(Memory::new(1_000_000))
    }

    /// Holds as much as it may, in small steps.
    fn fill(charges: &mut [Charge]) {
        while charges.iter().any(|charge| charge.holder.may_read()) {
            for charge in charges.iter_mut() {
                if charge.holder.may_read() {
                    charge.resize(charge.bytes() + 1_000);
                }
            }
        }
    }

    #[test]
    fn hogs_leave_a_third_of_what_each_of_them_holds_and_their_end_gives_it_back() {
        let memory = memory();
        for hogs in [1, 4, 9] {
            let holders = (1..=hogs).map(|n| memory.holder(ConnectionId(n)));
            let mut charges: Vec<Charge> = holders.map(|holder| holder.charge(0)).collect();
            fill(&mut charges);
            let share = 1_000_000 * SHARE / (SHARE * hogs as usize + 1);
            for charge in &charges {
                assert!(charge.bytes().abs_diff(share) <= 10_000, "{hogs}");
            }
            assert!(memory.free().abs_diff(share / SHARE) <= 10_000, "{hogs}");
            // Somebody else goes on.
            let other = memory.holder(ConnectionId(100));
            let mut some = other.charge(share / SHARE / 2);
            assert!(other.may_read());
            some.resize(share);
            assert!(!other.may_read());
            drop((some, other, charges));
            assert_eq!(memory.free(), 1_000_000);
            let state = memory.state();
            assert!(state.waiting.is_empty() && state.holders.is_empty());
        }
    }

    #[test]
    fn who_holds_little_always_goes_on() {
        let memory = memory();
        let hog = memory.holder(ConnectionId(1));
        let _all = hog.charge(2_000_000);
        let other = memory.holder(ConnectionId(2));
        let _little = other.charge(SMALL_BYTES);
        assert!(other.may_read() && !hog.may_read());
    }

    #[test]
    fn whoever_held_most_for_longest_is_closed_when_others_wait_for_too_long() {
        let memory = memory();
        let holders: Vec<_> = (1..=3).map(|n| memory.holder(ConnectionId(n))).collect();
        // This one has not sent the rest of a message, and waits for nothing.
        let hog = holders[0].charge(450_000);
        let more = holders[1].charge(440_000);
        let evicted = |n: usize| holders[n].is_evicted();
        memory.lose_patience(Instant::now() + 2 * PATIENCE);
        assert!(!evicted(0), "nobody waits");
        assert!(!holders[1].may_read());
        memory.lose_patience(Instant::now() + PATIENCE / 2);
        assert!(!evicted(0), "nobody waited for long");
        holders[0].much_since.store(0, Ordering::Relaxed);
        holders[1].much_since.store(9_000, Ordering::Relaxed);
        memory.lose_patience(Instant::now() + 2 * PATIENCE);
        assert!(evicted(0) && !evicted(1) && !evicted(2));
        drop(hog);
        assert!(holders[1].may_read());
        drop(more);
    }

    #[test]
    fn of_many_who_hold_as_much_an_eighth_is_closed_at_a_time() {
        let memory = memory();
        let holders: Vec<_> = (0..80).map(|n| memory.holder(ConnectionId(n))).collect();
        let _held: Vec<_> = holders.iter().map(|holder| holder.charge(12_400)).collect();
        let waits = memory.holder(ConnectionId(100));
        let _some = waits.charge(5_000);
        waits.much_since.store(9_999, Ordering::Relaxed);
        assert!(!holders[0].may_read());
        memory.lose_patience(Instant::now() + 2 * PATIENCE);
        let closed = holders.iter().filter(|holder| holder.is_evicted()).count();
        assert_eq!((closed, waits.is_evicted()), (10, false));
    }
}
