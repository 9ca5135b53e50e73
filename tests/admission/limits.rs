//! How much a change and a message may hold, and what only claims to hold much.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ChangeHash, ObjType, ROOT, ScalarValue};
use reconverge::history::chunk::{Chunk, ChunkError};
use reconverge::history::{
    CHANGE_ACTORS_MAX, CHANGE_BYTES_MAX, CHANGE_DEPS_MAX, CHANGE_OPS_MAX, ChangeError,
    DocumentChunks, Refusal,
};
use reconverge::leb::push_unsigned;
use reconverge::protocol::{Flags, SyncMessage};
use reconverge_tests::forge::{self, chunk, chunk_of_hash};

use crate::alter::{COUNTER, altered, document, edit};
use crate::columns::{
    ACTION, INSERT, KEY_STRING, PRED_ACTOR, PRED_COUNT, PRED_COUNTER, VALUE_KIND, data_of,
    deflated, ones, run, split_columns, with_actors, with_column, with_columns,
};
use crate::peer::{PEER, broken, check, commit, enters, history, history_of, receive_light, send};

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

/// A hundred bytes may have operations for a second; a message of 64 KiB must not have them for a
/// quarter of an hour.
#[test]
fn a_message_has_no_more_operations_than_can_be_taken_in() {
    let bombs: Vec<_> = (1..4)
        .map(|actor| chunk(1, &forge::values(actor, CHANGE_OPS_MAX)))
        .collect();
    let chunks: Vec<&[u8]> = bombs.iter().map(Vec::as_slice).collect();
    let message = SyncMessage {
        heads: vec![ChangeHash([7; 32])],
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
        let received = history.receive(PEER, &message, DocumentChunks::Report);
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
