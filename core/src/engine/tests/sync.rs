//! Documents agree.

use std::collections::HashSet;

use automerge::ReadDoc;

use super::*;
use crate::storage::Storage;

#[test]
fn two_clients_agree_and_then_fall_silent() {
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.clients[bob].found, [(id, true)]);
    for n in 0..50 {
        world.put(ann, id, "ann", n);
        world.put(bob, id, "bob", n);
        if n % 7 == 0 {
            world.run(MOMENT);
        }
    }
    world.run(MOMENT);
    for client in [ann, bob] {
        assert_eq!(world.get(client, id, "ann"), Some(49));
        assert_eq!(world.get(client, id, "bob"), Some(49));
        assert_eq!(world.heads(client, id), world.relays[0].has(id));
        assert_eq!(world.status(client, id), Status::Saved);
    }
    // The last edits are acknowledged.
    world.run(LONG);
    let messages = world.relays[0].received.len();
    world.run(LONG);
    assert_eq!(
        world.relays[0].received.len(),
        messages,
        "nothing is left to say"
    );
    assert_eq!(world.clients[ann].storage.outbox().unwrap(), []);
}

#[test]
fn a_reconnect_needs_no_filter() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    for n in 0..1000 {
        world.put(ann, id, "n", n);
    }
    world.run(LONG);
    let again = world.restart(ann);
    world.clients[again].engine.find(id);
    world.relays[0].received.clear();
    world.run(MOMENT);
    assert_eq!(world.status(again, id), Status::Saved);
    assert_eq!(world.relays[0].received.len(), 1, "its heads, no answer");
    assert!(world.relays[0].received[0] < 128);
    // And with an edit made while the relay was away, just that edit.
    world.cut(0);
    world.put(again, id, "n", -1);
    world.relays[0].down = false;
    world.relays[0].received.clear();
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), world.heads(again, id));
    assert!(world.relays[0].received.iter().sum::<usize>() < 512);
}

#[test]
fn a_client_carries_documents_between_two_relays() {
    let mut world = World::new(2);
    let ann = world.join(&storage());
    world.relays[1].down = true;
    let id = world.create(ann);
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
    let outbox = world.clients[ann].storage.outbox().unwrap();
    assert_eq!(outbox, [id], "the second relay lacks it");
    let again = world.restart(ann);
    world.relays[1].down = false;
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), world.relays[1].has(id));
    assert_eq!(world.clients[again].storage.outbox().unwrap(), []);
    // Somebody who knows the second relay only.
    world.relays[0].down = true;
    let bob = world.join(&storage());
    world.clients[bob].engine.find(id);
    world.run(LONG);
    assert_eq!(world.clients[bob].found, [(id, true)]);
    world.relays[0].down = false;
    world.put(bob, id, "n", 3);
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), world.heads(bob, id));
}

#[test]
fn a_document_on_one_relay_only_is_offered_to_the_one_that_said_it_has_none() {
    let mut world = World::new(2);
    let ann = world.join(&storage());
    world.relays[1].down = true;
    let id = world.create(ann);
    world.run(MOMENT);
    world.restart(ann);
    world.relays[1].down = false;
    let bob = world.join(&storage());
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    assert_eq!(world.clients[bob].found, [(id, true)]);
    assert_eq!(world.relays[1].has(id), world.heads(bob, id));
}

#[test]
fn a_relay_restored_from_an_older_file_gets_everything_again() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    for n in 0..10 {
        world.put(ann, id, "n", n);
    }
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saved);
    world.cut(0);
    world.relays[0].restore(id, 4);
    world.relays[0].held = true;
    world.relays[0].down = false;
    world.run(LONG);
    world.put(ann, id, "more", 1);
    world.run(LONG);
    assert_eq!(world.status(ann, id), Status::Saving);
    world.commit_relay(0);
    world.run(LONG);
    assert_eq!(world.relays[0].has(id), world.heads(ann, id));
    assert_eq!(world.status(ann, id), Status::Saved);
}

