//! What a client did so far, in numbers.

use super::repo::Repo;
use crate::engine::Statistics;

impl Repo {
    /// What the client did so far, for a page of metrics: it costs as little as copying it.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            bytes_received: self.shared().traffic.received(),
            bytes_sent: self.shared().traffic.sent(),
            ..self.shared().state().engine.statistics()
        }
    }
}
