//! The elements of lists and texts, by what they are called and by where they are.

use std::ops::Range;

use automerge::transaction::{Transactable, Transaction};
use automerge::{
    AutomergeError, Cursor, ObjId, ObjType, Prop, ReadDoc, ScalarValue, ScalarValueRef, ValueRef,
};

use super::names::{Run, by_actor, joined};

/// Texts of more indexes than this are kept as a whole, because looking at each character of a
/// pasted book takes seconds.
pub(super) const LONG: usize = 512;

pub(crate) fn id_at(document: &Transaction<'_>, object: &ObjId, prop: Prop) -> Option<ObjId> {
    Some(document.get(object, prop).ok()??.1)
}

/// Where an element is, if it is still there.
pub(super) fn index_of(
    document: &Transaction<'_>,
    object: &ObjId,
    element: &ObjId,
) -> Option<usize> {
    let index = place_of(document, object, element)?;
    (id_at(document, object, index.into()).as_ref() == Some(element)).then_some(index)
}

/// Where an element of this object is or was: how many indexes are before it.
pub(super) fn place_of(
    document: &Transaction<'_>,
    object: &ObjId,
    element: &ObjId,
) -> Option<usize> {
    let cursor = Cursor::try_from(element.to_string()).ok()?;
    document.get_cursor_position(object, &cursor, None).ok()
}

/// How many indexes an element takes: two if it is a character beyond the basic plane.
pub(super) fn width(document: &Transaction<'_>, object: &ObjId, index: usize) -> usize {
    let text = match document.get(object, index) {
        Ok(Some((value, _))) if is_text(document, object) => {
            value.as_str().map(|text| text.encode_utf16().count())
        }
        _ => None,
    };
    text.unwrap_or(1).max(1)
}

/// The indexes at which elements begin.
pub(super) fn elements<'a>(
    document: &'a Transaction<'_>,
    object: &'a ObjId,
    range: Range<usize>,
) -> impl Iterator<Item = usize> + 'a {
    let next = move |index: &usize| Some(index + width(document, object, *index));
    std::iter::successors(Some(range.start), next).take_while(move |index| *index < range.end)
}

/// Tells of each element in turn where it is, what it is called and what text it has, if any. `None` if
/// that cannot be said, of a text in which texts are marks: they are not told from characters.
pub(super) fn each(
    document: &Transaction<'_>,
    object: &ObjId,
    mut tell: impl FnMut(Range<usize>, ObjId, Option<&str>),
) -> Option<()> {
    let is_text = is_text(document, object);
    let mut start = 0;
    for item in document.list_range(object, ..) {
        let text = match &item.value {
            ValueRef::Scalar(ScalarValueRef::Str(text)) if is_text => Some(&**text),
            // A mark, or its end.
            ValueRef::Scalar(_) if is_text => continue,
            _ => None,
        };
        let end = start + text.map_or(1, |text| text.encode_utf16().count());
        tell(start..end, item.id(), text);
        start = end;
    }
    (start == document.length(object)).then_some(())
}

/// Where elements are, and how many are still there, by looking at all that is in the object, once.
pub(super) fn find_all(
    document: &Transaction<'_>,
    object: &ObjId,
    runs: &[Run],
) -> Option<(Vec<Range<usize>>, usize)> {
    let mut runs: Vec<&Run> = runs.iter().collect();
    runs.sort_unstable_by(|a, b| by_actor(&a.first).cmp(&by_actor(&b.first)));
    let mut ranges = Vec::<Range<usize>>::new();
    let mut count = 0;
    each(document, object, |at, id, _| {
        let after = runs.partition_point(|run| by_actor(&run.first) <= by_actor(&id));
        if !after.checked_sub(1).is_some_and(|at| runs[at].has(&id)) {
            return;
        }
        count += 1;
        match ranges.last_mut() {
            Some(last) if last.end == at.start => last.end = at.end,
            _ => ranges.push(at),
        }
    })?;
    Some((ranges, count))
}

/// The elements that were just inserted.
pub(super) fn runs(document: &Transaction<'_>, object: &ObjId, range: Range<usize>) -> Vec<Run> {
    let id = |index: usize| id_at(document, object, index.into());
    // Where each index has its operation, nothing of the text need be read.
    if range.len() > LONG
        && let (Some(first), Some(last)) = (id(range.start), id(range.end - 1))
    {
        let count = range.len();
        let run = Run { first, count };
        if run.name(count - 1) == last {
            return vec![run];
        }
    }
    if range.len() > LONG
        && let Some(text) = plain_text(document, object, range.clone())
        && let Some(wide) = text.chars().next_back().map(char::len_utf16)
        && let (Some(first), Some(last)) = (id(range.start), id(range.end - wide))
    {
        let count = text.chars().count();
        let run = Run { first, count };
        if run.name(count - 1) == last {
            return vec![run];
        }
    }
    joined(elements(document, object, range).filter_map(id))
}

/// A part of a text, unless there are blocks in it.
pub(super) fn plain_text(
    document: &Transaction<'_>,
    object: &ObjId,
    range: Range<usize>,
) -> Option<String> {
    if !is_text(document, object) {
        return None;
    }
    let units: Vec<u16> = document.text(object).ok()?.encode_utf16().collect();
    let text = String::from_utf16(units.get(range)?).ok()?;
    (!text.contains('\u{fffc}')).then_some(text)
}

pub(super) fn is_text(document: &Transaction<'_>, object: &ObjId) -> bool {
    document.object_type(object) == Ok(ObjType::Text)
}

/// Whether an object is there, and no part of what the document shows.
pub(crate) fn is_hidden(document: &Transaction<'_>, object: &ObjId) -> bool {
    let parents = document.parents(object);
    parents.is_ok_and(|mut parents| parents.any(|parent| !parent.visible))
}

pub(super) fn remove(
    document: &mut Transaction<'_>,
    object: &ObjId,
    range: Range<usize>,
) -> Result<(), AutomergeError> {
    let count = range.len() as isize;
    if document.object_type(object)? == ObjType::Text {
        document.splice_text(object, range.start, count, "")
    } else {
        document.splice(
            object,
            range.start,
            count,
            std::iter::empty::<ScalarValue>(),
        )
    }
}
