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

mod again;
mod incoming;
mod live;
mod replay;
mod settling;
mod unpacking;

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use automerge::transaction::Transaction;
use automerge::{ActorId, Author, Automerge, Change, ChangeHash, Patch};
use bytes::Bytes;

pub use live::{DocumentRef, LiveDocument, Made, Writing};
pub use settling::{Settled, Settling};
pub use unpacking::Unpacked;

use live::{Owned, sign};
use unpacking::Adopted;

use crate::contents;
use crate::history::chunk::{Chunk, ChunkKind};
use crate::history::{
    Documents, Fold, History, NeedGraph, Outgoing, Quarantined, Received, Record, Refusal,
};
use crate::id::{Access, ConnectionId, Space};
use crate::protocol::SyncMessage;
use crate::storage::{Blob, Salvaged, Stored, Write};

/// Most document chunks of one message that are unpacked; peers send one.
const UNPACKS_MAX: u32 = 4;

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

/// What changed in the contents, in the order in which it applies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patches {
    /// The patches.
    pub list: Vec<Patch>,
    /// They make the contents out of nothing, and take the place of all that was; objects may have
    /// other names than before.
    pub whole: bool,
}

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

#[derive(Debug)]
enum Contents {
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
    fn built(document: Automerge, is_observed: bool) -> Self {
        Self::Built {
            heads: document.get_heads(),
            live: Owned::new(document, is_observed),
            pending: Vec::new(),
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

/// What structure let in and Automerge does not take: nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the document's contents cannot be built: {0}")]
pub struct ContentsError(String);

impl From<Refusal> for ContentsError {
    fn from(refusal: Refusal) -> Self {
        Self::of(&refusal)
    }
}

impl ContentsError {
    fn of(error: &impl ToString) -> Self {
        Self(error.to_string())
    }
}

/// What becomes of a message.
#[derive(Debug)]
pub enum Incoming {
    /// It was taken in.
    Received(Received),
    /// This must be done first, and the message received again then.
    Unpack(Settling),
}

/// A part of what is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The snapshot of this generation, from storage.
    Snapshot(u32),
    /// One change.
    Change(Bytes),
    /// The changes with these indexes, from storage.
    Changes(Range<u32>),
}

/// All changes of a document, each after its deps, if it is one that a relay would take.
///
/// # Errors
/// When it is not.
pub fn checked_changes(document: &Automerge) -> Result<Vec<Change>, ContentsError> {
    let changes = document.get_changes(&[]);
    contents::history_of(&changes).map_err(ContentsError)?;
    Ok(changes)
}

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
        let document = contents::load(saved).map_err(ContentsError)?;
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

/// The contents.
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

    fn owned(&self) -> Option<&Owned> {
        match &self.contents {
            Contents::Built { live, .. } => Some(live),
            Contents::Unbuilt { .. } => None,
        }
    }

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
    /// remembered. After [`Self::make_again`], all that there is.
    pub fn take_patches(&mut self) -> Patches {
        self.patches
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
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

    fn signed_author(&self) -> Option<Author<'static>> {
        let author = self.author.as_ref();
        author.map(|author| Author::from(author.as_bytes().to_vec()))
    }

    /// Whether an actor has edited here, this time.
    #[must_use]
    pub fn is_own(&self, actor: &ActorId) -> bool {
        // An edit of the past has an actor of its own, whose name ends with that of who makes it.
        let is = |own: &ActorId| actor.to_bytes().ends_with(own.to_bytes());
        is(&self.actor) || self.authors.iter().any(|(_, own)| is(own))
    }

    /// Who edits here, now.
    #[must_use]
    pub fn actor(&self) -> &ActorId {
        &self.actor
    }

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

    fn editable(&self) -> Arc<LiveDocument> {
        self.live().expect("only what is built is edited")
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
}

/// The contents of a replica that is in use.
fn write(live: &LiveDocument) -> Writing<'_> {
    live.write().expect("its replica is here")
}

/// Making changes again.
impl Replica {
    /// Makes changes again that no relay can take, because another change has their actor and
    /// sequence number, together with all that hang on them: under other actors, in the place of
    /// what they were. The contents stay as they are; names of objects that those changes made do
    /// not. Only changes for which `is_refused` says so count, and of them only those that no relay
    /// has: that lie in the past of none of the heads in `acknowledged`. Whether there were any.
    ///
    /// The replica is as one that was imported then: nothing of it is stored, no relay has joined,
    /// and the first commit replaces all that was stored.
    ///
    /// Only for a replica whose contents are built, and have all that was received. `None` if somebody
    /// reads or edits them: try another time.
    ///
    /// # Errors
    /// When a relay would not take them. The replica is as it was.
    pub fn make_again(
        &mut self,
        acknowledged: &[ChangeHash],
        is_refused: impl Fn(&Change) -> bool,
    ) -> Option<Result<bool, ContentsError>> {
        let live = self.editable();
        // Whoever wants to edit meanwhile does so in what takes its place.
        let writing = live.try_write()?;
        Some(self.make_again_from(&writing.document, acknowledged, is_refused))
    }

