//! What goes over the wires, and how they end.

use std::time::Duration;

use bytes::Bytes;
use reconverge::engine::{Closed, Fault, Frame, Input};
use reconverge::id::{Access, ConnectionId};
use reconverge::protocol::{self, Message};

use super::relays::GRACE;
use super::{Event, Simulation};
use crate::hostile;
use crate::network::{Direction, Party, WINDOW_MAX, Way, Wire, WireId};
use crate::relay::Then;

/// Two pings and a second without a sign of life, as in the relay.
const RELAY_PATIENCE: Duration = Duration::from_secs(41);

impl Simulation {
    pub(crate) fn owner(&self, wire: WireId) -> Option<(usize, ConnectionId)> {
        let wire = self.wires.get(&wire)?;
        let Party::Client(client, life, connection) = wire.party else {
            return None;
        };
        let client_lives = self.clients[client].life == life;
        (client_lives && wire.client_open).then_some((client, connection))
    }

    pub(super) fn connect(&mut self, party: Party, relay: usize) -> WireId {
        self.wires_made += 1;
        let id = self.wires_made;
        let mut wire = Wire::new(party, relay);
        wire.frame_takes = self.slowness(3000);
        wire.reading_takes = self.slowness(300);
        wire.window = 1 + self.random.below(WINDOW_MAX as u64) as usize;
        self.wires.insert(id, wire);
        let delay = self.delay();
        self.after(delay, Event::Connected(id));
        id
    }

    /// How long a machine takes for a frame: most take no time.
    fn slowness(&mut self, ms_max: u64) -> Duration {
        let slow = self.random.below(2) == 0;
        let ms = if slow { self.random.below(ms_max) } else { 0 };
        Duration::from_millis(ms)
    }

