//! Aim: whatever an uploaded document chunk does to the process that unpacks it, other documents
//! go on, the chunk is not served, and the relay lives.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use automerge::{AutoCommit, ChangeHash};
use bytes::Bytes;
use reconverge::history::DOCUMENT_OPS_MAX;
use reconverge::id::{DocumentId, PeerId};
use reconverge::leb::push_unsigned;
use reconverge::storage::MemoryStorage;
use reconverge_server::access::Open;
use reconverge_server::config::Config;
use reconverge_server::workshop::WorkshopConfig;
use reconverge_tests::forge::{chunk, values};
use reconverge_tests::light::{Client, Document};
use reconverge_tests::process::{Relay, relay_executable};
use reconverge_tests::socket::{Socket, sync_frame};
use reconverge_tests::typist::Typist;
use reconverge_tests::world::sync_message;

const EDITS: usize = 200;

/// Longer than any test lasts.
const HOUR: Duration = Duration::from_secs(3600);

fn id(n: u8) -> DocumentId {
    DocumentId::new(&[n; 16]).unwrap()
}

/// Uploads `chunk` as document 1 and, while it is being unpacked, writes document 2; then asks for
/// both from a fresh client.
async fn others_go_on(url: &str, chunk: Bytes, head: ChangeHash) {
    let mut hostile = Client::connect(url, "hostile").await.unwrap();
    hostile.open(Document::with_snapshot(id(1), chunk, Arc::from([head])));
    hostile.flush().await.unwrap();
    // The relay asks for what was announced; the chunk goes up with the answer.
    hostile
        .until(|client| client.document(0).relay_heads().is_some())
        .await
        .unwrap();
    hostile.flush().await.unwrap();

    let (mut typist, first) = Typist::new(7);
    let mut writer = Client::connect(url, "writer").await.unwrap();
    let at = writer.open(Document::created(id(2), [first]));
    for change in typist.keystrokes(EDITS) {
        writer.write(at, change);
        writer.until_acked(at).await.unwrap();
    }

    let mut fresh = Client::connect(url, "fresh").await.unwrap();
    let bad = fresh.open(Document::new(id(1)));
    let good = fresh.open(Document::new(id(2)).keeping());
    let good_heads = writer.document(at).heads().to_vec();
    fresh
        .until(|client| {
            client.document(bad).is_unavailable() && client.document(good).heads() == good_heads
        })
        .await
        .unwrap();
    let found = reconverge_tests::typist::load(fresh.document(good).kept()).unwrap();
    assert_eq!(found, typist.contents());
}

/// A document chunk of about a hundred bytes that declares this many operations.
fn bomb(rows: u64) -> (Bytes, ChangeHash) {
    let head = ChangeHash([7; 32]);
    let mut data = vec![1, 16];
    data.extend([1; 16]);
    data.push(1);
    data.extend(head.0);
    // No change columns; one operation column, the actions: that many times "set". The count of a
    // run is signed; these need no more digits for that.
    let mut actions = Vec::new();
    push_unsigned(&mut actions, rows);
    assert_eq!(actions.last().unwrap() & 0x40, 0);
    actions.push(1);
    data.extend([0, 1, 0x42, actions.len() as u8]);
    data.extend(actions);
    (chunk(0, &data).into(), head)
}

/// An honest document of some size.
fn document(changes: usize) -> (Bytes, ChangeHash) {
    let (mut typist, first) = Typist::new(3);
    let last = typist
        .keystrokes(changes)
        .last()
        .map_or(first.hash, |change| change.hash);
    (typist.save().into(), last)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_length_bomb_is_refused() {
    for rows in [DOCUMENT_OPS_MAX + 1, 1 << 40] {
        let mut relay = Relay::start();
        let (chunk, head) = bomb(rows);
        others_go_on(&relay.url(), chunk, head).await;
        let refusal = format!("declares {rows} rows, above the limit");
        assert!(relay.log().contains(&refusal), "{}", relay.log());
        assert!(relay.is_running());
    }
}

/// What declares as many as may be is loaded, and fails there.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_rows_as_may_be_are_no_bomb() {
    let mut relay = Relay::start();
    let (chunk, head) = bomb(DOCUMENT_OPS_MAX);
    others_go_on(&relay.url(), chunk, head).await;
    let log = relay.log();
    assert!(log.contains("uploaded document refused"), "{log}");
    assert!(!log.contains("above the limit"), "{log}");
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_out_of_memory_fails_alone() {
    let mut relay = Relay::start_with(&["--workshop-memory-mib", "24"]);
    let (chunk, head) = document(20_000);
    others_go_on(&relay.url(), chunk, head).await;
    assert!(
        relay.log().contains("uploaded document refused"),
        "{}",
        relay.log()
    );
    assert!(relay.is_running());
}

/// A relay with this workshop. Whoever asks for a document waits until its upload has failed.
async fn relay_with(workshop: WorkshopConfig) -> reconverge_server::Relay {
    let config = Config {
        upload_grace: HOUR,
        ping_interval: HOUR,
        workshop,
        ..Config::default()
    };
    let storage = Arc::new(MemoryStorage::new("workshop-test"));
    let name = PeerId::new("relay").unwrap();
    let relay = reconverge_server::Relay::start(config, name, storage, Arc::new(Open)).await;
    relay.unwrap()
}

/// A shell script that a relay runs in the place of its workshop.
fn script_in(directory: &Path, script: &str) -> PathBuf {
    let program = directory.join("workshop");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// A relay whose workshop runs this shell script instead.
async fn relay_with_workshop(script: &str) -> (reconverge_server::Relay, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let workshop = WorkshopConfig {
        program: script_in(directory.path(), script),
        deadline: Duration::from_secs(1),
        ..Config::default().workshop
    };
    (relay_with(workshop).await, directory)
}

/// Nobody waits behind the job of somebody who has gone, however long it would take.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_with_the_connection_that_caused_it() {
    ends_behind(0).await;
}

/// Nor when the end of the connection lies behind messages that are not read, since as many as may
/// wait for the job.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_with_a_connection_that_is_not_read() {
    ends_behind(400).await;
}

