//! Whoever has the same changes shows the same document: stock clients around a relay's history,
//! through everything that may come between them.
//!
//! `RECONVERGE_CONVERGENCE_SEED` repeats one run, `RECONVERGE_CONVERGENCE_SEEDS` sets how many
//! there are (300).

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use automerge::sync::{State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ObjType, ROOT, ReadDoc, ScalarValue};
use reconverge::history::{
    Claim, DocumentChunks, FOLD_BYTES_MIN, FOLD_OPS_MIN, History, RETAINED_BYTES, WHOLE_OPS_MAX,
};
use reconverge::id::{Access, ConnectionId, Space};
use reconverge::protocol::{ChangeHash, SyncMessage};
use reconverge_tests::Random;
use reconverge_tests::world::{Core, Failure, Kept, World, sync_message};

/// What happens in one run before everybody comes together.
const EVENTS: usize = 80;

/// Messages and jobs that a few clients may need to come to rest.
const STEPS_MAX: usize = 200;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn everybody_converges_whatever_comes_between_them() {
    let repeated = from_environment("RECONVERGE_CONVERGENCE_SEED");
    let seeds = from_environment("RECONVERGE_CONVERGENCE_SEEDS").unwrap_or(300);
    let seeds = repeated.map_or(0..seeds, |seed| seed..seed + 1);
    let (mut folds, mut uploads, mut graph_loads, mut unfoldings) = (0, 0, 0, 0);
    for seed in seeds {
        let run = std::panic::catch_unwind(|| run(seed));
        let Ok(world) = run else {
            panic!("failed with RECONVERGE_CONVERGENCE_SEED={seed}");
        };
        folds += world.relay.snapshots.0;
        uploads += world.relay.snapshots.1;
        graph_loads += world.relay.graph_loads;
        unfoldings += world.relay.unfoldings;
    }
    println!(
        "{folds} foldings, {uploads} uploads adopted, {graph_loads} graphs loaded, {unfoldings} unfoldings"
    );
    if repeated.is_none() {
        assert!(folds > 0 && uploads > 0 && graph_loads > 0 && unfoldings > 0);
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    world.relay.unfolded_max = 5;
    for _ in 0..2 + world.random.below(3) {
        match world.random.below(6) {
            0 => world.add_client(Core::Old, Access::Write),
            1 => world.add_client(Core::Current, Access::Read),
            _ => world.add_writer(),
        };
    }
    world.clients[0].access = Access::Write;
    for _ in 0..EVENTS {
        event(&mut world);
    }
    world.add_writer();
    for at in 0..world.clients.len() {
        world.connect(at);
        let connection = world.clients[at].connection.unwrap();
        world.relay.set_room(connection, 8);
    }
    world.settle(STEPS_MAX * world.clients.len());
    world.assert_converged();
    assert_eq!(world.relay.refused, [], "nothing is refused");
    world
}

fn event(world: &mut World) {
    let at = world.random.below(world.clients.len() as u64) as usize;
    match world.random.below(40) {
        0..12 => edit_some(world, at),
        12..24 => {
            for _ in 0..world.random.below(8) {
                world.step();
            }
        }
        24..28 => world.connect(at),
        28 => world.disconnect(at, Kept::State),
        29 => world.disconnect(at, Kept::Nothing),
        30 if world.random.below(2) == 0 => lose_document(world, at),
        31 => world.restart(),
        32 => world.relay.evict(),
        33 => world.relay.begin_fold(),
        34 => world.relay.fail_next_commit(Failure::Nothing),
        35 => world.relay.fail_next_commit(Failure::Written),
        36 => sync_directly(world, at),
        37 => {
            if let Some(connection) = world.clients[at].connection {
                let room = world.random.below(3) as usize;
                world.relay.set_room(connection, room);
            }
        }
        38 if world.random.below(4) == 0 => edit_much(world, at),
        _ => {
            world.step();
        }
    }
}

fn edit_some(world: &mut World, at: usize) {
    if world.clients[at].access != Access::Write {
        return;
    }
    for _ in 0..1 + world.random.below(3) {
        let mut random = Random::new(world.random.number());
        world.edit(at, |doc| edit(doc, &mut random));
    }
}

/// Enough that a document chunk is worth it, and that a filter over it errs.
fn edit_much(world: &mut World, at: usize) {
    if world.clients[at].access != Access::Write {
        return;
    }
    let mut random = Random::new(world.random.number());
    let client = &mut world.clients[at];
    for _ in 0..100 + random.below(200) {
        edit(&mut client.doc, &mut random);
        client.doc.commit();
    }
    world.edit(at, |doc| edit(doc, &mut random));
}

/// A client begins with nothing, under a new actor id; what it alone had is gone.
fn lose_document(world: &mut World, at: usize) {
    let kept = [Kept::State, Kept::Nothing][world.random.below(2) as usize];
    world.disconnect(at, kept);
    world.clients[at].doc = world.new_document();
}

/// Two clients reach each other without the relay.
fn sync_directly(world: &mut World, at: usize) {
    let other = (at + 1) % world.clients.len();
    // What a reader has from elsewhere, and whoever wrote it lost, nobody will ever store.
    if [at, other]
        .iter()
        .any(|at| world.clients[*at].access != Access::Write)
    {
        return;
    }
    let mut docs = [at, other].map(|at| std::mem::take(&mut world.clients[at].doc));
    let mut states = [State::new(), State::new()];
    for _ in 0..20 {
        for (from, to) in [(0, 1), (1, 0)] {
            let message = docs[from].sync().generate_sync_message(&mut states[from]);
            if let Some(message) = message {
                let received = docs[to]
                    .sync()
                    .receive_sync_message(&mut states[to], message);
                received.unwrap();
            }
        }
    }
    for (at, doc) in [at, other].into_iter().zip(docs) {
        world.clients[at].doc = doc;
        // As a stock client's document tells all its peers of what one of them brought.
        world.edit(at, |_| {});
    }
}

/// One change of some kind.
fn edit(doc: &mut AutoCommit, random: &mut Random) {
    let object = |doc: &mut AutoCommit, name: &str, kind| match doc.get(ROOT, name).unwrap() {
        Some((value, id)) if value.is_object() => id,
        _ => doc.put_object(ROOT, name, kind).unwrap(),
    };
    match random.below(5) {
        0 | 1 => {
            let text = object(doc, "text", ObjType::Text);
            let length = doc.length(&text) as u64;
            let at = random.below(length + 1) as usize;
            let deleted = random.below(3).min(length - at as u64) as isize;
            let typed = ["a", "bc", "ü", ""][random.below(4) as usize];
            doc.splice_text(&text, at, deleted, typed).unwrap();
        }
        2 => {
            let map = object(doc, "map", ObjType::Map);
            let key = format!("key {}", random.below(4));
            match random.below(4) {
                0 => {
                    let nested = doc.put_object(&map, key, ObjType::Map).unwrap();
                    doc.put(&nested, "n", random.below(100)).unwrap();
                }
                1 if doc.get(&map, &key).unwrap().is_some() => doc.delete(&map, key).unwrap(),
                _ => doc.put(&map, key, random.below(100)).unwrap(),
            }
        }
        3 => {
            let list = object(doc, "list", ObjType::List);
            let length = doc.length(&list) as u64;
            let at = random.below(length + 1) as usize;
            match random.below(4) {
                0 if at < length as usize => doc.delete(&list, at).unwrap(),
                1 if at < length as usize => doc.put(&list, at, random.below(9)).unwrap(),
                _ => doc.insert(&list, at, random.below(9)).unwrap(),
            }
        }
        _ => match doc.get(ROOT, "counter").unwrap() {
            Some((value, _)) if value.as_i64().is_some() => {
                doc.increment(ROOT, "counter", random.below(9) as i64)
                    .unwrap();
            }
            _ => doc.put(ROOT, "counter", ScalarValue::counter(0)).unwrap(),
        },
    }
}

fn put(world: &mut World, at: usize, key: &str, n: u64) {
    world.edit(at, |doc| doc.put(ROOT, key, n).unwrap());
}

/// Changes that nobody is told of yet.
fn put_quietly(world: &mut World, at: usize, key: &str, changes: u64) {
    for n in 0..changes {
        let doc = &mut world.clients[at].doc;
        doc.put(ROOT, key, n).unwrap();
        doc.commit();
    }
}

/// Both sides have over a hundred changes that the other lacks, and share some that neither knows
/// to be shared: then a Bloom filter says what is missing, and errs for one in a hundred.
#[test]
fn histories_that_diverged_meet_through_the_filter() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        let core = if seed % 3 == 0 {
            Core::Old
        } else {
            Core::Current
        };
        let (a, b) = (world.add_writer(), world.add_client(core, Access::Write));
        put_quietly(&mut world, a, "a", 150);
        sync_directly(&mut world, a);
        for round in 0..3 {
            put_quietly(&mut world, a, "a", 130 + 50 * round);
            put_quietly(&mut world, b, "b", 140 + 70 * round);
            if round == 1 {
                // They share more than the relay told either.
                sync_directly(&mut world, a);
                put_quietly(&mut world, a, "a", 120);
                put_quietly(&mut world, b, "b", 120);
            }
            world.connect(a);
            world.settle(60);
            if round == 2 {
                world.relay.begin_fold();
                world.settle(60);
                world.relay.evict();
            }
            world.connect(b);
            let steps = world.settle(60);
            println!("seed {seed}, round {round}: {steps} messages");
            world.assert_converged();
            world.disconnect(a, Kept::Nothing);
            world.disconnect(b, Kept::Nothing);
        }
        assert_eq!(world.relay.refused, []);
    }
}

