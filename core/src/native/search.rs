//! Finding a document: how long relays are waited for, and what stays when nobody waits any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::driver::{Lease, Shared};
use crate::engine::FindError;
use crate::id::DocumentId;

/// How long [`Repo::find`](super::Repo::find) waits for relays that cannot be reached, unless told
/// otherwise.
pub const REACH_WITHIN: Duration = Duration::from_secs(10);

/// How long a search waits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// For no relay that cannot be reached; and as long as it takes for what is on its way.
    None,
    /// So long for relays that cannot be reached; and as long as it takes for what is on its way.
    ToReach(Duration),
    /// So long in all.
    InAll(Duration),
}

/// Looks for a document, which is used from the moment in which it was found.
pub(super) async fn search(
    shared: &Arc<Shared>,
    id: DocumentId,
    patience: Patience,
) -> Result<Arc<Lease>, FindError> {
    // Ends after the channel.
    let _searching = Searching { shared, id };
    let (finder, mut found) = oneshot::channel();
    {
        let mut state = shared.state();
        if state.storage.is_none() {
            return Err(FindError::Closed);
        }
        state.finders.entry(id).or_default().push(finder);
        match patience {
            Patience::None => state.engine.find(id),
            Patience::ToReach(_) | Patience::InAll(_) => state.engine.find_patiently(id),
        }
    }
    shared.wake.notify_one();
    let closed = || Err(FindError::Closed);
    let wait = match patience {
        Patience::None => return found.await.unwrap_or_else(|_| closed()),
        Patience::ToReach(wait) | Patience::InAll(wait) => wait,
    };
    loop {
        let until = Instant::now() + wait;
        if let Ok(found) = tokio::time::timeout_at(until, &mut found).await {
            return found.unwrap_or_else(|_| closed());
        }
        let is_over = matches!(patience, Patience::InAll(_));
        let reason = shared.state().engine.why_missing(&id);
        match reason {
            // It was found in this moment.
            None => continue,
            Some(FindError::Late) if !is_over => continue,
            Some(reason) => return Err(reason),
        }
    }
}

/// Ends a search that nobody waits for any more, however the wait ended.
struct Searching<'a> {
    shared: &'a Arc<Shared>,
    id: DocumentId,
}

impl Drop for Searching<'_> {
    fn drop(&mut self) {
        self.shared.stop_searching(self.id);
    }
}
