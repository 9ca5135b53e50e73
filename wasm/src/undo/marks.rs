//! The marks of a part of a text: set, removed, and brought back with what is deleted, with no others.

use std::ops::Range;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ReadDoc, ScalarValue};

use super::elements::is_text;

type Marked = Vec<(Range<usize>, ScalarValue)>;

/// Sets a mark, or removes it if the value is null.
pub(crate) fn mark(
    document: &mut Transaction<'_>,
    object: &ObjId,
    range: Range<usize>,
    name: &str,
    value: ScalarValue,
    expand: ExpandMark,
) -> Result<(), AutomergeError> {
    if value == ScalarValue::Null {
        document.unmark(object, name, range.start, range.end, expand)
    } else {
        let mark = Mark::new(name.to_owned(), value, range.start, range.end);
        document.mark(object, mark, expand)
    }
}

/// Where a text has this mark, with which value.
pub(super) fn marked(document: &Transaction<'_>, object: &ObjId, name: &str) -> Marked {
    named(&document.marks(object).unwrap_or_default(), name, 0)
}

/// The marks of a part, by where they are in it.
pub(super) fn marks_in(
    document: &Transaction<'_>,
    object: &ObjId,
    range: &Range<usize>,
) -> Vec<Mark> {
    if !is_text(document, object) {
        return Vec::new();
    }
    let marks = document.marks(object).unwrap_or_default().into_iter();
    let within = marks.filter_map(|mark| {
        let part = overlap(&(mark.start..mark.end), range)?;
        let (start, end) = (part.start - range.start, part.end - range.start);
        Some(Mark { start, end, ..mark })
    });
    within.collect()
}

/// What is inserted where a mark begins or ends is marked by that, or is not.
pub(super) fn mark_as(
    document: &mut Transaction<'_>,
    object: &ObjId,
    range: &Range<usize>,
    marks: &[Mark],
) -> Result<(), AutomergeError> {
    if !is_text(document, object) {
        return Ok(());
    }
    let all = document.marks(object)?;
    let here = |mark: &&Mark| overlap(&(mark.start..mark.end), range).is_some();
    let mut done = Vec::new();
    for Mark { name, .. } in marks.iter().chain(all.iter().filter(here)) {
        if done.contains(&name) {
            continue;
        }
        done.push(name);
        let was = named(marks, name, range.start);
        let is = named(&all, name, 0);
        let at = |index: usize| {
            let marked = if range.contains(&index) { &was } else { &is };
            let found = marked.iter().find(|(part, _)| part.contains(&index));
            found.map_or(&ScalarValue::Null, |(_, value)| value)
        };
        for (part, value) in cut(range.clone(), &was) {
            for (part, now) in cut(part, &is) {
                if now == value {
                    continue;
                }
                // What is inserted between two that are marked alike is, too.
                let before = part.start.checked_sub(1);
                let begins = before.map_or(&ScalarValue::Null, at) == &value;
                let expand = match (begins, at(part.end) == &value) {
                    (true, true) => ExpandMark::Both,
                    (true, false) => ExpandMark::Before,
                    (false, true) => ExpandMark::After,
                    (false, false) => ExpandMark::None,
                };
                mark(document, object, part, name, value.clone(), expand)?;
            }
        }
    }
    Ok(())
}

/// Where the mark of this name is, with which value, counted from an index.
fn named(marks: &[Mark], name: &str, from: usize) -> Marked {
    let marks = marks.iter().filter(|mark| mark.name == name);
    let place = |mark: &Mark| (from + mark.start..from + mark.end, mark.value.clone());
    let mut named: Marked = marks.map(place).collect();
    named.sort_by_key(|(range, _)| range.start);
    named
}

pub(super) fn overlap(a: &Range<usize>, b: &Range<usize>) -> Option<Range<usize>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

/// The parts of a range by what they are marked with; null if with nothing.
pub(super) fn cut(
    range: Range<usize>,
    marked: &[(Range<usize>, ScalarValue)],
) -> Vec<(Range<usize>, ScalarValue)> {
    let mut parts = Vec::new();
    let mut from = range.start;
    let overlaps = |(at, value): &(_, ScalarValue)| Some((overlap(at, &range)?, value.clone()));
    for (at, value) in marked.iter().filter_map(overlaps) {
        parts.push((from..at.start, ScalarValue::Null));
        from = at.end;
        parts.push((at, value));
    }
    parts.push((from..range.end, ScalarValue::Null));
    parts.retain(|(at, _)| !at.is_empty());
    parts
}
