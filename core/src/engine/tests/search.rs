//! Looking for documents.

use super::*;
use crate::storage::Storage;

#[test]
fn what_nobody_has_is_unavailable_until_it_appears() {
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = DocumentId::new(&[99; 16]).unwrap();
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.clients[bob].found, [(id, false)]);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(
        world.clients[bob].found.len(),
        2,
        "asked again, answered again"
    );
    let mut replica = Replica::new(world.actor());
    replica.begin(0);
    let key = world.clients[ann].storage.new_key();
    world.clients[ann].engine.create(id, key, replica);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.clients[bob].found.last(), Some(&(id, true)));
    assert_eq!(world.heads(bob, id), world.heads(ann, id));
}

#[test]
fn a_search_without_a_relay_ends() {
    let mut world = World::new(1);
    world.relays[0].down = true;
    let ann = world.join(&storage());
    let id = DocumentId::new(&[99; 16]).unwrap();
    world.clients[ann].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.clients[ann].found, [(id, false)]);
}
