//! What of a replica's work may take long, done without the replica: bringing the contents up to what
//! was received, and unpacking a whole document.
//!
//! [`Replica::begin_settling`] gives what is to be done, [`Settling::run`] does it, and
//! [`Replica::settled`] takes what came of it. Between the first and the last the replica receives
//! nothing; edits go on.

use std::sync::Arc;

use automerge::{ActorId, Author, Automerge, Change, ChangeHash, Patch, ReadDoc};
use bytes::Bytes;

use super::contents::Contents;
use super::live::{LiveDocument, Writing, sign};
use super::unpacking::{Packed, Unpacked};
use super::{ContentsError, Replica, incoming, replay};
use crate::contents;
use crate::difference;

/// Bringing in something small takes little in a document of so many operations, of which each may be
/// walked in 0.14 µs; or when it is replayed.
const SHORT_WALK_MAX: u64 = 10_000;

/// What is to be done.
#[derive(Debug)]
pub struct Settling(Work);

#[derive(Debug)]
enum Work {
    Unpack(Packed),
    /// Into contents that there are none of yet.
    Build {
        snapshot: Option<Bytes>,
        actor: ActorId,
        author: Option<Author<'static>>,
        changes: Changes,
    },
    BringIn(Arc<LiveDocument>, Changes),
}

#[derive(Debug)]
struct Changes {
    bytes: Vec<Bytes>,
    may_replay: bool,
}

/// What came of it. The contents stand still until this is handed to the replica.
#[derive(Debug)]
pub struct Settled<'a>(Outcome<'a>);

#[derive(Debug)]
enum Outcome<'a> {
    Unpacked(Unpacked),
    Contents(Result<Updated<'a>, ContentsError>),
}

#[derive(Debug)]
enum Updated<'a> {
    Built(Box<Automerge>, BroughtIn),
    InPlace(Writing<'a>, BroughtIn),
}

#[derive(Debug)]
struct BroughtIn {
    /// What changed, if somebody wanted to know.
    patches: Option<Vec<Patch>>,
    before: Vec<ChangeHash>,
    any: bool,
    may_replay: bool,
}

impl Settling {
    pub(super) fn unpack(packed: Packed) -> Self {
        Self(Work::Unpack(packed))
    }

    /// Does it; waits for those who read or edit the contents.
    #[must_use]
    pub fn run(&self) -> Settled<'_> {
        Settled(Outcome::Contents(match &self.0 {
            Work::Unpack(packed) => return Settled(Outcome::Unpacked(packed.unpack())),
            Work::Build {
                snapshot,
                actor,
                author,
                changes,
            } => build(snapshot.as_ref(), actor, author.as_ref(), changes),
            Work::BringIn(live, changes) => match live.write() {
                Some(writing) => changes.bring_in(writing),
                None => Err(ContentsError("the document is gone".into())),
            },
        }))
    }
}

fn build(
    snapshot: Option<&Bytes>,
    actor: &ActorId,
    author: Option<&Author<'static>>,
    changes: &Changes,
) -> Result<Updated<'static>, ContentsError> {
    let mut document = match snapshot {
        Some(snapshot) => contents::load(snapshot).map_err(ContentsError)?,
        None => Automerge::new(),
    };
    sign(&mut document, author.cloned(), actor);
    let brought_in = changes.bring_into(&mut document, false)?;
    Ok(Updated::Built(Box::new(document), brought_in))
}

impl Changes {
    fn bring_in<'a>(&self, mut writing: Writing<'a>) -> Result<Updated<'a>, ContentsError> {
        let observed = writing.is_observed();
        let brought_in = self.bring_into(&mut writing.document, observed);
        // Nobody reads or edits what Automerge left half done.
        let brought_in = brought_in.inspect_err(|_| writing.retire())?;
        Ok(Updated::InPlace(writing, brought_in))
    }

    fn bring_into(
        &self,
        document: &mut Automerge,
        observed: bool,
    ) -> Result<BroughtIn, ContentsError> {
        let before = document.get_heads();
        let mut may_replay = self.may_replay;
        let mut patches = Vec::new();
        if !self.bytes.is_empty() {
            // What a relay sent must not end the client.
            let brought_in = contents::guard(|| {
                let changes = parse(&self.bytes).map_err(|error| error.0)?;
                let brought_in = incoming::bring_in(document, changes, observed, &mut may_replay);
                brought_in.map_err(|error| error.to_string())
            });
            patches = brought_in.map_err(ContentsError)?;
        }
        Ok(BroughtIn {
            patches: observed.then_some(patches),
            before,
            any: !self.bytes.is_empty(),
            may_replay,
        })
    }
}

