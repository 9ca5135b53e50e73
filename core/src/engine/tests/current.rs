//! Whether a document is here as a relay has it.

use std::collections::HashSet;

use super::relay::refused;
use super::*;

/// The answer, and the changes of the first document that were here then.
pub(super) type Answer = (Result<(), NotCurrent>, HashSet<ChangeHash>);

pub(super) fn note(client: &mut Client, asked: Asked, answer: Result<(), NotCurrent>) {
    let id = client.engine.documents().min().copied();
    let document = id.and_then(|id| client.engine.document(&id));
    let here = document.map_or_else(HashSet::new, |document| {
        let changes = document.get_changes_meta(&[]).into_iter();
        changes.map(|change| change.hash).collect()
    });
    client.answers.insert(asked, (answer, here));
}

fn ask(world: &mut World, client: usize, id: DocumentId) -> Asked {
    world.clients[client].engine.ask_current(id)
}

fn answer(world: &World, client: usize, asked: Asked) -> Option<Result<(), NotCurrent>> {
    let answer = world.clients[client].answers.get(&asked);
    answer.map(|(answer, _)| answer.clone())
}

#[test]
fn a_document_that_is_old_here_is_current_when_the_newer_one_came() {
    let mut world = World::new(1);
    let (ann, bob) = (world.join(&storage()), world.join(&storage()));
    let id = world.create(ann);
    world.run(MOMENT);
    world.clients[bob].engine.find(id);
    world.run(MOMENT);
    world.relays[0].only = Some(ann);
    world.cut(0);
    world.relays[0].down = false;
    world.run(LONG);
    world.put(ann, id, "n", 1);
    world.run(MOMENT);
    // It is found at once, as it was, and calls itself saved.
    let asked = ask(&mut world, bob, id);
    world.settle();
    assert_eq!(world.status(bob, id), Status::Saved);
    assert_eq!(answer(&world, bob, asked), None);
    let engine = &world.clients[bob].engine;
    assert!(engine.why_unanswered(asked).is_some(), "nobody is there");
    world.relays[0].only = None;
    world.run(LONG);
    assert_eq!(answer(&world, bob, asked), Some(Ok(())));
    let (_, here) = &world.clients[bob].answers[&asked];
    assert!(here.contains(&world.heads(ann, id)[0]));
}

#[test]
fn a_connection_that_is_dead_answers_nothing() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    let asked = ask(&mut world, ann, id);
    world.run(MOMENT);
    assert_eq!(answer(&world, ann, asked), Some(Ok(())));
    // The relay is gone, and nothing says so.
    let lines = std::mem::take(&mut world.clients[ann].lines);
    let asked = ask(&mut world, ann, id);
    world.run(MOMENT);
    assert_eq!(answer(&world, ann, asked), None);
    let engine = &world.clients[ann].engine;
    assert_eq!(engine.why_unanswered(asked), None, "it may be on its way");
    for (connection, _) in lines {
        world.relays[0].leave((ann, connection));
    }
    world.run(SILENCE_MAX + LONG);
    assert_eq!(answer(&world, ann, asked), Some(Ok(())), "by another one");
}

