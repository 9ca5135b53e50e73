//! How a client begins, and how it and its documents end.

use std::time::Duration;

use automerge::ROOT;
use automerge::transaction::Transactable;
use futures::StreamExt;
use reconverge::native::{BuildError, ChangeError, Gone, Repo, SyncError};
use reconverge_tests::patience::in_time;

use crate::editing::{get, put};

#[tokio::test(flavor = "multi_thread")]
async fn why_a_client_cannot_be_built_names_the_file_and_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("one.redb"), folder.path().join("link"));
    let repo = Repo::builder().file(&file).build().await.unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        let error = Repo::builder().file(path).build().await.unwrap_err();
        assert!(
            matches!(error, BuildError::InUse { here: true, .. }),
            "{error:?}"
        );
        let said = error.to_string();
        assert!(said.starts_with(path.to_str().unwrap()), "{said}");
        assert!(said.contains("another client of this process"), "{said}");
    }
    repo.shutdown().await.unwrap();
    let again = Repo::builder().file(&link).build().await.unwrap();
    again.shutdown().await.unwrap();
    for path in [
        folder.path().join("no/such/folder"),
        folder.path().to_owned(),
    ] {
        let error = Repo::builder().file(&path).build().await.unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
    let outside = std::thread::spawn(|| futures::executor::block_on(Repo::builder().build()));
    let outside = outside.join().unwrap();
    assert!(matches!(outside, Err(BuildError::NoRuntime)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_heard_after_the_end() {
    let repo = Repo::builder().build().await.unwrap();
    let (deleted, kept) = (repo.create().unwrap(), repo.create().unwrap());
    put(&deleted, "n", 1);
    for (document, deletes) in [(&deleted, true), (&kept, false)] {
        let before = (document.changes(), document.ephemeral(), document.status());
        if deletes {
            repo.delete(&document.url()).await.unwrap();
        } else {
            in_time("shutdown", repo.shutdown()).await.unwrap();
        }
        let after = (document.changes(), document.ephemeral(), document.status());
        for (mut changes, mut ephemeral, mut status) in [before, after] {
            let ended = async {
                // What changed before the end may still be told.
                while changes.next().await.is_some() {}
                while ephemeral.next().await.is_some() {}
                while status.changed().await.is_ok() {}
            };
            in_time("the end", ended).await;
        }
        let synced = in_time("the end", document.when_synced()).await;
        let why = if deletes { Gone::Deleted } else { Gone::Closed };
        assert_eq!(synced, Err(SyncError::Gone(why)));
        let changed = document.change(|tx| tx.put(ROOT, "n", 2));
        assert_eq!(changed, Err(ChangeError::Gone(why)));
    }
}

/// Whoever shuts down a client that is being shut down waits for the end, too: the file is free then.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_shut_down_once_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.redb");
    for round in 0..20 {
        let repo = Repo::builder().file(&file).build().await.unwrap();
        let document = repo.create().unwrap();
        for n in 0..50 {
            put(&document, "n", n);
        }
        let (first, second) = (repo.clone(), repo);
        if round % 2 == 0 {
            // Nobody waits for the first one.
            let polled = tokio::time::timeout(Duration::ZERO, first.shutdown()).await;
            assert!(polled.is_err() || polled.unwrap().is_ok());
        } else {
            tokio::spawn(async move { first.shutdown().await });
        }
        in_time("shutdown", second.shutdown()).await.unwrap();
        let again = Repo::builder().file(&file).build().await.unwrap();
        let kept = again.find(&document.url()).await.unwrap();
        assert_eq!(get(&kept, "n"), Some(49));
        again.shutdown().await.unwrap();
        again.shutdown().await.unwrap();
    }
}
