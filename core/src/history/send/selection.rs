//! Which of the changes that a peer lacks go into the next message, and which are left for later.

use std::ops::Range;

use super::super::{History, steps};

impl History {
    /// What of `missing` goes into the next message, and what is left for later.
    pub(super) fn select(
        &self,
        missing: Vec<Range<u32>>,
        bytes_max: u64,
    ) -> (bool, Vec<Range<u32>>, Vec<Range<u32>>) {
        let reaches_below = missing.first().is_some_and(|first| {
            // Who has nothing is served best by the snapshot, even if all rows are kept.
            let all = first.start == 0 && first.end >= self.record.folded;
            first.start < self.record.rows_from || (all && self.record.folded > 0)
        });
        if !reaches_below {
            return self.select_rows(missing, bytes_max);
        }
        let folded = self.record.folded;
        let after: Vec<_> = missing
            .iter()
            .map(|range| range.start.max(folded)..range.end)
            .filter(|range| !range.is_empty())
            .collect();
        let budget = bytes_max.saturating_sub(self.record.snapshot_bytes);
        if budget == 0 {
            return (true, Vec::new(), after);
        }
        let (first, rest) = self.split(after, budget);
        (true, first, rest)
    }

    /// The same when all of it goes as changes.
    fn select_rows(
        &self,
        missing: Vec<Range<u32>>,
        bytes_max: u64,
    ) -> (bool, Vec<Range<u32>>, Vec<Range<u32>>) {
        // Of folded changes that are not resident, only the sum of the sizes is known.
        let hidden = missing.first().is_some_and(|m| m.start < self.graph.base());
        let hidden = if hidden { self.retained_bytes() } else { 0 };
        let budget = bytes_max.saturating_sub(hidden);
        let (first, rest) = self.split(missing, budget);
        (false, first, rest)
    }

    /// The same as [`Self::select`] for a peer that takes no snapshot, when all that it lacks below `unfolded_to`, and
    /// what has rows, can be sent as changes.
    pub(super) fn select_unfolded(
        &self,
        missing: Vec<Range<u32>>,
        unfolded_to: u32,
        bytes_max: u64,
    ) -> (bool, Vec<Range<u32>>, Vec<Range<u32>>) {
        let rows_from = self.record.rows_from;
        let end = if unfolded_to < rows_from {
            unfolded_to
        } else {
            u32::MAX
        };
        let waits = missing.first().is_some_and(|first| first.start < rows_from);
        let (mut now, mut later) = (missing, Vec::new());
        if waits && end < u32::MAX {
            later = now
                .iter()
                .map(|range| range.start.max(end)..range.end)
                .filter(|range| !range.is_empty())
                .collect();
            now.retain_mut(|range| {
                range.end = range.end.min(end);
                range.start < range.end
            });
        }
        let (_, first, mut rest) = self.select_rows(now, bytes_max);
        match (rest.last_mut(), later.first()) {
            (Some(last), Some(next)) if last.end == next.start => {
                last.end = next.end;
                rest.extend_from_slice(&later[1..]);
            }
            _ => rest.append(&mut later),
        }
        (false, first, rest)
    }

    /// See [`split_at_bytes`].
    fn split(&self, missing: Vec<Range<u32>>, budget: u64) -> (Vec<Range<u32>>, Vec<Range<u32>>) {
        let ranges = missing.len();
        let size = |index| self.graph.size(index).unwrap_or(0);
        let (first, rest) = split_at_bytes(missing, budget, size);
        let looked_at: usize = first.iter().map(ExactSizeIterator::len).sum();
        self.steps.count((ranges + looked_at) as u64 * steps::ROW);
        (first, rest)
    }
}

/// Splits `ranges` where their changes exceed `budget` bytes; at least one change comes first. What
/// is left is not looked at: it is for another time, however much it is.
fn split_at_bytes(
    ranges: Vec<Range<u32>>,
    mut budget: u64,
    size: impl Fn(u32) -> u32,
) -> (Vec<Range<u32>>, Vec<Range<u32>>) {
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for range in ranges {
        let fits = |index: &u32| {
            let size = u64::from(size(*index));
            let fits = size <= budget || (first.is_empty() && *index == range.start);
            budget = budget.saturating_sub(size);
            fits
        };
        let end = match rest.is_empty() {
            true => range.start + range.clone().take_while(fits).count() as u32,
            false => range.start,
        };
        first.extend((range.start < end).then_some(range.start..end));
        rest.extend((end < range.end).then_some(end..range.end));
    }
    (first, rest)
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "a set of indexes is a list of ranges"
)]
mod tests {
    use super::split_at_bytes;

    #[test]
    fn a_split_takes_what_fits_and_never_nothing() {
        let split = |budget| split_at_bytes(vec![0..2, 5..8], budget, |_| 10);
        assert_eq!(split(25), (vec![0..2], vec![5..8]));
        assert_eq!(split(30), (vec![0..2, 5..6], vec![6..8]));
        assert_eq!(split(1), (vec![0..1], vec![1..2, 5..8]));
        assert_eq!(split(1000), (vec![0..2, 5..8], vec![]));
    }
}
