//! Changes that make no document.
//!
//! When Automerge does not take what a relay sent, or what was to be folded, all of it is put into
//! local storage nevertheless, because something of ours may be among it. Then the document is read
//! again: [`load`](super::load) finds the changes at fault, takes them out with what depends on
//! them, and quarantines them. They are refused from then on, whichever relay sends them. That is done
//! where storage is read, not under the engine's lock.

use std::collections::HashMap;

use automerge::ActorId;
use bytes::Bytes;

use crate::contents::{self, Check, Verdict};
use crate::history::{History, Quarantined, Refusal};
use crate::id::DocumentId;
use crate::replica::Replica;
use crate::storage::{self, Blob, Storage, StorageError, Stored, Write, damaged};

/// Most rounds of taking changes out of one document; each takes out as many as a check finds.
const ROUNDS_MAX: usize = 64;

/// A replica without the changes that make no document, which its first commit quarantines, and
/// those.
pub(super) fn sound(
    storage: &dyn Storage,
    document: &DocumentId,
    snapshot: Option<Bytes>,
    actor: ActorId,
) -> Result<(Replica, Vec<Quarantined>), StorageError> {
    let unfit = || damaged(document, "its parts do not fit together");
    let stored = storage.load(document)?.ok_or_else(unfit)?;
    let (key, outline, mut rows) = (stored.key, stored.outline, stored.rows);
    let segments = storage::segments(storage, key, stored.record.segments)?;
    let history = History::open(stored.record, outline.as_deref(), &rows);
    let mut history = history.ok_or_else(unfit)?;
    let mut rows_from = u32::MAX;
    let mut writes = Vec::new();
    let mut quarantined = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let changes = rows.iter().flat_map(|row| &row.changes);
        let changes: Vec<Bytes> = changes.map(|change| change.bytes.clone()).collect();
        let check = Check {
            snapshot: snapshot.as_ref(),
            changes: &changes,
            heads: &history.heads(),
            len: history.len(),
            reading: contents::Reading::Contents,
            wants_snapshot: false,
        };
        let unsound = match check.run() {
            Ok(Verdict::Unsound(unsound)) => unsound,
            Ok(Verdict::Sound(_)) => break,
            Err(_) => return Err(damaged(document, "its contents cannot be built")),
        };
        let from = history.record().folded;
        let unsound = unsound.into_iter();
        let unsound: HashMap<u32, Refusal> = unsound
            .map(|change| (from + change.at, Refusal::Unsound(change.reason)))
            .collect();
        let removal = history.remove(&unsound, outline.as_deref(), &segments, &rows);
        let removal = removal.ok_or_else(unfit)?;
        history.committed();
        let mut index = from;
        rows.retain(|row| {
            index += row.changes.len() as u32;
            index <= removal.rows_from
        });
        rows.extend(removal.rows.into_iter().map(|(_, row)| row));
        rows_from = rows_from.min(removal.rows_from);
        let lot: Vec<_> = removal
            .removed
            .into_iter()
            .map(|change| change.into_quarantined(String::new()))
            .collect();
        let blob = Blob::Quarantine(history.record().quarantined - 1);
        writes.push(Write::Blob(blob, Quarantined::encode(&lot).into()));
        quarantined.extend(lot);
    }
    let record = history.record().clone();
    if !writes.is_empty() {
        writes.push(Write::RemoveRowsFrom(rows_from));
        let mut end = record.folded;
        for row in &rows {
            end += row.changes.len() as u32;
            if end > rows_from {
                let (last, row) = (end - 1, row.clone());
                writes.push(Write::Row { last, row });
            }
        }
        writes.push(Write::Record(record.clone()));
    }
    let stored = Stored {
        key,
        record,
        outline,
        rows,
    };
    let replica = Replica::open(stored, snapshot, actor);
    let mut replica = replica.ok_or_else(unfit)?;
    if !writes.is_empty() {
        replica.quarantine(&quarantined);
        replica.rewrite(writes);
    }
    Ok((replica, quarantined))
}

/// The changes that were taken out of a document because together with their past they make none,
/// or depend on one that does not. They are in local storage only, as long as the document is.
///
/// # Errors
/// When reading fails, or finds damage.
pub fn kept_aside(
    storage: &dyn Storage,
    document: &DocumentId,
) -> Result<Vec<Quarantined>, StorageError> {
    match storage.load(document)? {
        Some(stored) => quarantined(storage, document, &stored),
        None => Ok(Vec::new()),
    }
}

/// What was quarantined before.
pub(super) fn quarantined(
    storage: &dyn Storage,
    document: &DocumentId,
    stored: &Stored,
) -> Result<Vec<Quarantined>, StorageError> {
    let mut all = Vec::new();
    for number in 0..stored.record.quarantined {
        let lot = storage.blob(stored.key, Blob::Quarantine(number))?;
        let lot = Quarantined::decode(&lot);
        all.extend(lot.ok_or_else(|| damaged(document, "a quarantined lot"))?);
    }
    Ok(all)
}
