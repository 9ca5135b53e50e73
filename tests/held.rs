//! Aim: a history says how much memory it holds, in all and for each peer; and what it holds for a
//! peer goes with the peer.
//!
//! Method: an allocator that counts, beside what the history says.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

mod counting;

use std::io::Write;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Change, ChangeHash, ROOT};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use reconverge::history::{DocumentChunks, History, ORPHANS_MAX, Received, Row};
use reconverge::id::{Access, ConnectionId, Space};
use reconverge::protocol::{Flags, SyncMessage};
use reconverge_tests::Random;
use reconverge_tests::forge::chunk_of_hash;

const PEER: ConnectionId = ConnectionId(1);
const OTHER: ConnectionId = ConnectionId(2);

/// What a history may have allocated beyond twice what it says.
const SLACK: isize = 4 * 1024;

fn history() -> History {
    let mut history = History::new(Space::default());
    for peer in [PEER, OTHER] {
        history.join(peer, Access::Write);
    }
    history
}

fn send(
    history: &mut History,
    from: ConnectionId,
    heads: &[ChangeHash],
    need: &[ChangeHash],
    changes: &[&[u8]],
) -> Received {
    let message = SyncMessage {
        heads: heads.to_vec(),
        need: need.to_vec(),
        have: Vec::new(),
        changes: changes.to_vec(),
        flags: Some(Flags::default()),
    };
    let received = history.receive(from, &message, DocumentChunks::Report);
    received.expect("everything is resident")
}

fn commit(history: &mut History) -> Option<Row> {
    let row = history.take_unsaved().map(|(_, row)| row);
    history.committed();
    row
}

fn hashes(seed: u64, len: usize) -> Vec<ChangeHash> {
    let mut random = Random::new(seed);
    let mut hash = || ChangeHash(random.noise(32).try_into().unwrap());
    (0..len).map(|_| hash()).collect()
}

/// Changes of `len` bytes and some, each on top of the one before.
fn chain(count: usize, len: usize) -> Vec<Change> {
    let mut random = Random::new(len as u64);
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    for _ in 0..count {
        doc.put(ROOT, "n", random.noise(len)).unwrap();
        doc.commit();
    }
    doc.get_changes(&[])
}

fn deflated(change: &Change) -> Vec<u8> {
    let bytes = change.raw_bytes();
    let (chunk, _) = reconverge::history::chunk::Chunk::split(bytes).unwrap();
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(chunk.data).unwrap();
    chunk_of_hash(2, &encoder.finish().unwrap(), 1, chunk.data)
}

#[test]
fn what_waits_goes_with_the_last_who_sent_it() {
    let changes = chain(4, 1000);
    let bytes: Vec<_> = changes.iter().map(Change::raw_bytes).collect();
    let mut history = history();
    let before = (history.held_for(PEER), history.held_for(OTHER));
    send(&mut history, PEER, &[], &[], &bytes[1..4]);
    send(&mut history, OTHER, &[], &[], &bytes[1..2]);
    assert!(history.held_for(PEER) > before.0 + 3000);
    assert!((before.1 + 1000..before.1 + 3000).contains(&history.held_for(OTHER)));
    let held = history.held_bytes();
    history.leave(PEER);
    assert_eq!(history.held_for(PEER), 0);
    assert!(history.held_bytes() < held - 2000);
    // What both sent is here yet, and what the one sent who left can be had again.
    let heads = [changes[3].hash()];
    let received = send(&mut history, OTHER, &heads, &[], &bytes[..1]);
    assert_eq!(received.admitted, 2);
    commit(&mut history);
    let asked = history.poll_send(OTHER).unwrap();
    assert_eq!(asked.need, heads);
    let received = send(&mut history, OTHER, &heads, &[], &bytes[2..4]);
    assert_eq!(received.admitted, 2);
    // But for the names of what it was asked for.
    assert!(history.held_for(OTHER) < before.1 + 500);
}

/// The forms of a change differ in length, and only one of them is kept.
#[test]
fn a_change_that_waits_may_come_in_both_of_its_forms() {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    for n in 0..2 {
        doc.put(ROOT, "n", vec![n; 100_000]).unwrap();
        doc.commit();
    }
    let changes = doc.get_changes(&[]);
    let mut history = history();
    let before = history.held_for(PEER);
    send(&mut history, PEER, &[], &[], &[&deflated(&changes[1])]);
    send(&mut history, PEER, &[], &[], &[changes[1].raw_bytes()]);
    assert!(history.held_for(PEER) < before + 10_000);
    let received = send(&mut history, PEER, &[], &[], &[changes[0].raw_bytes()]);
    assert_eq!(received.admitted, 2);
    commit(&mut history);
    // There is room for others.
    let others = chain(2, 10);
    send(&mut history, PEER, &[], &[], &[others[1].raw_bytes()]);
    assert!(history.held_for(PEER) > before);
    let asked = history.poll_send(PEER).unwrap();
    assert_eq!(asked.need, [others[0].hash()]);
}

