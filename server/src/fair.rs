//! Work of which only so much is done at a time, shared fairly between those who cause it.
//!
//! Each owner has a line of its own. When there is room, the next turn goes to the owner who has used
//! the least time so far, and what a turn took is added to what its owner used. Somebody who comes
//! anew, or comes back, begins where the others are: nobody saves up time, and nobody is ahead by
//! opening another line. This is start-time fair queuing (Goyal, Vin and Cheng, 1996), with the time
//! that was measured in the place of an estimate.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use reconverge::id::ConnectionId;
use tokio::sync::oneshot;

/// Who causes work: a connection, or the relay itself.
pub(crate) type Owner = ConnectionId;

/// The owner of what nobody asked for.
pub(crate) const RELAY: Owner = ConnectionId(0);

/// A line of an owner that has used less is not kept beyond so many lines.
const LINES_MAX: usize = 1024;

/// Turns of which only so many are taken at a time.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    /// What the owner whose turn came last had used then, in microseconds.
    now: u64,
    lines: HashMap<Owner, Line>,
    /// The owners who wait, by what they have used.
    waiting: BTreeSet<(u64, Owner)>,
}

#[derive(Debug, Default)]
struct Line {
    used: u64,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn that was taken. Its owner is charged for the time until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    owner: Owner,
    begun: Instant,
}

impl Turns {
    /// So many may be taken at a time.
    pub(crate) fn new(at_a_time: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: at_a_time,
            now: 0,
            lines: HashMap::new(),
            waiting: BTreeSet::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    ///
    /// # Cancel safety
    /// Whoever waits no more is passed over.
    pub(crate) async fn take(&self, owner: Owner) -> Turn {
        let (grants, granted) = oneshot::channel();
        {
            let mut state = self.state();
            let now = state.now;
            let line = state.lines.entry(owner).or_default();
            if line.waiting.is_empty() {
                line.used = line.used.max(now);
                let entry = (line.used, owner);
                line.waiting.push_back(grants);
                state.waiting.insert(entry);
            } else {
                line.waiting.push_back(grants);
            }
        }
        self.grant();
        granted.await.expect("every line is kept until its end")
    }

    /// Gives free turns to those who wait.
    fn grant(&self) {
        loop {
            let mut state = self.state();
            if state.free == 0 {
                return;
            }
            let Some((used, owner)) = state.waiting.pop_first() else {
                return;
            };
            state.now = state.now.max(used);
            let line = state.lines.get_mut(&owner).expect("who waits has a line");
            let next = line.waiting.pop_front();
            if !line.waiting.is_empty() {
                let entry = (line.used, owner);
                state.waiting.insert(entry);
            }
            let Some(next) = next else { continue };
            state.free -= 1;
            drop(state);
            let turn = Turn {
                turns: self.clone(),
                owner,
                begun: Instant::now(),
            };
            // Whoever does not wait any more gives it back at once, by dropping it.
            drop(next.send(turn));
        }
    }

    /// A turn of this owner took so many microseconds.
    fn ended(&self, owner: Owner, took: u64) {
        let mut state = self.state();
        state.free += 1;
        state.charge(owner, took);
        if state.lines.len() > LINES_MAX {
            let now = state.now;
            // One that used no more than those whose turn it is begins where they are anyway.
            state
                .lines
                .retain(|_, line| !line.waiting.is_empty() || line.used > now);
        }
        drop(state);
        self.grant();
    }
}

impl State {
    fn charge(&mut self, owner: Owner, took: u64) {
        let Some(line) = self.lines.get_mut(&owner) else {
            return;
        };
        let before = line.used;
        line.used = before.max(self.now) + took;
        if !line.waiting.is_empty() {
            self.waiting.remove(&(before, owner));
            self.waiting.insert((line.used, owner));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let took = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.turns.ended(self.owner, took);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn owner(n: u64) -> Owner {
        ConnectionId(n)
    }

    /// Takes turns of owners who wait, each for so long, in the order in which they come.
    fn order(turns: &Turns, first: Turn, took: u64, waits: &[u64]) -> Vec<u64> {
        let mut waiting: Vec<_> = waits
            .iter()
            .map(|n| (*n, Box::pin(turns.take(owner(*n)))))
            .collect();
        for (_, turn) in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        let mut held = Some(first);
        let mut order = Vec::new();
        while !waiting.is_empty() {
            let turn = held.take().expect("somebody has a turn");
            turns.state().charge(turn.owner, took);
            drop(turn);
            let at = waiting.iter_mut().position(|(_, turn)| {
                held = turn.now_or_never();
                held.is_some()
            });
            order.push(waiting.remove(at.expect("one of them has its turn")).0);
        }
        order
    }

    #[tokio::test]
    async fn who_has_used_little_does_not_wait_behind_who_used_much() {
        let turns = Turns::new(1);
        let first = turns.take(owner(1)).await;
        let came = order(&turns, first, 1_000_000, &[1, 1, 1, 1, 2, 3, 3]);
        assert_eq!(came[..2], [2, 3]);
        // By then 1 and 3 have used as much.
        assert!(came[2..4].contains(&3), "{came:?}");
    }

    #[tokio::test]
    async fn who_waits_no_more_is_passed_over_and_lines_end() {
        let turns = Turns::new(2);
        let (a, b) = (turns.take(owner(1)).await, turns.take(owner(1)).await);
        let mut gone = Box::pin(turns.take(owner(2)));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        let mut stays = Box::pin(turns.take(owner(3)));
        assert!((&mut stays).now_or_never().is_none());
        drop(a);
        drop(stays.await);
        drop(b);
        assert_eq!(turns.state().free, 2);
        for n in 0..3 * LINES_MAX as u64 {
            drop(turns.take(owner(n)).await);
        }
        assert!(turns.state().lines.len() <= 2 * LINES_MAX);
    }
}