/// A ping that was on its way may have been answered before the question.
#[test]
fn only_a_ping_after_the_question_counts() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    let first = ask(&mut world, ann, id);
    let Output::Ping(connection) = world.clients[ann].engine.poll_output() else {
        panic!("a ping");
    };
    let second = ask(&mut world, ann, id);
    world.settle();
    let now = world.now;
    let engine = &mut world.clients[ann].engine;
    engine.handle(now, Input::Pong(connection));
    let mut pings = 0;
    let answers = loop {
        match engine.poll_output() {
            Output::Ping(_) => pings += 1,
            Output::Current(asked, Ok(())) => break asked,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((pings, answers), (1, first));
    engine.handle(now, Input::Pong(connection));
    world.settle();
    assert_eq!(answer(&world, ann, second), Some(Ok(())));
}

/// The answer to one of two pings would be taken for that to a question which came after both.
#[test]
fn a_second_ping_waits_for_the_answer_to_the_first() {
    let mut world = World::new(1);
    let ann = world.join(&storage());
    let id = world.create(ann);
    // What the relay acknowledged is stored by then.
    world.run(ACKNOWLEDGEMENT_DELAY + MOMENT);
    let first = ask(&mut world, ann, id);
    let Output::Ping(connection) = world.clients[ann].engine.poll_output() else {
        panic!("a ping");
    };
    // The relay says something else, and then nothing for so long that it is pinged.
    let nowhere = DocumentId::new(&[99; 16]).unwrap();
    let word = refused(nowhere, Vec::new(), "busy", "another document");
    let later = world.now + PING_AFTER;
    let engine = &mut world.clients[ann].engine;
    engine.handle(world.now, Input::Frame(connection, word.into()));
    engine.handle(later, Input::Tick);
    let second = engine.ask_current(id);
    let next = engine.poll_output();
    assert!(matches!(next, Output::Idle { .. }), "{next:?}");
    engine.handle(later, Input::Pong(connection));
    let answered = [engine.poll_output(), engine.poll_output()];
    assert!(
        matches!(answered, [Output::Ping(_), Output::Current(asked, Ok(()))] if asked == first),
        "{answered:?}"
    );
    assert_eq!(answer(&world, ann, second), None);
    world.clients[ann]
        .engine
        .handle(later, Input::Pong(connection));
    world.settle();
    assert_eq!(answer(&world, ann, second), Some(Ok(())));
}

#[test]
fn what_no_relay_has_is_current_and_what_nobody_can_be_asked_about_is_not() {
    let mut world = World::new(0);
    let ann = world.join(&storage());
    let id = world.create(ann);
    let asked = ask(&mut world, ann, id);
    world.settle();
    let unreachable = |answer| matches!(answer, Some(Err(NotCurrent::Unreachable(_))));
    assert!(unreachable(answer(&world, ann, asked)), "there is none");

    let mut world = World::new(1);
    world.relays[0].refuses = Some(("document_full", "full"));
    let ann = world.join(&storage());
    let id = world.create(ann);
    world.run(MOMENT);
    let nowhere = DocumentId::new(&[99; 16]).unwrap();
    world.clients[ann].engine.find(nowhere);
    world.run(MOMENT);
    let asked = [id, nowhere].map(|id| ask(&mut world, ann, id));
    world.run(MOMENT);
    for asked in asked {
        assert_eq!(answer(&world, ann, asked), Some(Ok(())));
    }
    world.clients[ann].engine.delete(&id);
    let [late, withdrawn] = [(); 2].map(|()| ask(&mut world, ann, id));
    world.clients[ann].engine.withdraw(withdrawn);
    world.run(MOMENT);
    assert_eq!(
        answer(&world, ann, late),
        Some(Err(NotCurrent::Gone)),
        "it is deleted"
    );
    assert_eq!(answer(&world, ann, withdrawn), None);

    let mut world = World::new(1);
    world.relays[0].rejects = true;
    let ann = world.join(&storage());
    let id = world.create(ann);
    let asked = ask(&mut world, ann, id);
    world.run(MOMENT);
    assert!(unreachable(answer(&world, ann, asked)), "it refuses us");
}

#[test]
fn a_released_document_is_current_without_being_read() {
    let mut world = World::new(1);
    let (ann, bob, id) = released(&mut world);
    let asked = ask(&mut world, bob, id);
    world.run(MOMENT);
    assert_eq!(answer(&world, bob, asked), Some(Ok(())));
    assert!(world.clients[bob].engine.is_released(&id));
    // What comes meanwhile is taken in before.
    world.put(ann, id, "n", 2);
    world.settle();
    world.clients[bob].engine.hold(&id);
    let asked = ask(&mut world, bob, id);
    world.run(MOMENT);
    assert_eq!(answer(&world, bob, asked), Some(Ok(())));
    let (_, here) = &world.clients[bob].answers[&asked];
    assert!(here.contains(&world.heads(ann, id)[0]));
}

/// Whatever is cut and held meanwhile: all that some relay had stored when it was asked is here when
/// the document is called current; and it is called so in the end.
#[test]
fn what_a_relay_had_when_it_was_asked_is_here_when_it_is_current() {
    let mut answered = 0;
    for seed in 0..100 {
        let mut pick = picks(seed);
        let (mut world, _, id) = three_with_one_document();
        let mut asked = Vec::new();
        for step in 0..120 {
            let at = pick(3) as usize;
            let relay = pick(2) as usize;
            match pick(14) {
                0 => world.cut(relay),
                1 | 2 => world.relays[relay].down = false,
                3 => world.run(Duration::from_millis(pick(3000))),
                4 => world.clients[at].held = true,
                5 => world.release(at),
                6 => world.relays[relay].held = true,
                7 => world.commit_relay(relay),
                8 | 9 => {
                    let had: Vec<_> = world.relays.iter().map(|relay| relay.has(id)).collect();
                    asked.push((at, ask(&mut world, at, id), had));
                }
                10 => {
                    // Some of what is to be done, and the rest later.
                    for _ in 0..pick(20) {
                        if let Some((client, input)) = world.to_clients.pop_front() {
                            world.clients[client].engine.handle(world.now, input);
                        } else if let Some((relay, line, frame)) = world.to_relays.pop_front() {
                            world.relay_frame(relay, line, &frame);
                        }
                    }
                }
                _ => world.put(at, id, &format!("{at}"), step),
            }
        }
        for client in 0..3 {
            world.release(client);
        }
        for relay in 0..2 {
            world.relays[relay].down = false;
            world.commit_relay(relay);
        }
        world.run(LONG);
        for (at, asked, had) in asked {
            let (answer, here) = &world.clients[at].answers[&asked];
            assert_eq!(answer, &Ok(()), "seed {seed}");
            let is_here = |heads: &Vec<ChangeHash>| heads.iter().all(|head| here.contains(head));
            assert!(
                had.iter().any(is_here),
                "seed {seed}: {asked:?} is not current"
            );
            answered += 1;
        }
    }
    assert!(answered > 1000, "{answered}");
}
