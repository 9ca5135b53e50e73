//! Which documents there are here, and what comes and goes.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Weak};

use futures::stream::{self, BoxStream, StreamExt};

use super::document_events::{DocumentEvent, Queue};
use super::driver::Shared;
use super::repo::Repo;
use crate::id::DocumentId;
use crate::storage::{Storage, StorageError};

/// So many ids are read from storage at a time.
const PAGE_MAX: usize = 1024;

impl Repo {
    /// The documents that are here, in storage or in memory, each once and in no order: those that were
    /// made, imported or found here and not deleted, whether they can be read or not. Not those that are
    /// searched for. Nothing of them is read but their ids, 1,024 at a time, as the stream is.
    ///
    /// A client is one space of documents: all of them go to all of its relays. Who has several, as of
    /// several customers, has a client and a file for each.
    ///
    /// # Errors
    /// An item is an error, and the last one, when reading fails or the client was shut down.
    #[must_use]
    pub fn documents(&self) -> BoxStream<'static, Result<DocumentId, StorageError>> {
        let listing = Listing::new(self.shared(), None);
        stream::unfold(Some(listing), |listing| async move {
            let mut listing = listing?;
            match listing.next().await.transpose()? {
                Ok(id) => Some((Ok(id), Some(listing))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    /// The same as events, and from then on what comes and goes; nothing is missed between. What is
    /// deleted by [`Self::delete`] is told when it is removed from storage.
    ///
    /// Who is slow hears of each document only what came last: that it was deleted, and not that it had
    /// been added since the last item; or that it was added though they know it, if it was deleted and came
    /// again. So what waits for them is at most one word for each document that came or went. The stream
    /// ends when the client is shut down.
    ///
    /// ```no_run
    /// # use futures::StreamExt;
    /// # use reconverge::native::{DocumentEvent, Repo};
    /// # async fn example(repo: Repo) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut events = repo.watch_documents();
    /// while let Some(event) = events.next().await {
    ///     match event? {
    ///         DocumentEvent::Added(id) => println!("automerge:{id} is here"),
    ///         DocumentEvent::Deleted(id) => println!("automerge:{id} is gone"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// An item is an error, and the last one, when reading fails.
    #[must_use]
    pub fn watch_documents(&self) -> BoxStream<'static, Result<DocumentEvent, StorageError>> {
        let queue = Arc::new(Queue::default());
        let listing = Listing::new(self.shared(), Some(&queue));
        let watcher = Watcher {
            listing: Some(listing),
            queue,
        };
        stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await.transpose()? {
                Ok(event) => Some((Ok(event), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

struct Watcher {
    /// What was here when it began, as far as that was not told yet.
    listing: Option<Listing>,
    queue: Arc<Queue>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Option<DocumentEvent>, StorageError> {
        while let Some(listing) = &mut self.listing {
            let next = match listing.next().await {
                // What came before the client was shut down is told.
                Err(StorageError::Closed) => None,
                next => next?,
            };
            match next {
                // What came since is told after this, and once.
                Some(id) if self.queue.waiting().is_here.contains_key(&id) => {}
                Some(id) => return Ok(Some(DocumentEvent::Added(id))),
                None => self.listing = None,
            }
        }
        Ok(self.queue.next().await)
    }
}

/// Goes through what is here: first what the engine has, then what else is stored.
struct Listing {
    /// `None` once the client was shut down. The stream must not keep it running.
    storage: Option<Weak<dyn Storage>>,
    in_memory: HashSet<DocumentId>,
    page: VecDeque<DocumentId>,
    /// From which on the next page is read; `None` after the last one.
    after: Option<Option<DocumentId>>,
}

impl Listing {
    fn new(shared: &Shared, watched_by: Option<&Arc<Queue>>) -> Self {
        let mut state = shared.state();
        match watched_by {
            Some(queue) if state.ended => queue.waiting().has_ended = true,
            Some(queue) => state.news.add(queue),
            None => {}
        }
        let in_memory: HashSet<_> = state.engine.existing().copied().collect();
        let mut page: VecDeque<_> = in_memory.iter().copied().collect();
        if watched_by.is_some() {
            // These are told as news.
            let unannounced: HashSet<_> = state.engine.unannounced().collect();
            page.retain(|id| !unannounced.contains(id));
        }
        Self {
            storage: state.storage.as_ref().map(Arc::downgrade),
            page,
            in_memory,
            after: Some(None),
        }
    }

    async fn next(&mut self) -> Result<Option<DocumentId>, StorageError> {
        loop {
            if let Some(id) = self.page.pop_front() {
                return Ok(Some(id));
            }
            let Some(after) = self.after else {
                return Ok(None);
            };
            let storage = self.storage.as_ref().and_then(Weak::upgrade);
            let storage = storage.ok_or(StorageError::Closed)?;
            let read = move || storage.documents(after.as_ref(), PAGE_MAX);
            let read = tokio::task::spawn_blocking(read).await;
            let page = read.map_err(StorageError::failed)??;
            let is_last = page.len() < PAGE_MAX;
            self.after = (!is_last).then(|| page.last().copied());
            let others = page.into_iter().filter(|id| !self.in_memory.contains(id));
            self.page.extend(others);
        }
    }
}
