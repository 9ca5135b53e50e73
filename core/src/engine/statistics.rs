//! What a client did so far, counted.

/// Counts that only grow, from when the client was made. What is the difference of two of them now,
/// as documents in memory, is so at one moment when both are read at one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes that were made here: edits, and what was merged or began a new document. Not those of
    /// documents that were imported.
    pub changes_made: u64,
    /// Changes that relays sent and that were new.
    pub changes_received: u64,
    /// Connections on which a relay let us in.
    pub connections_made: u64,
    /// Attempts that ended before that.
    pub connections_failed: u64,
    /// Connections that ended, of those that were made.
    pub connections_lost: u64,
    /// Commits of single documents to local storage; the writer puts those that wait together.
    pub commits: u64,
    /// Commits that failed; each is tried again.
    pub commits_failed: u64,
    /// Documents that entered memory, to be read, made or searched for; less those that left it, they
    /// are in memory now.
    pub documents_entered: u64,
    /// Documents that left memory, as nobody uses them, they were deleted, or nobody has them.
    pub documents_left: u64,
    /// Searches for a document, here and then at relays; less those that ended, they are going on.
    pub searches_begun: u64,
    /// Searches that ended, found or not, or as nobody waited any more.
    pub searches_ended: u64,
}
