//! What leads from one state of a document to another.
//!
//! What Automerge notes while it changes a document is not what changed where several values are
//! visible at one place, or were: of a value that is deleted while one with a lower id arrives, it
//! notes neither, a counter that comes to show has lost its increments, and of several counters that
//! are incremented, it notes a hidden one. What is inserted behind an element of a list that stays
//! although it was deleted, it notes at a wrong index (automerge 0.12). So such places are looked
//! for. Where there are any, the difference between the two states is used.
//!
//! Automerge's own reads the whole document for that: 0.3 s in a browser for 260,000 operations. But
//! only objects differ that changes name which one of the two states has and the other has not. So
//! the graph of changes is walked from both heads until all that is left is in the past of both, and
//! only the objects of what was found are compared, one by one, unless that costs more.

use std::collections::{BTreeMap, HashSet};

use automerge::iter::ListRangeItem;
use automerge::legacy::{Key, ObjectId, OpType};
use automerge::{
    Automerge, Change, ChangeHash, ObjId, ObjType, Patch, PatchAction, Prop, ROOT, ReadDoc,
    ScalarValue,
};

/// Most places that are looked at: for more, the difference is as fast.
const TOUCHED_MAX: usize = 1_024;

/// How many operations Automerge reads of a whole document while a change is looked up, its
/// operations are told, or an object is opened to be compared.
const CHANGE_COST: u64 = 800;
const OPERATION_COST: u64 = 2;
const OBJECT_COST: u64 = 64;

/// So many objects tell what it costs to compare all.
const SAMPLE: u64 = 16;

/// The patches that lead from the contents at some heads to those at others.
///
/// They are Automerge's, and mended: of several values on one element of a list, automerge 0.12
/// takes a wrong one for the visible one when between two that stay, one ends.
#[must_use]
pub fn between(document: &Automerge, before: &[ChangeHash], after: &[ChangeHash]) -> Vec<Patch> {
    if before.is_empty() && is_now(document, after) {
        // What is there now is at hand, where it would be looked up of each operation whether it was.
        return mended(document, document.current_state(), after);
    }
    let budget = operations(document);
    match Differing::within(document, before, after, budget) {
        Some(differing) => differing.patches(document, before, after),
        None => whole(document, before, after),
    }
}

/// Whether these are the heads of the document, in whatever order.
pub(crate) fn is_now(document: &Automerge, heads: &[ChangeHash]) -> bool {
    let now = document.get_heads();
    now.len() == heads.len() && now.iter().all(|head| heads.contains(head))
}

/// The same, from all that there is in the document.
fn whole(document: &Automerge, before: &[ChangeHash], after: &[ChangeHash]) -> Vec<Patch> {
    let patches = document.diff(before, after);
    // Where marks changed in two texts, automerge 0.12 tells those of the second as of the first.
    let is_mark = |patch: &Patch| matches!(patch.action, PatchAction::Mark { .. });
    if patches.iter().any(is_mark)
        && let Some(differing) = Differing::within(document, before, after, u64::MAX)
    {
        return differing.patches(document, before, after);
    }
    mended(document, patches, after)
}

/// What differs between two states of a document.
#[derive(Debug)]
pub struct Differing {
    /// The objects that may differ, each after those around it.
    pub objects: Vec<ObjId>,
    /// The changes that only the second state has.
    new: Vec<ChangeHash>,
}

impl Differing {
    /// Looks for what differs; `None` if to compare it costs more than to read `budget` operations.
    #[must_use]
    pub fn within(
        document: &Automerge,
        before: &[ChangeHash],
        after: &[ChangeHash],
        budget: u64,
    ) -> Option<Self> {
        let changes = changes_between(document, before, after, budget)?;
        let mut objects = Vec::new();
        for (hash, _) in &changes {
            let operations = document.get_change_by_hash(hash)?.decode().operations;
            objects.extend(operations.iter().map(|op| object_id(&op.obj)));
            objects.dedup();
        }
        objects.sort_unstable();
        objects.dedup();
        let mut cost = 0;
        for (done, object) in (1..).zip(&objects) {
            cost += OBJECT_COST + document.length(object) as u64;
            // To tell where it is, all that is beside it and beside those around it is read.
            for parent in document.parents(object).ok()? {
                cost += document.length(&parent.obj) as u64;
            }
            // To find out what many cost, costs something too: some of them tell.
            let all = match done < SAMPLE {
                true => cost,
                false => cost / done * objects.len() as u64,
            };
            if all > budget {
                return None;
            }
        }
        let new = changes.iter().filter(|(_, side)| *side == AFTER);
        Some(Self {
            objects,
            new: new.map(|(hash, _)| *hash).collect(),
        })
    }

