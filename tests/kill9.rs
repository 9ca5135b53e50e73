//! What the relay acknowledged is there after `kill -9`, whenever it comes.
//!
//! Each cycle: several clients write in several documents that they share, every edit a message of
//! its own, while the relay is killed at a random moment; it is started again on the same data,
//! and a fresh client fetches every document. Each must load whole, have every change that any
//! client was told to be durable, and have nothing that nobody wrote. Then the writers reconnect
//! and go on, also with what was not acknowledged: in the next cycle that too must be there.
//!
//! `RECONVERGE_KILL9_CYCLES` sets the number of cycles (200), `RECONVERGE_KILL9_SEED` repeats a
//! run.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use std::collections::HashSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use automerge::{AutoCommit, ChangeHash};
use reconverge::id::DocumentId;
use reconverge::native::RedbStorage;
use reconverge_tests::Random;
use reconverge_tests::light::{Client, Document, Fault};
use reconverge_tests::process::Relay;
use reconverge_tests::typist::Typist;

const CYCLES: usize = 200;

/// A document lives this many cycles, so that both young and grown ones are killed.
const CYCLES_PER_DOCUMENT: usize = 20;

const DOCUMENTS: usize = 4;
const WRITERS_PER_DOCUMENT: usize = 3;

/// Edits of one writer that may be unacknowledged at a time.
const IN_FLIGHT_MAX: u64 = 16;

/// The kill comes at most this long after everybody is connected.
const KILL_AFTER_MAX_US: u64 = 120_000;

/// One author in one document, over all cycles.
struct Writer {
    typist: Typist,
    document: Document,
    random: Random,
    /// How many own changes were acknowledged over all connections so far.
    acked: usize,
    /// How many bytes of what was received the typist has taken in.
    taken: usize,
}

impl Writer {
    /// Writes until the connection breaks, taking in what others write.
    async fn write_until_cut(mut self, url: &str, name: &str) -> Self {
        // The kill may come before everybody is in.
        let Ok(mut client) = Client::connect(url, name).await else {
            return self;
        };
        let at = client.open(self.document);
        loop {
            let document = client.document(at);
            let in_flight = (document.written() - document.acked()) as u64;
            if document.relay_heads().is_some() && in_flight < IN_FLIGHT_MAX {
                let received = &document.kept()[self.taken..];
                if !received.is_empty() {
                    self.typist.receive(received);
                    self.taken = document.kept().len();
                }
                for _ in 0..1 + self.random.below(IN_FLIGHT_MAX - in_flight) {
                    client.write(at, self.typist.keystroke());
                }
            }
            match client.next().await {
                Ok(_) => {}
                Err(Fault::Relay(what)) => panic!("{name}: {what}"),
                Err(_) => break,
            }
        }
        self.document = client.into_documents().swap_remove(at);
        self.acked = self.acked.max(self.document.acked());
        self
    }

    fn acknowledged(&self) -> impl Iterator<Item = &ChangeHash> {
        self.document.own()[..self.acked]
            .iter()
            .map(|change| &change.hash)
    }
}

/// A document, its writers, and everything anybody ever wrote in it.
struct Shared {
    id: DocumentId,
    writers: Vec<Writer>,
}

impl Shared {
    /// A new document: one author creates it, the others begin with a copy.
    async fn create(url: &str, random: &mut Random) -> Self {
        let id = random.document_id();
        let (mut typist, first) = Typist::new(random.number());
        let mut client = Client::connect(url, "creator").await.unwrap();
        let at = client.open(Document::created(id, [first.clone()]).keeping());
        client.until_acked(at).await.unwrap();
        let created = client.into_documents().swap_remove(at);
        let saved = typist.save();
        let mut writers = Vec::new();
        for _ in 1..WRITERS_PER_DOCUMENT {
            let typist = Typist::join(&saved, random.number());
            let document = Document::resumed(id, vec![first.hash]).keeping();
            let random = Random::new(random.number());
            writers.push(Writer {
                typist,
                document,
                random,
                acked: 0,
                taken: 0,
            });
        }
        let random = Random::new(random.number());
        writers.push(Writer {
            typist,
            document: created,
            random,
            acked: 1,
            taken: 0,
        });
        Self { id, writers }
    }

