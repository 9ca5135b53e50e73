//! Changes under a reused actor.

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId, ObjType, ReadDoc, ScalarValue};

use super::*;
use crate::storage::Storage;

/// A process with a document is copied while it runs: both copies write on under one actor.
fn copied(world: &mut World, relays: usize) -> (usize, usize, DocumentId, ObjId) {
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let (actor, id) = (world.actor(), DocumentId::new(&[77; 16]).unwrap());
    let mut text = ROOT;
    for client in [ann, bob] {
        let mut replica = Replica::new(actor.clone());
        let begin = |tx: &mut Transaction<'_>| {
            tx.put(ROOT, "n", ScalarValue::counter(0))?;
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "begun").map(|()| text)
        };
        text = replica.change(ChangeOptions::default(), begin).unwrap().0;
        let client = &mut world.clients[client];
        client.engine.create(id, client.storage.new_key(), replica);
    }
    world.run(LONG);
    assert_eq!(world.heads(ann, id), world.heads(bob, id));
    (0..relays).for_each(|relay| assert_eq!(world.relays[relay].has(id), world.heads(ann, id)));
    (ann, bob, id, text)
}

fn write(world: &mut World, client: usize, id: DocumentId, text: &ObjId, word: &str) {
    let edit = |tx: &mut Transaction<'_>| -> Result<(), AutomergeError> {
        tx.increment(ROOT, "n", 1)?;
        let end = tx.length(text);
        tx.splice_text(text, end, 0, word)?;
        tx.mark(
            text,
            Mark::new(word.into(), true, end, end + 1),
            ExpandMark::None,
        )
    };
    let changed = world.clients[client]
        .engine
        .change(&id, ChangeOptions::default(), edit);
    changed.expect("ready").expect("valid");
}

fn text_of(world: &World, client: usize, id: DocumentId) -> (String, i64, usize) {
    let document = world.clients[client].engine.document(&id).unwrap();
    let (_, text) = document.get(ROOT, "text").unwrap().unwrap();
    let (n, _) = document.get(ROOT, "n").unwrap().unwrap();
    let marks = document.marks(&text).unwrap().len();
    (document.text(&text).unwrap(), n.as_i64().unwrap(), marks)
}

/// Ann's change is the one that the relay has; Bob's is made again.
#[test]
fn a_change_under_a_reused_actor_is_made_again_and_not_lost() {
    for mute in [false, true] {
        let mut world = World::new(1);
        let (ann, bob, id, text) = copied(&mut world, 1);
        world.relays[0].mute = mute;
        world.cut(0);
        write(&mut world, ann, id, &text, " ann");
        write(&mut world, bob, id, &text, " bob");
        world.run(MOMENT);
        write(&mut world, bob, id, &text, " bob2");
        world.run(MOMENT);
        world.relays[0].down = false;
        world.relays[0].only = Some(ann);
        world.run(LONG);
        world.relays[0].only = None;
        world.run(LONG);
        let (said, n, marks) = text_of(&world, bob, id);
        assert_eq!(n, 3, "mute: {mute}");
        assert_eq!(marks, 3);
        for part in ["begun", " ann", " bob", " bob2"] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(text_of(&world, ann, id), (said, n, marks));
        for client in [ann, bob] {
            assert_eq!(world.status(client, id), Status::Saved);
            assert_eq!(world.heads(client, id), world.relays[0].has(id));
            assert_eq!(world.clients[client].storage.outbox().unwrap(), []);
        }
        // Both write on, and what was made again is what is stored.
        for client in [ann, bob] {
            world.put(client, id, "on", 1);
            world.run(LONG);
        }
        let heads = world.heads(bob, id);
        let again = world.restart(bob);
        world.clients[again].engine.find(id);
        world.run(LONG);
        assert_eq!(world.heads(again, id), heads);
        assert_eq!(world.heads(ann, id), heads);
        assert_eq!(world.status(again, id), Status::Saved);
    }
}

