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

/// Waits until less is held than these bytes for each of so many; how many bytes it is then.
async fn comes_down(before: isize, count: usize, bytes_max: isize) -> isize {
    let held = || (live_of_all() - before) / count.cast_signed();
    let came_down = async {
        while held() >= bytes_max {
            tokio::time::sleep(IDLE).await;
        }
    };
    in_time("memory comes down", came_down).await;
    held()
}

/// Waits until nothing more is let go of; what is held then.
async fn settled(repo: &Repo) -> isize {
    let settled = async {
        while repo.documents_in_memory() > 0 {
            tokio::time::sleep(IDLE).await;
        }
        let mut least = live_of_all();
        let mut same = 0;
        while same < 10 {
            tokio::time::sleep(IDLE).await;
            let now = live_of_all();
            same = if now < least { 0 } else { same + 1 };
            least = least.min(now);
        }
        least
    };
    in_time("all is let go", settled).await
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
    let before = settled(&repo).await;
    let documents = made(&repo, DOCUMENTS);
    for document in &documents {
        in_time("synced", document.when_synced()).await.unwrap();
    }
    let open = (live_of_all() - before) / DOCUMENTS.cast_signed();
    drop(documents);
    let left = comes_down(before, DOCUMENTS, 1700).await;
    eprintln!("a document of 10 changes: {open} bytes open, {left} released");
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_and_let_go_leaves_nothing() {
    const TIMES: usize = 2000;
    let _alone = ALONE.lock().await;
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let document = repo.create().unwrap();
    in_time("synced", document.when_synced()).await.unwrap();
    let url = document.url();
    drop(document);
    // The first round pays for what stays the same afterwards.
    for bytes_max in [100, 20] {
        let before = live_of_all();
        for _ in 0..TIMES {
            in_time("found", repo.find(&url)).await.unwrap();
            drop(repo.watch_documents());
        }
        comes_down(before, TIMES, bytes_max).await;
    }
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
    let before = live_of_all();
    for url in &urls {
        let status = in_time("found", repo.find(url)).await.unwrap().status();
        tokio::time::sleep(Duration::from_millis(3)).await;
        drop(status);
    }
    comes_down(before, DOCUMENTS, 2000).await;
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_forgotten_soon() {
    const MISSES: usize = 500;
    let _alone = ALONE.lock().await;
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    // The first round pays for what stays the same afterwards.
    for bytes_max in [4000, 200] {
        let before = settled(&repo).await;
        let misses = (0..MISSES).map(|n| async move {
            let mut id = [0xee; 16];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            format!("automerge:{}", DocumentId::new(&id).unwrap())
        });
        let misses = futures::future::join_all(misses).await;
        let finds = misses.iter().map(|url| repo.find(url));
        let found = in_time("answers", futures::future::join_all(finds)).await;
        let is_missed = |found| matches!(found, &Err(FindError::Unavailable));
        assert!(found.iter().all(is_missed));
        drop((found, misses));
        let kept = (live_of_all() - before) / MISSES.cast_signed();
        let left = comes_down(before, MISSES, bytes_max).await;
        eprintln!("{kept} bytes of a miss at first, {left} when it is forgotten");
    }
    repo.shutdown().await.unwrap();
}