    fn make_again_from(
        &mut self,
        document: &Automerge,
        acknowledged: &[ChangeHash],
        is_refused: impl Fn(&Change) -> bool,
    ) -> Result<bool, ContentsError> {
        let known = |hash: &&ChangeHash| document.get_change_meta_by_hash(hash).is_some();
        let acknowledged: Vec<_> = acknowledged.iter().filter(known).copied().collect();
        let mut unacknowledged = document.get_changes(&acknowledged);
        unacknowledged.retain(is_refused);
        let roots: HashSet<_> = unacknowledged.iter().map(Change::hash).collect();
        let Some(first) = unacknowledged.first() else {
            return Ok(false);
        };
        let actor = again::actor_after(&first.hash(), self.actor.to_bytes());
        let (stay, made) = again::make_again(document.get_changes(&[]), &roots);
        let observed = self.patches.is_some();
        let mut replica = match Self::of_changes(actor.clone(), stay.clone(), &made)? {
            Some(replica) => replica,
            None => {
                let all: Vec<_> = stay.into_iter().chain(made).collect();
                let replica = Self::of_changes(actor, all, &[])?;
                replica.expect("nothing has to be looked up for no changes")
            }
        };
        replica.history.keep_quarantine(&self.history);
        if self.stored {
            let writes = replica.adopted.get_or_insert_default();
            writes.insert(0, Write::RemoveContents);
            writes.push(Write::Record(replica.history.record().clone()));
        }
        if observed {
            // The objects have other names now.
            replica.observe_anew();
        }
        *self = replica;
        Ok(true)
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
            contents::guard(|| document.apply_changes(folded)).map_err(ContentsError)?;
            let chunk = document.save().into();
            let adopted = Adopted::new(document, chunk, replica.history.record())?;
            replica.adopt(adopted);
        }
        let after = after.to_vec();
        contents::guard(|| replica.merge(after)).map_err(ContentsError)?;
        let entered = replica.enter_own().is_ok();
        if let Some(fault) = &replica.fault {
            return Err(ContentsError::of(fault));
        }
        Ok(entered.then_some(replica))
    }
}

/// Out of damage.
impl Replica {
    /// A document that begins anew with what is whole of one that is damaged. It is as one that was
    /// imported, but that its first commit leaves what was stored where it is. Changes of which the
    /// past is damaged are left there too; see [`Self::take_in`].
    ///
    /// # Errors
    /// When the contents cannot be built, or a relay would not take them.
    pub fn salvaged(salvaged: &Salvaged, actor: ActorId) -> Result<Self, ContentsError> {
        let snapshot = salvaged.snapshot.as_deref();
        let folded = snapshot.and_then(|snapshot| contents::load(snapshot).ok());
        let mut whole = folded.map_or_else(Vec::new, |folded| folded.get_changes(&[]));
        let mut known: HashSet<_> = whole.iter().map(Change::hash).collect();
        let quarantined = &salvaged.quarantined;
        whole.extend(fitting(&salvaged.changes, quarantined, &mut known));
        let replica = Self::of_changes(actor, whole, &[])?;
        let mut replica = replica.expect("nothing has to be looked up for no changes");
        if !quarantined.is_empty() {
            replica.history.quarantine_anew(quarantined);
            if let Some(writes) = &mut replica.adopted {
                let lot = Quarantined::encode(quarantined).into();
                writes.push(Write::Blob(Blob::Quarantine(0), lot));
                writes.push(Write::Record(replica.history.record().clone()));
            }
        }
        replica.sets_aside = true;
        Ok(replica)
    }

