//! Everything is healed, and all must agree and fall silent.

use std::time::Duration;

use super::Simulation;

/// Enough for both sides to notice what is dead, and for the longest wait before the next try.
const HEALING: Duration = Duration::from_secs(240);

/// How long nobody may say anything when there is nothing left to say.
const QUIET: Duration = Duration::from_secs(120);

/// Sync messages that healing may take, for each client, document and relay.
const HEALING_MESSAGES_MAX: usize = 40;

impl Simulation {
    /// All faults end; all that is reachable comes to be the same everywhere; then silence.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.hostile = None;
        if let Some(wire) = self.hostile_wire {
            self.client_closes(wire);
        }
        for relay in &mut self.relays {
            relay.disk.heal();
            relay.up = true;
        }
        for at in 0..self.clients.len() {
            self.clients[at].disk.heal();
            if self.clients[at].failed {
                self.stop(at);
            }
            if self.clients[at].engine.is_none() {
                self.start(at);
            }
        }
        let before = self.sync_messages;
        self.run(HEALING);
        self.check_outboxes();
        for at in 0..self.clients.len() {
            for id in self.documents.clone() {
                self.find(at, id);
            }
        }
        self.run(HEALING);
        let messages = self.sync_messages - before;
        let all = self.clients.len() * self.documents.len() * self.relays.len();
        assert!(
            messages <= HEALING_MESSAGES_MAX * all,
            "{messages} messages for {all} copies"
        );
        self.counts.insert(
            "messages for one copy, at most",
            (messages / all.max(1)) as u64,
        );
        let before = self.sync_messages;
        self.run(QUIET);
        assert_eq!(self.sync_messages, before, "they go on though all is said");
        self.check_all();
    }
}
