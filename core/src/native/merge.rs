//! Taking over what was written in a copy of a document, outside of the client.

use automerge::Automerge;

use super::critical_section::CriticalSection;
use super::editing::NotKept;
use super::handle::DocHandle;
use super::news::Gone;
use crate::replica::{ContentsError, checked_changes};

/// Why a document that was changed outside was not merged; nothing of it was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A relay would not take it, or it does not fit to what is here: two changes of one actor have
    /// one number, as when a copy was not made by [`Automerge::fork`] and edited on both sides.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// The document cannot be used.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl DocHandle {
    /// Takes all changes of `other` that are not here, as if they were made here: of a copy that
    /// [`Self::view`] or [`Automerge::fork`] gave and that was edited elsewhere, or of any document,
    /// whose contents are merged then. Whether there was anything new. It shows at once, is stored
    /// next, and then sent.
    ///
    /// `other` is checked as [`Repo::import`](super::Repo::import) checks, on a thread that may block;
    /// that takes a while for large documents. Nothing waits for it.
    ///
    /// # Errors
    /// When these changes could not be kept here or at a relay; when the document was deleted, or the
    /// client was shut down. Nothing happened then.
    ///
    /// # Cancel safety
    /// What was not merged yet is not.
    pub async fn merge(&self, other: &Automerge) -> Result<bool, MergeError> {
        let (other, shared, id) = (
            other.clone(),
            self.repo().shared().clone(),
            self.document_id(),
        );
        let merge = move || {
            let changes = checked_changes(&other)?;
            let _using = CriticalSection::to_edit();
            shared.edit(id, |writing| {
                match shared.keep(id, writing.merge(changes)?) {
                    Ok(last) => Ok(last.is_some()),
                    Err(NotKept::Limit(limit)) => Err(ContentsError::from(limit).into()),
                    Err(NotKept::Gone(gone)) => Err(gone.into()),
                }
            })?
        };
        let merged = tokio::task::spawn_blocking(merge).await;
        merged.map_err(|_| Gone::Closed)?
    }
}
