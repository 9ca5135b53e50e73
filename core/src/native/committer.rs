//! Group commit: one writer, one transaction and one durable commit for all that waits.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::storage::{Batch, Storage, StorageError};

/// Most batches in one commit, and most that wait for one. When as many wait, the next document
/// waits for room; its peers wait with it.
pub const COMMIT_BATCHES_MAX: usize = 4096;

/// About how many bytes one commit adds at most; a single larger batch goes alone.
pub const COMMIT_BYTES_MAX: usize = 64 * 1024 * 1024;

type Answer = oneshot::Sender<Result<(), NotCommitted>>;

/// A batch that could not be committed.
#[derive(Debug)]
pub struct NotCommitted {
    /// It, to be committed later; `None` if the writer is gone with it.
    pub batch: Option<Batch>,
    /// Why not.
    pub error: StorageError,
}

impl NotCommitted {
    fn closed(batch: Option<Batch>) -> Self {
        let error = StorageError::Closed;
        Self { batch, error }
    }
}

impl From<NotCommitted> for StorageError {
    fn from(failed: NotCommitted) -> Self {
        failed.error
    }
}

/// Hands batches to the one thread that writes.
#[derive(Debug, Clone)]
pub struct Committer {
    queue: mpsc::Sender<(Batch, Answer)>,
    #[cfg(feature = "testing")]
    clock: super::testing::Clock,
}

impl Committer {
    /// Starts the writer. It ends when the last clone of the committer is gone and everything
    /// that was handed in is committed; join the thread to wait for that.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(
        storage: Arc<dyn Storage>,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (queue, waiting) = mpsc::channel(COMMIT_BATCHES_MAX);
        let writer = std::thread::Builder::new().name("writer".into());
        let thread = writer.spawn(move || write_all(&*storage, waiting))?;
        let committer = Self {
            queue,
            #[cfg(feature = "testing")]
            clock: super::testing::Clock::default(),
        };
        Ok((committer, thread))
    }

    /// Commits a batch together with all others that wait; `Ok` means that it is on disk.
    ///
    /// # Errors
    /// When this batch could not be committed, tried together with others and alone.
    ///
    /// # Cancel safety
    /// A batch that was handed in is committed even if nobody waits for the answer.
    pub async fn commit(&self, batch: Batch) -> Result<(), NotCommitted> {
        #[cfg(feature = "testing")]
        let _standing_still = self.clock.stand_still();
        let (answer, answered) = oneshot::channel();
        let sent = self.queue.send((batch, answer)).await;
        sent.map_err(|unsent| NotCommitted::closed(Some(unsent.0.0)))?;
        let answer = answered.await;
        answer.unwrap_or_else(|_| Err(NotCommitted::closed(None)))
    }
}

fn write_all(storage: &dyn Storage, mut waiting: mpsc::Receiver<(Batch, Answer)>) {
    let mut left_over = None;
    while let Some((first, answer)) = left_over.take().or_else(|| waiting.blocking_recv()) {
        let mut bytes = first.bytes();
        let (mut batches, mut answers) = (vec![first], vec![answer]);
        while batches.len() < COMMIT_BATCHES_MAX
            && let Ok((batch, answer)) = waiting.try_recv()
        {
            bytes += batch.bytes();
            if bytes > COMMIT_BYTES_MAX {
                left_over = Some((batch, answer));
                break;
            }
            batches.push(batch);
            answers.push(answer);
        }
        let together = storage.commit(&batches);
        for (batch, answer) in batches.into_iter().zip(answers) {
            // What failed together is tried alone, so that a bad batch fails alone and a passing
            // fault of the disk fails nobody.
            let result = match &together {
                Ok(()) => Ok(()),
                Err(_) => storage.commit(std::slice::from_ref(&batch)),
            };
            let batch = Some(batch);
            // A document that no longer waits reads what is there when it is opened again.
            let _ = answer.send(result.map_err(|error| NotCommitted { batch, error }));
        }
    }
}
