//! Presence.

use super::*;

#[test]
fn presence_by_two_relays_is_heard_once_and_not_by_its_author() {
    let mut world = World::new(2);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    for n in 0..3 {
        world.clients[ann].engine.broadcast(&id, &[n]);
    }
    world.run(MOMENT);
    assert_eq!(
        world.clients[bob].heard,
        [[0], [1], [2]].map(|data| Bytes::copy_from_slice(&data))
    );
    assert!(world.clients[ann].heard.is_empty());
}
