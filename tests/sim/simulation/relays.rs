//! What follows from a relay's turns, and how relays end.

use std::sync::Arc;
use std::time::Duration;

use reconverge::id::{ConnectionId, DocumentId};

use super::{Event, Simulation, name};
use crate::disk::Disk;
use crate::network::WireId;

/// How long a request waits before it is told that nobody has the document, as in the relay.
pub(super) const GRACE: Duration = Duration::from_millis(300);
const GRACES_MAX: u32 = 33;

const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Simulation {
    /// Does what follows from a relay's turns.
    pub(super) fn settle(&mut self, relay: usize) {
        if self.relays[relay].disk.crashed() {
            self.count("a relay crashed in a commit");
            self.crash_relay(relay, true);
            return;
        }
        let life = self.relays[relay].life;
        let documents: Vec<_> = self.relays[relay].documents.keys().copied().collect();
        for id in documents {
            self.relays[relay].report(id);
            let document = self.relays[relay].document(id);
            let (jobs, waits) = (document.jobs_len(), document.waits());
            let busy = |event: &Event, job: bool| match event {
                Event::JobEnds(of, in_life, document) => {
                    job && (*of, *in_life, *document) == (relay, life, id)
                }
                Event::Retries(of, in_life, document) => {
                    !job && (*of, *in_life, *document) == (relay, life, id)
                }
                _ => false,
            };
            if jobs > 0 && !self.events.values().any(|event| busy(event, true)) {
                self.count("a job of the workshop");
                let delay = self.delay() * 4;
                self.after(delay, Event::JobEnds(relay, life, id));
            }
            if waits && !self.events.values().any(|event| busy(event, false)) {
                self.count("a relay's commit failed");
                self.after(RETRY_AFTER, Event::Retries(relay, life, id));
            }
        }
        let wires: Vec<_> = self.relays[relay].peers.keys().copied().collect();
        for wire in wires {
            self.pump(relay, wire);
        }
        // Taking frames out may have led to turns.
        if self.relays[relay].disk.crashed() {
            self.settle(relay);
        }
    }

    pub(super) fn grace(
        &mut self,
        relay: usize,
        life: u64,
        id: DocumentId,
        wire: WireId,
        waited: u32,
    ) {
        if self.relays[relay].life != life || !self.relays[relay].peers.contains_key(&wire) {
            return;
        }
        let history = self.relays[relay].document(id).history();
        if history.upload_expected() && waited < GRACES_MAX {
            self.after(GRACE, Event::Grace(relay, life, id, wire, waited + 1));
        } else if history.poll_unavailable(ConnectionId(wire)) {
            self.relays[relay].say_unavailable(wire, id);
            self.pump(relay, wire);
        }
    }

    /// A relay's process ends. Its clients are told, or the machine is gone with it.
    pub(super) fn crash_relay(&mut self, relay: usize, lose_unsynced: bool) {
        self.relays[relay].stop();
        let told = self.random.below(2) == 0;
        let wires = self.wires.iter().filter(|(_, wire)| wire.relay == relay);
        let wires: Vec<_> = wires.map(|(id, _)| *id).collect();
        for id in wires {
            let delay = self.delay();
            let wire = self.wires.get_mut(&id).expect("listed above");
            wire.relay_open = false;
            if !wire.client_open {
                self.wires.remove(&id);
            } else if told {
                self.after(delay, Event::ClientNotices(id));
            }
        }
        if lose_unsynced {
            let disk = self.relays[relay].disk.after_crash();
            self.replace_relay_disk(relay, &disk);
        }
        self.check_durable(relay);
    }

    fn replace_relay_disk(&mut self, relay: usize, disk: &Arc<Disk>) {
        #[cfg(feature = "planted")]
        if reconverge::planted::is(reconverge::planted::Bug::AcknowledgeBeforeSync) {
            disk.be_hasty();
        }
        self.relays[relay].disk = disk.clone();
    }

    /// An older copy takes the place of a relay's disk.
    pub(super) fn restore_relay(&mut self, relay: usize) {
        self.count("a relay restored from an older copy");
        self.crash_relay(relay, false);
        self.restored.insert(relay);
        let log = self.relays[relay].disk.log();
        let kept = self.random.below(log.len() as u64 + 1) as usize;
        let disk = Disk::holding(&name(relay), &log[..kept]);
        for id in self.documents.clone() {
            let before = self.relays[relay].disk.changes_of(&id);
            let lost: Vec<_> = before.difference(&disk.changes_of(&id)).copied().collect();
            let of_relay = &mut self.relays[relay];
            of_relay.lost.entry(id).or_default().extend(lost);
        }
        self.replace_relay_disk(relay, &disk);
    }
}
