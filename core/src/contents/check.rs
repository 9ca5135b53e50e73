//! The check: whether all changes together make a document that clients can apply, read, save and
//! load; and if not, which of them are at fault.
//!
//! It protects others from a change whose saved form cannot be loaded, and must never cost anybody
//! a rightful one. So it compares by bits, needs no stack for depth, and what it *could not run* is
//! an error, which says nothing of any change.

use std::collections::HashSet;

use automerge::{Automerge, Change, ChangeHash};
use bytes::Bytes;

use super::digest::Digest;
use super::guard;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every client can apply, read, save and load it. With the new snapshot, if one was wanted.
    Sound(Option<Bytes>),
    /// These changes make no document. There may be more of them.
    Unsound(Vec<Unsound>),
}

/// A change that makes no document together with its past, though its structure is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsound {
    /// Its place among the changes that were checked, from 0.
    pub at: u32,
    /// What went wrong.
    pub reason: String,
}

/// Most changes that one check takes out, each of which costs about as many tries as the logarithm
/// of all. The next check finds the next ones.
const UNSOUND_MAX: usize = 16;

/// Documents of up to so many levels are also read as the client in Rust reads them, which takes
/// some kilobytes of stack per level.
#[cfg(not(target_arch = "wasm32"))]
const HYDRATED_DEPTH_MAX: u32 = 64;

/// How much of a document is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// All that it shows, before it is saved and after.
    Contents,
    /// Only that its saved form can be loaded again, with the same graph. It takes the least memory
    /// and time: for what cannot be read within a limit.
    SavedForm,
}

/// What a check works on.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    /// What the changes come after; it was checked before.
    pub snapshot: Option<&'a Bytes>,
    /// The changes, each after its deps.
    pub changes: &'a [Bytes],
    /// The heads of all, in order.
    pub heads: &'a [ChangeHash],
    /// How many changes there are with those in the snapshot.
    pub len: u32,
    /// How much of the document is looked at.
    pub reading: Reading,
    /// Whether the new snapshot is wanted.
    pub wants_snapshot: bool,
}

/// Changes by hash, and the deps of each.
type Graph = HashSet<(ChangeHash, Vec<ChangeHash>)>;

/// A document before it is saved, and saved.
struct Form {
    shown: Option<Digest>,
    graph: Graph,
    saved: Vec<u8>,
}

/// A document that was applied and saved, and what it is when its saved form is loaded.
struct Built {
    graph: Graph,
    saved: Vec<u8>,
    loaded: Automerge,
}

impl Check<'_> {
    /// Applies, reads, saves and loads all of it, and compares heads, graph and contents before
    /// and after. When that fails, it looks for the changes at fault.
    ///
    /// # Errors
    /// When it fails for something else than the changes.
    pub fn run(&self) -> Result<Verdict, String> {
        let parsed: Result<Vec<Change>, _> = self
            .changes
            .iter()
            .map(|bytes| Change::try_from(bytes.as_ref()))
            .collect();
        let mut left: Vec<(u32, Change)> = (0..).zip(parsed.map_err(|e| e.to_string())?).collect();
        let mut unsound = Vec::new();
        loop {
            let mut reason = match self.build(&left) {
                Ok(built) if unsound.is_empty() => return self.sound(built),
                Ok(_) => break,
                Err(reason) => reason,
            };
            // The shortest beginning that fails ends with the change at fault.
            let (mut sound, mut fails) = (0, left.len());
            while sound + 1 < fails {
                let middle = sound.midpoint(fails);
                match self.build(&left[..middle]) {
                    Ok(_) => sound = middle,
                    Err(why) => (fails, reason) = (middle, why),
                }
            }
            if left.is_empty() || (fails == 1 && self.build(&[]).is_err()) {
                return Err(format!("the snapshot cannot be built upon: {reason}"));
            }
            let (at, change) = left.remove(fails - 1);
            unsound.push(Unsound { at, reason });
            if unsound.len() == UNSOUND_MAX {
                break;
            }
            let mut gone = HashSet::from([change.hash()]);
            left.retain(|(_, change)| {
                let stays = !change.deps().iter().any(|dep| gone.contains(dep));
                if !stays {
                    gone.insert(change.hash());
                }
                stays
            });
        }
        Ok(Verdict::Unsound(unsound))
    }

    /// The document with these changes.
    fn build(&self, changes: &[(u32, Change)]) -> Result<Built, String> {
        guard(|| {
            let mut document = match self.snapshot {
                Some(bytes) => Automerge::load(bytes).map_err(|e| e.to_string())?,
                None => Automerge::new(),
            };
            let changes: Vec<_> = changes.iter().map(|(_, change)| change.clone()).collect();
            document.apply_changes(changes).map_err(|e| e.to_string())?;
            let form = self.form(&document)?;
            // Two documents in memory would be one too many for a large one.
            drop(document);
            self.load(form)
        })
    }

    /// The new snapshot, made of a document to which all of it was applied before, which is most of
    /// the work; `None` if it is not the same when it is loaded. [`Self::run`] tells why.
    #[must_use]
    pub fn run_on(&self, document: &Automerge) -> Option<Bytes> {
        let built = guard(|| self.load(self.form(document)?)).ok()?;
        match self.sound(built) {
            Ok(Verdict::Sound(saved)) => saved,
            Ok(Verdict::Unsound(_)) | Err(_) => None,
        }
    }

    fn form(&self, document: &Automerge) -> Result<Form, String> {
        Ok(Form {
            shown: self.read(document)?,
            graph: graph(document),
            saved: document.save(),
        })
    }

    fn load(&self, form: Form) -> Result<Built, String> {
        let loaded = Automerge::load(&form.saved).map_err(|e| e.to_string())?;
        if self.read(&loaded)? != form.shown {
            return Err("saved and loaded it has other contents".to_owned());
        }
        Ok(Built {
            graph: form.graph,
            saved: form.saved,
            loaded,
        })
    }

    fn read(&self, document: &Automerge) -> Result<Option<Digest>, String> {
        if self.reading == Reading::SavedForm {
            return Ok(None);
        }
        let shown = Digest::of(document).map_err(|e| e.to_string())?;
        // In a browser nobody reads like that, and a panic could not be caught.
        #[cfg(not(target_arch = "wasm32"))]
        if shown.depth <= HYDRATED_DEPTH_MAX {
            drop(document.hydrate(None));
        }
        Ok(Some(shown))
    }

    /// Compares heads and graphs too, whose difference would be a fault of ours.
    fn sound(&self, built: Built) -> Result<Verdict, String> {
        let mut heads = built.loaded.get_heads();
        heads.sort_unstable();
        if heads != self.heads {
            return Err("the snapshot has other heads than the history".into());
        }
        if built.graph.len() != self.len as usize || built.graph != graph(&built.loaded) {
            return Err("the snapshot has another graph than the history".into());
        }
        let saved = self.wants_snapshot.then(|| built.saved.into());
        Ok(Verdict::Sound(saved))
    }
}

fn graph(document: &Automerge) -> Graph {
    let changes = document.get_changes_meta(&[]).into_iter();
    changes
        .map(|change| (change.hash, change.deps.to_vec()))
        .collect()
}
