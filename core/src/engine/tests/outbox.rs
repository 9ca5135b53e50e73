//! What some relay lacks is sent, opened or not.

use super::*;
use crate::storage::Storage;

/// A client with a document that its relay has not heard of, because it is down.
fn unsent(world: &mut World) -> (usize, DocumentId) {
    world.relays[0].down = true;
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.put(ann, id, "n", 7);
    world.run(MOMENT);
    (ann, id)
}

#[test]
fn what_was_not_acknowledged_is_sent_after_a_restart_though_nobody_opens_it() {
    let mut world = World::new(1);
    let (ann, id) = unsent(&mut world);
    assert_eq!(world.status(ann, id), Status::Offline);
    assert_eq!(world.clients[ann].storage.outbox().unwrap(), [id]);
    let heads = world.heads(ann, id);
    let again = world.restart(ann);
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), heads);
    assert_eq!(world.clients[again].storage.outbox().unwrap(), []);
    assert!(world.clients[again].found.is_empty(), "nobody asked for it");
    // The third run has nothing to send.
    world.relays[0].received.clear();
    world.restart(again);
    world.run(LONG);
    assert_eq!(world.relays[0].received, []);
}

#[test]
fn what_cannot_be_read_for_a_moment_is_read_when_it_is_asked_for_again() {
    let mut world = World::new(0);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.put(ann, id, "n", 7);
    world.run(MOMENT);
    let again = world.restart(ann);
    world.clients[again].unreadable = 1;
    for expected in [false, true] {
        world.clients[again].engine.find(id);
        world.run(MOMENT);
        let found = world.clients[again].found.pop();
        assert_eq!(found, Some((id, expected)));
    }
    assert_eq!(world.get(again, id, "n"), Some(7));
    world.put(again, id, "n", 8);
    world.run(MOMENT);
    assert!(world.clients[again].engine.is_stored(&id));
}

#[test]
fn what_cannot_be_read_for_a_moment_is_sent_though_nobody_asks_for_it() {
    let mut world = World::new(1);
    let (ann, id) = unsent(&mut world);
    let heads = world.heads(ann, id);
    let again = world.restart(ann);
    world.clients[again].unreadable = 3;
    world.relays[0].down = false;
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), heads);
    assert_eq!(world.clients[again].storage.outbox().unwrap(), []);
}

#[test]
fn a_relay_that_is_added_gets_everything_though_nobody_opens_it() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let ids = [(); 40].map(|()| world.create(ann));
    world.run(LONG);
    assert_eq!(world.clients[ann].storage.outbox().unwrap(), []);
    world.relays.push(TestRelay {
        down: true,
        ..TestRelay::default()
    });
    let second = world.restart(ann);
    world.run(LONG);
    // It was away the first time.
    world.relays[1].down = false;
    let third = world.restart(second);
    world.run(LONG);
    for id in ids {
        assert_eq!(world.relays[1].has(id), world.relays[0].has(id));
    }
    assert!(world.clients[third].found.is_empty(), "nobody asked");
    assert_eq!(world.clients[third].storage.outbox().unwrap(), []);
    // Without it for a while, with nothing new: the outbox is soon empty again.
    world.cut(1);
    let mut away = world.relays.pop().unwrap();
    away.down = false;
    let fourth = world.restart(third);
    world.run(LONG);
    world.relays.push(away);
    let fifth = world.restart(fourth);
    assert_eq!(world.clients[fifth].storage.outbox().unwrap().len(), 40);
    world.run(LONG);
    assert_eq!(world.clients[fifth].storage.outbox().unwrap(), []);
}

/// It left the stored outbox with everything else of it, so it must be put there anew.
#[test]
fn a_document_that_was_deleted_and_found_again_enters_the_outbox() {
    let mut world = World::new(1);
    let storage = storage();
    let ann = world.join(&storage);
    let id = world.create(ann);
    world.put(ann, id, "n", 1);
    world.run(MOMENT);
    world.cut(0);
    world.put(ann, id, "n", 2);
    world.run(MOMENT);
    assert_eq!(storage.outbox().unwrap(), [id]);
    // The outbox of the start names it, until it is deleted.
    let ann = world.restart(ann);
    world.run(MOMENT);
    world.clients[ann].engine.delete(&id);
    world.run(MOMENT);
    assert_eq!(storage.outbox().unwrap(), []);
    world.relays[0].down = false;
    world.run(LONG);
    world.clients[ann].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.get(ann, id, "n"), Some(1));
    assert_eq!(world.status(ann, id), Status::Saved);
    world.cut(0);
    world.put(ann, id, "n", 3);
    world.run(MOMENT);
    assert_eq!(storage.outbox().unwrap(), [id]);
}