/// More than keeps its rows when it is folded.
#[test]
fn a_fresh_client_gets_the_snapshot_and_what_came_after_it() {
    let mut world = World::new(1);
    let a = world.add_writer();
    world.connect(a);
    let mut large = Random::new(1);
    for _ in 0..300 {
        let bytes = large.noise(8000);
        world.edit(a, |doc| doc.put(ROOT, "large", bytes).unwrap());
        world.settle(10);
    }
    for _ in 0..2 {
        world.relay.begin_fold();
        world.settle(10);
        for n in 0..7 {
            put(&mut world, a, "n", n);
            world.settle(10);
        }
    }
    assert_eq!(world.relay.snapshots, (2, 0));
    assert!(world.relay.stored_record().unwrap().rows_from > 0);
    let loads = world.relay.graph_loads;
    world.relay.evict();
    let fresh = world.add_writer();
    world.connect(fresh);
    world.settle(20);
    world.assert_converged();
    let client = &world.clients[fresh];
    assert_eq!(client.chunks_received, 1 + 7, "the snapshot and the tail");
    assert!(client.received.0 <= 2 && client.sent.0 <= 3);
    assert_eq!(
        world.relay.graph_loads, loads,
        "first contact needs no graph"
    );
    // A core of before document chunks gets every change, and each once.
    let old = world.add_client(Core::Old, Access::Write);
    world.connect(old);
    world.settle(20);
    world.assert_converged();
    let len = world.relay.history().len() as usize;
    assert_eq!(world.clients[old].chunks_received, len);
}

