//! What the seed does and breaks.

use std::time::Duration;

use automerge::ActorId;
use reconverge::engine::FRAMES_MAX;
use reconverge::id::{Access, DocumentId};
use reconverge::replica::Replica;
use reconverge::storage::Storage;
use reconverge_tests::world::Failure;

use super::Simulation;
use crate::client::Client;
use crate::disk::Disk;
use crate::hostile;
use crate::network::{Direction, Party, WireId};

/// What happens in one run before everything is healed.
const STEPS: usize = 120;

/// Most clients, counting clones, and documents.
const CLIENTS_MAX: usize = 5;
const DOCUMENTS_MAX: usize = 4;

impl Simulation {
    pub(crate) fn live(&mut self) {
        for _ in 0..STEPS {
            self.step();
            let pause = match self.random.below(12) {
                0 => self.random.below(60_000),
                1 | 2 => self.random.below(3_000),
                _ => self.random.below(2 * self.slowness_ms + 1),
            };
            self.run(Duration::from_millis(pause));
        }
        // It is on full connections, mostly, that everything comes to rest.
        for at in 0..self.clients.len() {
            if let Some(id) = self.any_document()
                && self.random.below(4) > 0
            {
                self.burst(at, id);
            }
        }
    }

    /// More than fits on a slow connection, and then the other documents.
    fn burst(&mut self, at: usize, id: DocumentId) {
        for _ in 0..2 * FRAMES_MAX {
            self.edit(at, id);
            self.run(Duration::from_millis(self.slowness_ms));
        }
        // What goes by the same connection keeps it full without being of any document.
        for _ in 0..2 * FRAMES_MAX {
            self.broadcast(at, id);
        }
        for other in self.documents.clone() {
            self.edit(at, other);
        }
    }

    fn any_client(&mut self) -> usize {
        self.random.below(self.clients.len() as u64) as usize
    }

    fn any_document(&mut self) -> Option<DocumentId> {
        let len = self.documents.len() as u64;
        (len > 0).then(|| self.documents[self.random.below(len) as usize])
    }

    fn any_wire(&mut self) -> Option<WireId> {
        let at = self.random.below(self.wires.len() as u64) as usize;
        self.wires.keys().nth(at).copied()
    }

