//! Out of damage: a document begins anew with what is whole of it.

use std::collections::HashSet;

use automerge::{ActorId, Change, ChangeHash};
use bytes::Bytes;

use super::Replica;
use super::contents::ContentsError;
use crate::contents;
use crate::history::Quarantined;
use crate::storage::{Blob, Salvaged, Write};

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