/// Keystrokes are up to 90 times smaller in a snapshot.
#[test]
fn a_fresh_client_gets_the_snapshot_of_a_small_document_too() {
    let mut world = World::new(1);
    let a = world.add_writer();
    world.connect(a);
    for n in 0..1000 {
        put(&mut world, a, "n", n);
        world.settle(10);
    }
    world.relay.begin_fold();
    world.settle(10);
    let snapshot = world.relay.stored_record().unwrap().snapshot_bytes as usize;
    let fresh = world.add_writer();
    world.connect(fresh);
    world.settle(20);
    world.assert_converged();
    let received = world.clients[fresh].received.1;
    assert!(received < 2 * snapshot, "{received} bytes for {snapshot}");
}

/// Two writers who have the same 400 changes.
fn two_in_step() -> (World, usize, usize) {
    let mut world = World::new(2);
    let (a, b) = (world.add_writer(), world.add_writer());
    world.connect(a);
    world.connect(b);
    for n in 0..400 {
        put(&mut world, a, "n", n);
        world.settle(20);
    }
    (world, a, b)
}

#[test]
fn whoever_was_away_for_a_short_time_gets_only_what_it_missed() {
    for folded in [false, true] {
        for kept in [Kept::State, Kept::Nothing] {
            let (mut world, a, b) = two_in_step();
            world.disconnect(b, kept);
            for n in 0..5 {
                put(&mut world, a, "n", 1000 + n);
                world.settle(20);
            }
            if folded {
                world.relay.begin_fold();
                world.settle(20);
                world.relay.evict();
            }
            world.reset_counts();
            world.connect(b);
            world.settle(20);
            world.assert_converged();
            let client = &world.clients[b];
            assert_eq!(client.chunks_received, 5, "folded: {folded}, {kept:?}");
            assert!(client.received.1 < 5 * 150 + 200, "{:?}", client.received);
            assert!(client.sent.0 <= 2, "{:?}", client.sent);
            if kept == Kept::State {
                assert!(client.sent.1 < 300, "{:?}", client.sent);
            }
        }
    }
}

