//! Aim: what is too much for one message, or for the memory of what waits, arrives all the same.
//! Method: a relay's history on one side, Automerge's own sync on the other, and every message
//! between them looked at.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use automerge::sync::{BloomFilter, ChunkList, Have, Message, MessageVersion, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use reconverge::history::{ORPHAN_BYTES_MAX, ORPHANS_MAX};
use reconverge::id::{Access, ConnectionId};
use reconverge::protocol::{Flags, SYNC_BYTES_MAX, SyncMessage};
use reconverge_tests::Random;
use reconverge_tests::world::{Core, Relay, sync_message};

const MIB: usize = 1024 * 1024;

/// Messages and jobs in which a client and the relay must come to rest.
const STEPS_MAX: usize = 40;

/// One change that sets a value of this many bytes, which do not compress.
fn put_bytes(doc: &mut AutoCommit, random: &mut Random, len: usize) {
    doc.put(ROOT, "value", random.noise(len)).unwrap();
    doc.commit();
}

/// A document of one change per size.
fn document(sizes: &[usize]) -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor([1; 16].as_slice().into());
    extend(&mut doc, sizes);
    doc
}

fn extend(doc: &mut AutoCommit, sizes: &[usize]) {
    let mut random = Random::new(sizes.len() as u64);
    for len in sizes {
        put_bytes(doc, &mut random, *len);
    }
}

/// Gives the relay the changes of a document that it has not, each in a message of its own.
fn store(relay: &mut Relay, doc: &mut AutoCommit) {
    let writer = ConnectionId(1);
    relay.connect(writer, Access::Write);
    for change in doc.get_changes(&relay.stored().get_heads()) {
        let message = sync_message(&[change.hash()], &[], &[change.raw_bytes()]);
        relay.receive(writer, &message);
    }
    relay.disconnect(writer);
    assert_eq!(relay.stored().get_heads(), doc.get_heads());
}

fn fold(relay: &mut Relay) {
    relay.begin_fold();
    relay.finish_job(0);
}

/// A message that brought something.
#[derive(Debug)]
struct Part {
    chunks: Vec<usize>,
    /// Whether it claims anything to be had, which ends a difference that goes in parts.
    claims: bool,
}

/// Fetches the document as a stock client that has nothing; `between` happens after every message
/// that brought something.
fn fetch(relay: &mut Relay, between: impl Fn(&mut Relay)) -> (AutoCommit, Vec<Part>) {
    let connection = ConnectionId(2);
    relay.connect(connection, Access::Write);
    let (mut doc, mut state) = (AutoCommit::new(), State::new());
    let mut parts = Vec::new();
    for _ in 0..STEPS_MAX {
        let Some(message) = doc.sync().generate_sync_message(&mut state) else {
            relay.disconnect(connection);
            return (doc, parts);
        };
        relay.receive(connection, &message.encode());
        let Some(bytes) = relay.take(connection) else {
            continue;
        };
        let message = SyncMessage::decode(&bytes).unwrap();
        if !message.changes.is_empty() {
            parts.push(Part {
                chunks: message.changes.iter().map(|chunk| chunk.len()).collect(),
                claims: !message.have.is_empty(),
            });
            between(relay);
        }
        relay.turn();
        assert_eq!(relay.outbox_len(connection), 0, "the rest awaits an answer");
        let message = Message::decode(&bytes).unwrap();
        let received = doc.sync().receive_sync_message(&mut state, message);
        received.unwrap();
    }
    panic!("not in step after {STEPS_MAX} messages: {parts:?}");
}

/// Checks what came, and in how many chunks per message.
#[track_caller]
fn check(doc: &mut AutoCommit, (mut found, parts): (AutoCommit, Vec<Part>), expect: &[usize]) {
    assert_eq!(found.get_heads(), doc.get_heads());
    assert_eq!(found.document().hydrate(None), doc.document().hydrate(None));
    let chunks: Vec<_> = parts.iter().map(|part| part.chunks.len()).collect();
    assert_eq!(chunks, expect);
    for (at, part) in parts.iter().enumerate() {
        let bytes: usize = part.chunks.iter().sum();
        let alone = part.chunks.len() == 1;
        assert!(bytes <= SYNC_BYTES_MAX || alone, "{bytes} bytes: {part:?}");
        let last = at + 1 == parts.len();
        assert_eq!(part.claims, last, "message {at} of {}", parts.len());
    }
}

#[test]
fn a_large_difference_goes_in_several_messages() {
    let mut doc = document(&[MIB; 20]);
    let mut relay = Relay::new();
    store(&mut relay, &mut doc);
    // A change is a little larger than its value.
    check(&mut doc, fetch(&mut relay, |_| {}), &[7, 7, 6]);
}

#[test]
fn a_change_above_the_limit_goes_alone() {
    let mut doc = document(&[100, SYNC_BYTES_MAX + MIB, 100, 100]);
    let mut relay = Relay::new();
    store(&mut relay, &mut doc);
    check(&mut doc, fetch(&mut relay, |_| {}), &[1, 1, 2]);
}

#[test]
fn a_snapshot_above_the_limit_goes_alone_and_the_tail_follows() {
    let mut doc = document(&[MIB; 10]);
    let mut relay = Relay::new();
    store(&mut relay, &mut doc);
    fold(&mut relay);
    check(&mut doc, fetch(&mut relay, |_| {}), &[1]);
    extend(&mut doc, &[MIB; 9]);
    store(&mut relay, &mut doc);
    check(&mut doc, fetch(&mut relay, |_| {}), &[1, 7, 2]);
}

