//! A client of a relay, and numbers in a document that one writes and others wait for.

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc};
use futures::StreamExt;
use reconverge::engine::Status;
use reconverge::native::{DocHandle, Repo};
use reconverge_tests::patience::in_time;
use reconverge_tests::process::Relay;

pub(crate) async fn client(relay: &Relay) -> Repo {
    Repo::builder().relay(&relay.url()).build().await.unwrap()
}

pub(crate) fn put(document: &DocHandle, key: &str, value: i64) {
    document.change(|tx| tx.put(ROOT, key, value)).unwrap();
}

pub(crate) fn get(document: &DocHandle, key: &str) -> Option<i64> {
    let read = |doc: &Automerge| doc.get(ROOT, key).unwrap().and_then(|(v, _)| v.as_i64());
    document.read(read).unwrap()
}

/// Waits until the document has the value.
pub(crate) async fn has(document: &DocHandle, key: &str, value: i64) {
    let mut changes = document.changes();
    let seen = async {
        while get(document, key) != Some(value) {
            changes.next().await.unwrap();
        }
    };
    in_time(&format!("{key} = {value}"), seen).await;
}

pub(crate) async fn synced(document: &DocHandle) {
    in_time("synced", document.when_synced()).await.unwrap();
}

pub(crate) async fn becomes(document: &DocHandle, status: Status) {
    let mut watched = document.status();
    let what = status.to_string();
    let seen = watched.wait_for(|now| *now == status);
    in_time(&what, seen).await.unwrap();
}
