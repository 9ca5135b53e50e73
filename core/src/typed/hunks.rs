//! Where two sequences differ.
//!
//! It costs about the length of the sequences and, up to [`EDITS_MAX`], the square of how many edits
//! lie between them. What is more different than that is cut at what is in both only once, and what
//! then is still more different is replaced.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

/// Up to so many insertions and deletions, the fewest are found.
const EDITS_MAX: usize = 256;

/// How often what is more different is cut.
const CUTS_MAX: usize = 16;

/// What took the place of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hunk {
    pub(super) before: Range<usize>,
    pub(super) after: Range<usize>,
}

/// Numbers for what is equal.
pub(super) fn numbered<T: Hash + Eq>(before: &[T], after: &[T]) -> [Vec<u32>; 2] {
    let mut numbers = HashMap::new();
    [before, after].map(|items| {
        let numbers = items.iter().map(|item| {
            let next = numbers.len() as u32;
            *numbers.entry(item).or_insert(next)
        });
        numbers.collect()
    })
}

/// The differences, in order; between them, both are the same.
pub(super) fn hunks(before: &[u32], after: &[u32]) -> Vec<Hunk> {
    let mut found = Vec::new();
    collect(before, after, (0, 0), 0, &mut found);
    found
}

/// The differences, if there are few.
pub(super) fn fewest_hunks(before: &[u32], after: &[u32]) -> Option<Vec<Hunk>> {
    let (start, end) = common(before, after);
    let (before, after) = (
        &before[start..before.len() - end],
        &after[start..after.len() - end],
    );
    let mut found = fewest(before, after)?;
    for hunk in &mut found {
        *hunk = moved(hunk, (start, start));
    }
    Some(found)
}

fn moved(hunk: &Hunk, by: (usize, usize)) -> Hunk {
    Hunk {
        before: hunk.before.start + by.0..hunk.before.end + by.0,
        after: hunk.after.start + by.1..hunk.after.end + by.1,
    }
}

/// How much both begin with, and how much of the rest they end with.
pub(super) fn common<T: PartialEq>(before: &[T], after: &[T]) -> (usize, usize) {
    let same = |(one, other): &(&T, &T)| one == other;
    let start = before.iter().zip(after).take_while(same).count();
    let rests = before[start..]
        .iter()
        .rev()
        .zip(after[start..].iter().rev());
    (start, rests.take_while(same).count())
}

fn collect(before: &[u32], after: &[u32], at: (usize, usize), cuts: usize, found: &mut Vec<Hunk>) {
    let (start, end) = common(before, after);
    let at = (at.0 + start, at.1 + start);
    let before = &before[start..before.len() - end];
    let after = &after[start..after.len() - end];
    if let Some(hunks) = fewest(before, after) {
        found.extend(hunks.iter().map(|hunk| moved(hunk, at)));
        return;
    }
    let whole = Hunk {
        before: 0..before.len(),
        after: 0..after.len(),
    };
    let anchors = match cuts < CUTS_MAX {
        true => anchors(before, after),
        false => Vec::new(),
    };
    if anchors.is_empty() {
        found.push(moved(&whole, at));
        return;
    }
    let mut from = (0, 0);
    let ends = anchors.into_iter().chain([(before.len(), after.len())]);
    for (b, a) in ends {
        let inner = (at.0 + from.0, at.1 + from.1);
        collect(
            &before[from.0..b],
            &after[from.1..a],
            inner,
            cuts + 1,
            found,
        );
        // The anchor itself is in both; behind the last part there is none.
        from = (b + 1, a + 1);
    }
}

/// The fewest insertions and deletions (Myers' greedy algorithm), if there are not too many.
fn fewest(before: &[u32], after: &[u32]) -> Option<Vec<Hunk>> {
    if before.is_empty() || after.is_empty() {
        let hunk = Hunk {
            before: 0..before.len(),
            after: 0..after.len(),
        };
        return Some(match before.len() + after.len() {
            0 => Vec::new(),
            _ => vec![hunk],
        });
    }
    let (n, m) = (before.len() as isize, after.len() as isize);
    let most = EDITS_MAX.min(before.len() + after.len()) as isize;
    let middle = most + 1;
    // Of each diagonal (what was deleted less what was inserted), how far it reaches.
    let mut reach = vec![0_isize; 2 * middle as usize + 1];
    let mut rounds = Vec::new();
    for edits in 0..=most {
        // What this round came from.
        rounds.push(reach[(middle - edits) as usize..=(middle + edits) as usize].to_vec());
        for diagonal in (-edits..=edits).step_by(2) {
            let at = (middle + diagonal) as usize;
            let inserts =
                comes_by_insertion(diagonal, edits, |step| reach[at.wrapping_add_signed(step)]);
            let mut x = match inserts {
                true => reach[at + 1],
                false => reach[at - 1] + 1,
            };
            let mut y = x - diagonal;
            while x < n && y < m && before[x as usize] == after[y as usize] {
                (x, y) = (x + 1, y + 1);
            }
            reach[at] = x;
            if x >= n && y >= m {
                return Some(trace(&rounds, n, m));
            }
        }
    }
    None
}

