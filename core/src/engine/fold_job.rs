//! The job that folds a document's history into a new snapshot. It is done where storage is read, not
//! under the engine's lock.
//!
//! A fold is a check as in a relay: the snapshot that takes the place of changes was loaded again and
//! compared. It is made of the document that is in memory, which shares what it can with the one that
//! is edited meanwhile. Only if something is found is the document built once more, from what lies in
//! storage, to tell what.

use automerge::{Automerge, ChangeHash};

use crate::contents::{self, Check, Verdict};
use crate::history::Fold;
use crate::storage::{Blob, DocumentKey, NewSnapshot, Storage, StorageError};

/// What is to be folded into a new snapshot.
#[derive(Debug)]
pub struct Folding {
    pub(super) number: u64,
    pub(super) key: DocumentKey,
    /// Of the snapshot that it comes after; 0 if there is none.
    pub(super) generation: u32,
    pub(super) fold: Fold,
    pub(super) heads: Vec<ChangeHash>,
    /// All that is folded, built.
    pub(super) document: Automerge,
}

/// What came of it.
#[derive(Debug)]
pub struct Folded {
    pub(super) number: u64,
    pub(super) found: FoldOutcome,
}

#[derive(Debug)]
pub(super) enum FoldOutcome {
    New(Box<NewSnapshot>),
    Unsound,
    /// It could not be folded, for a reason that lies not in the changes.
    Nothing,
}

/// Carries out [`Output::Fold`](super::Output::Fold).
///
/// # Errors
/// When reading fails.
pub fn fold(storage: &dyn Storage, folding: &Folding) -> Result<Folded, StorageError> {
    let (fold, key) = (&folding.fold, folding.key);
    let new = |snapshot| FoldOutcome::New(Box::new(NewSnapshot::folded(fold, snapshot)));
    let number = folding.number;
    let check = Check {
        snapshot: None,
        changes: &[],
        heads: &folding.heads,
        len: fold.record.folded,
        reading: contents::Reading::Contents,
        wants_snapshot: true,
    };
    if let Some(snapshot) = check.run_on(&folding.document) {
        let found = new(snapshot);
        return Ok(Folded { number, found });
    }
    let snapshot = match folding.generation {
        0 => None,
        generation => Some(storage.blob(key, Blob::Snapshot(generation))?),
    };
    let range = fold.from..fold.record.folded;
    let check = Check {
        snapshot: snapshot.as_ref(),
        changes: &storage.changes(key, std::slice::from_ref(&range))?,
        ..check
    };
    let found = match check.run() {
        Ok(Verdict::Sound(Some(snapshot))) => new(snapshot),
        Ok(Verdict::Unsound(_)) => FoldOutcome::Unsound,
        Ok(Verdict::Sound(None)) | Err(_) => FoldOutcome::Nothing,
    };
    Ok(Folded { number, found })
}
