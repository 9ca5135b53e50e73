//! When nobody types, nobody talks: also with refused changes, with readers who edit, and with
//! peers who repeat themselves on purpose.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use automerge::sync::{BloomFilter, Have, Message, MessageFlags, MessageVersion};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ChangeHash, ROOT};
use reconverge::history::Refusal;
use reconverge::id::{Access, ConnectionId};
use reconverge_tests::world::{Core, Kept, Relay, World};

/// Most messages on one connection, both ways together, for one event.
const MESSAGES_MAX: usize = 4;

/// Carries messages until nothing is left, and counts them per connection.
fn assert_quiet_soon(world: &mut World, what: &str) {
    world.reset_counts();
    world.settle(MESSAGES_MAX * world.clients.len());
    for (at, client) in world.clients.iter().enumerate() {
        let messages = client.sent.0 + client.received.0;
        assert!(
            messages <= MESSAGES_MAX,
            "{what}: {messages} messages with client {at}"
        );
    }
    assert!(!world.step(), "{what}: it is quiet");
}

fn put(world: &mut World, at: usize, key: &str, n: u64) {
    world.edit(at, |doc| doc.put(ROOT, key, n).unwrap());
}

/// A change that Automerge takes and the relay refuses: its operations are not above those it
/// depends on.
fn bad_change(doc: &mut AutoCommit) -> Change {
    let mut fork = doc.fork().with_actor([9; 16].as_slice().into());
    fork.put(ROOT, "bad", 1).unwrap();
    fork.commit();
    let mut change = fork.get_last_local_change().unwrap().decode();
    change.start_op = 1.try_into().unwrap();
    Change::from(change)
}

#[test]
fn refused_changes_and_what_depends_on_them_cause_no_chatter() {
    for core in [Core::Current, Core::Old] {
        for seed in 0..20 {
            let mut world = World::new(seed);
            let honest = world.add_writer();
            let misled = world.add_client(core, Access::Write);
            world.connect(honest);
            world.connect(misled);
            put(&mut world, honest, "n", 1);
            put(&mut world, honest, "n", 2);
            world.settle(20);

            // It comes from elsewhere, and the client edits on top of it.
            let bad = bad_change(&mut world.clients[misled].doc);
            let hash = bad.hash();
            world.edit(misled, |doc| doc.apply_changes([bad]).unwrap());
            assert_quiet_soon(&mut world, "the bad change");
            assert!(matches!(
                world.relay.refused[..],
                [(Some(refused), Refusal::StartOp { .. })] if refused == hash
            ));
            put(&mut world, misled, "after", 1);
            assert_quiet_soon(&mut world, "a change after it");
            let (_, last) = world.relay.refused.last().unwrap();
            assert_eq!(*last, Refusal::DependsOnRefused(hash));

            // The others go on, and the misled one hears of it.
            put(&mut world, honest, "n", 3);
            assert_quiet_soon(&mut world, "another's change");
            let relay = world.relay.stored();
            assert_eq!(world.clients[honest].heads(), relay.get_heads());
            let head = relay.get_heads()[0];
            assert!(
                world.clients[misled]
                    .doc
                    .get_change_by_hash(&head)
                    .is_some()
            );

            for kept in [Kept::State, Kept::Nothing] {
                world.disconnect(misled, kept);
                world.connect(misled);
                assert_quiet_soon(&mut world, "coming back");
            }
            world.restart();
            world.connect(honest);
            assert_quiet_soon(&mut world, "the honest one after a restart");
            // The relay has forgotten what it refused, and learns it again.
            world.connect(misled);
            assert_quiet_soon(&mut world, "the misled one after a restart");
        }
    }
}

