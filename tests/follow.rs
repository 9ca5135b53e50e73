//! Aim: who follows a document from a cursor that it kept misses nothing and does nothing twice,
//! however often it is killed.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc};
use futures::StreamExt;
use reconverge::native::{
    CACHE_BYTES_DEFAULT, ChangeError, DocHandle, Gone, PastError, RedbStorage, Repo,
};
use reconverge_tests::Random;
use reconverge_tests::faults::{FaultyFile, SyncFaults};
use reconverge_tests::patience::within;
use reconverge_tests::process::Relay;

const PATIENCE: Duration = Duration::from_secs(60);
const KILLS: usize = 20;
const CHANGES: usize = 600;

fn set(document: &DocHandle, key: &str) {
    document.change(|tx| tx.put(ROOT, key, 1)).unwrap();
}

fn keys(document: &DocHandle) -> Vec<String> {
    let keys = document.read(|doc: &Automerge| doc.keys(ROOT).collect());
    keys.unwrap()
}

/// Killed when it is dropped.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_again_and_again_misses_and_repeats_nothing() {
    let mut random = Random::new(7);
    let relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let document = repo.create().unwrap();
    set(&document, "begin");
    within(PATIENCE, "synced", document.when_synced())
        .await
        .unwrap();
    let start = || {
        let worker = Command::new(env!("CARGO_BIN_EXE_follower"))
            .args([&relay.url(), &document.url()])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn();
        Worker(worker.unwrap())
    };
    let effects = folder.path().join("effects");
    let counted = || {
        let mut counts = BTreeMap::<String, usize>::new();
        for line in std::fs::read_to_string(&effects)
            .unwrap_or_default()
            .lines()
        {
            let (_, set) = line.split_once(' ').unwrap();
            // Its own are lost if it is killed before they are stored, and then nobody heard of them.
            for key in set.split(',').filter(|key| key.starts_with('n')) {
                *counts.entry(key.to_owned()).or_default() += 1;
            }
        }
        counts
    };
    let mut written = 0;
    let mut worker = start();
    for _ in 0..KILLS {
        let before = counted().len();
        for _ in 0..CHANGES / KILLS {
            set(&document, &format!("n{written}"));
            written += 1;
            if random.below(4) == 0 {
                tokio::time::sleep(Duration::from_millis(random.below(12))).await;
            }
        }
        let goes_on = async {
            while counted().len() == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(PATIENCE, "an effect", goes_on).await;
        drop(worker);
        worker = start();
    }
    let all_told = async {
        while counted().len() < CHANGES {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(PATIENCE, "all effects", all_told).await;
    drop(worker);
    let counts = counted();
    let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    assert_eq!(counts.len(), CHANGES);
    let answers = keys(&document);
    assert!(answers.iter().any(|key| key.starts_with("done")));
    repo.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn items_follow_each_other_and_lead_to_what_is_stored() {
    let repo = Repo::builder().build().await.unwrap();
    let document = repo.create().unwrap();
    set(&document, "a");
    repo.flush().await.unwrap();
    let mut changes = document.follow(&[]);
    let first = within(PATIENCE, "an item", changes.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.before, []);
    assert_eq!(first.after, document.heads().unwrap());
    assert_eq!(first.patches.len(), 1);
    let mut cursor = first.after.clone();
    for n in 0..50 {
        set(&document, &format!("{n}"));
    }
    let mut told = 0;
    while told < 50 {
        let item = within(PATIENCE, "an item", changes.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(item.before, cursor);
        told += item.patches.len();
        cursor.clone_from(&item.after);
    }
    assert_eq!((told, &cursor), (50, &document.heads().unwrap()));

    let other = repo.create().unwrap();
    set(&other, "x");
    let unknown = other.heads().unwrap();
    let mut lost = document.follow(&unknown);
    let told = within(PATIENCE, "an error", lost.next()).await.unwrap();
    assert_eq!(told.err(), Some(PastError::Unknown(unknown[0])));
    assert!(within(PATIENCE, "the end", lost.next()).await.is_none());
    repo.delete(&document.url()).await.unwrap();
    assert!(within(PATIENCE, "the end", changes.next()).await.is_none());
    assert_eq!(document.heads(), Err(Gone::Deleted));
    repo.shutdown().await.unwrap();
}

/// A store on a disk whose syncs can be held.
fn faulty(folder: &Path, faults: &SyncFaults) -> Arc<RedbStorage> {
    let path = folder.join("client.redb");
    let (file, faults) = (path.clone(), faults.clone());
    let open = move || {
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&file);
        FaultyFile::new(file.unwrap(), faults.clone())
    };
    let size = move || Ok(std::fs::metadata(&path)?.len());
    Arc::new(RedbStorage::with_backend(open, size, CACHE_BYTES_DEFAULT, "follow").unwrap())
}

/// What shows is not told before it is stored: it might be gone after a kill, and the cursor with it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_before_it_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let faults = SyncFaults::default();
    let repo = Repo::builder().storage(faulty(folder.path(), &faults));
    let repo = repo.build().await.unwrap();
    let document = repo.create().unwrap();
    set(&document, "stored");
    within(PATIENCE, "stored", document.when_stored())
        .await
        .unwrap();
    let cursor = document.heads().unwrap();
    faults.hold();
    set(&document, "shown");
    assert!(keys(&document).contains(&"shown".to_owned()));
    let mut changes = document.follow(&cursor);
    assert!(futures::poll!(changes.next()).is_pending());
    let mut all = document.follow(&[]);
    let first = within(PATIENCE, "what is stored", all.next())
        .await
        .unwrap();
    assert_eq!(first.unwrap().after, cursor);
    faults.release();
    let told = within(PATIENCE, "the rest", changes.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(told.before, cursor);
    assert_eq!(told.after, document.heads().unwrap());
    repo.shutdown().await.unwrap();
}

/// Until it is removed from storage, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_being_deleted_is_not_edited() {
    let folder = tempfile::tempdir().unwrap();
    let faults = SyncFaults::default();
    let repo = Repo::builder().storage(faulty(folder.path(), &faults));
    let repo = repo.build().await.unwrap();
    let document = repo.create().unwrap();
    within(PATIENCE, "stored", document.when_stored())
        .await
        .unwrap();
    faults.hold();
    let (url, deleting) = (document.url(), repo.clone());
    let deleted = tokio::spawn(async move { deleting.delete(&url).await });
    let refused = loop {
        match document.change(|tx| tx.put(ROOT, "late", 1)) {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ChangeError::Gone(Gone::Deleted));
    faults.release();
    within(PATIENCE, "deleted", deleted).await.unwrap().unwrap();
    repo.shutdown().await.unwrap();
}
