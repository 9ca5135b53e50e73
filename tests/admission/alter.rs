//! A document whose operations are known, and changes on top of it with something altered.

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Change, ExpandedChange, ObjType, ROOT, ScalarValue};

/// Operations of actor 1: map 1, list 2, text 3, then what is in them.
pub(crate) const MAP: u64 = 1;
pub(crate) const LIST: u64 = 2;
pub(crate) const TEXT: u64 = 3;
pub(crate) const ELEMENT: u64 = 4;
pub(crate) const CHARACTER: u64 = 6;
pub(crate) const COUNTER: u64 = 8;
pub(crate) const FIRST_MAX_OP: u64 = 9;

pub(crate) fn actor(n: u8) -> ActorId {
    [n; 16].as_slice().into()
}

pub(crate) fn hex(n: u8) -> String {
    format!("{n:02x}").repeat(16)
}

pub(crate) fn document() -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(actor(1));
    let map = doc.put_object(ROOT, "map", ObjType::Map).unwrap();
    let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.insert(&list, 0, "a").unwrap();
    doc.insert(&list, 1, "b").unwrap();
    doc.splice_text(&text, 0, 0, "xy").unwrap();
    doc.put(ROOT, "counter", ScalarValue::counter(0)).unwrap();
    doc.put(&map, "n", 1).unwrap();
    doc.commit();
    assert_eq!(doc.get_changes(&[])[0].max_op(), FIRST_MAX_OP);
    doc
}

/// The change that actor 2 makes on top of the document.
pub(crate) fn edit(doc: &mut AutoCommit, edit: impl FnOnce(&mut AutoCommit)) -> Change {
    let mut fork = doc.fork().with_actor(actor(2));
    edit(&mut fork);
    fork.commit();
    fork.get_last_local_change().unwrap()
}

/// That change with something altered.
pub(crate) fn altered(doc: &mut AutoCommit, alter: impl FnOnce(&mut ExpandedChange)) -> Change {
    let good = edit(doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    let mut expanded = good.decode();
    alter(&mut expanded);
    Change::from(expanded)
}

pub(crate) type Alter<'a> = &'a dyn Fn(&mut Op);

pub(crate) fn id(counter: u64, of: u8) -> OpId {
    OpId(counter, actor(of))
}

pub(crate) fn object(counter: u64) -> ObjectId {
    ObjectId::Id(id(counter, 1))
}

pub(crate) fn element(counter: u64, of: u8) -> Key {
    Key::Seq(ElementId::Id(id(counter, of)))
}
