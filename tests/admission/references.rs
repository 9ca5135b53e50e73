//! Operations and objects that a change names, and whether they are in its past.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{Key, ObjectId};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ObjType, ROOT};
use reconverge::history::Refusal;

use crate::alter::{
    Alter, ELEMENT, FIRST_MAX_OP, LIST, MAP, actor, altered, document, element, hex, id, object,
};
use crate::peer::{check, history_of, send};

fn unknown_object_change(doc: &mut AutoCommit) -> Change {
    altered(doc, |change| change.operations[0].obj = object(999))
}

/// Why all of this is done: one such change ends every client that applies it.
#[test]
fn automerge_itself_panics_on_an_operation_in_an_object_that_does_not_exist() {
    let mut doc = document();
    let bad = unknown_object_change(&mut doc);
    let outcome = catch_unwind(AssertUnwindSafe(|| doc.apply_changes([bad])));
    assert!(
        outcome.is_err(),
        "automerge got better: it answers {outcome:?}"
    );
}

#[test]
fn an_operation_in_an_object_that_does_not_exist_is_refused() {
    let mut doc = document();
    let unknown = |counter, of| Refusal::UnknownObject(format!("{counter}@{}", hex(of)));
    let bad = unknown_object_change(&mut doc);
    check(&mut doc, bad.raw_bytes(), &unknown(999, 1));
    // The operation exists and makes no object.
    let bad = altered(&mut doc, |c| c.operations[0].obj = object(FIRST_MAX_OP));
    check(&mut doc, bad.raw_bytes(), &unknown(FIRST_MAX_OP, 1));
    // An actor that nobody knows.
    let bad = altered(&mut doc, |c| c.operations[0].obj = ObjectId::Id(id(1, 77)));
    check(&mut doc, bad.raw_bytes(), &unknown(1, 77));
    // The change's own operation, which makes no object, and one that it does not have.
    for counter in [FIRST_MAX_OP + 1, FIRST_MAX_OP + 2] {
        let bad = altered(&mut doc, |c| {
            c.operations[0].obj = ObjectId::Id(id(counter, 2))
        });
        check(&mut doc, bad.raw_bytes(), &unknown(counter, 2));
    }
}

#[test]
fn an_object_of_another_kind_is_refused() {
    let mut doc = document();
    let kind = |counter| Refusal::ObjectKind(format!("{counter}@{}", hex(1)));
    let bad = altered(&mut doc, |c| c.operations[0].obj = object(LIST));
    check(&mut doc, bad.raw_bytes(), &kind(LIST));
    let bad = altered(&mut doc, |c| {
        c.operations[0].obj = object(MAP);
        c.operations[0].key = element(ELEMENT, 1);
    });
    check(&mut doc, bad.raw_bytes(), &kind(MAP));
    let bad = altered(&mut doc, |c| c.operations[0].key = element(ELEMENT, 1));
    check(
        &mut doc,
        bad.raw_bytes(),
        &Refusal::ObjectKind("the root".into()),
    );
    let bad = altered(&mut doc, |c| c.operations[0].key = Key::head());
    check(
        &mut doc,
        bad.raw_bytes(),
        &Refusal::ObjectKind("the root".into()),
    );
}

#[test]
fn a_reference_to_an_operation_that_does_not_exist_is_refused() {
    let mut doc = document();
    let unknown = |counter, of| Refusal::UnknownOperation(format!("{counter}@{}", hex(of)));
    for (counter, of) in [(500, 1), (1, 77), (FIRST_MAX_OP + 1, 2)] {
        let bad = altered(&mut doc, |c| {
            c.operations[0].obj = object(LIST);
            c.operations[0].key = element(counter, of);
            c.operations[0].insert = true;
        });
        check(&mut doc, bad.raw_bytes(), &unknown(counter, of));
        let bad = altered(&mut doc, |c| {
            c.operations[0].pred = vec![id(counter, of)].into()
        });
        check(&mut doc, bad.raw_bytes(), &unknown(counter, of));
    }
}

/// Two changes of actors 1 and 3 at the same time; actor 2 saw only the first.
#[test]
fn what_is_not_in_the_past_of_a_change_does_not_exist_for_it() {
    let mut doc = document();
    let mut other = doc.fork().with_actor(actor(3));
    let list = other.put_object(ROOT, "other list", ObjType::List).unwrap();
    other.insert(&list, 0, 1).unwrap();
    other.commit();
    let made = FIRST_MAX_OP + 1;
    let shown = format!("{made}@{}", hex(3));
    let alterations: [(Alter<'_>, Refusal); 3] = [
        (
            &|op| {
                op.obj = ObjectId::Id(id(made, 3));
                op.key = Key::head();
                op.insert = true;
            },
            Refusal::UnknownObject(shown.clone()),
        ),
        (
            &|op| op.pred = vec![id(made, 3)].into(),
            Refusal::UnknownOperation(shown.clone()),
        ),
        (
            &|op| {
                op.obj = object(LIST);
                op.key = element(made, 3);
                op.insert = true;
            },
            Refusal::UnknownOperation(shown),
        ),
    ];
    for (alter, refusal) in alterations {
        let mut doc = doc.fork();
        let bad = altered(&mut doc, |c| alter(&mut c.operations[0]));
        let mut both = doc.fork();
        both.merge(&mut other).unwrap();
        check(&mut both, bad.raw_bytes(), &refusal);
        // With the other change among its deps it may enter.
        let good = altered(&mut both, |c| alter(&mut c.operations[0]));
        let mut history = history_of(&mut both);
        let received = send(&mut history, &[good.raw_bytes()]);
        assert_eq!((received.admitted, received.refused), (1, vec![]));
    }
}
