//! How one list becomes another: which elements are the same, and what is to be done to the others.

use std::collections::HashMap;
use std::ops::Range;

use super::hunks::{Hunk, common, hunks, numbered};
use super::tree::{Alike, Tree};

/// In one place of a list, up to so many pairs of what went and what came are compared.
const PAIRS_MAX: usize = 10_000;

/// What a pair of equal elements counts; such that are not alike at all count nothing.
const EQUAL: usize = 1_000;

/// One edit. Places are those of before; steps are in order and do not overlap.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// The element becomes the one that is at `to` afterwards.
    Edit {
        at: usize,
        to: usize,
        before: &'a Tree,
        after: &'a Tree,
    },
    /// These go.
    Delete { from: Range<usize> },
    /// These come, and begin at `to` afterwards. Those that `moved` were elsewhere and are deleted
    /// there: which of these, where from, and what it was there.
    Insert {
        at: usize,
        to: usize,
        values: &'a [Tree],
        moved: Vec<(usize, usize, &'a Tree)>,
    },
}

/// What tells an element from others: its id, or all of it.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Name<'a> {
    Id(Alike<'a>),
    Whole(Alike<'a>),
}

impl<'a> Name<'a> {
    fn of(element: &'a Tree) -> Self {
        match element.id() {
            Some(id) => Self::Id(Alike(id)),
            None => Self::Whole(Alike(element)),
        }
    }
}

/// What makes the second of the first.
pub(super) fn steps<'a>(before: &'a [Tree], after: &'a [Tree]) -> Vec<Step<'a>> {
    let (start, end) = common(before, after);
    let middle = &before[start..before.len() - end];
    let new = &after[start..after.len() - end];
    let names = |elements: &'a [Tree]| elements.iter().map(Name::of).collect::<Vec<_>>();
    let (b, a) = (names(middle), names(new));
    let [numbers, new_numbers] = numbered(&b, &a);
    let mut steps = Steps {
        before: middle,
        after: new,
        start,
        steps: Vec::new(),
    };
    let mut done = (0, 0);
    for Hunk { before, after } in hunks(&numbers, &new_numbers) {
        steps.stay(done, before.start);
        steps.hunk(before.clone(), after.clone());
        done = (before.end, after.end);
    }
    steps.stay(done, middle.len());
    let mut steps = steps.steps;
    find_moved(&mut steps, middle, start);
    steps
}

/// Where the elements of a list lie in one that has others between them. `None` if they are not all
/// there in this order.
pub(super) fn places_of(elements: &[Tree], stored: &[Tree]) -> Option<Vec<usize>> {
    let find = |is: fn(&Tree, &Tree) -> bool| {
        let mut rest = stored.iter().enumerate();
        let place = |element| Some(rest.find(|(_, stored)| is(element, stored))?.0);
        elements.iter().map(place).collect::<Option<Vec<_>>>()
    };
    // What lacks something may be another one, as long as there is one that lacks nothing.
    find(|element, stored| element.is_read_of(stored)).or_else(|| find(Tree::may_be_read_of))
}

/// The same steps in the list that has others between, which is so long. What comes at the end does so
/// there, too.
pub(super) fn placed_at<'a>(
    steps: Vec<Step<'a>>,
    places: &[usize],
    length: usize,
) -> Vec<Step<'a>> {
    let mut placed = Vec::with_capacity(steps.len());
    for step in steps {
        match step {
            Step::Edit {
                at,
                to,
                before,
                after,
            } => placed.push(Step::Edit {
                at: places[at],
                to,
                before,
                after,
            }),
            Step::Delete { from } => placed.extend(from.map(|at| Step::Delete {
                from: places[at]..places[at] + 1,
            })),
            Step::Insert {
                at,
                to,
                values,
                moved,
            } => placed.push(Step::Insert {
                at: places.get(at).copied().unwrap_or(length),
                to,
                values,
                moved: moved
                    .into_iter()
                    .map(|(index, from, before)| (index, places[from], before))
                    .collect(),
            }),
        }
    }
    placed
}

struct Steps<'a> {
    before: &'a [Tree],
    after: &'a [Tree],
    /// How many elements lie before these.
    start: usize,
    steps: Vec<Step<'a>>,
}

impl<'a> Steps<'a> {
    /// Elements of the same names: some may have been edited.
    fn stay(&mut self, from: (usize, usize), end: usize) {
        for (nth, at) in (from.0..end).enumerate() {
            self.edit(at, from.1 + nth);
        }
    }

    fn edit(&mut self, at: usize, to: usize) {
        let (before, after) = (&self.before[at], &self.after[to]);
        if are_others(before, after) {
            // In one place, two that several put there at once would be a conflict.
            self.replace(at..at + 1, to..to + 1);
        } else if before != after {
            self.steps.push(Step::Edit {
                at: self.start + at,
                to: self.start + to,
                before,
                after,
            });
        }
    }

