//! Aim: the relay for tests does what a relay does, and what a test tells it, and no real time is waited
//! for.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant as RealInstant};

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc};
use futures::StreamExt;
use reconverge::engine::{FaultKind, FindError, Reason, RelayState, Status};
use reconverge::id::DocumentId;
use reconverge::native::testing::TestRelay;
use reconverge::native::{CACHE_BYTES_DEFAULT, DocHandle, RedbStorage, Repo, SyncError};
use reconverge_tests::faults::{FaultyFile, SyncFaults};
use reconverge_tests::patience::within;
use reconverge_tests::socket::address_of;
use tokio::time::{Instant, timeout};

/// How long something that is to come may take, by the clock of the test.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long it is waited for what does not come.
const LONG: Duration = Duration::from_secs(60);

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(PATIENCE, what, future).await
}

fn missing(n: u8) -> String {
    format!("automerge:{}", DocumentId::new(&[n; 16]).unwrap())
}

fn keys(document: &Automerge) -> Vec<String> {
    document.keys(ROOT).collect()
}

fn set(document: &DocHandle, key: &str) {
    document.change(|tx| tx.put(ROOT, key, 1)).unwrap();
}

async fn client(relay: &TestRelay) -> Repo {
    Repo::builder().relay(&relay.url()).build().await.unwrap()
}

async fn becomes(repo: &Repo, state: RelayState) -> Option<FaultKind> {
    let mut connections = repo.connections();
    let seen = connections.wait_for(|now| now[0].state == state);
    let seen = in_time(&format!("{state:?}"), seen).await.unwrap();
    seen[0].fault.as_ref().map(|fault| fault.kind)
}

async fn has(document: &DocHandle, key: &str) {
    let mut changes = document.changes();
    let is_there = async {
        while !document.read(keys).unwrap().iter().any(|has| has == key) {
            changes.next().await.unwrap();
        }
    };
    in_time(key, is_there).await;
}