/// What was folded while it was away was folded again after the relay had let go of the document.
#[test]
fn whoever_was_away_while_it_was_folded_and_reopened_gets_only_what_it_missed() {
    let (mut world, a, b) = two_in_step();
    world.disconnect(b, Kept::State);
    for _ in 0..3 {
        for n in 0..5 {
            put(&mut world, a, "n", n);
            world.settle(20);
        }
        world.relay.begin_fold();
        world.settle(20);
        world.relay.evict();
    }
    assert_eq!(world.relay.snapshots, (3, 0));
    world.reset_counts();
    world.connect(b);
    world.settle(20);
    world.assert_converged();
    assert_eq!(world.clients[b].chunks_received, 15);
}

/// However often a document is folded and reopened: about as many bytes as should keep their rows
/// do.
#[test]
fn the_rows_that_foldings_keep_are_bounded() {
    const VALUE_BYTES: usize = 100 * 1024;
    let mut world = World::new(3);
    let a = world.add_writer();
    world.connect(a);
    let mut random = Random::new(3);
    for n in 0..60 {
        for _ in 0..=n % 3 {
            let bytes = random.noise(VALUE_BYTES);
            world.edit(a, |doc| doc.put(ROOT, "value", bytes).unwrap());
            world.settle(20);
        }
        world.relay.begin_fold();
        world.settle(20);
        if n % 2 == 0 {
            world.relay.evict();
        }
        let record = world.relay.stored_record().unwrap();
        let kept = (record.folded - record.rows_from) as usize * VALUE_BYTES;
        let all = record.folded as usize * VALUE_BYTES;
        let retained = RETAINED_BYTES as usize;
        assert!(kept >= (retained - VALUE_BYTES).min(all), "{kept} bytes");
        assert!(kept <= 2 * retained, "{kept} bytes");
    }
    let fresh = world.add_writer();
    world.connect(fresh);
    world.settle(20);
    world.assert_converged();
}

/// A document chunk covers what is stored but what came while it was unpacked: then only its
/// unknown changes are taken.
#[test]
fn two_uploads_of_one_document_with_different_tails_lose_nothing() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        let (a, b) = (world.add_writer(), world.add_writer());
        put_quietly(&mut world, a, "a", 200);
        sync_directly(&mut world, a);
        put_quietly(&mut world, a, "a", 3);
        put_quietly(&mut world, b, "b", 4);
        world.connect(a);
        world.connect(b);
        world.settle(60);
        world.assert_converged();
        assert!(world.relay.snapshots.1 >= 1, "a chunk was adopted");
        let fresh = world.add_writer();
        world.connect(fresh);
        world.settle(20);
        world.assert_converged();
    }
}

