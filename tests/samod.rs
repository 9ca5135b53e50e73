//! A second foreign client: the crate `samod`, which closes a connection on any message type that
//! it does not know.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc};
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use reconverge_tests::process::Relay;
use samod::{BackoffConfig, DialError, Dialer, DocHandle, Repo, Transport};
use tokio_tungstenite::tungstenite::Message;
use url::Url;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

struct WebSocket(Url);

impl Dialer for WebSocket {
    type Error = Infallible;

    fn url(&self) -> Url {
        self.0.clone()
    }

    fn connect(&self) -> BoxFuture<'static, Result<Transport, DialError<Infallible>>> {
        let url = self.0.to_string();
        async move {
            let connected = tokio_tungstenite::connect_async(url).await;
            let (socket, _) = connected.map_err(DialError::transient)?;
            let (sink, stream) = socket.split();
            let stream = stream.filter_map(|message| async move {
                match message {
                    Ok(Message::Binary(bytes)) => Some(Ok(bytes.to_vec())),
                    Ok(_) => None,
                    Err(error) => Some(Err(error)),
                }
            });
            let sink = sink.with(|bytes: Vec<u8>| async move {
                Ok::<_, tokio_tungstenite::tungstenite::Error>(Message::Binary(bytes.into()))
            });
            Ok(Transport::new(Box::pin(stream), Box::pin(sink)))
        }
        .boxed()
    }
}

async fn repo(relay: &Relay) -> Repo {
    connected(relay, Repo::build_tokio().load().await).await
}

async fn connected(relay: &Relay, repo: Repo) -> Repo {
    let url = Url::parse(&relay.url()).unwrap();
    let dialer = repo
        .dial(BackoffConfig::default(), Arc::new(WebSocket(url)))
        .unwrap();
    tokio::time::timeout(PATIENCE, dialer.established())
        .await
        .unwrap()
        .unwrap();
    repo
}

fn put(document: &DocHandle, key: &str, value: i64) {
    document.with_document(|document| {
        let mut transaction = document.transaction();
        transaction.put(ROOT, key, value).unwrap();
        transaction.commit();
    });
}

fn get(document: &DocHandle, key: &str) -> Option<i64> {
    document.with_document(|document| {
        document
            .get(ROOT, key)
            .unwrap()
            .and_then(|(value, _)| value.as_i64())
    })
}

