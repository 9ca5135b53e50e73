//! The contents: built when they are first asked for, and brought up to what was received.

use std::sync::Arc;

use automerge::{Automerge, ChangeHash, Patch};
use bytes::Bytes;

use super::Replica;
use super::live::{DocumentRef, LiveDocument, Owned, Writing};
use crate::history::Refusal;

#[derive(Debug)]
pub(super) enum Contents {
    Unbuilt {
        snapshot: Option<Bytes>,
        changes: Vec<Bytes>,
    },
    Built {
        live: Owned,
        /// Its heads, which need no lock.
        heads: Vec<ChangeHash>,
        /// What is not in it yet.
        pending: Vec<Bytes>,
    },
}

impl Contents {
    pub(super) fn built(document: Automerge, is_observed: bool) -> Self {
        Self::Built {
            heads: document.get_heads(),
            live: Owned::new(document, is_observed),
            pending: Vec::new(),
        }
    }
}

/// What changed in the contents, in the order in which it applies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patches {
    /// The patches.
    pub list: Vec<Patch>,
    /// They make the contents out of nothing, and take the place of all that was; objects may have
    /// other names than before.
    pub whole: bool,
}

/// What structure let in and Automerge does not take: nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the document's contents cannot be built: {0}")]
pub struct ContentsError(pub(super) String);

impl From<Refusal> for ContentsError {
    fn from(refusal: Refusal) -> Self {
        Self::of(&refusal)
    }
}

impl ContentsError {
    pub(super) fn of(error: &impl ToString) -> Self {
        Self(error.to_string())
    }
}

impl Replica {
    /// Whether the contents are built.
    #[must_use]
    pub fn is_built(&self) -> bool {
        matches!(self.contents, Contents::Built { .. })
    }

    /// Builds the contents, if that was not done.
    ///
    /// # Errors
    /// When what was stored cannot be built, or has other heads than the history.
    pub fn build(&mut self) -> Result<(), ContentsError> {
        if self.is_built() {
            return Ok(());
        }
        self.build_now().map(|_| ())
    }

    /// Brings the contents up to all that was received, at once. Whether that changed them. Waits for
    /// those who read or edit them.
    ///
    /// # Errors
    /// When Automerge does not take it. Do not store what is unsaved then, and use the replica no
    /// more.
    pub fn settle(&mut self) -> Result<bool, ContentsError> {
        match &self.contents {
            Contents::Built { live, pending, .. } if !pending.is_empty() => {
                let live = live.share();
                self.settle_in(write(&live))
            }
            _ => Ok(false),
        }
    }

    /// Whether something was received that is not in the contents.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        let (Contents::Unbuilt { changes, .. }
        | Contents::Built {
            pending: changes, ..
        }) = &self.contents;
        !changes.is_empty()
    }

    /// Hands what entered from outside to the contents.
    pub(super) fn give(&mut self) {
        let unsaved = self.history.unsaved();
        let new = (self.history.len() - self.given) as usize;
        let new = &unsaved[unsaved.len() - new..];
        let (Contents::Unbuilt { changes, .. }
        | Contents::Built {
            pending: changes, ..
        }) = &mut self.contents;
        changes.extend(new.iter().map(|change| change.bytes.clone()));
        self.given = self.history.len();
    }

    /// The contents, once they are built; what was received since [`Self::settle`] is not in. Waits for
    /// an edit.
    #[must_use]
    pub fn document(&self) -> Option<DocumentRef<'_>> {
        match &self.contents {
            Contents::Built { live, .. } => Some(live.read(true)),
            Contents::Unbuilt { .. } => None,
        }
    }

    /// The same, if no edit need be waited for.
    #[must_use]
    pub fn try_document(&self) -> Option<DocumentRef<'_>> {
        self.owned()?.try_read()
    }

    /// The contents, once they are built, to be read and edited without the replica.
    #[must_use]
    pub fn live(&self) -> Option<Arc<LiveDocument>> {
        self.owned().map(Owned::share)
    }

    /// The heads of the contents, once they are built.
    #[must_use]
    pub fn contents_heads(&self) -> Option<&[ChangeHash]> {
        match &self.contents {
            Contents::Built { heads, .. } => Some(heads),
            Contents::Unbuilt { .. } => None,
        }
    }

    pub(super) fn owned(&self) -> Option<&Owned> {
        match &self.contents {
            Contents::Built { live, .. } => Some(live),
            Contents::Unbuilt { .. } => None,
        }
    }
}

/// What changes in them.
impl Replica {
    /// From now on, or no longer, remembers what changes in the contents, for
    /// [`Self::take_patches`].
    pub fn observe(&mut self, observed: bool) {
        match (&self.patches, observed) {
            (None, true) => self.patches = Some(Patches::default()),
            (Some(_), false) => self.patches = None,
            _ => {}
        }
        if let Some(live) = self.owned() {
            live.observe(observed);
        }
    }

    /// Begins to remember what changes, with all that there is in the place of what was before.
    pub fn observe_anew(&mut self) {
        let state = self.document().map(|document| document.current_state());
        self.patches = Some(Patches {
            list: state.unwrap_or_default(),
            whole: true,
        });
        if let Some(live) = self.owned() {
            live.observe(true);
        }
    }

    /// Whether [`Self::take_patches`] gives what changed.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.patches.is_some()
    }

    /// What changed in the contents since this was last called; nothing if that was not
    /// remembered. After [`Self::rebase`], all that there is.
    pub fn take_patches(&mut self) -> Patches {
        self.patches
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }
}

/// The contents of a replica that is in use.
pub(super) fn write(live: &LiveDocument) -> Writing<'_> {
    live.write().expect("its replica is here")
}
