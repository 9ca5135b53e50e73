//! Elements of lists stay what they are, whatever comes and goes around them.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc};
use reconverge::typed::read;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::documents::{Order, change, edit, fork, line, of, order};

/// What one does to a list of maps with a key that it does not know; and whether that stays with the
/// elements.
fn check_list(before: serde_json::Value, after: serde_json::Value, expected: serde_json::Value) {
    let mut document = of(&json!({ "list": before }));
    change(&mut document, |tx| {
        let (_, list) = tx.get(ROOT, "list").unwrap().unwrap();
        for at in 0..tx.length(&list) {
            let (_, element) = tx.get(&list, at).unwrap().unwrap();
            tx.put(element, "hidden", at as i64).unwrap();
        }
    });
    #[derive(Debug, Serialize, Deserialize)]
    struct All {
        list: Vec<Element>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Element {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        b: Option<String>,
    }
    edit(&mut document, |all: &mut All| {
        all.list = serde_json::from_value(after.clone()).unwrap();
    });
    let mut read: serde_json::Value = read(&document, &ROOT).unwrap();
    let hidden: Vec<_> = read["list"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .map(|element| {
            let hidden = element.as_object_mut().unwrap().remove("hidden");
            hidden.unwrap_or_default()
        })
        .collect();
    assert_eq!(read["list"], after);
    assert_eq!(serde_json::Value::from(hidden), expected, "{after}");
}

#[test]
fn elements_of_lists_stay_what_they_are() {
    let three = || json!([{ "a": 1 }, { "a": 2 }, { "a": 3 }]);
    check_list(three(), three(), json!([0, 1, 2]));
    check_list(
        three(),
        json!([{ "a": 1 }, { "a": 5 }, { "a": 3 }]),
        json!([0, 1, 2]),
    );
    check_list(
        three(),
        json!([{ "a": 5 }, { "a": 6 }, { "a": 7 }]),
        json!([0, 1, 2]),
    );
    check_list(three(), json!([{ "a": 1 }, { "a": 3 }]), json!([0, 2]));
    check_list(three(), json!([]), json!([]));
    check_list(
        three(),
        json!([{ "a": 0 }, { "a": 1 }, { "a": 2 }, { "a": 3 }]),
        json!([null, 0, 1, 2]),
    );
    // What moves is a copy, with what is hidden.
    check_list(
        three(),
        json!([{ "a": 3 }, { "a": 1 }, { "a": 2 }]),
        json!([2, 0, 1]),
    );
    check_list(
        three(),
        json!([{ "a": 3 }, { "a": 2 }, { "a": 1 }]),
        json!([2, 1, 0]),
    );
    // One goes, its neighbour is edited, and one comes.
    let two = json!([{ "a": 1, "b": "one" }, { "a": 2, "b": "two" }]);
    check_list(two.clone(), json!([{ "a": 5, "b": "two" }]), json!([1]));
    check_list(
        two.clone(),
        json!([{ "a": 5, "b": "two" }, { "a": 6, "b": "three" }]),
        json!([1, null]),
    );
    check_list(
        two,
        json!([{ "a": 0, "b": "zero" }, { "a": 9, "b": "one" }, { "a": 2, "b": "two" }]),
        json!([null, 0, 1]),
    );
    let named = || json!([{ "id": 1, "a": 1 }, { "id": 2, "a": 2 }, { "id": 3, "a": 3 }]);
    check_list(
        named(),
        json!([{ "id": 3, "a": 7 }, { "id": 1, "a": 8 }, { "id": 2, "a": 9 }]),
        json!([2, 0, 1]),
    );
    check_list(
        named(),
        json!([{ "id": 1, "a": 1 }, { "id": 4, "a": 2 }, { "id": 3, "a": 3 }]),
        json!([0, null, 2]),
    );
    check_list(
        named(),
        json!([{ "id": 5, "a": 5 }, { "id": 2, "a": 0 }, { "id": 6, "a": 6 }, { "id": 3, "a": 0 }]),
        json!([null, 1, null, 2]),
    );
}

#[test]
fn edits_of_two_in_one_list_merge() {
    let mut document = of(&order(&[
        line("lamp", 1),
        line("shade", 1),
        line("cable", 1),
    ]));
    let mut other = fork(&document, 2);
    let written = edit(&mut document, |order: &mut Order| {
        order.lines.insert(0, line("bulb", 4));
        order.lines[2].count = 5;
    });
    // A map, a text of four letters, a number; and a number.
    assert_eq!(written, 1 + 1 + 4 + 1 + 1);
    edit(&mut other, |order: &mut Order| {
        order.lines[1].article.push('s');
        order.lines.remove(2);
    });
    document.merge(&mut other).unwrap();
    let merged: Order = read(&document, &ROOT).unwrap();
    assert_eq!(
        merged.lines,
        [line("bulb", 4), line("lamp", 1), line("shades", 5)]
    );
}

#[test]
fn sets_are_edited_whatever_their_order() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Tags {
        tags: HashSet<String>,
    }
    let all: Vec<String> = (0..100).map(|n| format!("tag {n}")).collect();
    let mut document = of(&json!({ "tags": all }));
    let mut expected = all;
    for n in 0..20 {
        let new = format!("new {n}");
        let gone = expected.remove(n * 2);
        expected.push(new.clone());
        let written = edit(&mut document, |all: &mut Tags| {
            assert!(all.tags.remove(&gone));
            all.tags.insert(new.clone());
        });
        assert_eq!(
            written,
            1 + 1 + new.len(),
            "a deletion, a text and its letters"
        );
    }
    let read: HashMap<String, Vec<String>> = read(&document, &ROOT).unwrap();
    let sorted = |mut tags: Vec<String>| {
        tags.sort();
        tags
    };
    assert_eq!(sorted(read["tags"].clone()), sorted(expected));
}

/// A type that leaves out what it does not understand.
#[test]
fn a_list_that_is_read_in_part_is_edited() {
    fn known<'de, D: serde::Deserializer<'de>>(list: D) -> Result<Vec<u8>, D::Error> {
        let all = Vec::<serde_json::Value>::deserialize(list)?;
        Ok(all
            .iter()
            .filter_map(|it| Some(it.as_u64()? as u8))
            .collect())
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct All {
        #[serde(deserialize_with = "known")]
        list: Vec<u8>,
    }
    let mut document = of(&json!({ "list": [1, "x", 2, 3] }));
    let nothing = edit(&mut document, |_: &mut All| ());
    assert_eq!(nothing, 0);
    edit(&mut document, |all: &mut All| {
        assert_eq!(all.list.remove(1), 2);
        all.list.push(4);
        all.list.insert(0, 0);
    });
    let all = read::<serde_json::Value>(&document, &ROOT).unwrap();
    assert_eq!(all, json!({ "list": [0, 1, "x", 3, 4] }));
}

/// A list got a third element in a later version of the type.
#[test]
fn a_tuple_keeps_what_is_behind_it() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Shape {
        at: (i64, i64),
    }
    let mut document = of(&json!({ "at": [1, 2, 3] }));
    edit(&mut document, |shape: &mut Shape| shape.at = (5, 6));
    let all = read::<serde_json::Value>(&document, &ROOT).unwrap();
    assert_eq!(all, json!({ "at": [5, 6, 3] }));
}

/// Each takes an element out, and puts one of their own there.
#[test]
fn what_several_put_in_one_place_is_all_there() {
    let line = |id: u8| json!({ "id": id, "n": 0 });
    let mut first = of(&json!({ "list": [line(1), line(2), line(3)] }));
    let mut second = fork(&first, 2);
    for (document, new) in [(&mut first, 4), (&mut second, 5)] {
        edit(document, |all: &mut serde_json::Value| {
            all["list"][1] = line(new);
        });
    }
    first.merge(&mut second).unwrap();
    let all: HashMap<String, Vec<HashMap<String, u8>>> = read(&first, &ROOT).unwrap();
    let mut ids: Vec<u8> = all["list"].iter().map(|line| line["id"]).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 3, 4, 5]);
}
