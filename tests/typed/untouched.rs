//! An edit writes only what differs; conflicts and what the type does not know stay.

use std::collections::HashMap;
use std::fmt::Debug;

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc, ScalarValue};
use reconverge::typed::{Counter, TypedError, read, update, write};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::documents::{Order, change, document, edit, fork, line, object, of, order, scalar};

#[test]
fn conflicts_and_what_the_type_does_not_know_stay() {
    let mut document = of(&order(&[line("lamp", 1)]));
    let mut other = fork(&document, 2);
    change(&mut document, |tx| tx.put(ROOT, "note", "here").unwrap());
    change(&mut other, |tx| {
        tx.put(ROOT, "note", "there").unwrap();
        tx.put(ROOT, "colour", "green").unwrap();
        let (_, lines) = tx.get(ROOT, "lines").unwrap().unwrap();
        let (_, line) = tx.get(&lines, 0).unwrap().unwrap();
        tx.put(line, "price", 0.5).unwrap();
    });
    document.merge(&mut other).unwrap();
    let written = edit(&mut document, |order: &mut Order| order.lines[0].count = 2);
    assert_eq!(written, 1);
    assert_eq!(document.get_all(ROOT, "note").unwrap().len(), 2);
    let all: serde_json::Value = read(&document, &ROOT).unwrap();
    assert_eq!(all["colour"], "green");
    assert_eq!(
        all["lines"],
        json!([{ "article": "lamp", "count": 2, "price": 0.5 }])
    );
    assert_eq!(all.get("paid_ms"), None, "what is skipped is not written");
}

#[test]
fn counters_add_up() {
    let mut document = of(&HashMap::from([("votes", Counter(1))]));
    let mut other = fork(&document, 2);
    for (document, votes) in [(&mut document, 2), (&mut other, 3)] {
        edit(document, |all: &mut HashMap<String, Counter>| {
            all.get_mut("votes").unwrap().0 += votes;
        });
    }
    document.merge(&mut other).unwrap();
    assert_eq!(scalar(&document, "votes"), ScalarValue::counter(6));
}

#[test]
fn defaults_are_written_only_when_they_change() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Settings {
        look: Look,
        size: u8,
    }
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Look {
        dark: bool,
        font: String,
    }
    let mut document = document(|_| ());
    assert_eq!(edit(&mut document, |_: &mut Settings| ()), 0);
    edit(&mut document, |settings: &mut Settings| {
        settings.look.dark = true
    });
    let all: serde_json::Value = read(&document, &ROOT).unwrap();
    assert_eq!(all, json!({ "look": { "dark": true, "font": "" } }));
}

#[test]
fn objects_inside_are_read_and_edited() {
    let mut document = of(&json!({ "orders": [{ "count": 1 }], "text": "abc" }));
    let orders = object(&document, "orders");
    let (_, first) = document.get(&orders, 0).unwrap().unwrap();
    change(&mut document, |tx| {
        update(tx, &first, |order: &mut HashMap<String, u8>| {
            order.insert("paid".into(), 1);
        })
        .unwrap();
        update(tx, &orders, |orders: &mut Vec<serde_json::Value>| {
            orders.push(json!(7))
        })
        .unwrap();
    });
    let orders: serde_json::Value = read(&document, &orders).unwrap();
    assert_eq!(orders, json!([{ "count": 1, "paid": 1 }, 7]));
    let text = object(&document, "text");
    change(&mut document, |tx| write(tx, &text, "abd").unwrap());
    assert_eq!(read::<String>(&document, &text).unwrap(), "abd");
    let elsewhere = fork(&Automerge::new(), 9);
    assert!(matches!(
        read::<String>(&elsewhere, &text),
        Err(TypedError::Object(_))
    ));
}

#[test]
fn to_write_again_touches_only_what_differs() {
    let mut document =
        of(&json!({ "a": 1, "list": [{ "id": "x", "n": 1 }, { "id": "y", "n": 1 }] }));
    change(&mut document, |tx| tx.put(ROOT, "b", 2.0).unwrap());
    let again = json!({ "a": 1, "b": 2, "list": [{ "id": "x", "n": 1 }, { "id": "y", "n": 2 }] });
    let mut written = 0;
    for _ in 0..2 {
        written += change(&mut document, |tx| write(tx, &ROOT, &again).unwrap());
    }
    assert_eq!(written, 1);
    let read: serde_json::Value = read(&document, &ROOT).unwrap();
    assert_eq!(read, again);
}
