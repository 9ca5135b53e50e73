//! Operations: those of every client enter, those that no client makes are refused, and so is
//! whatever a reader sends.

use automerge::legacy::{Key, OpType};
use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Automerge, Change, ObjType, ROOT, ReadDoc, ScalarValue};
use bytes::Bytes;
use reconverge::history::Refusal;
use reconverge::id::Access;
use reconverge_tests::forge::chunk;

use crate::alter::{
    Alter, CHARACTER, ELEMENT, FIRST_MAX_OP, LIST, TEXT, actor, altered, document, edit, element,
    id, object,
};
use crate::columns::{ACTION, data_of, with_column};
use crate::peer::{PEER, check, commit, history_of, send};

#[test]
fn valid_changes_of_every_kind_enter() {
    let mut doc = document();
    let mut other = doc.fork().with_actor(actor(3));
    let commit_as = |doc: &mut AutoCommit, edit: &dyn Fn(&mut AutoCommit)| {
        edit(doc);
        doc.commit();
    };
    let of = |doc: &AutoCommit, name: &str| doc.get(ROOT, name).unwrap().unwrap().1;
    let edits: [&dyn Fn(&mut AutoCommit); 14] = [
        &|doc| {
            let map = of(doc, "map");
            let deeper = doc.put_object(&map, "deeper", ObjType::Map).unwrap();
            let list = doc.put_object(&deeper, "list", ObjType::List).unwrap();
            let inner = doc.insert_object(&list, 0, ObjType::Map).unwrap();
            doc.put(&inner, "n", ScalarValue::Null).unwrap();
            doc.put(&inner, "bytes", vec![0, 1, 2]).unwrap();
            doc.put(&inner, "at", ScalarValue::Timestamp(1)).unwrap();
            doc.put(&inner, "float", 1.5).unwrap();
        },
        &|doc| doc.put(of(doc, "map"), "n", true).unwrap(),
        &|doc| doc.delete(of(doc, "map"), "n").unwrap(),
        &|doc| doc.put(of(doc, "list"), 1, "other").unwrap(),
        &|doc| doc.insert(of(doc, "list"), 0, 7).unwrap(),
        &|doc| doc.delete(of(doc, "list"), 1).unwrap(),
        &|doc| {
            doc.splice_text(of(doc, "text"), 1, 1, "hello wörld 👋")
                .unwrap()
        },
        &|doc| {
            let mark = Mark::new("bold".into(), true, 1, 4);
            doc.mark(of(doc, "text"), mark, ExpandMark::Both).unwrap();
        },
        &|doc| {
            doc.unmark(of(doc, "text"), "bold", 2, 3, ExpandMark::None)
                .unwrap()
        },
        &|doc| {
            doc.split_block(of(doc, "text"), 2).unwrap();
        },
        &|doc| doc.increment(ROOT, "counter", -5).unwrap(),
        &|doc| {
            doc.put(ROOT, "conflict", doc.get_actor().to_string())
                .unwrap()
        },
        &|doc| {
            doc.put_object(ROOT, "map", ObjType::Text).unwrap();
        },
        &|doc| {
            doc.empty_change(automerge::transaction::CommitOptions::default());
        },
    ];
    for (at, edit) in edits.iter().enumerate() {
        commit_as(&mut doc, edit);
        commit_as(&mut other, edit);
        if at % 3 == 2 && at < 12 {
            doc.merge(&mut other).unwrap();
            other.merge(&mut doc).unwrap();
        }
    }
    doc.merge(&mut other).unwrap();
    doc.put(ROOT, "conflict", "settled").unwrap();
    doc.delete(ROOT, "map").unwrap();
    doc.commit();
    let mut history = history_of(&mut doc);
    let row = commit(&mut history).unwrap();
    let mut again = Automerge::new();
    let change = |bytes: &Bytes| Change::try_from(bytes.as_ref()).unwrap();
    again
        .apply_changes(row.changes.iter().map(|c| change(&c.bytes)))
        .unwrap();
    assert_eq!(again.get_heads(), doc.get_heads());
    assert_eq!(again.hydrate(None), doc.document().hydrate(None));
}

#[test]
fn a_reader_changes_nothing() {
    let mut doc = document();
    let good = edit(&mut doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    let mut history = history_of(&mut doc);
    history.join(PEER, Access::Read);
    let received = send(&mut history, &[good.raw_bytes()]);
    assert_eq!(received.refused, [(None, Refusal::ReadOnly)]);
    assert_eq!(history.len(), 1);
    // It may send it again when it may write.
    history.join(PEER, Access::Write);
    assert_eq!(send(&mut history, &[good.raw_bytes()]).admitted, 1);
}

#[test]
fn operations_without_sense_are_refused() {
    let mut doc = document();
    let bad = altered(&mut doc, |c| c.operations[0].insert = true);
    check(
        &mut doc,
        bad.raw_bytes(),
        &Refusal::Operation("insertion at a name"),
    );
    let bad = altered(&mut doc, |c| {
        c.operations[0].obj = object(LIST);
        c.operations[0].key = Key::head();
    });
    check(
        &mut doc,
        bad.raw_bytes(),
        &Refusal::Operation("a change of the head of a list"),
    );
    let bad = altered(&mut doc, |c| {
        c.operations[0].obj = object(LIST);
        c.operations[0].key = Key::head();
        c.operations[0].insert = true;
        c.operations[0].action = OpType::Increment(1);
    });
    check(
        &mut doc,
        bad.raw_bytes(),
        &Refusal::Operation("an increment that inserts"),
    );
    let good = edit(&mut doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    let unknown = with_column(data_of(good.raw_bytes()), ACTION, &[0x7f, 8]);
    check(
        &mut doc,
        &chunk(1, &unknown),
        &Refusal::Operation("unknown action"),
    );
}

/// Operations that no client makes, that structure can tell, and after which Automerge cannot
/// load what it saved, or panics.
#[test]
fn operations_that_automerge_cannot_keep_are_refused() {
    let mut doc = document();
    let alterations: [(&str, Alter<'_>); 5] = [
        ("a deletion of nothing", &|op| op.action = OpType::Delete),
        ("a mark at a name", &|op| op.action = OpType::MarkEnd(true)),
        ("a mark that is no insertion", &|op| {
            op.action = OpType::MarkEnd(true);
            op.obj = object(TEXT);
            op.key = element(CHARACTER, 1);
        }),
        ("an insertion that replaces", &|op| {
            op.obj = object(LIST);
            op.key = element(ELEMENT, 1);
            op.pred = vec![id(ELEMENT, 1)].into();
            op.insert = true;
        }),
        ("an insertion that deletes", &|op| {
            op.action = OpType::Delete;
            op.obj = object(LIST);
            op.key = element(ELEMENT, 1);
            op.insert = true;
        }),
    ];
    let mut entered = Vec::new();
    for (what, alter) in alterations {
        let bad = altered(&mut doc, |c| alter(&mut c.operations[0]));
        let received = send(&mut history_of(&mut doc), &[bad.raw_bytes()]);
        if !matches!(received.refused[..], [(_, Refusal::Operation(_))]) {
            entered.push(what);
        }
    }
    // An element that is the change's own operation, which inserts none.
    let bad = altered(&mut doc, |c| {
        let mut after = c.operations[0].clone();
        after.obj = object(LIST);
        after.key = element(FIRST_MAX_OP + 1, 2);
        after.insert = true;
        c.operations.push(after);
    });
    if send(&mut history_of(&mut doc), &[bad.raw_bytes()]).admitted == 1 {
        entered.push("an element that is no element");
    }
    assert_eq!(entered, Vec::<&str>::new());
}
