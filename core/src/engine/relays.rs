//! Relays that come and go while the engine runs: in a browser, each tab names some.

use std::sync::Arc;
use std::time::Duration;

use super::fault::{Fault, FaultKind, RelayState};
use super::link::{Relay, State};
use super::{Engine, RelayId};

/// How often a relay is tried for which somebody waits.
pub const HURRY_AFTER: Duration = Duration::from_secs(1);

impl Engine {
    /// From now on these are the relays, by their names, no name twice: first those that are `wanted`,
    /// then those that are `away`. What changes is known by the storage before:
    /// [`Storage::name_relays`](crate::storage::Storage::name_relays). The shell has done all that
    /// there was to be done before, as the places of relays change.
    ///
    /// Nobody wants a connection to a relay that is away, and nobody waits for it. The outbox speaks
    /// for it all the same, so that it costs nothing when it is wanted again.
    pub fn name_relays(&mut self, now: Duration, wanted: Vec<Arc<str>>, away: Vec<Arc<str>>) {
        self.now = self.now.max(now);
        let wanted_len = wanted.len();
        for at in 0..self.relays.len() {
            if !wanted.contains(&self.relays[at].name) {
                self.give_up(RelayId(at), FaultKind::Untried, "it is not wanted now");
                self.relays[at].state = State::Away;
            }
        }
        let (mut relays, mut places) = (Vec::new(), Vec::new());
        for name in wanted.into_iter().chain(away) {
            let place = self.relays.iter().position(|relay| relay.name == name);
            let mut relay = Relay::new(name);
            if relays.len() >= wanted_len {
                relay.state = State::Away;
            }
            if let Some(place) = place {
                let known = &mut self.relays[place];
                // What is wanted again is tried at once.
                if !known.is_away() {
                    std::mem::swap(known, &mut relay);
                }
            }
            relays.push(relay);
            places.push(place);
        }
        self.relays = relays;
        for (id, document) in &mut self.documents {
            let mut before = std::mem::take(&mut document.relays);
            for place in &places {
                let known = place.map(|at| std::mem::take(&mut before[at]));
                document.relays.push(known.unwrap_or_default());
            }
            self.due.insert(*id);
        }
        self.tick();
    }

    /// Why a relay refused us, if it did so last.
    #[must_use]
    pub fn refusal(&self, relay: RelayId) -> Option<&str> {
        match &self.relays.get(relay.0)?.state {
            State::Refused(fault) => Some(&fault.message),
            _ => None,
        }
    }

    /// How the connection to a relay is, and why it is not there, or was not the last time.
    #[must_use]
    pub fn connection(&self, relay: RelayId) -> Option<(RelayState, Option<&Fault>)> {
        let relay = self.relays.get(relay.0)?;
        let state = match &relay.state {
            State::Open(_) => RelayState::Connected,
            State::Connecting { .. } => RelayState::Connecting,
            State::Waiting(_) => RelayState::Waiting,
            State::Refused(_) => RelayState::Refused,
            State::Away => RelayState::Away,
        };
        Some((state, relay.fault.as_ref()))
    }

    /// How often that changed, for any of them.
    #[must_use]
    pub fn relay_changes(&self) -> u64 {
        self.relay_changes
    }

    /// Somebody waits for a relay: one that failed is tried again [`HURRY_AFTER`] its last try, however
    /// long it was to be left alone.
    pub fn hurry(&mut self) {
        for relay in &mut self.relays {
            if let State::Waiting(until) = &mut relay.state {
                *until = (*until).min(self.now.max(relay.tried_at + HURRY_AFTER));
            }
        }
        self.tick();
    }

    /// Tries a relay at once that waits for the next try, or that refused us: it may have changed its
    /// mind, or we come with another token.
    pub fn retry(&mut self, now: Duration, relay: RelayId) {
        self.now = self.now.max(now);
        let Some(relay) = self.relays.get_mut(relay.0) else {
            return;
        };
        if matches!(relay.state, State::Waiting(_) | State::Refused(_)) {
            relay.state = State::Waiting(self.now);
            relay.is_hoped_for = true;
            self.relay_changes += 1;
            // It is not refused now, and whoever asks next must not hear that it is.
            let documents: Vec<_> = self.documents.keys().copied().collect();
            for id in documents {
                self.due.insert(id);
                self.update_status(id);
            }
            self.tick();
        }
    }
}
