//! When documents with changes that are not checked are to be told so.
//!
//! Each line is of whoever sent such changes last, and when many are due, the lines take turns: who
//! makes thousands of documents delays the checks of their own. What is known of a document that is
//! not in memory lies here, so that nothing else of it is kept until then.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reconverge::id::{ConnectionId, DocumentId};
use tokio::sync::Semaphore;

use super::Services;
use super::verifying::Verifying;

/// How many documents wait to be checked; one line may have as many as are free. Others are checked
/// when they are opened for something else, as after a restart.
const REMINDERS_MAX: usize = 64 * 1024;

/// Of how many of them that are not in memory it is known who sent what.
const RESTING_MAX: usize = 4 * 1024;

#[derive(Default)]
pub(crate) struct Reminders(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// None is empty.
    lines: HashMap<ConnectionId, VecDeque<(Instant, DocumentId)>>,
    len: usize,
    /// The lines of which nothing is due yet, by when their first document is.
    later: BTreeSet<(Instant, ConnectionId)>,
    /// The other lines.
    due: VecDeque<ConnectionId>,
    resting: HashMap<DocumentId, Verifying>,
}

impl fmt::Debug for Reminders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reminders").finish_non_exhaustive()
    }
}

impl Waiting {
    fn push(&mut self, owner: ConnectionId, at: Instant, id: DocumentId) -> bool {
        let free = REMINDERS_MAX - self.len;
        let line = self.lines.get(&owner).map_or(0, VecDeque::len);
        if line >= free {
            return false;
        }
        let line = self.lines.entry(owner).or_default();
        let before = line.front().map(|(first, _)| *first);
        let after = line.partition_point(|(due, _)| *due <= at);
        line.insert(after, (at, id));
        self.len += 1;
        match before {
            None => drop(self.later.insert((at, owner))),
            // It is among the lines that are due, or its place among the others changes.
            Some(first) if at < first && self.later.remove(&(first, owner)) => {
                self.later.insert((at, owner));
            }
            Some(_) => {}
        }
        true
    }

    fn next(&mut self, now: Instant) -> Result<DocumentId, Option<Instant>> {
        while let Some((at, owner)) = self.later.first().copied()
            && at <= now
        {
            self.later.pop_first();
            self.due.push_back(owner);
        }
        let Some(owner) = self.due.pop_front() else {
            return Err(self.later.first().map(|(at, _)| *at));
        };
        let line = self.lines.get_mut(&owner).expect("no line is empty");
        let (_, id) = line.pop_front().expect("no line is empty");
        self.len -= 1;
        match line.front() {
            None => drop(self.lines.remove(&owner)),
            Some((at, _)) if *at <= now => self.due.push_back(owner),
            Some((at, _)) => drop(self.later.insert((*at, owner))),
        }
        Ok(id)
    }
}

/// Tells documents when to check what is new. As many have a permit at a time as keep the workshop
/// busy; many may be due at once, and each is opened for it.
pub(crate) async fn remind(services: Arc<Services>) {
    let permits = Arc::new(Semaphore::new(services.workshop.jobs_at_a_time() + 1));
    let told = async || match services.reminders.next(Instant::now()) {
        // Nothing that comes meanwhile is due before.
        Err(wait) => tokio::time::sleep(wait.min(services.config.verify_lag)).await,
        Ok(id) => {
            let permit = permits.clone().acquire_owned().await;
            let permit = permit.expect("nobody closes it");
            services.slot(id).verify(permit);
        }
    };
    while services.lifetime.unless_stopping(told()).await.is_some() {}
}

impl Reminders {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a document reminded, if not too many are.
    pub(super) fn push(&self, owner: ConnectionId, at: Instant, id: DocumentId) -> bool {
        self.waiting().push(owner, at, id)
    }

    /// The next document that is due, or how long nothing is.
    pub(crate) fn next(&self, now: Instant) -> Result<DocumentId, Duration> {
        let next = self.waiting().next(now);
        next.map_err(|at| at.map_or(Duration::MAX, |at| at - now))
    }

    /// Keeps what is known of a document that leaves memory.
    pub(super) fn lay_down(&self, id: DocumentId, verifying: Verifying) {
        let resting = &mut self.waiting().resting;
        if resting.len() < RESTING_MAX {
            resting.insert(id, verifying);
        }
    }

    /// Gives it back.
    pub(super) fn take_up(&self, id: &DocumentId) -> Verifying {
        self.waiting().resting.remove(id).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn id(n: u32) -> DocumentId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        DocumentId::new(&id).expect("16 bytes")
    }

    #[test]
    fn lines_take_turns_and_each_is_in_the_order_in_which_its_documents_are_due() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        let (many, one) = (ConnectionId(1), ConnectionId(2));
        for (n, seconds) in [(1, 10), (2, 30), (3, 5), (4, 20)] {
            assert!(waiting.push(many, at(seconds), id(n)));
        }
        assert!(waiting.push(one, at(25), id(9)));
        assert_eq!(waiting.next(at(4)), Err(Some(at(5))));
        assert_eq!(waiting.next(at(5)), Ok(id(3)));
        assert_eq!(waiting.next(at(5)), Err(Some(at(10))));
        let order: Vec<_> = (0..4).map(|_| waiting.next(at(60))).collect();
        assert_eq!(order, [Ok(id(1)), Ok(id(9)), Ok(id(4)), Ok(id(2))]);
        assert_eq!(waiting.next(at(60)), Err(None));
        assert!(waiting.lines.is_empty() && waiting.len == 0);
        // One that comes for a line that is due, and is due before.
        for (n, seconds) in [(1, 10), (2, 11), (3, 1)] {
            assert!(waiting.push(many, at(seconds), id(n)));
            assert_eq!(waiting.next(at(0)), Err(Some(at(10).min(at(seconds)))));
        }
        assert_eq!(waiting.next(at(60)), Ok(id(3)));
        assert!(waiting.push(many, at(2), id(4)));
        let order: Vec<_> = (0..3).map(|_| waiting.next(at(60))).collect();
        assert_eq!(order, [Ok(id(4)), Ok(id(1)), Ok(id(2))]);
    }

    #[test]
    fn who_has_many_leaves_room_for_others() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let mut fill = |owner| {
            (0..)
                .take_while(|n| waiting.push(ConnectionId(owner), now + HOUR, id(*n)))
                .count()
        };
        assert_eq!(fill(1), REMINDERS_MAX / 2);
        assert_eq!(fill(2), REMINDERS_MAX / 4);
        assert_eq!(fill(1), 0);
        assert_eq!(fill(3), REMINDERS_MAX / 8);
    }
}
