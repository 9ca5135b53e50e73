//! Documents that nobody uses.

use super::*;
use crate::storage::Storage;

#[test]
fn what_nobody_uses_leaves_memory_and_stays_in_sync() {
    let mut world = World::new(1);
    let (ann, bob, id) = released(&mut world);
    world.put(ann, id, "n", 2);
    world.run(MOMENT);
    let stored = world.clients[bob].storage.load(&id).unwrap().unwrap();
    let changes = stored.rows.iter().flat_map(|row| &row.changes);
    let last = changes.last().unwrap().hash;
    assert_eq!([last], *world.heads(ann, id), "it is stored");
    world.run(LONG);
    assert!(world.clients[bob].engine.is_released(&id), "again");
    // Used again, on the same connection, of which nothing is heard meanwhile.
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.get(bob, id, "n"), Some(2));
    world.put(bob, id, "n", 3);
    assert_eq!(world.status(bob, id), Status::Saving);
    world.run(MOMENT);
    assert_eq!(world.status(bob, id), Status::Saved);
    assert_eq!(world.get(ann, id, "n"), Some(3));
    world.run(LONG);
    assert!(!world.clients[bob].engine.is_released(&id), "it is used");
    world.clients[bob].engine.delete(&id);
    world.run(MOMENT);
    assert_eq!(world.clients[bob].storage.load(&id).unwrap(), None);
}

#[test]
fn a_released_document_greets_a_relay_that_comes_back() {
    let mut world = World::new(1);
    let (ann, bob, id) = released(&mut world);
    world.cut(0);
    world.relays[0].down = false;
    world.relays[0].received.clear();
    world.run(Duration::from_secs(40));
    assert!(world.clients[bob].engine.is_released(&id));
    assert!(world.relays[0].received.iter().all(|bytes| *bytes < 128));
    assert_eq!(world.relays[0].received.len(), 2, "both, once");
    world.put(ann, id, "n", 2);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(Duration::ZERO);
    assert_eq!(world.get(bob, id, "n"), Some(2), "it came by itself");
    // And with what was written while it was away.
    world.clients[bob].engine.let_go(&id);
    world.run(LONG);
    assert!(world.clients[bob].engine.is_released(&id));
    world.cut(0);
    world.put(ann, id, "n", 3);
    world.relays[0].down = false;
    world.run(LONG);
    world.cut(0);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.get(bob, id, "n"), Some(3));
    assert_eq!(world.heads(bob, id), world.heads(ann, id));
}

#[test]
fn a_released_document_is_given_to_a_relay_that_lost_it() {
    let mut world = World::new(1);
    let (ann, bob, id) = released(&mut world);
    let heads = world.heads(ann, id);
    for lost_all in [false, true] {
        world.cut(0);
        if lost_all {
            world.relays[0].documents.clear();
        } else {
            world.relays[0].restore(id, 1);
        }
        // Ann stays away.
        world.relays[0].only = Some(bob);
        world.relays[0].down = false;
        world.run(LONG);
        assert_eq!(world.relays[0].has(id), heads, "lost all: {lost_all}");
        assert_eq!(world.status(bob, id), Status::Saved);
        assert!(world.clients[bob].engine.is_released(&id));
    }
}

/// In a large document they take a second, in which all others would wait.
#[test]
fn contents_are_built_by_whoever_reads_and_not_by_the_engine() {
    for away in [true, false] {
        let mut world = World::new(1);
        world.relays[0].down = true;
        let ann = world.join(&storage());
        let id = world.create(ann);
        world.put(ann, id, "n", 1);
        world.run(MOMENT);
        // The outbox brings it in without contents.
        world.relays[0].down = away;
        let ann = world.restart(ann);
        world.run(LONG / 3);
        assert_eq!(world.clients[ann].loads, [false]);
        world.clients[ann].engine.find(id);
        world.run(Duration::ZERO);
        assert_eq!(world.clients[ann].loads, [false, true]);
        assert_eq!(world.get(ann, id, "n"), Some(1));
        world.put(ann, id, "n", 2);
        world.relays[0].down = false;
        world.run(LONG);
        assert_eq!(world.status(ann, id), Status::Saved);
        assert_eq!(world.relays[0].has(id), world.heads(ann, id));
        assert_eq!(world.clients[ann].storage.outbox().unwrap(), []);
    }
}

#[test]
fn what_some_relay_lacks_stays_in_memory() {
    let mut world = World::new(2);
    let ann = world.join(&storage());
    world.cut(1);
    let id = world.create(ann);
    world.clients[ann].engine.let_go(&id);
    world.run(LONG);
    assert!(!world.clients[ann].engine.is_released(&id));
    world.relays[1].down = false;
    world.run(LONG);
    assert!(world.clients[ann].engine.is_released(&id));
    // What the outbox brought in leaves too.
    world.relays.push(TestRelay::default());
    let again = world.restart(ann);
    world.run(MOMENT);
    assert_eq!(world.relays[2].has(id), world.relays[0].has(id));
    world.run(LONG);
    assert!(world.clients[again].engine.is_released(&id));
}
