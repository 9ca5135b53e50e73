//! A document of one type with all that there is, for JavaScript to make, read and edit, too.
//!
//! `typed-edits make` writes a document that is saved; `check`, with one on its standard input, says in
//! JSON what a value of the type it is; `edit` writes it edited in all places; `title WORDS` with another
//! title, and nothing else touched.

#![allow(clippy::unwrap_used, reason = "a test program says where it broke")]

use std::collections::BTreeMap;
use std::io::{Read, Write};

use automerge::{Automerge, ROOT};
use reconverge::typed::{self, Bytes, Counter, ImmutableString, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Everything {
    title: String,
    whole: u64,
    below: i64,
    large: u64,
    share: f64,
    even: f64,
    done: bool,
    note: Option<String>,
    missing: Option<String>,
    raw: Bytes,
    votes: Counter,
    due: Timestamp,
    code: ImmutableString,
    state: State,
    shape: Shape,
    pair: (i32, String),
    tags: Vec<String>,
    lines: Vec<Line>,
    totals: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize, Deserialize)]
enum State {
    New,
    Paid,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Shape {
    Circle { radius: f64 },
    Line,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    id: u64,
    article: String,
    count: u32,
}

fn line(id: u64, article: &str, count: u32) -> Line {
    let article = article.to_owned();
    Line { id, article, count }
}

fn everything() -> Everything {
    Everything {
        title: "bread and milk".into(),
        whole: 7,
        below: -7,
        large: 1 << 60,
        share: 0.5,
        even: 2.0,
        done: false,
        note: Some("soon".into()),
        missing: None,
        raw: Bytes(vec![1, 2]),
        votes: Counter(3),
        due: Timestamp(86_400_000),
        code: ImmutableString("A1".into()),
        state: State::New,
        shape: Shape::Circle { radius: 1.5 },
        pair: (1, "one".into()),
        tags: vec!["red".into(), "blue".into()],
        lines: vec![line(1, "lamp", 1), line(2, "shade", 2)],
        totals: BTreeMap::from([("a".into(), 1), ("b".into(), -2)]),
    }
}

fn edit(all: &mut Everything) {
    all.title = "bread and some milk".into();
    all.whole = 8;
    all.below = -8;
    all.large += 1;
    all.share = 0.25;
    all.even = 4.0;
    all.done = true;
    all.note = None;
    all.missing = Some("found".into());
    all.raw.0.push(3);
    all.votes.0 += 2;
    all.due.0 += 1;
    all.code.0 = "B2".into();
    all.state = State::Paid;
    all.shape = Shape::Line;
    all.pair.0 = 2;
    all.tags.insert(1, "green".into());
    all.lines[1].count = 5;
    all.lines.push(line(3, "bulb", 3));
    all.totals.remove("a");
    all.totals.insert("c".into(), 3);
}

fn main() {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap();
    let mut document = Automerge::new();
    if what != "make" {
        let mut saved = Vec::new();
        std::io::stdin().read_to_end(&mut saved).unwrap();
        document = Automerge::load(&saved).unwrap();
    }
    if what == "check" {
        let all = typed::read::<Everything>(&document, &ROOT);
        let told = all.map_err(|error| error.to_string());
        println!("{}", serde_json::to_string(&told).unwrap());
        return;
    }
    let mut tx = document.transaction();
    match &*what {
        "make" => typed::write(&mut tx, &ROOT, &everything()).unwrap(),
        "edit" => typed::update(&mut tx, &ROOT, edit).unwrap(),
        "title" => {
            let title = words.next().unwrap();
            let set = |all: &mut Everything| all.title = title;
            typed::update(&mut tx, &ROOT, set).unwrap();
        }
        other => panic!("nobody knows how to {other}"),
    }
    tx.commit();
    std::io::stdout().write_all(&document.save()).unwrap();
}
