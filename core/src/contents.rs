//! What only contents can tell. Everything here builds a document, which may take much memory and
//! time, and panics inside Automerge on some input; so a relay calls it in a child process only.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, Change, ChangeHash};
use bytes::Bytes;

use crate::history::chunk::Chunk;
use crate::history::{DOCUMENT_OPS_MAX, History, Unpacked};
use crate::id::{ConnectionId, Space};

/// Stands for nobody among the senders of changes.
pub(crate) const NOBODY: ConnectionId = ConnectionId(u64::MAX);

/// Runs what may make Automerge panic. What it worked on must not be used after an error.
///
/// # Errors
/// What `build` returns, or that it panicked.
pub(crate) fn guard<T, E: ToString>(build: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(build)) {
        Ok(built) => built.map_err(|error| error.to_string()),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("Automerge panicked: {}", words.unwrap_or("?")))
        }
    }
}

/// Loads a saved document.
///
/// # Errors
/// When Automerge does not take it.
pub(crate) fn load(saved: &[u8]) -> Result<Automerge, String> {
    #[cfg(target_arch = "wasm32")]
    reserve(saved);
    guard(|| Automerge::load(saved))
}

/// Lets the module's memory grow at once by what a saved document will take. Otherwise it grows page
/// by page, which is a tenth of the time that it takes to load a large one.
#[cfg(target_arch = "wasm32")]
fn reserve(saved: &[u8]) {
    /// Of a document of 259,778 changes, loading takes about 350, and its changes as much again.
    const BYTES_PER_OPERATION: u64 = 700;
    /// What was declared may be a lie.
    const MAX: u64 = 256 * 1024 * 1024;
    let declared = Chunk::split(saved)
        .ok()
        .and_then(|(chunk, _)| chunk.declared_operations());
    let bytes = declared
        .unwrap_or_default()
        .saturating_mul(BYTES_PER_OPERATION)
        .min(MAX);
    let mut room = Vec::<u8>::new();
    // Without that much memory, it may suffice all the same.
    let _ = room.try_reserve_exact(bytes as usize);
    // So that it is not found to be of no use.
    drop(std::hint::black_box(room));
}

/// The bytes of a change, inflated.
pub(crate) fn bytes_of(change: &Change) -> Bytes {
    Bytes::copy_from_slice(change.raw_bytes())
}

/// What a document chunk brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brought {
    /// It covers everything that is known.
    All(Unpacked),
    /// The changes that were not known, each after its deps.
    Changes(Vec<Bytes>),
}

/// Unpacks a document chunk. `known` are the hashes of all changes of the document by index; if the
/// chunk covers them, the graph is given from the index `segment_from` on, unless `only_changes`
/// are wanted.
///
/// # Errors
/// Why it is refused.
pub fn unpack(
    bytes: &Bytes,
    known: &[ChangeHash],
    segment_from: u32,
    only_changes: bool,
) -> Result<Brought, String> {
    let (chunk, rest) = Chunk::split(bytes).map_err(|e| e.to_string())?;
    if !rest.is_empty() {
        return Err("bytes after the document chunk".into());
    }
    chunk.verified_hash().map_err(|e| e.to_string())?;
    let document = load_chunk(&chunk)?;
    let changes = document.get_changes(&[]);
    drop(document);
    let places: HashMap<ChangeHash, usize> = changes
        .iter()
        .enumerate()
        .map(|(at, change)| (change.hash(), at))
        .collect();
    let is_known: HashSet<&ChangeHash> = known.iter().collect();
    let unknown = changes.iter().filter(|c| !is_known.contains(&c.hash()));
    let covers = known.iter().all(|hash| places.contains_key(hash));
    if only_changes || !covers {
        return Ok(Brought::Changes(unknown.map(bytes_of).collect()));
    }
    // What is known keeps its place; the rest follows in the document's order, which puts every
    // change after its deps.
    let in_order = known.iter().map(|hash| &changes[places[hash]]);
    let history = history_of(in_order.chain(unknown))?;
    let unpacked = history.unpacked(segment_from).ok_or("no such segment")?;
    Ok(Brought::All(unpacked))
}

/// Loads a document chunk, unless it declares more rows than a document may have: a few hundred
/// bytes can declare a billion.
///
/// # Errors
/// Why it is refused.
pub(crate) fn load_chunk(chunk: &Chunk<'_>) -> Result<Automerge, String> {
    let declared = chunk
        .declared_operations()
        .ok_or("its columns are malformed")?;
    if declared > DOCUMENT_OPS_MAX {
        return Err(format!(
            "declares {declared} rows, above the limit of {DOCUMENT_OPS_MAX}"
        ));
    }
    load(chunk.bytes)
}

/// A history that every one of these changes passed through, so that what a relay refuses is
/// refused here. Each must come after its deps.
///
/// # Errors
/// The first change that is refused, and why.
pub(crate) fn history_of<'a>(
    changes: impl IntoIterator<Item = &'a Change>,
) -> Result<History, String> {
    let mut history = History::new(Space::default());
    for change in changes {
        let len = history.len();
        let received = history.receive_loaded(change);
        let received = received.expect("everything is resident");
        if let Some((_, refusal)) = received.refused.first() {
            return Err(format!("change {}: {refusal}", change.hash()));
        }
        if history.len() == len {
            return Err(format!("change {} lacks its deps", change.hash()));
        }
        // Its bytes are not needed any more.
        drop(history.take_unsaved());
        history.committed();
    }
    Ok(history)
}

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
    /// Whether the new snapshot is wanted.
    pub wants_snapshot: bool,
}

/// A document as it was applied, the same saved and loaded, and saved.
struct Built {
    before: Automerge,
    after: Automerge,
    saved: Vec<u8>,
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
            let mut before = match self.snapshot {
                Some(bytes) => Automerge::load(bytes).map_err(|e| e.to_string())?,
                None => Automerge::new(),
            };
            let changes = changes.iter().map(|(_, change)| change.clone());
            before.apply_changes(changes).map_err(|e| e.to_string())?;
            let contents = before.hydrate(None);
            let saved = before.save();
            let after = Automerge::load(&saved).map_err(|e| e.to_string())?;
            if after.hydrate(None) != contents {
                return Err("saved and loaded it has other contents".to_owned());
            }
            Ok(Built {
                before,
                after,
                saved,
            })
        })
    }

    /// Compares the graphs too, whose difference would be a fault of ours.
    fn sound(&self, built: Built) -> Result<Verdict, String> {
        let Built {
            before,
            after,
            saved,
        } = built;
        let mut heads = after.get_heads();
        heads.sort_unstable();
        if heads != self.heads {
            return Err("the snapshot has other heads than the history".into());
        }
        let graph = |document: &Automerge| -> HashSet<(ChangeHash, Vec<ChangeHash>)> {
            let changes = document.get_changes_meta(&[]);
            changes
                .into_iter()
                .map(|change| (change.hash, change.deps.to_vec()))
                .collect()
        };
        let graph_after = graph(&after);
        if graph_after.len() != self.len as usize || graph_after != graph(&before) {
            return Err("the snapshot has another graph than the history".into());
        }
        Ok(Verdict::Sound(self.wants_snapshot.then(|| saved.into())))
    }
}
