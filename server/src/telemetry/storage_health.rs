//! What the operator hears of a storage that fails: a line when it begins to, one for each new
//! reason, and one when it works again, with the number of failures; not one for each of them. And
//! of what is damaged: one line for each document and part.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reconverge::storage::StorageError;
use tracing::{error, info};

use crate::lifetime::Lifetime;

/// It works again when something was committed and nothing has failed for so long: longer than
/// documents wait until they try again.
const QUIET: Duration = Duration::from_secs(5);

/// Most reasons that are told apart while it fails.
const REASONS_MAX: usize = 8;

/// Most damaged parts that are remembered as named; when there are more, all may be named again.
const DAMAGES_MAX: usize = 4096;

#[derive(Debug, Clone, Default)]
pub(crate) struct StorageHealth(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    state: Mutex<State>,
    /// Something was committed since the last failure.
    committed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    failing: Option<Failing>,
    damages: HashSet<String>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    times: u64,
    reasons: Vec<String>,
}

impl StorageHealth {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was committed.
    pub(crate) fn committed(&self) {
        let committed = &self.0.committed;
        if !committed.load(Ordering::Relaxed) {
            committed.store(true, Ordering::Relaxed);
        }
    }

    /// A document's turn ended in a failure of storage; it tries again.
    pub(crate) fn failed(&self, lifetime: &Lifetime, document: &str, error: &StorageError) {
        let reason = error.to_string();
        let mut state = self.state();
        if let StorageError::Damaged { what, .. } = error {
            if state.damages.len() >= DAMAGES_MAX {
                state.damages.clear();
            }
            if state.damages.insert(format!("{document} {what}")) {
                error!(
                    document,
                    damaged = what,
                    "stored bytes are not what was written"
                );
            }
            return;
        }
        self.0.committed.store(false, Ordering::Relaxed);
        let now = Instant::now();
        let begins = state.failing.is_none();
        let failing = state.failing.get_or_insert_with(|| Failing {
            since: now,
            last: now,
            times: 0,
            reasons: Vec::new(),
        });
        (failing.last, failing.times) = (now, failing.times + 1);
        if failing.reasons.len() < REASONS_MAX && !failing.reasons.contains(&reason) {
            error!(
                document,
                error = reason,
                "storage fails (is there room on the disk?); what is new waits and is tried again, \
                 and what is stored is served as far as it can be read"
            );
            failing.reasons.push(reason);
        }
        drop(state);
        if begins {
            let (health, lifetime) = (self.clone(), lifetime.clone());
            lifetime.clone().spawn(async move {
                let mut wait = QUIET;
                while lifetime.sleep(wait).await
                    && let Some(more) = health.until_works_again()
                {
                    wait = more;
                }
            });
        }
    }

    /// Says when it is over; until then, how long to wait before it is asked again.
    fn until_works_again(&self) -> Option<Duration> {
        let mut state = self.state();
        let failing = state.failing.as_ref()?;
        let quiet = failing.last.elapsed();
        if quiet >= QUIET && self.0.committed.load(Ordering::Relaxed) {
            let (failures, seconds) = (failing.times, failing.since.elapsed().as_secs());
            info!(failures, seconds, "storage works again");
            state.failing = None;
            return None;
        }
        Some(QUIET.saturating_sub(quiet).max(QUIET / 5))
    }
}
