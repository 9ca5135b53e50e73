//! What may enter a history, and what is refused for which reason.
//!
//! Bad changes are made from good ones: decoded, altered and encoded again by Automerge, or with
//! their columns replaced byte by byte.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{
    ActorId, AutoCommit, Automerge, Change, ChangeHash, ExpandedChange, ObjType, ROOT, ReadDoc,
    ScalarValue,
};
use bytes::Bytes;
use reconverge::contents::{Check, Reading, Verdict};
use reconverge::history::chunk::{Chunk, ChunkError};
use reconverge::history::{
    ACTOR_BYTES_MAX, CHANGE_ACTORS_MAX, CHANGE_BYTES_MAX, CHANGE_DEPS_MAX, CHANGE_OPS_MAX,
    ChangeError, DOCUMENT_ACTORS_MAX, DOCUMENT_OBJECTS_MAX, Documents, History, ORPHAN_BYTES_MAX,
    ORPHANS_MAX, Progress, REFUSED_MAX, Received, Record, Refusal, Row, Work,
};
use reconverge::id::{Access, ConnectionId, Space};
use reconverge::leb::{Reader, push_unsigned};
use reconverge::protocol::{Flags, SyncMessage};
use reconverge_tests::Random;
use reconverge_tests::forge::{self, chunk, chunk_of_hash};

const PEER: ConnectionId = ConnectionId(1);

fn history() -> History {
    let mut history = History::new(Space::default());
    history.join(PEER, Access::Write);
    history
}

/// Sends chunks as a peer does, that names `heads` as its own.
fn send_as(history: &mut History, heads: &[ChangeHash], chunks: &[&[u8]]) -> Received {
    let flags = Flags {
        supports_sync_reset: true,
        ..Flags::default()
    };
    let message = SyncMessage {
        heads: heads.to_vec(),
        need: Vec::new(),
        have: Vec::new(),
        changes: chunks.to_vec(),
        flags: Some(flags),
    };
    let received = history.receive(PEER, &message, Documents::Report);
    received.expect("the whole graph is resident")
}

/// As much of a message as is taken in where sockets are served.
fn receive_light(history: &mut History, message: &SyncMessage<'_>) -> Received {
    let (progress, work) = (&mut Progress::default(), Work::Light);
    let received = history.receive_part(PEER, message, Documents::Report, progress, work);
    received.expect("the whole graph is resident")
}

fn send(history: &mut History, chunks: &[&[u8]]) -> Received {
    send_as(history, &[], chunks)
}

/// Stores what is new, and gives it back.
fn commit(history: &mut History) -> Option<Row> {
    let row = history.take_unsaved().map(|(_, row)| row);
    history.committed();
    row
}

/// A history that has all of a document.
fn history_of(doc: &mut AutoCommit) -> History {
    let mut history = history();
    for change in doc.get_changes(&[]) {
        let received = send(&mut history, &[change.raw_bytes()]);
        assert_eq!(received.refused, []);
        assert_eq!(received.admitted, 1);
    }
    history
}

/// The same history, opened from what it stored.
fn reopened(doc: &mut AutoCommit) -> History {
    let mut history = history_of(doc);
    let record = history.record().clone();
    let rows: Vec<Row> = commit(&mut history).into_iter().collect();
    let mut history = History::open(record, None, &rows).unwrap();
    history.join(PEER, Access::Write);
    history
}

#[track_caller]
fn check(doc: &mut AutoCommit, bad: &[u8], expect: &Refusal) {
    for mut history in [history_of(doc), reopened(doc)] {
        let len = history.len();
        let received = send(&mut history, &[bad]);
        let reasons: Vec<_> = received.refused.iter().map(|(_, reason)| reason).collect();
        assert_eq!(reasons, [expect]);
        assert_eq!((received.admitted, history.len()), (0, len));
        // Once more, nothing changes.
        let received = send(&mut history, &[bad]);
        assert_eq!((received.admitted, history.len()), (0, len));
    }
}

fn actor(n: u8) -> ActorId {
    [n; 16].as_slice().into()
}

fn hex(n: u8) -> String {
    format!("{n:02x}").repeat(16)
}

/// Operations of actor 1: map 1, list 2, text 3, then what is in them.
const MAP: u64 = 1;
const LIST: u64 = 2;
const TEXT: u64 = 3;
const ELEMENT: u64 = 4;
const CHARACTER: u64 = 6;
const COUNTER: u64 = 8;
const FIRST_MAX_OP: u64 = 9;

