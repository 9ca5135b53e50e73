//! The workshop of a relay: jobs that take long, each a value until it is done.

use automerge::ChangeHash;
use bytes::Bytes;
use reconverge::contents::{Brought, Check, Reading, Verdict, unpack};
use reconverge::history::Fold;
use reconverge::id::ConnectionId;

/// A job of the workshop, which is done when the world says so.
#[derive(Debug)]
pub(super) enum Job {
    Unpack {
        from: ConnectionId,
        chunk: Bytes,
        known: Vec<ChangeHash>,
        segment_from: u32,
        changes: bool,
        tries: u32,
        basis: Basis,
    },
    Check {
        /// If a new snapshot is wanted.
        fold: Option<Fold>,
        from: u32,
        len: u32,
        epoch: u32,
        heads: Vec<ChangeHash>,
        snapshot: Option<Bytes>,
        changes: Vec<Bytes>,
    },
}

/// What came of a job.
#[derive(Debug)]
pub(super) enum Built {
    Unpacked {
        from: ConnectionId,
        tries: u32,
        basis: Basis,
        result: Result<Brought, String>,
    },
    Checked {
        fold: Option<Fold>,
        from: u32,
        len: u32,
        epoch: u32,
        verdict: Verdict,
    },
}

/// What an unpacking started from. While it is the same, its result fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Basis {
    /// Counts how often the history was opened, and with it how indexes may have changed.
    pub(super) opening: u64,
    pub(super) len: u32,
    pub(super) generation: u32,
}

impl Job {
    /// Does it.
    pub(super) fn run(self) -> Built {
        match self {
            Self::Unpack {
                from,
                chunk,
                known,
                segment_from,
                changes,
                tries,
                basis,
            } => Built::Unpacked {
                from,
                tries,
                basis,
                result: unpack(&chunk, &known, segment_from, changes),
            },
            Self::Check {
                fold,
                from,
                len,
                epoch,
                heads,
                snapshot,
                changes,
            } => {
                let check = Check {
                    snapshot: snapshot.as_ref(),
                    changes: &changes,
                    heads: &heads,
                    len,
                    reading: Reading::Contents,
                    wants_snapshot: fold.is_some(),
                };
                Built::Checked {
                    fold,
                    from,
                    len,
                    epoch,
                    verdict: check.run().unwrap(),
                }
            }
        }
    }
}
