//! Writes into a document what is different, and nothing else.

use std::collections::HashMap;

use automerge::transaction::Transactable;
use automerge::{ObjId, ObjType, Prop, ScalarValue, TextEncoding, Value};
use unicode_segmentation::UnicodeSegmentation;

use super::elements::{Step, placed_at, places_of, steps};
use super::fault::Fault;
use super::text::splices;
use super::tree::{Alike, Key, Tree};

/// Makes an object what it shall be, which must be of its kind.
pub(super) fn whole(
    tx: &mut impl Transactable,
    object: &ObjId,
    kind: ObjType,
    before: Option<&Tree>,
    after: &Tree,
) -> Result<(), Fault> {
    match (kind, after) {
        (ObjType::Map | ObjType::Table, Tree::Map(after)) => map(tx, object, before, after),
        (ObjType::Map | ObjType::Table, Tree::Variant(name, content)) => {
            let after = [((*name).into(), (**content).clone())];
            map(tx, object, before, &after)
        }
        (ObjType::List, Tree::List(after)) => list(tx, object, before, after),
        (ObjType::Text, Tree::Text(after)) => text(tx, None, object, after),
        (_, other) => {
            let other = match other {
                Tree::Map(_) | Tree::Variant(..) => "a map",
                Tree::List(_) => "a list",
                Tree::Text(_) | Tree::Word(_) => "a text",
                Tree::Scalar(_) => "a single value",
            };
            Err(Fault::new(format_args!(
                "{other}, but the object is a {kind}"
            )))
        }
    }
}

/// Makes a map what it shall be. `before` is what it was read as: what is the same there is not
/// touched, and keys that it does not have are left alone. Without it, what is stored is compared.
pub(super) fn map(
    tx: &mut impl Transactable,
    map: &ObjId,
    before: Option<&Tree>,
    after: &[(Key, Tree)],
) -> Result<(), Fault> {
    let named = before.and_then(Tree::named);
    let before = named.as_ref().or(before);
    if let Some(Tree::Map(before)) = before {
        let is_left = |key: &Key| after.binary_search_by(|(other, _)| other.cmp(key)).is_err();
        for (key, _) in before.iter().filter(|(key, _)| is_left(key)) {
            if tx.get(map, &**key).map_err(Fault::new)?.is_some() {
                tx.delete(map, &**key).map_err(Fault::new)?;
            }
        }
    }
    for (key, after) in after {
        let before = before.and_then(|before| before.entry(key));
        if before != Some(after) {
            let placed = place(tx, map, key.as_ref().into(), before, after);
            placed.map_err(|fault| fault.in_key(key))?;
        }
    }
    Ok(())
}

/// Makes what is at one place what it shall be.
fn place(
    tx: &mut impl Transactable,
    object: &ObjId,
    prop: Prop,
    before: Option<&Tree>,
    after: &Tree,
) -> Result<(), Fault> {
    let found = tx.get(object, prop.clone()).map_err(Fault::new)?;
    let found = found.map(|(value, id)| (value.into_owned(), id));
    match (found, after) {
        (Some((Value::Object(ObjType::Map | ObjType::Table), id)), Tree::Map(after)) => {
            map(tx, &id, before, after)
        }
        (Some((Value::Object(ObjType::Map), id)), Tree::Variant(name, content)) => {
            let before = match before {
                Some(Tree::Variant(former, before)) if former == name => Some(&**before),
                None if tx.length(&id) == 1 && has(tx, &id, name)? => None,
                _ => return put(tx, object, prop, after),
            };
            let placed = place(tx, &id, (*name).into(), before, content);
            placed.map_err(|fault| fault.in_key(name))
        }
        (Some((Value::Object(ObjType::List), id)), Tree::List(after)) => {
            list(tx, &id, before, after)
        }
        (Some((Value::Object(ObjType::Text), id)), Tree::Text(after)) => {
            text(tx, Some((object, prop)), &id, after)
        }
        (Some((Value::Object(ObjType::Text), id)), Tree::Word(name)) => {
            match tx.text(&id).map_err(Fault::new)? == **name {
                true => Ok(()),
                false => put(tx, object, prop, after),
            }
        }
        (Some((Value::Scalar(stored), _)), _) => scalar(tx, (object, prop), &stored, after),
        _ => put(tx, object, prop, after),
    }
}

fn has(tx: &impl Transactable, map: &ObjId, key: &str) -> Result<bool, Fault> {
    let found = tx.get(map, key).map_err(Fault::new)?;
    Ok(found.is_some())
}

