//! Documents that are as large as a document may be.

use automerge::legacy::OpType;
use automerge::{Change, ChangeHash, ObjType};
use reconverge::history::{DOCUMENT_ACTORS_MAX, DOCUMENT_OBJECTS_MAX, History, Record, Refusal};
use reconverge::id::{Access, Space};
use reconverge::leb::push_unsigned;

use crate::alter::{Alter, altered, document};
use crate::peer::{PEER, enters, send};

/// The head of a [`folded`] document, and the counter of its last operation.
const HEAD: ChangeHash = ChangeHash([7; 32]);
const HEAD_MAX_OP: u32 = u32::MAX / 2;

/// A document as it lies in storage after it was folded, so large as nobody can make it here:
/// this many changes of these actors, with objects of the first.
fn folded(changes: u32, actors: usize, objects: usize) -> History {
    let mut outline = vec![1];
    push_unsigned(&mut outline, actors as u64);
    for n in 0..actors as u32 {
        outline.push(4);
        outline.extend_from_slice(&n.to_be_bytes());
        // One change; one run of operations, up to the last.
        for number in [1, 1, 1, HEAD_MAX_OP - 1] {
            push_unsigned(&mut outline, u64::from(number));
        }
        let made = if n == 0 { objects } else { 0 };
        push_unsigned(&mut outline, made as u64);
        for counter in 0..made {
            // One counter after the other, of two kinds in turn.
            outline.extend([1, 0, [0, 2][counter % 2]]);
        }
    }
    let mut record = Record::new(Space::default());
    record.folded = changes;
    record.verified = changes;
    record.rows_from = changes;
    record.generation = 1;
    record.segments = 1;
    record.heads.push((changes - 1, HEAD, HEAD_MAX_OP));
    let mut history = History::open(record, Some(&outline), &[]).unwrap();
    history.join(PEER, Access::Write);
    history
}

/// A change on top of the head, by an actor that made `seq - 1` changes.
fn on(head: ChangeHash, max_op: u32, actor: &[u8], seq: u64, edit: Alter<'_>) -> Change {
    altered(&mut document(), |c| {
        c.deps = vec![head];
        c.actor_id = actor.into();
        c.seq = seq;
        c.start_op = u64::from(max_op + 1).try_into().unwrap();
        edit(&mut c.operations[0]);
    })
}

#[track_caller]
fn refuses(history: &mut History, change: &Change, full_of: &'static str) {
    let received = send(history, &[change.raw_bytes()]);
    let refused = (Some(change.hash()), Refusal::DocumentFull(full_of));
    assert_eq!((received.admitted, received.refused), (0, vec![refused]));
}

const NOTHING: Alter<'static> = &|_| {};

#[test]
fn the_last_actor_of_a_document_enters_and_one_more_does_not() {
    let mut history = folded(DOCUMENT_ACTORS_MAX as u32, DOCUMENT_ACTORS_MAX - 1, 0);
    let last = on(HEAD, HEAD_MAX_OP, b"last", 1, NOTHING);
    enters(&mut history, last.raw_bytes());
    let one_more = on(last.hash(), HEAD_MAX_OP + 1, b"more", 1, NOTHING);
    refuses(&mut history, &one_more, "actors");
    // Those who are here go on.
    let again = on(last.hash(), HEAD_MAX_OP + 1, b"last", 2, NOTHING);
    enters(&mut history, again.raw_bytes());
}

/// Takes 0.3 GiB of memory for a moment.
#[test]
fn the_last_object_of_a_document_enters_and_one_more_does_not() {
    let make: Alter<'_> = &|op| op.action = OpType::Make(ObjType::Map);
    let mut history = folded(1, 1, DOCUMENT_OBJECTS_MAX - 1);
    let last = on(HEAD, HEAD_MAX_OP, b"last", 1, make);
    enters(&mut history, last.raw_bytes());
    let one_more = on(last.hash(), HEAD_MAX_OP + 1, b"more", 1, make);
    refuses(&mut history, &one_more, "objects");
    let other = on(last.hash(), HEAD_MAX_OP + 1, b"more", 1, NOTHING);
    enters(&mut history, other.raw_bytes());
}

#[test]
fn the_last_change_of_a_document_enters_and_one_more_does_not() {
    const CHANGES_MAX: u32 = (1 << 31) - 1;
    let mut history = folded(CHANGES_MAX - 1, 1, 0);
    let last = on(HEAD, HEAD_MAX_OP, b"last", 1, NOTHING);
    enters(&mut history, last.raw_bytes());
    assert_eq!(history.len(), CHANGES_MAX);
    let one_more = on(last.hash(), HEAD_MAX_OP + 1, b"last", 2, NOTHING);
    refuses(&mut history, &one_more, "changes");
}
