//! Typed documents: what it costs to read one with 20,000 elements, and to update one of them, which
//! holds the client's lock.

use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT};
use reconverge::typed;
use serde::{Deserialize, Serialize};

use crate::Setting;
use crate::report::{Report, Row, ms};

const ELEMENTS: usize = 20_000;

const ROUNDS: usize = 20;

#[derive(Debug, Serialize, Deserialize)]
struct Stock {
    items: Vec<Item>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Item {
    name: String,
    count: u64,
    price: f64,
    sold: bool,
}

pub(crate) fn run(setting: &Setting, report: &mut Report) {
    let count = setting.scaled(ELEMENTS);
    let item = |n| Item {
        name: format!("item {n}"),
        count: n as u64,
        price: 0.5,
        sold: false,
    };
    let stock = Stock {
        items: (0..count).map(item).collect(),
    };
    let mut document = Automerge::new();
    let made = timed(|| {
        let mut tx = document.transaction();
        typed::write(&mut tx, &ROOT, &stock).unwrap();
        tx.commit();
    });
    let mut reads = Vec::new();
    let mut updates = Vec::new();
    for _ in 0..ROUNDS {
        reads.push(timed(|| {
            let read: Stock = typed::read(&document, &ROOT).unwrap();
            assert_eq!(read.items.len(), count);
        }));
        updates.push(timed(|| {
            let mut tx = document.transaction();
            typed::update(&mut tx, &ROOT, |stock: &mut Stock| {
                stock.items[count / 2].count += 1;
            })
            .unwrap();
            assert_eq!(tx.pending_ops(), 1);
            tx.commit();
        }));
    }
    let mut row = |what: &str, mut times: Vec<Duration>| {
        times.sort_unstable();
        report.row(Row {
            what: format!("{what}, {count} elements of four fields"),
            latency: format!(
                "{} / {}",
                ms(times[times.len() / 2]),
                ms(times[times.len() - 1])
            ),
            ..Row::default()
        });
    };
    row("typed: a new document", vec![made]);
    row("typed: read", reads);
    row("typed: update of one", updates);
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}
