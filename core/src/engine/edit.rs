//! Reading and editing documents that are ready.

use std::sync::Arc;

use automerge::transaction::Transaction;
use automerge::{ActorId, Change, ChangeHash};

use super::Engine;
use super::document::Phase;
use super::interface::Output;
use crate::history::Refusal;
use crate::id::DocumentId;
use crate::replica::{
    ChangeOptions, ContentsError, DocumentRef, Edited, LiveDocument, Made, Patches, Replica,
};

/// Reading.
impl Engine {
    /// The contents of a document that is ready.
    #[must_use]
    pub fn document(&self, document: &DocumentId) -> Option<DocumentRef<'_>> {
        self.replica(document)?.document()
    }

    /// The same, to be read and edited without the engine, by several threads: see [`Self::keep`].
    #[must_use]
    pub fn live(&self, document: &DocumentId) -> Option<Arc<LiveDocument>> {
        self.replica(document)?.live()
    }

    /// The heads of the contents of a document that is ready, those of edits included that are not
    /// stored yet.
    #[must_use]
    pub fn contents_heads(&self, document: &DocumentId) -> Option<&[ChangeHash]> {
        self.replica(document)?.contents_heads()
    }

    /// A document that is ready, with what is known of it here.
    #[must_use]
    pub fn replica(&self, document: &DocumentId) -> Option<&Replica> {
        let found = self.documents.get(document)?;
        let is_ready = matches!(found.phase, Phase::Ready | Phase::Failed(_));
        let opened = found.opened.as_ref().filter(|_| is_ready)?;
        opened.replica.is_built().then_some(&opened.replica)
    }

    /// From now on, or no longer, remembers what changes in a document's contents. Who wants that
    /// must [`Self::take_patches`] at each [`Output::Changed`].
    pub fn observe(&mut self, document: &DocumentId, observed: bool) {
        let Some(found) = self.documents.get_mut(document) else {
            return;
        };
        if let Some(opened) = &mut found.opened {
            opened.replica.observe(observed);
        } else if let Some(was_observed) = &mut found.reread {
            *was_observed = observed;
        }
    }

    /// What changed in a document's contents since this was last called; nothing unless it is
    /// observed.
    pub fn take_patches(&mut self, document: &DocumentId) -> Patches {
        let found = self.documents.get_mut(document);
        let opened = found.and_then(|found| found.opened.as_mut());
        opened.map_or_else(Patches::default, |opened| opened.replica.take_patches())
    }
}

/// Editing.
impl Engine {
    /// Edits a document that is ready, as one change, which comes with the result if there was
    /// anything to change. `None` if it is not ready, or was deleted.
    ///
    /// # Errors
    /// As for [`Replica::change`]; then nothing happened.
    pub fn change<T, E>(
        &mut self,
        document: &DocumentId,
        options: ChangeOptions<'_>,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Option<Edited<T, E>> {
        let result = self.editable(document)?.change(options, edit);
        if let Ok((_, Some(_))) = &result {
            self.edited(document);
        }
        Some(result)
    }

    /// The contents of a document that is ready, to be [edited](LiveDocument::write) without the
    /// engine; [`Self::keep`] what was made. `None` if it is not ready, or was deleted.
    #[must_use]
    pub fn editable_live(&self, document: &DocumentId) -> Option<Arc<LiveDocument>> {
        let found = self.documents.get(document)?;
        let opened = found.opened.as_ref().filter(|_| found.is_editable())?;
        opened.replica.live()
    }

    /// Takes what was made in the contents of a document: it is stored and sent. The last change, if
    /// there is any. `None` if the document is not ready any more, or was deleted; drop what was made,
    /// and it is taken back.
    ///
    /// # Errors
    /// As for [`Replica::keep`].
    pub fn keep(
        &mut self,
        document: &DocumentId,
        made: &mut Made<'_>,
    ) -> Option<Result<Option<ChangeHash>, Refusal>> {
        let replica = self.editable(document)?;
        if !replica.has(made) {
            return None;
        }
        let kept = replica.keep(made);
        if let Ok(Some(_)) = &kept {
            self.edited(document);
        }
        Some(kept)
    }

    /// From now on, what is edited in a document is edited in the name of this author; see
    /// [`Replica::write_as`].
    pub fn write_as(
        &mut self,
        document: &DocumentId,
        author: Option<&str>,
        fresh: impl FnOnce() -> ActorId,
    ) {
        if let Some(replica) = self.editable(document) {
            replica.write_as(author, fresh);
        }
    }

    /// Takes changes of another document into one that is ready, as if they were made here; `None`
    /// if it is not ready. Whether there was anything new. See [`Replica::merge`].
    pub fn merge(
        &mut self,
        document: &DocumentId,
        changes: Vec<Change>,
    ) -> Option<Result<bool, ContentsError>> {
        let result = self.editable(document)?.merge(changes);
        if let Ok(true) = &result {
            self.edited(document);
        }
        Some(result)
    }

    fn editable(&mut self, document: &DocumentId) -> Option<&mut Replica> {
        let found = self.documents.get_mut(document)?;
        if !found.is_editable() {
            return None;
        }
        let replica = &mut found.opened.as_mut()?.replica;
        replica.is_built().then_some(replica)
    }

    pub(super) fn edited(&mut self, document: &DocumentId) {
        self.counts.changes_made += 1;
        self.outputs.push_back(Output::Changed(*document));
        self.update_status(*document);
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::LostDirtyFlag) {
            return;
        }
        self.due.insert(*document);
    }
}
