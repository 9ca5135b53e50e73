//! Everything is healed, and all must agree and fall silent.

use std::time::Duration;

use super::Simulation;

/// Enough for both sides to notice what is dead, and for the longest wait before the next try.
const HEALING: Duration = Duration::from_secs(240);

/// How long presence takes at most from one slow machine to another.
const HEARING: Duration = Duration::from_secs(20);

/// How long nobody may say anything when there is nothing left to say.
const QUIET: Duration = Duration::from_secs(120);

/// Sync messages that healing may take, for each client, document and relay.
const HEALING_MESSAGES_MAX: usize = 40;

impl Simulation {
    /// All faults end; all that is reachable comes to be the same everywhere; then silence.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.hostile = None;
        let hostile_wires = self.hostile_wires.values().copied();
        for wire in hostile_wires.collect::<Vec<_>>() {
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
        self.all_hear_of_each_other();
    }

    /// What a client broadcasts when all is well, everybody hears who shares a relay with it.
    fn all_hear_of_each_other(&mut self) {
        let documents = self.documents.clone();
        for at in 0..self.clients.len() {
            for id in &documents {
                let first = self.said.len() as u64;
                self.broadcast(at, *id);
                self.run(HEARING);
                for number in first..self.said.len() as u64 {
                    self.check_audience(at, *id, number);
                }
            }
        }
    }
}
