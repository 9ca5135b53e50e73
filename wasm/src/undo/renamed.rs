//! What came back in a document, under other names than before.

use std::collections::HashMap;

use automerge::{ActorId, ObjId};

use super::names::{Run, named};

/// Elements or values that came back together: their names follow each other, before and now.
#[derive(Debug, Clone)]
pub(super) struct Renaming {
    pub(super) before: Run,
    /// What the first is called now.
    pub(super) now: ObjId,
    /// In what they came back.
    pub(super) object: ObjId,
}

impl Renaming {
    fn from(&self) -> u64 {
        counter(&self.before.first)
    }

    fn to(&self) -> u64 {
        self.from() + self.before.count as u64
    }

    /// Takes in what came back after it, if its names follow.
    pub(super) fn join(&mut self, next: &Self) -> bool {
        let count = self.before.count as u64;
        let follows = named(&self.before.first, count) == next.before.first
            && named(&self.now, count) == next.now
            && self.object == next.object;
        if follows {
            self.before.count += next.before.count;
        }
        follows
    }
}

/// By who made it at first: what came back of it, in the order of its names before.
#[derive(Debug, Default)]
pub(crate) struct Renamed(HashMap<ActorId, Vec<Renaming>>);

impl Renamed {
    /// What comes back a second time does so under the name that it has since the first.
    pub(super) fn insert(&mut self, moved: Renaming) {
        let ObjId::Id(_, actor, _) = &moved.before.first else {
            return;
        };
        let known = self.0.entry(actor.clone()).or_default();
        let at = known.partition_point(|other| other.from() < moved.from());
        if known.get(at).is_some_and(|next| next.from() < moved.to()) {
            return;
        }
        let last = at.checked_sub(1).map(|at| &mut known[at]);
        if !last.is_some_and(|last| last.join(&moved)) {
            known.insert(at, moved);
        }
    }

    /// What this is called now, and in what it is, if it came back.
    pub(super) fn get(&self, id: &ObjId) -> Option<(ObjId, &ObjId)> {
        let moved = self.after(id).next()?;
        let at = counter(id).checked_sub(moved.from())?;
        Some((named(&moved.now, at), &moved.object))
    }

    /// Elements of an object as they are called now, those that are in what that object is now.
    pub(super) fn now(&self, run: Run, object: &ObjId, object_now: &ObjId) -> Vec<Run> {
        let (mut now, mut all) = (Vec::new(), vec![(run, object)]);
        while let Some((run, object)) = all.pop() {
            let (mut from, to) = (0, run.count as u64);
            let first = counter(&run.first);
            let part = |from: u64, to: u64| Run {
                first: named(&run.first, from),
                count: (to - from) as usize,
            };
            let mut stay = Vec::new();
            for moved in self.after(&run.first) {
                // Counted from the first of the run.
                let start = moved.from().max(first) - first;
                let end = (moved.to() - first).min(to);
                if start >= to {
                    break;
                }
                stay.push(part(from, start));
                let moved_by = first + start - moved.from();
                let first = named(&moved.now, moved_by);
                let count = (end - start) as usize;
                all.push((Run { first, count }, &moved.object));
                from = end;
            }
            stay.push(part(from, to));
            if object == object_now {
                now.extend(stay.into_iter().filter(|run| run.count > 0));
            }
        }
        now
    }

    /// What came back of this and of what its actor made after it.
    fn after(&self, id: &ObjId) -> impl Iterator<Item = &Renaming> {
        let known = match id {
            ObjId::Id(_, actor, _) => self.0.get(actor),
            ObjId::Root => None,
        };
        let known = known.map(Vec::as_slice).unwrap_or_default();
        let at = known.partition_point(|moved| moved.to() <= counter(id));
        known[at..].iter()
    }
}

fn counter(id: &ObjId) -> u64 {
    match id {
        ObjId::Id(counter, ..) => *counter,
        ObjId::Root => 0,
    }
}
