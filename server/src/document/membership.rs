//! Connections that speak of a document: how one joins, with which access, and how it leaves.

use std::sync::Arc;

use reconverge::id::{Access, ConnectionId};

use super::{Document, Slot};
use crate::access::Asking;
use crate::peers::Connection;

impl Document {
    pub(super) fn join(&mut self, slot: &Arc<Slot>, connection: &Arc<Connection>) {
        if self.connections.contains_key(&connection.id) {
            return;
        }
        let open = self.opened();
        if !open.stored && open.history.is_empty() {
            open.history.set_space(connection.space.clone());
        }
        let asking = Asking {
            peer: &connection.peer,
            space: &connection.space,
        };
        let owner = &open.history.record().space;
        let access = slot.services.authorize.access(asking, &slot.id, owner);
        open.history.join(connection.id, access);
        if connection.is_ours() {
            open.history.waits_for_all(connection.id);
        }
        self.connections.insert(connection.id, connection.clone());
        if access > Access::None {
            slot.set_audience(self.connections.values());
        }
    }

    pub(super) fn leave(&mut self, slot: &Slot, connection: ConnectionId) {
        if let Some(connection) = self.connections.remove(&connection) {
            slot.set_audience(self.connections.values());
            if let Some(storage) = &connection.storage_id {
                self.remote_heads.left(storage);
            }
        }
        self.parked.leave(connection);
        if let Some(open) = &mut self.history {
            open.history.leave(connection);
        }
        self.building.leave(connection);
        self.not_taken.remove(&connection);
        self.not_told.remove(&connection);
        self.graces.remove(&connection);
        self.charges.remove(&connection);
    }
}
