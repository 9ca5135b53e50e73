//! What a relay does not take, and who is told.

use std::sync::Arc;
use std::time::Duration;

use automerge::ChangeHash;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use reconverge::engine::{FindError, Reason, Status};
use reconverge::history::Refusal;
use reconverge::id::{DocumentId, PeerId};
use reconverge::native::{Repo, SyncError};
use reconverge::protocol::{
    self, Message, NEED_MAX, PeerMetadata, SyncEnvelope, Version, encode_sync,
};
use reconverge::storage::MemoryStorage;
use reconverge_server::access::Open;
use reconverge_server::config::Config;
use reconverge_tests::patience::in_time;
use reconverge_tests::process::Relay;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::editing::{becomes, get, put, synced};
use crate::faulty::FaultyRelay;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_told_that_its_changes_are_refused() {
    let mut relay = FaultyRelay::start();
    let ann = Repo::builder().relay(&relay.url).build().await.unwrap();
    let of_ann = ann.create().unwrap();
    put(&of_ann, "n", 1);
    synced(&of_ann).await;
    relay.tell("read-only");
    let bob = Repo::builder().relay(&relay.url).build().await.unwrap();
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    assert_eq!(get(&of_bob, "n"), Some(1));
    synced(&of_bob).await;
    put(&of_bob, "n", 2);
    let refused = in_time("refusal", of_bob.when_synced()).await;
    assert!(matches!(refused, Err(SyncError::Refused(_))), "{refused:?}");
}

/// Joins, sends a document's first message, which is refused, then asks for a document that nobody has,
/// and gives back what the relay said until it answered that.
async fn answers_to(relay: &Relay, reconverge: u64, message: &[u8]) -> Vec<Bytes> {
    let (mut socket, _) = tokio_tungstenite::connect_async(relay.url()).await.unwrap();
    let sync = |id: u8, data: &[u8], request: bool| {
        protocol::encode(&Message::Sync(SyncEnvelope {
            sender: "raw",
            target: "relay",
            document: DocumentId::new(&[id; 16]).unwrap().to_string().into(),
            data,
            request,
        }))
    };
    let refusals = || {
        let log = relay.log();
        let lines = log.lines();
        lines
            .filter(|line| line.contains("change refused") || line.contains("not taken"))
            .count()
    };
    let before = refusals();
    let frames = [
        protocol::encode(&Message::Join {
            sender: "raw",
            metadata: PeerMetadata {
                reconverge,
                ..PeerMetadata::default()
            },
            speaks_v1: true,
        }),
        sync(1, message, false),
    ];
    for frame in frames {
        socket.send(Frame::Binary(frame.into())).await.unwrap();
    }
    // Documents are served independently of each other: this one is to be done with.
    let refused = async {
        while refusals() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("refused", refused).await;
    let request = sync(2, &encode_sync(Version::V1, &[], &[], None, 0), true);
    socket.send(Frame::Binary(request.into())).await.unwrap();
    let mut answers = Vec::new();
    loop {
        let Frame::Binary(frame) = in_time("an answer", socket.next()).await.unwrap().unwrap()
        else {
            continue;
        };
        let last = matches!(
            protocol::decode(&frame).unwrap(),
            Message::DocUnavailable { .. }
        );
        answers.push(frame);
        if last {
            return answers;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_understands_it_is_told_what_was_refused() {
    let relay = Relay::start();
    let refusals = |answers: &[Bytes]| -> Vec<String> {
        let reason = |frame: &Bytes| match protocol::decode(frame).unwrap() {
            Message::Refused(refused) => Some(format!("{}: {}", refused.code, refused.reason)),
            Message::Unknown { kind } => panic!("unknown type {kind}"),
            _ => None,
        };
        answers.iter().filter_map(reason).collect()
    };
    let mut nonsense = encode_sync(Version::V1, &[ChangeHash([7; 32])], &[], None, 1);
    nonsense.extend([4, 1, 2, 3, 4]);
    let ours = refusals(&answers_to(&relay, 1, &nonsense).await);
    assert_eq!(ours, ["malformed: not an Automerge chunk"]);
    let stock = refusals(&answers_to(&relay, 0, &nonsense).await);
    assert!(stock.is_empty(), "{stock:?}");
    // A message above a limit costs its document, not the connection: the other one is answered.
    let hashes = vec![ChangeHash([7; 32]); NEED_MAX + 1];
    let many = encode_sync(Version::V1, &[ChangeHash([7; 32])], &hashes, None, 0);
    let ours = refusals(&answers_to(&relay, 1, &many).await);
    assert_eq!(ours, ["limit: need: 65537 is above the limit of 65536"]);
    let stock = refusals(&answers_to(&relay, 0, &many).await);
    assert!(stock.is_empty(), "{stock:?}");
}

/// What is too much for a connection costs the document that is too many, not the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_above_a_connections_limit_is_refused_by_itself() {
    let config = Config {
        documents_max: 2,
        ..Config::default()
    };
    let storage = Arc::new(MemoryStorage::new("memory"));
    let name = PeerId::new("relay").unwrap();
    let relay = reconverge_server::Relay::start(config, name, storage, Arc::new(Open)).await;
    let relay = relay.unwrap();
    let url = format!("ws://{}/", relay.address());
    let ann = Repo::builder().relay(&url).build().await.unwrap();
    let within = [ann.create().unwrap(), ann.create().unwrap()];
    for document in &within {
        put(document, "n", 1);
        synced(document).await;
    }
    let above = ann.create().unwrap();
    put(&above, "n", 1);
    let reason = "documents of one connection: 3 is above the limit of 2";
    becomes(&above, Status::Refused(Reason::new("limit", reason))).await;
    for document in &within {
        put(document, "n", 2);
        synced(document).await;
    }
    // Who looks for one hears that it cannot be had.
    let unknown = format!("automerge:{}", DocumentId::new(&[7; 16]).unwrap());
    let found = in_time("an answer", ann.find(&unknown)).await;
    assert!(matches!(found, Err(FindError::Unavailable)), "{found:?}");
    relay.stop().await;
}

/// Programs act by the codes, so each is listed where its users look.
#[test]
fn every_code_is_in_the_docs() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = root.join("../docs/internals/check.md");
    let page = std::fs::read_to_string(page).unwrap();
    for code in Refusal::CODES {
        assert!(page.contains(&format!("| `{code}` |")), "{code}");
    }
}
