//! Aim: who runs a service sees what its client does, in numbers and in the log, which has no tokens
//! and nothing of a document but its id.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::any::Any;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use automerge::ROOT;
use automerge::transaction::Transactable;
use reconverge::engine::RelayState;
use reconverge::id::DocumentId;
use reconverge::native::{Connection, DocHandle, Repo, Status};
use reconverge_tests::door::{UNAUTHORIZED, answering};
use reconverge_tests::patience::in_time;
use reconverge_tests::process::Relay;
use tokio::sync::watch;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

async fn becomes(connections: &mut watch::Receiver<Arc<[Connection]>>, state: RelayState) {
    let seen = connections.wait_for(|now| now[0].state == state);
    in_time(&format!("{state:?}"), seen).await.unwrap();
}

fn set(document: &DocHandle, n: i64) {
    document.change(|tx| tx.put(ROOT, "n", n)).unwrap();
}

/// What was logged in this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn all(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// How many lines have all of these.
    fn count(&self, parts: &[&str]) -> usize {
        let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
        self.all().lines().filter(has_all).count()
    }
}

fn logged() -> (Lines, Box<dyn Any>) {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        // What others log is theirs: tungstenite writes requests with their tokens at this level.
        .with_env_filter("reconverge=trace")
        .with_ansi(false)
        .with_writer(lines.clone());
    (lines, Box::new(subscriber.set_default()))
}

#[tokio::test]
async fn the_log_says_how_connections_change_and_never_what_is_secret() {
    let (lines, _logged) = logged();
    let mut relay = Relay::start();
    relay.kill();
    let url = format!("{}?token=secret&space=shop", relay.url());
    let repo = Repo::builder().relay(&url).build().await.unwrap();
    let mut connections = repo.connections();
    let document = repo
        .create_with(|tx| tx.put(ROOT, "private", "words"))
        .unwrap();
    // Somebody waits, so it is tried each second.
    let synced = document.when_synced();
    let second = async {
        while lines.count(&["DEBUG", "no connection"]) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let both = async { tokio::join!(synced, async { (second.await, relay.start_again()) }) };
    in_time("synced", both).await.0.unwrap();
    let shown = format!("{}?space=shop", relay.url());
    let of_relay = |parts: &[&str]| lines.count(&[parts, &[shown.as_str()]].concat());
    assert_eq!(of_relay(&["WARN", "cannot be reached", "Network"]), 1);
    assert_eq!(of_relay(&["INFO", "connected"]), 1);
    assert!(of_relay(&["DEBUG", "connecting"]) >= 3);
    assert!(of_relay(&["TRACE", "sent", "bytes="]) >= 2);
    assert!(of_relay(&["TRACE", "received"]) >= 2);
    relay.kill();
    becomes(&mut connections, RelayState::Waiting).await;
    let said = async {
        while of_relay(&["WARN", "disconnected"]) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("the line", said).await;
    repo.shutdown().await.unwrap();
    for secret in ["secret", "private", "words"] {
        assert_eq!(lines.count(&[secret]), 0, "{secret}");
    }
}

#[tokio::test]
async fn the_log_says_who_refuses_what() {
    let (lines, _logged) = logged();
    let url = answering(UNAUTHORIZED).await;
    let repo = Repo::builder().relay(&url).token("secret").build();
    let repo = repo.await.unwrap();
    let document = repo.create().unwrap();
    let mut status = document.status();
    let refused = status.wait_for(|now| matches!(now, Status::Refused(_)));
    in_time("refused", refused).await.unwrap();
    let missing = DocumentId::new(&[1; 16]).unwrap().to_string();
    assert!(repo.find(&missing).await.is_err());
    repo.shutdown().await.unwrap();
    assert_eq!(lines.count(&["WARN", &url, "refuses us", "Http(401)"]), 1);
    let id = document.document_id().to_string();
    assert_eq!(lines.count(&["WARN", &id, "no relay takes"]), 1);
    assert_eq!(lines.count(&["DEBUG", &missing, "not found"]), 1);
    assert_eq!(lines.count(&["secret"]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_did_is_counted() {
    let mut relay = Relay::start();
    let ann = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let bob = Repo::builder().relay(&relay.url());
    let bob = bob.release_after(Duration::from_millis(10)).build();
    let bob = bob.await.unwrap();
    let of_ann = ann.create().unwrap();
    for n in 0..10 {
        set(&of_ann, n);
    }
    in_time("synced", of_ann.when_synced()).await.unwrap();
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    in_time("current", of_bob.when_current()).await.unwrap();
    drop(of_bob);
    let released = async {
        while bob.documents_in_memory() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("released", released).await;
    let (by_ann, by_bob) = (ann.statistics(), bob.statistics());
    assert_eq!((by_ann.changes_made, by_ann.changes_received), (11, 0));
    assert_eq!((by_bob.changes_made, by_bob.changes_received), (0, 11));
    assert_eq!((by_ann.searches_begun, by_bob.searches_begun), (0, 1));
    assert_eq!(by_bob.searches_ended, 1);
    assert_eq!((by_ann.documents_entered, by_ann.documents_left), (1, 0));
    assert_eq!((by_bob.documents_entered, by_bob.documents_left), (1, 1));
    for counted in [by_ann, by_bob] {
        assert_eq!(counted.connections_made, 1);
        assert_eq!(counted.connections_failed + counted.connections_lost, 0);
        assert!(counted.commits >= 1 && counted.commits_failed == 0);
        assert!(counted.bytes_received > 100 && counted.bytes_sent > 100);
    }
    let mut connections = ann.connections();
    relay.kill();
    becomes(&mut connections, RelayState::Waiting).await;
    let failed = async {
        while ann.statistics().connections_failed == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("another try", failed).await;
    relay.start_again();
    becomes(&mut connections, RelayState::Connected).await;
    let again = ann.statistics();
    assert_eq!((again.connections_made, again.connections_lost), (2, 1));
    ann.shutdown().await.unwrap();
    bob.shutdown().await.unwrap();
}