/// In the place of a scalar. What is stored keeps its kind if the new value can have it.
fn scalar(
    tx: &mut impl Transactable,
    (object, prop): (&ObjId, Prop),
    stored: &ScalarValue,
    after: &Tree,
) -> Result<(), Fault> {
    if after.may_be_read_of(&Tree::Scalar(stored.clone())) {
        return Ok(());
    }
    let kept = match (stored, after) {
        (ScalarValue::Counter(sum), Tree::Scalar(after)) => {
            let after = match after {
                ScalarValue::Counter(after) => Some(i64::from(after)),
                ScalarValue::Int(after) => Some(*after),
                _ => None,
            };
            if let Some(after) = after {
                let by = after.checked_sub(i64::from(sum));
                let by = by.ok_or_else(|| Fault::new("a counter takes steps of 64 bits"))?;
                return tx.increment(object, prop, by).map_err(Fault::new);
            }
            None
        }
        (ScalarValue::Str(_), Tree::Text(text)) => Some(ScalarValue::Str(text.into())),
        (ScalarValue::Str(_), Tree::Word(name)) => Some(ScalarValue::Str(name.as_ref().into())),
        (ScalarValue::Timestamp(_), Tree::Scalar(ScalarValue::Int(ms))) => {
            Some(ScalarValue::Timestamp(*ms))
        }
        (ScalarValue::Bytes(_), Tree::List(_)) => after.as_bytes().map(ScalarValue::Bytes),
        _ => None,
    };
    match kept {
        Some(value) => tx.put(object, prop, value).map_err(Fault::new),
        None => put(tx, object, prop, after),
    }
}

/// In the place of whatever is there.
fn put(tx: &mut impl Transactable, object: &ObjId, prop: Prop, after: &Tree) -> Result<(), Fault> {
    if let Tree::Scalar(value) = after {
        return tx.put(object, prop, value.clone()).map_err(Fault::new);
    }
    let value = after.hydrated(tx.text_encoding());
    let made = tx.batch_create_object(object, prop, &value, false);
    made.map(drop).map_err(Fault::new)
}

/// Edits a text where it differs, so that what others type in it at the same time stays, too. A
/// single word that becomes another one is replaced: of two words at once, letters of both would come.
fn text(
    tx: &mut impl Transactable,
    place: Option<(&ObjId, Prop)>,
    text: &ObjId,
    after: &str,
) -> Result<(), Fault> {
    let before = tx.text(text).map_err(Fault::new)?;
    let splices = splices(&before, after);
    let deleted: usize = splices.iter().map(|splice| splice.deleted.len()).sum();
    let kept = before.len() - deleted;
    let is_word = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
    let is_other = 2 * kept < before.len().max(after.len());
    if let Some((object, prop)) = place.filter(|_| is_other && is_word(&before) && is_word(after)) {
        return put(tx, object, prop, &Tree::Text(after.to_owned()));
    }
    let encoding = tx.text_encoding();
    let mut end = (0, 0);
    let mut places = Vec::with_capacity(splices.len());
    for splice in &splices {
        end = (
            splice.at,
            end.1 + width(encoding, &before[end.0..splice.at]),
        );
        places.push(end.1);
    }
    // From the end, so that earlier places stay what they are.
    for (at, splice) in places.into_iter().zip(&splices).rev() {
        let deleted = width(encoding, splice.deleted) as isize;
        let spliced = tx.splice_text(text, at, deleted, splice.inserted);
        spliced.map_err(Fault::new)?;
    }
    if tx.text(text).map_err(Fault::new)? != after {
        // Characters that somebody inserted as one element come and go together.
        let length = tx.length(text) as isize;
        let spliced = tx.splice_text(text, 0, length, after);
        spliced.map_err(Fault::new)?;
    }
    Ok(())
}

/// How many places a document counts for a text.
fn width(encoding: TextEncoding, text: &str) -> usize {
    match encoding {
        TextEncoding::UnicodeCodePoint => text.chars().count(),
        TextEncoding::Utf8CodeUnit => text.len(),
        TextEncoding::Utf16CodeUnit => text.encode_utf16().count(),
        TextEncoding::GraphemeCluster => text.graphemes(true).count(),
    }
}

/// Makes a list what it shall be.
fn list(
    tx: &mut impl Transactable,
    list: &ObjId,
    before: Option<&Tree>,
    after: &[Tree],
) -> Result<(), Fault> {
    if let Some(Tree::List(before)) = before {
        let steps = steps(before, after);
        if are_stored(tx, list, before, &steps)? {
            return take(tx, list, steps, true);
        }
    }
    let Tree::List(mut stored) = Tree::of_object(tx, list, ObjType::List)? else {
        unreachable!("a list is read as a list");
    };
    if let Some(Tree::List(before)) = before
        && let Some(places) = places_of(before, &stored)
    {
        // The type reads only some of it, as a tuple does of a longer list. The rest stays.
        let steps = steps(before, after);
        return take(tx, list, placed_at(steps, &places, stored.len()), true);
    }
    // The type reads it in another order, as a set does.
    let mut reordered = None;
    if let Some(Tree::List(before)) = before
        && counted(before) == counted(&stored)
    {
        reordered = Some(in_order_of(&stored, after));
    }
    let after = reordered.as_deref().unwrap_or(after);
    narrow(&mut stored, after);
    take(tx, list, steps(&stored, after), false)
}