async fn ends_behind(behind: usize) {
    let directory = tempfile::tempdir().unwrap();
    let first = directory.path().join("first");
    let script = format!(
        "if mkdir {} 2>/dev/null; then exec sleep 600; fi\nexec {} \"$@\"",
        first.display(),
        relay_executable().display()
    );
    let relay = relay_with(WorkshopConfig {
        program: script_in(directory.path(), &script),
        deadline: HOUR,
        ..Config::default().workshop
    });
    let relay = relay.await;
    let url = format!("ws://{}/", relay.address());
    // Neither is a short job.
    let (endless, head) = bomb(300_000);
    let mut hostile = Socket::join(&url, "hostile").await;
    let uploads = sync_message(&[head], &[], &[&endless]);
    hostile
        .send(vec![sync_frame("hostile", id(1), &uploads)])
        .await;
    while !first.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let waits = sync_message(&[head], &[], &[]);
    let behind = vec![sync_frame("hostile", id(1), &waits); behind];
    hostile.send(behind).await;
    drop(hostile);
    let (chunk, head) = long_job();
    let mut client = Client::connect(&url, "client").await.unwrap();
    let at = client.open(Document::with_snapshot(id(2), chunk, Arc::from([head])));
    client.until_acked(at).await.unwrap();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_workshop_fails_that_job_alone() {
    let (relay, _directory) = relay_with_workshop("echo thread panicked >&2; exit 101").await;
    let (chunk, head) = document(500);
    others_go_on(&format!("ws://{}/", relay.address()), chunk, head).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_load_is_killed_at_its_deadline() {
    let (relay, _directory) = relay_with_workshop("exec sleep 600").await;
    let (chunk, head) = document(500);
    others_go_on(&format!("ws://{}/", relay.address()), chunk, head).await;
    relay.stop().await;
}

/// A small chunk that takes some 9 s of CPU time to unpack, so that no machine is done within one.
fn long_job() -> (Bytes, ChangeHash) {
    let mut doc = AutoCommit::load(&chunk(1, &values(7, 8_000_000))).unwrap();
    let head = doc.get_heads()[0];
    (doc.save().into(), head)
}

/// The clock ends nothing here. With much CPU time the same job succeeds; with a second of it, it
/// fails while others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_out_of_cpu_time_fails_alone() {
    let (chunk, head) = long_job();
    let workshop = |cpu_s_max| WorkshopConfig {
        program: relay_executable(),
        cpu_s_max,
        deadline: HOUR,
        ..Config::default().workshop
    };
    let relay = relay_with(workshop(600)).await;
    let url = format!("ws://{}/", relay.address());
    let mut client = Client::connect(&url, "client").await.unwrap();
    let at = client.open(Document::with_snapshot(
        id(1),
        chunk.clone(),
        Arc::from([head]),
    ));
    client.until_acked(at).await.unwrap();
    relay.stop().await;

    let relay = relay_with(workshop(1)).await;
    others_go_on(&format!("ws://{}/", relay.address()), chunk, head).await;
    relay.stop().await;
}

/// It has what it uploaded, and the relay knows that before it has read the document's graph.
#[tokio::test(flavor = "multi_thread")]
async fn who_uploads_a_document_is_not_sent_it() {
    let relay = Relay::start();
    for (n, changes) in [(1, 20), (2, 2_000)] {
        let (chunk, head) = document(changes);
        let mut client = Client::connect(&relay.url(), "uploads").await.unwrap();
        let upload = Document::with_snapshot(id(n), chunk, Arc::from([head]));
        let at = client.open(upload.keeping());
        client.until_acked(at).await.unwrap();
        assert!(client.document(at).kept().is_empty(), "{changes} changes");
    }
}
