//! How the way to a test relay is.

/// What the test did to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Open,
    /// Nothing arrives.
    Silent,
    /// Nobody can connect.
    Cut,
    /// Who connects is answered with this status.
    Refused(u16),
    /// The relay was dropped.
    Gone,
}

/// The line now, and how often all connections were ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) line: Line,
    pub(super) ends: u64,
}
