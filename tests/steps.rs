//! Aim: no step of taking in a message grows faster than the message, or the document, does.
//!
//! Method: each dimension of a message is doubled, alone, and the history's own count of steps at most
//! doubles, too. No clock is looked at.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use automerge::sync::BloomFilter;
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Change, ChangeHash, ROOT};
use reconverge::history::{DocumentChunks, History};
use reconverge::id::{Access, ConnectionId, Space};
use reconverge::protocol::{Flags, SyncMessage, Version, encode_sync};
use reconverge_tests::Random;

const PEER: ConnectionId = ConnectionId(1);
const OTHER: ConnectionId = ConnectionId(2);

/// How large a dimension is before it is doubled.
const SIZES: [usize; 2] = [300, 1_200];

fn history() -> History {
    let mut history = History::new(Space::default());
    for peer in [PEER, OTHER] {
        history.join(peer, Access::Write);
    }
    history
}

fn hash(n: usize) -> ChangeHash {
    let mut random = Random::new(n as u64);
    ChangeHash(std::array::from_fn(|_| (random.number() >> 32) as u8))
}

fn hashes(n: usize) -> Vec<ChangeHash> {
    (0..n).map(hash).collect()
}

/// A message of heads, needs and changes.
#[derive(Default)]
struct Said {
    heads: Vec<ChangeHash>,
    need: Vec<ChangeHash>,
    changes: Vec<Vec<u8>>,
    flags: Flags,
}

impl Said {
    /// How many steps it takes.
    fn to(&self, history: &mut History, from: ConnectionId) -> u64 {
        let message = SyncMessage {
            heads: self.heads.clone(),
            need: self.need.clone(),
            have: Vec::new(),
            changes: self.changes.iter().map(Vec::as_slice).collect(),
            flags: Some(self.flags),
        };
        let before = history.steps();
        history
            .receive(from, &message, DocumentChunks::Report)
            .expect("everything is resident");
        drop(history.take_unsaved());
        history.committed();
        history.steps() - before
    }
}

/// A chain of changes, each on top of the one before.
fn chain(len: usize) -> Vec<Change> {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    for n in 0..len {
        doc.put(ROOT, "n", n as u64).unwrap();
        doc.commit();
    }
    doc.get_changes(&[])
}

fn bytes(changes: &[Change]) -> Vec<Vec<u8>> {
    changes.iter().map(|c| c.raw_bytes().to_vec()).collect()
}

/// A history that has these changes from another peer.
fn with(changes: &[Change]) -> History {
    let mut history = history();
    let said = Said {
        heads: vec![changes.last().unwrap().hash()],
        changes: bytes(changes),
        ..Said::default()
    };
    said.to(&mut history, OTHER);
    history
}

/// Changes that were made at the same time by as many.
fn beside(len: usize) -> Vec<Change> {
    let by = |n: usize| {
        let mut doc = AutoCommit::new().with_actor(ActorId::from(hash(n).0));
        doc.put(ROOT, "n", n as u64).unwrap();
        doc.commit();
        doc.get_last_local_change().unwrap()
    };
    (0..len).map(by).collect()
}

/// What one dimension of a size costs.
type Cost = fn(usize) -> u64;

fn unknown_heads(n: usize) -> u64 {
    let said = Said {
        heads: hashes(n),
        ..Said::default()
    };
    said.to(&mut with(&chain(10)), PEER)
}

fn one_head_named_often(n: usize) -> u64 {
    let changes = chain(10);
    let said = Said {
        heads: vec![changes[3].hash(); n],
        ..Said::default()
    };
    said.to(&mut with(&changes), PEER)
}

fn heads_of_many_who_wrote_at_once(n: usize) -> u64 {
    let changes = beside(n);
    let said = Said {
        heads: changes.iter().map(Change::hash).collect(),
        ..Said::default()
    };
    said.to(&mut with(&changes), PEER)
}

fn every_other_change_asked_for_backwards(n: usize) -> u64 {
    let changes = chain(2 * n);
    let mut history = with(&changes);
    let heads = vec![changes.last().unwrap().hash()];
    let hello = Said {
        heads: heads.clone(),
        ..Said::default()
    };
    hello.to(&mut history, PEER);
    let need = changes.iter().rev().step_by(2).map(Change::hash).collect();
    let said = Said {
        heads,
        need,
        ..Said::default()
    };
    said.to(&mut history, PEER)
}

fn unknown_changes_asked_for(n: usize) -> u64 {
    let said = Said {
        need: hashes(n),
        ..Said::default()
    };
    said.to(&mut with(&chain(10)), PEER)
}

fn changes_of_a_chain(n: usize) -> u64 {
    let changes = chain(n);
    let said = Said {
        heads: vec![changes.last().unwrap().hash()],
        changes: bytes(&changes),
        ..Said::default()
    };
    said.to(&mut history(), PEER)
}