    /// Takes in changes that were set aside, if all that they depend on is here by now, as if they
    /// were made here. `quarantined` are not among them.
    ///
    /// # Panics
    /// Unless the contents are built.
    pub fn take_in(&mut self, aside: &[Bytes], quarantined: &[Quarantined]) {
        let mut known = HashSet::new();
        let deps = aside.iter().filter_map(parsed).flat_map(|change| {
            let of_change = change.deps().to_vec();
            of_change.into_iter().chain([change.hash()])
        });
        {
            let document = self.document().expect("only what is built is edited");
            known.extend(deps.filter(|hash| document.get_change_meta_by_hash(hash).is_some()));
        }
        let fitting = fitting(aside, quarantined, &mut known);
        // What does not fit now may fit another time; it is still there.
        let _ = self.merge(fitting);
    }
}

fn parsed(bytes: &Bytes) -> Option<Change> {
    Change::from_bytes(bytes.to_vec()).ok()
}

/// The changes, in order, whose past is `known` or among them, and which are not known themselves.
fn fitting(
    changes: &[Bytes],
    quarantined: &[Quarantined],
    known: &mut HashSet<ChangeHash>,
) -> Vec<Change> {
    let never: HashSet<_> = quarantined.iter().map(|change| change.hash).collect();
    let changes = changes.iter().filter_map(parsed);
    changes
        .filter(|change| {
            let fits = change.deps().iter().all(|hash| known.contains(hash));
            fits && !never.contains(&change.hash()) && known.insert(change.hash())
        })
        .collect()
}

/// Storage.
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

/// Relays.
impl Replica {
    /// Begins to sync with a relay, over a new connection. [`Self::greet`] it next.
    pub fn join(&mut self, relay: ConnectionId) {
        self.history.leave(relay);
        self.history.join(relay, Access::Write);
    }

    /// The connection is gone.
    pub fn leave(&mut self, relay: ConnectionId) {
        self.history.leave(relay);
    }

    /// The first message to a relay that joined, given the heads that it acknowledged before.
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and call again.
    pub fn greet(
        &mut self,
        relay: ConnectionId,
        acknowledged: &[ChangeHash],
    ) -> Result<Outgoing, NeedGraph> {
        self.history.greet(relay, acknowledged)
    }

    /// Goes on with a relay that joined and was greeted by an earlier replica of this document, of
    /// which everything is stored. If it was `heard`, it named the heads that are here.
    ///
    /// # Errors
    /// [`NeedGraph`], which the heads of a whole record do not need.
    pub fn resume(&mut self, relay: ConnectionId, heard: bool) -> Result<(), NeedGraph> {
        let heads = self.heads();
        // It was said, and need not be again.
        let _ = self.history.greet(relay, &heads)?;
        if heard {
            let named = SyncMessage {
                heads,
                need: Vec::new(),
                have: Vec::new(),
                changes: Vec::new(),
                flags: None,
            };
            self.history.receive(relay, &named, Documents::Report)?;
        }
        Ok(())
    }

    /// Gives the history the changes that were made here.
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and call again.
    pub fn enter_own(&mut self) -> Result<(), NeedGraph> {
        while let Some(change) = self.own.front() {
            let before = self.history.len();
            // Automerge made it, or has applied it: it need not be hashed and parsed once more.
            let received = self.history.receive_loaded(change)?;
            if let Some((_, refusal)) = received.refused.into_iter().next() {
                self.fault = Some(refusal);
            }
            #[cfg(feature = "planted")]
            if change.raw_bytes().len() > 150
                && crate::planted::is(crate::planted::Bug::LimitAfterShown)
            {
                self.fault = Some(crate::history::ChangeError::TOO_MANY_OPERATIONS.into());
            }
            self.own.pop_front();
            if self.history.len() > before {
                // The document has it already.
                self.given = before + 1;
                self.give();
            }
        }
        Ok(())
    }