/// Waits until the document has the value.
async fn has(document: &DocHandle, key: &str, value: i64) {
    let mut changes = document.changes();
    let seen = async {
        while get(document, key) != Some(value) {
            changes.next().await.unwrap();
        }
    };
    let seen = tokio::time::timeout(PATIENCE, seen).await;
    assert!(
        seen.is_ok(),
        "{key} is {:?}, not {value}",
        get(document, key)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn samod_clients_sync_through_the_relay_and_its_restart() {
    let mut relay = Relay::start();
    let (ann, bob) = (repo(&relay).await, repo(&relay).await);
    let of_ann = ann.create(Automerge::new()).await.unwrap();
    put(&of_ann, "made", 1);
    let found = tokio::time::timeout(PATIENCE, bob.find(of_ann.document_id().clone()));
    let of_bob = found.await.unwrap().unwrap().expect("ann's document");
    has(&of_bob, "made", 1).await;
    for n in 0..200 {
        put(&of_ann, "ann", n);
        put(&of_bob, "bob", n);
    }
    has(&of_bob, "ann", 199).await;
    has(&of_ann, "bob", 199).await;

    let mut heard = of_bob.ephemera();
    of_ann.broadcast(vec![1, 2, 3]);
    let heard = tokio::time::timeout(PATIENCE, heard.next()).await.unwrap();
    assert_eq!(heard, Some(vec![1, 2, 3]));

    // Both come back by themselves and go on.
    relay.terminate();
    put(&of_ann, "offline", 1);
    relay.start_again();
    has(&of_bob, "offline", 1).await;

    let missing = reconverge::id::DocumentId::new(&[9; 16])
        .unwrap()
        .to_string();
    let missing = missing.parse().unwrap();
    let missing = tokio::time::timeout(PATIENCE, bob.find(missing))
        .await
        .unwrap()
        .unwrap();
    assert!(missing.is_none(), "nobody has it");
}

/// Two whose app names them alike, as when its folder was copied.
#[tokio::test(flavor = "multi_thread")]
async fn samod_clients_of_one_name_sync_and_hear_others() {
    let relay = Relay::start();
    let twin = || Repo::build_tokio().with_peer_id("twin".into()).load();
    let first = connected(&relay, twin().await).await;
    let second = connected(&relay, twin().await).await;
    let bob = repo(&relay).await;
    let of_first = first.create(Automerge::new()).await.unwrap();
    put(&of_first, "made", 1);
    let mut others = Vec::new();
    for repo in [&second, &bob] {
        let found = repo.find(of_first.document_id().clone());
        let found = tokio::time::timeout(PATIENCE, found).await.unwrap();
        let found = found.unwrap().expect("the first's document");
        has(&found, "made", 1).await;
        others.push(found);
    }
    let [of_second, of_bob] = &others[..] else {
        panic!("two others");
    };
    for n in 0..100 {
        put(&of_first, "first", n);
        put(of_second, "second", n);
    }
    for document in [&of_first, of_second, of_bob] {
        has(document, "first", 99).await;
        has(document, "second", 99).await;
    }
    let mut heard = (of_first.ephemera(), of_second.ephemera());
    of_bob.broadcast(vec![1, 2, 3]);
    let both = async { (heard.0.next().await, heard.1.next().await) };
    let both = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(both, (Some(vec![1, 2, 3]), Some(vec![1, 2, 3])));
    assert!(!relay.log().contains("replaced by"), "{}", relay.log());
}

/// Waits until our document has the value.
async fn our_has(document: &reconverge::native::DocHandle, key: &str, value: i64) {
    let read = |document: &Automerge| {
        let found = document.get(ROOT, key).unwrap();
        found.and_then(|(value, _)| value.as_i64())
    };
    let mut changes = document.changes();
    let seen = async {
        while document.read(read).unwrap() != Some(value) {
            changes.next().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn samod_and_our_client_share_documents_and_presence() {
    let mut relay = Relay::start();
    let ann = repo(&relay).await;
    let bob = reconverge::native::Repo::builder().relay(&relay.url());
    let bob = bob.build().await.unwrap();

    // Made by samod, found by us.
    let of_ann = ann.create(Automerge::new()).await.unwrap();
    put(&of_ann, "ann", 1);
    let url = format!("automerge:{}", of_ann.document_id());
    let of_bob = tokio::time::timeout(PATIENCE, bob.find(&url))
        .await
        .unwrap();
    let of_bob = of_bob.unwrap();
    our_has(&of_bob, "ann", 1).await;
    for n in 0..100 {
        put(&of_ann, "ann", n);
        of_bob.change(|tx| tx.put(ROOT, "bob", n)).unwrap();
    }
    our_has(&of_bob, "ann", 99).await;
    has(&of_ann, "bob", 99).await;

    let mut heard = of_bob.ephemeral();
    of_ann.broadcast(vec![1, 2, 3]);
    let by_us = tokio::time::timeout(PATIENCE, heard.next()).await.unwrap();
    assert_eq!(&*by_us.unwrap().data, [1, 2, 3]);
    let mut heard = of_ann.ephemera();
    of_bob.broadcast(&[4, 5]);
    let by_samod = tokio::time::timeout(PATIENCE, heard.next()).await.unwrap();
    assert_eq!(by_samod, Some(vec![4, 5]));

    // Made by us, found by samod, and changed while the relay is away.
    let ours = bob.create_with(|tx| tx.put(ROOT, "made", 1)).unwrap();
    tokio::time::timeout(PATIENCE, ours.when_synced())
        .await
        .unwrap()
        .unwrap();
    let id = ours.document_id().to_string().parse().unwrap();
    let theirs = tokio::time::timeout(PATIENCE, ann.find(id)).await.unwrap();
    let theirs = theirs.unwrap().expect("our document");
    has(&theirs, "made", 1).await;
    relay.terminate();
    ours.change(|tx| tx.put(ROOT, "ours", 2)).unwrap();
    put(&theirs, "theirs", 3);
    relay.start_again();
    has(&theirs, "ours", 2).await;
    our_has(&ours, "theirs", 3).await;
    bob.shutdown().await.unwrap();
}
