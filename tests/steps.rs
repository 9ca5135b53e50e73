//! Aim: no step of taking in a message grows faster than the message, or the document, does.
//!
//! Method: each dimension of a message is doubled, alone, and the history's own count of steps at most
//! doubles, too. No clock is looked at.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use automerge::sync::BloomFilter;
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Change, ChangeHash, ROOT};
use reconverge::history::{Documents, History};
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
            .receive(from, &message, Documents::Report)
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
    history.receive(PEER, &message, Documents::Report).unwrap();
    history.steps() - before
}

const DIMENSIONS: [(&str, Cost); 13] = [
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
