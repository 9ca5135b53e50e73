//! What the structure of a change cannot tell is left to the check of the contents.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{Key, ObjectId, Op, OpType};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Automerge, Change, ObjType, ROOT, ReadDoc, ScalarValue};
use bytes::Bytes;
use reconverge::contents::{Check, Reading, Verdict};
use reconverge_tests::Random;

use crate::alter::{FIRST_MAX_OP, actor, document, edit, element, id};
use crate::peer::{enters, history_of, send};

/// References of any kind to any operation, right and wrong: whether an element is of this list, or
/// a replaced operation of this key, only contents tell. What enters and does harm, the check finds.
#[test]
fn what_enters_and_does_harm_is_found_by_the_check() {
    let mut random = Random::new(1);
    let (mut admitted, mut harmful) = (0, 0);
    for _ in 0..5_000 {
        let mut doc = document();
        let change = edit(&mut doc, |doc| {
            let list = doc.get(ROOT, "list").unwrap().unwrap().1;
            doc.put(ROOT, "n", 1).unwrap();
            doc.put_object(ROOT, "made", ObjType::List).unwrap();
            doc.put(&list, 0, 1).unwrap();
            doc.insert(&list, 1, 2).unwrap();
        });
        let mut expanded = change.decode();
        let at = random.below(4) as usize;
        scramble(&mut expanded.operations[at], &mut random);
        let shown = format!("{:?}", expanded.operations[at]);
        let Ok(change) = catch_unwind(|| Change::from(expanded)) else {
            continue;
        };
        let mut history = history_of(&mut doc);
        if send(&mut history, &[change.raw_bytes()]).admitted == 0 {
            continue;
        }
        admitted += 1;
        // What an honest client makes beside it, and does not depend on it.
        let mut other = edit(&mut doc, |doc| doc.put(ROOT, "other", 1).unwrap()).decode();
        other.actor_id = actor(3);
        let other = Change::from(other);
        enters(&mut history, other.raw_bytes());
        let first = doc.get_changes(&[])[0].clone();
        let changes = [&first, &change, &other].map(|c| Bytes::copy_from_slice(c.raw_bytes()));
        let check = Check {
            snapshot: None,
            changes: &changes,
            heads: &history.heads(),
            len: 3,
            reading: Reading::Contents,
            wants_snapshot: true,
        };
        let harm = catch_unwind(AssertUnwindSafe(|| use_it(&mut doc, [change, other])));
        match (check.run().unwrap(), harm) {
            (Verdict::Sound(Some(snapshot)), Ok(())) => {
                Automerge::load(&snapshot).unwrap();
            }
            (Verdict::Unsound(found), Err(_)) => {
                assert_eq!(found.iter().map(|found| found.at).collect::<Vec<_>>(), [1]);
                harmful += 1;
            }
            (verdict, harm) => panic!("{verdict:?} though {harm:?}: {shown}"),
        }
    }
    println!("{admitted} entered, {harmful} of them do harm");
    assert!(admitted > 1000 && harmful > 100);
}

/// What any client does with a document that it was sent.
fn use_it(doc: &mut AutoCommit, changes: [Change; 2]) {
    doc.apply_changes(changes).unwrap();
    doc.document().hydrate(None);
    let mut saved = Automerge::load(&doc.save()).unwrap();
    let mut edit = saved.transaction();
    let list = edit.get(ROOT, "list").unwrap().unwrap().1;
    let text = edit.get(ROOT, "text").unwrap().unwrap().1;
    edit.insert(&list, 0, "later").unwrap();
    edit.splice_text(&text, 0, 1, "later").unwrap();
    edit.put(ROOT, "counter", 1).unwrap();
    edit.commit();
    Automerge::load(&saved.save()).unwrap();
}

/// Replaces a part of an operation by something that exists, mostly.
fn scramble(op: &mut Op, random: &mut Random) {
    let counter = 1 + random.below(13);
    let of = if counter <= FIRST_MAX_OP { 1 } else { 2 };
    match random.below(6) {
        0 => {
            op.obj =
                [ObjectId::Root, ObjectId::Id(id(counter, of))][random.below(2) as usize].clone()
        }
        1 => op.key = element(counter, of),
        2 => op.key = [Key::head(), Key::Map("name".into())][random.below(2) as usize].clone(),
        3 => {
            let preds = random.below(3).min(random.below(3));
            op.pred = (0..preds).map(|n| id(counter + n, of)).collect();
        }
        4 => op.insert = !op.insert,
        _ => {
            op.action = match random.below(7) {
                0 => OpType::Delete,
                1 => OpType::Increment(1),
                2 => OpType::Make(ObjType::Map),
                3 => OpType::Make(ObjType::Text),
                4 => OpType::MarkEnd(true),
                5 => OpType::Put(ScalarValue::counter(1)),
                _ => OpType::Put(ScalarValue::Str("text".into())),
            };
        }
    }
}
