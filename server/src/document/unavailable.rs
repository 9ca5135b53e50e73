//! The answer to who asks for a document that nobody has. Somebody may be about to upload it, so it
//! is given after a while.

use std::sync::Arc;
use std::time::Duration;

use reconverge::id::ConnectionId;
use tracing::debug;

use super::{Document, Input, Slot};
use crate::peers::Connection;

impl Document {
    /// Whoever asked when there was something, which turned out to be damaged or to make no document,
    /// is answered like those who ask when there is nothing.
    pub(super) fn give_grace_if_emptied(&mut self, slot: &Arc<Slot>) {
        if self.had_contents && self.opened().history.is_empty() {
            self.had_contents = false;
            let peers: Vec<_> = self.connections.keys().copied().collect();
            for peer in peers {
                self.give_grace(slot, peer);
            }
        }
    }

    /// Somebody may be about to upload what this peer asked for, unless there is nobody else.
    pub(super) fn give_grace(&mut self, slot: &Arc<Slot>, to: ConnectionId) {
        if !self.graces.insert(to) {
            return;
        }
        if slot.services.peers.is_alone() {
            slot.push(Input::Grace(to, Duration::ZERO));
        } else {
            let grace = slot.services.config.unavailable_grace;
            slot.push_after(grace, Input::Grace(to, grace));
        }
    }

    /// Answers a request for a document that nobody has, unless somebody is uploading it.
    pub(super) fn grace(&mut self, slot: &Arc<Slot>, connection: ConnectionId, waited: Duration) {
        let Some(to) = self.connections.get(&connection).cloned() else {
            return;
        };
        let config = &slot.services.config;
        let left = config.upload_grace.saturating_sub(waited);
        if self.opened().history.upload_expected() && !left.is_zero() {
            // Each time twice as long: very many may be announced and never come.
            let more = waited.max(config.unavailable_grace).min(left);
            slot.push_after(more, Input::Grace(connection, waited + more));
            return;
        }
        self.graces.remove(&connection);
        if to.outbox.is_crowded_for(slot) {
            // Who asks for many documents at once reads one answer after the other.
            self.not_told.insert(connection);
        } else {
            self.tell_unavailable(slot, &to);
        }
    }

    pub(super) fn tell_unavailable(&mut self, slot: &Slot, to: &Connection) {
        if self.opened().history.poll_unavailable(to.id) {
            debug!(document = %slot.name, peer = %to.peer, "unavailable");
            to.unavailable(&slot.name);
        }
    }
}