    fn step(&mut self) {
        let at = self.any_client();
        let relay = self.random.below(self.relays.len() as u64) as usize;
        let document = self.any_document();
        let runs = self.clients[at].engine.is_some();
        let step = self.random.below(112);
        self.note(step);
        match (step, document) {
            (0..=7, _)
                if runs && !self.clients[at].reader && self.documents.len() < DOCUMENTS_MAX =>
            {
                let mut replica = Replica::new(self.random.bytes().as_slice().into());
                replica.begin(0);
                self.insert(at, replica);
            }
            (8..=11, Some(id)) if runs => {
                self.burst(at, id);
            }
            (12..=39, Some(id)) if runs => {
                for _ in 0..=self.random.below(4) {
                    self.edit(at, id);
                }
            }
            (40..=49, Some(id)) if runs => self.find(at, id),
            (50..=51, Some(id)) if runs && !self.clients[at].reader => self.import(at, id),
            (52, Some(id)) if runs => {
                let engine = self.clients[at].engine.as_mut().expect("it runs");
                engine.delete(&id);
                self.clients[at].opened.remove(&id);
                self.drain(at);
            }
            (53..=58, _) => {
                if runs {
                    self.count("a client stopped");
                    self.stop(at);
                } else {
                    self.start(at);
                }
            }
            (59..=61, _) if !runs => self.start(at),
            (59, _) => {
                self.count("a client's storage wiped");
                self.stop(at);
                let id = self.clients[at].disk.storage_id();
                self.clients[at].disk = Disk::holding(&format!("{id}-wiped"), &[]);
                self.start(at);
            }
            (60..=61, _) if self.clients.len() < CLIENTS_MAX => {
                self.count("a client's storage cloned");
                let client = &self.clients[at];
                let disk = Disk::holding(&client.disk.storage_id(), &client.disk.log());
                let clone = Client::new(disk, client.relays.clone(), client.reader);
                self.clients.push(clone);
                self.start(self.clients.len() - 1);
            }
            (62..=66, _) => {
                if self.relays[relay].up {
                    self.count("a relay stopped");
                    self.crash_relay(relay, true);
                } else {
                    self.relays[relay].up = true;
                }
            }
            (67..=69, _) if self.relays[relay].up => {
                let failure = self.any_failure();
                self.relays[relay].disk.crash_at_next(failure);
            }
            (67..=73, _) if !self.relays[relay].up => self.relays[relay].up = true,
            (70..=72, _) => {
                let failure = self.any_failure();
                self.relays[relay].disk.fail_next(failure);
            }
            (73, _) => self.restore_relay(relay),
            (74..=76, _) => {
                let failure = self.any_failure();
                self.clients[at].disk.fail_next(failure);
            }
            (77, _) => self.clients[at].disk.fail_next_reading(),
            (78..=80, _) => {
                if let Some(wire) = self.any_wire() {
                    self.count("a connection cut");
                    self.client_notices(wire);
                }
            }
            (81..=83, _) => {
                if let Some(wire) = self.any_wire() {
                    let which = self.random.below(3);
                    self.count(["dead upwards", "dead downwards", "half-open"][which as usize]);
                    self.kill_way(wire, which != 1, which != 0);
                }
            }
            (84..=86, _) => {
                let silent = self.random.below(2) == 0;
                self.count("a client separated from a relay");
                self.cuts.insert((at, relay), silent);
                let wire = self.wires.iter().find(|(_, wire)| {
                    wire.relay == relay
                        && matches!(wire.party, Party::Client(client, ..) if client == at)
                });
                if let Some(id) = wire.map(|(id, _)| *id) {
                    self.kill_way(id, true, true);
                }
            }
            (87..=89, _) => self.cuts.clear(),
            (90..=92, Some(id)) if self.relays[relay].up => {
                self.relays[relay].document(id).begin_fold();
                self.settle(relay);
            }
            (93, Some(id)) if self.relays[relay].up => {
                self.relays[relay].document(id).evict();
            }
            (94..=103, Some(_)) => self.attack(relay),
            (108..=111, Some(id)) if runs => self.ask(at, id),
            (104..=107, Some(id)) if runs => {
                for _ in 0..=self.random.below(2 * FRAMES_MAX as u64) {
                    self.broadcast(at, id);
                }
            }
            _ => {}
        }
    }

    fn any_failure(&mut self) -> Failure {
        [Failure::Nothing, Failure::Written][self.random.below(2) as usize]
    }

    /// A new document out of another one's export.
    fn import(&mut self, at: usize, id: DocumentId) {
        let engine = self.clients[at].engine.as_ref().expect("it runs");
        let Some(saved) = engine.document(&id).map(|document| document.save()) else {
            return;
        };
        if self.documents.len() < DOCUMENTS_MAX {
            let actor = ActorId::from(self.random.bytes().as_slice());
            let replica = Replica::import(&saved, actor).expect("it was exported here");
            self.count("a document imported");
            self.insert(at, replica);
        }
    }

    fn attack(&mut self, relay: usize) {
        if self.hostile.is_none() || !self.relays[relay].up {
            return;
        }
        let Some(wire) = self.hostile_wires.get(&relay).copied() else {
            let wire = self.connect(Party::Hostile, relay);
            self.hostile_wires.insert(relay, wire);
            return;
        };
        for _ in 0..=self.random.below(3) {
            let forks = self.forges && self.random.below(3) == 0;
            let forked = hostile::forked(&mut self.random, &self.overheard).filter(|_| forks);
            let (frame, made) = match forked {
                Some((frame, document, hash)) => {
                    self.count("a change under the number of another");
                    if self.hostile == Some(Access::Write) {
                        self.forked.insert(document);
                    }
                    (frame, Some((document, hash)))
                }
                None => {
                    let clients = self.clients.iter().map(|client| client.name.as_str());
                    let names: Vec<_> = clients.collect();
                    hostile::frame(&mut self.random, &self.documents, &self.overheard, &names)
                }
            };
            if let Some((document, hash)) = made {
                let changes = if self.hostile == Some(Access::Write) {
                    &mut self.made
                } else {
                    &mut self.forbidden
                };
                changes.entry(document).or_default().insert(hash);
            }
            self.count("a hostile frame");
            self.transmit(wire, Direction::Up, frame.into());
        }
    }
}
