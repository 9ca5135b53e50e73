//! Aim: a change whose structure is right and whose contents make no document harms nobody for
//! longer than the stated lag, and with `--verify inline` nobody at all; what does not depend on
//! it goes on.
//!
//! Method: the turn around a history with Automerge's own clients, from seeds; and the relay as a
//! process. `RECONVERGE_QUARANTINE_SEED` repeats one run.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use std::time::Duration;

use automerge::legacy::{Key, ObjectId};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Automerge, Change, ChangeHash, ROOT, ReadDoc};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use reconverge::contents::{Check, Reading, Verdict};
use reconverge::id::{Access, DocumentId};
use reconverge::native::Repo;
use reconverge::protocol::{self, Message, PeerMetadata, SyncEnvelope};
use reconverge_tests::forge;
use reconverge_tests::light::{self, Client, Document, PATIENCE};
use reconverge_tests::process::{Relay, relay_executable};
use reconverge_tests::socket::Socket;
use reconverge_tests::typist::Typist;
use reconverge_tests::world::{self, Core, Failure, Kept, World, hashes, sync_message};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

#[test]
fn what_is_taken_out_leaves_the_rest_whole() {
    let repeated = std::env::var("RECONVERGE_QUARANTINE_SEED").ok();
    let repeated = repeated.and_then(|seed| seed.parse::<u64>().ok());
    let seeds = repeated.map_or(0..1_000, |seed| seed..seed + 1);
    let mut taken_out = 0;
    for seed in seeds {
        let run = std::panic::catch_unwind(|| run(seed));
        taken_out +=
            run.unwrap_or_else(|_| panic!("failed with RECONVERGE_QUARANTINE_SEED={seed}"));
    }
    println!("{taken_out} changes taken out");
    assert!(repeated.is_some() || taken_out > 1_000);
}

/// Takes changes out of a history that is being edited, as if the check had found fault with them.
fn run(seed: u64) -> usize {
    let mut world = World::new(seed);
    for _ in 0..3 {
        world.add_writer();
    }
    world.add_client(Core::Old, Access::Write);
    world.add_client(Core::Current, Access::Read);
    for _ in 0..100 {
        event(&mut world);
    }
    let fresh = world.add_writer();
    // Twice: a relay that was opened again knows what it took out.
    for _ in 0..2 {
        for at in 0..world.clients.len() {
            world.connect(at);
            let connection = world.clients[at].connection.unwrap();
            world.relay.set_room(connection, 8);
        }
        world.settle(2_000);
        let stored = hashes(&world.relay.stored());
        assert_eq!(stored.len(), world.relay.history().len() as usize);
        for client in &mut world.clients {
            let has = hashes(client.doc.document());
            assert!(stored.is_subset(&has), "a client lacks something");
        }
        assert_eq!(hashes(world.clients[fresh].doc.document()), stored);
        world.restart();
    }
    world.relay.taken_out
}

fn event(world: &mut World) {
    let at = world.random.below(world.clients.len() as u64) as usize;
    match world.random.below(36) {
        // One who has nothing of what was taken out.
        35 if world.clients.len() < 9 => {
            let fresh = world.add_writer();
            world.connect(fresh);
        }
        30..35 => {
            if let Some(connection) = world.clients[at].connection {
                let room = world.random.below(3) as usize;
                world.relay.set_room(connection, room);
            }
        }
        0..12 if world.clients[at].access == Access::Write => {
            let n = world.random.number();
            world.edit(at, |doc| {
                doc.put(ROOT, format!("{}", n % 5), n as i64).unwrap()
            });
        }
        12..18 => {
            for _ in 0..world.random.below(8) {
                world.step();
            }
        }
        18..21 => world.connect(at),
        21 => world.disconnect(at, Kept::State),
        22 => world.disconnect(at, Kept::Nothing),
        23 => world.restart(),
        24 => world.relay.evict(),
        25 => world.relay.begin_fold(),
        26 => world.relay.begin_check(false),
        27 => take_out(world),
        28 => {
            let failure = [Failure::Nothing, Failure::Written][world.random.below(2) as usize];
            world.relay.turn();
            world.relay.fail_next_commit(failure);
            take_out(world);
        }
        _ => {
            world.step();
        }
    }
}

fn take_out(world: &mut World) {
    world.relay.turn();
    let (from, to) = {
        let history = world.relay.history();
        (history.record().folded, history.len())
    };
    if from == to {
        return;
    }
    let mut any = || from + world.random.below(u64::from(to - from)) as u32;
    let indexes = [any(), any()];
    world.relay.quarantine(&indexes);
    for connection in std::mem::take(&mut world.relay.closed) {
        let closed = |client: &world::Client| client.connection == Some(connection);
        if let Some(at) = world.clients.iter().position(closed) {
            world.disconnect(at, Kept::State);
        }
    }
}

