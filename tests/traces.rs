//! Recorded editing, one change per transaction, through clients and the relay into fresh clients.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use automerge::ChangeHash;
use reconverge::id::DocumentId;
use reconverge_tests::Random;
use reconverge_tests::light::{Change, Client, Document};
use reconverge_tests::process::Relay;
use reconverge_tests::trace::{FRIENDS, PAPER, Replayed, Trace};
use reconverge_tests::typist;

/// How many keystrokes of the paper; all of them are the load driver's `trace`.
const KEYSTROKES: usize = 30_000;

/// Most changes that an author adds at a time: about what a stock client gathers while a big
/// paste or an absence lasts.
const TOGETHER: usize = 500;

/// How long the relay may take to fold what it stores into a snapshot.
const COMPACTION: Duration = Duration::from_secs(30);

#[test]
fn thirty_thousand_keystrokes_reach_a_fresh_client() {
    let replayed = Trace::load(PAPER).replay(KEYSTROKES);
    check(&replayed);
}

#[test]
fn two_authors_at_once_reach_a_fresh_client() {
    let trace = Trace::load(FRIENDS);
    let replayed = trace.replay(trace.transactions.len());
    assert_eq!(replayed.text, trace.end);
    check(&replayed);
}

fn check(replayed: &Replayed) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut relay = Relay::start();
        let id = Random::new(Random::fresh_seed()).document_id();
        write(&relay, id, replayed).await;
        fetch(&relay, id, replayed).await;
        until_compacted(&relay, id, replayed).await;
        fetch(&relay, id, replayed).await;
        assert!(relay.restart(), "the relay ends when asked to");
        fetch(&relay, id, replayed).await;
        relay.kill();
        relay.start_again();
        fetch(&relay, id, replayed).await;
    });
}

fn deps_of(change: &Change) -> Vec<ChangeHash> {
    automerge::Change::try_from(&*change.bytes)
        .unwrap()
        .deps()
        .to_vec()
}

/// Each author is a client, which sends a change when what it builds upon has come.
async fn write(relay: &Relay, id: DocumentId, replayed: &Replayed) {
    let authors = replayed.agents.iter().max().unwrap() + 1;
    let mut clients = Vec::new();
    for author in 0..authors {
        clients.push(
            Client::connect(&relay.url(), &format!("author-{author}"))
                .await
                .unwrap(),
        );
    }
    let first = replayed.agents[0];
    clients[first].open(Document::created(id, [replayed.changes[0].clone()]));
    clients[first].until_acked(0).await.unwrap();
    for (_, client) in clients
        .iter_mut()
        .enumerate()
        .filter(|(author, _)| *author != first)
    {
        client.open(Document::new(id));
    }

    // Runs of one author: as long as that, nobody has to wait for the other.
    let mut at = 1;
    let mut heads = vec![replayed.changes[0].hash];
    while at < replayed.changes.len() {
        let author = replayed.agents[at];
        let run = replayed.agents[at..]
            .iter()
            .take(TOGETHER)
            .take_while(|a| **a == author)
            .count();
        let changes: Vec<Change> = replayed.changes[at..at + run].to_vec();
        let deps: HashSet<ChangeHash> = changes.iter().flat_map(deps_of).collect();
        let written: HashSet<ChangeHash> = changes.iter().map(|change| change.hash).collect();
        // What the run builds upon was acknowledged, so it is on its way to this author: change by
        // change, or inside a snapshot.
        let has_deps = |document: &Document| {
            document.heads() == heads
                || deps
                    .iter()
                    .all(|dep| written.contains(dep) || document.has(dep))
        };
        clients[author]
            .until(|client| has_deps(client.document(0)))
            .await
            .unwrap();
        heads.retain(|head| !deps.contains(head));
        heads.extend(written.difference(&deps));
        heads.sort_unstable();
        clients[author].write_all(0, changes);
        clients[author].until_acked(0).await.unwrap();
        at += run;
    }
    for client in &mut clients {
        client
            .until(|client| client.document(0).is_in_step())
            .await
            .unwrap();
        assert_eq!(client.document(0).received.gaps, 0);
    }
}

async fn fetch(relay: &Relay, id: DocumentId, replayed: &Replayed) -> u64 {
    let mut client = Client::connect(&relay.url(), "fresh").await.unwrap();
    client.open(Document::new(id).keeping());
    client
        .until(|client| client.document(0).is_in_step())
        .await
        .unwrap();
    let document = client.document(0);
    let contents = typist::load(document.kept()).unwrap();
    assert!(contents.text == replayed.text, "another text came out");
    assert_eq!(contents.heads, document.heads());
    assert_eq!(contents.changes, replayed.changes.len() as u64);
    document.received.snapshots
}

/// Waits until a fresh client is given a snapshot.
async fn until_compacted(relay: &Relay, id: DocumentId, replayed: &Replayed) {
    let since = Instant::now();
    while fetch(relay, id, replayed).await == 0 {
        assert!(since.elapsed() < COMPACTION, "nothing was compacted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
