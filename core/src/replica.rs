//! One document with its contents, and what each relay knows of it.
//!
//! A [`Replica`] is a [`History`] beside an [`Automerge`] document. The history speaks with relays,
//! decides which changes may enter and says what to store, exactly as it does in a relay; the
//! document is for those who read and edit. So an acknowledgement is a comparison of heads, and
//! never goes through Automerge, which takes 9 ms for one in a large document.
//!
//! The order that its owner keeps is the relay's *turn*: take in what came, [`Replica::settle`] the
//! contents, store what [`Replica::take_unsaved`] gives, report [`Replica::committed`], and only
//! then poll. Own changes show in the document at once, and are sent when they are stored.
//!
//! Contents are built when they are first asked for. What arrived until then, and what arrived
//! together, is applied at once: a single small change costs 37 ms in a document of 260,000. Small
//! changes on top of all that is here are made here once more instead, in 0.05 ms.
//!
//! Absent: clocks, sockets, files, and the bytes of stored changes; [`Piece`] names those.

mod contents;
mod edit;
mod incoming;
mod live;
mod rebase;
mod replay;
mod salvage;
mod settling;
mod sync;
mod unpacking;

use std::collections::VecDeque;

use automerge::{ActorId, Automerge, Change, ChangeHash};
use bytes::Bytes;

use contents::Contents;
use unpacking::Adopted;

use crate::history::chunk::{Chunk, ChunkKind};
use crate::history::{Fold, History, Quarantined, Record, Refusal};
use crate::id::Space;
use crate::storage::{Stored, Write};

pub use contents::{ContentsError, Patches};
pub use edit::{ChangeOptions, EditError, Edited};
pub use live::{DocumentRef, LiveDocument, Made, Writing};
pub use settling::{Settled, Settling};
pub use sync::{Incoming, Piece};
pub use unpacking::Unpacked;

/// One document with its contents. See the module's page.
#[derive(Debug)]
pub struct Replica {
    history: History,
    contents: Contents,
    /// Who edits here, this time. Never used by another replica, nor by this one when it is opened
    /// again.
    actor: ActorId,
    /// In whose name, if in anybody's.
    author: Option<String>,
    /// The actors of others who edited here before, this time.
    authors: Vec<(Option<String>, ActorId)>,
    /// Changes made here that the history has not got yet, in order.
    own: VecDeque<Change>,
    /// Changes below this index are in the contents, or on their way there.
    given: u32,
    /// Whether the document's record is in storage, or will be with what was taken.
    stored: bool,
    /// A chunk became the snapshot, or changes were taken out; this makes it so in storage.
    adopted: Option<Vec<Write>>,
    /// What is stored is damaged, and stays where it is when this is stored.
    sets_aside: bool,
    /// Why an own change cannot be kept.
    fault: Option<Refusal>,
    /// What changed in the contents since it was last taken, if somebody wants to know.
    patches: Option<Patches>,
    /// Whether received changes are made here once more where that is faster.
    may_replay: bool,
}

/// All changes of a document, each after its deps, if it is one that a relay would take.
///
/// # Errors
/// When it is not.
pub fn checked_changes(document: &Automerge) -> Result<Vec<Change>, ContentsError> {
    let changes = document.get_changes(&[]);
    crate::contents::history_of(&changes).map_err(ContentsError)?;
    Ok(changes)
}

/// How it begins.
impl Replica {
    /// A document that has nothing yet, edited by `actor`.
    #[must_use]
    pub fn new(actor: ActorId) -> Self {
        let document = Automerge::new().with_actor(actor.clone());
        Self {
            history: History::new(Space::default()),
            contents: Contents::built(document, false),
            actor,
            author: None,
            authors: Vec::new(),
            own: VecDeque::new(),
            fault: None,
            patches: None,
            may_replay: true,
            given: 0,
            stored: false,
            adopted: None,
            sets_aside: false,
        }
    }

    /// A document as it lies in storage, edited by `actor` from now on; `None` if it is damaged.
    /// `snapshot` is the blob of the record's generation.
    #[must_use]
    pub fn open(stored: Stored, snapshot: Option<Bytes>, actor: ActorId) -> Option<Self> {
        let outline = stored.outline.as_deref();
        if snapshot.is_none() && stored.record.generation > 0 {
            return None;
        }
        let folded = stored.record.folded;
        let history = History::open(stored.record, outline, &stored.rows)?;
        let changes = stored.rows.into_iter().flat_map(|row| row.changes);
        // The first row may reach over the fold, and then begins below it.
        let after_fold = history.len() - folded;
        let changes: Vec<Bytes> = changes.map(|change| change.bytes).collect();
        let changes = changes[changes.len().checked_sub(after_fold as usize)?..].to_vec();
        Some(Self {
            given: history.len(),
            history,
            contents: Contents::Unbuilt { snapshot, changes },
            actor,
            author: None,
            authors: Vec::new(),
            own: VecDeque::new(),
            fault: None,
            patches: None,
            may_replay: true,
            stored: true,
            adopted: None,
            sets_aside: false,
        })
    }

