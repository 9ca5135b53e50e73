//! Aim: a service knows which documents it has, hears of each that comes or goes, and may name one
//! itself.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::transaction::{Transactable, Transaction};
use automerge::{Automerge, AutomergeError, ROOT, ReadDoc};
use futures::{StreamExt, TryStreamExt};
use reconverge::id::DocumentId;
use reconverge::native::testing::TestRelay;
use reconverge::native::{CreateError, DocHandle, DocumentEvent, Repo};
use reconverge_tests::patience::{PATIENCE, in_time};
use reconverge_tests::process::Relay;
use tokio::sync::watch;

const SHORT: Duration = Duration::from_millis(100);

fn named(n: u8) -> DocumentId {
    DocumentId::new(&[n; 16]).unwrap()
}

fn set(key: &str) -> impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError> {
    move |tx| tx.put(ROOT, key, 1)
}

fn keys(document: &DocHandle) -> Vec<String> {
    let keys = document.read(|document: &Automerge| document.keys(ROOT).collect());
    keys.unwrap()
}

async fn listed(repo: &Repo) -> BTreeSet<DocumentId> {
    let all: Vec<_> = in_time("a list", repo.documents().try_collect())
        .await
        .unwrap();
    let each: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(each.len(), all.len(), "each once");
    each
}

#[tokio::test(flavor = "multi_thread")]
async fn all_documents_are_listed_and_none_that_is_searched_for() {
    let relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.redb");
    let build = async || {
        let builder = Repo::builder().relay(&relay.url()).file(&file);
        let builder = builder.release_after(Duration::from_millis(20));
        builder.build().await.unwrap()
    };
    let repo = build().await;
    assert!(listed(&repo).await.is_empty());
    // More than a page, some of them released by now, and one that was made in this moment.
    let mut made = BTreeSet::new();
    for _ in 0..2500 {
        made.insert(repo.create().unwrap().document_id());
    }
    assert_eq!(listed(&repo).await, made);
    let missing = in_time("an answer", repo.find(&named(1).to_string())).await;
    assert!(missing.is_err());
    assert_eq!(listed(&repo).await, made);
    repo.flush().await.unwrap();
    repo.shutdown().await.unwrap();
    let late: Vec<_> = repo.documents().collect().await;
    assert!(matches!(late.last(), Some(Err(_))));

    let again = build().await;
    assert_eq!(
        listed(&again).await,
        made,
        "of the file, though none is read"
    );
    let gone = *made.first().unwrap();
    in_time("a deletion", again.delete(&gone.to_string()))
        .await
        .unwrap();
    made.remove(&gone);
    assert_eq!(listed(&again).await, made);
    // Half of a list, and the client can end.
    let mut half = again.documents();
    half.next().await.unwrap().unwrap();
    again.shutdown().await.unwrap();
}