/// The acknowledgement is the relay's ordinary message; after it, nothing that happens to the
/// relay takes the change away.
#[test]
fn what_a_failed_commit_lost_is_asked_for_again() {
    for failure in [Failure::Nothing, Failure::Written] {
        for core in [Core::Current, Core::Old] {
            let mut world = World::new(3);
            let a = world.add_client(core, Access::Write);
            let b = world.add_writer();
            world.connect(a);
            world.connect(b);
            put(&mut world, a, "n", 1);
            world.settle(30);
            world.relay.fail_next_commit(failure);
            put(&mut world, a, "n", 2);
            let steps = world.settle(30);
            println!("{failure:?}, {core:?}: {steps} messages");
            world.assert_converged();
            put(&mut world, b, "n", 3);
            put(&mut world, a, "m", 4);
            world.settle(30);
            world.assert_converged();
        }
    }
}

/// Changes of one document, each made after the one before.
fn edits(count: u64) -> Vec<Change> {
    let mut doc = AutoCommit::new();
    for n in 0..count {
        doc.put(ROOT, "n", n).unwrap();
        doc.commit();
    }
    doc.get_changes(&[])
}

/// A message of a peer that names no heads.
fn say(history: &mut History, from: ConnectionId, chunks: &[&[u8]]) {
    let message = SyncMessage {
        heads: Vec::new(),
        need: Vec::new(),
        have: Vec::new(),
        changes: chunks.to_vec(),
        flags: None,
    };
    history
        .receive(from, &message, DocumentChunks::Report)
        .unwrap();
}

/// In one turn two changes come and a peer joins, and the commit fails; then there are fewer
/// changes than the peer was found to lack.
#[test]
fn what_a_failed_commit_took_away_no_peer_lacks() {
    let changes = edits(2);
    let bytes: Vec<_> = changes.iter().map(|change| change.raw_bytes()).collect();
    let (writer, fresh) = (ConnectionId(1), ConnectionId(2));
    let mut history = History::new(Space::default());
    history.join(writer, Access::Write);
    history.join(fresh, Access::Write);
    say(&mut history, writer, &bytes);
    say(&mut history, fresh, &[]);
    assert_eq!(history.take_unsaved().unwrap().1.changes.len(), 2);

    let peers = history.into_peers_after_failure();
    let mut history = History::new(Space::default());
    history.set_peers(peers);
    say(&mut history, writer, &bytes[..1]);
    assert_eq!(history.take_unsaved().unwrap().1.changes.len(), 1);
    history.committed();
    let sent: Vec<_> = std::iter::from_fn(|| history.poll_send(fresh)).collect();
    let changes: Vec<_> = sent.iter().flat_map(|out| out.changes.clone()).collect();
    assert_eq!((changes.len(), changes[0].clone()), (1, 0..1));
}

/// A peer that was not sent everything yet is asked for what a failed commit took away: what it is
/// said to have must not include what it still lacks.
#[test]
fn a_reset_claims_nothing_that_the_peer_lacks() {
    let changes = edits(1);
    let (hash, bytes) = (changes[0].hash(), changes[0].raw_bytes());
    let (writer, behind) = (ConnectionId(1), ConnectionId(2));
    let mut history = History::new(Space::default());
    history.join(writer, Access::Write);
    history.join(behind, Access::Write);
    say(&mut history, behind, &[]);
    let peers = history.into_peers_after_failure();
    let mut history = History::new(Space::default());
    history.set_peers(peers);
    history.ask_again();
    say(&mut history, writer, &[bytes]);
    assert!(history.take_unsaved().is_some());
    history.committed();
    let reset = history.poll_send(behind).unwrap();
    let Claim::Filter { last_sync, hashes } = reset.have else {
        panic!("a reset has a filter");
    };
    assert_eq!((last_sync, hashes), (vec![], vec![hash]));
}

/// A relay that lost a document to an older copy asks writers for it. Readers have to hear that it
/// is gone, or they go on to call it saved.
#[test]
fn a_reader_hears_that_its_relay_has_nothing() {
    for core in [Core::Current, Core::Old] {
        let mut world = World::new(1);
        let reader = world.add_client(core, Access::Read);
        world.edit(reader, |doc| doc.put(ROOT, "n", 1).unwrap());
        world.connect(reader);
        world.settle(8);
        assert_eq!(world.clients[reader].state.their_heads, Some(vec![]));
        assert!(world.relay.history().is_empty());
    }
}