fn counted(elements: &[Tree]) -> HashMap<Alike<'_>, usize> {
    let mut counts = HashMap::new();
    for element in elements {
        *counts.entry(Alike(element)).or_default() += 1;
    }
    counts
}

/// What stays, in the order in which it is stored, and then what is new.
fn in_order_of(stored: &[Tree], after: &[Tree]) -> Vec<Tree> {
    let mut left = counted(after);
    let mut taken = counted(&[]);
    let mut ordered = Vec::with_capacity(after.len());
    for element in stored {
        if let Some(count) = left.get_mut(&Alike(element)).filter(|count| **count > 0) {
            *count -= 1;
            *taken.entry(Alike(element)).or_default() += 1;
            ordered.push(element.clone());
        }
    }
    for element in after {
        match taken.get_mut(&Alike(element)).filter(|count| **count > 0) {
            Some(count) => *count -= 1,
            None => ordered.push(element.clone()),
        }
    }
    ordered
}

/// Leaves out of the stored maps what no map of the value has: the type does not know it.
fn narrow(stored: &mut [Tree], after: &[Tree]) {
    let is_known = |key: &Key| after.iter().any(|element| element.entry(key).is_some());
    let mut known: HashMap<Key, bool> = HashMap::new();
    for element in stored {
        if let Tree::Map(entries) = element {
            entries.retain(|(key, _)| {
                let known = known.entry(key.clone());
                *known.or_insert_with(|| is_known(key))
            });
        }
    }
}

/// So many elements of a list are looked up one by one; of more, the whole list is read.
const LOOKED_UP_MAX: usize = 100;

/// Whether a list was read as what it is stored as, as far as it is to be edited.
fn are_stored(
    tx: &impl Transactable,
    list: &ObjId,
    before: &[Tree],
    steps: &[Step<'_>],
) -> Result<bool, Fault> {
    if tx.length(list) != before.len() {
        return Ok(false);
    }
    let touched = steps.iter().flat_map(|step| match step {
        Step::Edit { at, .. } => *at..at + 1,
        Step::Delete { from, .. } => from.clone(),
        Step::Insert { .. } => 0..0,
    });
    if touched.clone().count() <= LOOKED_UP_MAX {
        for at in touched {
            let stored = Tree::at(tx, list, at)?;
            if !stored.is_some_and(|stored| before[at].may_be_read_of(&stored)) {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let Tree::List(stored) = Tree::of_object(tx, list, ObjType::List)? else {
        return Ok(false);
    };
    let mut touched = touched;
    Ok(touched.all(|at| before[at].may_be_read_of(&stored[at])))
}

/// Takes the steps. If the list was read as the type has it, only what differs from that is written.
fn take(
    tx: &mut impl Transactable,
    list: &ObjId,
    steps: Vec<Step<'_>>,
    as_read: bool,
) -> Result<(), Fault> {
    let encoding = tx.text_encoding();
    let known = |before| if as_read { Some(before) } else { None };
    // What moves is copied as it is stored, with what the type does not know, before it is deleted.
    let mut copies = HashMap::new();
    for step in &steps {
        let Step::Insert { moved, .. } = step else {
            continue;
        };
        for (_, from, _) in moved {
            let found = tx.get(list, *from).map_err(Fault::new)?;
            if let Some((Value::Object(_), id)) = found {
                copies.insert(*from, tx.hydrate(id, None).map_err(Fault::new)?);
            }
        }
    }
    // From the end, so that earlier places stay what they are.
    for step in steps.into_iter().rev() {
        match step {
            Step::Edit {
                at,
                before,
                after,
                to,
            } => {
                let placed = match before.id().map(Alike) == after.id().map(Alike) {
                    true => place(tx, list, at.into(), known(before), after),
                    // Another one came in its place.
                    false => put(tx, list, at.into(), after),
                };
                placed.map_err(|fault| fault.in_index(to))?;
            }
            Step::Delete { from } => {
                let nothing = std::iter::empty::<ScalarValue>();
                let spliced = tx.splice(list, from.start, from.len() as isize, nothing);
                spliced.map_err(Fault::new)?;
            }
            Step::Insert {
                at,
                values,
                moved,
                to,
            } => {
                let mut made: Vec<_> = values.iter().map(|it| it.hydrated(encoding)).collect();
                for (index, from, _) in &moved {
                    if let Some(copy) = copies.remove(from) {
                        made[*index] = copy;
                    }
                }
                tx.splice(list, at, 0, made).map_err(Fault::new)?;
                for (index, _, before) in moved {
                    let placed =
                        place(tx, list, (at + index).into(), known(before), &values[index]);
                    placed.map_err(|fault| fault.in_index(to + index))?;
                }
            }
        }
    }
    Ok(())
}