    pub(super) fn connected(&mut self, id: WireId) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let relay = wire.relay;
        if !self.relays[relay].up {
            self.after(Duration::ZERO, Event::ClientNotices(id));
            return;
        }
        wire.relay_open = true;
        let access = match wire.party {
            Party::Client(client, ..) if self.clients[client].reader => Access::Read,
            Party::Client(..) => Access::Write,
            Party::Hostile => self.hostile.unwrap_or(Access::None),
        };
        self.relays[relay].open(id, access);
        if let Some((client, connection)) = self.owner(id) {
            self.feed(client, Input::Connected(connection));
        } else if self.hostile_wires.get(&relay) == Some(&id) {
            self.transmit(id, Direction::Up, hostile::join().into());
        }
    }

    /// A client's frame leaves the machine, and is read from storage for that.
    pub(super) fn leaves(&mut self, id: WireId, frame: Frame) {
        let Some((client, connection)) = self.owner(id) else {
            return;
        };
        let reads = frame.reads();
        let bytes = frame.encode(&*self.clients[client].disk);
        let Ok(bytes) = bytes else {
            // What it names stays until it is sent, unless the document was deleted.
            assert!(self.deleted.contains(&(client, reads.expect("it reads"))));
            self.client_notices(id);
            return;
        };
        let wire = self.wires.get_mut(&id).expect("has an owner");
        if wire.up.dead {
            // The socket takes no more.
            return;
        }
        wire.unsent -= 1;
        if matches!(protocol::decode(&bytes), Ok(Message::Sync(_))) {
            self.sync_messages += 1;
            self.overheard.push(bytes.to_vec());
            if self.overheard.len() > 8 {
                self.overheard.remove(0);
            }
        }
        self.transmit(id, Direction::Up, bytes);
        self.feed(client, Input::Sent(connection, reads));
    }

    pub(super) fn transmit(&mut self, id: WireId, direction: Direction, frame: Bytes) {
        let delay = self.delay();
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let takes = match direction {
            Direction::Up => Duration::ZERO,
            Direction::Down => wire.reading_takes,
        };
        let way: &mut Way = wire.way(direction);
        way.frames.push_back(frame);
        if !way.dead {
            way.busy_until = (way.busy_until + takes).max(now + delay);
            let at = way.busy_until;
            self.at(at, Event::Arrives(id, direction));
        }
    }

    /// The relay answers a ping, behind what it sent before.
    pub(super) fn pinged(&mut self, id: WireId) {
        let delay = self.delay();
        let now = self.now;
        if let Some(wire) = self.wires.get_mut(&id)
            && wire.relay_open
            && !wire.down.dead
        {
            wire.down.busy_until = wire.down.busy_until.max(now + delay);
            let at = wire.down.busy_until;
            self.at(at, Event::Pong(id));
        }
    }

    pub(super) fn arrives(&mut self, id: WireId, direction: Direction) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let way = wire.way(direction);
        if way.dead {
            return;
        }
        let Some(frame) = way.frames.pop_front() else {
            return;
        };
        let (relay, relay_open) = (wire.relay, wire.relay_open);
        self.note(frame.len() as u64);
        match direction {
            Direction::Down => {
                if let Some((client, connection)) = self.owner(id) {
                    self.feed(client, Input::Frame(connection, frame));
                }
                self.pump(relay, id);
            }
            Direction::Up if relay_open => {
                self.check_claims(relay, id, &frame);
                match self.relays[relay].receive(id, &frame) {
                    Then::Nothing => self.pump(relay, id),
                    Then::Close => self.relay_notices(id),
                    Then::Turned => {}
                    Then::Asked(document) => {
                        let life = self.relays[relay].life;
                        self.after(GRACE, Event::Grace(relay, life, document, id, 1));
                    }
                }
                self.settle(relay);
            }
            Direction::Up => {}
        }
    }

    /// The client's side learns that a wire is gone.
    pub(super) fn client_notices(&mut self, id: WireId) {
        if let Some((client, connection)) = self.owner(id) {
            self.client_closes(id);
            self.feed(
                client,
                Input::Closed(connection, Closed::Lost(Fault::lost())),
            );
        } else {
            self.client_closes(id);
        }
    }

    /// The client's side is gone; the relay's learns of it.
    pub(super) fn client_closes(&mut self, id: WireId) {
        let delay = self.delay();
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        wire.client_open = false;
        if let Party::Client(client, _, connection) = wire.party {
            self.clients[client].wires.remove(&connection);
        } else {
            self.hostile_wires.retain(|_, wire| *wire != id);
        }
        if !wire.relay_open {
            self.wires.remove(&id);
        } else {
            let silent = wire.up.dead;
            // What was on its way arrives before the end does.
            let end = wire.up.busy_until.max(self.now + delay);
            let end = if silent {
                self.now + RELAY_PATIENCE
            } else {
                end
            };
            self.at(end, Event::RelayNotices(id));
        }
    }

    /// The relay's side ends; the client's learns of it, if anything reaches it.
    pub(super) fn relay_notices(&mut self, id: WireId) {
        let delay = self.delay();
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let relay = wire.relay;
        let was_open = std::mem::replace(&mut wire.relay_open, false);
        if !wire.client_open {
            self.wires.remove(&id);
        } else if was_open && !wire.down.dead {
            let end = wire.down.busy_until.max(self.now + delay);
            self.at(end, Event::ClientNotices(id));
        }
        if was_open {
            self.relays[relay].close(id);
            self.settle(relay);
        }
    }

    /// Hands a relay's next frames to the network, as long as that takes them.
    pub(super) fn pump(&mut self, relay: usize, id: WireId) {
        loop {
            let Some(wire) = self.wires.get(&id).filter(|wire| wire.relay_open) else {
                return;
            };
            if wire.down.frames.len() >= wire.window {
                return;
            }
            let Some((frame, sync)) = self.relays[relay].next_frame(id) else {
                return;
            };
            if let Some((document, data)) = sync {
                self.sync_messages += 1;
                self.check_sent(relay, id, document, &data);
            }
            self.transmit(id, Direction::Down, frame);
        }
    }

    /// One or both directions of a wire die.
    pub(super) fn kill_way(&mut self, id: WireId, up: bool, down: bool) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        wire.up.dead |= up;
        wire.down.dead |= down;
        // No pong comes back either way.
        self.after(RELAY_PATIENCE, Event::RelayNotices(id));
    }
}
