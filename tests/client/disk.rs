//! The relay's disk is slow, fails or is full.

use std::time::Duration;

use reconverge::engine::Status;
use reconverge::native::Repo;
use reconverge_tests::patience::in_time;

use crate::editing::{get, has, put, synced};
use crate::faulty::FaultyRelay;

/// How often a peer is sent again what it was sent before, in a row.
const RESENDS_MAX: i64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn saved_is_said_only_after_the_relays_disk_has_it() {
    let mut relay = FaultyRelay::start();
    let repo = Repo::builder().relay(&relay.url).build().await.unwrap();
    let document = repo.create().unwrap();
    synced(&document).await;
    relay.tell("hold-syncs");
    put(&document, "n", 1);
    assert_eq!(*document.status().borrow(), Status::Saving);
    let early = tokio::time::timeout(Duration::from_secs(2), document.when_synced()).await;
    assert!(early.is_err(), "the relay's disk has not got it");
    assert_eq!(*document.status().borrow(), Status::Saving);
    relay.tell("release-syncs");
    synced(&document).await;
    relay.tell("fail-sync 2");
    put(&document, "n", 2);
    synced(&document).await;
    repo.shutdown().await.unwrap();
}

/// Aim: on a full disk, what was committed is read, what is new waits and is lost to nobody, and the
/// log has a line for each change of state.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_relays_disk_is_full_what_is_stored_is_read() {
    let mut relay = FaultyRelay::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ann.redb");
    let ann = Repo::builder().relay(&relay.url).file(&file);
    let ann = ann.build().await.unwrap();
    let documents: Vec<_> = (0..10).map(|_| ann.create().unwrap()).collect();
    for document in &documents {
        put(document, "n", 1);
        synced(document).await;
    }
    relay.tell("fill");
    put(&documents[0], "n", 2);
    relay.logged("storage fails").await;
    for of_ann in &documents {
        let bob = Repo::builder().relay(&relay.url).build().await.unwrap();
        let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
        assert_eq!(
            get(&of_bob, "n"),
            Some(1),
            "what is not on disk is not told"
        );
        bob.shutdown().await.unwrap();
    }
    assert_eq!(*documents[0].status().borrow(), Status::Saving);
    assert_eq!(*documents[9].status().borrow(), Status::Saved);
    relay.tell("empty");
    ann.shutdown().await.unwrap();
    let ann = Repo::builder().relay(&relay.url).file(&file);
    let ann = ann.build().await.unwrap();
    let of_ann = ann.find(&documents[0].url()).await.unwrap();
    synced(&of_ann).await;
    let bob = Repo::builder().relay(&relay.url).build().await.unwrap();
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    assert_eq!(get(&of_bob, "n"), Some(2));
    relay.logged("storage works again").await;
    let log = relay.log();
    let told = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(
        (told("ERROR"), told("storage works again")),
        (1, 1),
        "{log}"
    );
    assert!(
        log.contains("no room, as it was told") && log.contains("failures="),
        "{log}"
    );
}

/// Aim: however often the relay tried in vain, what was edited meanwhile reaches it when its disk has
/// room again, on the same connection, and the log does not grow with the time.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_edited_while_the_relays_disk_is_full_is_synced_when_there_is_room() {
    let mut relay = FaultyRelay::start();
    let ann = Repo::builder().relay(&relay.url).build().await.unwrap();
    let bob = Repo::builder().relay(&relay.url).build().await.unwrap();
    let of_ann = ann.create().unwrap();
    put(&of_ann, "n", 0);
    synced(&of_ann).await;
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    // More often than anybody is sent again what was sent before.
    for round in 1..=RESENDS_MAX + 1 {
        relay.tell("fill");
        put(&of_ann, "n", round);
        relay.tell("refused 1");
        put(&of_ann, "ann", round);
        put(&of_bob, "bob", round);
        let new = ann.create().unwrap();
        put(&new, "n", round);
        relay.tell(if round == 1 {
            "refused 12"
        } else {
            "refused 1"
        });
        assert_eq!(*of_ann.status().borrow(), Status::Saving);
        relay.tell("empty");
        for document in [&of_ann, &of_bob, &new] {
            synced(document).await;
        }
        has(&of_ann, "bob", round).await;
        has(&of_bob, "ann", round).await;
    }
    let log = relay.log();
    let told = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!((told("joined"), told("ERROR")), (2, 1), "{log}");
    assert!(told("") < 40, "{log}");
}