#[test]
fn the_check_names_the_change_at_fault_and_no_other() {
    let (first, unsound, honest) = forge::unsound([1; 16]);
    let mut changes: Vec<_> = first.iter().collect();
    changes.extend([&unsound, &honest]);
    let at = first.len() as u32;
    let verdict = check(&changes, &[unsound.hash(), honest.hash()]);
    let Verdict::Unsound(found) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(found.iter().map(|found| found.at).collect::<Vec<_>>(), [at]);
    assert!(found[0].reason.contains("panicked"), "{}", found[0].reason);
    changes.remove(at as usize);
    assert!(matches!(
        check(&changes, &[honest.hash()]),
        Verdict::Sound(Some(_))
    ));
}

fn check(changes: &[&Change], heads: &[ChangeHash]) -> Verdict {
    let bytes = |change: &&Change| Bytes::copy_from_slice(change.raw_bytes());
    let changes: Vec<Bytes> = changes.iter().map(bytes).collect();
    let mut heads = heads.to_vec();
    heads.sort_unstable();
    let check = Check {
        snapshot: None,
        changes: &changes,
        heads: &heads,
        len: changes.len() as u32,
        reading: Reading::Contents,
        wants_snapshot: true,
    };
    check.run().unwrap()
}

const DOCUMENT: [u8; 16] = [9; 16];

fn document() -> DocumentId {
    DocumentId::new(&DOCUMENT).unwrap()
}

fn light_change(change: &Change) -> light::Change {
    light::Change {
        hash: change.hash(),
        bytes: Bytes::copy_from_slice(change.raw_bytes()),
    }
}

/// A peer that says that it understands what is refused.
struct Told {
    stream: WebSocketStream<TcpStream>,
    name: &'static str,
}

impl Told {
    async fn join(relay: &Relay, name: &'static str) -> Self {
        let metadata = PeerMetadata {
            reconverge: 1,
            ..PeerMetadata::default()
        };
        let joined = Socket::try_join(&relay.url(), name, metadata).await;
        let stream = joined.unwrap().into_stream();
        Self { stream, name }
    }

    async fn say(&mut self, message: &Message<'_>) {
        let frame = Frame::Binary(protocol::encode(message).into());
        self.stream.send(frame).await.unwrap();
    }

    async fn sync(&mut self, heads: &[ChangeHash], changes: &[&[u8]]) {
        let data = sync_message(heads, &[], changes);
        let envelope = SyncEnvelope {
            sender: self.name,
            target: "",
            document: document().to_string().into(),
            data: &data,
            request: false,
        };
        self.say(&Message::Sync(envelope)).await;
    }

    /// Waits until it hears that a change is refused; the reason.
    async fn refused(&mut self, hash: ChangeHash) -> String {
        let refused = async {
            loop {
                let frame = self.stream.next().await.unwrap().unwrap().into_data();
                if let Ok(Message::Refused(refused)) = protocol::decode(&frame)
                    && refused.hashes.contains(&hash)
                {
                    return refused.reason.to_owned();
                }
            }
        };
        let refused = tokio::time::timeout(PATIENCE, refused).await;
        refused.unwrap_or_else(|_| panic!("{} hears nothing of {hash}", self.name))
    }
}

/// A client that made the document of these changes, and its index there.
async fn editor(relay: &Relay, changes: &[Change]) -> (Client, usize) {
    let mut editor = Client::connect(&relay.url(), "editor").await.unwrap();
    let changes = changes.iter().map(light_change);
    let at = editor.open(Document::created(document(), changes));
    editor.until_acked(at).await.unwrap();
    (editor, at)
}

/// Everything that a client gets that comes now.
async fn fetched(relay: &Relay, name: &str, heads: &[ChangeHash]) -> AutoCommit {
    let mut fresh = Client::connect(&relay.url(), name).await.unwrap();
    let at = fresh.open(Document::new(document()).keeping());
    fresh
        .until(|client| client.document(at).heads() == heads)
        .await
        .unwrap();
    AutoCommit::load(fresh.document(at).kept()).unwrap()
}

fn sorted<const N: usize>(mut heads: [ChangeHash; N]) -> [ChangeHash; N] {
    heads.sort_unstable();
    heads
}

