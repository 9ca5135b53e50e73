//! One open document.

use std::fmt;
use std::sync::{Arc, Weak};

use automerge::transaction::Transaction;
use automerge::{ActorId, Automerge, ChangeHash, Patch, ROOT};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};

use super::critical_section::CriticalSection;
use super::driver::{Lease, Shared};
use super::news::{Broadcast, Changed, Gone};
use super::repo::{Repo, unix_seconds};
use crate::difference;
use crate::engine::{Reason, Status};
use crate::history::Refusal;
use crate::id::DocumentId;
use crate::replica::{ChangeOptions, EditError};
use crate::storage::StorageError;
use crate::typed::{self, TypedError};

/// A document that is ready: its contents are here, and follow what others write.
///
/// Clones are the same document. A handle keeps its [`Repo`] running, and the document in memory;
/// so do the streams of its changes and of presence. When all of them are gone, and relays have
/// everything, the document leaves memory after a while
/// ([`RepoBuilder::release_after`](super::RepoBuilder::release_after)) and stays in sync.
///
/// ```no_run
/// use automerge::{ROOT, ReadDoc, transaction::Transactable};
/// use futures::StreamExt;
/// # async fn example(repo: reconverge::native::Repo, url: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let counter = repo.find(url).await?;
/// let mut changes = counter.changes();
/// counter.change(|tx| tx.put(ROOT, "n", 1))?;
/// while let Some(change) = changes.next().await {
///     let n = counter.read(|doc| doc.get(ROOT, "n").map(|n| n.is_some()))??;
///     println!("now at {:?}: {n}, {}", change.after, *counter.status().borrow());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DocHandle {
    repo: Repo,
    id: DocumentId,
    lease: Arc<Lease>,
}

/// Why the past of a document is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PastError {
    /// The document cannot be used.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// There is no such change in the document here: it did not come yet, or it was never stored before
    /// its process ended.
    #[error("the document has no change {0} here")]
    Unknown(ChangeHash),
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeError<E> {
    /// The document cannot be used any more, or the client was shut down.
    Gone(Gone),
    /// What the edit returned; nothing happened.
    Edit(E),
    /// It is more than one change, or this document, may have; nothing happened. Make it in several
    /// changes, where that helps.
    Limit(Refusal),
    /// [`DocHandle::change_if`]: the document is not as it was expected to be; nothing happened.
    Changed {
        /// Its heads as they are, in order.
        heads: Vec<ChangeHash>,
    },
    /// [`DocHandle::change_at`]: there is no such change in the document here; nothing happened.
    Unknown(ChangeHash),
}

impl<E: fmt::Display> fmt::Display for ChangeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(gone) => gone.fmt(f),
            Self::Edit(error) => error.fmt(f),
            Self::Limit(limit) => write!(f, "too much for one change: {limit}"),
            Self::Changed { .. } => f.write_str("the document changed meanwhile"),
            Self::Unknown(hash) => write!(f, "the document has no change {hash} here"),
        }
    }
}

/// For any `E` that says what it is, as `Box<dyn Error>` and `anyhow::Error` do, which are no errors
/// themselves.
impl<E: fmt::Debug + fmt::Display> std::error::Error for ChangeError<E> {}

impl<E> From<EditError<E>> for ChangeError<E> {
    fn from(error: EditError<E>) -> Self {
        match error {
            EditError::Edit(error) => Self::Edit(error),
            EditError::Limit(limit) => Self::Limit(limit),
        }
    }
}

/// Why a document will not be saved at a relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// No relay takes it, for this reason.
    #[error("refused: {0}")]
    Refused(Reason),
    /// The document was deleted, or the client was shut down.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// One change of a document's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Its name.
    pub hash: ChangeHash,
    /// Who made it: one run of one client.
    pub actor: ActorId,
    /// When, in seconds since 1970, by its author's clock.
    pub time_s: i64,
    /// What its author wrote to it.
    pub message: Option<String>,
    /// The changes it was made on top of.
    pub deps: Vec<ChangeHash>,
}

impl DocHandle {
    pub(super) fn new(repo: Repo, id: DocumentId) -> Self {
        let lease = repo.shared().lease(id);
        Self { repo, id, lease }
    }

    pub(super) fn repo(&self) -> &Repo {
        &self.repo
    }

    pub(super) fn lease(&self) -> Arc<Lease> {
        self.lease.clone()
    }

