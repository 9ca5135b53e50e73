//! Aim: a client that runs for long holds no memory of what nobody uses any more. Counted is what is
//! allocated and not freed, in the whole process; what of that the system keeps is the allocator's.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

mod counting;

use std::sync::Arc;
use std::time::Duration;

use automerge::ROOT;
use automerge::transaction::Transactable;
use counting::live_of_all;
use reconverge::engine::FindError;
use reconverge::id::DocumentId;
use reconverge::native::{RedbStorage, Repo};
use reconverge_tests::patience::in_time;
use reconverge_tests::process::Relay;
use tokio::sync::Mutex;

/// All threads are counted, so there is one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

const IDLE: Duration = Duration::from_millis(100);

/// What the file's cache may hold: little, as it is not what is counted.
const CACHE_BYTES: usize = 64 * 1024;

/// Waits until nothing is in memory, and what follows from that is done.
async fn released(repo: &Repo) {
    let released = async {
        while repo.documents_in_memory() > 0 {
            tokio::time::sleep(IDLE).await;
        }
    };
    in_time("all are released", released).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
}

fn made(repo: &Repo, count: usize) -> Vec<reconverge::native::DocHandle> {
    let make = |_| {
        let document = repo.create().unwrap();
        for n in 0..10 {
            document.change(|tx| tx.put(ROOT, "n", n)).unwrap();
        }
        document
    };
    (0..count).map(make).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_left_memory_costs_little() {
    const DOCUMENTS: usize = 1800;
    let _alone = ALONE.lock().await;
    let relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.redb");
    let storage = RedbStorage::open(&file, CACHE_BYTES, "memory").unwrap();
    let repo = Repo::builder().relay(&relay.url()).release_after(IDLE);
    let repo = repo.storage(Arc::new(storage)).build().await.unwrap();
    in_time("synced", made(&repo, 1)[0].when_synced())
        .await
        .unwrap();
    released(&repo).await;
    let before = live_of_all();
    let of_one = || (live_of_all() - before) / DOCUMENTS.cast_signed();
    let documents = made(&repo, DOCUMENTS);
    for document in &documents {
        in_time("synced", document.when_synced()).await.unwrap();
    }
    let open = of_one();
    drop(documents);
    released(&repo).await;
    let left = of_one();
    eprintln!("a document of 10 changes: {open} bytes open, {left} released");
    assert!(left < 1500, "{left} bytes of each");
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_and_let_go_leaves_nothing() {
    const TIMES: isize = 2000;
    let _alone = ALONE.lock().await;
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let document = repo.create().unwrap();
    in_time("synced", document.when_synced()).await.unwrap();
    let url = document.url();
    drop(document);
    let mut costs = Vec::new();
    // The first round pays for what stays the same afterwards.
    for _ in 0..2 {
        let before = live_of_all();
        for _ in 0..TIMES {
            in_time("found", repo.find(&url)).await.unwrap();
        }
        tokio::time::sleep(IDLE).await;
        let found = (live_of_all() - before) / TIMES;
        let before = live_of_all();
        for _ in 0..TIMES {
            drop(repo.watch_documents());
        }
        costs = vec![
            ("found", found),
            ("listed", (live_of_all() - before) / TIMES),
        ];
    }
    assert!(costs.iter().all(|(_, bytes)| *bytes < 10), "{costs:?}");
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watched_a_document_without_a_handle_leaves_little() {
    const DOCUMENTS: usize = 200;
    let _alone = ALONE.lock().await;
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let documents = made(&repo, DOCUMENTS);
    for document in &documents {
        in_time("synced", document.when_synced()).await.unwrap();
    }
    let urls: Vec<_> = documents.iter().map(|document| document.url()).collect();
    drop(documents);
    tokio::time::sleep(IDLE).await;
    let before = live_of_all();
    for url in &urls {
        let status = in_time("found", repo.find(url)).await.unwrap().status();
        tokio::time::sleep(Duration::from_millis(3)).await;
        drop(status);
    }
    let left = (live_of_all() - before) / DOCUMENTS.cast_signed();
    assert!(left < 2000, "{left} bytes of each");
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_forgotten_soon() {
    const MISSES: u64 = 500;
    let _alone = ALONE.lock().await;
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let mut left = 0;
    for round in 0..2 {
        let before = live_of_all();
        let misses = (0..MISSES).map(|n| async move {
            let mut id = [0xee; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            format!("automerge:{}", DocumentId::new(&id).unwrap())
        });
        let misses = futures::future::join_all(misses).await;
        let finds = misses.iter().map(|url| repo.find(url));
        let found = in_time("answers", futures::future::join_all(finds)).await;
        let is_missed = |found| matches!(found, &Err(FindError::Unavailable));
        assert!(found.iter().all(is_missed));
        drop((found, misses));
        let kept = (live_of_all() - before) / MISSES.cast_signed() as isize;
        released(&repo).await;
        left = (live_of_all() - before) / MISSES.cast_signed() as isize;
        eprintln!("round {round}: {kept} bytes of a miss at first, {left} when it is forgotten");
    }
    assert!(left < 100, "{left} bytes of each");
    repo.shutdown().await.unwrap();
}
