//! Aim: a service knows whether a document does not exist or a relay cannot be asked, waits for a relay
//! as long as it wants, and hears of the connection.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::sync::Arc;
use std::time::Duration;

use automerge::ROOT;
use automerge::transaction::Transactable;
use reconverge::engine::{FaultKind, FindError, RelayState};
use reconverge::id::DocumentId;
use reconverge::native::{Connection, Repo};
use reconverge_tests::door::{UNAUTHORIZED, answering};
use reconverge_tests::patience::{PATIENCE, in_time};
use reconverge_tests::process::Relay;
use tokio::sync::watch;

/// How long a search waits where no relay will come.
const SHORT: Duration = Duration::from_millis(300);

fn missing(n: u8) -> String {
    format!("automerge:{}", DocumentId::new(&[n; 16]).unwrap())
}

async fn becomes(
    connections: &mut watch::Receiver<Arc<[Connection]>>,
    state: RelayState,
) -> Connection {
    let seen = connections.wait_for(|now| now[0].state == state);
    let now = in_time(&format!("{state:?}"), seen).await.unwrap();
    now[0].clone()
}

/// The kind of the fault for which a document cannot be looked for.
async fn unreachable(repo: &Repo) -> FaultKind {
    match in_time("an answer", repo.find(&missing(1))).await {
        Err(FindError::Unreachable(fault)) => {
            assert!(!fault.message.is_empty());
            fault.kind
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_and_what_cannot_be_asked_for_are_two_errors() {
    let mut relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).reach_within(SHORT);
    let repo = repo.build().await.unwrap();
    let found = in_time("an answer", repo.find(&missing(1))).await;
    assert!(matches!(found, Err(FindError::Unavailable)), "{found:?}");
    let mut connections = repo.connections();
    let connected = becomes(&mut connections, RelayState::Connected).await;
    assert_eq!(connected.fault, None);
    assert_eq!(*connected.relay, *relay.url());

    relay.kill();
    let waiting = becomes(&mut connections, RelayState::Waiting).await;
    assert_eq!(waiting.fault.unwrap().kind, FaultKind::Network);
    assert_eq!(unreachable(&repo).await, FaultKind::Network);
    // One that is here is found all the same.
    let here = repo.create().unwrap();
    assert!(repo.find(&here.url()).await.is_ok());
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_waits_for_a_relay_that_comes_back() {
    let mut relay = Relay::start();
    let writer = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let written = writer.create().unwrap();
    written.change(|tx| tx.put(ROOT, "n", 1)).unwrap();
    in_time("synced", written.when_synced()).await.unwrap();
    writer.shutdown().await.unwrap();
    relay.kill();

    let repo = Repo::builder().relay(&relay.url()).reach_within(PATIENCE);
    let repo = repo.build().await.unwrap();
    let mut connections = repo.connections();
    becomes(&mut connections, RelayState::Waiting).await;
    let (url, not_there) = (written.url(), missing(2));
    let (found, missed) = (repo.find(&url), repo.find(&not_there));
    let (found, missed, ()) = in_time("the relay", async {
        tokio::join!(found, missed, async {
            // Both ask, and are told nothing yet.
            tokio::time::sleep(SHORT).await;
            relay.start_again();
        })
    })
    .await;
    assert_eq!(found.unwrap().heads().unwrap(), written.heads().unwrap());
    assert!(matches!(missed, Err(FindError::Unavailable)), "{missed:?}");
    becomes(&mut connections, RelayState::Connected).await;
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_nobody_waits_for_any_more_leaves_nothing() {
    let mut relay = Relay::start();
    relay.kill();
    let repo = Repo::builder().relay(&relay.url()).reach_within(SHORT);
    let repo = repo.release_after(Duration::from_millis(20));
    let repo = repo.build().await.unwrap();
    for n in 0..100 {
        let url = missing(n);
        if n % 2 == 0 {
            let dropped = tokio::time::timeout(Duration::from_millis(1), repo.find(&url)).await;
            assert!(dropped.is_err());
        } else {
            let late = repo.find_within(&url, Duration::from_millis(5)).await;
            let is_told = matches!(late, Err(FindError::Unreachable(_) | FindError::Late));
            assert!(is_told, "{late:?}");
        }
    }
    let forgotten = async {
        while repo.documents_in_memory() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("nothing is remembered", forgotten).await;
    // What is not here need not be deleted, and nobody is waited for.
    in_time("a deletion", repo.delete(&missing(1)))
        .await
        .unwrap();
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_relay_is_not_there_is_told() {
    let no_relay =
        answering(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let gate = answering(UNAUTHORIZED).await;
    let babble = answering(b"what do you want?\r\n\r\n").await;
    for (url, kind) in [
        ("ws://no-such-host.invalid/".to_owned(), FaultKind::Dns),
        (no_relay, FaultKind::Http(503)),
        (babble, FaultKind::Protocol),
        (gate, FaultKind::Http(401)),
    ] {
        let repo = Repo::builder().relay(&url).reach_within(SHORT);
        let repo = repo.build().await.unwrap();
        let mut connections = repo.connections();
        let told = connections.wait_for(|now| now[0].fault.is_some());
        let told = in_time(&url, told).await.unwrap()[0].clone();
        assert_eq!(told.fault.unwrap().kind, kind, "{url}");
        assert_eq!(unreachable(&repo).await, kind, "{url}");
        let is_refused = connections.borrow_and_update()[0].state == RelayState::Refused;
        assert_eq!(is_refused, kind == FaultKind::Http(401), "{url}");
        // Asked to, it is tried again all the same.
        repo.reconnect();
        in_time("another try", connections.changed()).await.unwrap();
        repo.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_us_is_not_waited_for() {
    let gate = answering(UNAUTHORIZED).await;
    let repo = Repo::builder().relay(&gate).reach_within(10 * PATIENCE);
    let repo = repo.build().await.unwrap();
    assert_eq!(unreachable(&repo).await, FaultKind::Http(401));
    repo.shutdown().await.unwrap();
}
