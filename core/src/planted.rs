//! Mistakes that a simulation has to find, for the feature `planted` only: nothing else is a proof
//! that it would find those that nobody planted.
//!
//! Each stands where somebody could make it, behind `#[cfg(feature = "planted")]`, so what is
//! shipped has not even the question. A thread turns one on for itself; that is a state which no
//! machine here may have otherwise, and saves every one of them a parameter that only this module
//! would use.

use std::cell::{Cell, RefCell};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A commit returns before it is synced.
    AcknowledgeBeforeSync,
    /// What finds no room on a connection is forgotten.
    DropOnFullQueue,
    /// A document that was edited is not marked as due.
    LostDirtyFlag,
    /// A change enters without the changes that it depends on.
    DependencyCheckSkipped,
    /// A new snapshot takes the place of changes that came while it was built.
    SnapshotWithoutTail,
    /// A reader's changes enter.
    ReadersWrite,
    /// A client claims that a relay has all that the client has.
    LastSyncBeyond,
    /// What was not acknowledged is not sent after a restart.
    OutboxForgotten,
    /// The check compares values as numbers, and one that is none differs from itself.
    ComparedByValue,
    /// A client finds out that a change is above a limit when it shows already.
    LimitAfterShown,
    /// A document is found while what came of it is still being brought into its contents.
    FoundBeforeItShows,
    /// What was read from the file is not checked. The simulation has no bytes in a file; damage at
    /// random to real ones finds it (`tests/damage`).
    DamagePassedOn,
    /// What a message names is compared with itself. The simulation does not look at costs; hostile
    /// sessions find this, and the next one (`tests/hostile_sessions`).
    NamesCompared,
    /// What came in a message is kept, and nobody says so.
    UnchargedBuffer,
}

impl Bug {
    /// All that the simulation has to find.
    pub const ALL: [Self; 11] = [
        Self::AcknowledgeBeforeSync,
        Self::DropOnFullQueue,
        Self::LostDirtyFlag,
        Self::DependencyCheckSkipped,
        Self::SnapshotWithoutTail,
        Self::ReadersWrite,
        Self::LastSyncBeyond,
        Self::OutboxForgotten,
        Self::ComparedByValue,
        Self::LimitAfterShown,
        Self::FoundBeforeItShows,
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    static FRESH: Cell<u64> = const { Cell::new(0) };
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Turns one mistake on for this thread, or all off.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
    KEPT.take();
}

/// Keeps what nobody asks for.
pub(crate) fn keep(chunks: &[&[u8]]) {
    let chunks = chunks.iter().map(|chunk| chunk.to_vec());
    KEPT.with_borrow_mut(|kept| kept.extend(chunks));
}

/// Whether this thread makes this mistake.
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Another number each time, for this thread.
pub(crate) fn fresh() -> u64 {
    FRESH.set(FRESH.get() + 1);
    FRESH.get()
}
