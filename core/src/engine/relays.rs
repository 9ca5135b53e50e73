//! Relays that come and go while the engine runs: in a browser, each tab names some.

use std::sync::Arc;
use std::time::Duration;

use super::document::OfRelay;
use super::link::{Relay, State};
use super::{Engine, Output, RelayId};

impl Engine {
    /// From now on these are the relays, by their names, no name twice: first those that are `wanted`,
    /// then those that are `away`. What changes is known by the storage before:
    /// [`Storage::name_relays`](crate::storage::Storage::name_relays).
    ///
    /// Nobody wants a connection to a relay that is away, and nobody waits for it. The outbox speaks
    /// for it all the same, so that it costs nothing when it is wanted again.
    pub fn name_relays(&mut self, now: Duration, wanted: Vec<Arc<str>>, away: Vec<Arc<str>>) {
        self.now = self.now.max(now);
        for at in 0..self.relays.len() {
            if !wanted.contains(&self.relays[at].name) {
                self.give_up(RelayId(at));
                self.relays[at].state = State::Away;
            }
        }
        let is_wanted = wanted
            .iter()
            .map(|_| true)
            .chain(away.iter().map(|_| false));
        let is_wanted: Vec<bool> = is_wanted.collect();
        let names: Vec<Arc<str>> = wanted.into_iter().chain(away).collect();
        let place_of = |name: &Arc<str>| self.relays.iter().position(|relay| relay.name == *name);
        let places: Vec<Option<usize>> = names.iter().map(place_of).collect();

        self.outputs.retain_mut(|output| {
            let Output::Connect(relay, _) = output else {
                return true;
            };
            let place = places.iter().position(|place| *place == Some(relay.0));
            relay.0 = place.unwrap_or_default();
            place.is_some()
        });
        let before = std::mem::take(&mut self.relays);
        let mut before: Vec<Option<Relay>> = before.into_iter().map(Some).collect();
        for ((name, is_wanted), place) in names.into_iter().zip(is_wanted).zip(&places) {
            let known = place.and_then(|place| before[place].take());
            let mut relay = known.unwrap_or_else(|| Relay::new(name));
            if !is_wanted {
                relay.state = State::Away;
            } else if relay.is_away() {
                relay.state = State::Waiting(self.now);
            }
            self.relays.push(relay);
        }
        for (id, document) in &mut self.documents {
            let mut before = std::mem::take(&mut document.relays);
            let known = |place: &Option<usize>| {
                place.map_or_else(OfRelay::default, |at| std::mem::take(&mut before[at]))
            };
            document.relays = places.iter().map(known).collect();
            self.due.insert(*id);
        }
        self.tick();
    }

    /// Tries a relay at once that waits for the next try, or that refused us: it may have changed its
    /// mind, or we come with another token.
    pub fn retry(&mut self, now: Duration, relay: RelayId) {
        self.now = self.now.max(now);
        let Some(Relay { state, .. }) = self.relays.get_mut(relay.0) else {
            return;
        };
        if matches!(state, State::Waiting(_) | State::Refused(_)) {
            *state = State::Waiting(self.now);
            // It is not refused now.
            self.due.extend(self.documents.keys());
            self.tick();
        }
    }
}