#[test]
fn a_readers_own_edits_cause_no_chatter() {
    for core in [Core::Current, Core::Old] {
        for seed in 0..20 {
            let mut world = World::new(seed);
            let writer = world.add_writer();
            let reader = world.add_client(core, Access::Read);
            world.connect(writer);
            put(&mut world, writer, "n", 1);
            world.settle(20);
            world.connect(reader);
            assert_quiet_soon(&mut world, "first contact");
            for n in 0..3 {
                put(&mut world, reader, "mine", n);
                assert_quiet_soon(&mut world, "a reader's edit");
                put(&mut world, writer, "n", 10 + n);
                assert_quiet_soon(&mut world, "a writer's edit");
            }
            for kept in [Kept::State, Kept::Nothing] {
                world.disconnect(reader, kept);
                put(&mut world, reader, "away", 1);
                put(&mut world, writer, "n", 20);
                world.settle(10);
                world.connect(reader);
                assert_quiet_soon(&mut world, "coming back");
            }
            let head = world.clients[writer].heads()[0];
            assert_eq!(world.relay.stored().get_heads(), [head]);
            assert!(
                world.clients[reader]
                    .doc
                    .get_change_by_hash(&head)
                    .is_some()
            );
        }
    }
}

/// One who reads and edits, one misled, one old, one honest: all at once.
#[test]
fn all_kinds_of_peers_together_come_to_rest() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        let honest = world.add_writer();
        let misled = world.add_client(Core::Old, Access::Write);
        let reader = world.add_client(Core::Current, Access::Read);
        let old_reader = world.add_client(Core::Old, Access::Read);
        for at in [honest, misled, reader, old_reader] {
            world.connect(at);
        }
        put(&mut world, honest, "n", 1);
        world.settle(40);
        let bad = bad_change(&mut world.clients[misled].doc);
        world.edit(misled, |doc| doc.apply_changes([bad]).unwrap());
        put(&mut world, misled, "after", 1);
        put(&mut world, reader, "mine", 1);
        put(&mut world, old_reader, "mine", 1);
        world.settle(4 * MESSAGES_MAX);
        put(&mut world, honest, "n", 2);
        assert_quiet_soon(&mut world, "an edit");
        let head = world.clients[honest].heads()[0];
        for client in &mut world.clients {
            assert!(client.doc.get_change_by_hash(&head).is_some());
        }
    }
}

/// A relay that has `changes` changes, and a peer whose messages are made by hand.
struct Hostile {
    relay: Relay,
    doc: AutoCommit,
    answers: usize,
    bytes: usize,
}

const HOSTILE: ConnectionId = ConnectionId(2);

impl Hostile {
    fn new(changes: u64, folded: bool) -> Self {
        let mut world = World::new(changes);
        let writer = world.add_writer();
        world.connect(writer);
        for n in 0..changes {
            put(&mut world, writer, "n", n);
            world.settle(20);
        }
        if folded {
            world.relay.begin_fold();
            world.settle(20);
        }
        let mut relay = world.relay;
        relay.restart();
        relay.connect(HOSTILE, Access::Write);
        relay.set_room(HOSTILE, 64);
        let doc = world.clients.remove(writer).doc;
        Self {
            relay,
            doc,
            answers: 0,
            bytes: 0,
        }
    }

    fn say(&mut self, message: &Message) {
        self.relay.receive(HOSTILE, &message.clone().encode());
        while let Some(answer) = self.relay.take(HOSTILE) {
            self.answers += 1;
            self.bytes += answer.len();
        }
    }
}

fn message(heads: Vec<ChangeHash>) -> Message {
    Message {
        heads,
        need: Vec::new(),
        have: vec![Have::default()],
        changes: Vec::<Vec<u8>>::new().into(),
        flags: None,
        version: MessageVersion::V1,
    }
}

