//! What admission must know of a document besides its graph: which operations exist, by actor and
//! counter, and which of them made objects of which kind.
//!
//! It stays small where the graph does not: an actor's operations without a gap are one run, and a
//! text of any length is one object. So a live edit is checked without loading the graph.

use std::collections::HashMap;

use super::objects::{ObjectKind, Objects};
use super::stored::VERSION;
use crate::leb::{Reader, push_unsigned};

/// An operation's id: the actor's place in the outline, and the counter.
pub(crate) type OpId = (u32, u32);

/// How far an actor has come: what a vector clock has of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ActorClock {
    /// How many of its changes, also those without operations.
    pub(crate) seq: u64,
    /// Its last operation.
    pub(crate) max_op: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub(crate) id: Box<[u8]>,
    /// How many changes it made.
    pub(crate) seq: u64,
    /// Its operations' counters, as runs of first and last in rising order.
    pub(crate) runs: Vec<(u32, u32)>,
    objects: Objects,
}

impl Actor {
    pub(crate) fn max_op(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.1)
    }

    /// With all that there is of this actor.
    pub(crate) fn clock(&self) -> ActorClock {
        ActorClock {
            seq: self.seq,
            max_op: self.max_op(),
        }
    }

    #[cfg(feature = "native")]
    fn heap_bytes(&self) -> usize {
        super::heap_size::list(&self.runs) + self.objects.heap_bytes()
    }

    fn has(&self, counter: u32) -> bool {
        let after = self.runs.partition_point(|run| run.0 <= counter);
        after > 0 && counter <= self.runs[after - 1].1
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Outline {
    actors: Vec<Actor>,
    by_id: HashMap<Box<[u8]>, u32>,
    objects_len: usize,
    /// Bytes of memory of what each actor has.
    #[cfg(feature = "native")]
    of_actors: usize,
}

impl Outline {
    pub(crate) fn actor(&self, id: &[u8]) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn actors(&self) -> &[Actor] {
        &self.actors
    }

    /// How many operations there are.
    pub(crate) fn ops_len(&self) -> u64 {
        let runs = self.actors.iter().flat_map(|actor| &actor.runs);
        runs.map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    pub(crate) fn objects_len(&self) -> usize {
        self.objects_len
    }

    pub(crate) fn has_op(&self, (actor, counter): OpId) -> bool {
        self.actors
            .get(actor as usize)
            .is_some_and(|a| a.has(counter))
    }

    pub(crate) fn object(&self, (actor, counter): OpId) -> Option<ObjectKind> {
        self.actors.get(actor as usize)?.objects.kind(counter)
    }

    /// Takes in a change that was admitted; its actor's place.
    pub(crate) fn add(
        &mut self,
        actor: &[u8],
        start_op: u32,
        max_op: u32,
        objects: &Objects,
    ) -> u32 {
        let place = self.place(actor);
        let entry = &mut self.actors[place as usize];
        #[cfg(feature = "native")]
        let before = entry.heap_bytes();
        entry.seq += 1;
        if max_op >= start_op {
            match entry.runs.last_mut() {
                Some(run) if run.1 + 1 == start_op => run.1 = max_op,
                _ => entry.runs.push((start_op, max_op)),
            }
        }
        entry.objects.extend(objects);
        self.objects_len += objects.len();
        #[cfg(feature = "native")]
        {
            self.of_actors += entry.heap_bytes() - before;
        }
        place
    }

    fn place(&mut self, id: &[u8]) -> u32 {
        if let Some(place) = self.actor(id) {
            return place;
        }
        let place = self.actors.len() as u32;
        self.actors.push(Actor {
            id: id.into(),
            seq: 0,
            runs: Vec::new(),
            objects: Objects::default(),
        });
        self.by_id.insert(id.into(), place);
        #[cfg(feature = "native")]
        {
            // It is there twice.
            self.of_actors += 2 * id.len();
        }
        place
    }

    /// Bytes of memory beside its own.
    #[cfg(feature = "native")]
    pub(crate) fn heap_bytes(&self) -> usize {
        let by_id = super::heap_size::table(self.by_id.capacity(), size_of::<(Box<[u8]>, u32)>());
        super::heap_size::list(&self.actors) + by_id + self.of_actors
    }

    /// The stored form of the part that the snapshot covers.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        push_unsigned(&mut out, self.actors.len() as u64);
        for actor in &self.actors {
            push_unsigned(&mut out, actor.id.len() as u64);
            out.extend_from_slice(&actor.id);
            push_unsigned(&mut out, actor.seq);
            push_unsigned(&mut out, actor.runs.len() as u64);
            let mut above = 0;
            for (first, last) in &actor.runs {
                push_unsigned(&mut out, u64::from(first - above));
                push_unsigned(&mut out, u64::from(last - first));
                above = *last;
            }
            actor.objects.encode(&mut out);
        }
        out
    }

    /// Reads a stored outline. `None` if it is damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader(bytes);
        if input.take(1)? != [VERSION] {
            return None;
        }
        let mut outline = Self::default();
        for _ in 0..input.unsigned()? {
            let id = input.prefixed()?;
            if outline.actor(id).is_some() {
                return None;
            }
            let place = outline.place(id) as usize;
            let actor = &mut outline.actors[place];
            actor.seq = u64::from(input.number::<u32>()?);
            let mut above = 0u32;
            for _ in 0..input.unsigned()? {
                let first = above.checked_add(input.number()?)?;
                above = first.checked_add(input.number()?)?;
                actor.runs.push((first, above));
            }
            actor.objects = Objects::decode(&mut input)?;
            if !actor.objects.are_within(1..=u64::from(above)) {
                return None;
            }
            outline.objects_len += actor.objects.len();
            #[cfg(feature = "native")]
            {
                outline.of_actors += actor.heap_bytes();
            }
        }
        input.is_empty().then_some(outline)
    }
}

#[cfg(test)]
mod tests {
    use super::ObjectKind::{List, Map, Text};
    use super::*;

    #[test]
    fn an_outline_is_read_as_written() {
        let mut outline = Outline::default();
        let none = Objects::default();
        outline.add(b"ann", 1, 4, &Objects::from_iter([(1, Text), (2, Map)]));
        outline.add(b"bob", 5, 5, &none);
        outline.add(b"ann", 6, 9, &Objects::from_iter([(9, List)]));
        outline.add(b"ann", 10, 12, &none);
        let bytes = outline.encode();
        let read = Outline::decode(&bytes).unwrap();
        assert_eq!(read.encode(), bytes);
        assert_eq!(read.actors()[0].runs, [(1, 4), (6, 12)]);
        assert!(read.has_op((0, 4)) && !read.has_op((0, 5)) && read.has_op((1, 5)));
        assert!(!read.has_op((0, 0)) && !read.has_op((0, 13)) && !read.has_op((7, 1)));
        assert_eq!(read.object((0, 9)), Some(List));
        assert_eq!((read.object((0, 3)), read.object((1, 1))), (None, None));
        assert_eq!(read.objects_len(), 3);
        for cut in 0..bytes.len() {
            assert!(Outline::decode(&bytes[..cut]).is_none());
        }
    }
}
