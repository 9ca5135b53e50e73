//! Aim: what a client runs in, and who waits for it, may go away at any moment; nobody then waits in
//! vain, and nothing stays in memory for nobody.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::pin::pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc};
use futures::StreamExt;
use reconverge::engine::FindError;
use reconverge::id::DocumentId;
use reconverge::native::testing::TestRelay;
use reconverge::native::{BuildError, DocHandle, DocumentEvent, Repo};
use reconverge::storage::StorageError;
use reconverge_tests::patience::in_time;
use reconverge_tests::process::Relay;
use tokio::runtime::{Builder, Runtime};

const IDLE: Duration = Duration::from_millis(100);

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn is_pending<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
    let polled = future.poll(&mut Context::from_waker(Waker::noop()));
    matches!(polled, Poll::Pending)
}

fn n(document: &DocHandle) -> Option<i64> {
    let read = |document: &Automerge| {
        let value = document.get(ROOT, "n").unwrap();
        value.and_then(|(value, _)| value.as_i64())
    };
    document.read(read).unwrap()
}

async fn are_released(repo: &Repo) {
    let released = async {
        while repo.documents_in_memory() > 0 {
            tokio::time::sleep(IDLE).await;
        }
    };
    in_time("nothing is in memory", released).await;
}

#[test]
fn a_client_whose_runtime_ended_before_it_ran_is_closed() {
    let repo = runtime().block_on(Repo::builder().build()).unwrap();
    runtime().block_on(async {
        assert!(matches!(repo.create(), Err(FindError::Closed)));
        let url = "automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu";
        let found = in_time("an answer", repo.find(url)).await;
        assert!(matches!(found, Err(FindError::Closed)));
        // Nothing was made, so nothing is lost.
        in_time("the end", repo.shutdown()).await.unwrap();
    });
}

#[test]
fn who_waits_for_a_shutdown_hears_of_it_though_its_runtime_ended() {
    let first = runtime();
    let repo = first.block_on(Repo::builder().build()).unwrap();
    first.block_on(async { assert!(is_pending(pin!(repo.shutdown()))) });
    drop(first);
    let ended = runtime().block_on(in_time("the end", repo.shutdown()));
    assert!(matches!(ended, Err(StorageError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_document_that_is_found_when_nobody_waits_any_more_leaves_memory() {
    let relay = TestRelay::new();
    let writer = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let written = writer.create().unwrap();
    written.when_synced().await.unwrap();
    let repo = Repo::builder().relay(&relay.url()).release_after(IDLE);
    let repo = repo.build().await.unwrap();
    let url = written.url();
    let mut find = Box::pin(repo.find(&url));
    assert!(is_pending(find.as_mut()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(repo.documents_in_memory(), 1, "it was found");
    drop(find);
    are_released(&repo).await;
}

#[tokio::test(start_paused = true)]
async fn a_document_that_was_missed_and_comes_by_itself_leaves_memory() {
    let relay = TestRelay::new();
    let repo = Repo::builder().relay(&relay.url());
    let repo = repo.release_after(Duration::from_secs(2));
    let repo = repo.build().await.unwrap();
    let writer = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let id = DocumentId::new(&[7; 16]).unwrap();
    let missed = repo.find(&format!("automerge:{id}")).await;
    assert!(matches!(missed, Err(FindError::Unavailable)));
    let mut events = repo.watch_documents();
    let made = writer.create_with_id(id, |tx| tx.put(ROOT, "n", 1));
    made.await.unwrap().when_synced().await.unwrap();
    assert_eq!(
        events.next().await.unwrap().unwrap(),
        DocumentEvent::Added(id)
    );
    are_released(&repo).await;
}

/// On the same connection, on which the relay counts on what it sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_and_forgotten_or_deleted_is_found_again() {
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).release_after(IDLE);
    let repo = repo.build().await.unwrap();
    let writer = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let id = DocumentId::new(&[7; 16]).unwrap();
    let url = format!("automerge:{id}");
    let missed = in_time("an answer", repo.find(&url)).await;
    assert!(matches!(missed, Err(FindError::Unavailable)));
    are_released(&repo).await;
    let made = writer.create_with_id(id, |tx| tx.put(ROOT, "n", 1));
    let made = made.await.unwrap();
    in_time("synced", made.when_synced()).await.unwrap();
    let found = in_time("found", repo.find(&url)).await.unwrap();
    assert_eq!(n(&found), Some(1));
    drop(found);
    in_time("deleted", repo.delete(&url)).await.unwrap();
    made.change(|tx| tx.put(ROOT, "n", 2)).unwrap();
    in_time("synced", made.when_synced()).await.unwrap();
    let found = in_time("found", repo.find(&url)).await.unwrap();
    in_time("current", found.when_current()).await.unwrap();
    assert_eq!(n(&found), Some(2));
}

#[tokio::test]
async fn who_was_slow_hears_what_came_before_the_end() {
    let repo = Repo::builder().build().await.unwrap();
    let mut events = repo.watch_documents();
    let document = repo.create().unwrap();
    let mut followed = document.follow(&[]);
    let mut changes = document.changes();
    document.change(|tx| tx.put(ROOT, "n", 1)).unwrap();
    let heads = document.heads().unwrap();
    repo.shutdown().await.unwrap();
    let added = DocumentEvent::Added(document.document_id());
    assert_eq!(events.next().await.unwrap().unwrap(), added);
    assert!(events.next().await.is_none());
    assert_eq!(followed.next().await.unwrap().unwrap().after, heads);
    assert!(followed.next().await.is_none());
    assert_eq!(changes.next().await.unwrap().after, heads);
    assert!(changes.next().await.is_none());
}

/// A process that was started meanwhile does not keep the file, and all names of a file are the same.
#[cfg(unix)]
#[tokio::test]
async fn a_file_is_free_after_the_end_and_has_many_names_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.redb");
    let repo = Repo::builder().file(&file).build().await.unwrap();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let [hard, soft] = ["hard.redb", "soft.redb"].map(|name| folder.path().join(name));
    std::fs::hard_link(&file, &hard).unwrap();
    std::os::unix::fs::symlink(&file, &soft).unwrap();
    for name in [&file, &hard, &soft] {
        let again = Repo::builder().file(name).build().await.err();
        assert!(matches!(again, Some(BuildError::InUse { here: true, .. })));
    }
    repo.shutdown().await.unwrap();
    let again = Repo::builder().file(&hard).build().await.unwrap();
    again.shutdown().await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}
