//! Aim: no limit is met after an edit was shown. What shows is kept and reaches everybody; what is
//! too much fails before anything has happened, and the document goes on.
//!
//! Method: the client for services and a relay as a process, with the greatest changes that people
//! make and with greater ones. The page's side is `wasm/test/draft.test.ts` and
//! `browser/limits.test.js`, that of stock clients `interop/large.test.js`, and the limits of
//! structure themselves are in `admission`.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, AutomergeError, Change, ObjType, ROOT, ReadDoc};
use reconverge::history::{CHANGE_BYTES_MAX, CHANGE_OPS_MAX, ChangeError as Structure, Refusal};
use reconverge::native::{ChangeError, DocHandle, Repo};
use reconverge::replica::{ChangeOptions, Replica};
use reconverge_tests::forge::{self, chunk};
use reconverge_tests::light::PATIENCE;
use reconverge_tests::process::Relay;

/// More than a change could have once.
const PASTED: usize = 4_300_000;

async fn repo(relay: &Relay, folder: &tempfile::TempDir, name: &str) -> Repo {
    let file = folder.path().join(name);
    let repo = Repo::builder().relay(&relay.url()).file(file).build();
    repo.await.unwrap()
}

async fn synced(handle: &DocHandle) {
    let synced = tokio::time::timeout(10 * PATIENCE, handle.when_synced()).await;
    synced.expect("in time").unwrap();
}

/// What somebody finds who has nothing.
async fn found(relay: &Relay, folder: &tempfile::TempDir, name: &str, url: &str) -> DocHandle {
    let fresh = repo(relay, folder, name).await;
    let found = tokio::time::timeout(10 * PATIENCE, fresh.find(url)).await;
    found.expect("in time").unwrap()
}

fn text_len(document: &Automerge) -> usize {
    let text = document.get(ROOT, "text").unwrap().unwrap().1;
    document.length(&text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paste_of_millions_of_characters_is_kept() {
    let relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let ours = repo(&relay, &folder, "ours").await;
    let handle = ours.create().unwrap();
    let paste = "paste ".repeat(PASTED / 6);
    let pasted = handle.change(|tx| {
        let text = tx.put_object(ROOT, "text", ObjType::Text)?;
        tx.splice_text(&text, 0, 0, &paste)
    });
    pasted.unwrap();
    synced(&handle).await;
    let url = handle.url();
    let theirs = found(&relay, &folder, "theirs", &url).await;
    assert_eq!(theirs.read(text_len).unwrap(), paste.len());
    theirs.change(|tx| tx.put(ROOT, "after", 1)).unwrap();
    synced(&theirs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_one_change_fails_before_anything_happens() {
    let relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let ours = repo(&relay, &folder, "ours").await;
    let handle = ours.create().unwrap();
    handle.change(|tx| tx.put(ROOT, "before", 1)).unwrap();
    let heads = handle.heads().unwrap();

    let long = handle.change(|tx| tx.put(ROOT, "long", vec![7; CHANGE_BYTES_MAX]));
    let Err(ChangeError::Limit(Refusal::Change(Structure::Chunk(_)))) = long else {
        panic!("{long:?}");
    };

    assert_eq!(handle.heads().unwrap(), heads);
    let keys = handle.read(|document| document.keys(ROOT).collect::<Vec<_>>());
    assert_eq!(keys.unwrap(), ["before"]);
    // As much as there may be, and what comes after it.
    let most = vec![7; CHANGE_BYTES_MAX - 1024 * 1024];
    handle.change(|tx| tx.put(ROOT, "long", most)).unwrap();
    handle.change(|tx| tx.put(ROOT, "after", 1)).unwrap();
    synced(&handle).await;
    let theirs = found(&relay, &folder, "theirs", &handle.url()).await;
    assert_eq!(theirs.heads().unwrap(), handle.heads().unwrap());
}

/// A few bytes with more operations than a change may have; to make them by an edit takes minutes.
#[test]
fn changes_of_another_document_beyond_a_limit_are_not_merged() {
    let mut replica = Replica::new(ActorId::from([2; 16]));
    replica.begin(0);
    let heads = replica.document().unwrap().get_heads();
    let many = chunk(1, &forge::values(1, CHANGE_OPS_MAX + 1));
    let many = Change::try_from(&*many).unwrap();
    let error = replica.merge(vec![many]).unwrap_err();
    assert!(
        error.to_string().contains("number of operations"),
        "{error}"
    );
    assert_eq!(replica.document().unwrap().get_heads(), heads);
    let put = replica.change(ChangeOptions::default(), |tx| tx.put(ROOT, "after", 1));
    assert!(put.unwrap().1.is_some());
    replica.enter_own().unwrap();
    assert!(replica.fault().is_none());
}

/// A recorded discussion that is published as a benchmark has two changes, of which one has
/// 9,358,770 operations.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_one_change_of_nine_million_operations_is_taken() {
    const OPERATIONS: usize = 9_358_770;
    let mut document = Automerge::new();
    let mut tx = document.transaction();
    let made: Result<(), AutomergeError> = tx
        .put_object(ROOT, "text", ObjType::Text)
        .and_then(|text| tx.splice_text(&text, 0, 0, &"discussed ".repeat(OPERATIONS / 10)));
    made.unwrap();
    tx.commit();
    let saved = document.save();
    drop(document);
    let relay = Relay::start();
    let folder = tempfile::tempdir().unwrap();
    let ours = repo(&relay, &folder, "ours").await;
    let handle = ours.import(saved).await.unwrap();
    synced(&handle).await;
    ours.shutdown().await.unwrap();
    let theirs = found(&relay, &folder, "theirs", &handle.url()).await;
    assert_eq!(theirs.read(text_len).unwrap(), OPERATIONS / 10 * 10);
}