    /// A document made of a saved one, in any form that Automerge loads.
    ///
    /// # Errors
    /// When Automerge does not load it, or a relay would not take it.
    pub fn import(saved: &[u8], actor: ActorId) -> Result<Self, ContentsError> {
        let document = crate::contents::load(saved).map_err(ContentsError)?;
        let mut replica = Self::new(actor);
        let one_chunk = Chunk::split(saved)
            .is_ok_and(|(chunk, rest)| chunk.kind == ChunkKind::Document && rest.is_empty());
        let chunk = if one_chunk {
            Bytes::copy_from_slice(saved)
        } else {
            document.save().into()
        };
        if !document.get_heads().is_empty() {
            let adopted = Adopted::new(document, chunk, replica.history.record())?;
            replica.adopt(adopted);
        }
        Ok(replica)
    }

    /// A document with `folded` in its snapshot and `after` as rows, all of it to be stored in one
    /// commit. `None` if that commit would have to wait for the graph.
    fn of_changes(
        actor: ActorId,
        folded: Vec<Change>,
        after: &[Change],
    ) -> Result<Option<Self>, ContentsError> {
        let mut replica = Self::new(actor);
        if !folded.is_empty() {
            let mut document = Automerge::new();
            crate::contents::guard(|| document.apply_changes(folded)).map_err(ContentsError)?;
            let chunk = document.save().into();
            let adopted = Adopted::new(document, chunk, replica.history.record())?;
            replica.adopt(adopted);
        }
        let after = after.to_vec();
        crate::contents::guard(|| replica.merge(after)).map_err(ContentsError)?;
        let entered = replica.enter_own().is_ok();
        if let Some(fault) = &replica.fault {
            return Err(ContentsError::of(fault));
        }
        Ok(entered.then_some(replica))
    }
}

/// What it has.
impl Replica {
    /// Whether nobody has written anything yet, as far as is known here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.history.is_empty() && self.own.is_empty()
    }

    /// How many changes there are, but for own ones that the history has not got yet.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.history.len()
    }

    /// Whether changes were made or came that are not stored.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        !self.own.is_empty() || self.adopted.is_some() || !self.history.unsaved().is_empty()
    }

    /// Whether changes were made here that the history has not got yet.
    #[must_use]
    pub fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// The heads of all that entered, stored or not, in order.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.history.heads()
    }

    /// Whether a change is here; the folded part of the graph is not looked at.
    #[must_use]
    pub fn knows(&self, change: &ChangeHash) -> bool {
        matches!(self.history.known(change), Ok(Some(_)))
    }

    /// Whether all of `changes` lie in the past of `heads`, or are among them, as far as that can be
    /// told without the folded part of the graph.
    #[must_use]
    pub fn includes(&self, heads: &[ChangeHash], changes: &[ChangeHash]) -> bool {
        self.history.includes(heads, changes) == Ok(true)
    }

    /// The heads of what is stored, in order.
    #[must_use]
    pub fn durable_heads(&self) -> &[ChangeHash] {
        self.history.durable_heads()
    }

    /// The document's record.
    #[must_use]
    pub fn record(&self) -> &Record {
        self.history.record()
    }

    /// Makes the folded part of the graph resident, from all segments in order. `None` if they do
    /// not fit.
    #[must_use]
    pub fn load_graph(&mut self, segments: &[impl AsRef<[u8]>]) -> Option<()> {
        self.history.load_graph(segments)
    }
}

/// What goes to storage.
impl Replica {
    /// What must be written now, in one commit. Report [`Self::committed`] when it is.
    pub fn take_unsaved(&mut self) -> Option<Vec<Write>> {
        let mut writes = self.adopted.take().unwrap_or_default();
        if let Some((last, row)) = self.history.take_unsaved() {
            if !self.stored && writes.is_empty() {
                writes.push(Write::Record(self.history.record().clone()));
            }
            writes.push(Write::Row { last, row });
        }
        if !writes.is_empty() && std::mem::take(&mut self.sets_aside) {
            writes.insert(0, Write::SetAside);
        }
        self.stored |= !writes.is_empty();
        (!writes.is_empty()).then_some(writes)
    }

    /// Everything that was taken is on disk.
    pub fn committed(&mut self) {
        self.history.committed();
    }

    /// What folding the history needs, if that pays now. Only for a replica whose contents are
    /// built and of which everything is stored.
    #[must_use]
    pub fn begin_fold(&self) -> Option<Fold> {
        let Contents::Built { pending, .. } = &self.contents else {
            return None;
        };
        let settled = pending.is_empty() && !self.is_unsaved();
        (settled && self.history.should_fold()).then(|| self.history.begin_fold())
    }

    /// Never takes these changes, which were quarantined before.
    pub fn quarantine(&mut self, lot: &[Quarantined]) {
        self.history.quarantine(lot);
    }

    /// What lies in storage is replaced by this, with the next commit; until then nothing is sent.
    pub(crate) fn rewrite(&mut self, writes: Vec<Write>) {
        self.adopted = Some(writes);
    }

    /// The fold is on disk.
    pub fn folded(&mut self, record: Record) {
        self.history.folded(record);
    }
}