    /// The document's url, by which other peers find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("automerge:{}", self.id)
    }

    /// The document's id.
    #[must_use]
    pub fn document_id(&self) -> DocumentId {
        self.id
    }

    /// Reads the document, which stands still meanwhile: edits wait, and what others write shows later.
    /// Others may read it at the same time, unless an edit waits, which goes before reads that come
    /// later. Other documents are not held up.
    ///
    /// In `read`, all that only reads may be called, of this document and of others. To edit one there
    /// would wait for itself, and panics.
    ///
    /// # Errors
    /// When the document was deleted.
    ///
    /// # Panics
    /// Within an edit.
    pub fn read<T>(&self, read: impl FnOnce(&Automerge) -> T) -> Result<T, Gone> {
        let using = CriticalSection::to_read();
        let live = self.lease.live(self.repo.shared())?;
        Ok(read(&live.read(using.is_nested())))
    }

    /// Edits the document, as one change. It shows at once, is stored next, and then sent. Who reads or
    /// edits this document meanwhile waits; other documents are not held up. It waits in its turn for
    /// those who read or edit it, and for what others wrote if that is just brought in, which may take a
    /// second in a large document: in an async function, put such an edit into
    /// [`spawn_blocking`](tokio::task::spawn_blocking).
    ///
    /// In `edit`, use the transaction; documents are neither read nor edited there.
    ///
    /// ```no_run
    /// # use automerge::{ROOT, transaction::Transactable};
    /// # fn example(handle: &reconverge::native::DocHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// handle.change(|tx| {
    ///     let items = tx.put_object(ROOT, "items", automerge::ObjType::List)?;
    ///     tx.insert(items, 0, "apples")
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `edit` returns; when the change is larger than a change may be (16,777,216 operations, 96
    /// MiB; [`CHANGE_OPS_MAX`](crate::history::CHANGE_OPS_MAX),
    /// [`CHANGE_BYTES_MAX`](crate::history::CHANGE_BYTES_MAX)), so that nobody could keep it; when the
    /// document was deleted. Then nothing happened.
    ///
    /// # Panics
    /// Within a read or an edit, of whatever document.
    pub fn change<T, E>(
        &self,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, ChangeError<E>> {
        let options = ChangeOptions::made_at(unix_seconds());
        Ok(self.change_as(options, edit)?.0)
    }

    /// The same, with a message of the author, which [`history`](Self::history) shows.
    ///
    /// # Errors
    /// As for [`Self::change`].
    pub fn change_with_message<T, E>(
        &self,
        message: &str,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, ChangeError<E>> {
        let options = ChangeOptions {
            message: Some(message),
            ..ChangeOptions::made_at(unix_seconds())
        };
        Ok(self.change_as(options, edit)?.0)
    }

    /// Gives the change with the result, if there was anything to change.
    pub(super) fn change_as<T, E>(
        &self,
        options: ChangeOptions<'_>,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<(T, Option<ChangeHash>), ChangeError<E>> {
        let _using = CriticalSection::to_edit();
        let shared = self.repo.shared();
        let edited = shared.edit(self.id, |writing| {
            if let Some(unknown) = options.at.and_then(|at| unknown_of(&writing, at)) {
                return Err(ChangeError::Unknown(unknown));
            }
            let (result, made) = writing.edit(options, edit)?;
            Ok((result, shared.keep(self.id, made)?))
        });
        edited.map_err(ChangeError::Gone)?
    }

    /// The document as a value of a type, as [`typed`] reads it. What [`Self::read`] says of its
    /// argument is true of the type's `Deserialize`.
    ///
    /// # Errors
    /// When the document is not of this type, with the place where it is not; when it was deleted.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, ChangeError<TypedError>> {
        let value = self.read(|document| typed::read(document, &ROOT));
        value.map_err(ChangeError::Gone)?.map_err(ChangeError::Edit)
    }

    /// Edits the document as a value of a type, as one change: [what is different
    /// afterwards](typed#what-an-update-writes) is written, and nothing else. Nothing that others write
    /// comes in between. Gives what `edit` gives.
    ///
    /// It is written whatever `edit` gives, an `Err`, too. An edit that may be refused is made in
    /// [`change`](Self::change), which writes nothing if it ends with an error:
    ///
    /// ```no_run
    /// # use automerge::ROOT;
    /// # use reconverge::typed;
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Article { stock: u32 }
    /// # type Failed = Box<dyn std::error::Error>;
    /// # fn example(handle: &reconverge::native::DocHandle) -> Result<(), Failed> {
    /// handle.change(|tx| {
    ///     typed::update(tx, &ROOT, |article: &mut Article| -> Result<u32, Failed> {
    ///         article.stock = article.stock.checked_sub(3).ok_or("sold out")?;
    ///         Ok(article.stock)
    ///     })?
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ```no_run
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Debug, Serialize, Deserialize)]
    /// struct Order {
    ///     customer: String,
    ///     items: Vec<String>,
    ///     note: Option<String>,
    /// }
    ///
    /// # fn example(repo: &reconverge::native::Repo) -> Result<(), Box<dyn std::error::Error>> {
    /// let order = Order { customer: "ann".into(), items: vec![], note: None };
    /// let handle = repo.create_from(&order)?;
    /// handle.update(|order: &mut Order| order.items.push("lamp".into()))?;
    /// assert_eq!(handle.get::<Order>()?.items, ["lamp"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the document is not of this type, or cannot be made so; when it was deleted. Then
    /// nothing happened.
    pub fn update<T: DeserializeOwned + Serialize, R>(
        &self,
        edit: impl FnOnce(&mut T) -> R,
    ) -> Result<R, ChangeError<TypedError>> {
        self.change(|tx| typed::update(tx, &ROOT, edit))
    }

    /// The document's heads, in order.
    ///
    /// # Errors
    /// When the document was deleted.
    pub fn heads(&self) -> Result<Vec<ChangeHash>, Gone> {
        let mut heads = self.read(|document| document.get_heads())?;
        heads.sort_unstable();
        Ok(heads)
    }

    /// The document as it was at these heads, as a copy of its own.
    ///
    /// # Errors
    /// When some head is not known here; when the document was deleted.
    pub fn view(&self, heads: &[ChangeHash]) -> Result<Automerge, PastError> {
        self.read(|document| {
            are_known(document, heads)?;
            Ok(document.fork_at(heads).expect("all of them are known"))
        })?
    }

    /// All changes, each after those it was made on top of.
    ///
    /// # Errors
    /// When the document was deleted.
    pub fn history(&self) -> Result<Vec<HistoryEntry>, Gone> {
        self.read(|document| {
            let changes = document.get_changes_meta(&[]).into_iter();
            let entry = |change: automerge::ChangeMetadata<'_>| HistoryEntry {
                hash: change.hash,
                actor: change.actor.into_owned(),
                time_s: change.timestamp,
                message: change.message.map(Into::into),
                deps: change.deps.to_vec(),
            };
            changes.map(entry).collect()
        })
    }

    /// What changed in the contents between two sets of heads; no heads are an empty document.
    ///
    /// # Errors
    /// When some head is not known here; when the document was deleted.
    pub fn diff(
        &self,
        before: &[ChangeHash],
        after: &[ChangeHash],
    ) -> Result<Vec<Patch>, PastError> {
        self.read(|document| {
            are_known(document, before)?;
            are_known(document, after)?;
            Ok(difference::between(document, before, after))
        })?
    }

    /// Changes from now on, made here or elsewhere, in the order in which the contents took them:
    /// each begins where the one before ended. What came together is one item; who is slow, by
    /// more than [`CHANGES_MAX`](super::CHANGES_MAX) items, gets all that was missed as one. The stream ends when the
    /// document is deleted or the client is shut down.
    #[must_use]
    pub fn changes(&self) -> BoxStream<'static, Arc<Changed>> {
        let (heads, heard) = self.repo.shared().state().listen(self.id);
        let listener = Listener {
            // The stream must not keep the client running.
            shared: Arc::downgrade(self.repo.shared()),
            id: self.id,
            heads,
            heard,
            lease: self.lease.clone(),
        };
        stream::unfold(listener, |mut listener| async move {
            let changed = listener.next().await?;
            Some((changed, listener))
        })
        .boxed()
    }

    /// Sends a message to all who have the document open, now or never. automerge-repo clients
    /// expect CBOR.
    pub fn broadcast(&self, data: &[u8]) {
        self.repo.shared().state().engine.broadcast(&self.id, data);
        self.repo.shared().wake.notify_one();
    }

    /// What others broadcast from now on. Who is slow loses the oldest beyond
    /// [`EPHEMERAL_MAX`](super::EPHEMERAL_MAX).
    /// The stream ends when the document is deleted or the client is shut down.
    #[must_use]
    pub fn ephemeral(&self) -> BoxStream<'static, Broadcast> {
        let mut state = self.repo.shared().state();
        let heard = state.watch(self.id, |watchers| watchers.ephemeral.subscribe());
        let listener = (heard, self.lease.clone());
        stream::unfold(listener, |(mut heard, lease)| async move {
            loop {
                match heard.recv().await {
                    Ok(message) => return Some((message, (heard, lease))),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }

    /// What is true of the document's changes, now and from now on. Nothing changes any more when
    /// the document is deleted or the client is shut down.
    ///
    /// What [`borrow`](watch::Receiver::borrow) gives holds up the whole client: clone it, and drop it
    /// before the next `await`, which else may wait for good. A statement keeps it to its end, so
    /// `println!("{} {:?}", *handle.status().borrow(), handle.when_synced().await)` is such a case.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        let mut state = self.repo.shared().state();
        state.watch(self.id, |watchers| watchers.status.subscribe())
    }

    /// The changes that were taken out of this document, now and whenever there are more: those that
    /// together with their past make no document, and those that were made on top of one. Own ones
    /// may be among them. They are kept in local storage; [`Repo::quarantined`] gives them. It is
    /// borrowed as the [status](Self::status) is.
    #[must_use]
    pub fn quarantined(&self) -> watch::Receiver<Arc<[ChangeHash]>> {
        let mut state = self.repo.shared().state();
        state.watch(self.id, |watchers| watchers.quarantined.subscribe())
    }

    /// What of the document was found damaged in local storage when it was read. It began anew with
    /// what is whole then, and relays are asked for what they have of it; what is damaged stays where
    /// it is. Own changes on top of a damaged one are made again when the document is opened another
    /// time and that one is here by then.
    #[must_use]
    pub fn damage(&self) -> Option<StorageError> {
        self.repo.shared().state().engine.damage(&self.id).cloned()
    }

    /// Waits until everything that the document has here is in local storage; without
    /// [`file`](super::RepoBuilder::file) or [`storage`](super::RepoBuilder::storage) that is memory.
    ///
    /// # Errors
    /// When storage fails. The client tries again by itself.
    pub async fn when_stored(&self) -> Result<(), StorageError> {
        self.repo.stored(self.id).await
    }

    /// Waits until some relay has on its disk everything that the document has here.
    ///
    /// # Errors
    /// When no relay takes it, or the document was deleted.
    pub async fn when_synced(&self) -> Result<(), SyncError> {
        let mut watched = self.status();
        // Relays that cannot be reached are tried more often meanwhile.
        let _waiting = Waiting::new(self.repo.shared());
        loop {
            watched.mark_unchanged();
            {
                let state = self.repo.shared().state();
                match state.engine.status(&self.id) {
                    Some(Status::Saved) => return Ok(()),
                    Some(Status::Refused(reason)) => {
                        return Err(SyncError::Refused(reason.clone()));
                    }
                    _ if state.ended => return Err(Gone::Closed.into()),
                    _ => {}
                }
            }
            let why_gone = |_| self.repo.shared().state().why_gone(&self.id);
            watched.changed().await.map_err(why_gone)?;
        }
    }
}

/// Automerge takes heads that it does not know as those of an empty document.
pub(super) fn are_known(document: &Automerge, heads: &[ChangeHash]) -> Result<(), PastError> {
    unknown_of(document, heads).map_or(Ok(()), |head| Err(PastError::Unknown(head)))
}

fn unknown_of(document: &Automerge, heads: &[ChangeHash]) -> Option<ChangeHash> {
    let is_unknown = |head: &&ChangeHash| document.get_change_meta_by_hash(head).is_none();
    heads.iter().find(is_unknown).copied()
}

/// Somebody waits for a relay.
pub(super) struct Waiting(Arc<Shared>);

impl Waiting {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.state().syncers += 1;
        shared.wake.notify_one();
        Self(shared.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.state().syncers -= 1;
    }
}

/// Who listens to the changes of a document.
struct Listener {
    shared: Weak<Shared>,
    id: DocumentId,
    /// Those after the last item.
    heads: Vec<ChangeHash>,
    heard: broadcast::Receiver<Arc<Changed>>,
    lease: Arc<Lease>,
}

impl Listener {
    async fn next(&mut self) -> Option<Arc<Changed>> {
        let changed = match self.heard.recv().await {
            Ok(changed) => changed,
            Err(broadcast::error::RecvError::Closed) => return None,
            Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up()?,
        };
        self.heads.clone_from(&changed.after);
        Some(changed)
    }

    /// All that was missed, as one.
    fn catch_up(&mut self) -> Option<Arc<Changed>> {
        let shared = self.shared.upgrade()?;
        loop {
            let using = CriticalSection::to_read();
            let live = self.lease.live(&shared).ok()?;
            let document = live.read(using.is_nested());
            let (after, heard) = shared.state().listen(self.id);
            // Another may be in its place, which is what is listened to.
            if live.is_retired() {
                continue;
            }
            self.heard = heard;
            let is_here = |hash: &ChangeHash| document.get_change_meta_by_hash(hash).is_some();
            let patches = if self.heads.iter().all(is_here) {
                difference::between(&document, &self.heads, &after)
            } else {
                document.current_state()
            };
            return Some(Arc::new(Changed {
                before: self.heads.clone(),
                after,
                patches,
            }));
        }
    }
}