#[test]
fn whoever_repeats_itself_is_not_answered_without_end() {
    const REPEATS: usize = 1000;
    const ANSWERS_MAX: usize = 12;
    for folded in [false, true] {
        let heads_of = |hostile: &mut Hostile| hostile.doc.get_heads();
        let older_of = |hostile: &mut Hostile| {
            let changes = hostile.doc.get_changes(&[]);
            changes.iter().map(Change::hash).collect::<Vec<_>>()
        };
        let check = |what: &str, say: &dyn Fn(&mut Hostile, usize)| {
            let mut hostile = Hostile::new(50, folded);
            let whole: usize = hostile
                .doc
                .get_changes(&[])
                .iter()
                .map(|c| c.raw_bytes().len())
                .sum();
            for n in 0..REPEATS {
                say(&mut hostile, n);
            }
            println!(
                "{what}: {} answers, {} bytes",
                hostile.answers, hostile.bytes
            );
            assert!(
                hostile.answers <= ANSWERS_MAX,
                "{what}: {} answers",
                hostile.answers
            );
            assert!(hostile.bytes <= ANSWERS_MAX * (whole + 500), "{what}");
        };
        check("the same reset", &|hostile, _| {
            let heads = heads_of(hostile);
            hostile.say(&message(heads));
        });
        check("resets with other heads each time", &|hostile, n| {
            let heads = older_of(hostile);
            hostile.say(&message(vec![heads[n % heads.len()]]));
        });
        check("resets with heads that nobody knows", &|hostile, n| {
            let heads = vec![ChangeHash([(n % 4) as u8; 32])];
            hostile.say(&message(heads));
        });
        check("empty heads", &|hostile, _| hostile.say(&message(vec![])));
        check("empty heads and full ones in turn", &|hostile, n| {
            let heads = heads_of(hostile);
            hostile.say(&message(if n % 2 == 0 { heads } else { vec![] }));
        });
        check("a flag that asks for all", &|hostile, _| {
            let mut reset = message(heads_of(hostile));
            let mut flags = MessageFlags::new();
            flags.set(MessageFlags::SYNC_RESET);
            reset.flags = Some(flags);
            hostile.say(&reset);
        });
        check("no claims at all", &|hostile, _| {
            let mut bare = message(heads_of(hostile));
            bare.have.clear();
            hostile.say(&bare);
        });
        check("a filter that contains everything", &|hostile, n| {
            let mut filtered = message(vec![ChangeHash([(n % 4) as u8; 32])]);
            let hashes = older_of(hostile);
            let bloom = BloomFilter::from_hashes(hashes.iter());
            filtered.have = vec![Have {
                last_sync: vec![],
                bloom,
            }];
            hostile.say(&filtered);
        });
        check("asking for what nobody has", &|hostile, n| {
            let mut asking = message(heads_of(hostile));
            asking.have.clear();
            asking.need = vec![ChangeHash([(n % 251) as u8; 32])];
            hostile.say(&asking);
        });
    }
}

/// A change that is asked for by name comes again, since a filter may have hidden it; but once,
/// since it arrives. The connection goes on.
#[test]
fn a_change_that_is_asked_for_again_and_again_is_sent_once() {
    for folded in [false, true] {
        let mut hostile = Hostile::new(50, folded);
        let heads = hostile.doc.get_heads();
        let hashes: Vec<_> = hostile
            .doc
            .get_changes(&[])
            .iter()
            .map(Change::hash)
            .collect();
        for (asked, hash) in [hashes[7], hashes[49], hashes[7], hashes[0]]
            .iter()
            .enumerate()
        {
            let answers = hostile.answers;
            for _ in 0..65 {
                let mut asking = message(heads.clone());
                asking.have.clear();
                asking.need = vec![*hash];
                hostile.say(&asking);
            }
            let again = usize::from(asked != 2);
            assert_eq!(
                hostile.answers - answers,
                again,
                "folded: {folded}, {asked}"
            );
        }
        // Somebody else writes.
        hostile.doc.put(ROOT, "n", 1000).unwrap();
        hostile.doc.commit();
        let change = hostile.doc.get_last_local_change().unwrap();
        let mut said = message(vec![change.hash()]);
        said.changes = vec![change.raw_bytes().to_vec()].into();
        let other = ConnectionId(77);
        hostile.relay.connect(other, Access::Write);
        hostile.relay.receive(other, &said.encode());
        let heard = Message::decode(&hostile.relay.take(HOSTILE).unwrap()).unwrap();
        assert_eq!(heard.heads, [change.hash()]);
        assert_eq!(heard.changes.len(), 1);
    }
}

/// What nobody can use is refused once, and what hangs on it too; the sender hears nothing of it
/// by sync messages that it would answer.
#[test]
fn a_sender_of_nonsense_gets_no_answer_that_it_would_answer() {
    let mut hostile = Hostile::new(5, false);
    let bad = bad_change(&mut hostile.doc);
    let mut said = message(vec![bad.hash()]);
    said.changes = vec![bad.raw_bytes().to_vec()].into();
    for _ in 0..100 {
        hostile.say(&said);
    }
    assert!(hostile.answers <= 2, "{} answers", hostile.answers);
    assert_eq!(hostile.relay.refused.len(), 1);
}
