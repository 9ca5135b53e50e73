//! Following a document from a cursor, without missing or repeating anything.

use std::sync::{Arc, Weak};

use automerge::ChangeHash;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use super::critical_section::CriticalSection;
use super::driver::{Lease, Shared};
use super::handle::{DocHandle, PastError, are_known};
use super::news::{Changed, Gone};
use crate::difference;
use crate::id::DocumentId;

impl DocHandle {
    /// What changed in the document since `cursor`, and from now on, as one item for all that is stored
    /// at a time. No heads are an empty document; [`Changed::after`] of an item is the cursor for those
    /// after it.
    ///
    /// Only what is in local storage is told, so a cursor that was kept is known after a restart,
    /// however the process ended. Who keeps the cursor together with what an item made it do (in one
    /// transaction) and follows from there misses nothing and does nothing twice. The stream ends when
    /// the document is deleted or the client is shut down. Until it is dropped, it keeps the document in
    /// memory, as a handle does.
    ///
    /// ```no_run
    /// # use futures::StreamExt;
    /// # async fn example(order: reconverge::native::DocHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// # fn load_cursor() -> Vec<automerge::ChangeHash> { vec![] }
    /// # fn store(_: &[automerge::Patch], _: &[automerge::ChangeHash]) -> std::io::Result<()> { Ok(()) }
    /// let mut changes = order.follow(&load_cursor());
    /// while let Some(change) = changes.next().await {
    ///     let change = change?;
    ///     store(&change.patches, &change.after)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// An item is an error, and the last one, when the document does not have the changes of the cursor:
    /// they were taken out or made again under another name, which is rare (see
    /// [`Changed::patches`]), or the cursor is of other storage. Begin anew with no heads then.
    #[must_use]
    pub fn follow(
        &self,
        cursor: &[ChangeHash],
    ) -> BoxStream<'static, Result<Arc<Changed>, PastError>> {
        let mut cursor = cursor.to_vec();
        cursor.sort_unstable();
        let stored = self
            .repo()
            .shared()
            .state()
            .watch_durable(self.document_id());
        let follower = Follower {
            shared: Arc::downgrade(self.repo().shared()),
            id: self.document_id(),
            cursor,
            stored,
            lease: self.lease(),
        };
        stream::unfold(Some(follower), |follower| async move {
            let mut follower = follower?;
            match follower.next().await? {
                Ok(changed) => Some((Ok(changed), Some(follower))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

struct Follower {
    /// The stream must not keep the client running.
    shared: Weak<Shared>,
    id: DocumentId,
    cursor: Vec<ChangeHash>,
    /// The heads of what is stored.
    stored: watch::Receiver<Vec<ChangeHash>>,
    lease: Arc<Lease>,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Arc<Changed>, PastError>> {
        loop {
            let stored = self.stored.borrow_and_update().clone();
            if stored != self.cursor
                && !stored.is_empty()
                && let Some(told) = self.lead_to(stored)
            {
                return Some(told);
            }
            self.stored.changed().await.ok()?;
        }
    }

    /// What leads from the cursor to these heads. `None` while the document is being read again, and
    /// when it is gone.
    fn lead_to(&mut self, after: Vec<ChangeHash>) -> Option<Result<Arc<Changed>, PastError>> {
        let shared = self.shared.upgrade()?;
        let using = CriticalSection::to_read();
        let Ok(live) = self.lease.live(&shared) else {
            let is_for_good = shared.state().engine.failure(&self.id).is_some();
            return is_for_good.then_some(Err(PastError::Gone(Gone::Unusable)));
        };
        let document = live.read(using.is_nested());
        if let Err(unknown) = are_known(&document, &self.cursor) {
            return Some(Err(unknown));
        }
        // They may be of what is in its place by now; there are others then.
        are_known(&document, &after).ok()?;
        let patches = difference::between(&document, &self.cursor, &after);
        let before = std::mem::replace(&mut self.cursor, after.clone());
        Some(Ok(Arc::new(Changed {
            before,
            after,
            patches,
        })))
    }
}