/// Nothing of Bob's document stays as it was, and what is made again is all that is stored.
#[test]
fn a_first_change_under_a_reused_actor_is_made_again_and_stored() {
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let (actor, id) = (world.actor(), DocumentId::new(&[77; 16]).unwrap());
    world.cut(0);
    for (client, key) in [(ann, "ann"), (bob, "bob")] {
        let mut replica = Replica::new(actor.clone());
        let begin = |tx: &mut Transaction<'_>| tx.put(ROOT, key, 1);
        replica.change(ChangeOptions::default(), begin).unwrap();
        let client = &mut world.clients[client];
        client.engine.create(id, client.storage.new_key(), replica);
    }
    world.run(MOMENT);
    world.relays[0].down = false;
    world.relays[0].only = Some(ann);
    world.run(LONG);
    world.relays[0].only = None;
    world.run(LONG);
    assert_eq!(world.status(bob, id), Status::Saved);
    let stored = world.clients[bob].storage.load(&id).unwrap();
    assert!(stored.is_some(), "not even a record");
    for client in [ann, bob] {
        assert_eq!(world.get(client, id, "ann"), Some(1));
        assert_eq!(world.get(client, id, "bob"), Some(1));
    }
}

#[test]
fn a_crash_before_what_is_made_again_is_stored_changes_nothing() {
    let mut heads = Vec::new();
    for crash in [false, true] {
        let mut world = World::new(1);
        let (ann, mut bob, id, text) = copied(&mut world, 1);
        world.cut(0);
        write(&mut world, ann, id, &text, " ann");
        write(&mut world, bob, id, &text, " bob");
        world.run(MOMENT);
        world.relays[0].down = false;
        world.relays[0].only = Some(ann);
        world.run(LONG);
        world.relays[0].only = None;
        if crash {
            world.clients[bob].held = true;
            world.run(LONG);
            assert!(!world.clients[bob].waiting.is_empty(), "made again");
            bob = world.restart(bob);
            // Nobody opens it.
            world.run(LONG);
            assert_eq!(world.clients[bob].storage.outbox().unwrap(), []);
            world.clients[bob].engine.find(id);
        }
        world.run(LONG);
        assert_eq!(world.status(bob, id), Status::Saved);
        assert_eq!(world.heads(bob, id), world.relays[0].has(id));
        assert_eq!(text_of(&world, ann, id), text_of(&world, bob, id));
        heads.push(world.heads(bob, id));
    }
    assert_eq!(
        heads[0], heads[1],
        "made again twice, it is the same change"
    );
}

#[test]
fn what_another_relay_has_is_not_made_again() {
    let mut world = World::new(2);
    let (ann, bob, id, text) = copied(&mut world, 2);
    world.cut(0);
    world.cut(1);
    write(&mut world, ann, id, &text, " ann");
    write(&mut world, bob, id, &text, " bob");
    for (relay, only) in [(0, ann), (1, bob)] {
        world.relays[relay].down = false;
        world.relays[relay].only = Some(only);
    }
    world.run(LONG);
    let heads = [ann, bob].map(|client| world.heads(client, id));
    world.relays.iter_mut().for_each(|relay| relay.only = None);
    world.run(LONG);
    for (client, heads) in [ann, bob].into_iter().zip(heads) {
        assert_eq!(world.heads(client, id), heads);
        assert_eq!(world.status(client, id), Status::Saved, "one relay has it");
    }
    let said: usize = world.relays.iter().map(|relay| relay.received.len()).sum();
    world.run(LONG);
    let after: usize = world.relays.iter().map(|relay| relay.received.len()).sum();
    assert_eq!(after, said, "they fall silent");
}

#[test]
fn a_relay_that_refuses_again_what_was_made_again_is_believed() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    world.relays[0].claims_reuse = true;
    let id = world.create(ann);
    world.run(LONG);
    assert!(matches!(world.status(ann, id), Status::Refused(_)));
    let messages = world.relays[0].received.len();
    assert!(messages <= 4 * (1 + REBASES_MAX as usize), "{messages}");
    world.run(LONG);
    assert_eq!(world.relays[0].received.len(), messages);
    world.cut(0);
    world.relays[0].claims_reuse = false;
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
}