    /// Why a change that was made here can be neither stored nor sent: it is beyond a limit. The
    /// replica is of no further use.
    #[must_use]
    pub fn fault(&self) -> Option<&Refusal> {
        self.fault.as_ref()
    }

    /// Takes in a sync message of a relay that joined. The contents follow at
    /// [`Self::settle`].
    ///
    /// # Errors
    /// [`NeedGraph`]: load it and receive the same message again.
    pub fn receive(
        &mut self,
        from: ConnectionId,
        message: &SyncMessage<'_>,
    ) -> Result<Received, NeedGraph> {
        match self.receive_at_once(from, message, &mut None, usize::MAX)? {
            Incoming::Received(received) => Ok(received),
            Incoming::Unpack(_) => unreachable!("nothing is larger"),
        }
    }

    /// The same, but that a document chunk of more bytes than this is only unpacked if that was done
    /// before.
    ///
    /// # Errors
    /// As for [`Self::receive`].
    pub fn receive_at_once(
        &mut self,
        from: ConnectionId,
        message: &SyncMessage<'_>,
        unpacked: &mut Option<Unpacked>,
        bytes_max: usize,
    ) -> Result<Incoming, NeedGraph> {
        self.enter_own()?;
        let mut documents = Documents::Report;
        let mut refused = Vec::new();
        for unpacks in 0.. {
            let received = self.history.receive(from, message, documents);
            self.give();
            let mut received = received?;
            if !received.unpack {
                received.refused.append(&mut refused);
                return Ok(Incoming::Received(received));
            }
            let Some(packed) = self.packed(message)? else {
                documents = Documents::Unpacked;
                continue;
            };
            if bytes_max < usize::MAX
                && packed.len() > bytes_max
                && unpacked.is_none()
                && unpacks == 0
            {
                return Ok(Incoming::Unpack(Settling::unpack(packed)));
            }
            match self.take_unpacked(from, &packed, unpacked.take())? {
                Ok(of_chunk) => refused.extend(of_chunk.refused),
                Err(refusal) => {
                    refused.push((None, refusal));
                    documents = Documents::Unpacked;
                }
            }
            self.give();
            if unpacks + 1 == UNPACKS_MAX {
                documents = Documents::Unpacked;
            }
        }
        unreachable!("the loop above returns");
    }

    /// Hands what entered from outside to the contents.
    fn give(&mut self) {
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

    /// Whether anything may be sent: an adopted chunk must be stored first. Own changes that the
    /// history has not got yet do not hold up those before them.
    #[must_use]
    pub fn is_sendable(&self) -> bool {
        self.adopted.is_none()
    }

    /// Whether a relay should be sent something.
    #[must_use]
    pub fn has_news(&self, relay: ConnectionId) -> bool {
        self.is_sendable() && self.history.has_news(relay)
    }

    /// What a relay should be sent now, as if it were sent. Nothing while anything is not stored.
    pub fn poll_send(&mut self, relay: ConnectionId) -> Option<(Outgoing, Vec<Piece>)> {
        if !self.is_sendable() {
            return None;
        }
        let outgoing = self.history.poll_send(relay)?;
        let mut pieces = Vec::new();
        if outgoing.snapshot {
            pieces.push(Piece::Snapshot(self.history.record().generation));
        }
        for index in outgoing.changes.iter().cloned().flatten() {
            match (self.history.recent(index), pieces.last_mut()) {
                (Some(bytes), _) => pieces.push(Piece::Change(bytes.clone())),
                (None, Some(Piece::Changes(range))) if range.end == index => range.end += 1,
                (None, _) => pieces.push(Piece::Changes(index..index + 1)),
            }
        }
        Some((outgoing, pieces))
    }

    /// The heads that a relay last named, which it has on disk, and whether all are known here.
    #[must_use]
    pub fn acknowledged(&self, by: ConnectionId) -> Option<(&[ChangeHash], bool)> {
        self.history.acknowledged(by)
    }

    /// Whether a relay takes no changes from us.
    #[must_use]
    pub fn is_refused_by(&self, relay: ConnectionId) -> bool {
        self.history.is_refused_by(relay)
    }
}
