//! Who is charged for what an open document holds.

use reconverge::id::ConnectionId;

use super::Document;
use crate::limits::memory::Charge;
use crate::peers::Connection;

/// What an open document holds beside its history.
const DOCUMENT_BYTES: usize = 1_500;

/// What is held because of a peer is charged to it from so many bytes on.
const CHARGED_BYTES_MIN: usize = 2 * 1024;

impl Document {
    /// What it holds that nobody else is charged for.
    pub(super) fn bytes(&self) -> usize {
        let held = match &self.history {
            Some(open) => open.history.held_bytes(),
            None => self.parked.held_bytes(),
        };
        let charged: usize = self.charges.values().map(Charge::bytes).sum();
        (DOCUMENT_BYTES + held).saturating_sub(charged) + self.remote_heads.bytes()
    }

    pub(super) fn held_for(&self, peer: ConnectionId) -> usize {
        match &self.history {
            Some(open) => open.history.held_for(peer),
            None => self.parked.held_for(peer),
        }
    }

    /// What is to be charged to a peer: what is held because of it, if that is much; and however little
    /// it is, if the document cannot rest because of it. What that waits for may never come, and there
    /// may be very many such documents.
    pub(super) fn due_from(&self, peer: ConnectionId) -> usize {
        let held = self.held_for(peer);
        let rests = match &self.history {
            _ if held > CHARGED_BYTES_MIN => return held,
            Some(open) => open.history.rests(peer),
            None => self.parked.rests(peer),
        };
        if rests { 0 } else { DOCUMENT_BYTES + held }
    }

    /// Charges a connection for so much.
    pub(super) fn charge(&mut self, connection: &Connection, bytes: usize) {
        let charge = self.charges.entry(connection.id);
        let charge = charge.or_insert_with(|| connection.holder.charge(0));
        charge.resize(bytes);
    }

    /// Charges those who spoke in this turn, and those who are charged already: what they sent may not
    /// wait any more.
    pub(super) fn charge_all(&mut self) {
        let mut spoke = std::mem::take(&mut self.spoke);
        spoke.dedup();
        for peer in spoke.drain(..) {
            let due = self.due_from(peer);
            if due > 0
                && let Some(connection) = self.connections.get(&peer).cloned()
            {
                self.charge(&connection, due);
            }
        }
        self.spoke = spoke;
        let mut charges = std::mem::take(&mut self.charges);
        charges.retain(|peer, charge| {
            charge.resize(self.due_from(*peer));
            charge.bytes() > 0
        });
        self.charges = charges;
    }
}
