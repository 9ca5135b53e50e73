//! Edits of documents, under their own locks.

use automerge::ChangeHash;

use super::driver::Shared;
use super::handle::ChangeError;
use super::news::Gone;
use crate::history::Refusal;
use crate::id::DocumentId;
use crate::replica::{Made, Writing};

/// Why what was made was taken back.
pub(super) enum NotKept {
    Gone(Gone),
    Limit(Refusal),
}

impl<E> From<NotKept> for ChangeError<E> {
    fn from(reason: NotKept) -> Self {
        match reason {
            NotKept::Gone(gone) => Self::Gone(gone),
            NotKept::Limit(limit) => Self::Limit(limit),
        }
    }
}

impl Shared {
    /// Waits for those who read or edit a document, and then edits it.
    pub(super) fn edit<T>(
        &self,
        id: DocumentId,
        edit: impl FnOnce(Writing<'_>) -> T,
    ) -> Result<T, Gone> {
        loop {
            let live = {
                let state = self.state();
                if state.storage.is_none() {
                    return Err(Gone::Closed);
                }
                let live = state.engine.editable_live(&id);
                live.ok_or_else(|| state.why_gone(&id))?
            };
            // Another may have come in its place while it was waited for.
            if let Some(writing) = live.write() {
                return Ok(edit(writing));
            }
        }
    }

    /// Hands what was made to the engine, or takes it back.
    pub(super) fn keep(
        &self,
        id: DocumentId,
        mut made: Made<'_>,
    ) -> Result<Option<ChangeHash>, NotKept> {
        let kept = {
            let mut state = self.state();
            if state.storage.is_none() {
                return Err(NotKept::Gone(Gone::Closed));
            }
            let kept = state.engine.keep(&id, &mut made);
            let kept = kept.ok_or_else(|| NotKept::Gone(state.why_gone(&id)))?;
            // Whoever looks at the status next must not see that of before. Nobody sees the edit before.
            state.publish(id);
            kept
        };
        self.wake.notify_one();
        kept.map_err(NotKept::Limit)
    }
}