    /// The patches that lead from one state to the other.
    #[must_use]
    pub fn patches(
        &self,
        document: &Automerge,
        before: &[ChangeHash],
        after: &[ChangeHash],
    ) -> Vec<Patch> {
        let mut patches = Vec::new();
        let mut complete = HashSet::new();
        for object in &self.objects {
            self.compare(document, object, before, after, &mut complete, &mut patches);
        }
        patches
    }

    /// Adds what differs in one object, without what is in it. `complete` has the objects of
    /// which the patches have all that they hold.
    fn compare(
        &self,
        document: &Automerge,
        object: &ObjId,
        before: &[ChangeHash],
        after: &[ChangeHash],
        complete: &mut HashSet<ObjId>,
        patches: &mut Vec<Patch>,
    ) {
        if complete.contains(object) {
            return;
        }
        let found = document.diff_obj(object, before, after, false);
        let found = found.unwrap_or_default();
        let mends = mends(document, &found, after);
        for patch in &found {
            // An object that was there before, and shows now, comes with all that it holds.
            let is_inside = patch.obj != *object;
            let made = made_by(patch).filter(|id| {
                let is_new = || {
                    self.new
                        .contains(&document.hash_for_opid(id)?)
                        .then_some(())
                };
                is_inside || is_new().is_none()
            });
            complete.extend(made.cloned());
        }
        complete.extend(mends.iter().flat_map(made_by).cloned());
        patches.extend(found);
        patches.extend(mends);
    }
}

/// Whether an object is a part of what a document showed at these heads.
#[must_use]
pub fn shows(document: &Automerge, object: &ObjId, heads: &[ChangeHash]) -> bool {
    // To be asked where it was at heads at which it was not there, Automerge takes amiss.
    let Ok(parents) = document.parents(object) else {
        return false;
    };
    let mut inner = object.clone();
    for parent in parents {
        let is_there = match parent.prop {
            Prop::Map(key) => {
                let values = document.get_all_at(&parent.obj, key, heads);
                values.is_ok_and(|values| values.last().is_some_and(|(_, id)| *id == inner))
            }
            Prop::Seq(_) if parent.typ == ObjType::Text => true,
            Prop::Seq(_) => {
                let mut items = document.list_range_at(&parent.obj, .., heads);
                items.any(|item| item.id() == inner)
            }
        };
        if !is_there {
            return false;
        }
        inner = parent.obj;
    }
    true
}

/// Of patches, those of an object and of what is in it; or of one key of it, with what is there.
#[must_use]
pub fn within(patches: Vec<Patch>, object: ObjId, key: Option<String>) -> Vec<Patch> {
    let mut roots = HashSet::new();
    let is_key = |action: &PatchAction, key: &str| match action {
        PatchAction::PutMap { key: name, .. }
        | PatchAction::DeleteMap { key: name }
        | PatchAction::Increment {
            prop: Prop::Map(name),
            ..
        } => name == key,
        _ => false,
    };
    if key.is_none() {
        roots.insert(object.clone());
    }
    let mut is_within = |patch: &Patch| {
        let is = |id: &ObjId| roots.contains(id);
        if is(&patch.obj) || patch.path.iter().any(|(parent, _)| is(parent)) {
            return true;
        }
        let key = key.as_ref().filter(|_| patch.obj == object);
        let is_its = key.is_some_and(|key| is_key(&patch.action, key));
        if is_its {
            roots.extend(made_by(patch).cloned());
        }
        is_its
    };
    patches
        .into_iter()
        .filter(|patch| is_within(patch))
        .collect()
}