#[tokio::test(start_paused = true)]
async fn what_one_writes_another_finds_and_follows() {
    let relay = TestRelay::new();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let anns = ann.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    assert_eq!(relay.documents(), Vec::<String>::new());
    in_time("synced", anns.when_synced()).await.unwrap();
    assert_eq!(relay.documents(), [anns.url()]);
    let bobs = in_time("found", bob.find(&anns.url())).await.unwrap();
    set(&bobs, "b");
    has(&anns, "b").await;
    set(&anns, "c");
    has(&bobs, "c").await;
    in_time("synced", anns.when_synced()).await.unwrap();
    in_time("synced", bobs.when_synced()).await.unwrap();
    let kept = relay.document(&anns.url()).unwrap();
    assert_eq!(keys(&kept), ["a", "b", "c"]);
    assert_eq!(kept.get_heads(), anns.heads().unwrap());

    let found = in_time("an answer", bob.find(&missing(1))).await;
    assert!(matches!(found, Err(FindError::Unavailable)), "{found:?}");
    assert!(relay.document(&missing(1)).is_none());
    assert_eq!(relay.documents(), [anns.url()]);
    let mut peers = [ann.peer_id().clone(), bob.peer_id().clone()];
    peers.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    let mut joined = relay.peers();
    joined.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    assert_eq!(joined, peers);
    ann.shutdown().await.unwrap();
    in_time("gone", relay.until(|relay| relay.peers().len() == 1)).await;
    bob.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outage_takes_no_real_time() {
    let (began, began_really) = (Instant::now(), RealInstant::now());
    let relay = TestRelay::new();
    let repo = client(&relay).await;
    let document = repo.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    in_time("synced", document.when_synced()).await.unwrap();
    assert_eq!(*document.status().borrow(), Status::Saved);

    relay.cut();
    assert_eq!(relay.peers(), []);
    set(&document, "b");
    let late = timeout(Duration::from_secs(25), document.when_synced()).await;
    assert!(late.is_err(), "{late:?}");
    assert_eq!(*document.status().borrow(), Status::Offline);
    assert_eq!(
        becomes(&repo, RelayState::Waiting).await,
        Some(FaultKind::Network)
    );
    assert_eq!(keys(&relay.document(&document.url()).unwrap()), ["a"]);
    // Who searches waits for a relay as long as the client is told to, and not longer.
    let asked = Instant::now();
    let found = repo.find(&missing(1)).await;
    let Err(FindError::Unreachable(fault)) = found else {
        panic!("{found:?}");
    };
    assert_eq!(fault.kind, FaultKind::Network);
    assert_eq!(asked.elapsed(), Duration::from_secs(10));

    relay.restore();
    let back = Instant::now();
    in_time("synced", document.when_synced()).await.unwrap();
    assert!(
        back.elapsed() <= Duration::from_millis(1100),
        "who waits is tried each second"
    );
    assert_eq!(becomes(&repo, RelayState::Connected).await, None);
    assert_eq!(keys(&relay.document(&document.url()).unwrap()), ["a", "b"]);
    repo.shutdown().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(35));
    println!("{:?} took {:?}", began.elapsed(), began_really.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_slow_holds_acknowledgements_and_what_others_see() {
    let relay = TestRelay::new();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let anns = ann.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    in_time("synced", anns.when_synced()).await.unwrap();
    let bobs = in_time("found", bob.find(&anns.url())).await.unwrap();

    relay.hold_acknowledgements();
    set(&anns, "b");
    assert!(timeout(LONG, anns.when_synced()).await.is_err());
    assert_eq!(*anns.status().borrow(), Status::Saving);
    assert_eq!(bobs.read(keys).unwrap(), ["a"]);
    assert_eq!(relay.waiting(), [anns.url()]);
    assert_eq!(keys(&relay.document(&anns.url()).unwrap()), ["a"]);
    // A new document is not there yet for others, and it is not said that it does not exist.
    let new = ann.create_with(|tx| tx.put(ROOT, "n", 1)).unwrap();
    in_time("sent", relay.until(|relay| relay.waiting().len() == 2)).await;
    let late = bob.find_within(&new.url(), LONG).await;
    assert!(matches!(late, Err(FindError::Late)), "{late:?}");
    let url = new.url();
    let found = bob.find(&url);
    let acknowledge = async {
        tokio::time::sleep(LONG).await;
        relay.acknowledge();
    };
    let (found, ()) = in_time("found", async { tokio::join!(found, acknowledge) }).await;
    assert_eq!(found.unwrap().read(keys).unwrap(), ["n"]);
    in_time("synced", anns.when_synced()).await.unwrap();
    assert_eq!(relay.waiting(), Vec::<String>::new());
    has(&bobs, "b").await;
    // From now on it is fast again.
    set(&anns, "c");
    in_time("synced", anns.when_synced()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_takes_is_sent_again() {
    let relay = TestRelay::new();
    let repo = client(&relay).await;
    let document = repo.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    in_time("synced", document.when_synced()).await.unwrap();
    relay.hold_acknowledgements();
    set(&document, "b");
    let new = repo.create_with(|tx| tx.put(ROOT, "n", 1)).unwrap();
    in_time("sent", relay.until(|relay| relay.waiting().len() == 2)).await;
    relay.crash();
    assert_eq!(relay.waiting(), Vec::<String>::new());
    assert_eq!(relay.documents(), [document.url()]);
    assert_eq!(keys(&relay.document(&document.url()).unwrap()), ["a"]);
    relay.acknowledge();
    in_time("synced", document.when_synced()).await.unwrap();
    in_time("synced", new.when_synced()).await.unwrap();
    assert_eq!(keys(&relay.document(&document.url()).unwrap()), ["a", "b"]);
    assert_eq!(keys(&relay.document(&new.url()).unwrap()), ["n"]);
}

#[tokio::test(start_paused = true)]
async fn a_short_silence_ends_no_connection_and_a_long_one_does() {
    let relay = TestRelay::new();
    let (repo, other) = (client(&relay).await, client(&relay).await);
    let document = repo.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    in_time("synced", document.when_synced()).await.unwrap();
    let same = in_time("found", other.find(&document.url())).await.unwrap();
    let peers = relay.peers();
    relay.silence();
    set(&document, "b");
    set(&same, "c");
    let short = Duration::from_secs(15);
    assert!(timeout(short, document.when_synced()).await.is_err());
    assert_eq!(*document.status().borrow(), Status::Saving);
    // It is connected, and does not answer.
    let late = repo.find_within(&missing(1), Duration::from_secs(1)).await;
    assert!(matches!(late, Err(FindError::Late)), "{late:?}");
    assert_eq!(becomes(&repo, RelayState::Connected).await, None);
    relay.restore();
    has(&document, "c").await;
    has(&same, "b").await;
    in_time("synced", document.when_synced()).await.unwrap();
    assert_eq!(relay.peers(), peers, "on the connections that there were");

    relay.silence();
    set(&document, "d");
    assert!(timeout(LONG, document.when_synced()).await.is_err());
    let fault = in_time("given up", async {
        let mut connections = repo.connections();
        let given_up = connections.wait_for(|now| now[0].fault.is_some()).await;
        given_up.unwrap()[0].fault.clone().unwrap()
    });
    assert_eq!(fault.await.kind, FaultKind::Silence);
    let found = repo.find(&missing(1)).await;
    let is_silent =
        matches!(&found, Err(FindError::Unreachable(fault)) if fault.kind == FaultKind::Silence);
    assert!(is_silent, "{found:?}");
    relay.restore();
    in_time("synced", document.when_synced()).await.unwrap();
    has(&same, "d").await;
}

#[tokio::test(start_paused = true)]
async fn who_answers_with_a_status_is_no_relay() {
    let relay = TestRelay::new();
    let repo = client(&relay).await;
    let document = repo.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    in_time("synced", document.when_synced()).await.unwrap();

    relay.refuse_connections(503);
    let asked = Instant::now();
    let found = repo.find(&missing(1)).await;
    let Err(FindError::Unreachable(fault)) = found else {
        panic!("{found:?}");
    };
    assert_eq!(fault.kind, FaultKind::Http(503));
    assert_eq!(asked.elapsed(), Duration::from_secs(10), "it may come back");
    set(&document, "b");
    assert_eq!(*document.status().borrow(), Status::Offline);

    relay.refuse_connections(401);
    let fault = becomes(&repo, RelayState::Refused).await;
    assert_eq!(fault, Some(FaultKind::Http(401)));
    let asked = Instant::now();
    let found = repo.find(&missing(1)).await;
    assert!(matches!(found, Err(FindError::Unreachable(_))), "{found:?}");
    assert_eq!(asked.elapsed(), Duration::ZERO, "nothing is waited for");
    let synced = in_time("an answer", document.when_synced()).await;
    assert!(matches!(synced, Err(SyncError::Refused(_))), "{synced:?}");

    relay.restore();
    tokio::time::sleep(LONG).await;
    assert_eq!(
        becomes(&repo, RelayState::Refused).await,
        fault,
        "it is not tried again"
    );
    repo.reconnect();
    in_time("synced", document.when_synced()).await.unwrap();
    assert_eq!(keys(&relay.document(&document.url()).unwrap()), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn changes_that_are_refused_are_taken_later() {
    let relay = TestRelay::new();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let anns = ann.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    in_time("synced", anns.when_synced()).await.unwrap();
    relay.refuse_changes("the shop is closed");
    let bobs = in_time("found", bob.find(&anns.url())).await.unwrap();
    set(&bobs, "b");
    let new = ann.create_with(|tx| tx.put(ROOT, "n", 1)).unwrap();
    let refused = SyncError::Refused(Reason::new("test", "the shop is closed"));
    assert_eq!(
        in_time("an answer", bobs.when_synced()).await,
        Err(refused.clone())
    );
    assert_eq!(in_time("an answer", new.when_synced()).await, Err(refused));
    let status = Status::Refused(Reason::new("test", "the shop is closed"));
    assert_eq!(*bobs.status().borrow(), status);
    assert_eq!(becomes(&bob, RelayState::Connected).await, None);
    assert_eq!(anns.read(keys).unwrap(), ["a"]);
    assert_eq!(relay.documents(), [anns.url()]);
    let found = in_time("an answer", bob.find(&new.url())).await;
    assert!(matches!(found, Err(FindError::Unavailable)), "{found:?}");
    relay.accept_changes();
    has(&anns, "b").await;
    in_time("synced", new.when_synced()).await.unwrap();
    in_time("synced", bobs.when_synced()).await.unwrap();
    assert!(in_time("found", bob.find(&new.url())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_import_is_acknowledged_and_found() {
    let relay = TestRelay::new();
    let mut large = automerge::AutoCommit::new();
    for n in 0..2000 {
        large.put(ROOT, format!("{}", n % 50), n).unwrap();
        large.commit();
    }
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let imported = ann.import(large.save()).await.unwrap();
    in_time("synced", imported.when_synced()).await.unwrap();
    let found = in_time("found", bob.find(&imported.url())).await.unwrap();
    assert_eq!(found.heads().unwrap(), imported.heads().unwrap());
    assert_eq!(found.history().unwrap().len(), 2000);
    let mut kept = relay.document(&imported.url()).unwrap().get_heads();
    kept.sort_unstable();
    assert_eq!(kept, imported.heads().unwrap());
}

#[tokio::test(start_paused = true)]
async fn presence_is_passed_on_and_seen() {
    let relay = TestRelay::new();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let anns = ann.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    in_time("synced", anns.when_synced()).await.unwrap();
    let bobs = in_time("found", bob.find(&anns.url())).await.unwrap();
    let mut heard = bobs.ephemeral();
    anns.broadcast(b"\x63hey");
    let told = in_time("presence", heard.next()).await.unwrap();
    assert_eq!(
        (&told.sender, &told.data[..]),
        (ann.peer_id(), &b"\x63hey"[..])
    );
    assert_eq!(relay.presence(&anns.url()), [told]);
    assert_eq!(relay.presence(&missing(1)), []);
}

#[tokio::test(start_paused = true)]
async fn connections_that_end_come_back_and_a_relay_that_is_dropped_does_not() {
    let relay = TestRelay::new();
    let repo = client(&relay).await;
    let document = repo.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    in_time("synced", document.when_synced()).await.unwrap();
    for key in ["b", "c", "d"] {
        relay.disconnect();
        set(&document, key);
        let fault = becomes(&repo, RelayState::Waiting).await;
        assert_eq!(fault, Some(FaultKind::Network));
        in_time("synced", document.when_synced()).await.unwrap();
    }
    let url = relay.url();
    let kept = relay.clone();
    drop(relay);
    set(&document, "e");
    in_time("synced", document.when_synced()).await.unwrap();
    drop(kept);
    let late = timeout(LONG, document.when_synced());
    set(&document, "f");
    assert!(late.await.is_err());
    assert_eq!(
        becomes(&repo, RelayState::Waiting).await,
        Some(FaultKind::Network)
    );
    let other = Repo::builder().relay(&url).build().await.unwrap();
    let found = other.find(&document.url()).await;
    assert!(matches!(found, Err(FindError::Unreachable(_))), "{found:?}");
    assert_ne!(TestRelay::new().url(), url);
}

#[tokio::test(start_paused = true)]
async fn a_document_goes_from_one_relay_to_the_other() {
    let (one, two) = (TestRelay::new(), TestRelay::new());
    let both = Repo::builder().relay(&one.url()).relay(&two.url());
    let both = both.build().await.unwrap();
    two.cut();
    let document = both.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    in_time("synced", document.when_synced()).await.unwrap();
    assert_eq!(
        (one.documents(), two.documents().len()),
        (vec![document.url()], 0)
    );
    let found = both.find(&missing(1)).await;
    assert!(
        matches!(found, Err(FindError::Unreachable(_))),
        "one could not be asked: {found:?}"
    );
    two.restore();
    in_time(
        "there, too",
        two.until(|two| two.documents() == [document.url()]),
    )
    .await;
    let found = in_time("an answer", both.find(&missing(1))).await;
    assert!(matches!(found, Err(FindError::Unavailable)), "{found:?}");
}

/// The writer is a thread of its own, of which tokio's clock knows nothing.
#[tokio::test(start_paused = true)]
async fn time_stands_still_while_something_is_stored() {
    let relay = TestRelay::new();
    let folder = tempfile::tempdir().unwrap();
    let faults = SyncFaults::default();
    let storage = slow(&folder.path().join("client.redb"), &faults);
    let repo = Repo::builder().relay(&relay.url()).storage(storage);
    let repo = repo.build().await.unwrap();
    let document = repo.create().unwrap();
    for n in 0..5 {
        faults.hold();
        set(&document, &format!("{n}"));
        let disk = std::thread::spawn({
            let faults = faults.clone();
            move || {
                std::thread::sleep(Duration::from_millis(30));
                faults.release();
            }
        });
        let at = Instant::now();
        let stored = timeout(Duration::from_secs(100000), document.when_stored()).await;
        println!("{n} {:?}", at.elapsed());
        stored
            .expect("it is stored before any time goes by")
            .unwrap();
        disk.join().unwrap();
        in_time("synced", document.when_synced()).await.unwrap();
    }
    repo.shutdown().await.unwrap();
}

/// A store on a disk whose syncs can be held.
fn slow(path: &Path, faults: &SyncFaults) -> Arc<RedbStorage> {
    let (path, file, faults) = (path.to_owned(), path.to_owned(), faults.clone());
    let open = move || {
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        FaultyFile::new(options.open(&file).unwrap(), faults.clone())
    };
    let size = move || Ok(std::fs::metadata(&path)?.len());
    Arc::new(RedbStorage::with_backend(open, size, CACHE_BYTES_DEFAULT, "double").unwrap())
}

/// Over sockets, where time is real.
#[tokio::test(flavor = "multi_thread")]
async fn it_listens_to_other_processes_too() {
    let relay = TestRelay::new();
    let url = relay.listen().await.unwrap();
    let near = client(&relay).await;
    let far = Repo::builder().relay(&url).build().await.unwrap();
    let document = near.create_with(|tx| tx.put(ROOT, "a", 1)).unwrap();
    in_time("synced", document.when_synced()).await.unwrap();
    let same = in_time("found", far.find(&document.url())).await.unwrap();
    set(&same, "b");
    has(&document, "b").await;
    relay.cut();
    set(&same, "c");
    let mut status = same.status();
    let offline = status.wait_for(|now| *now == Status::Offline);
    drop(in_time("offline", offline).await.unwrap());
    relay.restore();
    in_time("synced", same.when_synced()).await.unwrap();
    has(&document, "c").await;
    relay.refuse_connections(401);
    assert_eq!(
        becomes(&far, RelayState::Refused).await,
        Some(FaultKind::Http(401))
    );
    drop(relay);
    let gone = async {
        while tokio::net::TcpStream::connect(address_of(&url))
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    };
    in_time("nobody listens", gone).await;
}
