//! Sets of changes, as ranges of their indexes: a few, however many changes there are.

use std::ops::Range;

/// Indexes in rising order, as ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Indexes(Vec<Range<u32>>);

impl Indexes {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn ranges(&self) -> &[Range<u32>] {
        &self.0
    }

    /// The range that reaches beyond an index, if it is the next one.
    fn at(&self, index: u32) -> usize {
        self.0.partition_point(|range| range.end <= index)
    }

    pub(crate) fn contains(&self, index: u32) -> bool {
        let range = self.0.get(self.at(index));
        range.is_some_and(|range| range.start <= index)
    }

    /// Adds some, which are in order. Costs as much as there are ranges, however many are added.
    pub(crate) fn add(&mut self, indexes: &[u32]) {
        if let [index] = indexes
            && self.0.last().is_none_or(|last| last.end <= *index)
        {
            super::graph::add_index(&mut self.0, *index);
            return;
        }
        if indexes.is_empty() {
            return;
        }
        let mut new = Vec::new();
        for index in indexes {
            // Some may be named twice.
            if new
                .last()
                .is_none_or(|last: &Range<u32>| last.end <= *index)
            {
                super::graph::add_index(&mut new, *index);
            }
        }
        let mut old = std::mem::take(&mut self.0).into_iter().peekable();
        let mut new = new.into_iter().peekable();
        loop {
            let next = match (old.peek(), new.peek()) {
                (Some(a), Some(b)) if a.start <= b.start => old.next(),
                (_, Some(_)) => new.next(),
                (_, None) => old.next(),
            };
            let Some(range) = next else { return };
            match self.0.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => self.0.push(range),
            }
        }
    }

    /// Takes some away, which are in order.
    pub(crate) fn remove(&mut self, indexes: &[u32]) {
        let mut gone = indexes.iter().copied().peekable();
        let mut left = Vec::with_capacity(self.0.len());
        for range in std::mem::take(&mut self.0) {
            let mut start = range.start;
            while let Some(index) = gone.next_if(|index| *index < range.end) {
                if start < index {
                    left.push(start..index);
                }
                start = start.max(index + 1);
            }
            if start < range.end {
                left.push(start..range.end);
            }
        }
        self.0 = left;
    }

    /// Keeps those from `from` on.
    pub(crate) fn keep_from(&mut self, from: u32) {
        self.0.retain_mut(|range| {
            range.start = range.start.max(from);
            range.start < range.end
        });
    }

    /// Keeps those below `to`.
    pub(crate) fn keep_below(&mut self, to: u32) {
        self.0.retain_mut(|range| {
            range.end = range.end.min(to);
            range.start < range.end
        });
    }

    /// Bytes of memory beside its own.
    #[cfg(feature = "native")]
    pub(crate) fn heap_bytes(&self) -> usize {
        super::heap_size::list(&self.0)
    }

    pub(crate) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// Each as it is afterwards, when what moves does not change its order.
    pub(crate) fn moved(&mut self, moved: impl Fn(u32) -> u32) {
        for range in std::mem::take(&mut self.0) {
            let range = moved(range.start)..moved(range.end);
            match self.0.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ if range.start < range.end => self.0.push(range),
                _ => {}
            }
        }
    }
}

impl From<Vec<Range<u32>>> for Indexes {
    /// Of ranges in order.
    fn from(ranges: Vec<Range<u32>>) -> Self {
        debug_assert!(ranges.is_sorted_by(|a, b| a.end < b.start));
        Self(ranges)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ranges_are_the_set_that_they_stand_for() {
        let mut state = 1u32;
        let mut random = move |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let (mut ranges, mut set) = (Indexes::default(), BTreeSet::new());
        for _ in 0..2_000 {
            let mut some: Vec<u32> = (0..random(6)).map(|_| random(60)).collect();
            some.sort_unstable();
            match random(8) {
                0..4 => {
                    ranges.add(&some);
                    set.extend(some);
                }
                4..7 => {
                    ranges.remove(&some);
                    set.retain(|index| !some.contains(index));
                }
                _ => {
                    let (from, to) = (random(10), 50 + random(10));
                    ranges.keep_from(from);
                    ranges.keep_below(to);
                    set.retain(|index| (from..to).contains(index));
                }
            }
            let listed: Vec<u32> = ranges.ranges().iter().cloned().flatten().collect();
            assert!(listed.iter().eq(&set), "{ranges:?} {set:?}");
            assert!(ranges.ranges().is_sorted_by(|a, b| a.end < b.start));
            assert!((0..60).all(|index| ranges.contains(index) == set.contains(&index)));
        }
    }
}
