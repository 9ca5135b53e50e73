//! Random edits and merges of native replicas, for the same to be done in WebAssembly.
//!
//! `native-edits SEED` prints a line of JSON per step: `{"by": replica, "operations": [...]}` (the
//! form of `wasm/js/operations.ts`, see [`tagged`]) or `{"by": replica, "merges": replica}`, and
//! with each what there is afterwards: `heads`, and the document `saved`, as numbers.

#![allow(clippy::unwrap_used, reason = "a test program says where it broke")]

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{
    ActorId, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value as Shown,
};
use reconverge::replica::{ChangeOptions, Replica};
use serde_json::{Value, json};

const REPLICAS: usize = 3;
const STEPS: usize = 80;

fn main() {
    let seed = std::env::args().nth(1).unwrap().parse().unwrap();
    let random = &mut Random(seed);
    let mut replicas: Vec<Replica> = (1..=REPLICAS as u8)
        .map(|number| Replica::new(ActorId::from([number; 16])))
        .collect();
    // As every new document does.
    for replica in &mut replicas {
        replica.begin(0);
    }
    for _ in 0..STEPS {
        let by = random.below(REPLICAS);
        let mut step = if random.below(3) == 0 {
            let merges = random.below(REPLICAS);
            let changes = replicas[merges].document().unwrap().get_changes(&[]);
            replicas[by].merge(changes).unwrap();
            json!({ "merges": merges })
        } else {
            let made = replicas[by].change(ChangeOptions::made_at(0), |transaction| {
                let count = 1 + random.below(5);
                let mut edits = Vec::new();
                for _ in 0..count {
                    let done = edit(transaction, random)?;
                    // What follows into a new object, the module writes with it, in another order.
                    let makes = done.to_string().contains("\"make\"");
                    edits.push(done);
                    if makes {
                        break;
                    }
                }
                Ok::<_, AutomergeError>(edits)
            });
            json!({ "operations": made.unwrap().0 })
        };
        let document = replicas[by].document().unwrap();
        let mut heads: Vec<String> = document
            .get_heads()
            .iter()
            .map(ToString::to_string)
            .collect();
        heads.sort_unstable();
        step["by"] = by.into();
        step["heads"] = heads.into();
        step["saved"] = document.save().into();
        println!("{step}");
    }
}

/// Numbers that look random, the same ones for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % end
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

fn edit(tx: &mut Transaction<'_>, random: &mut Random) -> Result<Value, AutomergeError> {
    let mut objects = Vec::new();
    walk(tx, ROOT, ObjType::Map, &mut objects);
    let (object, kind) = random.pick(&objects).clone();
    let length = tx.length(&object);
    let id = object.to_string();
    match kind {
        ObjType::Map | ObjType::Table => {
            let key = *random.pick(&["a", "b", "c", "é", "😀"]);
            match tx.get(&object, key)? {
                Some((Shown::Scalar(value), _)) if value.is_counter() => {
                    let by = random.below(9) as i64 - 4;
                    tx.increment(&object, key, by)?;
                    Ok(json!(["increment", id, key, by]))
                }
                Some(_) if random.below(3) == 0 => {
                    tx.delete(&object, key)?;
                    Ok(json!(["delete", id, key, 1]))
                }
                _ => {
                    let value = match new(random) {
                        New::Scalar(value) => {
                            tx.put(&object, key, value.clone())?;
                            tagged(&value)
                        }
                        New::Object(kind) => {
                            let made = tx.put_object(&object, key, kind)?;
                            named(&made, kind)
                        }
                    };
                    Ok(json!(["put", id, key, value]))
                }
            }
        }
        ObjType::List if length > 0 && random.below(3) == 0 => {
            let at = random.below(length);
            let count = 1 + random.below((length - at).min(3));
            let nothing = std::iter::empty::<ScalarValue>();
            tx.splice(&object, at, count as isize, nothing)?;
            Ok(json!(["delete", id, at, count]))
        }
        ObjType::List => {
            let at = random.below(length + 1);
            let value = match new(random) {
                New::Scalar(value) => {
                    tx.insert(&object, at, value.clone())?;
                    tagged(&value)
                }
                New::Object(kind) => named(&tx.insert_object(&object, at, kind)?, kind),
            };
            Ok(json!(["insert", id, at, [value]]))
        }
        ObjType::Text => {
            let (at, end) = (random.below(length + 1), random.below(length + 1));
            let (at, end) = (at.min(end), at.max(end));
            match random.below(6) {
                0 if at < end => {
                    let mark = Mark::new("bold".into(), true, at, end);
                    tx.mark(&object, mark, ExpandMark::After)?;
                    Ok(json!(["mark", id, at, end, "bold", true, "after"]))
                }
                1 if at < end => {
                    tx.unmark(&object, "bold", at, end, ExpandMark::None)?;
                    Ok(json!(["mark", id, at, end, "bold", null, "none"]))
                }
                2 => {
                    let made = tx.split_block(&object, at)?;
                    Ok(json!(["insert", id, at, [named(&made, ObjType::Map)]]))
                }
                _ => {
                    let text = *random.pick(&["x", "yz", "e\u{301}", "本", "word ", "\n"]);
                    let deleted = (end - at).min(4);
                    tx.splice_text(&object, at, deleted as isize, text)?;
                    Ok(json!(["splice", id, at, deleted, text]))
                }
            }
        }
    }
}

