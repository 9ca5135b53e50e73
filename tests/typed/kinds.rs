//! Each kind of value as it is stored, and that an edit keeps it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc, ScalarValue, hydrate};
use reconverge::typed::{Bytes, Counter, ImmutableString, Timestamp, read};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::documents::{Shape, document, edit, fork, of, scalar};

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
