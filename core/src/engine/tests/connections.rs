//! Relays are tried, kept, lost and left.

use super::*;
use crate::storage::Storage;

#[test]
fn tries_are_spread_and_bounded_and_the_network_ends_the_wait() {
    let mut world = World::new(1);
    world.relays[0].down = true;
    let ann = world.join(&storage());
    world.run(Duration::from_secs(3600));
    let tries = world.clients[ann].connects.clone();
    // With full jitter the wait is half of the longest on average.
    assert!((120..480).contains(&tries.len()), "{} tries", tries.len());
    for (failures, pair) in (1..).zip(tries.windows(2)) {
        let longest = (BACKOFF_FIRST * 2u32.pow(failures.min(8) - 1)).min(BACKOFF_MAX);
        assert!(pair[1] - pair[0] <= longest);
    }
    world.relays[0].down = false;
    let now = world.now;
    world.clients[ann]
        .engine
        .handle(now, Input::NetworkAvailable);
    world.run(Duration::ZERO);
    assert!(world.clients[ann].engine.is_connected(RelayId(0)));
}

#[test]
fn a_relay_that_says_nothing_is_left() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    world.run(LONG);
    assert_eq!(world.clients[ann].connects.len(), 1, "pongs keep it alive");
    // The line is dead, and nobody says so.
    world.clients[ann].lines.clear();
    world.run(SILENCE_MAX + BACKOFF_FIRST);
    assert_eq!(world.clients[ann].connects.len(), 2);
}

#[test]
fn a_client_that_is_not_let_in_says_why_and_does_not_try_again() {
    let mut world = World::new(1);
    world.relays[0].rejects = true;
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(Duration::from_secs(3600));
    let refused = Status::Refused(Reason::new("rejected", "unsupported protocol version"));
    assert_eq!(world.status(ann, id), refused);
    assert_eq!(world.clients[ann].connects.len(), 1);
}

/// Names the relays of a client anew, as its storage knows before.
fn name_relays(world: &mut World, client: usize, wanted: &[usize], away: &[usize]) {
    world.settle();
    let names = names(world.relays.len());
    let named = |places: &[usize]| -> Vec<Arc<str>> {
        places.iter().map(|place| names[*place].clone()).collect()
    };
    let all: Vec<_> = wanted.iter().chain(away).copied().collect();
    let client = &mut world.clients[client];
    client.storage.name_relays(&named(&all)).unwrap();
    let engine = &mut client.engine;
    engine.name_relays(world.now, named(wanted), named(away));
    engine.handle(world.now, Input::Outbox(client.storage.outbox().unwrap()));
    world.settle();
}

#[test]
fn relays_come_and_go_while_it_runs() {
    let mut world = World::new(3);
    let ann = world.join(&storage());
    name_relays(&mut world, ann, &[1], &[]);
    let [kept, released] = [world.create(ann), world.create(ann)];
    for id in [kept, released] {
        world.put(ann, id, "key", 1);
    }
    world.settle();
    world.clients[ann].engine.let_go(&released);
    world.run(RELEASE_AFTER * 2);
    assert!(world.clients[ann].engine.is_released(&released));
    assert!(world.clients[ann].engine.is_everywhere(&kept));
    assert!(world.relays[0].documents.is_empty() && world.relays[2].documents.is_empty());
    // A new one gets all, also what is not in memory, and takes another's place.
    name_relays(&mut world, ann, &[2, 1], &[]);
    let engine = |world: &World| -> Vec<bool> {
        let connected = |relay| world.clients[ann].engine.is_connected(RelayId(relay));
        (0..3).map(connected).collect()
    };
    assert_eq!(engine(&world), [true, true, false]);
    for id in [kept, released] {
        assert_eq!(world.relays[2].has(id), world.relays[1].has(id));
    }
    world.run(ACKNOWLEDGEMENT_DELAY);
    let storage = world.clients[ann].storage.clone();
    assert_eq!(storage.outbox().unwrap(), []);
    // Nobody waits for one that is away; the outbox does.
    name_relays(&mut world, ann, &[2], &[1]);
    assert_eq!(engine(&world), [true, false, false]);
    world.put(ann, kept, "key", 2);
    world.settle();
    let heads = world.heads(ann, kept);
    assert_eq!(world.status(ann, kept), Status::Saved);
    assert!(world.clients[ann].engine.is_everywhere(&kept));
    assert!(
        world.clients[ann]
            .engine
            .is_acknowledged(&kept, &heads, true)
    );
    assert!(world.clients[ann].engine.belongs_in_outbox(&kept));
    world.run(ACKNOWLEDGEMENT_DELAY);
    assert_eq!(storage.outbox().unwrap(), [kept]);
    name_relays(&mut world, ann, &[1], &[2]);
    assert_eq!(engine(&world), [true, false, false]);
    assert_eq!(world.relays[1].has(kept), heads);
    // Gone is gone.
    name_relays(&mut world, ann, &[0], &[]);
    world.put(ann, kept, "key", 3);
    world.run(ACKNOWLEDGEMENT_DELAY);
    assert_eq!(world.relays[0].has(kept), world.heads(ann, kept));
    assert_eq!(world.relays[1].has(kept), heads);
    assert_eq!(storage.outbox().unwrap(), []);
    name_relays(&mut world, ann, &[], &[]);
    assert_eq!(world.status(ann, kept), Status::Offline);
}

#[test]
fn a_relay_that_refused_is_tried_again_when_told_so() {
    let mut world = World::new(1);
    world.relays[0].rejects = true;
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(BACKOFF_MAX * 2);
    assert!(matches!(world.status(ann, id), Status::Refused(_)));
    assert_eq!(world.clients[ann].connects.len(), 1);
    world.relays[0].rejects = false;
    world.clients[ann].engine.retry(world.now, RelayId(0));
    world.settle();
    assert_eq!(world.status(ann, id), Status::Saved);
    world.clients[ann].engine.retry(world.now, RelayId(0));
    world.clients[ann].engine.retry(world.now, RelayId(9));
    world.settle();
    assert_eq!(world.clients[ann].connects.len(), 2);
}

#[test]
fn a_relay_is_pinged_by_a_message_where_there_is_no_other_way() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    world.settle();
    let connection = *world.clients[ann].lines.keys().next().unwrap();
    let ping = world.clients[ann].engine.ping(connection).unwrap();
    let before = world.to_clients.len();
    world.relay_frame(0, (ann, connection), &ping.into());
    assert_eq!(world.to_clients.len(), before + 1);
    world.run(PING_AFTER);
    assert!(world.clients[ann].engine.is_connected(RelayId(0)));
    assert_eq!(world.clients[ann].engine.ping(ConnectionId(99)), None);
}
