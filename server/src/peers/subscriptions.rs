//! The storages of whose heads a peer wants to be told.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reconverge::protocol::limits::SUBSCRIPTIONS_MAX;

use crate::limits::memory::{Charge, Holder};

#[derive(Debug)]
pub(crate) struct Subscriptions {
    /// Whether there is any. Beside the lock, because it is asked for every peer of a document.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    storages: HashSet<String>,
    charge: Charge,
    /// Those that it was not told of yet, while it is being told of some.
    replaying: Option<HashSet<String>>,
}

impl Subscriptions {
    pub(super) fn new(holder: &Arc<Holder>) -> Self {
        Self {
            any: AtomicBool::new(false),
            state: Mutex::new(State {
                storages: HashSet::new(),
                charge: holder.charge(0),
                replaying: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn contains(&self, storage: &str) -> bool {
        self.any.load(Ordering::Relaxed) && self.state().storages.contains(storage)
    }

    /// Adds and removes some; those that are new.
    pub(crate) fn update(&self, add: &[&str], remove: &[&str]) -> Vec<String> {
        let mut state = self.state();
        let State {
            storages, charge, ..
        } = &mut *state;
        for storage in remove {
            storages.remove(*storage);
        }
        let room = SUBSCRIPTIONS_MAX.saturating_sub(storages.len());
        let new: HashSet<&str> = add
            .iter()
            .copied()
            .filter(|storage| !storages.contains(*storage))
            .take(room)
            .collect();
        storages.extend(new.iter().map(ToString::to_string));
        self.any.store(!storages.is_empty(), Ordering::Relaxed);
        let ids: usize = storages.iter().map(String::len).sum();
        charge.resize(ids + storages.capacity() * 2 * size_of::<String>());
        new.into_iter().map(ToOwned::to_owned).collect()
    }

    /// The peer is to be told what these were last seen with. Whether the caller must begin to do so;
    /// if not, somebody is at it already, and does these in the next round.
    pub(crate) fn replay(&self, added: Vec<String>) -> bool {
        let mut state = self.state();
        let State {
            storages,
            replaying,
            ..
        } = &mut *state;
        let begins = replaying.is_none();
        let pending = replaying.get_or_insert_default();
        pending.extend(added);
        if pending.len() > SUBSCRIPTIONS_MAX {
            // It has taken some back, of which it need not be told.
            pending.retain(|storage| storages.contains(storage));
        }
        begins
    }

    /// What is to be told next; `None` if nothing is, and then nobody does it any more.
    pub(crate) fn next_replay(&self) -> Option<Arc<[String]>> {
        let replaying = &mut self.state().replaying;
        let storages = std::mem::take(replaying.as_mut()?);
        if storages.is_empty() {
            *replaying = None;
            return None;
        }
        Some(storages.into_iter().collect())
    }
}