    /// Some took the place of others. Of these, the ones that are most alike are the same; and if there
    /// are as many as before between two such, they are too.
    fn hunk(&mut self, before: Range<usize>, after: Range<usize>) {
        let pairs = most_alike(&self.before[before.clone()], &self.after[after.clone()]);
        let pairs = pairs
            .into_iter()
            .map(|(at, to)| (before.start + at, after.start + to));
        let mut done = (before.start, after.start);
        for (at, to) in pairs.chain([(before.end, after.end)]) {
            let (went, came) = (done.0..at, done.1..to);
            let mut pairs = went.clone().zip(came.clone());
            let is_kept = |(at, to): (usize, usize)| !are_others(&self.before[at], &self.after[to]);
            if went.len() == came.len() && pairs.any(is_kept) {
                went.zip(came).for_each(|(at, to)| self.edit(at, to));
            } else {
                self.replace(went, came);
            }
            if at < before.end && to < after.end {
                self.edit(at, to);
            }
            done = (at + 1, to + 1);
        }
    }

    fn replace(&mut self, went: Range<usize>, came: Range<usize>) {
        let (at, to) = (self.start + went.start, self.start + came.start);
        if !came.is_empty() {
            self.steps.push(Step::Insert {
                at,
                to,
                values: &self.after[came],
                moved: Vec::new(),
            });
        }
        if !went.is_empty() {
            let from = at..at + went.len();
            self.steps.push(Step::Delete { from });
        }
    }
}

/// Whether their ids say that one is not the other.
fn are_others(before: &Tree, after: &Tree) -> bool {
    match (before.id(), after.id()) {
        (Some(id), Some(other)) => Alike(id) != Alike(other),
        _ => false,
    }
}

/// Of what went and what came, the pairs in order that are most alike all together; none if there is
/// too much to compare.
fn most_alike(went: &[Tree], came: &[Tree]) -> Vec<(usize, usize)> {
    if went.len() * came.len() > PAIRS_MAX {
        return Vec::new();
    }
    let width = came.len() + 1;
    let likeness = |at: usize, to: usize| likeness(&went[at], &came[to]);
    // The most that can be had of the first so many of each.
    let mut most = vec![0; (went.len() + 1) * width];
    for at in 0..went.len() {
        for to in 0..came.len() {
            let pair = likeness(at, to);
            let with = if pair > 0 {
                most[at * width + to] + pair
            } else {
                0
            };
            let without = most[at * width + to + 1].max(most[(at + 1) * width + to]);
            most[(at + 1) * width + to + 1] = with.max(without);
        }
    }
    let mut pairs = Vec::new();
    let (mut at, mut to) = (went.len(), came.len());
    while at > 0 && to > 0 {
        let all = most[at * width + to];
        if all == most[(at - 1) * width + to] {
            at -= 1;
        } else if all == most[at * width + to - 1] {
            to -= 1;
        } else {
            (at, to) = (at - 1, to - 1);
            pairs.push((at, to));
        }
    }
    pairs.reverse();
    pairs
}

/// How much of one is in the other.
fn likeness(before: &Tree, after: &Tree) -> usize {
    match (before, after) {
        (Tree::Map(entries), Tree::Map(others)) => match (before.id(), after.id()) {
            (Some(id), Some(other)) if Alike(id) == Alike(other) => EQUAL,
            (None, None) => {
                let is_same = |(key, value): &&(_, Tree)| {
                    let other: &super::tree::Key = key;
                    after
                        .entry(other)
                        .is_some_and(|other| Alike(value) == Alike(other))
                };
                let same = entries.iter().filter(is_same).count();
                EQUAL * same / entries.len().max(others.len()).max(1)
            }
            _ => 0,
        },
        (Tree::Variant(name, content), Tree::Variant(other, others)) if name == other => {
            1 + likeness(content, others) / 2
        }
        (Tree::List(elements), Tree::List(others)) => {
            let (start, end) = common(elements, others);
            EQUAL * (start + end) / elements.len().max(others.len()).max(1)
        }
        (Tree::Text(text), Tree::Text(other)) => {
            let (start, end) = common(text.as_bytes(), other.as_bytes());
            let share = EQUAL * (start + end) / text.len().max(other.len()).max(1);
            if 2 * share >= EQUAL { share } else { 0 }
        }
        _ => 0,
    }
}

/// Finds what is inserted in one place and deleted in another.
fn find_moved<'a>(steps: &mut [Step<'a>], before: &'a [Tree], start: usize) {
    let mut deleted: HashMap<Name<'_>, Vec<usize>> = HashMap::new();
    for step in steps.iter() {
        if let Step::Delete { from } = step {
            for at in from.clone() {
                let name = Name::of(&before[at - start]);
                deleted.entry(name).or_default().push(at);
            }
        }
    }
    for step in steps {
        if let Step::Insert { values, moved, .. } = step {
            let values: &'a [Tree] = values;
            for (index, value) in values.iter().enumerate() {
                let is_object = !matches!(value, Tree::Scalar(_));
                let from = deleted.get_mut(&Name::of(value)).filter(|_| is_object);
                if let Some(from) = from.and_then(Vec::pop) {
                    moved.push((index, from, &before[from - start]));
                }
            }
        }
    }
}