#[tokio::test(flavor = "multi_thread")]
async fn later_an_unsound_change_is_taken_out_and_refused_for_good() {
    let (first, unsound, honest) = forge::unsound([1; 16]);
    let mut relay = Relay::start_with(&["--verify-lag-s", "1"]);
    let (mut editor, at) = editor(&relay, &first).await;
    let mut mallory = Told::join(&relay, "mallory").await;
    mallory
        .sync(&[unsound.hash()], &[unsound.raw_bytes()])
        .await;
    editor
        .until(|editor| editor.document(at).has(&unsound.hash()))
        .await
        .unwrap();
    // Stored and passed on; what is made beside it and after it is too.
    let mut after = unsound.decode();
    (after.seq, after.deps) = (after.seq + 1, vec![unsound.hash()]);
    after.start_op = after.start_op.checked_add(1).unwrap();
    after.operations[0].key = Key::Map("after".into());
    after.operations[0].obj = ObjectId::Root;
    after.operations[0].insert = false;
    let after = Change::from(after);
    mallory.sync(&[after.hash()], &[after.raw_bytes()]).await;
    editor.write(at, light_change(&honest));
    let reason = mallory.refused(unsound.hash()).await;
    assert!(reason.contains("make no document"), "{reason}");
    editor
        .until(|editor| editor.document(at).relay_heads() == Some(&[honest.hash()]))
        .await
        .unwrap();
    let log = relay.log();
    let line = log.lines().find(|line| line.contains("change taken out"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    let hash = unsound.hash().to_string();
    assert!(line.contains("mallory") && line.contains(&hash), "{line}");

    for (round, name) in [(0, "one"), (1, "two")] {
        let mut document = fetched(&relay, name, &[honest.hash()]).await;
        assert_eq!(hashes(document.document()).len(), first.len() + 1);
        // Whoever sends it again hears why not, also after the relay was killed.
        let mut again = Told::join(&relay, ["three", "four"][round]).await;
        again.sync(&[unsound.hash()], &[unsound.raw_bytes()]).await;
        assert!(
            again
                .refused(unsound.hash())
                .await
                .contains("make no document")
        );
        again.sync(&[after.hash()], &[after.raw_bytes()]).await;
        again.refused(after.hash()).await;
        relay.kill();
        if round == 0 {
            operate(&relay, &unsound, &after);
        }
        relay.start_again();
    }
}

/// What an operator does with what was taken out, while the relay is stopped.
fn operate(relay: &Relay, unsound: &Change, after: &Change) {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(relay_executable());
        command.arg("quarantine").arg("--data").arg(relay.data());
        let output = command.args(arguments).output().unwrap();
        let words = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(words).unwrap())
    };
    let id = document().to_string();
    let (done, list) = run(&["list"]);
    assert!(done, "{list}");
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(lines.len(), 2, "{list}");
    let line = |change: &Change| {
        format!(
            "{id} {} {} mallory ",
            change.hash(),
            change.raw_bytes().len()
        )
    };
    assert!(lines[0].starts_with(&line(unsound)), "{list}");
    assert!(lines[1].starts_with(&line(after)), "{list}");
    let file = relay.data().join("taken-out");
    let to = file.to_str().unwrap();
    assert!(run(&["export", &format!("automerge:{id}"), "--to", to]).0);
    let expected = [unsound.raw_bytes(), after.raw_bytes()].concat();
    assert_eq!(std::fs::read(&file).unwrap(), expected);
    let (done, again) = run(&["export", &id, "--to", to]);
    assert!(!done && again.contains("cannot write"), "{again}");
    assert!(run(&["drop", &id]).0);
    let (_, list) = run(&["list"]);
    let dropped = format!("{id} {} 0 mallory ", unsound.hash());
    assert!(list.starts_with(&dropped), "{list}");
    let (done, unknown) = run(&["drop", "4NMNnkMhL8jXrdJ9jamS58PAVdXu"]);
    assert!(
        !done && unknown.contains("no quarantined changes"),
        "{unknown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn inline_an_unsound_change_is_never_stored_nor_passed_on() {
    let (first, unsound, honest) = forge::unsound([1; 16]);
    let mut relay = Relay::start_with(&["--verify", "inline"]);
    let (mut editor, at) = editor(&relay, &first).await;
    let mut mallory = Told::join(&relay, "mallory").await;
    // In one message with a good one, which stays.
    let heads = sorted([unsound.hash(), honest.hash()]);
    let changes = [unsound.raw_bytes(), honest.raw_bytes()];
    mallory.sync(&heads, &changes).await;
    let reason = mallory.refused(unsound.hash()).await;
    assert!(reason.contains("make no document"), "{reason}");
    editor
        .until(|editor| editor.document(at).heads() == [honest.hash()])
        .await
        .unwrap();
    assert!(!editor.document(at).has(&unsound.hash()));
    relay.kill();
    relay.start_again();
    let mut document = fetched(&relay, "fresh", &[honest.hash()]).await;
    assert_eq!(hashes(document.document()).len(), first.len() + 1);
}

/// Aim: a relay that is told to stop while an inline check runs commits what it took in, as `--help`
/// says, and calls nothing a failure. Method: the check's process is stopped when it is met, and
/// goes on when the relay has closed its connections.
#[tokio::test(flavor = "multi_thread")]
async fn inline_a_check_that_runs_when_the_relay_stops_is_ended() {
    let mut relay = Relay::start_with(&["--verify", "inline"]);
    let (mut typist, first) = Typist::new(7);
    let mut editor = Client::connect(&relay.url(), "editor").await.unwrap();
    let at = editor.open(Document::created(document(), [first]));
    editor.until_acked(at).await.unwrap();
    let (edit, child) = loop {
        let edit = typist.keystroke();
        let hash = edit.hash;
        editor.write(at, edit);
        editor.flush().await.unwrap();
        let child = loop {
            let child = relay.stop_child();
            let heads = editor.document(at).relay_heads();
            if child.is_some() || heads.is_some_and(|heads| heads.contains(&hash)) {
                break child;
            }
            let next = editor.next_in_time();
            let _ = tokio::time::timeout(Duration::from_micros(100), next).await;
        };
        if let Some(child) = child {
            break (hash, child);
        }
    };
    relay.ask_to_end();
    // Nothing comes any more but the end.
    while editor.next_in_time().await.is_ok() {}
    assert!(!editor.document(at).relay_heads().unwrap().contains(&edit));
    relay.continue_child(child);
    let status = relay.until_ended();
    let log = relay.log();
    assert!(status.is_some_and(|status| status.success()), "{log}");
    for word in ["ERROR", "WARN", "fail"] {
        let lines = log
            .lines()
            .filter(|line| !line.contains("a new store was made"));
        let found = lines.filter(|line| line.contains(word)).count();
        assert_eq!(found, 0, "{word} in {log}");
    }
    relay.start_again();
    fetched(&relay, "fresh", &[edit]).await;
}

/// The browser suite has no way to forge such changes.
#[test]
fn the_browser_suite_has_the_changes_that_are_forged_here() {
    let (first, unsound, honest) = forge::unsound([1; 16]);
    let hex = |change: &Change| {
        let digits = |byte: &u8| format!("{byte:02x}");
        let digits: String = change.raw_bytes().iter().map(digits).collect();
        format!("\"{digits}\"")
    };
    let first: Vec<_> = first.iter().map(hex).collect();
    let expected = format!(
        "{{\n  \"first\": [{}],\n  \"unsound\": {},\n  \"honest\": {}\n}}\n",
        first.join(", "),
        hex(&unsound),
        hex(&honest),
    );
    assert_eq!(include_str!("browser/lib/unsound.json"), expected);
}

/// The relay passes it on, since it checks much later; our client does not need that check.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_without_an_unsound_change() {
    let (first, unsound, honest) = forge::unsound([1; 16]);
    let relay = Relay::start_with(&["--verify-lag-s", "3600"]);
    let mut editor = Client::connect(&relay.url(), "editor").await.unwrap();
    let at = editor.open(Document::created(
        document(),
        first.iter().map(light_change),
    ));
    editor.until_acked(at).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.redb");
    let open = || Repo::builder().relay(&relay.url()).file(&file).build();
    let repo = open().await.unwrap();
    let url = format!("automerge:{}", document());
    let ours = repo.find(&url).await.unwrap();
    let mut changes = ours.changes();
    let mut mallory = Told::join(&relay, "mallory").await;
    mallory
        .sync(&[unsound.hash()], &[unsound.raw_bytes()])
        .await;
    editor
        .until(|editor| editor.document(at).has(&unsound.hash()))
        .await
        .unwrap();
    editor.write(at, light_change(&honest));
    editor.until_acked(at).await.unwrap();
    let has = |hash: ChangeHash| {
        let has = |doc: &Automerge| doc.get_change_meta_by_hash(&hash).is_some();
        ours.read(has).unwrap_or(false)
    };
    let seen = async {
        while !has(honest.hash()) {
            changes.next().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
    assert!(!has(unsound.hash()));
    // It is told, and can be had.
    assert_eq!(**ours.quarantined().borrow(), [unsound.hash()]);
    let aside = repo.quarantined(&url).await.unwrap();
    assert_eq!(aside.len(), 1);
    assert_eq!(aside[0].bytes, unsound.raw_bytes());
    assert!(aside[0].reason.contains("make no document"));
    ours.change(|tx| tx.put(ROOT, "ours", 1)).unwrap();
    let synced = tokio::time::timeout(PATIENCE, ours.when_synced()).await;
    synced.unwrap().unwrap();
    repo.shutdown().await.unwrap();

    let repo = open().await.unwrap();
    let again = repo.find(&url).await.unwrap();
    let value = again.read(|doc| doc.get(ROOT, "ours").unwrap().is_some());
    assert!(value.unwrap());
    let has_unsound = |doc: &Automerge| doc.get_change_meta_by_hash(&unsound.hash()).is_some();
    assert!(!again.read(has_unsound).unwrap());
    assert_eq!(**again.quarantined().borrow(), [unsound.hash()]);
    repo.shutdown().await.unwrap();
}