fn document() -> AutoCommit {
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
fn edit(doc: &mut AutoCommit, edit: impl FnOnce(&mut AutoCommit)) -> Change {
    let mut fork = doc.fork().with_actor(actor(2));
    edit(&mut fork);
    fork.commit();
    fork.get_last_local_change().unwrap()
}

/// That change with something altered.
fn altered(doc: &mut AutoCommit, alter: impl FnOnce(&mut ExpandedChange)) -> Change {
    let good = edit(doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    let mut expanded = good.decode();
    alter(&mut expanded);
    Change::from(expanded)
}

type Alter<'a> = &'a dyn Fn(&mut Op);

fn id(counter: u64, of: u8) -> OpId {
    OpId(counter, actor(of))
}

fn object(counter: u64) -> ObjectId {
    ObjectId::Id(id(counter, 1))
}

fn element(counter: u64, of: u8) -> Key {
    Key::Seq(ElementId::Id(id(counter, of)))
}

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

#[test]
fn an_actors_changes_follow_each_other_without_gap_and_without_fork() {
    let mut doc = document();
    let bad = altered(&mut doc, |c| c.seq = 2);
    let gap = Refusal::Sequence {
        actor: hex(2),
        last: 0,
        found: 2,
    };
    check(&mut doc, bad.raw_bytes(), &gap);
    let reused = |seq| Refusal::ActorReused { actor: hex(1), seq };
    let bad = altered(&mut doc, |c| c.actor_id = actor(1));
    check(&mut doc, bad.raw_bytes(), &reused(1));
    let mut fork = doc.fork().with_actor(actor(1));
    doc.put(ROOT, "n", 1).unwrap();
    doc.commit();
    fork.put(ROOT, "n", 2).unwrap();
    fork.commit();
    let forked = fork.get_last_local_change().unwrap();
    check(&mut doc, forked.raw_bytes(), &reused(2));
    let mut later = forked.decode();
    later.seq = 3;
    later.start_op = (FIRST_MAX_OP + 5).try_into().unwrap();
    check(
        &mut doc,
        Change::from(later.clone()).raw_bytes(),
        &reused(3),
    );
    later.seq = 4;
    let gap = Refusal::Sequence {
        actor: hex(1),
        last: 2,
        found: 4,
    };
    check(&mut doc, Change::from(later).raw_bytes(), &gap);
}

/// A fork is seen also where the actor's last change has no operations.
#[test]
fn a_fork_after_an_empty_change_is_refused() {
    let mut doc = document();
    let mut fork = doc.fork().with_actor(actor(1));
    doc.empty_change(automerge::transaction::CommitOptions::default());
    fork.put(ROOT, "n", 2).unwrap();
    fork.commit();
    let mut forked = fork.get_last_local_change().unwrap().decode();
    let reused = |seq| Refusal::ActorReused { actor: hex(1), seq };
    check(
        &mut doc,
        Change::from(forked.clone()).raw_bytes(),
        &reused(2),
    );
    forked.seq = 3;
    check(&mut doc, Change::from(forked).raw_bytes(), &reused(3));
}

#[test]
fn operations_begin_above_all_that_they_depend_on() {
    let mut doc = document();
    for found in [1, FIRST_MAX_OP] {
        let bad = altered(&mut doc, |c| c.start_op = found.try_into().unwrap());
        let refusal = Refusal::StartOp {
            found,
            max_op: FIRST_MAX_OP as u32,
        };
        check(&mut doc, bad.raw_bytes(), &refusal);
    }
    // Automerge leaves no gap; others may.
    let good = altered(&mut doc, |c| c.start_op = 100.try_into().unwrap());
    let mut history = history_of(&mut doc);
    assert_eq!(send(&mut history, &[good.raw_bytes()]).admitted, 1);
    let bad = altered(&mut doc, |c| {
        c.start_op = u64::from(u32::MAX).try_into().unwrap()
    });
    check(
        &mut doc,
        bad.raw_bytes(),
        &ChangeError::Limit("operation counter").into(),
    );
}

fn broken(error: ChunkError) -> Refusal {
    ChangeError::from(error).into()
}

#[test]
fn broken_bytes_are_refused() {
    let mut doc = document();
    let good = edit(&mut doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    let bytes = good.raw_bytes().to_vec();
    for at in [4, 7, 12, 30, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        check(&mut doc, &flipped, &broken(ChunkError::Checksum));
    }
    for cut in 1..bytes.len() {
        check(&mut doc, &bytes[..cut], &broken(ChunkError::Malformed));
    }
    let mut other_magic = bytes.clone();
    other_magic[0] = 0;
    check(&mut doc, &other_magic, &broken(ChunkError::Malformed));
    let mut other_kind = bytes;
    other_kind[8] = 9;
    check(&mut doc, &other_kind, &broken(ChunkError::Malformed));
}

/// Whatever lies in a chunk whose length and checksum are right, nothing panics, and what enters
/// is what Automerge can read.
#[test]
fn changes_cut_short_or_damaged_behind_a_right_checksum_do_no_harm() {
    let mut doc = document();
    let good = edit(&mut doc, |doc| {
        let list = doc.get(ROOT, "list").unwrap().unwrap().1;
        doc.put(&list, 1, "new").unwrap();
        doc.insert(&list, 1, "ü").unwrap();
        doc.increment(ROOT, "counter", 3).unwrap();
        doc.delete(ROOT, "map").unwrap();
    });
    let data = data_of(good.raw_bytes());
    for cut in 0..data.len() {
        let mut history = history_of(&mut doc);
        let received = send(&mut history, &[&chunk(1, &data[..cut])]);
        assert_eq!(
            (received.admitted, received.refused.len()),
            (0, 1),
            "cut at {cut}"
        );
    }
    let mut random = Random::new(1);
    let mut admitted = 0;
    for _ in 0..20_000 {
        let mut damaged = data.to_vec();
        for _ in 0..1 + random.below(3) {
            let at = random.below(damaged.len() as u64) as usize;
            damaged[at] = random.number() as u8;
        }
        let bytes = chunk(1, &damaged);
        let mut history = history_of(&mut doc);
        if send(&mut history, &[&bytes]).admitted == 1 {
            admitted += 1;
            Change::try_from(bytes.as_slice()).unwrap();
        }
    }
    println!("{admitted} of 20000 damaged changes are still changes");
}

#[test]
fn an_orphan_waits_for_what_it_depends_on() {
    let mut doc = document();
    for n in 0..3 {
        doc.put(ROOT, "n", n).unwrap();
        doc.commit();
    }
    let changes = doc.get_changes(&[]);
    let bytes: Vec<_> = changes.iter().map(Change::raw_bytes).collect();
    let mut history = history();
    for orphan in [bytes[3], bytes[2], bytes[3], bytes[1]] {
        let received = send_as(&mut history, &doc.get_heads(), &[orphan]);
        assert_eq!((received.admitted, received.refused), (0, vec![]));
    }
    assert!(commit(&mut history).is_none());
    let asked = history.poll_send(PEER).unwrap();
    assert!(asked.need.contains(&changes[0].hash()));
    assert!(history.poll_send(PEER).is_none());
    assert_eq!(
        send_as(&mut history, &doc.get_heads(), &[bytes[0]]).admitted,
        4
    );
    assert_eq!(commit(&mut history).unwrap().changes.len(), 4);
    assert_eq!(history.durable_heads().as_ref(), doc.get_heads());
}

/// Sends what there is to send; how often the peer is told to forget what it sent.
fn resets(history: &mut History) -> usize {
    std::iter::from_fn(|| history.poll_send(PEER))
        .filter(|out| out.flags.is_some_and(|flags| flags.sync_reset))
        .count()
}

#[test]
fn too_many_orphans_are_let_go_and_asked_for_again() {
    let mut doc = document();
    let first = doc.get_changes(&[]);
    let mut orphans = Vec::new();
    for n in 0..=ORPHANS_MAX {
        doc.put(ROOT, "n", n as u64).unwrap();
        doc.commit();
        orphans.push(doc.get_last_local_change().unwrap());
    }
    let mut history = history();
    let heads = doc.get_heads();
    for orphan in &orphans[..ORPHANS_MAX] {
        assert_eq!(
            send_as(&mut history, &heads, &[orphan.raw_bytes()]).refused,
            []
        );
    }
    assert_eq!(resets(&mut history), 0);
    let last = orphans.last().unwrap();
    let received = send_as(&mut history, &heads, &[last.raw_bytes()]);
    assert_eq!((received.admitted, received.refused), (0, vec![]));
    assert_eq!(resets(&mut history), 1);
    let received = send_as(&mut history, &heads, &[first[0].raw_bytes()]);
    assert_eq!(received.admitted as usize, 1 + ORPHANS_MAX);
    assert_eq!(
        send_as(&mut history, &heads, &[last.raw_bytes()]).admitted,
        1
    );
}

/// However many of them come in one message, its sender is asked again, as often as it may be.
#[test]
fn each_message_of_orphans_without_room_is_asked_for_again() {
    const OVER: usize = 20;
    let mut doc = document();
    let mut orphans = Vec::new();
    for n in 0..ORPHANS_MAX + OVER {
        doc.put(ROOT, "n", n as u64).unwrap();
        doc.commit();
        orphans.push(doc.get_last_local_change().unwrap());
    }
    let chunks: Vec<_> = orphans.iter().map(Change::raw_bytes).collect();
    let mut history = history();
    for chunks in [&chunks, &chunks[ORPHANS_MAX..]] {
        send_as(&mut history, &doc.get_heads(), chunks);
        assert_eq!(resets(&mut history), 1);
    }
}

/// As many wait as fit by their bytes: when the dep comes, they enter, and no more.
#[test]
fn orphans_of_too_many_bytes_are_let_go() {
    const LARGE: usize = 1024 * 1024;
    let mut doc = document();
    let first = doc.get_changes(&[]);
    let mut orphans = Vec::new();
    for n in 0..ORPHAN_BYTES_MAX / LARGE + 2 {
        doc.put(ROOT, "large", vec![n as u8; LARGE]).unwrap();
        doc.commit();
        orphans.push(doc.get_last_local_change().unwrap());
    }
    let sizes = orphans.iter().map(|change| change.raw_bytes().len());
    let fit = sizes.scan(0, |sum, size| {
        *sum += size;
        (*sum <= ORPHAN_BYTES_MAX).then_some(())
    });
    let fit = fit.count();
    assert!(fit > 0 && fit < orphans.len());
    let mut history = history();
    let heads = doc.get_heads();
    for orphan in &orphans {
        let received = send_as(&mut history, &heads, &[orphan.raw_bytes()]);
        assert_eq!((received.admitted, received.refused), (0, vec![]));
    }
    let received = send_as(&mut history, &heads, &[first[0].raw_bytes()]);
    assert_eq!(received.admitted as usize, 1 + fit);
}

/// As many orphans as may wait, each for the one before, on a small stack: who refuses the first
/// refuses them all.
#[test]
fn a_long_chain_of_orphans_is_refused_without_a_deep_stack() {
    const STACK_BYTES: usize = 256 * 1024;
    let test = || {
        let mut doc = document();
        let bad = altered(&mut doc, |c| c.start_op = 1.try_into().unwrap());
        let mut misled = doc.fork().with_actor(actor(4));
        misled.apply_changes([bad.clone()]).unwrap();
        let mut history = history_of(&mut doc);
        for n in 0..ORPHANS_MAX {
            misled.put(ROOT, "m", n as u64).unwrap();
            misled.commit();
            let orphan = misled.get_last_local_change().unwrap();
            assert_eq!(send(&mut history, &[orphan.raw_bytes()]).refused, []);
        }
        let received = send(&mut history, &[bad.raw_bytes()]);
        assert_eq!(received.refused.len(), 1 + ORPHANS_MAX);
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(test).unwrap().join().unwrap();
}

#[test]
fn what_depends_on_a_refused_change_is_refused() {
    let mut doc = document();
    let bad = altered(&mut doc, |c| c.start_op = 1.try_into().unwrap());
    let mut misled = doc.fork().with_actor(actor(4));
    misled.apply_changes([bad.clone()]).unwrap();
    let mut after = Vec::new();
    for n in 0..2 {
        misled.put(ROOT, "m", n).unwrap();
        misled.commit();
        after.push(misled.get_last_local_change().unwrap());
    }
    let refusal = |on: &Change| Refusal::DependsOnRefused(on.hash());
    // After it.
    let mut history = history_of(&mut doc);
    send(&mut history, &[bad.raw_bytes()]);
    for (on, change) in [(&bad, &after[0]), (&after[0], &after[1])] {
        let received = send(&mut history, &[change.raw_bytes()]);
        assert_eq!(received.refused, [(Some(change.hash()), refusal(on))]);
    }
    // Before it, as orphans.
    let mut history = history_of(&mut doc);
    for change in [&after[1], &after[0]] {
        assert_eq!(send(&mut history, &[change.raw_bytes()]).refused, []);
    }
    let received = send(&mut history, &[bad.raw_bytes()]);
    let refused: Vec<_> = received
        .refused
        .iter()
        .map(|(hash, _)| hash.unwrap())
        .collect();
    assert_eq!(refused, [bad.hash(), after[0].hash(), after[1].hash()]);
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// What is behind a chunk's header.
fn data_of(bytes: &[u8]) -> &[u8] {
    Chunk::split(bytes).unwrap().0.data
}

/// A text that deflates to about half its size.
fn noisy_text(len: usize) -> String {
    let noise = Random::new(7).noise(len);
    noise
        .iter()
        .map(|byte| char::from(b'a' + byte % 16))
        .collect()
}

/// A change that puts a text, and its deflated form.
fn deflated_text(doc: &mut AutoCommit, text: &str) -> (Change, Vec<u8>) {
    let change = edit(doc, |doc| doc.put(ROOT, "n", text).unwrap());
    let data = data_of(change.raw_bytes());
    let packed = chunk_of_hash(2, &deflated(data), 1, data);
    (change, packed)
}

#[test]
fn a_deflated_change_enters_and_a_bomb_does_not() {
    let mut doc = document();
    let mut history = history_of(&mut doc);
    commit(&mut history);
    // What deflates to half its size is kept in the form that is of most use.
    let (good, packed) = deflated_text(&mut doc, &noisy_text(2_000));
    assert!(packed.len() < good.raw_bytes().len());
    let received = send(&mut history, &[&packed]);
    assert_eq!((received.admitted, received.refused), (1, vec![]));
    assert_eq!(
        commit(&mut history).unwrap().changes[0].bytes,
        good.raw_bytes()
    );

    let bomb = deflated(&vec![0; CHANGE_BYTES_MAX + 1]);
    assert!(bomb.len() < 100_000);
    let refusal = broken(ChunkError::Inflate);
    check(&mut doc, &chunk(2, &bomb), &refusal);
    check(&mut doc, &chunk(2, b"no deflate stream"), &refusal);
    // What lies behind the stream is in no hash.
    let (good, _) = deflated_text(&mut doc, "more");
    let data = data_of(good.raw_bytes());
    let followed = [deflated(data), vec![0; 1000]].concat();
    let followed = chunk_of_hash(2, &followed, 1, data);
    assert_eq!(send(&mut history, &[&followed]).refused, [(None, refusal)]);
}

/// What is stored and held of a change that deflates to little is what came of it, also while it
/// waits for another; and it is read again when the document is opened.
#[test]
fn what_is_kept_of_a_change_is_a_small_multiple_of_what_came() {
    let mut doc = document();
    let first = doc.get_changes(&[]);
    let (change, one) = deflated_text(&mut doc, &"long ".repeat(200_000));
    doc.apply_changes([change]).unwrap();
    let (change, two) = deflated_text(&mut doc, &"longer ".repeat(200_000));
    doc.apply_changes([change]).unwrap();
    let mut history = history();
    let received = send(&mut history, &[&two, &one]);
    assert_eq!((received.admitted, received.refused), (0, vec![]));
    let mut rows = Vec::new();
    for change in &first {
        send(&mut history, &[change.raw_bytes()]);
        rows.extend(commit(&mut history));
    }
    let stored: Vec<_> = rows.iter().flat_map(|row| &row.changes).collect();
    let kept = stored.iter().rev().take(2).map(|change| &change.bytes);
    assert!(kept.eq([&two, &one]), "kept as they came");
    assert_eq!(history.recent(history.len() - 1), Some(&Bytes::from(two)));

    let opened = History::open(history.record().clone(), None, &rows).unwrap();
    assert_eq!(opened.heads(), doc.get_heads());
    let mut read = AutoCommit::new();
    let chunks = stored.iter().map(|change| &change.bytes);
    let changes: Vec<_> = chunks
        .map(|bytes| Change::try_from(bytes.as_ref()).unwrap())
        .collect();
    read.apply_changes(changes).unwrap();
    assert_eq!(read.get_heads(), doc.get_heads());
    // Damage inside the deflated bytes that are read is seen.
    for at in 0..200 {
        let mut rows = rows.clone();
        let change = rows.last_mut().unwrap().changes.last_mut().unwrap();
        let mut bytes = change.bytes.to_vec();
        bytes[at] ^= 0xff;
        change.bytes = bytes.into();
        drop(History::open(history.record().clone(), None, &rows));
    }
}

#[test]
fn an_author_with_a_long_id_is_refused_by_a_short_reason() {
    let mut doc = document();
    let by = |doc: &mut AutoCommit, len: usize| {
        let author = ActorId::from(vec![7; len]);
        let mut other = doc.fork().with_actor(author);
        other.put(ROOT, "n", 1).unwrap();
        other.commit();
        other.get_last_local_change().unwrap()
    };
    let longest = by(&mut doc, ACTOR_BYTES_MAX);
    enters(&mut history_of(&mut doc), longest.raw_bytes());
    for len in [ACTOR_BYTES_MAX + 1, 10_000_000] {
        let long = by(&mut doc, len);
        let data = data_of(long.raw_bytes());
        let packed = chunk_of_hash(2, &deflated(data), 1, data);
        let received = send(&mut history_of(&mut doc), &[&packed]);
        let reason = received.refused[0].1.to_string();
        assert!(reason.contains("actor") && reason.len() < 1000, "{reason}");
        assert_eq!(received.admitted, 0);
    }
}

/// A change's data behind the header: what comes before the other actors, and all from there on.
fn split_at_actors(data: &[u8]) -> (&[u8], &[u8]) {
    let mut input = Reader(data);
    for _ in 0..input.unsigned().unwrap() {
        input.hash().unwrap();
    }
    input.prefixed().unwrap();
    input.unsigned().unwrap();
    input.unsigned().unwrap();
    input.signed().unwrap();
    input.prefixed().unwrap();
    data.split_at(data.len() - input.0.len())
}

/// A change's data up to its columns, the columns behind their specifications, and what follows.
type Columns<'a> = (&'a [u8], Vec<(u64, &'a [u8])>, &'a [u8]);

fn split_columns(data: &[u8]) -> Columns<'_> {
    let mut input = Reader(split_at_actors(data).1);
    for _ in 0..input.unsigned().unwrap() {
        input.prefixed().unwrap();
    }
    let header = &data[..data.len() - input.0.len()];
    let count = input.unsigned().unwrap();
    let specs: Vec<(u64, usize)> = (0..count)
        .map(|_| (input.unsigned().unwrap(), input.number().unwrap()))
        .collect();
    let columns = specs
        .into_iter()
        .map(|(spec, len)| (spec, input.take(len).unwrap()))
        .collect();
    (header, columns, input.0)
}

/// A change's data with one of its columns replaced, or added.
fn with_column(data: &[u8], spec: u64, column: &[u8]) -> Vec<u8> {
    let (header, mut columns, rest) = split_columns(data);
    columns.retain(|(found, _)| *found != spec);
    columns.push((spec, column));
    columns.sort_by_key(|(spec, _)| *spec);
    let mut out = header.to_vec();
    push_unsigned(&mut out, columns.len() as u64);
    for (spec, column) in &columns {
        push_unsigned(&mut out, *spec);
        push_unsigned(&mut out, column.len() as u64);
    }
    for (_, column) in &columns {
        out.extend_from_slice(column);
    }
    out.extend_from_slice(rest);
    out
}

fn with_columns(data: &[u8], columns: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let with = |data: Vec<u8>, (spec, column): &(u64, Vec<u8>)| with_column(&data, *spec, column);
    columns.iter().fold(data.to_vec(), with)
}

/// The data of a change that names that many other actors.
fn with_actors(data: &[u8], actors: usize) -> Vec<u8> {
    let (header, rest) = split_at_actors(data);
    let mut out = header.to_vec();
    push_unsigned(&mut out, actors as u64);
    for n in 0..actors as u32 {
        out.push(4);
        out.extend_from_slice(&n.to_be_bytes());
    }
    let rest = rest.strip_prefix(&[0]).expect("it names no other actors");
    out.extend_from_slice(rest);
    out
}

/// A run-length column: `count` times the same value.
fn run(count: u64, value: &[u8]) -> Vec<u8> {
    let mut run = Vec::new();
    push_unsigned(&mut run, count);
    if run.last().unwrap() & 0x40 != 0 {
        // The count is signed.
        *run.last_mut().unwrap() |= 0x80;
        run.push(0);
    }
    run.extend_from_slice(value);
    run
}

fn ones(count: u64) -> Vec<u8> {
    run(count, &[1])
}

const KEY_STRING: u64 = 0x15;
const INSERT: u64 = 0x34;
const ACTION: u64 = 0x42;
const VALUE_KIND: u64 = 0x56;
const PRED_COUNT: u64 = 0x70;
const PRED_ACTOR: u64 = 0x71;
const PRED_COUNTER: u64 = 0x73;

#[test]
fn a_few_bytes_that_claim_millions_of_operations_are_refused() {
    let mut doc = document();
    let good = edit(&mut doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    let data = data_of(good.raw_bytes());
    // The surgery itself is sound.
    assert_eq!(
        chunk(1, &with_column(data, ACTION, &[0x7f, 1])),
        good.raw_bytes()
    );
    for count in [CHANGE_OPS_MAX + 1, 1 << 40, (1 << 62) - 1] {
        let bomb = chunk(1, &with_column(data, ACTION, &ones(count)));
        assert!(bomb.len() < 200);
        let limit = ChangeError::Limit("number of operations in a change");
        check(&mut doc, &bomb, &limit.into());
    }
    for count in [CHANGE_OPS_MAX + 1, 1 << 40] {
        let mut column = vec![0x7f];
        push_unsigned(&mut column, count);
        let bomb = chunk(1, &with_column(data, PRED_COUNT, &column));
        let limit = ChangeError::Limit("number of replaced operations");
        check(&mut doc, &bomb, &limit.into());
    }
    let deflated = chunk(1, &with_column(data, ACTION | 8, &deflated(&ones(1))));
    check(
        &mut doc,
        &deflated,
        &ChangeError::Malformed("a deflated column").into(),
    );
}

#[test]
fn lists_that_claim_to_be_too_long_are_refused() {
    let mut doc = document();
    let mut many_deps = Vec::new();
    push_unsigned(&mut many_deps, 1 << 40);
    let limit = |what| Refusal::from(ChangeError::Limit(what));
    check(&mut doc, &chunk(1, &many_deps), &limit("number of deps"));
    let mut many_actors = vec![0, 1, 9, 1, 1, 0, 0];
    push_unsigned(&mut many_actors, 1 << 40);
    check(
        &mut doc,
        &chunk(1, &many_actors),
        &limit("number of actors"),
    );
    let mut many_columns = vec![0, 1, 9, 1, 1, 0, 0, 0];
    push_unsigned(&mut many_columns, 1 << 40);
    check(
        &mut doc,
        &chunk(1, &many_columns),
        &limit("number of columns"),
    );
    let cut = ChangeError::Malformed("deps");
    check(&mut doc, &chunk(1, &[2, 0, 0]), &cut.into());
    let zero = ChangeError::Malformed("seq and start_op begin at 1");
    check(
        &mut doc,
        &chunk(1, &[0, 1, 9, 0, 1, 0, 0, 0, 0]),
        &zero.clone().into(),
    );
    check(
        &mut doc,
        &chunk(1, &[0, 1, 9, 1, 0, 0, 0, 0, 0]),
        &zero.into(),
    );
}

#[track_caller]
fn enters(history: &mut History, change: &[u8]) {
    let received = send(history, &[change]);
    assert_eq!((received.admitted, received.refused), (1, vec![]));
}

#[test]
fn a_change_of_the_largest_size_enters_and_a_larger_one_does_not() {
    let mut doc = document();
    let of_len =
        |doc: &mut AutoCommit, len| edit(doc, |doc| doc.put(ROOT, "n", vec![0; len]).unwrap());
    // Long enough that all lengths in it have as many digits as the largest.
    let some = CHANGE_BYTES_MAX - 1000;
    let rest = data_of(of_len(&mut doc, some).raw_bytes()).len() - some;
    let good = of_len(&mut doc, CHANGE_BYTES_MAX - rest);
    let data = data_of(good.raw_bytes());
    assert_eq!(data.len(), CHANGE_BYTES_MAX);
    enters(&mut history_of(&mut doc), good.raw_bytes());
    let packed = chunk_of_hash(2, &deflated(data), 1, data);
    enters(&mut history_of(&mut doc), &packed);

    let bad = of_len(&mut doc, CHANGE_BYTES_MAX - rest + 1);
    let data = data_of(bad.raw_bytes());
    assert_eq!(data.len(), CHANGE_BYTES_MAX + 1);
    check(&mut doc, bad.raw_bytes(), &broken(ChunkError::Inflate));
    let packed = chunk_of_hash(2, &deflated(data), 1, data);
    check(&mut doc, &packed, &broken(ChunkError::Inflate));
}

/// Everybody writes without having heard of anybody, and one merges it all.
#[test]
fn a_change_of_the_most_deps_enters_and_one_of_more_does_not() {
    let mut history = history();
    let mut deps = Vec::new();
    // The same change by everybody: no deps, four bytes of the author.
    let mut doc = AutoCommit::new().with_actor([0; 4].as_slice().into());
    doc.put(ROOT, "n", 1).unwrap();
    doc.commit();
    let mut data = data_of(doc.get_last_local_change().unwrap().raw_bytes()).to_vec();
    assert_eq!(data[..6], [0, 4, 0, 0, 0, 0]);
    for n in 0..CHANGE_DEPS_MAX as u32 {
        data[2..6].copy_from_slice(&n.to_be_bytes());
        let bytes = chunk(1, &data);
        enters(&mut history, &bytes);
        let (chunk, _) = Chunk::split(&bytes).unwrap();
        deps.push(chunk.verified_hash().unwrap());
    }
    let merging = |deps: &[ChangeHash]| {
        altered(&mut document(), |c| {
            c.deps = deps.to_vec();
            c.start_op = 2.try_into().unwrap();
        })
    };
    enters(&mut history, merging(&deps).raw_bytes());
    commit(&mut history);
    assert_eq!(history.durable_heads().len(), 1);
    deps.push(ChangeHash([7; 32]));
    let refusal = ChangeError::Limit("number of deps").into();
    check(&mut AutoCommit::new(), merging(&deps).raw_bytes(), &refusal);
}

#[test]
fn a_change_of_the_most_actors_enters_and_one_of_more_does_not() {
    let mut doc = document();
    let good = edit(&mut doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    let with = |actors| chunk(1, &with_actors(data_of(good.raw_bytes()), actors));
    enters(&mut history_of(&mut doc), &with(CHANGE_ACTORS_MAX));
    let refusal = ChangeError::Limit("number of actors").into();
    check(&mut doc, &with(CHANGE_ACTORS_MAX + 1), &refusal);
}

/// A few bytes that really are that many operations.
#[test]
fn a_change_of_the_most_operations_enters_and_one_of_more_does_not() {
    let mut doc = document();
    let good = edit(&mut doc, |doc| {
        doc.put(ROOT, "n", ScalarValue::Null).unwrap()
    });
    let with = |count: u64| {
        let mut none_inserted = Vec::new();
        push_unsigned(&mut none_inserted, count);
        let columns = [
            (KEY_STRING, run(count, b"\x01n")),
            (INSERT, none_inserted),
            (ACTION, ones(count)),
            (VALUE_KIND, run(count, &[0])),
            (PRED_COUNT, run(count, &[0])),
        ];
        chunk(1, &with_columns(data_of(good.raw_bytes()), &columns))
    };
    enters(&mut history_of(&mut doc), &with(CHANGE_OPS_MAX));
    let refusal = ChangeError::Limit("number of operations in a change").into();
    check(&mut doc, &with(CHANGE_OPS_MAX + 1), &refusal);
}

#[test]
fn an_operation_that_replaces_the_most_enters_and_one_of_more_does_not() {
    let mut doc = document();
    let good = edit(&mut doc, |doc| doc.put(ROOT, "counter", 1).unwrap());
    let with = |count: u64| {
        let mut number = vec![0x7f];
        push_unsigned(&mut number, count);
        // Always the same one: its counter, and then a difference of nothing.
        let mut counters = vec![0x7f, COUNTER as u8];
        counters.extend(run(count - 1, &[0]));
        let columns = [
            (PRED_COUNT, number),
            (PRED_ACTOR, ones(count)),
            (PRED_COUNTER, counters),
        ];
        chunk(1, &with_columns(data_of(good.raw_bytes()), &columns))
    };
    enters(&mut history_of(&mut doc), &with(CHANGE_OPS_MAX));
    let refusal = ChangeError::Limit("number of replaced operations").into();
    check(&mut doc, &with(CHANGE_OPS_MAX + 1), &refusal);
}

/// Automerge 0.12 ends where it applies another one.
#[test]
fn only_the_first_change_of_an_actor_names_an_author() {
    let named = |change: &Change| {
        let mut named = change.decode();
        named.extra_bytes = vec![1, 3, b'a', b'n', b'n'];
        Change::from(named)
    };
    let mut doc = document();
    let mut history = history_of(&mut doc);
    let first = edit(&mut doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    assert_eq!(first.seq(), 1);
    let received = send(&mut history, &[named(&first).raw_bytes()]);
    assert_eq!(received.refused, []);
    doc.put(ROOT, "n", 2).unwrap();
    doc.commit();
    let later = doc.get_last_local_change().unwrap();
    assert_eq!(later.seq(), 2);
    let received = send(&mut history, &[named(&later).raw_bytes()]);
    assert!(matches!(received.refused[..], [(_, Refusal::Automerge(_))]));
}

/// Automerge knows fewer columns than are read here, so it is the one that refuses the most.
#[test]
fn a_change_of_too_many_columns_is_not_read() {
    const COLUMNS_MAX: usize = 64;
    let mut doc = document();
    let good = edit(&mut doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    let data = data_of(good.raw_bytes());
    let own = split_columns(data).1.len();
    let with = |columns| {
        let unknown = (own..columns).map(|n| 0x102 + 16 * n as u64);
        let add = |data: Vec<u8>, spec| with_column(&data, spec, &ones(1));
        chunk(1, &unknown.fold(data.to_vec(), add))
    };
    let received = send(&mut history_of(&mut doc), &[&with(COLUMNS_MAX)]);
    assert!(matches!(received.refused[..], [(_, Refusal::Automerge(_))]));
    let refusal = ChangeError::Limit("number of columns").into();
    check(&mut doc, &with(COLUMNS_MAX + 1), &refusal);
}

/// To Automerge, what follows a group under the same attribute is a part of it: it would read no
/// action at all where another change then builds upon the object that was made.
#[test]
fn a_group_that_hides_columns_is_not_read() {
    const ACTION_GROUP: u64 = 0x40;
    let mut doc = document();
    let good = edit(&mut doc, |doc| {
        doc.put_object(ROOT, "o", ObjType::Map).unwrap();
    });
    let hides = with_column(data_of(good.raw_bytes()), ACTION_GROUP, &ones(1));
    let theirs = Change::try_from(&chunk(1, &hides)[..]).unwrap();
    assert_eq!(theirs.len(), 0);
    for group in [0x00, 0x10, 0x30, ACTION_GROUP, 0x50, 0x90, 0xa0] {
        let hides = with_column(data_of(good.raw_bytes()), group, &ones(1));
        let refusal = ChangeError::Malformed("a group of known columns").into();
        check(&mut doc, &chunk(1, &hides), &refusal);
    }
}

#[test]
fn an_operation_of_the_highest_counter_enters_and_a_higher_one_does_not() {
    let mut doc = document();
    let with = |doc: &mut AutoCommit, counter: u32| {
        altered(doc, |c| {
            c.start_op = u64::from(counter).try_into().unwrap();
        })
    };
    let good = with(&mut doc, u32::MAX - 1);
    enters(&mut history_of(&mut doc), good.raw_bytes());
    let bad = with(&mut doc, u32::MAX);
    let refusal = ChangeError::Limit("operation counter").into();
    check(&mut doc, bad.raw_bytes(), &refusal);
}

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

#[test]
fn the_oldest_refused_change_is_forgotten_and_checked_again() {
    let mut doc = document();
    let mut history = history_of(&mut doc);
    let bad = altered(&mut doc, |c| c.start_op = 1.try_into().unwrap()).decode();
    let numbered = |n: usize| {
        let mut bad = bad.clone();
        bad.time = n as i64;
        Change::from(bad)
    };
    let refuse = |history: &mut History, n: usize| {
        let received = send(history, &[numbered(n).raw_bytes()]);
        let [(_, Refusal::StartOp { .. })] = received.refused[..] else {
            panic!("{:?}", received.refused);
        };
    };
    // What depends on a change that is remembered is refused; otherwise it waits.
    let remembers = |history: &mut History, n: usize| {
        let mut after = bad.clone();
        after.deps = vec![numbered(n).hash()];
        let received = send(history, &[Change::from(after).raw_bytes()]);
        received.refused.len() == 1
    };
    for n in 0..REFUSED_MAX {
        refuse(&mut history, n);
    }
    refuse(&mut history, REFUSED_MAX);
    assert!(!remembers(&mut history, 0));
    assert!(remembers(&mut history, 2), "only the oldest are forgotten");
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

#[test]
fn a_bundle_is_refused_and_a_document_chunk_is_reported() {
    let mut doc = document();
    let hashes: Vec<_> = doc.get_changes(&[]).iter().map(Change::hash).collect();
    let bundle = doc.bundle(hashes).unwrap();
    check(&mut AutoCommit::new(), bundle.bytes(), &Refusal::Bundle);
    let saved = doc.save();
    let mut history = history();
    let received = send(&mut history, &[&saved]);
    assert!(received.unpack && received.refused.is_empty());
    assert!(history.is_empty());
    // One that has nothing new is not unpacked.
    let received = send(&mut history_of(&mut doc), &[&saved]);
    assert!(!received.unpack && received.refused.is_empty());
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

/// A hundred bytes may have operations for a second; a message of 64 KiB must not have them for a
/// quarter of an hour.
#[test]
fn a_message_has_no_more_operations_than_can_be_taken_in() {
    let bombs: Vec<_> = (1..4)
        .map(|actor| chunk(1, &forge::values(actor, CHANGE_OPS_MAX)))
        .collect();
    let chunks: Vec<&[u8]> = bombs.iter().map(Vec::as_slice).collect();
    let message = SyncMessage {
        heads: vec![HEAD],
        need: Vec::new(),
        have: Vec::new(),
        changes: chunks,
        flags: Some(Flags {
            supports_sync_reset: true,
            ..Flags::default()
        }),
    };
    let mut history = history();
    let light = receive_light(&mut history, &message);
    assert!(light.more && light.refused.is_empty() && history.is_empty());
    for taken in 1..4 {
        let received = history.receive(PEER, &message, Documents::Report);
        let received = received.unwrap();
        assert_eq!((received.admitted, history.len()), (1, taken));
        let rest = (taken < 3).then_some((None, Refusal::MessageOperations));
        assert_eq!(received.refused, rest.into_iter().collect::<Vec<_>>());
        assert!(commit(&mut history).is_some());
        // Its sender sends again what was left out.
        let answer = history.poll_send(PEER).unwrap();
        assert_eq!(
            answer.flags.is_some_and(|flags| flags.sync_reset),
            taken < 3
        );
    }
    // A few operations are no trouble.
    let few = chunk(1, &forge::values(9, 1000));
    let message = SyncMessage {
        changes: vec![&few],
        ..message
    };
    let light = receive_light(&mut history, &message);
    assert!(!light.more && light.admitted == 1, "{light:?}");
}

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