fn changes_that_are_known(n: usize) -> u64 {
    let changes = chain(n);
    let said = Said {
        changes: bytes(&changes),
        ..Said::default()
    };
    said.to(&mut with(&changes), PEER)
}

fn changes_backwards(n: usize) -> u64 {
    let mut changes = bytes(&chain(n));
    changes.reverse();
    let said = Said {
        changes,
        ..Said::default()
    };
    said.to(&mut history(), PEER)
}

fn a_chain_that_waits_named_by_each_of_its_changes(n: usize) -> u64 {
    let changes = chain(n + 1);
    let mut history = history();
    let waiting = Said {
        changes: bytes(&changes[1..]),
        ..Said::default()
    };
    waiting.to(&mut history, OTHER);
    let said = Said {
        heads: changes[1..].iter().map(Change::hash).collect(),
        ..Said::default()
    };
    said.to(&mut history, PEER)
}

fn a_merge_of_many(n: usize) -> u64 {
    let changes = beside(n);
    let mut history = with(&changes);
    let mut doc = AutoCommit::new().with_actor(ActorId::from([9; 16]));
    doc.apply_changes(changes).unwrap();
    doc.put(ROOT, "n", 1).unwrap();
    doc.commit();
    let merge = doc.get_last_local_change().unwrap();
    assert_eq!(merge.deps().len(), n);
    let said = Said {
        heads: vec![merge.hash()],
        changes: bytes(&[merge]),
        ..Said::default()
    };
    said.to(&mut history, PEER)
}

fn operations_of_a_change(n: usize) -> u64 {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    for n in 0..n {
        doc.put(ROOT, n.to_string(), 1).unwrap();
    }
    doc.commit();
    let said = Said {
        changes: bytes(&doc.get_changes(&[])),
        ..Said::default()
    };
    said.to(&mut history(), PEER)
}

/// A tip named by a peer that is known to have nothing, of a long history.
fn a_tip_of_a_long_history(n: usize) -> u64 {
    let changes = chain(n);
    let mut history = history();
    let begun = Said {
        heads: vec![hash(1)],
        ..Said::default()
    };
    begun.to(&mut history, PEER);
    let stored = Said {
        changes: bytes(&changes),
        ..Said::default()
    };
    stored.to(&mut history, OTHER);
    let said = Said {
        heads: vec![changes.last().unwrap().hash()],
        ..Said::default()
    };
    said.to(&mut history, PEER)
}

fn a_filter_over_a_long_history(n: usize) -> u64 {
    let changes = chain(n);
    let mut history = with(&changes);
    let some: Vec<_> = changes.iter().step_by(3).map(Change::hash).collect();
    let filter = BloomFilter::from_hashes(some.iter());
    let have = Some((&[][..], &filter));
    let mut message = encode_sync(Version::V1, &[hash(1)], &[], have, 0);
    message.extend(Flags::default().encode());
    let message = SyncMessage::decode(&message).unwrap();
    let before = history.steps();
    history
        .receive(PEER, &message, DocumentChunks::Report)
        .unwrap();
    history.steps() - before
}

/// Sends a peer all that there is to send; how many steps that took.
fn poll(history: &mut History, to: ConnectionId) -> u64 {
    let before = history.steps();
    while let Some(outgoing) = history.poll_send(to) {
        drop(outgoing.encode_head(0));
    }
    history.steps() - before
}

fn hello(history: &mut History, heads: &[ChangeHash]) {
    let hello = Said {
        heads: heads.to_vec(),
        ..Said::default()
    };
    hello.to(history, PEER);
}

fn all_of_a_history_sent(n: usize) -> u64 {
    let mut history = with(&chain(n));
    hello(&mut history, &[]);
    poll(&mut history, PEER)
}

/// Each part follows the answer to the one before.
fn a_history_sent_in_parts(n: usize) -> u64 {
    let changes = chain(n);
    let mut history = with(&changes);
    history.set_message_bytes_max(2_000);
    hello(&mut history, &[changes[0].hash()]);
    let (mut steps, mut parts) = (0, 0);
    while history.has_news(PEER) {
        parts += 1;
        steps += poll(&mut history, PEER);
        hello(&mut history, &[changes[0].hash()]);
    }
    assert!(parts > n / 40, "{parts} parts");
    steps
}

/// What lies between what it has.
fn every_other_change_sent(n: usize) -> u64 {
    let mut one = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let mut other = AutoCommit::new().with_actor(ActorId::from([2; 16]));
    let mut changes = Vec::new();
    for n in 0..n {
        for doc in [&mut one, &mut other] {
            doc.put(ROOT, "n", n as u64).unwrap();
            doc.commit();
            changes.push(doc.get_last_local_change().unwrap());
        }
    }
    let mut history = with(&changes);
    hello(&mut history, &one.get_heads());
    poll(&mut history, PEER)
}

fn many_heads_told(n: usize) -> u64 {
    let changes = beside(n);
    let mut history = with(&changes);
    hello(&mut history, &[changes[0].hash()]);
    poll(&mut history, PEER)
}