/// Somebody sent the newest change without those below it, and nothing else. Who has them all names only
/// the newest.
#[test]
fn what_an_orphan_lacks_is_asked_of_everybody_who_names_it() {
    let changes = edits(3);
    let bytes: Vec<_> = changes.iter().map(|change| change.raw_bytes()).collect();
    let hashes: Vec<_> = changes.iter().map(Change::hash).collect();
    let mut history = History::new(Space::default());
    let (silent, honest) = (ConnectionId(1), ConnectionId(2));
    history.join(silent, Access::Write);
    say(&mut history, silent, &bytes[2..]);
    history.join(honest, Access::Write);
    let names = |chunks: &[&[u8]]| sync_message(&hashes[2..], &[], chunks);
    let mut hear = |message: &[u8]| {
        let message = SyncMessage::decode(message).unwrap();
        history
            .receive(honest, &message, DocumentChunks::Report)
            .unwrap();
        drop(history.take_unsaved());
        history.committed();
        history.poll_send(honest).unwrap().need
    };
    assert_eq!(hear(&names(&[])), [hashes[1]]);
    assert_eq!(hear(&names(&bytes[1..2])), [hashes[0]]);
    assert_eq!(hear(&names(&bytes[..1])), []);
    assert_eq!(history.len(), 3);
}

/// What does not fit into one message goes in parts, each after the answer to the one before. Two
/// peers may have got the same from elsewhere meanwhile, so that a part has nothing new.
#[test]
fn a_part_with_nothing_new_is_answered_too() {
    let changes = edits(3);
    let bytes: Vec<_> = changes.iter().map(|change| change.raw_bytes()).collect();
    let (writer, relay) = (ConnectionId(1), ConnectionId(2));
    let mut history = History::new(Space::default());
    history.join(writer, Access::Write);
    say(&mut history, writer, &bytes[..2]);
    drop(history.take_unsaved());
    history.committed();
    history.join(relay, Access::Write);
    for part in [&bytes[..1], &bytes[1..2]] {
        let message = sync_message(&[changes[2].hash()], &[], part);
        let message = SyncMessage::decode(&message).unwrap();
        history
            .receive(relay, &message, DocumentChunks::Report)
            .unwrap();
        assert!(history.poll_send(relay).is_some());
        assert_eq!(history.poll_send(relay), None);
    }
}

/// A stock client shows what it has of a document as soon as it has some of it. So who has nothing is
/// sent all of it at once, far beyond what one message of a difference carries.
#[test]
fn first_contact_is_whole() {
    const CHANGES: u32 = 40;
    let (writer, fresh, behind) = (ConnectionId(1), ConnectionId(2), ConnectionId(3));
    let mut history = History::new(Space::default());
    history.join(writer, Access::Write);
    let mut doc = AutoCommit::new();
    for n in 0..CHANGES {
        let noise = Random::new(u64::from(n)).noise(1024 * 1024);
        doc.put(ROOT, format!("key {n}"), noise).unwrap();
        doc.commit();
        let change = doc.get_last_local_change().unwrap();
        say(&mut history, writer, &[change.raw_bytes()]);
        drop(history.take_unsaved());
        history.committed();
    }
    history.join(fresh, Access::Write);
    say(&mut history, fresh, &[]);
    let sent = history.poll_send(fresh).unwrap();
    assert_eq!(sent.changes, std::slice::from_ref(&(0..CHANGES)));
    assert_eq!(sent.have, Claim::Heads, "nothing follows");
    // Who has some of it, and shows it, gets the rest in parts.
    history.join(behind, Access::Write);
    let first = doc.get_changes(&[])[0].hash();
    let message = sync_message(&[first], &[], &[]);
    let message = SyncMessage::decode(&message).unwrap();
    history
        .receive(behind, &message, DocumentChunks::Report)
        .unwrap();
    let sent = history.poll_send(behind).unwrap();
    assert_eq!(sent.changes, std::slice::from_ref(&(1..8)));
    assert_eq!(sent.have, Claim::Nothing);
}

