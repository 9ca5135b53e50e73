//! The contents of a document that is in memory, with a lock of their own.
//!
//! Whoever reads or edits holds this lock and no other, so one document waits for another neither
//! while it is read nor during a long edit. The engine, which has a lock too, never waits for this one
//! while it has its own: it tries, and otherwise has the work done elsewhere by
//! [`Settling`](super::Settling). The other way round is allowed: an edit is handed to the engine
//! while the contents still stand still, so that the two never disagree.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Author, Automerge, Change, ChangeHash, Patch, PatchLog, ReadDoc};

use super::{ChangeOptions, ContentsError, EditError, incoming};
use crate::difference;
use crate::history::{CHANGE_OPS_MAX, ChangeError, Refusal};

use lock::{ReadGuard, RwLock, WriteGuard};

/// A lock that lets a thread read which reads already.
#[cfg(feature = "native")]
mod lock {
    pub(super) use parking_lot::{
        RwLock, RwLockReadGuard as ReadGuard, RwLockWriteGuard as WriteGuard,
    };
}

/// One thread, which waits for nobody.
#[cfg(not(feature = "native"))]
mod lock {
    pub(super) use std::cell::{Ref as ReadGuard, RefMut as WriteGuard};

    #[derive(Debug)]
    pub(super) struct RwLock<T>(std::cell::RefCell<T>);

    impl<T> RwLock<T> {
        pub(super) fn new(value: T) -> Self {
            Self(std::cell::RefCell::new(value))
        }

        pub(super) fn read_recursive(&self) -> ReadGuard<'_, T> {
            self.0.borrow()
        }

        pub(super) fn read(&self) -> ReadGuard<'_, T> {
            self.0.borrow()
        }

        pub(super) fn try_read(&self) -> Option<ReadGuard<'_, T>> {
            self.0.try_borrow().ok()
        }

        pub(super) fn write(&self) -> WriteGuard<'_, T> {
            self.0.borrow_mut()
        }

        pub(super) fn try_write(&self) -> Option<WriteGuard<'_, T>> {
            self.0.try_borrow_mut().ok()
        }
    }
}

/// The contents of a document that is in memory. See the module's page.
#[derive(Debug)]
pub struct LiveDocument {
    document: RwLock<Automerge>,
    /// Another one is in its place, or none.
    is_retired: AtomicBool,
    /// Somebody wants to know what changes.
    is_observed: AtomicBool,
}

impl LiveDocument {
    fn new(document: Automerge, is_observed: bool) -> Self {
        Self {
            document: RwLock::new(document),
            is_retired: AtomicBool::new(false),
            is_observed: AtomicBool::new(is_observed),
        }
    }

    /// The document, which stands still until what is returned is dropped. Waits for an edit; `nested`
    /// says that this thread reads some document already, and then it waits for nobody who waits.
    pub fn read(&self, nested: bool) -> DocumentRef<'_> {
        DocumentRef(if nested {
            self.document.read_recursive()
        } else {
            self.document.read()
        })
    }

    /// The same, if it need not be waited for.
    pub(super) fn try_read(&self) -> Option<DocumentRef<'_>> {
        self.document.try_read().map(DocumentRef)
    }

    /// The document, to be edited by nobody else meanwhile. Waits for those who read it; `None` if
    /// another one is in its place by then.
    #[must_use]
    pub fn write(&self) -> Option<Writing<'_>> {
        let document = self.document.write();
        (!self.is_retired()).then_some(Writing {
            document,
            live: self,
        })
    }

    /// The same, whatever is in its place, if it need not be waited for.
    pub(super) fn try_write(&self) -> Option<Writing<'_>> {
        let document = self.document.try_write()?;
        Some(Writing {
            document,
            live: self,
        })
    }

    /// Whether another one is in its place, or none.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    pub(super) fn observe(&self, observed: bool) {
        self.is_observed.store(observed, Ordering::Release);
    }

    pub(super) fn is_observed(&self) -> bool {
        self.is_observed.load(Ordering::Acquire)
    }
}

/// A document that stands still.
pub struct DocumentRef<'a>(ReadGuard<'a, Automerge>);

impl Deref for DocumentRef<'_> {
    type Target = Automerge;

    fn deref(&self) -> &Automerge {
        &self.0
    }
}

impl fmt::Debug for DocumentRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DocumentRef")
            .field(&self.get_heads())
            .finish()
    }
}

