//! Which operations made objects, of which kind.
//!
//! A change of some bytes can make millions of objects, so they are kept as runs, as changes are.

use std::ops::RangeInclusive;

use crate::leb::{Reader, push_unsigned};

/// The kind of an object, as far as keys go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// Keys are names.
    Map,
    /// Elements are values.
    List,
    /// Elements are characters.
    Text,
}

impl ObjectKind {
    /// The kind that an operation with this action makes.
    pub(crate) fn made_by(action: u64) -> Option<Self> {
        match action {
            // 6 is a table, whose rows have names.
            0 | 6 => Some(Self::Map),
            2 => Some(Self::List),
            4 => Some(Self::Text),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Map => 0,
            Self::List => 2,
            Self::Text => 4,
        }
    }
}

/// Objects of one kind by operations with consecutive counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    last: u32,
    kind: ObjectKind,
}

/// The objects that one actor made: in one change, or in all of its changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    /// Their counters rise, and what could be one run is one.
    runs: Vec<Run>,
}

impl Objects {
    /// Adds the object that an operation makes, which comes after all others.
    pub(crate) fn push(&mut self, counter: u32, kind: ObjectKind) {
        self.push_run(Run {
            first: counter,
            last: counter,
            kind,
        });
    }

    fn push_run(&mut self, run: Run) {
        debug_assert!(self.runs.last().is_none_or(|last| last.last < run.first));
        match self.runs.last_mut() {
            Some(last) if last.kind == run.kind && last.last + 1 == run.first => {
                last.last = run.last;
            }
            _ => self.runs.push(run),
        }
    }

    /// Adds the objects of a change, which come after all others.
    pub(crate) fn extend(&mut self, later: &Self) {
        for run in &later.runs {
            self.push_run(*run);
        }
    }

    /// The kind of the object that the operation with this counter made.
    pub(crate) fn kind(&self, counter: u32) -> Option<ObjectKind> {
        let after = self.runs.partition_point(|run| run.first <= counter);
        let run = &self.runs[after.checked_sub(1)?];
        (counter <= run.last).then_some(run.kind)
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        let len = |run: &Run| (run.last - run.first) as usize + 1;
        self.runs.iter().map(len).sum()
    }

    /// Bytes of memory beside its own.
    #[cfg(feature = "native")]
    pub(crate) fn heap_bytes(&self) -> usize {
        super::heap_size::list(&self.runs)
    }

    /// Whether all are made by operations with these counters.
    pub(crate) fn are_within(&self, counters: RangeInclusive<u64>) -> bool {
        let all = (self.runs.first(), self.runs.last());
        let (Some(Run { first, .. }), Some(Run { last, .. })) = all else {
            return true;
        };
        counters.contains(&u64::from(*first)) && counters.contains(&u64::from(*last))
    }

    /// Appends the stored form.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        push_unsigned(out, self.runs.len() as u64);
        let mut above = 0;
        for run in &self.runs {
            push_unsigned(out, u64::from(run.first - above));
            push_unsigned(out, u64::from(run.last - run.first));
            out.push(run.kind.byte());
            above = run.last;
        }
    }

    /// Reads the stored form. `None` if it is damaged.
    pub(crate) fn decode(input: &mut Reader<'_>) -> Option<Self> {
        let mut objects = Self::default();
        let mut above = 0u32;
        for _ in 0..input.unsigned()? {
            let first = above.checked_add(input.number()?)?;
            let last = first.checked_add(input.number()?)?;
            let kind = ObjectKind::made_by(u64::from(input.take(1)?[0]))?;
            if first == above {
                return None;
            }
            objects.push_run(Run { first, last, kind });
            above = last;
        }
        Some(objects)
    }
}

/// Counters rise.
impl FromIterator<(u32, ObjectKind)> for Objects {
    fn from_iter<I: IntoIterator<Item = (u32, ObjectKind)>>(objects: I) -> Self {
        let mut all = Self::default();
        for (counter, kind) in objects {
            all.push(counter, kind);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ObjectKind::{List, Map, Text};

    #[test]
    fn neighbours_of_one_kind_are_one_run() {
        let mut objects = Objects::from_iter([(3, Map), (4, Map), (5, List), (7, List)]);
        assert_eq!(objects.runs.len(), 3);
        objects.extend(&Objects::from_iter([(8, List), (9, Map)]));
        assert_eq!(objects.runs.len(), 4);
        assert_eq!(objects.len(), 6);
        let kinds = (2..=10).map(|counter| objects.kind(counter));
        let expected = [None, Some(Map), Some(Map), Some(List), None];
        let expected = expected.into_iter().chain([Some(List), Some(List)]);
        assert!(kinds.eq(expected.chain([Some(Map), None])));
        assert!(objects.are_within(3..=9));
        assert!(!objects.are_within(4..=9) && !objects.are_within(3..=8));
        assert!(Objects::default().are_within(1..=1));
    }

    #[test]
    fn objects_are_read_as_written_and_damage_is_seen() {
        let objects = Objects::from_iter([(1, Text), (2, Map), (3, Map), (u32::MAX, List)]);
        let mut bytes = Vec::new();
        objects.encode(&mut bytes);
        assert_eq!(Objects::decode(&mut Reader(&bytes)), Some(objects));
        for cut in 0..bytes.len() {
            assert_eq!(Objects::decode(&mut Reader(&bytes[..cut])), None);
        }
        // No counter is 0, none comes twice, and none is higher than can be.
        for runs in [
            &[1, 0, 0, 0][..],
            &[2, 1, 0, 0, 0, 0, 0],
            &[2, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 1, 0, 0],
        ] {
            assert_eq!(Objects::decode(&mut Reader(runs)), None);
        }
    }
}