/// Whether the furthest way to a diagonal is from the one above.
fn comes_by_insertion(diagonal: isize, edits: isize, reach: impl Fn(isize) -> isize) -> bool {
    diagonal == -edits || (diagonal != edits && reach(-1) < reach(1))
}

/// The way back, from the end of both.
fn trace(rounds: &[Vec<isize>], n: isize, m: isize) -> Vec<Hunk> {
    let mut found: Vec<Hunk> = Vec::new();
    let (mut x, mut y) = (n, m);
    for (edits, reach) in rounds.iter().enumerate().skip(1).rev() {
        let edits = edits as isize;
        let diagonal = x - y;
        let at = (edits + diagonal) as usize;
        let inserts =
            comes_by_insertion(diagonal, edits, |step| reach[at.wrapping_add_signed(step)]);
        // Before the edit, which is followed by what both have.
        let (from, to) = match inserts {
            true => {
                let from = (reach[at + 1], reach[at + 1] - diagonal - 1);
                (from, (from.0, from.1 + 1))
            }
            false => {
                let from = (reach[at - 1], reach[at - 1] - diagonal + 1);
                (from, (from.0 + 1, from.1))
            }
        };
        let before = from.0 as usize..to.0 as usize;
        let after = from.1 as usize..to.1 as usize;
        match found.last_mut() {
            Some(next) if next.before.start == before.end && next.after.start == after.end => {
                next.before.start = before.start;
                next.after.start = after.start;
            }
            _ => found.push(Hunk { before, after }),
        }
        (x, y) = from;
    }
    found.reverse();
    found
}

/// Places of what both have exactly once, as many as are in the same order in both.
fn anchors(before: &[u32], after: &[u32]) -> Vec<(usize, usize)> {
    let once = |sequence: &[u32]| {
        let mut places = HashMap::new();
        for (at, item) in sequence.iter().enumerate() {
            let place = places.entry(*item).or_insert(Some(at));
            *place = place.filter(|first| *first == at);
        }
        places
    };
    let in_after = once(after);
    let mut both: Vec<(usize, usize)> = Vec::new();
    for (item, at) in once(before) {
        if let (Some(at), Some(Some(there))) = (at, in_after.get(&item)) {
            both.push((at, *there));
        }
    }
    both.sort_unstable();
    longest_rising(&both)
}

/// Of pairs in the order of their first parts, the most of which the second parts are in order, too.
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // Of the rising sequences of each length, which pair the one ends with that ends lowest; and of
    // each pair, which one comes before it.
    let mut ends: Vec<usize> = Vec::new();
    let mut earlier: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| pairs[*end].1 < pair.1);
        earlier.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut rising = Vec::with_capacity(ends.len());
    let mut last = ends.last().copied();
    while let Some(index) = last {
        rising.push(pairs[index]);
        last = earlier[index];
    }
    rising.reverse();
    rising
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says where it broke")]

    use super::*;

    /// Puts the differences into the first, and gives how many items they touch.
    fn check(before: &[u32], after: &[u32]) -> usize {
        let mut made: Vec<u32> = Vec::new();
        let mut from = 0;
        let mut touched = 0;
        for Hunk {
            before: b,
            after: a,
        } in hunks(before, after)
        {
            assert!(from <= b.start, "in order");
            made.extend(&before[from..b.start]);
            made.extend(&after[a.clone()]);
            from = b.end;
            touched += b.len() + a.len();
        }
        made.extend(&before[from..]);
        assert_eq!(made, after);
        touched
    }

    #[test]
    fn hunks_make_the_second_of_the_first() {
        assert_eq!(check(&[1, 2, 3], &[1, 2, 3]), 0);
        assert_eq!(check(&[1, 2, 3], &[1, 4, 3]), 2);
        assert_eq!(check(&[], &[1]), 1);
        assert_eq!(check(&[1, 2], &[]), 2);
        // One edit, though nothing is where it was.
        assert_eq!(check(&[1, 2, 3, 4], &[4, 1, 2, 3]), 2);
        let long: Vec<u32> = (0..20_000).collect();
        let mut edited = long.clone();
        edited.remove(3);
        edited.insert(15_000, 7);
        assert_eq!(check(&long, &edited), 2);
        // Too much for the fewest edits, but each of them is told from its neighbours.
        let often: Vec<u32> = long
            .iter()
            .map(|n| n + u32::from(n % 10 == 0) * 50_000)
            .collect();
        assert_eq!(check(&long, &often), 4_000);
        let other: Vec<u32> = (30_000..50_000).collect();
        assert_eq!(check(&long, &other), 40_000);
        let mut random = 1_u64;
        let mut below = |end: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((random >> 33) % end) as u32
        };
        for _ in 0..2_000 {
            let kinds = u64::from(below(6)) + 1;
            let mut some = |length| (0..length).map(|_| below(kinds)).collect::<Vec<_>>();
            let (one, other) = (some(12), some(10));
            check(&one, &other);
        }
        for _ in 0..20 {
            let mut some = |length| (0..length).map(|_| below(400)).collect::<Vec<_>>();
            let (one, other) = (some(600), some(700));
            check(&one, &other);
        }
    }
}
