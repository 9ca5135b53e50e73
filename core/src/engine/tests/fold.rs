//! Whole documents, folded histories, and documents that are checked.

use automerge::transaction::Transactable;
use automerge::{Automerge, AutomergeError};

use super::relay::refused;
use super::*;
use crate::leb::push_unsigned;
use crate::protocol::{SyncEnvelope, code};
use crate::storage::Storage;

/// A relay says that something makes no document: the client looks for itself, once, and goes on
/// if it finds nothing.
#[test]
fn a_document_that_a_relay_calls_unsound_is_checked() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    world.relays[0].refuses = Some((code::UNSOUND, "says who"));
    let id = world.create(ann);
    world.run(LONG);
    let status = Status::Refused(Reason::new(code::UNSOUND, "says who"));
    assert_eq!(world.status(ann, id), status);
    assert_eq!(world.clients[ann].loads.len(), 1, "read again, once");
    // An edit of the same moment is not lost by that.
    let frame = refused(id, world.heads(ann, id), code::UNSOUND, "says another");
    let connection = *world.clients[ann].lines.keys().next().unwrap();
    world.put(ann, id, "same", 1);
    let input = Input::Frame(connection, frame.into());
    world.to_clients.push_back((ann, input));
    world.run(LONG);
    assert_eq!(world.get(ann, id, "same"), Some(1));
    assert_eq!(world.clients[ann].loads.len(), 3, "for both words once");
    world.put(ann, id, "n", 1);
    world.run(LONG);
    assert_eq!(world.get(ann, id, "n"), Some(1));
    let loads = world.clients[ann].loads.len();
    world.relays[0].refuses = None;
    world.cut(0);
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
    assert_eq!(world.relays[0].has(id), world.heads(ann, id));
    assert_eq!(world.clients[ann].loads.len(), loads);
}

#[test]
fn an_imported_document_arrives_whole_and_is_read_back() {
    let mut imported = Automerge::new();
    for n in 0..200 {
        let put = |tx: &mut Transaction<'_>| tx.put(ROOT, "n", n);
        imported.transact::<_, _, AutomergeError>(put).unwrap();
    }
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let actor = world.actor();
    let replica = Replica::import(&imported.save(), actor).unwrap();
    let id = world.insert(ann, replica);
    world.put(ann, id, "after", 1);
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
    world.clients[bob].engine.find(id);
    world.run(LONG);
    assert_eq!(world.heads(bob, id), world.heads(ann, id));
    let again = world.restart(ann);
    world.cut(0);
    world.clients[again].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.get(again, id, "n"), Some(199));
    assert_eq!(world.get(again, id, "after"), Some(1));
}

#[test]
fn a_long_history_is_folded_and_goes_on() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    // The document is in memory, and is not built once more of what was stored.
    world.clients[ann].folds_blindly = true;
    let id = world.create(ann);
    for n in 0..3000 {
        world.put(ann, id, &format!("{}", n % 50), n);
        if n % 100 == 0 {
            world.run(MOMENT);
        }
    }
    world.run(LONG);
    let stored = world.clients[ann].storage.load(&id).unwrap().unwrap();
    assert!(stored.record.generation > 0, "it was folded");
    let heads = world.heads(ann, id);
    assert_eq!(world.relays[0].has(id), heads);
    let again = world.restart(ann);
    world.clients[again].engine.find(id);
    world.run(LONG);
    assert_eq!(world.heads(again, id), heads);
    // A relay that lost everything is sent snapshot and tail.
    world.cut(0);
    world.relays[0].documents.clear();
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), heads);
}

#[test]
fn a_change_made_on_top_of_what_was_folded_is_taken() {
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = world.create(ann);
    world.put(ann, id, "n", 0);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(LONG);
    world.cut(0);
    for n in 0..3000 {
        world.put(ann, id, &format!("{}", n % 50), n);
        if n % 100 == 0 {
            world.run(MOMENT);
        }
    }
    world.put(bob, id, "bob", 1);
    world.run(LONG);
    let stored = world.clients[ann].storage.load(&id).unwrap().unwrap();
    assert!(stored.record.folded > 1000, "the fork lies below the fold");
    // Started again, ann's client has none of the folded graph in memory, and cannot read it at first.
    let again = world.restart(ann);
    world.clients[again].engine.find(id);
    world.run(MOMENT);
    world.clients[again].unreadable = 2;
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.clients[again].unreadable, 0);
    assert_eq!(world.get(again, id, "bob"), Some(1));
    assert_eq!(world.heads(again, id), world.heads(bob, id));
    assert_eq!(world.heads(again, id), world.relays[0].has(id));
    assert_eq!(world.status(again, id), Status::Saved);
}

#[test]
fn the_graph_of_an_adopted_chunk_is_read_when_it_is_stored() {
    let mut theirs = Automerge::new();
    let put = |tx: &mut Transaction<'_>| tx.put(ROOT, "n", 1);
    theirs.transact::<_, _, AutomergeError>(put).unwrap();
    let mut fork = theirs.fork();
    let put = |tx: &mut Transaction<'_>| tx.put(ROOT, "fork", 2);
    fork.transact::<_, _, AutomergeError>(put).unwrap();
    let forked = fork.get_last_local_change().unwrap();
    for n in 0..5 {
        let put = |tx: &mut Transaction<'_>| tx.put(ROOT, "n", n);
        theirs.transact::<_, _, AutomergeError>(put).unwrap();
    }
    let mut world = World::new(1);
    let bob = world.join(&storage());
    let id = DocumentId::new(&[200; 16]).unwrap();
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    // Both come before the first one is stored, and the second reaches into it.
    let connection = *world.clients[bob].lines.keys().next().unwrap();
    for (heads, chunk) in [
        (theirs.get_heads(), theirs.save()),
        (vec![forked.hash()], forked.raw_bytes().to_vec()),
    ] {
        let mut data = protocol::encode_sync(protocol::Version::V1, &heads, &[], None, 1);
        push_unsigned(&mut data, chunk.len() as u64);
        data.extend(chunk);
        let frame = protocol::encode(&Message::Sync(SyncEnvelope {
            sender: "relay",
            target: "",
            document: id.to_string().into(),
            data: &data,
            request: false,
        }));
        let input = Input::Frame(connection, frame.into());
        world.to_clients.push_back((bob, input));
    }
    world.run(LONG);
    assert_eq!(world.clients[bob].engine.failure(&id), None);
    assert_eq!(world.get(bob, id, "n"), Some(4));
    assert_eq!(world.get(bob, id, "fork"), Some(2));
}
