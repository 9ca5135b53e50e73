//! Names of operations that follow each other: what one actor made in one go is named by its first.

use automerge::{ActorId, ObjId};

/// Elements whose operations were made one after the other, so that the first's name tells those of
/// all.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) first: ObjId,
    pub(super) count: usize,
}

impl Run {
    pub(super) fn name(&self, at: usize) -> ObjId {
        named(&self.first, at as u64)
    }

    pub(super) fn has(&self, id: &ObjId) -> bool {
        match (&self.first, id) {
            (ObjId::Id(first, actor, _), ObjId::Id(counter, by, _)) => {
                counter.wrapping_sub(*first) < self.count as u64 && actor == by
            }
            _ => false,
        }
    }
}

/// What is called so many after the first.
pub(super) fn named(first: &ObjId, at: u64) -> ObjId {
    match first {
        ObjId::Id(counter, actor, hint) => ObjId::Id(counter + at, actor.clone(), *hint),
        ObjId::Root => ObjId::Root,
    }
}

/// Names, as runs of those that follow each other.
pub(super) fn joined(ids: impl Iterator<Item = ObjId>) -> Vec<Run> {
    let mut runs = Vec::<Run>::new();
    for first in ids {
        match runs.last_mut() {
            Some(last) if last.name(last.count) == first => last.count += 1,
            _ => runs.push(Run { first, count: 1 }),
        }
    }
    runs
}

/// In this order the names of a run stand together.
pub(super) fn by_actor(id: &ObjId) -> Option<(&ActorId, u64)> {
    match id {
        ObjId::Id(counter, actor, _) => Some((actor, *counter)),
        ObjId::Root => None,
    }
}
