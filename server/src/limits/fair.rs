//! Work of which only so much is done at a time, shared fairly between those who cause it.
//!
//! Each owner has a line of its own. When there is room, the next turn goes to the owner who has used
//! the least time so far, and what a turn took is added to what its owner used. Somebody who comes
//! anew, or comes back, begins where the others are: nobody saves up time. Where they are is what each
//! would have used if all had worked at once (weighted fair queuing's virtual time; Demers, Keshav and
//! Shenker, 1989), so that an endless row of newcomers does not pass by those who wait.
//!
//! Two things move an owner back in the order without being charged to it: what its next turn will
//! probably take, so that cheap work does not wait behind dear work, and being new, so that whoever
//! comes back under another connection for each piece of work is behind those who stay.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reconverge::id::ConnectionId;
use tokio::sync::oneshot;

/// Who causes work: a connection, or the relay itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) id: ConnectionId,
    /// When it connected.
    pub(crate) since: Option<Instant>,
}

/// The owner of what nobody asked for.
pub(crate) const RELAY: Owner = Owner {
    id: ConnectionId(0),
    since: None,
};

/// How far behind a connection is that was opened this moment; it is less with each second, and
/// nothing after [`NEW`].
const NEW_BEHIND: Duration = Duration::from_secs(1);
const NEW: Duration = Duration::from_secs(60);

impl Owner {
    fn behind(&self) -> Duration {
        let new = self
            .since
            .map_or(Duration::ZERO, |since| NEW.saturating_sub(since.elapsed()));
        NEW_BEHIND.mul_f64(new.div_duration_f64(NEW))
    }
}

/// A line of an owner that has used less is not kept beyond so many lines, or twice those that must be.
const LINES_MAX: usize = 1024;

/// Turns of which only so many are taken at a time.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    taken: usize,
    /// Where those begin who come anew, in microseconds.
    now: u64,
    lines: HashMap<ConnectionId, OwnerQueue>,
    /// When there are more, it is looked for some that need not be kept.
    lines_max: usize,
    /// The owners who wait, in their order.
    waiting: BTreeSet<(u64, ConnectionId)>,
}

#[derive(Debug, Default)]
struct OwnerQueue {
    used: u64,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    grants: oneshot::Sender<Turn>,
    /// How far back this turn is, in microseconds.
    behind: u64,
}

impl OwnerQueue {
    /// Where its first turn stands among all.
    fn place(&self) -> u64 {
        let behind = self.waiting.front().map_or(0, |first| first.behind);
        self.used.saturating_add(behind)
    }
}