/// The objects that come to show by a patch.
fn made_by(patch: &Patch) -> impl Iterator<Item = &ObjId> {
    let (one, many) = match &patch.action {
        PatchAction::PutMap { value, .. } | PatchAction::PutSeq { value, .. } => {
            (Some((&value.0, &value.1)), None)
        }
        PatchAction::Insert { values, .. } => (None, Some(values)),
        _ => (None, None),
    };
    let many = many.into_iter().flat_map(|values| values.iter());
    let all = one
        .into_iter()
        .chain(many.map(|(value, id, _)| (value, id)));
    all.filter_map(|(value, id)| value.is_object().then_some(id))
}

/// About how many operations there are in a document; there may be more.
fn operations(document: &Automerge) -> u64 {
    let heads = document.get_heads();
    let heads = heads.iter();
    let last = heads.filter_map(|head| Some(document.get_change_meta_by_hash(head)?.max_op));
    last.max().unwrap_or_default()
}

/// In the past of which heads a change is.
const BEFORE: u8 = 1;
const AFTER: u8 = 2;
const BOTH: u8 = BEFORE | AFTER;

/// The changes that are in the past of only one of two heads, and of which; `None` if to look at
/// them costs more than to read `budget` operations.
fn changes_between(
    document: &Automerge,
    before: &[ChangeHash],
    after: &[ChangeHash],
    mut budget: u64,
) -> Option<Vec<(ChangeHash, u8)>> {
    let mut coming = Coming::default();
    let mut found = BTreeMap::<_, u8>::new();
    for (heads, side) in [(before, BEFORE), (after, AFTER)] {
        for head in heads {
            coming.add(document, head, side)?;
        }
    }
    let mut lowest = u64::MAX;
    while let Some((at, side)) = coming.pop() {
        // What is as high as one that was found may come before what depends on it.
        if side == BOTH && coming.open == 0 && at.0 < lowest {
            break;
        }
        budget = budget.checked_sub(1)?;
        let known = found.entry(at).or_default();
        if *known | side == *known {
            continue;
        }
        let is_first = *known == 0;
        *known |= side;
        let side = *known;
        let change = document.get_change_meta_by_hash(&at.1)?;
        if side != BOTH && is_first {
            lowest = at.0;
            let operations = change.max_op + 1 - change.start_op;
            budget = budget.checked_sub(CHANGE_COST + OPERATION_COST * operations)?;
        }
        for dep in &change.deps {
            coming.add(document, dep, side)?;
        }
    }
    let found = found.into_iter().filter(|(_, side)| *side != BOTH);
    Some(found.map(|((_, hash), side)| (hash, side)).collect())
}

/// The changes to be looked at next, by the counter of their last operation: that is higher than in
/// what a change depends on, or as high, if it has none.
#[derive(Default)]
struct Coming {
    changes: BTreeMap<(u64, ChangeHash), u8>,
    /// How many of them are in the past of one side only, as far as is known.
    open: usize,
}

impl Coming {
    fn add(&mut self, document: &Automerge, hash: &ChangeHash, side: u8) -> Option<()> {
        let change = document.get_change_meta_by_hash(hash)?;
        let sides = self.changes.entry((change.max_op, *hash)).or_default();
        self.open -= usize::from(*sides == BEFORE || *sides == AFTER);
        *sides |= side;
        self.open += usize::from(*sides != BOTH);
        Some(())
    }

    fn pop(&mut self) -> Option<((u64, ChangeHash), u8)> {
        let (at, sides) = self.changes.pop_last()?;
        self.open -= usize::from(sides != BOTH);
        Some((at, sides))
    }
}

/// Automerge's patches, with the visible one of several values on an element of a list.
#[must_use]
pub fn mended(document: &Automerge, mut patches: Vec<Patch>, after: &[ChangeHash]) -> Vec<Patch> {
    patches.extend(mends(document, &patches, after));
    patches
}

/// What makes the patches right, after them.
fn mends(document: &Automerge, patches: &[Patch], after: &[ChangeHash]) -> Vec<Patch> {
    let mut mended = Vec::new();
    let mut in_conflict = (&ROOT, Vec::new());
    for Patch { obj, path, action } in patches {
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
    mended
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

/// The object that an operation of a change names.
#[must_use]
pub fn object_id(object: &ObjectId) -> ObjId {
    match object {
        ObjectId::Root => ROOT,
        // Automerge looks the actor up when the place that is given here is another one's.
        ObjectId::Id(id) => ObjId::Id(id.0, id.1.clone(), 0),
    }
}
