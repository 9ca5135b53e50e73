//! What a client did so far, in numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The bytes that went over all connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic(Arc<[AtomicU64; 2]>);

impl Traffic {
    pub(super) fn add_received(&self, bytes: usize) {
        self.0[0].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, bytes: usize) {
        self.0[1].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn received(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    fn sent(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }
}
