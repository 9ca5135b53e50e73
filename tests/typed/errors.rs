//! What does not fit a type, or is too deep.

use std::collections::HashMap;
use std::fmt::Debug;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT};
use reconverge::typed::{Bytes, Counter, DEPTH_MAX, Timestamp, TypedError, read, update, write};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::documents::{Order, Shape, document, of};

#[test]
fn errors_name_the_place() {
    fn check<T: DeserializeOwned>(value: serde_json::Value, expected: &str) {
        let error = read::<T>(&of(&value), &ROOT).err().unwrap();
        assert_eq!(error.to_string(), expected);
    }
    check::<Order>(json!({}), "customer: it is missing");
    check::<Order>(
        json!({ "customer": 3 }),
        "customer: the number 3, but a string is expected",
    );
    check::<Order>(
        json!({ "customer": "Ann", "lines": [
            { "article": "lamp", "count": 1 },
            { "article": "lamp", "count": -1 },
        ] }),
        "lines[1].count: the number -1, but u32 is expected",
    );
    check::<Order>(
        json!({ "customer": "Ann", "lines": {} }),
        "lines: a map, but a sequence is expected",
    );
    check::<Order>(
        json!({ "customer": "Ann", "lines": [{ "article": "lamp" }] }),
        "lines[0].count: it is missing",
    );
    check::<HashMap<String, Counter>>(
        json!({ "votes": 3 }),
        "votes: the number 3, but a counter is expected",
    );
    check::<HashMap<String, Timestamp>>(
        json!({ "due": "today" }),
        "due: a text, but a timestamp is expected",
    );
    check::<HashMap<String, Bytes>>(json!({ "raw": true }), "raw: true, but bytes is expected");
    check::<HashMap<String, String>>(
        json!({ "name": null }),
        "name: null, but a string is expected",
    );
    check::<HashMap<u8, bool>>(json!({ "x": true }), "x: a text, but u8 is expected");
    check::<HashMap<String, Shape>>(
        json!({ "shape": "Round" }),
        "shape: \"Round\" is none of Nothing, Circle, Line, Box",
    );
    check::<HashMap<String, Shape>>(
        json!({ "shape": { "Box": { "width": "wide" } } }),
        "shape.Box.width: a text, but u32 is expected",
    );
    check::<HashMap<String, Shape>>(
        json!({ "shape": { "Box": { "width": 1 }, "Circle": 1 } }),
        "shape: a map, but one with a single key is expected, for a variant of Shape",
    );
    check::<Vec<u8>>(json!({}), "a map, but a sequence is expected");

    let mut document = Automerge::new();
    let mut tx = document.transaction();
    let wrong = write(&mut tx, &ROOT, &json!([])).unwrap_err();
    assert_eq!(wrong.to_string(), "a list, but the object is a map");
    let large = HashMap::from([("n", [u128::MAX])]);
    let wrong = write(&mut tx, &ROOT, &large).unwrap_err();
    assert!(
        wrong
            .to_string()
            .starts_with("n[0]: 340282366920938463463374607431768211455, but")
    );
    let keyed = HashMap::from([("m", HashMap::from([((1, 2), 3)]))]);
    let wrong = write(&mut tx, &ROOT, &keyed).unwrap_err();
    assert!(
        wrong
            .to_string()
            .starts_with("m: a tuple is the key of a map")
    );
}

#[test]
fn too_deep_a_document_is_an_error() {
    let document = document(|tx| {
        let mut inner = ROOT;
        for _ in 0..2 * DEPTH_MAX {
            inner = tx.put_object(inner, "in", ObjType::Map).unwrap();
        }
    });
    let read = read::<serde_json::Value>(&document, &ROOT);
    assert!(matches!(read, Err(TypedError::Read { .. })), "{read:?}");
    // Who does not look there reads it.
    assert_eq!(reconverge::typed::read(&document, &ROOT), Ok(Skipped {}));
}

#[derive(Debug, PartialEq, Deserialize)]
struct Skipped {}

#[test]
fn nothing_is_written_deeper_than_it_is_read() {
    // A map has each of these.
    let mut value = json!(1);
    for _ in 1..DEPTH_MAX {
        value = json!([value]);
    }
    let mut document = of(&json!({ "in": value }));
    let read = read::<HashMap<String, serde_json::Value>>(&document, &ROOT).unwrap();
    assert_eq!(read["in"], value);
    let deeper = json!({ "in": [value] });
    let mut tx = document.transaction();
    let written = write(&mut tx, &ROOT, &deeper);
    assert!(matches!(written, Err(TypedError::Write { .. })));
    let updated = update(&mut tx, &ROOT, |all: &mut serde_json::Value| *all = deeper);
    assert!(matches!(updated, Err(TypedError::Write { .. })));
    assert_eq!(tx.pending_ops(), 0);
}
