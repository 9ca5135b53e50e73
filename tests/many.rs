//! A native client with more documents than a connection could speak of once: what is at rest needs
//! no place, on either side. With `RECONVERGE_MANY=70000` it has more than 65,536, which is where
//! connections were closed; that takes a minute.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc};
use futures::{StreamExt, stream};
use reconverge::engine::FindError;
use reconverge::id::DocumentId;
use reconverge::native::{CACHE_BYTES_DEFAULT, RedbStorage, Repo};
use reconverge::storage::Storage;
use reconverge_tests::patience::within;
use reconverge_tests::process::{Relay, usage_of};

/// How many documents there are, unless told otherwise.
const DOCUMENTS: usize = 5_000;

/// How many ids are asked for at a time.
const ASKED: usize = 4096;

/// Most memory of either process.
const RESIDENT_BYTES_MAX: u64 = 640 * 1024 * 1024;

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until there are at most so many documents in memory: each leaves it when the relay has
/// acknowledged all of it.
async fn released(repo: &Repo, most: usize) {
    let released = async {
        while repo.documents_in_memory() > most {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(PATIENCE, "they are acknowledged", released).await;
}

fn unknown(n: usize) -> String {
    let mut id = [0xee; 16];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    format!("automerge:{}", DocumentId::new(&id).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_very_many_documents_goes_on() {
    let documents = std::env::var("RECONVERGE_MANY").map_or(DOCUMENTS, |n| n.parse().unwrap());
    let mut relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::builder().relay(&relay.url());
    let repo = repo.file(folder.path().join("client.redb"));
    let repo = repo.release_after(Duration::from_millis(100));
    let repo = repo.build().await.unwrap();
    let begun = Instant::now();
    let told = |what: &str| {
        let used = [relay.usage(), usage_of(std::process::id()).unwrap()];
        let [relay, client] = used.map(|used| used.peak_bytes);
        eprintln!(
            "{what}: after {:.1} s; at most {} MiB in the relay, {} in the client",
            begun.elapsed().as_secs_f64(),
            relay >> 20,
            client >> 20
        );
        assert!(relay.max(client) < RESIDENT_BYTES_MAX, "{relay}, {client}");
    };

    let mut urls = Vec::new();
    for n in 0..documents {
        let document = repo.create_with(|tx| tx.put(ROOT, "n", n as i64)).unwrap();
        urls.push(document.url());
        drop(document);
        // What is not acknowledged stays in memory, and no client makes so many at once.
        if n % 1000 == 0 {
            released(&repo, 2000).await;
        }
    }
    released(&repo, 0).await;
    told("stored");
    let asked = stream::iter(0..documents).map(|n| {
        let repo = &repo;
        async move { repo.find(&unknown(n)).await.err() }
    });
    let unavailable = asked.buffer_unordered(ASKED).filter(|error| {
        let unavailable = matches!(error, Some(FindError::Unavailable));
        std::future::ready(unavailable)
    });
    let unavailable = within(PATIENCE, "all are unavailable", unavailable.count()).await;
    assert_eq!(unavailable, documents);
    released(&repo, 0).await;
    told("unavailable");

    let document = within(PATIENCE, "find", repo.find(&urls[7])).await.unwrap();
    document.change(|tx| tx.put(ROOT, "edited", 1)).unwrap();
    within(PATIENCE, "the edit is acknowledged", document.when_synced())
        .await
        .unwrap();
    let bob = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let of_bob = within(PATIENCE, "find", bob.find(&urls[7])).await.unwrap();
    let edited = |doc: &Automerge| doc.get(ROOT, "edited").unwrap().is_some();
    assert!(of_bob.read(edited).unwrap());
    told("edited");
    bob.shutdown().await.unwrap();
    repo.shutdown().await.unwrap();

    relay.terminate();
    let log = std::fs::read_to_string(relay.log_path()).unwrap();
    let joined = log.lines().filter(|line| line.contains("joined")).count();
    assert_eq!(joined, 2, "each client joined once");
    let file = relay.data().join("reconverge.redb");
    let stored = RedbStorage::open(&file, CACHE_BYTES_DEFAULT, "").unwrap();
    for url in urls {
        let id: DocumentId = url.parse().unwrap();
        assert!(stored.load(&id).unwrap().is_some(), "{url} is not stored");
    }
}
