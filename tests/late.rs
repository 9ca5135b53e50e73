//! A client that speaks of very many documents and reads late is sent all of them, each once, and
//! costs the relay no more turns for it than if it had read at once.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use std::collections::HashSet;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};
use futures::{SinkExt, StreamExt};
use reconverge::id::DocumentId;
use reconverge::protocol::{self, Message, SyncMessage};
use reconverge_tests::light::PATIENCE;
use reconverge_tests::process::Relay;
use reconverge_tests::socket::{Socket, binary, request_bytes, sync_frame};
use reconverge_tests::world::sync_message;

/// How many documents there are; `RECONVERGE_LATE` makes it as many as it says.
const DOCUMENTS: u32 = 3_000;

/// In each of them a text of so many bytes, so that few frames are as much as may wait.
const TEXT_BYTES: usize = 4_000;

fn document(number: u32) -> DocumentId {
    let mut id = [2; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    DocumentId::new(&id).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_late_is_sent_all_documents() {
    let documents = std::env::var("RECONVERGE_LATE").map_or(DOCUMENTS, |n| n.parse().unwrap());
    let relay = Relay::start();
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    doc.put(ROOT, "text", "x".repeat(TEXT_BYTES)).unwrap();
    doc.commit();
    let (heads, change) = (doc.get_heads(), doc.get_last_local_change().unwrap());
    let data = sync_message(&heads, &[], &[change.raw_bytes()]);

    let writer = Socket::join(&relay.url(), "writer").await.into_stream();
    let (mut sink, mut answers) = writer.split();
    let writes = async {
        for n in 0..documents {
            sink.feed(sync_frame("writer", document(n), &data))
                .await
                .unwrap();
        }
        sink.flush().await.unwrap();
    };
    let acknowledged = async {
        let mut left: HashSet<String> = (0..documents).map(|n| document(n).to_string()).collect();
        while !left.is_empty() {
            let answer = answers.next().await.unwrap().unwrap().into_data();
            if let Ok(Message::Sync(sync)) = protocol::decode(&answer)
                && SyncMessage::decode(sync.data).unwrap().heads == heads
            {
                left.remove(&*sync.document);
            }
        }
    };
    let written = async { futures::join!(writes, acknowledged) };
    tokio::time::timeout(PATIENCE, written).await.unwrap();

    let reader = Socket::join(&relay.url(), "reader").await.into_stream();
    let (mut sink, mut stream) = reader.split();
    let before = relay.usage().cpu;
    let asked = async {
        for n in 0..documents {
            let frame = binary(request_bytes("reader", document(n)));
            sink.feed(frame).await.unwrap();
        }
        sink.flush().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
    // Now the relay has answered what it could, and the rest waits.
    let mut cpu = relay.usage().cpu;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = relay.usage().cpu;
        if now == std::mem::replace(&mut cpu, now) {
            break;
        }
    }
    let mut left: HashSet<String> = (0..documents).map(|n| document(n).to_string()).collect();
    let all = async {
        while !left.is_empty() {
            let frame = stream.next().await.unwrap().unwrap().into_data();
            if let Ok(Message::Sync(sync)) = protocol::decode(&frame)
                && !SyncMessage::decode(sync.data).unwrap().changes.is_empty()
            {
                assert!(left.remove(&*sync.document), "{} came twice", sync.document);
            }
        }
    };
    let came = tokio::time::timeout(PATIENCE, all).await;
    assert!(came.is_ok(), "{} documents did not come", left.len());
    let cpu = relay.usage().cpu.saturating_sub(before);
    eprintln!("{documents} documents: {cpu:?} of the relay's time");
}
