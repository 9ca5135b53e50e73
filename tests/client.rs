//! The native client against the running relay: what services rely on.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use automerge::transaction::{Transactable, Transaction};
use automerge::{Automerge, AutomergeError, ChangeHash, ObjType, PatchAction, ROOT, ReadDoc};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use reconverge::engine::{FindError, Status};
use reconverge::id::{DocumentId, PeerId};
use reconverge::native::{
    AddressError, BuildError, CHANGES_MAX, ChangeError, Changed, DocHandle, Gone, PastError, Repo,
    SyncError,
};
use reconverge::protocol::{
    self, Message, NEED_MAX, PeerMetadata, SyncEnvelope, Version, encode_sync,
};
use reconverge::storage::MemoryStorage;
use reconverge_server::access::Open;
use reconverge_server::config::Config;
use reconverge_tests::door::UNAUTHORIZED;
use reconverge_tests::light;
use reconverge_tests::patience::{PATIENCE, in_time};
use reconverge_tests::process::Relay;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message as Frame;

/// How often a peer is sent again what it was sent before, in a row.
const RESENDS_MAX: i64 = 8;

async fn client(relay: &Relay) -> Repo {
    Repo::builder().relay(&relay.url()).build().await.unwrap()
}

fn put(document: &DocHandle, key: &str, value: i64) {
    document.change(|tx| tx.put(ROOT, key, value)).unwrap();
}

fn get(document: &DocHandle, key: &str) -> Option<i64> {
    let read = |doc: &Automerge| doc.get(ROOT, key).unwrap().and_then(|(v, _)| v.as_i64());
    document.read(read).unwrap()
}

/// Waits until the document has the value.
async fn has(document: &DocHandle, key: &str, value: i64) {
    let mut changes = document.changes();
    let seen = async {
        while get(document, key) != Some(value) {
            changes.next().await.unwrap();
        }
    };
    in_time(&format!("{key} = {value}"), seen).await;
}

async fn synced(document: &DocHandle) {
    in_time("synced", document.when_synced()).await.unwrap();
}

