//! Aim: an edit is made on the version that it was thought of, or not at all; and what was written in
//! a copy comes back.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use automerge::transaction::{Transactable, Transaction};
use automerge::{Automerge, AutomergeError, ChangeHash, ROOT, ReadDoc};
use futures::StreamExt;
use reconverge::native::{ChangeError, DocHandle, Gone, MergeError, Repo};
use reconverge_tests::patience::in_time;
use reconverge_tests::process::Relay;

fn set(key: &str, value: i64) -> impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError> {
    move |tx| tx.put(ROOT, key, value)
}

fn number(document: &Automerge, key: &str) -> Option<i64> {
    let found = document.get(ROOT, key).unwrap();
    found.and_then(|(value, _)| value.as_i64())
}

fn get(document: &DocHandle, key: &str) -> Option<i64> {
    document.read(|document| number(document, key)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_with_a_condition_is_made_on_that_version_or_not_at_all() {
    let repo = Repo::builder().build().await.unwrap();
    let order = repo.create_with(set("n", 0)).unwrap();
    let seen = order.heads().unwrap();
    let ((), first) = order.change_if(&seen, set("n", 1)).unwrap();
    assert_eq!(first, order.heads().unwrap());
    let crossed = order.change_if(&seen, |_| -> Result<(), AutomergeError> {
        unreachable!("it is not asked");
    });
    let heads = first.clone();
    assert_eq!(crossed, Err(ChangeError::Changed { heads }));
    assert_eq!(get(&order, "n"), Some(1));
    // An edit that changes nothing leaves the version what it is; one that fails does, too.
    let same = order.change_if(&first, |_| Ok::<_, AutomergeError>(7));
    assert_eq!(same, Ok((7, first.clone())));
    let failed = order.change_if(&first, |tx| {
        tx.put(ROOT, "n", 2).unwrap();
        Err::<(), _>("no")
    });
    assert_eq!(failed, Err(ChangeError::Edit("no")));
    assert_eq!(order.heads().unwrap(), first);
    repo.shutdown().await.unwrap();
    let late = order.change_if(&first, set("n", 3));
    assert_eq!(late, Err(ChangeError::Gone(Gone::Closed)));
}

/// Many who read, add one and write, each again when another was before him, lose no addition.
#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost_among_those_who_write_what_they_read() {
    let repo = Repo::builder().build().await.unwrap();
    let order = repo.create_with(set("n", 0)).unwrap();
    let writers = (0..8).map(|_| {
        let order = order.clone();
        tokio::task::spawn_blocking(move || {
            for _ in 0..50 {
                loop {
                    let (heads, n) = order
                        .read(|document| (document.get_heads(), number(document, "n").unwrap()))
                        .unwrap();
                    match order.change_if(&heads, set("n", n + 1)) {
                        Ok(_) => break,
                        Err(ChangeError::Changed { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        in_time("a writer", writer).await.unwrap();
    }
    assert_eq!(get(&order, "n"), Some(400));
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_an_old_version_merges_with_what_came_since_and_goes_to_relays() {
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let order = repo.create_with(set("a", 1)).unwrap();
    let seen = order.heads().unwrap();
    order.change(set("b", 2)).unwrap();
    let now = order.heads().unwrap();
    let mut changes = order.changes();
    let (sum, after) = order
        .change_at(&seen, |tx| {
            assert!(tx.get(ROOT, "b")?.is_none(), "it is as it was");
            tx.put(ROOT, "c", 3)?;
            Ok::<_, AutomergeError>(4)
        })
        .unwrap();
    assert_eq!((sum, after.len()), (4, 1));
    let told = in_time("the change", changes.next()).await.unwrap();
    assert_eq!((&told.before, told.patches.len()), (&now, 1));
    for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(get(&order, key), Some(value), "{key}");
    }
    // What it gives is the old version with the edit; the heads are both.
    let with_edit = order.view(&after).unwrap();
    assert_eq!(number(&with_edit, "c"), Some(3));
    assert_eq!(number(&with_edit, "b"), None);
    let mut both = [now, after].concat();
    both.sort_unstable();
    assert_eq!(order.heads().unwrap(), both);
    // Again and again, at any version, with others between.
    for n in 0..20 {
        order.change_at(&seen, set("c", n)).unwrap();
        order.change(set("b", n)).unwrap();
        order.change_at(&[], set("d", n)).unwrap();
    }
    in_time("synced", order.when_synced()).await.unwrap();
    let other = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let found = in_time("find", other.find(&order.url())).await.unwrap();
    assert_eq!(found.heads().unwrap(), order.heads().unwrap());
    other.shutdown().await.unwrap();

    let unknown = ChangeHash([7; 32]);
    let lost = order.change_at(&[unknown], set("n", 1));
    assert_eq!(lost, Err(ChangeError::Unknown(unknown)));
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_in_a_copy_is_taken_over_and_sent() {
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let order = repo.create_with(set("a", 1)).unwrap();
    let mut copy = order.view(&order.heads().unwrap()).unwrap();
    copy.transact(|tx| set("b", 2)(tx)).unwrap();
    order.change(set("c", 3)).unwrap();
    assert!(order.merge(&copy).await.unwrap());
    assert!(!order.merge(&copy).await.unwrap(), "nothing is new");
    for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(get(&order, key), Some(value), "{key}");
    }
    // Another document, with another beginning.
    let mut other = Automerge::new();
    other.transact(|tx| set("d", 4)(tx)).unwrap();
    assert!(order.merge(&other).await.unwrap());
    order.change(set("e", 5)).unwrap();
    in_time("synced", order.when_synced()).await.unwrap();
    let reader = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let found = in_time("find", reader.find(&order.url())).await.unwrap();
    assert_eq!(found.heads().unwrap(), order.heads().unwrap());
    reader.shutdown().await.unwrap();

    // A copy that has our actor, too.
    let mut twin = order.read(Automerge::clone).unwrap();
    twin.transact(|tx| set("twin", 1)(tx)).unwrap();
    order.change(set("f", 6)).unwrap();
    let before = order.heads().unwrap();
    let refused = order.merge(&twin).await;
    assert!(
        matches!(refused, Err(MergeError::Contents(_))),
        "{refused:?}"
    );
    assert_eq!(order.heads().unwrap(), before);
    order.change(set("g", 7)).unwrap();
    in_time("synced", order.when_synced()).await.unwrap();
    repo.shutdown().await.unwrap();
    assert_eq!(order.merge(&copy).await, Err(Gone::Closed.into()));
}