/// A change of somebody who wrote without hearing of anybody, or on top of some changes.
fn forged(actor: u32, deps: &[ChangeHash], start_op: u64) -> (ChangeHash, Vec<u8>) {
    let mut doc = AutoCommit::new().with_actor(actor.to_be_bytes().as_slice().into());
    doc.put(ROOT, "answer", actor).unwrap();
    doc.commit();
    let mut change = doc.get_last_local_change().unwrap().decode();
    change.deps = deps.to_vec();
    change.start_op = start_op.try_into().unwrap();
    let change = Change::from(change);
    (change.hash(), change.raw_bytes().to_vec())
}

/// A poll: everybody answers from the same old state. Then somebody merges all of it, and answers
/// come in any order beside it.
#[test]
fn a_poll_of_thousands_of_people_goes_on() {
    const PEOPLE: u32 = 20_000;
    let (writer, reader) = (ConnectionId(1), ConnectionId(2));
    let (first, question) = forged(u32::MAX, &[], 1);
    let answers: Vec<_> = (0..PEOPLE).map(|n| forged(n, &[first], 2)).collect();
    let mut heads: Vec<_> = answers.iter().map(|(hash, _)| *hash).collect();
    heads.sort_unstable();
    let (merge, merging) = forged(u32::MAX - 1, &heads, 3);
    for merged_first in [false, true] {
        let mut history = History::new(Space::default());
        history.join(writer, Access::Write);
        history.join(reader, Access::Write);
        say(&mut history, writer, &[&question]);
        if merged_first {
            // It waits for one after the other.
            say(&mut history, writer, &[&merging]);
        }
        for (_, answer) in &answers {
            say(&mut history, writer, &[answer]);
        }
        drop(history.take_unsaved());
        history.committed();
        if !merged_first {
            assert_eq!(**history.durable_heads(), *heads);
            let message = sync_message(&heads, &[], &[&merging]);
            let message = SyncMessage::decode(&message).unwrap();
            let received = history
                .receive(writer, &message, DocumentChunks::Report)
                .unwrap();
            assert_eq!((received.admitted, received.refused.len()), (1, 0));
            drop(history.take_unsaved());
            history.committed();
        }
        assert_eq!(**history.durable_heads(), [merge]);
        say(&mut history, reader, &[]);
        let sent = history.poll_send(reader).unwrap();
        assert_eq!(sent.changes, std::slice::from_ref(&(0..PEOPLE + 2)));
        // What is stored is read again.
        let record = history.record().clone();
        assert_eq!(record.folded, 0);
    }
}

/// A few bytes may be many operations, which cost a client that gets them as changes a thousand bytes
/// each. So they are folded like many bytes.
#[test]
fn many_operations_are_folded_like_many_bytes() {
    const OPS: u64 = 20_000;
    let (writer, fresh) = (ConnectionId(1), ConnectionId(2));
    let mut history = History::new(Space::default());
    history.join(writer, Access::Write);
    let mut doc = AutoCommit::new();
    let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
    let (mut ops, mut bytes) = (0, 0);
    while ops <= WHOLE_OPS_MAX {
        let len = doc.length(&list);
        for n in 0..OPS as usize {
            doc.insert(&list, len + n, ()).unwrap();
        }
        doc.commit();
        let change = doc.get_last_local_change().unwrap();
        say(&mut history, writer, &[change.raw_bytes()]);
        drop(history.take_unsaved());
        history.committed();
        ops += OPS;
        bytes += change.raw_bytes().len() as u64;
        assert_eq!(history.should_fold(), ops >= FOLD_OPS_MIN, "{ops}");
        assert_eq!(history.may_fold(), ops >= FOLD_OPS_MIN, "{ops}");
    }
    assert!(bytes < FOLD_BYTES_MIN, "{bytes} bytes are no reason");
    history.join(fresh, Access::Write);
    say(&mut history, fresh, &[]);
    assert!(history.is_better_folded(fresh));
}
