//! What takes an edit back, as bytes: a page keeps them until it asks for it, maybe from another
//! instance of the module, but of the same version.
//!
//! All is made of numbers, in LEB128, and of byte strings, behind their lengths.

use automerge::marks::Mark;
use automerge::{ObjId, ScalarValue};
use reconverge::leb::{Reader, push_unsigned};

use super::names::Run;
use super::renamed::{Renamed, Renaming};
use super::saved::{Content, Saved};
use super::step::{Key, Step};

pub(super) fn of_steps(steps: &[Step]) -> Vec<u8> {
    let mut out = Out::default();
    for step in steps {
        out.step(step);
    }
    out.0
}

/// The steps of these bytes, after those that are there; `None` if these are none.
pub(super) fn steps_of(bytes: &[u8], steps: &mut Vec<Step>) -> Option<()> {
    let mut from = In(Reader(bytes));
    while !from.0.is_empty() {
        steps.push(from.step()?);
    }
    Some(())
}

pub(super) fn of_names(names: &[Renaming]) -> Vec<u8> {
    let mut out = Out::default();
    for moved in names {
        for id in [&moved.before.first, &moved.now, &moved.object] {
            out.id(id);
        }
        out.number(moved.before.count as u64);
    }
    out.0
}

pub(super) fn names_of(bytes: &[u8], renamed: &mut Renamed) -> Option<()> {
    let mut from = In(Reader(bytes));
    while !from.0.is_empty() {
        let (first, now, object) = (from.id()?, from.id()?, from.id()?);
        let count = from.count()?;
        let before = Run { first, count };
        renamed.insert(Renaming {
            before,
            now,
            object,
        });
    }
    Some(())
}

#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn number(&mut self, number: u64) {
        push_unsigned(&mut self.0, number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn id(&mut self, id: &ObjId) {
        self.bytes(&id.to_bytes());
    }

    fn option(&mut self, id: Option<&ObjId>) {
        self.bytes(&id.map(ObjId::to_bytes).unwrap_or_default());
    }

    fn key(&mut self, key: &Key) {
        match key {
            Key::Map(key) => {
                self.number(0);
                self.bytes(key.as_bytes());
            }
            Key::Element(id) => {
                self.number(1);
                self.id(id);
            }
        }
    }

    fn begin(&mut self, kind: u64, object: &ObjId) {
        self.number(kind);
        self.id(object);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put {
                object,
                key,
                written,
                before,
            } => {
                self.begin(0, object);
                self.key(key);
                self.option(written.as_ref());
                self.saved(before.as_slice());
            }
            Step::Inserted { object, elements } => {
                self.begin(1, object);
                self.number(elements.len() as u64);
                for run in elements {
                    self.id(&run.first);
                    self.number(run.count as u64);
                }
            }
            Step::Deleted {
                object,
                after,
                before,
                elements,
                marks,
            } => {
                self.begin(2, object);
                self.option(after.as_ref());
                self.option(before.as_ref());
                self.saved(elements);
                self.marks(marks);
            }
            Step::Incremented { object, key, by } => {
                self.begin(3, object);
                self.key(key);
                self.number(*by as u64);
            }
            Step::Marked {
                object,
                first,
                last,
                name,
                written,
                before,
            } => {
                self.begin(4, object);
                self.id(first);
                self.id(last);
                self.bytes(name.as_bytes());
                self.scalar(written);
                self.number(before.len() as u64);
                for (first, last, value) in before {
                    self.id(first);
                    self.id(last);
                    self.scalar(value);
                }
            }
        }
    }

    fn saved(&mut self, elements: &[Saved]) {
        self.number(elements.len() as u64);
        for Saved { id, content } in elements {
            self.id(id);
            self.content(content);
        }
    }

    fn content(&mut self, content: &Content) {
        match content {
            Content::Scalar(value) => self.scalar(value),
            Content::Map(entries) => {
                self.number(10);
                self.number(entries.len() as u64);
                for (key, value) in entries {
                    self.bytes(key.as_bytes());
                    self.saved(std::slice::from_ref(value));
                }
            }
            Content::List(elements) => {
                self.number(11);
                self.saved(elements);
            }
            Content::Text(elements, marks) => {
                self.number(12);
                self.saved(elements);
                self.marks(marks);
            }
            Content::Run(text) => self.long(13, text.as_bytes()),
        }
    }

    fn marks(&mut self, marks: &[Mark]) {
        self.number(marks.len() as u64);
        for mark in marks {
            self.number(mark.start as u64);
            self.number(mark.end as u64);
            self.bytes(mark.name.as_bytes());
            self.scalar(&mark.value);
        }
    }

    fn scalar(&mut self, value: &ScalarValue) {
        let (kind, number) = match value {
            ScalarValue::Null => (0, 0),
            ScalarValue::Boolean(value) => (1, u64::from(*value)),
            ScalarValue::Int(value) => (2, *value as u64),
            ScalarValue::Uint(value) => (3, *value),
            ScalarValue::F64(value) => (4, value.to_bits()),
            ScalarValue::Counter(value) => (5, i64::from(value) as u64),
            ScalarValue::Timestamp(value) => (6, *value as u64),
            ScalarValue::Str(text) => return self.long(7, text.as_bytes()),
            ScalarValue::Bytes(bytes) => return self.long(8, bytes),
            ScalarValue::Unknown { type_code, bytes } => {
                self.long(9, bytes);
                return self.number(u64::from(*type_code));
            }
        };
        self.number(kind);
        self.number(number);
    }

    fn long(&mut self, kind: u64, bytes: &[u8]) {
        self.number(kind);
        self.bytes(bytes);
    }
}

