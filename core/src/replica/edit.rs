//! Changes that are made here: they show at once, and are kept to be stored and sent.

use std::sync::Arc;

use automerge::transaction::Transaction;
use automerge::{ActorId, Author, Change, ChangeHash};

use super::Replica;
use super::contents::{Contents, ContentsError, write};
use super::live::{LiveDocument, Made, sign};
use crate::history::Refusal;

/// What a change says of itself, and where in the history it is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChangeOptions<'a> {
    /// When it is made, in seconds since 1970.
    pub time_s: i64,
    /// What its author says of it.
    pub message: Option<&'a str>,
    /// The heads on which it is made, all of which must be known; the current ones unless given.
    pub at: Option<&'a [ChangeHash]>,
}

impl ChangeOptions<'_> {
    /// A change made now.
    #[must_use]
    pub fn made_at(time_s: i64) -> Self {
        Self {
            time_s,
            ..Self::default()
        }
    }
}

/// Why an edit was not made; nothing happened then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError<E> {
    /// What the edit returned.
    #[error(transparent)]
    Edit(E),
    /// It is more than one change, or this document, may have. Make it in several, where that helps.
    #[error("too much for one change: {0}")]
    Limit(Refusal),
}

/// What an edit returned, and the change that was made of it; none if there was nothing to change.
pub type Edited<T, E> = Result<(T, Option<ChangeHash>), EditError<E>>;

impl Replica {
    /// Edits the document, as one change. The change that was made comes with the result, if there
    /// was anything to change.
    ///
    /// # Errors
    /// What `edit` returns; or when the change is beyond a limit, so that neither we nor a relay
    /// could keep it.
    ///
    /// # Panics
    /// Unless the contents are built.
    pub fn change<T, E>(
        &mut self,
        options: ChangeOptions<'_>,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Edited<T, E> {
        let live = self.editable();
        let (result, mut made) = write(&live).edit(options, edit)?;
        Ok((result, self.keep(&mut made).map_err(EditError::Limit)?))
    }

    /// Takes in changes of another document, as if they were made here. They may be here already;
    /// what they depend on must be here or among them. Whether there was anything new.
    ///
    /// # Errors
    /// When Automerge does not take them. Nothing happened then.
    ///
    /// # Panics
    /// Unless the contents are built.
    pub fn merge(&mut self, changes: Vec<Change>) -> Result<bool, ContentsError> {
        let live = self.editable();
        let mut made = write(&live).merge(changes)?;
        let kept = self.keep(&mut made)?;
        Ok(kept.is_some())
    }

    /// Makes a change that changes nothing, so that a new document has something to sync.
    ///
    /// # Panics
    /// Unless the contents are built.
    pub fn begin(&mut self, time_s: i64) {
        let live = self.editable();
        let mut made = write(&live).begin(time_s);
        self.keep(&mut made).expect("nothing is within every limit");
    }

    /// Keeps changes that are in the contents: to be stored and sent. The last of them, if there are
    /// any. The contents stand still until `made` is dropped, so that nobody sees an edit before what
    /// else is said of it.
    ///
    /// # Errors
    /// When one is beyond a limit. Then they are taken back when `made` is dropped.
    ///
    /// # Panics
    /// Unless they were made in the contents of this replica.
    pub fn keep(&mut self, made: &mut Made<'_>) -> Result<Option<ChangeHash>, Refusal> {
        assert!(self.has(made), "an edit of other contents");
        for change in made.changes() {
            self.history.has_room_for(change)?;
        }
        let last = made.changes().last().map(Change::hash);
        let (changes, made, after) = made.keep();
        if let Contents::Built { heads, .. } = &mut self.contents {
            *heads = after;
        }
        if let Some(patches) = &mut self.patches {
            patches.list.extend(made);
        }
        self.own.extend(changes);
        Ok(last)
    }

    /// Whether these changes were made in the contents of this replica, and not in others that it had.
    pub(crate) fn has(&self, made: &Made<'_>) -> bool {
        self.owned().is_some_and(|live| made.is_of(live))
    }

    pub(super) fn editable(&self) -> Arc<LiveDocument> {
        self.live().expect("only what is built is edited")
    }
}

/// Who makes them.
impl Replica {
    /// Who edits here, now.
    #[must_use]
    pub fn actor(&self) -> &ActorId {
        &self.actor
    }

    /// Whether an actor has edited here, this time.
    #[must_use]
    pub fn is_own(&self, actor: &ActorId) -> bool {
        // An edit of the past has an actor of its own, whose name ends with that of who makes it.
        let is = |own: &ActorId| actor.to_bytes().ends_with(own.to_bytes());
        is(&self.actor) || self.authors.iter().any(|(_, own)| is(own))
    }

    /// From now on, what is edited here is edited in the name of this author. Automerge keeps that
    /// once for an actor, so each has one of its own: `fresh`, which nobody used, for the first time.
    pub fn write_as(&mut self, author: Option<&str>, fresh: impl FnOnce() -> ActorId) {
        if self.author.as_deref() == author {
            return;
        }
        let author = author.map(str::to_owned);
        let known = self.authors.iter().position(|(of, _)| *of == author);
        let actor = match known {
            Some(at) => self.authors.swap_remove(at).1,
            None => fresh(),
        };
        let earlier = std::mem::replace(&mut self.actor, actor);
        let author = std::mem::replace(&mut self.author, author);
        self.authors.push((author, earlier));
        if let Some(mut writing) = self.owned().and_then(|live| live.write()) {
            sign(&mut writing.document, self.signed_author(), &self.actor);
        }
    }

    pub(super) fn signed_author(&self) -> Option<Author<'static>> {
        let author = self.author.as_ref();
        author.map(|author| Author::from(author.as_bytes().to_vec()))
    }
}
