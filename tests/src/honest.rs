//! Random documents as people make them by Automerge's own interface: several writers, every type,
//! extreme values, depth, conflicts, marks, blocks, counters, merges. Nothing in this project may
//! hold anything against one of them.

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{
    ActorId, AutoCommit, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value,
};

use crate::Random;

/// A document that one seed makes, and all its changes, each after its deps.
#[derive(Debug)]
pub struct Honest {
    /// The document.
    pub document: AutoCommit,
    /// Its changes.
    pub changes: Vec<Change>,
}

impl Honest {
    /// The document of this seed, with about `edits` edits of three writers.
    #[must_use]
    pub fn new(seed: u64, edits: u64) -> Self {
        let mut random = Random::new(seed);
        let mut writers: Vec<AutoCommit> = (0..3)
            .map(|_| AutoCommit::new().with_actor(ActorId::from(random.bytes())))
            .collect();
        for _ in 0..edits {
            let at = random.below(3) as usize;
            match random.below(12) {
                0 => {
                    let from = (at + 1 + random.below(2) as usize) % 3;
                    // Its copy must not make another change of what is pending.
                    writers[from].commit();
                    let mut from = writers[from].clone();
                    writers[at].merge(&mut from).unwrap();
                }
                1 => drop(writers[at].empty_change(CommitOptions::default())),
                2 => {
                    let message = random.text();
                    let options = CommitOptions::default().with_message(message);
                    // Automerge 0.12 cannot save two times that are further apart than an i64 says.
                    let time = random.number().cast_signed() >> 2;
                    writers[at].commit_with(options.with_time(time));
                }
                _ => {
                    for _ in 0..=random.below(5) {
                        random.edit(&mut writers[at]);
                    }
                }
            }
        }
        let mut document = writers.remove(0);
        for mut other in writers {
            document.merge(&mut other).unwrap();
        }
        document.commit();
        let changes = document.get_changes(&[]);
        Self { document, changes }
    }

    /// Its heads, in order.
    pub fn heads(&mut self) -> Vec<ChangeHash> {
        let mut heads = self.document.get_heads();
        heads.sort_unstable();
        heads
    }
}

/// A document of so many levels, maps and lists by turns, one change each.
#[must_use]
pub fn nested(levels: u32) -> Honest {
    let mut document = AutoCommit::new().with_actor(ActorId::from([7; 16]));
    let (mut object, mut is_map) = (ROOT, true);
    for level in 0..levels {
        let kind = [ObjType::Map, ObjType::List][usize::from(level % 3 == 0)];
        object = if is_map {
            document.put_object(&object, "next", kind).unwrap()
        } else {
            document.insert_object(&object, 0, kind).unwrap()
        };
        is_map = kind == ObjType::Map;
        document.commit();
    }
    let changes = document.get_changes(&[]);
    Honest { document, changes }
}

impl Random {
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    fn text(&mut self) -> String {
        let words = [
            "",
            "a",
            "plan",
            "\u{0}",
            "é",
            "e\u{301}",
            "日本語",
            "👩‍👩‍👧",
            "\u{fffc}",
            "\u{feff}",
            "\r\n",
            "\u{202e}",
            "𝄞",
        ];
        let mut text = String::new();
        for _ in 0..self.below(6) {
            let word: &&str = self.pick(&words);
            text.push_str(word);
        }
        if self.below(40) == 0 {
            text = text.repeat(100);
        }
        text
    }

    fn scalar(&mut self) -> ScalarValue {
        let floats = [
            0.0,
            -0.0,
            1.5,
            f64::NAN,
            -f64::NAN,
            f64::from_bits(0x7ff0_0000_0000_0001),
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE / 2.0,
            f64::MAX,
        ];
        let integers = [0, 1, -1, i64::MIN, i64::MAX, 1 << 53, -(1 << 53) - 1];
        match self.below(10) {
            0 => ScalarValue::Null,
            1 => ScalarValue::Boolean(self.below(2) == 0),
            2 => ScalarValue::Int(*self.pick(&integers)),
            3 => ScalarValue::Uint(*self.pick(&[0, 1, u64::MAX, 1 << 63])),
            4 => ScalarValue::F64(*self.pick(&floats)),
            5 => ScalarValue::counter(*self.pick(&[0, 1, -1, 1 << 40])),
            6 => ScalarValue::Timestamp(*self.pick(&integers)),
            7 => {
                let len = self.below(40) as usize;
                ScalarValue::Bytes(self.noise(len))
            }
            8 => ScalarValue::Unknown {
                type_code: *self.pick(&[10, 13, 15]),
                bytes: self.noise(3),
            },
            _ => ScalarValue::Str(self.text().into()),
        }
    }

