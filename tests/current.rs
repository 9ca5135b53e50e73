//! Aim: a service that must not answer from an old version knows when it has the relay's.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::path::Path;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc};
use reconverge::engine::FaultKind;
use reconverge::native::{CurrentError, DocHandle, Gone, Repo, RepoBuilder, Status};
use reconverge_tests::door::{UNAUTHORIZED, answering};
use reconverge_tests::patience::{PATIENCE, in_time};
use reconverge_tests::process::Relay;

/// How long a relay is waited for that will not come.
const SHORT: Duration = Duration::from_millis(300);

fn set(document: &DocHandle, n: i64) {
    document.change(|tx| tx.put(ROOT, "n", n)).unwrap();
}

fn get(document: &DocHandle) -> Option<i64> {
    let read = |document: &Automerge| {
        let value = document.get(ROOT, "n").unwrap();
        value.and_then(|(value, _)| value.as_i64())
    };
    document.read(read).unwrap()
}

fn on(relay: &Relay, file: &Path) -> RepoBuilder {
    Repo::builder().relay(&relay.url()).file(file)
}

/// A file with a document of which the relay has a newer version; the writer still runs.
async fn outdated(relay: &Relay, file: &Path) -> (Repo, DocHandle) {
    let writer = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let written = writer.create().unwrap();
    set(&written, 1);
    in_time("synced", written.when_synced()).await.unwrap();
    let reader = on(relay, file).build().await.unwrap();
    let read = in_time("find", reader.find(&written.url())).await.unwrap();
    assert_eq!(get(&read), Some(1));
    reader.shutdown().await.unwrap();
    set(&written, 2);
    in_time("synced", written.when_synced()).await.unwrap();
    (writer, written)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_document_is_found_at_once_and_current_after_a_while() {
    let relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reader.redb");
    let (writer, written) = outdated(&relay, &file).await;
    for n in 2..10 {
        let reader = on(&relay, &file).build().await.unwrap();
        let read = in_time("find", reader.find(&written.url())).await.unwrap();
        assert_eq!(*read.status().borrow(), Status::Saved, "what is here is");
        in_time("current", read.when_current()).await.unwrap();
        assert_eq!(get(&read), Some(n));
        // Again, on the same connection, and all at once.
        let all = futures::future::join_all((0..20).map(|_| read.when_current()));
        assert!(in_time("current", all).await.iter().all(Result::is_ok));
        reader.shutdown().await.unwrap();
        set(&written, n + 1);
        in_time("synced", written.when_synced()).await.unwrap();
    }
    // One that no relay heard of yet is current, and edits here do not matter.
    let new = writer.create().unwrap();
    in_time("current", new.when_current()).await.unwrap();
    writer.delete(&new.url()).await.unwrap();
    let gone = in_time("an answer", new.when_current()).await;
    assert_eq!(gone, Err(CurrentError::Gone(Gone::Deleted)));
    writer.shutdown().await.unwrap();
    let gone = in_time("an answer", new.when_current()).await;
    assert_eq!(gone, Err(CurrentError::Gone(Gone::Deleted)));
    let gone = in_time("an answer", written.when_current()).await;
    assert_eq!(gone, Err(CurrentError::Gone(Gone::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_while_the_relay_is_away_waits_for_it_and_then_is_told_so() {
    let mut relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reader.redb");
    let (writer, written) = outdated(&relay, &file).await;
    writer.shutdown().await.unwrap();
    relay.kill();
    let reader = on(&relay, &file).reach_within(SHORT).build().await.unwrap();
    let read = in_time("find", reader.find(&written.url())).await.unwrap();
    let Err(CurrentError::Unreachable(fault)) = in_time("an error", read.when_current()).await
    else {
        panic!("nobody can be asked");
    };
    assert_eq!(fault.kind, FaultKind::Network);
    assert_eq!(get(&read), Some(1), "it can be read all the same");
    drop(read);
    reader.shutdown().await.unwrap();

    let reader = on(&relay, &file).reach_within(PATIENCE);
    let reader = reader.build().await.unwrap();
    let read = in_time("find", reader.find(&written.url())).await.unwrap();
    let dropped = tokio::time::timeout(SHORT, read.when_current()).await;
    assert!(dropped.is_err(), "it waits");
    let (current, ()) = in_time("the relay", async {
        tokio::join!(read.when_current(), async { relay.start_again() })
    })
    .await;
    current.unwrap();
    assert_eq!(get(&read), Some(2));
    // It is told also to those who wait when the client is shut down.
    relay.kill();
    let (late, ended) = tokio::join!(read.when_current(), reader.shutdown());
    ended.unwrap();
    assert_eq!(late, Err(CurrentError::Gone(Gone::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_relay_or_is_refused_is_told_at_once() {
    let alone = Repo::builder().reach_within(10 * PATIENCE);
    let alone = alone.build().await.unwrap();
    let document = alone.create().unwrap();
    let told = in_time("an error", document.when_current()).await;
    assert!(
        matches!(told, Err(CurrentError::Unreachable(_))),
        "{told:?}"
    );
    alone.shutdown().await.unwrap();

    let url = answering(UNAUTHORIZED).await;
    let refused = Repo::builder().relay(&url).reach_within(10 * PATIENCE);
    let refused = refused.build().await.unwrap();
    let document = refused.create().unwrap();
    let Err(CurrentError::Unreachable(fault)) = in_time("an error", document.when_current()).await
    else {
        panic!("we are not let in");
    };
    assert_eq!(fault.kind, FaultKind::Http(401));
    refused.shutdown().await.unwrap();
}
