//! Making a document under an id that the caller chose.

use std::fmt;

use automerge::transaction::Transaction;

use super::handle::DocHandle;
use super::repo::{Repo, begun_with};
use super::search::{Patience, search};
use crate::engine::{FindError, IdInUse};
use crate::history::Refusal;
use crate::id::DocumentId;
use crate::replica::EditError;
use crate::storage::StorageError;

/// Why a document was not made under an id; nothing happened then.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CreateError<E> {
    /// There is one under this id here.
    Exists,
    /// What the edit returned.
    Edit(E),
    /// It is more than one change may have.
    Limit(Refusal),
    /// Whether there is one could not be read.
    Storage(StorageError),
    /// The client was shut down.
    Closed,
}

impl<E: fmt::Display> fmt::Display for CreateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("there is a document under this id"),
            Self::Edit(error) => error.fmt(f),
            Self::Limit(limit) => write!(f, "too much for one change: {limit}"),
            Self::Storage(error) => error.fmt(f),
            Self::Closed => f.write_str("the client is shut down"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for CreateError<E> {}

impl<E> From<EditError<E>> for CreateError<E> {
    fn from(error: EditError<E>) -> Self {
        match error {
            EditError::Edit(error) => Self::Edit(error),
            EditError::Limit(limit) => Self::Limit(limit),
        }
    }
}

impl Repo {
    /// Makes a document under this id, which begins with this change, if there is none here. For
    /// documents whose id follows from something else, so that whoever needs it can name it: the hash of
    /// an order's number, or the one document of a space.
    ///
    /// Relays are not asked. If one has a document of this id, or another client makes one at the same
    /// time, they are one document, which merges: all changes of both are in it, and of two values that
    /// were put at one place one shows and the other is a conflict. So begin with what merges, or
    /// [`find`](Self::find) it first. Whoever knows how the id is made can make the document, too.
    ///
    /// Somebody who is searching for it here finds it.
    ///
    /// # Errors
    /// [`CreateError::Exists`] if there is one here, in memory or in storage; what `edit` returns; when
    /// storage cannot be read; after [`Self::shutdown`]. Nothing happened then.
    ///
    /// # Cancel safety
    /// Until it is done, nothing is made.
    pub async fn create_with_id<T, E>(
        &self,
        id: DocumentId,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<DocHandle, CreateError<E>> {
        let replica = begun_with(edit)?;
        loop {
            if self.is_stored(id).await? {
                return Err(CreateError::Exists);
            }
            let may_create = {
                let mut state = self.shared().state();
                let storage = state.storage.as_ref().ok_or(CreateError::Closed)?;
                let key = storage.new_key();
                let may_create = state.engine.may_create(&id);
                if may_create.is_ok() {
                    state.engine.create_as(id, key, replica);
                    break;
                }
                may_create
            };
            if may_create == Err(IdInUse::Exists) {
                return Err(CreateError::Exists);
            }
            match search(self.shared(), id, Patience::None).await {
                Err(FindError::Storage(error)) => return Err(CreateError::Storage(error)),
                Err(FindError::Closed) => return Err(CreateError::Closed),
                _ => {}
            }
        }
        self.shared().wake.notify_one();
        Ok(DocHandle::new(self.clone(), id))
    }

    async fn is_stored<E>(&self, id: DocumentId) -> Result<bool, CreateError<E>> {
        let storage = self.shared().state().storage.clone();
        let storage = storage.ok_or(CreateError::Closed)?;
        let load = tokio::task::spawn_blocking(move || storage.load(&id).map(|it| it.is_some()));
        match load.await.map_err(|_| CreateError::Closed)? {
            // What is damaged is there.
            Err(StorageError::Damaged { .. }) => Ok(true),
            read => read.map_err(CreateError::Storage),
        }
    }
}