async fn becomes(document: &DocHandle, status: Status) {
    let mut watched = document.status();
    let what = status.to_string();
    let seen = watched.wait_for(|now| *now == status);
    in_time(&what, seen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_write_one_document() {
    let relay = Relay::start();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let of_ann = ann.create().unwrap();
    let found = in_time("find", bob.find(&of_ann.url())).await;
    let of_bob = found.unwrap();
    for n in 0..200 {
        put(&of_ann, "ann", n);
        put(&of_bob, "bob", n);
    }
    has(&of_bob, "ann", 199).await;
    has(&of_ann, "bob", 199).await;
    synced(&of_ann).await;
    synced(&of_bob).await;
    assert_eq!(of_ann.heads().unwrap(), of_bob.heads().unwrap());

    let mut heard = of_bob.ephemeral();
    of_ann.broadcast(b"hello");
    let heard = in_time("presence", heard.next()).await.unwrap();
    assert_eq!(&*heard.data, b"hello");
    assert_eq!(&heard.sender, ann.peer_id());
    let mut changes = of_ann.changes();
    ann.shutdown().await.unwrap();
    bob.shutdown().await.unwrap();
    assert!(of_ann.change(|tx| tx.put(ROOT, "late", 1)).is_err());
    assert_eq!(get(&of_ann, "ann"), Some(199), "it can still be read");
    assert_eq!(in_time("the end", changes.next()).await, None);
    assert!(matches!(
        ann.find(&of_ann.url()).await,
        Err(FindError::Closed)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_without_a_relay_survives_a_restart_and_is_sent_though_nobody_opens_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.redb");
    let mut relay = Relay::start();
    relay.kill();
    let build = async || {
        let builder = Repo::builder().relay(&relay.url()).file(&file);
        builder.build().await.unwrap()
    };
    let repo = build().await;
    let document = repo.create().unwrap();
    for n in 0..10 {
        put(&document, "n", n);
    }
    assert_eq!(*document.status().borrow(), Status::Offline);
    let url = document.url();
    repo.flush().await.unwrap();
    // It is not shut down, only gone.
    drop((document, repo));

    let second = async {
        loop {
            // The file is free when the first run has ended.
            match Repo::builder()
                .relay(&relay.url())
                .file(&file)
                .build()
                .await
            {
                Ok(repo) => return repo,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let second = in_time("the file", second).await;
    // Offline, from the file alone, and by a new actor.
    let document = second.find(&url).await.unwrap();
    assert_eq!(get(&document, "n"), Some(9));
    put(&document, "again", 1);
    let actors: BTreeSet<_> = document
        .history()
        .unwrap()
        .into_iter()
        .map(|c| c.actor)
        .collect();
    assert_eq!(actors.len(), 2, "a fresh actor at every open");
    drop(document);
    second.shutdown().await.unwrap();

    // The third run opens nothing.
    let third = build().await;
    relay.start_again();
    let bob = client(&relay).await;
    let found = async {
        loop {
            match bob.find(&url).await {
                Ok(found) => return found,
                Err(FindError::Unavailable) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let of_bob = in_time("the document at the relay", found).await;
    has(&of_bob, "n", 9).await;
    has(&of_bob, "again", 1).await;
    third.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_killed_comes_back_with_all_that_was_saved() {
    let mut relay = Relay::start();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let of_ann = ann.create().unwrap();
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    for round in 0..3 {
        put(&of_ann, "saved", round);
        synced(&of_ann).await;
        relay.kill();
        assert_eq!(*of_ann.status().borrow(), Status::Saved, "it is on disk");
        put(&of_ann, "offline", round);
        put(&of_bob, "bob", round);
        becomes(&of_ann, Status::Offline).await;
        relay.start_again();
        has(&of_bob, "offline", round).await;
        has(&of_ann, "bob", round).await;
        synced(&of_ann).await;
        synced(&of_bob).await;
    }
    ann.shutdown().await.unwrap();
    bob.shutdown().await.unwrap();
    relay.kill();
    relay.start_again();
    let eve = client(&relay).await;
    let of_eve = in_time("find", eve.find(&of_ann.url())).await.unwrap();
    assert_eq!(get(&of_eve, "saved"), Some(2));
    assert_eq!(get(&of_eve, "offline"), Some(2));
}

/// A copy of the process wrote another change under the same actor, and the relay has that one.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_actor_was_reused_is_made_again_by_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.redb");
    let mut relay = Relay::start();
    let url = relay.url();
    let build = async || {
        let builder = Repo::builder().relay(&url).file(&file);
        builder.build().await.unwrap()
    };
    let repo = build().await;
    let document = repo.create().unwrap();
    put(&document, "n", 0);
    synced(&document).await;
    let (heads, url) = (document.heads().unwrap(), document.url());
    let saved = repo.export(&url).await.unwrap();
    relay.kill();
    put(&document, "n", 1);
    put(&document, "again", 1);
    repo.shutdown().await.unwrap();
    drop((document, repo));
    relay.start_again();

    let mut copy = Automerge::load(&saved).unwrap();
    let last = copy.get_last_local_change();
    let actor = copy.get_change_by_hash(&heads[0]).or(last).unwrap();
    copy.set_actor(actor.actor_id().clone());
    copy.transact::<_, _, AutomergeError>(|tx| tx.put(ROOT, "copy", 1))
        .unwrap();
    let other = copy.get_last_local_change().unwrap();
    assert_eq!(other.seq(), actor.seq() + 1);
    let id: DocumentId = url.parse().unwrap();
    let mut forger = light::Client::connect(&relay.url(), "copy").await.unwrap();
    let at = forger.open(light::Document::resumed(id, heads));
    forger.write(at, (&other).into());
    in_time("the copy's change", forger.until_acked(at))
        .await
        .unwrap();

    let again = build().await;
    let bob = client(&relay).await;
    let of_bob = in_time("find", bob.find(&url)).await.unwrap();
    for (key, value) in [("copy", 1), ("n", 1), ("again", 1)] {
        has(&of_bob, key, value).await;
    }
    let document = in_time("find", again.find(&url)).await.unwrap();
    synced(&document).await;
    assert_eq!(document.heads().unwrap(), of_bob.heads().unwrap());
    put(&document, "n", 2);
    has(&of_bob, "n", 2).await;
    again.shutdown().await.unwrap();
}

/// The relay with a disk and access that change on command.
struct FaultyRelay {
    child: Child,
    commands: ChildStdin,
    lines: mpsc::Receiver<String>,
    url: String,
    folder: tempfile::TempDir,
}

impl FaultyRelay {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_faulty-relay"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let (line, lines) = mpsc::sync_channel(64);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for read in stdout.lines().map_while(Result::ok) {
                let _ = line.send(read);
            }
        });
        let ready = lines.recv_timeout(PATIENCE).unwrap();
        let (_, address) = ready.split_once("listening on ").unwrap();
        let url = format!("ws://{}/", address.trim());
        Self {
            commands: child.stdin.take().unwrap(),
            child,
            lines,
            url,
            folder,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    async fn logged(&self, words: &str) {
        let logged = async {
            while !self.log().contains(words) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let timely = tokio::time::timeout(PATIENCE, logged).await;
        timely.unwrap_or_else(|_| panic!("{words:?} is not in {}", self.log()));
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
        let answer = self.lines.recv_timeout(PATIENCE).unwrap();
        assert_eq!(answer, format!("ok {command}"));
    }
}

impl Drop for FaultyRelay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn saved_is_said_only_after_the_relays_disk_has_it() {
    let mut relay = FaultyRelay::start();
    let repo = Repo::builder().relay(&relay.url).build().await.unwrap();
    let document = repo.create().unwrap();
    synced(&document).await;
    relay.tell("hold-syncs");
    put(&document, "n", 1);
    assert_eq!(*document.status().borrow(), Status::Saving);
    let early = tokio::time::timeout(Duration::from_secs(2), document.when_synced()).await;
    assert!(early.is_err(), "the relay's disk has not got it");
    assert_eq!(*document.status().borrow(), Status::Saving);
    relay.tell("release-syncs");
    synced(&document).await;
    relay.tell("fail-sync 2");
    put(&document, "n", 2);
    synced(&document).await;
    repo.shutdown().await.unwrap();
}

/// Aim: on a full disk, what was committed is read, what is new waits and is lost to nobody, and the
/// log has a line for each change of state.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_relays_disk_is_full_what_is_stored_is_read() {
    let mut relay = FaultyRelay::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ann.redb");
    let ann = Repo::builder().relay(&relay.url).file(&file);
    let ann = ann.build().await.unwrap();
    let documents: Vec<_> = (0..10).map(|_| ann.create().unwrap()).collect();
    for document in &documents {
        put(document, "n", 1);
        synced(document).await;
    }
    relay.tell("fill");
    put(&documents[0], "n", 2);
    relay.logged("storage fails").await;
    for of_ann in &documents {
        let bob = Repo::builder().relay(&relay.url).build().await.unwrap();
        let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
        assert_eq!(
            get(&of_bob, "n"),
            Some(1),
            "what is not on disk is not told"
        );
        bob.shutdown().await.unwrap();
    }
    assert_eq!(*documents[0].status().borrow(), Status::Saving);
    assert_eq!(*documents[9].status().borrow(), Status::Saved);
    relay.tell("empty");
    ann.shutdown().await.unwrap();
    let ann = Repo::builder().relay(&relay.url).file(&file);
    let ann = ann.build().await.unwrap();
    let of_ann = ann.find(&documents[0].url()).await.unwrap();
    synced(&of_ann).await;
    let bob = Repo::builder().relay(&relay.url).build().await.unwrap();
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    assert_eq!(get(&of_bob, "n"), Some(2));
    relay.logged("storage works again").await;
    let log = relay.log();
    let told = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(
        (told("ERROR"), told("storage works again")),
        (1, 1),
        "{log}"
    );
    assert!(
        log.contains("no room, as it was told") && log.contains("failures="),
        "{log}"
    );
}

/// Aim: however often the relay tried in vain, what was edited meanwhile reaches it when its disk has
/// room again, on the same connection, and the log does not grow with the time.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_edited_while_the_relays_disk_is_full_is_synced_when_there_is_room() {
    let mut relay = FaultyRelay::start();
    let ann = Repo::builder().relay(&relay.url).build().await.unwrap();
    let bob = Repo::builder().relay(&relay.url).build().await.unwrap();
    let of_ann = ann.create().unwrap();
    put(&of_ann, "n", 0);
    synced(&of_ann).await;
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    // More often than anybody is sent again what was sent before.
    for round in 1..=RESENDS_MAX + 1 {
        relay.tell("fill");
        put(&of_ann, "n", round);
        relay.tell("refused 1");
        put(&of_ann, "ann", round);
        put(&of_bob, "bob", round);
        let new = ann.create().unwrap();
        put(&new, "n", round);
        relay.tell(if round == 1 {
            "refused 12"
        } else {
            "refused 1"
        });
        assert_eq!(*of_ann.status().borrow(), Status::Saving);
        relay.tell("empty");
        for document in [&of_ann, &of_bob, &new] {
            synced(document).await;
        }
        has(&of_ann, "bob", round).await;
        has(&of_bob, "ann", round).await;
    }
    let log = relay.log();
    let told = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!((told("joined"), told("ERROR")), (2, 1), "{log}");
    assert!(told("") < 40, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_told_that_its_changes_are_refused() {
    let mut relay = FaultyRelay::start();
    let ann = Repo::builder().relay(&relay.url).build().await.unwrap();
    let of_ann = ann.create().unwrap();
    put(&of_ann, "n", 1);
    synced(&of_ann).await;
    relay.tell("read-only");
    let bob = Repo::builder().relay(&relay.url).build().await.unwrap();
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    assert_eq!(get(&of_bob, "n"), Some(1));
    synced(&of_bob).await;
    put(&of_bob, "n", 2);
    let refused = in_time("refusal", of_bob.when_synced()).await;
    assert!(matches!(refused, Err(SyncError::Refused(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_joins_two_relays() {
    let (mut first, second) = (Relay::start(), Relay::start());
    let both = Repo::builder().relay(&first.url()).relay(&second.url());
    let both = both.build().await.unwrap();
    let (ann, bob) = (client(&first).await, client(&second).await);
    let of_ann = ann.create().unwrap();
    synced(&of_ann).await;
    let between = in_time("find", both.find(&of_ann.url())).await.unwrap();
    synced(&between).await;
    let found = async {
        loop {
            match bob.find(&of_ann.url()).await {
                Ok(found) => return found,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let of_bob = in_time("the document at the second relay", found).await;
    put(&of_ann, "ann", 1);
    has(&of_bob, "ann", 1).await;
    put(&of_bob, "bob", 2);
    has(&of_ann, "bob", 2).await;
    // With one relay away, the other is enough to be saved.
    first.kill();
    put(&between, "n", 3);
    synced(&between).await;
    has(&of_bob, "n", 3).await;
    first.start_again();
    has(&of_ann, "n", 3).await;
}

/// A text that follows patches, and knows nothing else.
#[derive(Default)]
struct Follower {
    text: String,
    heads: Vec<ChangeHash>,
    items: usize,
}

impl Follower {
    fn take(&mut self, changed: &Changed) {
        assert_eq!(changed.before, self.heads, "no gap");
        self.heads.clone_from(&changed.after);
        self.items += 1;
        for patch in &changed.patches {
            match &patch.action {
                PatchAction::SpliceText { index, value, .. } => {
                    self.text.insert_str(*index, &value.make_string());
                }
                PatchAction::DeleteSeq { index, length } => {
                    self.text.replace_range(*index..index + length, "");
                }
                action => panic!("{action:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_applies_the_patches_sees_what_the_document_shows() {
    let relay = Relay::start();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let of_ann = ann.create_with(|tx| tx.put_object(ROOT, "text", ObjType::Text));
    let of_ann = of_ann.unwrap();
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    let text = of_ann.read(|doc| doc.get(ROOT, "text").unwrap().unwrap().1);
    let text = text.unwrap();
    let shown = |document: &DocHandle| document.read(|doc| doc.text(&text).unwrap()).unwrap();
    let new = || Follower {
        heads: of_ann.heads().unwrap(),
        ..Follower::default()
    };
    let (mut awake, mut asleep) = (new(), new());
    let (mut changes, mut late) = (of_ann.changes(), of_ann.changes());
    for n in 0..3 * CHANGES_MAX {
        let type_at = |document: &DocHandle, at: usize, word: &str, deleted: isize| {
            let splice = |tx: &mut Transaction<'_>| tx.splice_text(&text, at, deleted, word);
            document.change(splice).unwrap();
        };
        let end = shown(&of_ann).len();
        type_at(&of_ann, end / 2, "abc", isize::from(end > 4));
        type_at(&of_bob, 0, "x", 0);
        if n % 3 == 0 {
            awake.take(&in_time("a change", changes.next()).await.unwrap());
        }
    }
    synced(&of_ann).await;
    synced(&of_bob).await;
    let agree = async {
        while of_ann.heads().unwrap() != of_bob.heads().unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("agreement", agree).await;
    let heads = of_ann.read(Automerge::get_heads).unwrap();
    for (follower, changes) in [(&mut awake, &mut changes), (&mut asleep, &mut late)] {
        while follower.heads != heads {
            follower.take(&in_time("a change", changes.next()).await.unwrap());
        }
        assert_eq!(follower.text, shown(&of_ann));
    }
    assert!(awake.items > asleep.items, "who is late gets it as one");
    assert_eq!(asleep.items, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_without_handles_leaves_memory_and_comes_back_as_it_is_by_then() {
    let relay = Relay::start();
    let ann = Repo::builder().relay(&relay.url());
    let ann = ann.release_after(Duration::from_millis(50)).build();
    let (ann, bob) = (ann.await.unwrap(), client(&relay).await);
    let of_ann = ann.create().unwrap();
    put(&of_ann, "n", 1);
    synced(&of_ann).await;
    let (url, changes) = (of_ann.url(), of_ann.changes());
    let of_bob = in_time("find", bob.find(&url)).await.unwrap();
    let leaves = async |count: usize| {
        while ann.documents_in_memory() != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    drop(of_ann);
    let kept = tokio::time::timeout(Duration::from_millis(300), leaves(0)).await;
    assert!(kept.is_err(), "its changes are listened to");
    drop(changes);
    in_time("released", leaves(0)).await;
    put(&of_bob, "n", 2);
    synced(&of_bob).await;
    in_time("released again", leaves(0)).await;
    let again = in_time("find", ann.find(&url)).await.unwrap();
    has(&again, "n", 2).await;
    put(&again, "n", 3);
    has(&of_bob, "n", 3).await;
    synced(&again).await;
    assert_eq!(ann.documents_in_memory(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_heard_after_the_end() {
    let repo = Repo::builder().build().await.unwrap();
    let (deleted, kept) = (repo.create().unwrap(), repo.create().unwrap());
    put(&deleted, "n", 1);
    for (document, deletes) in [(&deleted, true), (&kept, false)] {
        let before = (document.changes(), document.ephemeral(), document.status());
        if deletes {
            repo.delete(&document.url()).await.unwrap();
        } else {
            in_time("shutdown", repo.shutdown()).await.unwrap();
        }
        let after = (document.changes(), document.ephemeral(), document.status());
        for (mut changes, mut ephemeral, mut status) in [before, after] {
            let ended = async {
                // What changed before the end may still be told.
                while changes.next().await.is_some() {}
                while ephemeral.next().await.is_some() {}
                while status.changed().await.is_ok() {}
            };
            in_time("the end", ended).await;
        }
        let synced = in_time("the end", document.when_synced()).await;
        let why = if deletes { Gone::Deleted } else { Gone::Closed };
        assert_eq!(synced, Err(SyncError::Gone(why)));
        let changed = document.change(|tx| tx.put(ROOT, "n", 2));
        assert_eq!(changed, Err(ChangeError::Gone(why)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_client_cannot_be_built_names_the_file_and_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("one.redb"), folder.path().join("link"));
    let repo = Repo::builder().file(&file).build().await.unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        let error = Repo::builder().file(path).build().await.unwrap_err();
        assert!(
            matches!(error, BuildError::InUse { here: true, .. }),
            "{error:?}"
        );
        let said = error.to_string();
        assert!(said.starts_with(path.to_str().unwrap()), "{said}");
        assert!(said.contains("another client of this process"), "{said}");
    }
    repo.shutdown().await.unwrap();
    let again = Repo::builder().file(&link).build().await.unwrap();
    again.shutdown().await.unwrap();
    for path in [
        folder.path().join("no/such/folder"),
        folder.path().to_owned(),
    ] {
        let error = Repo::builder().file(&path).build().await.unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
    let outside = std::thread::spawn(|| futures::executor::block_on(Repo::builder().build()));
    let outside = outside.join().unwrap();
    assert!(matches!(outside, Err(BuildError::NoRuntime)));
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_have_messages_and_results_and_any_error() -> Result<(), Box<dyn std::error::Error>> {
    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    struct Stock {
        lamps: u64,
    }
    let repo = Repo::builder().build().await?;
    let document = repo.create_with(|tx| tx.put(ROOT, "lamps", 3_u64))?;
    let left = document.update(|stock: &mut Stock| {
        stock.lamps -= 1;
        stock.lamps
    })?;
    assert_eq!(left, 2);
    document.change_with_message("a gift", |tx| tx.put(ROOT, "lamps", 1_u64))?;
    let history = document.history()?;
    assert_eq!(history.last().unwrap().message.as_deref(), Some("a gift"));
    document.when_stored().await?;
    // What is no error itself goes on by `?` all the same.
    let refused = || -> Result<(), Box<dyn std::error::Error>> {
        document
            .change(|_| Err::<(), Box<dyn std::error::Error + Send + Sync>>("no lamps".into()))?;
        Ok(())
    };
    assert_eq!(refused().unwrap_err().to_string(), "no lamps");
    repo.shutdown().await?;
    Ok(())
}

/// Whoever shuts down a client that is being shut down waits for the end, too: the file is free then.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_shut_down_once_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.redb");
    for round in 0..20 {
        let repo = Repo::builder().file(&file).build().await.unwrap();
        let document = repo.create().unwrap();
        for n in 0..50 {
            put(&document, "n", n);
        }
        let (first, second) = (repo.clone(), repo);
        if round % 2 == 0 {
            // Nobody waits for the first one.
            let polled = tokio::time::timeout(Duration::ZERO, first.shutdown()).await;
            assert!(polled.is_err() || polled.unwrap().is_ok());
        } else {
            tokio::spawn(async move { first.shutdown().await });
        }
        in_time("shutdown", second.shutdown()).await.unwrap();
        let again = Repo::builder().file(&file).build().await.unwrap();
        let kept = again.find(&document.url()).await.unwrap();
        assert_eq!(get(&kept, "n"), Some(49));
        again.shutdown().await.unwrap();
        again.shutdown().await.unwrap();
    }
}

/// A cursor that leads to changes which nobody stored, or which did not come yet, is no cursor.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_not_known_are_an_error() {
    let repo = Repo::builder().build().await.unwrap();
    let (document, other) = (repo.create().unwrap(), repo.create().unwrap());
    put(&document, "n", 1);
    put(&other, "n", 1);
    let (known, unknown) = (document.heads().unwrap(), other.heads().unwrap());
    let told = PastError::Unknown(unknown[0]);
    let both = [known.as_slice(), &unknown].concat();
    assert_eq!(document.diff(&unknown, &known), Err(told));
    assert_eq!(document.diff(&known, &both), Err(told));
    assert_eq!(document.view(&both).err(), Some(told));
    assert_eq!(document.diff(&[], &known).unwrap().len(), 1);
    assert_eq!(document.diff(&known, &[]).unwrap().len(), 1);
    assert_eq!(document.view(&known).unwrap().get_heads(), known);
    repo.delete(&document.url()).await.unwrap();
    let gone = PastError::Gone(Gone::Deleted);
    assert_eq!(document.diff(&known, &known), Err(gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_imported_looked_back_at_exported_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.redb");
    let relay = Relay::start();
    let repo = Repo::builder()
        .relay(&relay.url())
        .file(&file)
        .build()
        .await
        .unwrap();
    let mut saved = Automerge::new();
    let text = saved
        .transact::<_, _, AutomergeError>(|tx| {
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, &"word ".repeat(2000))?;
            Ok(text)
        })
        .unwrap()
        .result;
    let document = repo.import(saved.save()).await.unwrap();
    let before = document.heads().unwrap();
    document
        .change(|tx| tx.splice_text(&text, 0, 5, "first "))
        .unwrap();
    synced(&document).await;
    let after = document.heads().unwrap();
    assert_eq!(document.history().unwrap().len(), 2);
    assert_eq!(document.diff(&before, &after).unwrap().len(), 2);
    let past = document.view(&before).unwrap();
    assert_eq!(past.text(&text).unwrap().len(), 10_000);

    let other = client(&relay).await;
    let exported = in_time("export", other.export(&document.url()))
        .await
        .unwrap();
    let exported = Automerge::load(&exported).unwrap();
    assert_eq!(exported.text(&text).unwrap()[..11], *"first word ");

    let url = document.url();
    repo.delete(&url).await.unwrap();
    assert!(document.heads().is_err());
    repo.shutdown().await.unwrap();
    drop((document, repo));
    let alone = Repo::builder().file(&file).build().await.unwrap();
    assert!(matches!(
        alone.find(&url).await,
        Err(FindError::Unavailable)
    ));
    // The relay keeps it.
    let third = client(&relay).await;
    let kept = in_time("find", third.find(&url)).await.unwrap();
    assert_eq!(kept.heads().unwrap(), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_unavailable() {
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url());
    let repo = repo.release_after(Duration::from_millis(20));
    let repo = repo.build().await.unwrap();
    let id = DocumentId::new(&[9; 16]).unwrap();
    let missing = format!("automerge:{id}");
    for _ in 0..2 {
        let found = in_time("an answer", repo.find(&missing)).await;
        assert!(matches!(found, Err(FindError::Unavailable)));
        let forgotten = async {
            while repo.documents_in_memory() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time("nothing is remembered of it", forgotten).await;
    }
    // It may appear, and then it is found on the same connection.
    let mut made = Automerge::new();
    made.transact::<_, _, AutomergeError>(|tx| tx.put(ROOT, "n", 1))
        .unwrap();
    let mut maker = light::Client::connect(&relay.url(), "maker").await.unwrap();
    let change = made.get_last_local_change().unwrap();
    let at = maker.open(light::Document::created(id, [(&change).into()]));
    in_time("the change", maker.until_acked(at)).await.unwrap();
    let found = in_time("find", repo.find(&missing)).await.unwrap();
    assert_eq!(get(&found, "n"), Some(1));
    assert!(matches!(
        repo.find("automerge:no").await,
        Err(FindError::Url(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_relay_can_be_at_is_refused_at_once() {
    for url in ["http://127.0.0.1:1/", "127.0.0.1:1", "ws://", "wss:///sync"] {
        let refused = Repo::builder().relay(url).build().await;
        let refused = refused.expect_err(url);
        let BuildError::Address(AddressError::Url { .. }) = &refused else {
            panic!("{url}: {refused}");
        };
        assert!(refused.to_string().starts_with(url), "{refused}");
    }
    let refused = Repo::builder().relay("ws://a/").token("a\nb").build().await;
    assert!(matches!(
        refused,
        Err(BuildError::Address(AddressError::Token))
    ));
    let refused = Repo::builder().relay("wss://a/").root_certificates(b"no");
    assert!(matches!(
        refused.build().await,
        Err(BuildError::Address(AddressError::Certificates(_)))
    ));
}

/// Reads a request's head; the rest of the connection is left.
async fn request_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_why_and_can_end() {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", door.local_addr().unwrap());
    let visits = tokio::spawn(async move {
        for visits in 1.. {
            let (mut stream, _) = match visits {
                1 => door.accept().await.unwrap(),
                // Nobody comes a second time.
                _ => match tokio::time::timeout(Duration::from_secs(2), door.accept()).await {
                    Ok(_) => panic!("it came again"),
                    Err(_) => return,
                },
            };
            let head = request_head(&mut stream).await.to_lowercase();
            assert!(head.contains("authorization: bearer forged"), "{head}");
            stream.write_all(UNAUTHORIZED).await.unwrap();
        }
    });
    let repo = Repo::builder().relay(&url).token("forged").build();
    let repo = repo.await.unwrap();
    let document = repo.create().unwrap();
    let refused = in_time("a refusal", document.when_synced()).await;
    let Err(SyncError::Refused(reason)) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("401"), "{reason}");
    in_time("the end", repo.shutdown()).await.unwrap();
    visits.await.unwrap();
}

/// Takes TLS off and passes the rest on; gives its port, its certificate in PEM, and the heads of
/// the requests that it saw.
async fn terminator(relay: &Relay) -> (u16, String, tokio::sync::mpsc::Receiver<String>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let relay = relay.url()["ws://".len()..]
        .trim_end_matches('/')
        .to_owned();
    let (seen, heads) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, seen, relay) = (acceptor.clone(), seen.clone(), relay.clone());
            tokio::spawn(async move {
                // Who does not trust the certificate hangs up.
                let Ok(mut inside) = acceptor.accept(stream).await else {
                    return;
                };
                let head = request_head(&mut inside).await;
                let mut outside = TcpStream::connect(relay).await.unwrap();
                outside.write_all(head.as_bytes()).await.unwrap();
                seen.send(head).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    (port, made.cert.pem(), heads)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_reached_by_tls_if_its_certificate_is_trusted() {
    let relay = Relay::start();
    let (port, certificate, mut heads) = terminator(&relay).await;
    let secure = format!("wss://localhost:{port}/?space=shop");
    let ann = Repo::builder()
        .relay(&secure)
        .token("secret")
        .root_certificates(certificate.as_bytes());
    let ann = ann.build().await.unwrap();
    let of_ann = ann.create().unwrap();
    put(&of_ann, "n", 1);
    synced(&of_ann).await;
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(head.contains("authorization: bearer secret"), "{head}");
    let bob = client(&relay).await;
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    put(&of_bob, "n", 2);
    has(&of_ann, "n", 2).await;

    let (_, other, _) = terminator(&relay).await;
    let by_address = format!("wss://127.0.0.1:{port}/");
    for (url, trusted) in [(&secure, &other), (&by_address, &certificate)] {
        let eve = Repo::builder().relay(url);
        let eve = eve.root_certificates(trusted.as_bytes()).build().await;
        let of_eve = eve.unwrap().create().unwrap();
        let refused = in_time("distrust", of_eve.when_synced()).await;
        let Err(SyncError::Refused(reason)) = refused else {
            panic!("{refused:?}");
        };
        assert!(reason.contains("certificate"), "{reason}");
    }
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Order {
    customer: String,
    items: Vec<String>,
    paid: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_edits_of_two_clients_are_merged() {
    let relay = Relay::start();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let order = Order {
        customer: "eve".into(),
        items: vec!["lamp".into()],
        paid: false,
    };
    let of_ann = ann.create_from(&order).unwrap();
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    assert_eq!(of_bob.get::<Order>().unwrap(), order);
    of_ann
        .update(|order: &mut Order| order.items.push("shade".into()))
        .unwrap();
    of_bob
        .update(|order: &mut Order| order.paid = true)
        .unwrap();
    let merged = Order {
        items: vec!["lamp".into(), "shade".into()],
        paid: true,
        ..order
    };
    for document in [&of_ann, &of_bob] {
        let mut changes = document.changes();
        let seen = async {
            while document.get::<Order>().unwrap() != merged {
                changes.next().await.unwrap();
            }
        };
        in_time("the merged order", seen).await;
    }
    put(&of_ann, "items", 3);
    assert!(
        of_ann
            .update(|order: &mut Order| order.paid = false)
            .is_err()
    );
}

/// Joins, sends a document's first message, asks for a document that nobody has, and gives back what
/// the relay said until it answered that.
async fn answers_to(relay: &Relay, reconverge: u64, message: &[u8]) -> Vec<Bytes> {
    let (mut socket, _) = tokio_tungstenite::connect_async(relay.url()).await.unwrap();
    let sync = |id: u8, data: &[u8], request: bool| {
        protocol::encode(&Message::Sync(SyncEnvelope {
            sender: "raw",
            target: "relay",
            document: DocumentId::new(&[id; 16]).unwrap().to_string().into(),
            data,
            request,
        }))
    };
    let frames = [
        protocol::encode(&Message::Join {
            sender: "raw",
            metadata: PeerMetadata {
                reconverge,
                ..PeerMetadata::default()
            },
            speaks_v1: true,
        }),
        sync(1, message, false),
        sync(2, &encode_sync(Version::V1, &[], &[], None, 0), true),
    ];
    for frame in frames {
        socket.send(Frame::Binary(frame.into())).await.unwrap();
    }
    let mut answers = Vec::new();
    loop {
        let Frame::Binary(frame) = in_time("an answer", socket.next()).await.unwrap().unwrap()
        else {
            continue;
        };
        let last = matches!(
            protocol::decode(&frame).unwrap(),
            Message::DocUnavailable { .. }
        );
        answers.push(frame);
        if last {
            return answers;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_understands_it_is_told_what_was_refused() {
    let relay = Relay::start();
    let refusals = |answers: &[Bytes]| -> Vec<String> {
        let reason = |frame: &Bytes| match protocol::decode(frame).unwrap() {
            Message::Refused(refused) => Some(refused.reason.to_owned()),
            Message::Unknown { kind } => panic!("unknown type {kind}"),
            _ => None,
        };
        answers.iter().filter_map(reason).collect()
    };
    let mut nonsense = encode_sync(Version::V1, &[ChangeHash([7; 32])], &[], None, 1);
    nonsense.extend([4, 1, 2, 3, 4]);
    let ours = refusals(&answers_to(&relay, 1, &nonsense).await);
    assert_eq!(ours, ["not an Automerge chunk"]);
    let stock = refusals(&answers_to(&relay, 0, &nonsense).await);
    assert!(stock.is_empty(), "{stock:?}");
    // A message above a limit costs its document, not the connection: the other one is answered.
    let hashes = vec![ChangeHash([7; 32]); NEED_MAX + 1];
    let many = encode_sync(Version::V1, &[ChangeHash([7; 32])], &hashes, None, 0);
    let ours = refusals(&answers_to(&relay, 1, &many).await);
    assert_eq!(ours, ["need: 65537 is above the limit of 65536"]);
    let stock = refusals(&answers_to(&relay, 0, &many).await);
    assert!(stock.is_empty(), "{stock:?}");
}

/// What is too much for a connection costs the document that is too many, not the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_above_a_connections_limit_is_refused_by_itself() {
    let config = Config {
        documents_max: 2,
        ..Config::default()
    };
    let storage = Arc::new(MemoryStorage::new("memory"));
    let name = PeerId::new("relay").unwrap();
    let relay = reconverge_server::Relay::start(config, name, storage, Arc::new(Open)).await;
    let relay = relay.unwrap();
    let url = format!("ws://{}/", relay.address());
    let ann = Repo::builder().relay(&url).build().await.unwrap();
    let within = [ann.create().unwrap(), ann.create().unwrap()];
    for document in &within {
        put(document, "n", 1);
        synced(document).await;
    }
    let above = ann.create().unwrap();
    put(&above, "n", 1);
    let reason = "documents of one connection: 3 is above the limit of 2";
    becomes(&above, Status::Refused(reason.to_owned())).await;
    for document in &within {
        put(document, "n", 2);
        synced(document).await;
    }
    // Who looks for one hears that it cannot be had.
    let unknown = format!("automerge:{}", DocumentId::new(&[7; 16]).unwrap());
    let found = in_time("an answer", ann.find(&unknown)).await;
    assert!(matches!(found, Err(FindError::Unavailable)), "{found:?}");
    relay.stop().await;
}
