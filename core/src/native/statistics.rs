//! What a client did so far, in numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::repo::Repo;
use crate::engine::Counts;

/// What a client did since it was built. All of these only grow; for rates and levels, take
/// differences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Changes that were made here: edits, what was merged as one, and the first of each new document,
    /// made or imported.
    pub changes_made: u64,
    /// Changes that relays sent and that were new.
    pub changes_received: u64,
    /// Bytes that relays sent, as WebSocket messages, with presence and without what frames and
    /// encryption add.
    pub bytes_received: u64,
    /// Bytes that were sent to relays, counted alike.
    pub bytes_sent: u64,
    /// Connections on which a relay let us in.
    pub connections_made: u64,
    /// Attempts to connect that ended before that.
    pub connections_failed: u64,
    /// Connections that ended, of those that were made.
    pub connections_lost: u64,
    /// Commits of single documents to local storage; the disk is synced once for those that wait together.
    pub commits: u64,
    /// Commits that failed; each is tried again.
    pub commits_failed: u64,
    /// Documents that entered memory: they were made, read, or searched for. Less those that left it,
    /// they are in memory.
    pub documents_entered: u64,
    /// Documents that left memory: nobody used them, nobody had them, or they were deleted.
    pub documents_left: u64,
    /// Searches for a document, in storage and then at relays; those that go on at one time for one
    /// document are one. Less those that ended, they are going on.
    pub searches_begun: u64,
    /// Searches that ended: the document was found, or was not, or nobody waited any more.
    pub searches_ended: u64,
}

impl Repo {
    /// What the client did so far, for a page of metrics: it costs as little as copying it.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let Counts {
            changes_made,
            changes_received,
            connections_made,
            connections_failed,
            connections_lost,
            commits,
            commits_failed,
            documents_entered,
            documents_left,
            searches_begun,
            searches_ended,
        } = self.shared().state().engine.counts();
        Statistics {
            changes_made,
            changes_received,
            bytes_received: self.shared().traffic.received(),
            bytes_sent: self.shared().traffic.sent(),
            connections_made,
            connections_failed,
            connections_lost,
            commits,
            commits_failed,
            documents_entered,
            documents_left,
            searches_begun,
            searches_ended,
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