fn parse(changes: &[Bytes]) -> Result<Vec<Change>, ContentsError> {
    let changes = changes.iter();
    let changes = changes.map(|bytes| Change::try_from(bytes.as_ref()));
    let changes = changes.collect::<Result<_, _>>();
    changes.map_err(|error| ContentsError::of(&error))
}

impl Replica {
    /// Takes out what is to be brought into the contents, to be done elsewhere. [`Self::settled`] must
    /// follow, and nothing be received before.
    pub fn begin_settling(&mut self) -> Settling {
        let changes = self.take_pending();
        Settling(match &mut self.contents {
            Contents::Built { live, .. } => Work::BringIn(live.share(), changes),
            Contents::Unbuilt { snapshot, .. } => Work::Build {
                snapshot: snapshot.take(),
                actor: self.actor.clone(),
                author: self.signed_author(),
                changes,
            },
        })
    }

    pub(super) fn build_now(&mut self) -> Result<bool, ContentsError> {
        let changes = self.take_pending();
        let snapshot = match &mut self.contents {
            Contents::Unbuilt { snapshot, .. } => snapshot.take(),
            Contents::Built { .. } => return Ok(false),
        };
        let author = self.signed_author();
        let built = build(snapshot.as_ref(), &self.actor, author.as_ref(), &changes);
        self.take_contents(built?)
    }

    pub(super) fn settle_in(&mut self, writing: Writing<'_>) -> Result<bool, ContentsError> {
        let brought_in = self.take_pending().bring_in(writing)?;
        self.take_contents(brought_in)
    }

    fn take_pending(&mut self) -> Changes {
        let (Contents::Unbuilt { changes, .. }
        | Contents::Built {
            pending: changes, ..
        }) = &mut self.contents;
        Changes {
            bytes: std::mem::take(changes),
            may_replay: self.may_replay,
        }
    }

    /// The same as [`Self::settle`], if there are at most so many bytes to bring in, it takes little,
    /// and nobody is in the way; `None` otherwise. `usize::MAX` is for whoever has one thread.
    ///
    /// # Errors
    /// As for [`Self::settle`].
    pub fn settle_at_once(&mut self, bytes_max: usize) -> Option<Result<bool, ContentsError>> {
        if !self.is_built() || !self.has_pending() {
            return Some(Ok(false));
        }
        let live = self.live()?;
        let writing = live.try_write()?;
        if bytes_max < usize::MAX && !self.is_short(&writing.document, bytes_max) {
            return None;
        }
        Some(self.settle_in(writing))
    }

    fn is_short(&self, document: &Automerge, bytes_max: usize) -> bool {
        let Contents::Built { pending, .. } = &self.contents else {
            return false;
        };
        let bytes: usize = pending.iter().map(Bytes::len).sum();
        if bytes > bytes_max {
            return false;
        }
        document.stats().num_ops <= SHORT_WALK_MAX
            || self.may_replay
                && parse(pending).is_ok_and(|changes| replay::is_for(document, &changes))
    }

    /// Takes what came of [`Self::begin_settling`]. Whether the contents changed; and what was unpacked
    /// for [`Self::receive_at_once`], if it was that.
    ///
    /// # Errors
    /// When Automerge did not take what was received. Do not store what is unsaved then, and use the
    /// replica no more.
    pub fn settled(
        &mut self,
        settled: Settled<'_>,
    ) -> (Option<Unpacked>, Result<bool, ContentsError>) {
        match settled.0 {
            Outcome::Unpacked(unpacked) => (Some(unpacked), Ok(false)),
            Outcome::Contents(updated) => (
                None,
                updated.and_then(|updated| self.take_contents(updated)),
            ),
        }
    }

    fn take_contents(&mut self, updated: Updated<'_>) -> Result<bool, ContentsError> {
        let (writing, brought_in) = match updated {
            Updated::Built(document, brought_in) => {
                self.contents = Contents::built(*document, self.is_observed());
                (None, brought_in)
            }
            Updated::InPlace(writing, brought_in) => (Some(writing), brought_in),
        };
        self.may_replay = brought_in.may_replay;
        let Contents::Built { live, heads, .. } = &mut self.contents else {
            unreachable!("it was brought into something");
        };
        if let Some(writing) = &writing {
            debug_assert!(writing.is_of(live), "it was begun in other contents");
            *heads = writing.document.get_heads();
            if let Some(patches) = &mut self.patches {
                // Somebody may have begun to listen in the meantime.
                let all = || difference::between(&writing.document, &brought_in.before, heads);
                let made = brought_in.patches;
                patches.list.extend(made.unwrap_or_else(all));
            }
        }
        let mut heads = heads.clone();
        heads.sort_unstable();
        if self.own.is_empty() && heads != self.history.heads() {
            return Err(ContentsError("other heads than its history".into()));
        }
        Ok(brought_in.any)
    }
}
