//! Aim: a worker that is killed again and again misses nothing and does nothing twice.
//! Method: the relay is in this process and listens; the worker is a process, which is killed after it
//! said some of what it did.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use reconverge::automerge::transaction::Transactable;
use reconverge::automerge::{ObjType, ROOT, ReadDoc};
use reconverge::native::testing::TestRelay;
use reconverge::native::{DocHandle, Repo};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

const KILLS: usize = 20;
/// In each round, so many are new.
const NEW: usize = 20;
const ORDERS: usize = (KILLS + 1) * NEW;
const INVOICES: TableDefinition<'_, u64, &str> = TableDefinition::new("invoices");

/// Killed when it is dropped.
struct Worker {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(relay: &str, document: &str, folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_worker"))
            .args([relay, document])
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// Waits until it wrote one more invoice; its number.
    fn writes_one(&mut self) -> usize {
        let line = self.said.next().expect("the worker ended").unwrap();
        line.split_once(' ').unwrap().0.parse().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn add(orders: &DocHandle, n: usize) {
    let added = orders.change(|tx| {
        let (_, map) = tx.get(ROOT, "orders")?.expect("it was made first");
        tx.put(&map, format!("order {n}"), "1 lamp")
    });
    added.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_twenty_times_misses_and_repeats_nothing() {
    let relay = TestRelay::new();
    let url = relay.listen().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let shop = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let orders = shop.create_with(|tx| tx.put_object(ROOT, "orders", ObjType::Map));
    let orders = orders.unwrap();
    orders.when_synced().await.unwrap();
    let mut last = 0;
    for round in 0..=KILLS {
        let (url, document, folder) = (url.clone(), orders.url(), folder.path().to_owned());
        let goes_until = if round == KILLS {
            ORDERS
        } else {
            last + 1 + round % 7
        };
        let working = tokio::task::spawn_blocking(move || {
            let mut worker = Worker::start(&url, &document, &folder);
            let mut written = 0;
            while written < goes_until {
                written = worker.writes_one();
            }
            // Killed here, in the midst of what it does.
            written
        });
        // Orders come while it starts, works and is killed.
        for n in round * NEW..(round + 1) * NEW {
            add(&orders, n);
            orders.when_synced().await.unwrap();
        }
        last = working.await.unwrap();
    }
    let database = Database::open(folder.path().join("invoices.redb")).unwrap();
    let invoices = database.begin_read().unwrap().open_table(INVOICES).unwrap();
    let mut counts = BTreeMap::<String, usize>::new();
    for (at, invoice) in invoices.iter().unwrap().enumerate() {
        let (number, order) = invoice.unwrap();
        assert_eq!(number.value(), at as u64 + 1, "numbers have no gap");
        *counts.entry(order.value().to_owned()).or_default() += 1;
    }
    assert_eq!(counts.len(), ORDERS, "none is missing");
    assert!(
        counts.values().all(|count| *count == 1),
        "none is there twice"
    );
    shop.shutdown().await.unwrap();
}
