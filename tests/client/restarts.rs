//! Clients and relays that end and begin again, and a client that was copied.

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, AutomergeError, ROOT, ReadDoc};
use reconverge::engine::{FindError, Status};
use reconverge::id::DocumentId;
use reconverge::native::Repo;
use reconverge_tests::light;
use reconverge_tests::patience::in_time;
use reconverge_tests::process::Relay;

use crate::editing::{becomes, client, get, has, put, synced};

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
