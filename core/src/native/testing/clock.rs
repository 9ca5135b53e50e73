//! Virtual time stands still while the writer works.
//!
//! tokio's clock, when it is paused, goes on to the next timer as soon as nothing else is to be done in
//! the runtime. It waits for blocking tasks, but knows nothing of a thread like the writer's: a commit
//! that takes a moment would let all timers run ahead of it. So while something is to be committed there
//! is a blocking task, which does nothing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Counts what is under way.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Clock(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    under_way: Mutex<usize>,
    over: Condvar,
}

impl Counted {
    fn under_way(&self) -> MutexGuard<'_, usize> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// As long as it is there, virtual time does not go on.
#[derive(Debug)]
pub(in super::super) struct StandingStill(Arc<Counted>);

impl Clock {
    /// Time can only be virtual where tasks run on one thread; elsewhere nothing is held.
    pub(in super::super) fn stand_still(&self) -> Option<StandingStill> {
        let runtime = Handle::try_current().ok()?;
        if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread {
            return None;
        }
        let mut under_way = self.0.under_way();
        *under_way += 1;
        if *under_way == 1 {
            let counted = self.0.clone();
            runtime.spawn_blocking(move || {
                let over = counted
                    .over
                    .wait_while(counted.under_way(), |under_way| *under_way > 0);
                drop(over);
            });
        }
        Some(StandingStill(self.0.clone()))
    }
}

impl Drop for StandingStill {
    fn drop(&mut self) {
        let mut under_way = self.0.under_way();
        *under_way -= 1;
        if *under_way == 0 {
            self.0.over.notify_all();
        }
    }
}