/// The replica's hold on its contents, which are of no use to anybody without it.
#[derive(Debug)]
pub(super) struct Owned(Arc<LiveDocument>);

impl Owned {
    pub(super) fn new(document: Automerge, is_observed: bool) -> Self {
        Self(Arc::new(LiveDocument::new(document, is_observed)))
    }

    pub(super) fn share(&self) -> Arc<LiveDocument> {
        self.0.clone()
    }
}

impl Deref for Owned {
    type Target = LiveDocument;

    fn deref(&self) -> &LiveDocument {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.is_retired.store(true, Ordering::Release);
    }
}

/// A document that one edits and nobody else uses.
pub struct Writing<'a> {
    pub(super) document: WriteGuard<'a, Automerge>,
    live: &'a LiveDocument,
}

impl fmt::Debug for Writing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = self.document.get_heads();
        f.debug_struct("Writing").field("heads", &heads).finish()
    }
}

impl Deref for Writing<'_> {
    type Target = Automerge;

    fn deref(&self) -> &Automerge {
        &self.document
    }
}

impl<'a> Writing<'a> {
    /// Makes one change, which is to be handed to the engine by [`Engine::keep`] (or to the replica by
    /// [`Replica::keep`]), and is taken back otherwise.
    ///
    /// # Errors
    /// What `edit` returns, or when there are more operations than a change may have.
    ///
    /// [`Engine::keep`]: crate::engine::Engine::keep
    /// [`Replica::keep`]: super::Replica::keep
    pub fn edit<T, E>(
        mut self,
        options: ChangeOptions<'_>,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<(T, Made<'a>), EditError<E>> {
        let before = self.document.get_heads();
        let mut past = past(&self.document, options.at, &before);
        // An edit of the past notes what it changes there, and not what it changes now.
        let log = PatchLog::new(past.is_none() && self.is_observed());
        let edited = past.as_mut().unwrap_or(&mut self.document);
        let mut transaction = edited
            .transaction_log_patches(log)
            .expect("an empty log fits every document");
        let result = match edit(&mut transaction) {
            Ok(result) => result,
            Err(error) => {
                transaction.rollback();
                return Err(EditError::Edit(error));
            }
        };
        let committed = commit(transaction, &options).map_err(EditError::Limit)?;
        Ok((result, self.edited(past, before, committed)))
    }

    fn edited(
        mut self,
        past: Option<Automerge>,
        before: Vec<ChangeHash>,
        (hash, mut log): (Option<ChangeHash>, PatchLog),
    ) -> Made<'a> {
        let is_observed = self.is_observed();
        let document = &mut *self.document;
        let edited = past.as_ref().unwrap_or(document);
        let change = hash.and_then(|hash| edited.get_change_by_hash(&hash));
        if past.is_some()
            && let Some(change) = &change
        {
            let applied = document.apply_changes(vec![change.clone()]);
            applied.expect("all that it depends on is here");
        }
        let patches = is_observed.then(|| {
            let noted = past.is_none().then(|| document.make_patches(&mut log));
            let right = noted.filter(|noted| !difference::may_miscount(document, noted));
            let all = || difference::between(document, &before, &document.get_heads());
            right.unwrap_or_else(all)
        });
        Made::new(self, change.into_iter().collect(), before, patches)
    }

    /// Takes in changes of another document. They may be here already; what they depend on must be here
    /// or among them. What is new is handed on as what [`Self::edit`] makes.
    ///
    /// # Errors
    /// When Automerge does not take them. Nothing happened then.
    pub fn merge(mut self, changes: Vec<Change>) -> Result<Made<'a>, ContentsError> {
        let document = &mut *self.document;
        let is_new = |change: &Change| document.get_change_meta_by_hash(&change.hash()).is_none();
        let new: Vec<Change> = changes.into_iter().filter(is_new).collect();
        let before = document.get_heads();
        let is_observed = self.live.is_observed();
        let patches = incoming::apply(document, new.clone(), is_observed)
            .map_err(|error| ContentsError::of(&error))?;
        let patches = is_observed.then_some(patches);
        Ok(Made::new(self, new, before, patches))
    }

    /// Makes a change that changes nothing, so that a new document has something to sync.
    pub(super) fn begin(mut self, time_s: i64) -> Made<'a> {
        let before = self.document.get_heads();
        let options = CommitOptions::default().with_time(time_s);
        let hash = self.document.empty_commit(options);
        let change = self.document.get_change_by_hash(&hash);
        let changes = vec![change.expect("it was just made")];
        Made::new(self, changes, before, None)
    }

    pub(super) fn retire(&self) {
        self.live.is_retired.store(true, Ordering::Release);
    }

    /// Whether it is this one that is edited.
    pub(super) fn is_of(&self, live: &LiveDocument) -> bool {
        std::ptr::eq(self.live, live)
    }

    pub(super) fn is_observed(&self) -> bool {
        self.live.is_observed()
    }
}