/// Whatever it holds, it says so.
fn check(name: &str, fill: impl FnOnce(&mut History)) {
    let before = counting::live();
    let mut history = history();
    fill(&mut history);
    let full = (history.held_bytes(), counting::live() - before);
    let each = [PEER, OTHER].map(|peer| history.held_for(peer));
    for peer in [PEER, OTHER] {
        history.leave(peer);
    }
    let left = (history.held_bytes(), counting::live() - before);
    drop(history);
    // What is printed is allocated, too.
    let freed = counting::live() == before;
    for ((held, live), when) in [(full, "full"), (left, "when all have left")] {
        println!("{name}, {when}: {held} bytes held, {live} allocated");
        let held = held.cast_signed();
        assert!(live <= 2 * held + SLACK, "{name}: uncharged");
        assert!(held <= 2 * live + SLACK, "{name}: too much is charged");
    }
    assert!(each.iter().all(|each| *each <= full.0), "{name}");
    assert!(freed, "{name}");
}

#[test]
fn everything_that_is_held_is_said() {
    check("nothing", |_| ());
    let (small, large) = (chain(3_000, 8), chain(40, 20_000));
    let many: Vec<_> = small.iter().map(Change::raw_bytes).collect();
    let few: Vec<_> = large.iter().map(Change::raw_bytes).collect();
    check("unsaved", |history| {
        drop(send(history, PEER, &[], &[], &many))
    });
    check("large, unsaved", |history| {
        drop(send(history, PEER, &[], &[], &few))
    });
    check("saved", |history| {
        send(history, PEER, &[], &[], &many);
        commit(history);
    });
    check("large, saved", |history| {
        send(history, PEER, &[], &[], &few);
        commit(history);
    });
    check("orphans", |history| {
        drop(send(history, PEER, &[], &[], &many[1..]))
    });
    check("orphans of two", |history| {
        send(history, PEER, &[], &[], &many[1..]);
        send(history, OTHER, &[], &[], &many[1..]);
    });
    check("large orphans", |history| {
        drop(send(history, PEER, &[], &[], &few[1..]))
    });
    check("orphans that entered", |history| {
        send(history, PEER, &[], &[], &many[1..]);
        send(history, PEER, &[], &[], &many[..1]);
        commit(history);
    });
    let unknown = hashes(1, 20_000);
    check("unknown heads", |history| {
        send(history, PEER, &unknown, &[], &[]);
        commit(history);
        history.poll_send(PEER);
    });
    let some: Vec<_> = small.iter().step_by(2).map(Change::hash).collect();
    let tip = [small.last().unwrap().hash()];
    check("every other change asked for", |history| {
        send(history, OTHER, &tip, &[], &many);
        commit(history);
        send(history, PEER, &tip, &[], &[]);
        send(history, PEER, &tip, &some, &[]);
    });
    let bad: Vec<_> = (0..ORPHANS_MAX)
        .map(|n| {
            let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
            doc.put(ROOT, "n", n as u64).unwrap();
            doc.commit();
            doc.get_last_local_change().unwrap()
        })
        .collect();
    let bad: Vec<_> = bad.iter().map(Change::raw_bytes).collect();
    check("refused", |history| {
        let received = send(history, PEER, &[], &[], &bad);
        assert_eq!(received.refused.len(), bad.len() - 1);
    });
}

/// A row is stored for many changes, of which only the newest stay in memory.
#[test]
fn an_opened_document_does_not_hold_its_rows() {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    for len in [10_000_000, 8] {
        doc.put(ROOT, "n", Random::new(1).noise(len)).unwrap();
        doc.commit();
    }
    let changes = doc.get_changes(&[]);
    let changes: Vec<_> = changes.iter().map(Change::raw_bytes).collect();
    let mut history = history();
    send(&mut history, PEER, &[], &[], &changes);
    let row = commit(&mut history).unwrap();
    let (record, encoded) = (history.record().clone(), row.encode());
    drop((history, row));
    let before = counting::live();
    let opened = {
        let bytes = bytes::Bytes::copy_from_slice(&encoded);
        let row = Row::decode(&bytes).unwrap();
        History::open(record, None, &[row]).unwrap()
    };
    let live = counting::live() - before;
    assert!(
        live <= 2 * opened.held_bytes().cast_signed() + SLACK,
        "{live}"
    );
}

/// However many heads a document has, those who were told the same of them hold one list.
#[test]
fn who_acknowledges_many_heads_does_not_hold_them_alone() {
    const HEADS: usize = 2_000;
    let by = |n: usize| {
        let mut doc = AutoCommit::new().with_actor(ActorId::from(Random::new(n as u64).bytes()));
        doc.put(ROOT, "n", n as u64).unwrap();
        doc.commit();
        doc.get_last_local_change().unwrap()
    };
    let changes: Vec<_> = (0..HEADS).map(by).collect();
    let bytes: Vec<_> = changes.iter().map(Change::raw_bytes).collect();
    let mut history = history();
    send(&mut history, OTHER, &[], &[], &bytes);
    commit(&mut history);
    let heads = history.durable_heads().to_vec();
    send(&mut history, PEER, &[], &[], &[]);
    while history.poll_send(PEER).is_some() {}
    send(&mut history, PEER, &heads, &[], &[]);
    assert_eq!(history.peer_heads(PEER), heads);
    let held = history.held_for(PEER);
    assert!(held < HEADS * size_of::<ChangeHash>(), "{held} bytes");
}