/// All objects that show, with their kinds. Blocks of texts are left as they were made.
fn walk(tx: &Transaction<'_>, object: ObjId, kind: ObjType, found: &mut Vec<(ObjId, ObjType)>) {
    let inner: Vec<_> = match kind {
        ObjType::Text => Vec::new(),
        _ => tx
            .values(&object)
            .map(|(value, id)| (value.to_owned(), id))
            .collect(),
    };
    found.push((object, kind));
    for (value, id) in inner {
        if let Shown::Object(kind) = value {
            walk(tx, id, kind, found);
        }
    }
}

enum New {
    Scalar(ScalarValue),
    Object(ObjType),
}

fn new(random: &mut Random) -> New {
    let number = random.below(1 << 20) as i64;
    New::Scalar(match random.below(12) {
        0 => return New::Object(ObjType::Map),
        1 => return New::Object(ObjType::List),
        2 | 3 => return New::Object(ObjType::Text),
        4 => ScalarValue::Null,
        5 => ScalarValue::Boolean(number % 2 == 0),
        6 => ScalarValue::Int(-number),
        7 => ScalarValue::Int(number << 40),
        8 => ScalarValue::F64(number as f64 + 0.1),
        9 => ScalarValue::Timestamp(number * 1000),
        10 => ScalarValue::Bytes(number.to_le_bytes().to_vec()),
        _ => match number % 2 {
            0 => ScalarValue::counter(number),
            _ => ScalarValue::Str(format!("text {number}").into()),
        },
    })
}

/// Pages name new objects themselves; here by the name that each must get.
fn named(made: &ObjId, kind: ObjType) -> Value {
    let kind = match kind {
        ObjType::Map | ObjType::Table => "map",
        ObjType::List => "list",
        ObjType::Text => "text",
    };
    json!({ "make": kind, "id": made.to_string() })
}

/// What JSON has no word for is an object with one field, named for what it is.
fn tagged(value: &ScalarValue) -> Value {
    match value {
        ScalarValue::Null => Value::Null,
        ScalarValue::Boolean(boolean) => json!(boolean),
        ScalarValue::Int(number) if number.unsigned_abs() < 1 << 53 => json!(number),
        ScalarValue::Int(number) => json!({ "bigint": number.to_string() }),
        ScalarValue::F64(number) => json!(number),
        ScalarValue::Timestamp(ms) => json!({ "date": ms }),
        ScalarValue::Bytes(bytes) => json!({ "bytes": bytes }),
        ScalarValue::Str(text) => json!(text.as_str()),
        ScalarValue::Counter(counter) => json!({ "counter": i64::from(counter) }),
        other => unreachable!("nobody made {other:?}"),
    }
}
