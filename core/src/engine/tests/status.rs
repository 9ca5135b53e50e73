//! What is true of a document's changes.

use super::*;

#[test]
fn saved_means_that_the_relay_named_it() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.relays[0].held = true;
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saving);
    assert!(!world.clients[ann].statuses.contains(&Status::Saved));
    world.commit_relay(0);
    world.run(MOMENT);
    assert_eq!(world.status(ann, id), Status::Saved);
    world.put(ann, id, "n", 1);
    assert_eq!(world.status(ann, id), Status::Saving, "at once");
    world.run(MOMENT);
    assert_eq!(world.status(ann, id), Status::Saved);
    world.cut(0);
    world.run(MOMENT);
    assert_eq!(
        world.status(ann, id),
        Status::Saved,
        "it is on the relay's disk"
    );
    world.put(ann, id, "n", 2);
    assert_eq!(world.status(ann, id), Status::Offline);
}

#[test]
fn what_was_made_is_stored_and_acknowledged_whatever_is_made_after_it() {
    let mut world = World::new(2);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[ann].held = true;
    world.put(ann, id, "n", 1);
    world.run(MOMENT);
    let engine = |world: &World, of: &dyn Fn(&Engine) -> bool| of(&world.clients[ann].engine);
    let first = world.heads(ann, id);
    let due = world.clients[ann].engine.commits_due(&id);
    assert!(due > 0);
    // Commits that are under way do not have what is made now.
    for n in 2..10 {
        world.put(ann, id, "n", n);
        world.release(ann);
        world.clients[ann].held = true;
    }
    assert!(world.clients[ann].engine.commits_due(&id) > 0);
    for relay in 0..2 {
        assert!(!engine(&world, &|e| e.is_acknowledged(&id, &[], false)));
        world.relays[relay].held = true;
    }
    world.release(ann);
    world.run(MOMENT);
    assert_eq!(world.clients[ann].engine.commits_due(&id), 0);
    assert!(!engine(&world, &|e| e.is_acknowledged(&id, &first, false)));
    world.commit_relay(0);
    world.run(MOMENT);
    world.put(ann, id, "n", 10);
    assert_ne!(world.status(ann, id), Status::Saved);
    assert!(engine(&world, &|e| e.is_acknowledged(&id, &first, false)));
    assert!(!engine(&world, &|e| e.is_acknowledged(&id, &first, true)));
    let last = world.heads(ann, id);
    assert!(!engine(&world, &|e| e.is_acknowledged(&id, &last, false)));
    world.commit_relay(1);
    world.run(MOMENT);
    world.put(ann, id, "n", 11);
    assert!(engine(&world, &|e| e.is_acknowledged(&id, &first, true)));
    // It is not waited for what relays said to be stored.
    world.run(Duration::from_millis(100));
    assert!(engine(&world, &|e| e.is_stored(&id) && !e.is_flushed(&id)));
}

#[test]
fn heads_that_a_relay_lost_are_saved_no_more() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    for n in 0..10 {
        world.put(ann, id, "n", n);
    }
    world.run(LONG);
    world.cut(0);
    world.relays[0].restore(id, 4);
    world.relays[0].down = false;
    world.clients[ann].statuses.clear();
    world.run(LONG);
    let statuses = &world.clients[ann].statuses;
    assert_eq!(statuses, &[Status::Saving, Status::Saved]);
    assert_eq!(world.relays[0].has(id), world.heads(ann, id));
}

#[test]
fn a_refused_change_is_reported_and_taken_by_another_relay() {
    let mut world = World::new(2);
    let ann = world.join(&storage());
    world.cut(1);
    world.relays[0].refuses = Some(("told", "it was told to"));
    let id = world.create(ann);
    world.run(MOMENT);
    let refused = Status::Refused(Reason::new("told", "it was told to"));
    assert_eq!(
        world.status(ann, id),
        Status::Offline,
        "the other may take it"
    );
    world.relays[1].refuses = Some(("told", "it was told to"));
    world.relays[1].down = false;
    world.run(LONG);
    assert_eq!(world.status(ann, id), refused);
    world.cut(1);
    world.relays[1].refuses = None;
    world.relays[1].down = false;
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
}

#[test]
fn what_is_refused_is_still_so_after_a_restart() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    world.relays[0].refuses = Some(("told", "it was told to"));
    let id = world.create(ann);
    world.run(LONG);
    let refused = Status::Refused(Reason::new("told", "it was told to"));
    assert_eq!(world.status(ann, id), refused);
    // The relay says it once.
    world.relays[0].refuses = None;
    world.relays[0].held = true;
    let again = world.restart(ann);
    world.clients[again].engine.find(id);
    world.run(LONG);
    assert_eq!(world.status(again, id), refused);
    world.commit_relay(0);
    world.run(LONG);
    assert_eq!(world.status(again, id), Status::Saved);
    let third = world.restart(again);
    world.clients[third].engine.find(id);
    world.relays[0].down = true;
    world.settle();
    world.put(third, id, "n", 1);
    world.run(LONG);
    assert_eq!(
        world.status(third, id),
        Status::Offline,
        "it was taken back"
    );
}
