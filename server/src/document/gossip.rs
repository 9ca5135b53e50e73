//! Telling peers the heads of other storages.

use std::sync::Arc;

use reconverge::id::ConnectionId;
use reconverge::protocol::ChangeHash;

use super::{Document, Slot};
use crate::peers::Connection;
use crate::remote_heads::{Seen, now_ms, shown};

impl Document {
    /// A storage's owner named these heads.
    pub(super) fn gossip_of(
        &mut self,
        slot: &Arc<Slot>,
        from: ConnectionId,
        storage: &str,
        heads: &[ChangeHash],
    ) {
        let heard = self
            .connections
            .values()
            .any(|c| c.id != from && c.subscriptions.contains(storage));
        let news = self.remote_heads.see(storage, shown(heads), now_ms());
        if heard && let Some(seen) = news.cloned() {
            self.pass_on(slot, from, storage, &seen);
        }
    }

    pub(super) fn gossip(
        &mut self,
        slot: &Arc<Slot>,
        from: ConnectionId,
        storage: &str,
        seen: &Seen,
    ) {
        if self.remote_heads.hear(storage, seen) {
            self.pass_on(slot, from, storage, seen);
        }
    }

    pub(super) fn pass_on(
        &mut self,
        slot: &Arc<Slot>,
        from: ConnectionId,
        storage: &str,
        seen: &Seen,
    ) {
        for to in self.connections.values() {
            if to.id == from || !to.subscriptions.contains(storage) {
                continue;
            }
            if to.outbox.is_crowded_for(slot) {
                self.not_told.insert(to.id);
            } else {
                to.remote_heads(&slot.name, storage, seen);
            }
        }
    }

    /// Tells those who had not read what they asked for what they were not told.
    pub(super) fn tell_again(&mut self, slot: &Arc<Slot>) {
        for id in std::mem::take(&mut self.not_told) {
            let Some(to) = self.connections.get(&id).cloned() else {
                continue;
            };
            if to.outbox.is_crowded_for(slot) {
                self.not_told.insert(id);
                continue;
            }
            if !self.graces.contains(&id) {
                self.tell_unavailable(slot, &to);
            }
            for (storage, seen) in self.remote_heads.iter() {
                if to.subscriptions.contains(storage) {
                    to.remote_heads(&slot.name, storage, seen);
                }
            }
        }
    }

    pub(super) fn replay(&mut self, slot: &Arc<Slot>, to: &Arc<Connection>, storages: &[String]) {
        if to.outbox.is_crowded_for(slot) {
            self.not_told.insert(to.id);
            return;
        }
        for storage in storages {
            if let Some(seen) = self.remote_heads.get(storage) {
                to.remote_heads(&slot.name, storage, seen);
            }
        }
    }
}
