//! The bytes that went over all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts them; all copies count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic(Arc<[AtomicU64; 2]>);

impl Traffic {
    pub(super) fn add_received(&self, bytes: usize) {
        self.0[0].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, bytes: usize) {
        self.0[1].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }
}