/// A turn that was taken. Its owner is charged for the time until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    owner: ConnectionId,
    begun: Instant,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Turns {
    /// So many may be taken at a time.
    pub(crate) fn new(at_a_time: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: at_a_time,
            taken: 0,
            now: 0,
            lines: HashMap::new(),
            lines_max: LINES_MAX,
            waiting: BTreeSet::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn that will probably take so long; zero, if nothing is known.
    ///
    /// # Cancel safety
    /// Whoever waits no more is passed over.
    pub(crate) async fn take(&self, owner: Owner, cost: Duration) -> Turn {
        let (grants, granted) = oneshot::channel();
        {
            let behind = micros(owner.behind().saturating_add(cost));
            let mut state = self.state();
            let now = state.now;
            let line = state.lines.entry(owner.id).or_default();
            let was_empty = line.waiting.is_empty();
            line.waiting.push_back(Waiting { grants, behind });
            if was_empty {
                line.used = line.used.max(now);
                let entry = (line.place(), owner.id);
                state.waiting.insert(entry);
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
            let Some((_, owner)) = state.waiting.pop_first() else {
                return;
            };
            let line = state.lines.get_mut(&owner).expect("who waits has a line");
            let next = line.waiting.pop_front();
            if !line.waiting.is_empty() {
                let entry = (line.place(), owner);
                state.waiting.insert(entry);
            }
            let Some(next) = next else { continue };
            (state.free, state.taken) = (state.free - 1, state.taken + 1);
            drop(state);
            let turn = Turn {
                turns: self.clone(),
                owner,
                begun: Instant::now(),
            };
            // Whoever does not wait any more gives it back at once, by dropping it.
            drop(next.grants.send(turn));
        }
    }

    /// A turn of this owner took so many microseconds.
    fn ended(&self, owner: ConnectionId, took: u64) {
        let mut state = self.state();
        state.charge(owner, took);
        (state.free, state.taken) = (state.free + 1, state.taken - 1);
        if state.lines.len() > state.lines_max {
            let now = state.now;
            // One that used no more than those whose turn it is begins where they are anyway.
            state
                .lines
                .retain(|_, line| !line.waiting.is_empty() || line.used > now);
            // Not again for each turn, where very many wait.
            state.lines_max = LINES_MAX.max(2 * state.lines.len());
        }
        drop(state);
        self.grant();
    }
}

impl State {
    fn charge(&mut self, owner: ConnectionId, took: u64) {
        let working = self.waiting.len().max(self.taken).max(1);
        self.now += took / working as u64;
        let Some(line) = self.lines.get_mut(&owner) else {
            return;
        };
        let before = line.place();
        line.used += took;
        if !line.waiting.is_empty() {
            self.waiting.remove(&(before, owner));
            self.waiting.insert((line.place(), owner));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.ended(self.owner, micros(self.begun.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn owner(n: u64) -> Owner {
        Owner {
            id: ConnectionId(n),
            since: None,
        }
    }

    async fn take(turns: &Turns, n: u64) -> Turn {
        turns.take(owner(n), Duration::ZERO).await
    }

    fn take_long(turns: &Turns, turn: &Turn) {
        turns.state().charge(turn.owner, 1_000_000);
    }

    /// Takes turns of owners who wait, each for so long, in the order in which they come.
    fn order(turns: &Turns, first: Turn, took: u64, waits: &[u64]) -> Vec<u64> {
        let mut waiting: Vec<_> = waits
            .iter()
            .map(|n| (*n, Box::pin(take(turns, *n))))
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
        let first = take(&turns, 1).await;
        let came = order(&turns, first, 1_000_000, &[1, 1, 1, 1, 2, 3, 3]);
        assert_eq!(came[..2], [2, 3]);
        // By then 1 and 3 have used as much.
        assert!(came[2..4].contains(&3), "{came:?}");
    }

    #[tokio::test]
    async fn an_endless_row_of_newcomers_does_not_pass_by_who_waits() {
        let turns = Turns::new(1);
        let mut held = take(&turns, 1).await;
        take_long(&turns, &held);
        let mut waits = Box::pin(take(&turns, 1));
        assert!((&mut waits).now_or_never().is_none());
        for newcomer in 2..12 {
            let mut new = Box::pin(take(&turns, newcomer));
            assert!((&mut new).now_or_never().is_none());
            take_long(&turns, &held);
            drop(held);
            if (&mut waits).now_or_never().is_some() {
                return;
            }
            held = new.now_or_never().expect("one of both has the turn");
        }
        panic!("it waits still");
    }

    #[tokio::test]
    async fn what_is_cheap_is_before_what_is_dear_and_who_stays_before_who_is_new() {
        let turns = Turns::new(1);
        let held = take(&turns, 1).await;
        let new = Owner {
            since: Some(Instant::now()),
            ..owner(2)
        };
        let mut waiting = [
            (2, Box::pin(turns.take(new, Duration::ZERO))),
            (3, Box::pin(turns.take(owner(3), NEW_BEHIND / 2))),
            (4, Box::pin(turns.take(owner(4), NEW_BEHIND / 4))),
        ];
        for (_, turn) in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        drop(held);
        let order: Vec<u64> = (0..3)
            .map(|_| {
                let came = waiting.iter_mut().find_map(|(n, turn)| {
                    // The turn ends at once.
                    turn.now_or_never().map(|_turn| *n)
                });
                came.expect("one of them has its turn")
            })
            .collect();
        assert_eq!(order, [4, 3, 2]);
    }

    #[tokio::test]
    async fn who_waits_no_more_is_passed_over_and_lines_end() {
        let turns = Turns::new(2);
        let (a, b) = (take(&turns, 1).await, take(&turns, 1).await);
        let mut gone = Box::pin(take(&turns, 2));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        let mut stays = Box::pin(take(&turns, 3));
        assert!((&mut stays).now_or_never().is_none());
        drop(a);
        drop(stays.await);
        drop(b);
        assert_eq!(turns.state().free, 2);
        for n in 0..3 * LINES_MAX as u64 {
            drop(take(&turns, n).await);
        }
        assert!(turns.state().lines.len() <= 2 * LINES_MAX);
    }
}