#[test]
fn thousands_of_documents_are_sent_when_the_relay_comes() {
    let mut world = World::new(1);
    world.relays[0].down = true;
    let ann = world.join(&storage());
    let mut ids = Vec::new();
    for n in 0..3000u32 {
        let mut replica = Replica::new(ActorId::from(n.to_be_bytes().to_vec()));
        replica.begin(0);
        let id = DocumentId::new(&n.to_be_bytes()).unwrap();
        let client = &mut world.clients[ann];
        client.engine.create(id, client.storage.new_key(), replica);
        ids.push(id);
    }
    world.run(MOMENT);
    world.relays[0].down = false;
    world.run(LONG);
    for id in ids {
        assert_eq!(world.status(ann, id), Status::Saved);
    }
    assert_eq!(world.clients[ann].storage.outbox().unwrap(), []);
    // Two messages each: heads, then the change.
    assert_eq!(world.relays[0].received.len(), 6000);
}

#[test]
fn whatever_is_cut_all_agree_in_the_end() {
    for seed in 0..30 {
        let mut pick = picks(seed);
        let (mut world, mut clients, id) = three_with_one_document();
        let mut made = HashSet::new();
        for step in 0..120 {
            let at = pick(3) as usize;
            match pick(11) {
                0 => world.cut(pick(2) as usize),
                1 | 2 => {
                    let relay = pick(2) as usize;
                    world.relays[relay].down = false;
                }
                3 => {
                    // What is not stored yet dies with the process; so store it.
                    world.settle();
                    clients[at] = world.restart(clients[at]);
                    world.clients[clients[at]].engine.find(id);
                    world.run(MOMENT);
                }
                4 | 5 => world.run(Duration::from_millis(pick(3000))),
                6 => {
                    // Released, if all is acknowledged.
                    let engine = &mut world.clients[clients[at]].engine;
                    engine.release_after(Duration::from_secs(1));
                    engine.let_go(&id);
                    world.run(Duration::from_millis(pick(5000)));
                    world.clients[clients[at]].engine.find(id);
                    world.run(Duration::ZERO);
                }
                _ => {
                    world.put(clients[at], id, &format!("{at}"), step);
                    made.extend(world.heads(clients[at], id));
                }
            }
        }
        world.relays.iter_mut().for_each(|relay| relay.down = false);
        world.run(LONG);
        let heads = world.heads(clients[0], id);
        for client in &clients {
            assert_eq!(world.heads(*client, id), heads, "seed {seed}");
            assert_eq!(world.status(*client, id), Status::Saved, "seed {seed}");
            let outbox = world.clients[*client].storage.outbox().unwrap();
            assert_eq!(outbox, [], "seed {seed}");
        }
        let document = world.clients[clients[0]].engine.document(&id).unwrap();
        for hash in made {
            assert!(document.get_change_by_hash(&hash).is_some(), "seed {seed}");
        }
        for relay in &world.relays {
            assert_eq!(relay.has(id), heads, "seed {seed}");
        }
    }
}

#[test]
fn edits_that_follow_each_other_are_acknowledged_together_and_the_last_one_is() {
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(LONG);
    let before = world.relays[0].received.len();
    for n in 0..20 {
        world.put(ann, id, "n", n);
        world.run(MOMENT);
        assert_eq!(world.get(bob, id, "n"), Some(n), "shown at once");
    }
    world.run(LONG);
    let edits = 20;
    let acknowledgements = world.relays[0].received.len() - before - edits;
    // In 2 seconds, twice a second.
    assert!((3..=5).contains(&acknowledgements), "{acknowledgements}");
    // What is edited in the meantime goes with the edit.
    let before = world.relays[0].received.len();
    world.put(ann, id, "n", 20);
    world.run(MOMENT);
    world.put(bob, id, "n", 21);
    world.run(LONG);
    assert_eq!(world.relays[0].received.len() - before, 3);
    assert_eq!(world.heads(ann, id), world.heads(bob, id));
}
