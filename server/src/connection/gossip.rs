//! Telling a peer the heads of the storages that it subscribed to.

use std::sync::Arc;
use std::time::Duration;

use super::ConnectionTask;
use crate::peers::Connection;

/// Documents whose storages a peer is told of in one turn.
const REPLAYED_AT_A_TIME: usize = 256;

impl ConnectionTask {
    /// Tells of all its documents what these storages were last seen with: one after the other, in
    /// turn with others who cause work. What is subscribed to meanwhile comes in the next round.
    pub(super) fn replay(&self, to: &Arc<Connection>, added: Vec<String>) {
        if !to.subscriptions.replay(added) {
            return;
        }
        let slots: Vec<_> = self.documents.iter().cloned().collect();
        let (services, to) = (self.hub.services.clone(), to.clone());
        services.clone().lifetime.spawn(async move {
            while let Some(storages) = to.subscriptions.next_replay() {
                for slots in slots.chunks(REPLAYED_AT_A_TIME) {
                    if services.lifetime.is_stopping() || to.outbox.is_closing() {
                        return;
                    }
                    let _turn = services.long_work.take(to.owner(), Duration::ZERO).await;
                    for slot in slots {
                        slot.replay(&to, &storages);
                    }
                }
            }
        });
    }
}