/// The changes of the second part lose their rows after the first was sent.
#[test]
fn a_difference_goes_on_when_it_is_folded_between_two_messages() {
    let mut doc = document(&[MIB; 10]);
    let mut relay = Relay::new();
    store(&mut relay, &mut doc);
    let fold_once = |relay: &mut Relay| {
        if relay.stored_record().unwrap().generation == 0 {
            fold(relay);
        }
    };
    check(&mut doc, fetch(&mut relay, fold_once), &[7, 1]);
}

/// What a slow reader lacks is folded, and its sizes are not resident when it goes on reading.
#[test]
fn a_difference_that_reaches_below_the_resident_graph_is_bounded_too() {
    const VALUE_BYTES: usize = 500 * 1024;
    let mut doc = document(&[100]);
    let mut relay = Relay::new();
    store(&mut relay, &mut doc);
    let reader = ConnectionId(4);
    relay.connect(reader, Access::Write);
    relay.receive(reader, &sync_message(&doc.get_heads(), &[], &[]));
    relay.take(reader).unwrap();
    relay.set_room(reader, 0);
    extend(&mut doc, &[VALUE_BYTES; 2]);
    store(&mut relay, &mut doc);
    fold(&mut relay);
    relay.evict();
    extend(&mut doc, &[VALUE_BYTES; 20]);
    store(&mut relay, &mut doc);
    relay.set_room(reader, 1);
    let bytes = relay.take(reader).unwrap();
    let message = SyncMessage::decode(&bytes).unwrap();
    let bytes: usize = message.changes.iter().map(|chunk| chunk.len()).sum();
    assert!(message.have.is_empty() && message.changes.len() > 2);
    assert!(bytes <= SYNC_BYTES_MAX, "{bytes} bytes");
}

/// A change that has no row can only be sent within the snapshot, which brings the others, too.
#[test]
fn changes_that_are_asked_for_one_by_one_bring_the_snapshot_once() {
    let mut doc = document(&[100 * 1024; 30]);
    let mut relay = Relay::new();
    store(&mut relay, &mut doc);
    fold(&mut relay);
    let rows_from = relay.stored_record().unwrap().rows_from as usize;
    assert!(rows_from > 8);
    let asking = ConnectionId(4);
    relay.connect(asking, Access::Write);
    let heads = doc.get_heads();
    let changes = doc.get_changes(&[]);
    let mut chunks = Vec::new();
    for change in &changes[..rows_from] {
        let mut message = sync_message(&heads, &[change.hash()], &[]);
        // It takes document chunks.
        message.extend(Flags::default().encode());
        relay.receive(asking, &message);
        while let Some(bytes) = relay.take(asking) {
            let message = SyncMessage::decode(&bytes).unwrap();
            chunks.extend(message.changes.iter().map(|chunk| chunk.len()));
        }
    }
    let snapshot = relay.stored_record().unwrap().snapshot_bytes as usize;
    assert_eq!(chunks, [snapshot]);
}

/// A stock client that takes the relay to have the first change of its document: so it was told,
/// by a relay that had it and lost it.
fn misled(doc: &mut AutoCommit) -> State {
    let first = doc.get_changes(&[])[0].hash();
    let have = Have {
        last_sync: vec![first],
        bloom: BloomFilter::default(),
    };
    let told = Message {
        heads: vec![first],
        need: Vec::new(),
        have: vec![have],
        changes: ChunkList::empty(),
        flags: None,
        version: MessageVersion::V1,
    };
    let mut state = State::new();
    let mut sync = doc.sync();
    sync.receive_sync_message(&mut state, told).unwrap();
    state
}

/// Lets a client speak and hear until there is quiet; how often it was told to begin anew.
fn settle(relay: &mut Relay, doc: &mut AutoCommit, mut state: State, core: Core) -> usize {
    let connection = ConnectionId(3);
    relay.connect(connection, Access::Write);
    let mut resets = 0;
    for _ in 0..STEPS_MAX {
        if relay.jobs_len() > 0 {
            relay.finish_job(0);
        }
        if let Some(mut message) = doc.sync().generate_sync_message(&mut state) {
            if core == Core::Old {
                message.flags = None;
            }
            relay.receive(connection, &message.encode());
        }
        let Some(bytes) = relay.take(connection) else {
            if relay.jobs_len() == 0 {
                relay.disconnect(connection);
                return resets;
            }
            continue;
        };
        let heard = SyncMessage::decode(&bytes).unwrap();
        resets += usize::from(match core {
            Core::Current => heard.flags.is_some_and(|flags| flags.sync_reset),
            Core::Old => heard.heads.is_empty() && heard.need.is_empty(),
        });
        let mut message = Message::decode(&bytes).unwrap();
        if core == Core::Old {
            message.flags = None;
        }
        let received = doc.sync().receive_sync_message(&mut state, message);
        received.unwrap();
    }
    panic!("not quiet after {STEPS_MAX} steps");
}

/// More changes come than may wait for a dep, in number or in bytes. Those for which there was no
/// room are asked for again, and enter when the dep is here.
#[test]
fn orphans_for_which_there_was_no_room_arrive_in_the_end() {
    let many = vec![10; 1 + ORPHANS_MAX + 100];
    let large = vec![MIB; 1 + ORPHAN_BYTES_MAX / MIB + 4];
    for sizes in [many, large] {
        for core in [Core::Current, Core::Old] {
            let mut doc = document(&sizes);
            let state = misled(&mut doc);
            let mut relay = Relay::new();
            let resets = settle(&mut relay, &mut doc, state, core);
            assert_eq!(relay.stored().get_heads(), doc.get_heads(), "{core:?}");
            assert_eq!(relay.stored().hydrate(None), doc.document().hydrate(None));
            assert_eq!(relay.refused, []);
            assert_eq!(resets, 1, "{core:?}: once for all that did not fit");
        }
    }
}