fn unknown_changes_asked_of_a_peer(n: usize) -> u64 {
    let mut history = with(&chain(10));
    hello(&mut history, &hashes(n));
    poll(&mut history, PEER)
}

/// A peer that has something of its own, and said by a filter what it has besides.
fn filtering(history: &mut History, changes: &[Change], heads: &[ChangeHash]) -> u64 {
    let filter =
        BloomFilter::from_hashes(changes.iter().map(Change::hash).collect::<Vec<_>>().iter());
    let have = Some((&[][..], &filter));
    let mut message = encode_sync(Version::V1, heads, &[], have, 0);
    message.extend(Flags::default().encode());
    let message = SyncMessage::decode(&message).unwrap();
    let before = history.steps();
    history
        .receive(PEER, &message, DocumentChunks::Report)
        .unwrap();
    history.steps() - before
}

fn a_filter_answered_by_a_filter(n: usize) -> u64 {
    let changes = chain(n);
    let mut history = with(&changes);
    filtering(&mut history, &changes, &[hash(1)]);
    poll(&mut history, PEER)
}

const DIMENSIONS: [(&str, Cost); 19] = [
    ("unknown heads", unknown_heads),
    ("one head named often", one_head_named_often),
    ("heads of many", heads_of_many_who_wrote_at_once),
    ("needs backwards", every_other_change_asked_for_backwards),
    ("unknown needs", unknown_changes_asked_for),
    ("changes of a chain", changes_of_a_chain),
    ("known changes", changes_that_are_known),
    ("changes backwards", changes_backwards),
    (
        "a chain that waits",
        a_chain_that_waits_named_by_each_of_its_changes,
    ),
    ("deps of a merge", a_merge_of_many),
    ("operations of a change", operations_of_a_change),
    ("a tip of a long history", a_tip_of_a_long_history),
    ("a filter", a_filter_over_a_long_history),
    ("a history sent", all_of_a_history_sent),
    ("a history sent in parts", a_history_sent_in_parts),
    ("every other change sent", every_other_change_sent),
    ("heads told", many_heads_told),
    ("unknown changes asked for", unknown_changes_asked_of_a_peer),
    ("a filter answered", a_filter_answered_by_a_filter),
];

#[test]
fn what_is_doubled_at_most_doubles_the_steps() {
    for (name, cost) in DIMENSIONS {
        for size in SIZES {
            let (once, twice) = (cost(size), cost(2 * size));
            println!("{name}: {once} steps for {size}, {twice} for {}", 2 * size);
            assert!(once > 0, "{name}: nothing is counted");
            // What is the same for any size counts once, and numbers grow with their logarithm.
            assert!(twice <= 2 * once + once / 5, "{name}");
        }
    }
}

/// What was computed for a peer once is not computed again, however often it names the same.
#[test]
fn a_tip_that_is_named_again_costs_no_walk() {
    let changes = chain(5_000);
    let mut history = with(&changes);
    let said = Said {
        heads: vec![changes.last().unwrap().hash()],
        ..Said::default()
    };
    said.to(&mut history, PEER);
    let again: u64 = (0..100).map(|_| said.to(&mut history, PEER)).sum();
    assert!(again < 100 * 64, "{again} steps for 100");
    // Nor by flags that make it look again, when it would not be sent any more.
    let reset = Said {
        flags: Flags {
            sync_reset: true,
            ..Flags::default()
        },
        heads: said.heads.clone(),
        ..Said::default()
    };
    let resets: u64 = (0..1_000).map(|_| reset.to(&mut history, PEER)).sum();
    let walk = changes.len() as u64;
    assert!(resets < 20 * walk, "{resets} steps for 1,000 resets");
}

/// A peer that said by a filter what it has costs no walk with each edit of others, nor with each
/// name of something that is not here.
#[test]
fn a_peer_with_a_filter_costs_no_walk_for_each_edit() {
    const EDITS: usize = 200;
    let changes = chain(4_000 + EDITS);
    let (old, new) = changes.split_at(4_000);
    let mut history = with(old);
    filtering(&mut history, old, &[hash(0)]);
    let claimed = poll(&mut history, PEER);
    assert!(claimed > old.len() as u64, "it is told what is here");
    let mut steps = 0;
    for edit in new {
        let said = Said {
            heads: vec![edit.hash()],
            changes: bytes(std::slice::from_ref(edit)),
            ..Said::default()
        };
        said.to(&mut history, OTHER);
        steps += poll(&mut history, PEER);
    }
    assert!(
        steps < EDITS as u64 * 200,
        "{steps} steps for {EDITS} edits"
    );
    let walk = claimed;
    let mut steps = 0;
    for n in 1..EDITS {
        hello(&mut history, &[hash(n)]);
        steps += poll(&mut history, PEER);
    }
    assert!(steps < 20 * walk, "{steps} steps for {EDITS} names");
}