    /// Checks what a fresh client was given; how many changes that are, and how many of them had
    /// been acknowledged.
    fn check(&self, received: &Document) -> (usize, usize) {
        let name = received.name();
        assert_eq!(received.received.gaps, 0, "{name}: order");
        let mut doc = AutoCommit::load(received.kept()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let missing = doc.get_missing_deps(&[]);
        assert!(
            missing.is_empty(),
            "{name}: {missing:?} are missing below others"
        );
        let stored: HashSet<ChangeHash> = doc
            .get_changes(&[])
            .iter()
            .map(automerge::Change::hash)
            .collect();
        let mut heads = doc.get_heads();
        heads.sort_unstable();
        assert_eq!(
            heads,
            received.heads(),
            "{name}: the heads that the relay names"
        );
        let mut acknowledged = 0;
        for (writer, hash) in (self.writers.iter().enumerate())
            .flat_map(|(n, writer)| writer.acknowledged().map(move |hash| (n, hash)))
        {
            assert!(
                stored.contains(hash),
                "{name}: {hash} of writer {n} was acknowledged and is lost",
                n = writer
            );
            acknowledged += 1;
        }
        let written: HashSet<ChangeHash> = (self.writers.iter())
            .flat_map(|writer| writer.document.own().iter().map(|change| change.hash))
            .collect();
        assert!(
            stored.is_subset(&written),
            "{name}: something that nobody wrote"
        );
        (stored.len(), acknowledged)
    }
}

#[test]
fn nothing_acknowledged_is_ever_missing_after_kill_9() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let cycles = number("RECONVERGE_KILL9_CYCLES").map_or(CYCLES, |cycles| cycles as usize);
    let seed = number("RECONVERGE_KILL9_SEED").unwrap_or_else(Random::fresh_seed);
    println!("repeat with RECONVERGE_KILL9_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut random = Random::new(seed);
    let mut relay = Relay::start();
    let (mut stored, mut acknowledged) = (0, 0);
    let mut documents: Vec<Shared> = Vec::new();
    for cycle in 0..cycles {
        runtime.block_on(async {
            if cycle % CYCLES_PER_DOCUMENT == 0 {
                documents.clear();
            }
            while documents.len() < DOCUMENTS {
                documents.push(Shared::create(&relay.url(), &mut random).await);
            }
            documents =
                write_and_kill(&mut relay, std::mem::take(&mut documents), &mut random).await;
            relay.start_again();
            (stored, acknowledged) = check(&relay, &documents).await;
        });
        println!("cycle {cycle}: {acknowledged} acknowledged of {stored} stored");
        assert!(acknowledged > 0, "a run that proves something");
    }
}

/// A relay that is killed while it starts a worker leaves its file and its port to that process,
/// for the moment until it runs.
#[test]
fn a_relay_waits_for_what_the_last_one_leaves() {
    let mut relay = Relay::start();
    let address = relay.url().replace("ws://", "").replace('/', "");
    relay.kill();
    let file = relay.data().join("reconverge.redb");
    let held = RedbStorage::open(&file, 1 << 20, "unused").unwrap();
    let port = TcpListener::bind(address).unwrap();
    let log = relay.log_path();
    let letting_go = std::thread::spawn(move || {
        // Until the relay has said that it waits; if it ends instead, nothing need be let go.
        let waits = |times| {
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(60) {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                if log.matches("is in use by another process").count() == times {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            false
        };
        let waited_for_file = waits(1);
        drop(held);
        let waited_for_port = waits(2);
        drop(port);
        waited_for_file && waited_for_port
    });
    relay.start_again();
    assert!(letting_go.join().unwrap(), "{}", relay.log());
    assert!(relay.is_running());
}

/// Aim: a relay that is killed and started again gets its port. Method: what may have taken it once, a
/// connection that goes out from that very port, is tried while the relay is down. (The relay then
/// waits three seconds, and ends with an error that names the port: the failure of this test that
/// was seen once and had left no words.)
#[test]
fn nobody_gets_the_port_of_a_relay_that_is_down() {
    let mut relay = Relay::start();
    let address = relay.url().replace("ws://", "").replace('/', "");
    relay.kill();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let out = tokio::net::TcpSocket::new_v4().unwrap();
        let taken = match out.bind(address.parse().unwrap()) {
            Ok(()) => out.connect(elsewhere.local_addr().unwrap()).await,
            Err(error) => Err(error),
        };
        relay.start_again();
        assert!(taken.is_err());
    });
    assert!(relay.is_running());
}

async fn write_and_kill(
    relay: &mut Relay,
    documents: Vec<Shared>,
    random: &mut Random,
) -> Vec<Shared> {
    let writing: Vec<(DocumentId, Vec<_>)> = (documents.into_iter().enumerate())
        .map(|(d, shared)| {
            let writers = (shared.writers.into_iter().enumerate()).map(|(w, writer)| {
                let (url, name) = (relay.url(), format!("writer-{d}-{w}"));
                tokio::spawn(async move { Box::pin(writer.write_until_cut(&url, &name)).await })
            });
            (shared.id, writers.collect())
        })
        .collect();
    tokio::time::sleep(Duration::from_micros(random.below(KILL_AFTER_MAX_US))).await;
    relay.kill();
    let mut documents = Vec::new();
    for (id, writing) in writing {
        let mut writers = Vec::new();
        for writer in writing {
            writers.push(writer.await.unwrap());
        }
        documents.push(Shared { id, writers });
    }
    documents
}

/// Fetches every document with one fresh client.
async fn check(relay: &Relay, documents: &[Shared]) -> (usize, usize) {
    let mut client = Client::connect(&relay.url(), "checker").await.unwrap();
    for shared in documents {
        client.open(Document::new(shared.id).keeping());
    }
    let settled = |document: &Document| document.is_in_step() || document.is_unavailable();
    client
        .until(|client| client.documents().iter().all(settled))
        .await
        .unwrap();
    let counts = documents
        .iter()
        .zip(client.documents())
        .map(|(shared, received)| shared.check(received));
    counts.fold((0, 0), |(stored, acked), (s, a)| (stored + s, acked + a))
}
