//! What work costs, counted as it is done, so that it can be bounded and that tests can see how it
//! grows without a clock.

use std::sync::atomic::{AtomicU64, Ordering};

/// For each byte that is inflated, hashed or read: about 10 ns for all of it, which is one step.
pub(super) const BYTE: u64 = 1;

/// For each operation, and each that one replaces: it is checked here, and Automerge reads it.
pub(super) const OPERATION: u64 = 32;

/// For each change or other chunk, beside its bytes.
pub(super) const CHUNK: u64 = 128;

/// For each hash that is looked up.
pub(super) const LOOKUP: u64 = 8;

/// For each change that a walk through the graph looks at.
pub(super) const ROW: u64 = 1;

/// How many steps were taken. Only one thread counts at a time; others may read.
#[derive(Debug, Default)]
pub(super) struct Steps(AtomicU64);

impl Steps {
    /// A page takes in each message at once, and nobody looks at its steps.
    #[cfg(not(feature = "native"))]
    pub(super) fn count(&self, _steps: u64) {}

    #[cfg(feature = "native")]
    pub(super) fn count(&self, steps: u64) {
        // Without a locked operation, of which the hot path would see some.
        self.0.store(self.taken() + steps, Ordering::Relaxed);
    }

    pub(super) fn taken(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
