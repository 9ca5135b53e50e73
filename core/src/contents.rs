//! What only contents can tell. Everything here builds a document, which may take much memory and
//! time, and panics inside Automerge on some input; so a relay calls it in a child process only.

mod check;
mod digest;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, Change, ChangeHash};
use bytes::Bytes;

use crate::history::chunk::{Chunk, change_bytes};
use crate::history::{DOCUMENT_OPS_MAX, History, Unpacked};
use crate::id::Space;

pub use check::{Check, Reading, Unsound, Verdict};
pub use digest::Digest;

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
    /// Of a document of 259,778 changes with an operation each: half of it for those, half for these.
    const BYTES_PER_ROW: u64 = 350;
    /// What was declared may be a lie.
    const MAX: u64 = 256 * 1024 * 1024;
    let declared = Chunk::split(saved)
        .ok()
        .and_then(|(chunk, _)| chunk.declared_rows());
    let bytes = declared
        .unwrap_or_default()
        .saturating_mul(BYTES_PER_ROW)
        .min(MAX);
    let mut room = Vec::<u8>::new();
    // Without that much memory, it may suffice all the same.
    let _ = room.try_reserve_exact(bytes as usize);
    // So that it is not found to be of no use.
    drop(std::hint::black_box(room));
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
        return Ok(Brought::Changes(unknown.map(change_bytes).collect()));
    }
    // What is known keeps its place; the rest follows in the document's order, which puts every
    // change after its deps.
    let in_order = known.iter().map(|hash| &changes[places[hash]]);
    let history = history_of(in_order.chain(unknown))?;
    let unpacked = history.unpacked(segment_from).ok_or("no such segment")?;
    Ok(Brought::All(unpacked))
}

/// Changes of a snapshot that was checked before, in the order in which they are asked for.
///
/// # Errors
/// When it cannot be loaded, or has one of them not.
pub fn unfold(snapshot: &Bytes, wanted: &[ChangeHash]) -> Result<Vec<Bytes>, String> {
    let document = load(snapshot)?;
    let places: HashMap<&ChangeHash, usize> = wanted
        .iter()
        .enumerate()
        .map(|(at, hash)| (hash, at))
        .collect();
    let mut found = vec![None; wanted.len()];
    for change in guard(|| Ok::<_, String>(document.get_changes(&[])))? {
        if let Some(at) = places.get(&change.hash()) {
            found[*at] = Some(change_bytes(&change));
        }
    }
    let found: Option<Vec<Bytes>> = found.into_iter().collect();
    found.ok_or_else(|| "the snapshot has other changes than the history".into())
}

/// Loads a document chunk, unless it declares more rows than a document may have: a few hundred
/// bytes can declare a billion.
///
/// # Errors
/// Why it is refused.
pub(crate) fn load_chunk(chunk: &Chunk<'_>) -> Result<Automerge, String> {
    let declared = chunk.declared_rows().ok_or("its columns are malformed")?;
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
