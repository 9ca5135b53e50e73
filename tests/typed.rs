//! Documents as values of types, both ways.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use automerge::transaction::{Transactable, Transaction};
use automerge::{ActorId, Automerge, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, hydrate};
use reconverge::typed::{
    Bytes, Counter, DEPTH_MAX, ImmutableString, Timestamp, TypedError, read, update, write,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

fn document(edit: impl FnOnce(&mut Transaction<'_>)) -> Automerge {
    let mut document = Automerge::new().with_actor(ActorId::from([1]));
    change(&mut document, edit);
    document
}

/// Edits, and gives how many operations that took.
fn change(document: &mut Automerge, edit: impl FnOnce(&mut Transaction<'_>)) -> usize {
    let mut tx = document.transaction();
    edit(&mut tx);
    let operations = tx.pending_ops();
    tx.commit();
    operations
}

fn of(value: &impl Serialize) -> Automerge {
    document(|tx| write(tx, &ROOT, value).unwrap())
}

fn edit<T: DeserializeOwned + Serialize>(
    document: &mut Automerge,
    edit: impl FnOnce(&mut T),
) -> usize {
    change(document, |tx| update(tx, &ROOT, edit).unwrap())
}

fn fork(document: &Automerge, actor: u8) -> Automerge {
    document.fork().with_actor(ActorId::from([actor]))
}

fn scalar(document: &Automerge, key: &str) -> ScalarValue {
    let (value, _) = document.get(ROOT, key).unwrap().unwrap();
    value.into_scalar().unwrap()
}

fn object(document: &Automerge, key: &str) -> ObjId {
    let (value, id) = document.get(ROOT, key).unwrap().unwrap();
    assert!(value.is_object(), "{value:?}");
    id
}

/// A value under one key goes into a document and comes back, and is stored as this.
fn check<T>(value: T, stored: impl Into<hydrate::Value>)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let mut document = of(&HashMap::from([("value", &value)]));
    let hydrate::Value::Map(all) = document.hydrate(None) else {
        panic!("a document is a map");
    };
    assert_eq!(all.get("value"), Some(&stored.into()), "{value:?}");
    let mut read: BTreeMap<String, T> = read(&document, &ROOT).unwrap();
    assert_eq!(read.remove("value").unwrap(), value);
    let nothing = edit(&mut document, |_: &mut BTreeMap<String, T>| ());
    assert_eq!(nothing, 0, "{value:?} is written again");
}

fn text(text: &str) -> hydrate::Value {
    hydrate::Value::text(automerge::TextEncoding::UnicodeCodePoint, text)
}

fn list(elements: Vec<hydrate::Value>) -> hydrate::Value {
    hydrate::Value::List(elements.into())
}

fn map<const N: usize>(entries: [(&str, hydrate::Value); N]) -> hydrate::Value {
    HashMap::from(entries).into()
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Line(u8, u8),
    Box { width: u32 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Tagged {
    Circle { radius: i32 },
    Voted { votes: Counter, raw: Bytes },
    Nothing,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    One(String),
    Nothing,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Word(String),
    List(Vec<Self>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(String);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[test]
fn every_kind_of_value_comes_back() {
    let int = |number: i64| hydrate::Value::from(ScalarValue::Int(number));
    let null = || hydrate::Value::from(ScalarValue::Null);
    check("Ann".to_owned(), text("Ann"));
    check(String::new(), text(""));
    check('ä', text("ä"));
    check(-1_i8, int(-1));
    check(i64::MIN, int(i64::MIN));
    check(7_u64, int(7));
    check(i64::MAX as u64, int(i64::MAX));
    check(u64::MAX, ScalarValue::Uint(u64::MAX));
    check(7_i128, int(7));
    check(7_u128, int(7));
    check(1.0_f64, ScalarValue::F64(1.0));
    check(0.5_f32, ScalarValue::F64(0.5));
    check(f64::INFINITY, ScalarValue::F64(f64::INFINITY));
    check(true, ScalarValue::Boolean(true));
    check(None::<u8>, null());
    check(Some(1_u8), int(1));
    check((), null());
    check(Unit, null());
    check(Newtype("x".into()), text("x"));
    check(vec![1, 2], list(vec![int(1), int(2)]));
    check(Vec::<String>::new(), list(vec![]));
    check((1, "x".to_owned()), list(vec![int(1), text("x")]));
    check(BTreeSet::from([2, 1]), list(vec![int(1), int(2)]));
    check(
        BTreeMap::from([(-1, true)]),
        map([("-1", ScalarValue::Boolean(true).into())]),
    );
    check(
        HashMap::from([("a".to_owned(), vec![1])]),
        map([("a", list(vec![int(1)]))]),
    );
    check(BTreeMap::from([(true, 'x')]), map([("true", text("x"))]));
    check(Bytes(vec![1, 255]), ScalarValue::Bytes(vec![1, 255]));
    check(Counter(3), ScalarValue::counter(3));
    check(Timestamp(-5), ScalarValue::Timestamp(-5));
    check(ImmutableString("x".into()), ScalarValue::Str("x".into()));
    check(Some(Counter(3)), ScalarValue::counter(3));
    check(Shape::Nothing, text("Nothing"));
    check(Shape::Circle(0.5), map([("Circle", 0.5_f64.into())]));
    check(
        Shape::Line(1, 2),
        map([("Line", list(vec![int(1), int(2)]))]),
    );
    check(
        Shape::Box { width: 3 },
        map([("Box", map([("width", int(3))]))]),
    );
    check(
        Tagged::Circle { radius: -3 },
        map([("kind", text("circle")), ("radius", int(-3))]),
    );
    check(
        Tagged::Voted {
            votes: Counter(1),
            raw: Bytes(vec![7]),
        },
        map([
            ("kind", text("voted")),
            ("votes", ScalarValue::counter(1).into()),
            ("raw", ScalarValue::Bytes(vec![7]).into()),
        ]),
    );
    check(Tagged::Nothing, map([("kind", text("nothing"))]));
    check(
        Adjacent::One("x".into()),
        map([("t", text("One")), ("c", text("x"))]),
    );
    check(Adjacent::Nothing, map([("t", text("Nothing"))]));
    check(
        Untagged::List(vec![Untagged::Number(-1), Untagged::Word("x".into())]),
        list(vec![int(-1), text("x")]),
    );
    check(
        json!({ "a": [1, -2, 0.5, "x", null, true] }),
        map([(
            "a",
            list(vec![
                int(1),
                int(-2),
                0.5_f64.into(),
                text("x"),
                null(),
                ScalarValue::Boolean(true).into(),
            ]),
        )]),
    );
    let nan = of(&HashMap::from([("value", f64::NAN)]));
    let read: HashMap<String, f64> = read(&nan, &ROOT).unwrap();
    assert!(read["value"].is_nan());
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    customer: String,
    note: Option<String>,
    #[serde(default)]
    lines: Vec<Line>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paid_ms: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    article: String,
    count: u32,
}

fn line(article: &str, count: u32) -> Line {
    let article = article.to_owned();
    Line { article, count }
}

fn order(lines: &[Line]) -> Order {
    Order {
        customer: "Ann".into(),
        note: None,
        lines: lines.to_vec(),
        paid_ms: None,
    }
}

#[test]
fn what_other_clients_write_is_read() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Lenient {
        name: String,
        below: i64,
        small: u8,
        large: u64,
        share: f64,
        votes: i64,
        due: u64,
        raw: Vec<u8>,
        missing: Option<String>,
        #[serde(default)]
        also_missing: Vec<u8>,
        shape: Shape,
        #[serde(flatten)]
        rest: HashMap<String, serde_json::Value>,
    }
    let document = document(|tx| {
        tx.put(ROOT, "name", "fixed").unwrap();
        tx.put(ROOT, "below", -1.0).unwrap();
        tx.put(ROOT, "small", 7_u64).unwrap();
        tx.put(ROOT, "large", 2_f64.powi(54)).unwrap();
        tx.put(ROOT, "share", 1).unwrap();
        tx.put(ROOT, "votes", ScalarValue::counter(4)).unwrap();
        tx.put(ROOT, "due", ScalarValue::Timestamp(9)).unwrap();
        tx.put(ROOT, "raw", vec![1, 2]).unwrap();
        tx.put(ROOT, "shape", "Nothing").unwrap();
        tx.put(ROOT, "colour", "green").unwrap();
    });
    let read: Lenient = read(&document, &ROOT).unwrap();
    let expected = Lenient {
        name: "fixed".into(),
        below: -1,
        small: 7,
        large: 1 << 54,
        share: 1.0,
        votes: 4,
        due: 9,
        raw: vec![1, 2],
        missing: None,
        also_missing: vec![],
        shape: Shape::Nothing,
        rest: HashMap::from([("colour".into(), "green".into())]),
    };
    assert_eq!(read, expected);
}

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
fn what_is_edited_keeps_its_kind() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Kinds {
        name: String,
        votes: i64,
        due: i64,
        raw: Vec<u8>,
        shape: Shape,
        below: i64,
    }
    let mut document = document(|tx| {
        tx.put(ROOT, "name", "fixed").unwrap();
        tx.put(ROOT, "votes", ScalarValue::counter(4)).unwrap();
        tx.put(ROOT, "due", ScalarValue::Timestamp(9)).unwrap();
        tx.put(ROOT, "raw", vec![1, 2]).unwrap();
        tx.put(ROOT, "shape", "Nothing").unwrap();
        tx.put(ROOT, "below", -1.0).unwrap();
    });
    let mut other = fork(&document, 2);
    edit(&mut document, |kinds: &mut Kinds| {
        kinds.name = "new".into();
        kinds.votes += 2;
        kinds.due = 10;
        kinds.raw.push(3);
        kinds.below = -2;
    });
    edit(&mut other, |kinds: &mut Kinds| kinds.votes += 5);
    document.merge(&mut other).unwrap();
    assert_eq!(scalar(&document, "name"), ScalarValue::Str("new".into()));
    assert_eq!(scalar(&document, "votes"), ScalarValue::counter(11));
    assert_eq!(scalar(&document, "due"), ScalarValue::Timestamp(10));
    assert_eq!(scalar(&document, "raw"), ScalarValue::Bytes(vec![1, 2, 3]));
    assert_eq!(scalar(&document, "below"), ScalarValue::Int(-2));
    edit(&mut document, |kinds: &mut Kinds| {
        kinds.shape = Shape::Line(1, 2)
    });
    edit(&mut document, |kinds: &mut Kinds| {
        kinds.shape = Shape::Line(1, 3)
    });
    edit(&mut document, |kinds: &mut Kinds| {
        kinds.shape = Shape::Circle(1.0)
    });
    let (_, shape) = document.get(ROOT, "shape").unwrap().unwrap();
    let shape: serde_json::Value = read(&document, &shape).unwrap();
    assert_eq!(shape, json!({ "Circle": 1 }));
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
fn texts_merge_and_words_do_not_mix() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Page {
        title: String,
        state: State,
    }
    #[derive(Debug, Serialize, Deserialize)]
    enum State {
        New,
        Paid,
        Sent,
    }
    let title = "bread 😀 and milk".to_owned();
    let mut document = of(&Page {
        title,
        state: State::New,
    });
    let mut other = fork(&document, 2);
    edit(&mut document, |page: &mut Page| {
        page.title = page.title.replace("milk", "some milk");
        page.state = State::Paid;
    });
    edit(&mut other, |page: &mut Page| {
        page.title = page.title.replace("bread", "breads");
        page.state = State::Sent;
    });
    document.merge(&mut other).unwrap();
    let merged: Page = read(&document, &ROOT).unwrap();
    assert_eq!(merged.title, "breads 😀 and some milk");
    assert!(matches!(merged.state, State::Paid | State::Sent));
    assert_eq!(document.get_all(ROOT, "state").unwrap().len(), 2);

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Step {
        Opened,
        Opening { by: String },
        Openings(Line),
    }
    let mut document = of(&Step::Opened);
    let mut other = fork(&document, 2);
    edit(&mut document, |step: &mut Step| {
        *step = Step::Opening { by: "Ann".into() };
    });
    edit(&mut other, |step: &mut Step| {
        *step = Step::Openings(line("lamp", 1))
    });
    document.merge(&mut other).unwrap();
    let merged: Step = read(&document, &ROOT).unwrap();
    assert!(!matches!(merged, Step::Opened), "{merged:?}");

    let mut document = of(&HashMap::from([("name", "Ann")]));
    let mut other = fork(&document, 2);
    for (document, name) in [(&mut document, "Bob"), (&mut other, "Eve")] {
        edit(document, |all: &mut HashMap<String, String>| {
            all.insert("name".into(), name.into());
        });
    }
    document.merge(&mut other).unwrap();
    let merged: HashMap<String, String> = read(&document, &ROOT).unwrap();
    assert!(["Bob", "Eve"].contains(&&*merged["name"]), "{merged:?}");
}

/// Whatever places a document counts in.
#[test]
fn texts_are_edited_in_every_encoding() {
    use automerge::TextEncoding::{GraphemeCluster, UnicodeCodePoint, Utf8CodeUnit, Utf16CodeUnit};
    for encoding in [
        UnicodeCodePoint,
        Utf8CodeUnit,
        Utf16CodeUnit,
        GraphemeCluster,
    ] {
        let mut document = Automerge::new_with_encoding(encoding);
        let text = "ä 😀 one e\u{301} two";
        change(&mut document, |tx| {
            write(tx, &ROOT, &json!({ "text": text })).unwrap()
        });
        let edited = "ä 😀! 1 e\u{301} zwei 2";
        edit(&mut document, |all: &mut serde_json::Value| {
            all["text"] = edited.into()
        });
        let read: serde_json::Value = read(&document, &ROOT).unwrap();
        assert_eq!(read["text"], edited, "{encoding:?}");
    }
}

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

/// Some variants are told by their names, and others by what they have.
#[test]
fn a_variant_leaves_nothing_to_the_next_one() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Size {
        Named(u8),
        #[serde(untagged)]
        Exact {
            mm: u8,
        },
    }
    let mut document = of(&json!({ "size": { "Named": 1 } }));
    for (size, stored) in [
        (Size::Exact { mm: 2 }, json!({ "size": { "mm": 2 } })),
        (Size::Named(3), json!({ "size": { "Named": 3 } })),
    ] {
        edit(&mut document, |all: &mut BTreeMap<String, Size>| {
            all.insert("size".into(), size);
        });
        let all = read::<serde_json::Value>(&document, &ROOT).unwrap();
        assert_eq!(all, stored);
    }
    let mut whole = of(&Size::Named(1));
    edit(&mut whole, |size: &mut Size| *size = Size::Exact { mm: 2 });
    let all = read::<serde_json::Value>(&whole, &ROOT).unwrap();
    assert_eq!(all, json!({ "mm": 2 }));
}

/// Some clients inserted several characters as one element of a text.
#[test]
fn characters_of_one_element_are_edited() {
    let before = document(|tx| {
        let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
        tx.splice_text(&text, 0, 0, "one three").unwrap();
        tx.insert(&text, 4, "two ").unwrap();
    });
    let now = |document: &Automerge| {
        let mut all: HashMap<String, String> = read(document, &ROOT).unwrap();
        all.remove("text").unwrap()
    };
    assert_eq!(now(&before), "one two three");
    for after in [
        "one to three",
        "one two 3",
        "one tw three",
        "",
        "one twoo three",
    ] {
        let mut document = fork(&before, 2);
        edit(&mut document, |all: &mut HashMap<String, String>| {
            *all.get_mut("text").unwrap() = after.into();
        });
        assert_eq!(now(&document), after);
    }
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

#[test]
fn times_are_milliseconds() {
    let ms = Duration::from_millis;
    for (time, expected) in [
        (SystemTime::UNIX_EPOCH + ms(1_500), 1_500),
        (SystemTime::UNIX_EPOCH - ms(1_500), -1_500),
    ] {
        assert_eq!(Timestamp::from(time), Timestamp(expected));
        assert_eq!(Timestamp(expected).system_time(), Some(time));
    }
    let just_before = SystemTime::UNIX_EPOCH - Duration::from_nanos(1);
    assert_eq!(Timestamp::from(just_before), Timestamp(-1));
}

/// Any two values: the first one's document becomes the second one's, and what was the same is not
/// written. With `TYPED_SEED`, only that one.
#[test]
fn any_value_becomes_any_other() {
    let seeds = match std::env::var("TYPED_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 1..1_500_u64,
    };
    for seed in seeds {
        let mut random = Random(reconverge_tests::Random::new(seed));
        let before = random.map(4);
        let mut document = of(&before);
        let mut now = before;
        for _ in 0..3 {
            let after = match random.below(3) {
                0 => random.map(4),
                _ => {
                    let mut after = now.clone();
                    random.edit(&mut after, 3);
                    after
                }
            };
            let written = edit(&mut document, |value: &mut serde_json::Value| {
                assert_eq!(*value, now, "seed {seed}");
                *value = after.clone();
            });
            assert_eq!(written == 0, now == after, "seed {seed}");
            let read: serde_json::Value = read(&document, &ROOT).unwrap();
            assert_eq!(read, after, "seed {seed}");
            let again = change(&mut document, |tx| write(tx, &ROOT, &after).unwrap());
            assert_eq!(again, 0, "seed {seed}");
            now = after;
        }
        let loaded = Automerge::load(&document.save()).unwrap();
        let read: serde_json::Value = read(&loaded, &ROOT).unwrap();
        assert_eq!(read, now, "seed {seed}");
    }
}

struct Random(reconverge_tests::Random);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0.below(end as u64) as usize
    }

    fn text(&mut self) -> String {
        let parts = [
            "a", "b", " ", "one ", "two ", "é", "😀", "e\u{301}", "\r\n", "🇩🇪",
        ];
        (0..self.below(8))
            .map(|_| parts[self.below(parts.len())])
            .collect()
    }

    fn map(&mut self, depth: usize) -> serde_json::Value {
        let keys = ["a", "b", "id", "é", ""];
        let entries = (0..self.below(5)).map(|_| {
            let key = keys[self.below(keys.len())];
            (key.to_owned(), self.value(depth - 1))
        });
        serde_json::Value::Object(entries.collect())
    }

    fn value(&mut self, depth: usize) -> serde_json::Value {
        match self.below(if depth == 0 { 5 } else { 9 }) {
            0 => json!(null),
            1 => json!(self.below(3) as i64 - 1),
            2 => json!(self.below(3) as f64 + 0.5),
            3 => json!(self.below(2) == 0),
            4 | 5 => json!(self.text()),
            6 => self.map(depth),
            _ => {
                let elements = (0..self.below(6)).map(|_| self.value(depth - 1));
                serde_json::Value::Array(elements.collect())
            }
        }
    }

    fn edit(&mut self, value: &mut serde_json::Value, depth: usize) {
        match value {
            serde_json::Value::Object(entries) => {
                let keys: Vec<String> = entries.keys().cloned().collect();
                match (self.below(4), keys.is_empty()) {
                    (0, false) => {
                        entries.remove(&keys[self.below(keys.len())]);
                    }
                    (1 | 2, false) => {
                        let key = &keys[self.below(keys.len())];
                        self.edit(&mut entries[key], depth.saturating_sub(1));
                    }
                    _ => {
                        entries.insert("new".into(), self.value(depth));
                    }
                }
            }
            serde_json::Value::Array(elements) => {
                for _ in 0..=self.below(3) {
                    let length = elements.len();
                    match (self.below(5), length) {
                        (0, 1..) => {
                            elements.remove(self.below(length));
                        }
                        (1, 1..) => {
                            let element = elements.remove(self.below(length));
                            elements.insert(self.below(length), element);
                        }
                        (2 | 3, 1..) => {
                            let at = self.below(length);
                            self.edit(&mut elements[at], depth.saturating_sub(1));
                        }
                        _ => elements.insert(self.below(length + 1), self.value(depth)),
                    }
                }
            }
            serde_json::Value::String(text) => {
                let mut characters: Vec<char> = text.chars().collect();
                let at = self.below(characters.len() + 1);
                characters.splice(at..at, self.text().chars());
                *text = characters.into_iter().collect();
            }
            other => *other = self.value(depth),
        }
    }
}
