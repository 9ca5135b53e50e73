//! What leads from one state of a document to another.
//!
//! What Automerge notes while it changes a document is not what changed where several values are
//! visible at one place, or were: of a value that is deleted while one with a lower id arrives, it
//! notes neither, a counter that comes to show has lost its increments, and of several counters that
//! are incremented, it notes a hidden one. What is inserted behind an element of a list that stays
//! although it was deleted, it notes at a wrong index (automerge 0.12). So such places are looked
//! for. Where there are any, the difference between the two states is used, which reads the whole
//! document: 0.3 s in a browser for 260,000 operations.

use automerge::iter::ListRangeItem;
use automerge::legacy::{Key, ObjectId, OpType};
use automerge::{
    Automerge, Change, ChangeHash, ObjId, ObjType, Patch, PatchAction, Prop, ROOT, ReadDoc,
    ScalarValue,
};

/// Most places that are looked at: for more, the difference is as fast.
const TOUCHED_MAX: usize = 1_024;

/// The patches that lead from the contents at some heads to those at others.
///
/// They are Automerge's, and mended: of several values on one element of a list, automerge 0.12
/// takes a wrong one for the visible one when between two that stay, one ends.
#[must_use]
pub fn between(document: &Automerge, before: &[ChangeHash], after: &[ChangeHash]) -> Vec<Patch> {
    let mut patches = document.diff(before, after);
    let mut mended = Vec::new();
    let mut in_conflict = (&ROOT, Vec::new());
    for Patch { obj, path, action } in &patches {
        let PatchAction::PutSeq { index, value, .. } = action else {
            continue;
        };
        // Patches of one object come after each other.
        if in_conflict.0 != obj {
            in_conflict = (obj, conflicts(document, obj, after));
        }
        // Later patches move no earlier element of the same list, so the index is that of afterwards.
        let item = in_conflict.1.iter().find(|item| item.index == *index);
        let Some(item) = item.filter(|item| item.id() != value.1) else {
            continue;
        };
        let id = item.id();
        let visible = item.value.clone().into_value();
        let inside = match visible.is_object() {
            true => document.diff_obj(&id, &[], after, true),
            false => Ok(Vec::new()),
        };
        mended.push(Patch {
            obj: obj.clone(),
            path: path.clone(),
            action: PatchAction::PutSeq {
                index: *index,
                value: (visible, id),
                conflict: true,
            },
        });
        mended.extend(inside.unwrap_or_default());
    }
    patches.append(&mut mended);
    patches
}

/// What changes put something in the place of, or delete.
#[derive(Default)]
pub(crate) struct Touched {
    keys: Vec<(ObjectId, String)>,
    /// Lists and texts; one may be named several times.
    sequences: Vec<ObjectId>,
    /// An element of a list or a text was replaced or incremented.
    has_replaced_element: bool,
}

impl Touched {
    pub(crate) fn by(changes: &[Change]) -> Self {
        let mut touched = Self::default();
        for op in changes.iter().flat_map(|change| change.decode().operations) {
            match op.key {
                _ if op.insert => {}
                Key::Map(name) => touched.keys.push((op.obj, name.to_string())),
                Key::Seq(_) => {
                    touched.has_replaced_element |= !matches!(op.action, OpType::Delete);
                    if touched.sequences.last() != Some(&op.obj) {
                        touched.sequences.push(op.obj);
                    }
                }
            }
        }
        touched
    }

    /// Whether what is noted of these places may be wrong: there are several values at one, or it is
    /// in a list. Nobody replaces the characters of a text.
    pub(crate) fn is_contested(&self, document: &Automerge) -> bool {
        let is_list = |object: &ObjectId| {
            let kind = document.object_type(object_id(object));
            kind.is_ok_and(|kind| kind != ObjType::Text)
        };
        self.has_replaced_element
            || self.keys.len() + self.sequences.len() > TOUCHED_MAX
            || self.sequences.iter().any(is_list)
            || self
                .keys
                .iter()
                .any(|(map, key)| has_rivals(document, &object_id(map), key))
    }
}

/// Whether what was noted of an edit made here may count wrong: it incremented what is in conflict.
/// Every other edit ends the conflicts that it meets.
pub(crate) fn may_miscount(document: &Automerge, patches: &[Patch]) -> bool {
    let is_counter =
        |value: &automerge::Value<'_>| matches!(value.as_scalar(), Some(ScalarValue::Counter(_)));
    patches
        .iter()
        .any(|Patch { obj, action, .. }| match action {
            PatchAction::PutMap { key, value, .. } if is_counter(&value.0) => {
                has_rivals(document, obj, key)
            }
            PatchAction::Increment {
                prop: Prop::Map(key),
                ..
            } => has_rivals(document, obj, key),
            PatchAction::PutSeq { value, .. } if !is_counter(&value.0) => false,
            PatchAction::PutSeq { .. } | PatchAction::Increment { .. } => {
                !conflicts(document, obj, &document.get_heads()).is_empty()
            }
            _ => false,
        })
}

fn has_rivals(document: &Automerge, map: &ObjId, key: &str) -> bool {
    let values = document.get_all(map, key);
    values.is_ok_and(|values| values.len() > 1)
}

/// The elements of a list that have several values.
fn conflicts<'a>(
    document: &'a Automerge,
    list: &ObjId,
    at: &[ChangeHash],
) -> Vec<ListRangeItem<'a>> {
    let mut items = Vec::new();
    if document.object_type(list) == Ok(ObjType::List) {
        let all = document.list_range_at(list, .., at);
        items.extend(all.filter(|item| item.conflict));
    }
    items
}

pub(crate) fn object_id(object: &ObjectId) -> ObjId {
    match object {
        ObjectId::Root => ROOT,
        // Automerge looks the actor up when the place that is given here is another one's.
        ObjectId::Id(id) => ObjId::Id(id.0, id.1.clone(), 0),
    }
}
