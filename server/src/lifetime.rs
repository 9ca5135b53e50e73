//! The tasks of a relay, and the word that it stops.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Every task of a relay is spawned here, so that its end can be waited for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lifetime {
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Lifetime {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Ends when the relay begins to stop.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Waits for so long; `false` if the relay stops before.
    pub(crate) async fn sleep(&self, duration: Duration) -> bool {
        self.unless_stopping(tokio::time::sleep(duration))
            .await
            .is_some()
    }

    /// What comes of it; `None` if the relay stops before.
    pub(crate) async fn unless_stopping<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.stopping.cancelled() => None,
            done = future => Some(done),
        }
    }

    /// Has all tasks end. How many are left when `patience` is over.
    pub(crate) async fn stop(&self, patience: Duration) -> usize {
        self.stopping.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
        self.tasks.len()
    }
}