/// Documents come and go while somebody begins to watch: what is told leads to what there is.
#[tokio::test(flavor = "multi_thread")]
async fn who_watches_misses_nothing_whenever_it_begins() {
    let repo = Repo::builder().build().await.unwrap();
    let makes = |repo: Repo| async move {
        for n in 0..400 {
            let made = repo.create().unwrap();
            if n % 3 == 0 {
                repo.delete(&made.url()).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let makers: Vec<_> = (0..3).map(|_| tokio::spawn(makes(repo.clone()))).collect();
    let (tell, told) = watch::channel(BTreeSet::new());
    let watchers: Vec<_> = (0..20)
        .map(|n| {
            let (repo, mut told) = (repo.clone(), told.clone());
            tokio::spawn(async move {
                // Each begins at another moment, and one in two is slow.
                while repo.documents_in_memory() < n * 30 {
                    tokio::task::yield_now().await;
                }
                let mut here = BTreeSet::new();
                let mut events = repo.watch_documents();
                while here.is_empty() || here != *told.borrow_and_update() {
                    let event = tokio::select! {
                        event = events.next() => event.unwrap().unwrap(),
                        _ = told.changed() => continue,
                    };
                    match event {
                        DocumentEvent::Added(id) => assert!(here.insert(id), "once"),
                        DocumentEvent::Deleted(id) => drop(here.remove(&id)),
                        other => panic!("{other:?}"),
                    }
                    if n % 2 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                (events, here)
            })
        })
        .collect();
    for maker in makers {
        in_time("the makers", maker).await.unwrap();
    }
    let all = listed(&repo).await;
    assert_eq!(all.len(), 3 * (400 - 134));
    tell.send_replace(all.clone());
    let mut all_told = Vec::new();
    for watcher in watchers {
        all_told.push(in_time("a watcher", watcher).await.unwrap());
    }
    repo.shutdown().await.unwrap();
    for (mut events, mut here) in all_told {
        // Of what came and went while it was not looked at, that it went.
        while let Some(event) = in_time("the end", events.next()).await {
            let DocumentEvent::Deleted(id) = event.unwrap() else {
                panic!("it is not whole");
            };
            here.remove(&id);
        }
        assert_eq!(here, all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_at_a_relay_is_news_and_what_is_read_again_is_none() {
    let relay = Relay::start();
    let build = || Repo::builder().relay(&relay.url());
    let (ann, bob) = (build().build().await.unwrap(), build());
    let made = ann.create().unwrap();
    in_time("synced", made.when_synced()).await.unwrap();
    let bob = bob.release_after(Duration::from_millis(1)).build();
    let bob = bob.await.unwrap();
    let mut events = bob.watch_documents();
    assert!(bob.find(&named(1).to_string()).await.is_err(), "nowhere");
    for _ in 0..3 {
        let found = in_time("find", bob.find(&made.url())).await.unwrap();
        drop(found);
        let released = async {
            while bob.documents_in_memory() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        in_time("released", released).await;
    }
    bob.delete(&made.url()).await.unwrap();
    let id = made.document_id();
    // Of what was added and deleted, the last is told to who did not look.
    let last = in_time("an event", events.next()).await.unwrap().unwrap();
    assert_eq!(last, DocumentEvent::Deleted(id));
    let found = in_time("find", bob.find(&made.url())).await.unwrap();
    let next = in_time("an event", events.next()).await.unwrap().unwrap();
    assert_eq!(next, DocumentEvent::Added(id));
    drop(found);
    bob.shutdown().await.unwrap();
    assert!(in_time("the end", events.next()).await.is_none());
    ann.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_made_under_an_id_unless_there_is_one() {
    let relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.redb");
    let build = || Repo::builder().relay(&relay.url());
    let repo = build().file(&file).build().await.unwrap();
    let made = repo.create_with_id(named(1), set("a")).await.unwrap();
    assert_eq!(made.document_id(), named(1));
    assert_eq!(keys(&made), ["a"]);
    let again = repo.create_with_id(named(1), set("b")).await;
    assert!(matches!(again, Err(CreateError::Exists)), "{again:?}");
    let failed = repo.create_with_id(named(2), |_| Err::<(), _>("no")).await;
    assert!(matches!(failed, Err(CreateError::Edit("no"))), "{failed:?}");
    // Somebody looked for it in vain, and somebody still does.
    assert!(repo.find(&named(3).to_string()).await.is_err());
    let after = repo.create_with_id(named(3), set("a")).await.unwrap();
    in_time("synced", made.when_synced()).await.unwrap();
    in_time("synced", after.when_synced()).await.unwrap();
    drop((made, after));
    repo.shutdown().await.unwrap();
    let late = repo.create_with_id(named(4), set("a")).await;
    assert!(matches!(late, Err(CreateError::Closed)), "{late:?}");

    // It is in the file, and not read.
    let repo = build().file(&file).build().await.unwrap();
    let again = repo.create_with_id(named(1), set("b")).await;
    assert!(matches!(again, Err(CreateError::Exists)), "{again:?}");
    repo.shutdown().await.unwrap();

    // Another client does not know that the relay has one: they become one.
    let other = build().build().await.unwrap();
    let merged = other.create_with_id(named(1), set("b")).await.unwrap();
    let mut changes = merged.changes();
    let both = async {
        while keys(&merged) != ["a", "b"] {
            changes.next().await.unwrap();
        }
    };
    in_time("both", both).await;
    in_time("synced", merged.when_synced()).await.unwrap();
    other.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_searches_for_a_document_finds_the_one_that_is_made() {
    let mut relay = Relay::start();
    relay.kill();
    let repo = Repo::builder().relay(&relay.url()).reach_within(PATIENCE);
    let repo = repo.build().await.unwrap();
    let url = named(1).to_string();
    let (found, made) = in_time("both", async {
        tokio::join!(repo.find(&url), async {
            tokio::time::sleep(SHORT).await;
            repo.create_with_id(named(1), set("a")).await
        })
    })
    .await;
    assert_eq!(keys(&found.unwrap()), ["a"]);
    let made = made.unwrap();
    relay.start_again();
    in_time("synced", made.when_synced()).await.unwrap();
    // Of all who make it at once, one does.
    let all = (0..20).map(|n| {
        let repo = repo.clone();
        let key = format!("{n}");
        tokio::spawn(async move { repo.create_with_id(named(2), set(&key)).await.is_ok() })
    });
    let all = futures::future::join_all(all.collect::<Vec<_>>()).await;
    let made = all.into_iter().filter(|made| *made.as_ref().unwrap());
    assert_eq!(made.count(), 1);
    repo.shutdown().await.unwrap();
}

/// The relay counts on what it sent of the document that was deleted.
#[tokio::test(start_paused = true)]
async fn a_document_that_was_deleted_and_made_again_gets_what_a_relay_has() {
    let relay = TestRelay::new();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    for key in ["first", "second", "third"] {
        let made = repo.create_with_id(named(1), set(key)).await.unwrap();
        in_time("synced", made.when_synced()).await.unwrap();
        in_time("current", made.when_current()).await.unwrap();
        assert!(
            keys(&made).contains(&"first".to_owned()),
            "{:?}",
            keys(&made)
        );
        in_time("deleted", repo.delete(&made.url())).await.unwrap();
    }
    let found = in_time("found", repo.find(&named(1).to_string())).await;
    assert_eq!(keys(&found.unwrap()), ["first", "second", "third"]);
    repo.shutdown().await.unwrap();
}
