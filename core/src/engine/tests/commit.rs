//! What is stored, and when.

use automerge::ReadDoc;

use super::*;
use crate::storage::Storage;

#[test]
fn nothing_is_sent_before_it_is_stored() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.clients[ann].held = true;
    world.run(LONG);
    assert_eq!(world.relays[0].received, []);
    world.release(ann);
    world.run(MOMENT);
    let sent = world.relays[0].has(id);
    assert_eq!(sent, world.heads(ann, id));
    world.clients[ann].held = true;
    world.put(ann, id, "n", 1);
    assert_eq!(world.get(ann, id, "n"), Some(1), "shown at once");
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), sent);
    world.release(ann);
    world.run(MOMENT);
    assert_eq!(world.relays[0].has(id), world.heads(ann, id));
}

#[test]
fn editing_without_pause_does_not_hold_up_what_is_stored() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[ann].held = true;
    world.put(ann, id, "n", 1);
    world.run(MOMENT);
    let first = world.heads(ann, id);
    for n in 2..100 {
        // Made while the commit of the one before is on its way.
        world.put(ann, id, "n", n);
        let waiting = world.clients[ann]
            .waiting
            .pop()
            .expect("a commit on its way");
        world.commit(ann, &waiting);
        world.run(Duration::ZERO);
    }
    assert_ne!(world.relays[0].has(id), first);
    assert_ne!(world.relays[0].has(id), world.heads(ann, id));
    let relayed = world.relays[0].has(id)[0];
    let document = world.clients[ann].engine.document(&id).unwrap();
    let change = document.get_change_by_hash(&relayed).unwrap();
    assert_eq!(change.seq(), 99, "all but the last, which is not stored");
    assert_eq!(world.status(ann, id), Status::Saving);
}

#[test]
fn a_failed_commit_is_tried_again_and_not_sent_before() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    let before = world.relays[0].has(id);
    world.clients[ann].failing = 1;
    world.put(ann, id, "n", 1);
    world.run(MOMENT);
    assert_eq!(world.relays[0].has(id), before);
    world.run(STORE_AGAIN_AFTER);
    assert_eq!(world.relays[0].has(id), world.heads(ann, id));
    assert_eq!(world.status(ann, id), Status::Saved);
    let again = world.restart(ann);
    world.clients[again].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.get(again, id, "n"), Some(1));
}

#[test]
fn a_deleted_document_is_gone_from_storage() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[ann].engine.delete(&id);
    world.run(MOMENT);
    assert_eq!(world.clients[ann].storage.load(&id).unwrap(), None);
    assert!(world.clients[ann].engine.document(&id).is_none());
    assert_eq!(world.clients[ann].storage.outbox().unwrap(), []);
}