struct In<'a>(Reader<'a>);

impl<'a> In<'a> {
    fn number(&mut self) -> Option<u64> {
        self.0.unsigned()
    }

    fn count(&mut self) -> Option<usize> {
        self.0.number()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        self.0.prefixed()
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn id(&mut self) -> Option<ObjId> {
        self.option()?
    }

    fn option(&mut self) -> Option<Option<ObjId>> {
        match self.bytes()? {
            [] => Some(None),
            bytes => ObjId::try_from(bytes).ok().map(Some),
        }
    }

    fn key(&mut self) -> Option<Key> {
        Some(match self.number()? {
            0 => Key::Map(self.text()?.to_owned()),
            _ => Key::Element(self.id()?),
        })
    }

    fn step(&mut self) -> Option<Step> {
        let kind = self.number()?;
        let object = self.id()?;
        Some(match kind {
            0 => Step::Put {
                object,
                key: self.key()?,
                written: self.option()?,
                before: self.saved()?.pop(),
            },
            1 => {
                let mut elements = Vec::new();
                for _ in 0..self.count()? {
                    let (first, count) = (self.id()?, self.count()?);
                    elements.push(Run { first, count });
                }
                Step::Inserted { object, elements }
            }
            2 => Step::Deleted {
                object,
                after: self.option()?,
                before: self.option()?,
                elements: self.saved()?,
                marks: self.marks()?,
            },
            3 => Step::Incremented {
                object,
                key: self.key()?,
                by: self.number()? as i64,
            },
            _ => {
                let (first, last) = (self.id()?, self.id()?);
                let name = self.text()?.to_owned();
                let kind = self.number()?;
                let written = self.scalar(kind)?;
                let mut before = Vec::new();
                for _ in 0..self.count()? {
                    let (first, last) = (self.id()?, self.id()?);
                    let kind = self.number()?;
                    before.push((first, last, self.scalar(kind)?));
                }
                Step::Marked {
                    object,
                    first,
                    last,
                    name,
                    written,
                    before,
                }
            }
        })
    }

    fn saved(&mut self) -> Option<Vec<Saved>> {
        let mut elements = Vec::new();
        for _ in 0..self.count()? {
            let (id, content) = (self.id()?, self.content()?);
            elements.push(Saved { id, content });
        }
        Some(elements)
    }

    fn content(&mut self) -> Option<Content> {
        Some(match self.number()? {
            10 => {
                let mut entries = Vec::new();
                for _ in 0..self.count()? {
                    entries.push((self.text()?.to_owned(), self.saved()?.pop()?));
                }
                Content::Map(entries)
            }
            11 => Content::List(self.saved()?),
            12 => Content::Text(self.saved()?, self.marks()?),
            13 => Content::Run(self.text()?.to_owned()),
            kind => Content::Scalar(self.scalar(kind)?),
        })
    }

    fn marks(&mut self) -> Option<Vec<Mark>> {
        let mut marks = Vec::new();
        for _ in 0..self.count()? {
            let (start, end) = (self.count()?, self.count()?);
            let name = self.text()?.to_owned();
            let kind = self.number()?;
            marks.push(Mark::new(name, self.scalar(kind)?, start, end));
        }
        Some(marks)
    }

    fn scalar(&mut self, kind: u64) -> Option<ScalarValue> {
        Some(match kind {
            7 => ScalarValue::Str(self.text()?.into()),
            8 => ScalarValue::Bytes(self.bytes()?.to_vec()),
            9 => ScalarValue::Unknown {
                bytes: self.bytes()?.to_vec(),
                type_code: self.number()? as u8,
            },
            _ => {
                let number = self.number()?;
                match kind {
                    0 => ScalarValue::Null,
                    1 => ScalarValue::Boolean(number == 1),
                    2 => ScalarValue::Int(number as i64),
                    3 => ScalarValue::Uint(number),
                    4 => ScalarValue::F64(f64::from_bits(number)),
                    5 => ScalarValue::Counter((number as i64).into()),
                    6 => ScalarValue::Timestamp(number as i64),
                    _ => return None,
                }
            }
        })
    }
}