/// Changes that are in the contents, and nowhere else yet. Taken back when it is dropped.
#[must_use]
pub struct Made<'a> {
    writing: Writing<'a>,
    changes: Vec<Change>,
    before: Vec<ChangeHash>,
    /// What they changed, if somebody wanted to know when they were made.
    patches: Option<Vec<Patch>>,
}

impl fmt::Debug for Made<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made")
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Made<'a> {
    fn new(
        writing: Writing<'a>,
        changes: Vec<Change>,
        before: Vec<ChangeHash>,
        patches: Option<Vec<Patch>>,
    ) -> Self {
        Self {
            writing,
            changes,
            before,
            patches,
        }
    }

    pub(super) fn is_of(&self, live: &LiveDocument) -> bool {
        self.writing.is_of(live)
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// They stay: the changes, what they changed, and the heads after them. The contents stand still
    /// until this is dropped.
    pub(super) fn keep(&mut self) -> (Vec<Change>, Vec<Patch>, Vec<ChangeHash>) {
        let document = &*self.writing.document;
        let after = document.get_heads();
        let patches = match self.patches.take() {
            Some(patches) => patches,
            // Somebody began to listen in the meantime.
            None if self.writing.is_observed() => {
                difference::between(document, &self.before, &after)
            }
            None => Vec::new(),
        };
        (std::mem::take(&mut self.changes), patches, after)
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.changes.is_empty() {
            self.take_back();
        }
    }
}

impl Made<'_> {
    #[cold]
    fn take_back(&mut self) {
        let document = &mut *self.writing.document;
        let (actor, author) = signature(document);
        let without = document.fork_at(&self.before);
        *document = without.expect("these were its heads just now");
        sign(document, author, &actor);
    }
}

/// Ends a transaction, if it is not too much for one change.
fn commit(
    transaction: Transaction<'_>,
    options: &ChangeOptions<'_>,
) -> Result<(Option<ChangeHash>, PatchLog), Refusal> {
    // Taken back like this it costs nothing; what only its bytes tell costs more, in `Made`.
    if transaction.pending_ops() as u64 > CHANGE_OPS_MAX {
        transaction.rollback();
        return Err(ChangeError::TOO_MANY_OPERATIONS.into());
    }
    let mut commit = CommitOptions::default().with_time(options.time_s);
    if let Some(message) = options.message {
        commit = commit.with_message(message);
    }
    Ok(transaction.commit_with(commit))
}

/// The document as it was at these heads, if that is not now.
fn past(document: &Automerge, at: Option<&[ChangeHash]>, now: &[ChangeHash]) -> Option<Automerge> {
    let at = at.filter(|heads| !difference::is_now(document, heads))?;
    // Not by `transaction_at`: in a text it may take a mark for a neighbour that was made later, and
    // a change that refers to what is not in its past breaks whoever has not heard of that.
    let past = document.fork_at(at);
    let mut past = past.expect("who asks for the past knows these heads");
    // Unlike any before: some head is another one after each change.
    let mut name = [0; 8];
    for head in now {
        name.iter_mut()
            .zip(head.0)
            .for_each(|(all, one)| *all ^= one);
    }
    let (actor, author) = signature(document);
    let actor = ActorId::from([&name[..], actor.to_bytes()].concat());
    sign(&mut past, author, &actor);
    Some(past)
}

/// Who edits a document.
fn signature(document: &Automerge) -> (ActorId, Option<Author<'static>>) {
    (document.get_actor().clone(), document.get_author().cloned())
}

/// Automerge draws an actor for another author, which is not ours.
pub(super) fn sign(document: &mut Automerge, author: Option<Author<'static>>, actor: &ActorId) {
    document.set_author(author);
    document.set_actor(actor.clone());
}
