//! What a client did so far, counted.

/// What a client did since it was made. All of these only grow; for rates and levels, take
/// differences. What is the difference of two of them now, as documents in memory, is so at one moment
/// when both are read at one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Changes that were made here: edits, what was merged as one, and the first of each new document,
    /// made or imported.
    pub changes_made: u64,
    /// Changes that relays sent and that were new.
    pub changes_received: u64,
    /// Bytes that relays sent, as WebSocket messages, with presence and without what frames and
    /// encryption add. The shell counts these and those sent; they are 0 in the engine's own.
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
