//! Peers that joined and share nothing: a hint for the operator.
//!
//! Many apps share documents only with a peer whose id says that it is a server. To one with
//! another name they say nothing at all: the app works, shows no error, and nothing leaves its
//! browser. The relay cannot tell such an app from one that has not opened a document yet, so what
//! it logs is a hint, and how often is bounded for all connections together.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pings after which a peer that shared nothing is counted.
pub(crate) const PINGS: u32 = 3;

/// The log has at most one line of this kind in such a time.
const QUIET: Duration = Duration::from_secs(60 * 60);

/// What was counted, over all connections.
#[derive(Debug, Default)]
pub(crate) struct SilentPeers(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    told_at: Option<Instant>,
    passed_over: u64,
}

impl SilentPeers {
    /// Counts a connection. `Some` when its line may be written, with the number of connections
    /// that were counted since the last line and are in none.
    pub(crate) fn count(&self, now: Instant) -> Option<u64> {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if count.told_at.is_some_and(|at| now < at + QUIET) {
            count.passed_over += 1;
            return None;
        }
        count.told_at = Some(now);
        Some(std::mem::take(&mut count.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_silent_peers_are_one_line_an_hour() {
        let (unheard, start) = (SilentPeers::default(), Instant::now());
        let after = |s| unheard.count(start + Duration::from_secs(s));
        assert_eq!(after(0), Some(0));
        for s in 1..3600 {
            assert_eq!(after(s), None);
        }
        assert_eq!(after(3600), Some(3599));
        assert_eq!(after(3601), None);
        assert_eq!(after(10_000), Some(1));
    }
}