    /// An object that shows in the document, and its kind.
    fn object(&mut self, document: &AutoCommit) -> (ObjId, ObjType) {
        let (mut object, mut kind) = (ROOT, ObjType::Map);
        // Deep down now and then, to the root often.
        for _ in 0..self.below(12) {
            let inside: Vec<(ObjId, ObjType)> = document
                .values(&object)
                .filter_map(|(value, id)| match value {
                    Value::Object(kind) => Some((id, kind)),
                    Value::Scalar(_) => None,
                })
                .collect();
            if kind == ObjType::Text || inside.is_empty() {
                break;
            }
            (object, kind) = self.pick(&inside).clone();
        }
        (object, kind)
    }

    fn edit(&mut self, document: &mut AutoCommit) {
        let (object, kind) = self.object(document);
        match kind {
            ObjType::Map | ObjType::Table => self.edit_map(document, &object),
            ObjType::List => self.edit_list(document, &object),
            ObjType::Text => self.edit_text(document, &object),
        }
    }

    fn kind(&mut self) -> ObjType {
        *self.pick(&[ObjType::Map, ObjType::List, ObjType::Text, ObjType::Text])
    }

    fn edit_map(&mut self, document: &mut AutoCommit, map: &ObjId) {
        let key = *self.pick(&["a", "b", "c", "length", "__proto__", "日本", "\u{0}"]);
        let value = document.get(map, key).unwrap();
        let is_counter = value.as_ref().is_some_and(|(value, _)| value.is_counter());
        match self.below(8) {
            0 if value.is_some() => document.delete(map, key).unwrap(),
            1 | 2 if is_counter => {
                let by = *self.pick(&[1, -1, 1_000]);
                document.increment(map, key, by).unwrap();
            }
            3 | 4 => {
                let kind = self.kind();
                document.put_object(map, key, kind).unwrap();
            }
            _ => document.put(map, key, self.scalar()).unwrap(),
        }
    }

    fn edit_list(&mut self, document: &mut AutoCommit, list: &ObjId) {
        let len = document.length(list);
        let at = self.below(len as u64 + 1) as usize;
        let value = document.get(list, at).unwrap();
        let is_counter = value.is_some_and(|(value, _)| value.is_counter());
        match self.below(8) {
            0 if at < len => document.delete(list, at).unwrap(),
            1 if at < len => document.put(list, at, self.scalar()).unwrap(),
            2 if at < len => {
                let kind = self.kind();
                document.put_object(list, at, kind).unwrap();
            }
            3 if is_counter => document.increment(list, at, -7).unwrap(),
            4 | 5 => {
                let kind = self.kind();
                document.insert_object(list, at, kind).unwrap();
            }
            _ => document.insert(list, at, self.scalar()).unwrap(),
        }
    }

    fn edit_text(&mut self, document: &mut AutoCommit, text: &ObjId) {
        let len = document.length(text);
        let at = self.below(len as u64 + 1) as usize;
        let end = at + self.below((len - at) as u64 + 1) as usize;
        match self.below(8) {
            0 if end > at => {
                let name = *self.pick(&["bold", "link", "comment:1"]);
                let expand = *self.pick(&[
                    ExpandMark::Both,
                    ExpandMark::None,
                    ExpandMark::Before,
                    ExpandMark::After,
                ]);
                let mark = Mark::new(name.to_owned(), self.scalar(), at, end);
                document.mark(text, mark, expand).unwrap();
            }
            1 if end > at => {
                let end = ExpandMark::Both;
                document.unmark(text, "bold", at, len, end).unwrap();
            }
            2 => {
                let block = document.split_block(text, at).unwrap();
                document.put(&block, "type", "paragraph").unwrap();
                document.put(&block, "level", self.scalar()).unwrap();
            }
            3 => {
                let whole = self.text();
                // Blocks are not text; Automerge refuses to lose them.
                let _ = document.update_text(text, whole);
            }
            _ => {
                let deleted = (end - at).min(9) as isize;
                let inserted = self.text();
                document.splice_text(text, at, deleted, &inserted).unwrap();
            }
        }
    }
}
