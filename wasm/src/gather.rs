//! New objects, gathered with what a page puts into them right after, so that all of it is written as
//! one: Automerge searches for the place of each operation.

use automerge::hydrate::{List, MapValue, Text, Value};
use automerge::transaction::Transaction;
use automerge::{ObjId, ObjType, Prop, TextEncoding, hydrate};
use js_sys::{Array, Map};
use wasm_bindgen::{JsCast, JsError, JsValue};

use crate::edit::{index, prop, text};
use crate::undo::id_at;
use crate::value::{New, read_new};

/// How many operations are gathered: what they hold is in memory twice meanwhile.
const OPERATIONS_MAX: usize = 64 * 1024;

/// Values are let go of by recursion. What lies deeper is written after the rest.
const DEPTH_MAX: usize = 100;

/// Values that are about to be written into one object.
pub(crate) struct Gathered {
    outer: Vec<Value>,
    /// Those of them that are objects, and all in these. What holds another comes before it.
    objects: Vec<NewObject>,
    /// The numbers of objects, by the names that the page gave them.
    numbers: Map,
    operations: usize,
}

struct NewObject {
    name: JsValue,
    destination: Destination,
    depth: usize,
    contents: Contents,
}

/// Where a new object goes.
enum Destination {
    /// It is the outer value of this number.
    Outer(usize),
    /// In the new object of this number.
    Inside(usize, Prop),
}

enum Contents {
    Map(hydrate::Map),
    List(Vec<Value>),
    Text(String),
}

impl Gathered {
    pub(crate) fn new(values: impl Iterator<Item = New>) -> Self {
        let mut gathered = Self {
            outer: Vec::new(),
            objects: Vec::new(),
            numbers: Map::new(),
            operations: 0,
        };
        for value in values {
            let destination = Destination::Outer(gathered.outer.len());
            let value = gathered.add(destination, 0, value);
            gathered.outer.push(value);
        }
        gathered
    }

    /// Takes in an operation, if it puts something new into one of these objects.
    pub(crate) fn take(&mut self, operation: &Array) -> Result<bool, JsError> {
        let Some(number) = self.numbers.get(&operation.get(1)).as_f64() else {
            return Ok(false);
        };
        let number = number as usize;
        let NewObject {
            depth, contents, ..
        } = &self.objects[number];
        let depth = depth + 1;
        if depth > DEPTH_MAX || self.operations >= OPERATIONS_MAX {
            return Ok(false);
        }
        let name = text(&operation.get(0))?;
        match (name.as_str(), contents) {
            ("put", Contents::Map(map)) => match prop(&operation.get(2))? {
                Prop::Map(key) if !map.contains_key(&key) => {
                    let value = read_new(&operation.get(3))?;
                    self.fill(number, Prop::Map(key), depth, value);
                }
                _ => return Ok(false),
            },
            ("insert", Contents::List(list)) if index(&operation.get(2))? == list.len() => {
                let values: Array = operation.get(3).unchecked_into();
                for (at, value) in (list.len()..).zip(values.iter()) {
                    self.fill(number, Prop::Seq(at), depth, read_new(&value)?);
                }
            }
            _ => return Ok(false),
        }
        self.operations += 1;
        Ok(true)
    }

    fn fill(&mut self, number: usize, prop: Prop, depth: usize, value: New) {
        let value = self.add(Destination::Inside(number, prop.clone()), depth, value);
        self.objects[number].contents.set(prop, value);
    }

    /// Gives what stands for it until all is there.
    fn add(&mut self, destination: Destination, depth: usize, value: New) -> Value {
        let (kind, name, text) = match value {
            New::Scalar(value) => return value.into(),
            New::Object { kind, name, text } => (kind, name, text),
        };
        let contents = match kind {
            ObjType::Map | ObjType::Table => Contents::Map(hydrate::Map::default()),
            ObjType::List => Contents::List(Vec::new()),
            ObjType::Text => Contents::Text(text.unwrap_or_default()),
        };
        self.numbers.set(&name, &(self.objects.len() as f64).into());
        self.objects.push(NewObject {
            name,
            destination,
            depth,
            contents,
        });
        Value::Scalar(automerge::ScalarValue::Null)
    }

    /// The values with all that is in them.
    pub(crate) fn values(&mut self) -> Vec<Value> {
        for number in (0..self.objects.len()).rev() {
            let object = &mut self.objects[number];
            let value = std::mem::replace(&mut object.contents, Contents::List(Vec::new())).value();
            match &object.destination {
                Destination::Outer(at) => self.outer[*at] = value,
                Destination::Inside(outer, prop) => {
                    let (outer, prop) = (*outer, prop.clone());
                    self.objects[outer].contents.set(prop, value);
                }
            }
        }
        std::mem::take(&mut self.outer)
    }

    /// Tells what the objects are called, now that they were written. `at` tells where the outer values
    /// are in `object`.
    pub(crate) fn name(
        &self,
        document: &Transaction<'_>,
        object: &ObjId,
        at: impl Fn(usize) -> Prop,
        names: &Map,
    ) {
        let mut made = Vec::<ObjId>::with_capacity(self.objects.len());
        for inner in &self.objects {
            let id = match &inner.destination {
                Destination::Outer(number) => id_at(document, object, at(*number)),
                Destination::Inside(outer, prop) => id_at(document, &made[*outer], prop.clone()),
            };
            let id = id.expect("it was just written");
            names.set(&inner.name, &id.to_string().into());
            made.push(id);
        }
    }
}

impl Contents {
    fn set(&mut self, prop: Prop, value: Value) {
        match (self, prop) {
            (Self::Map(map), Prop::Map(key)) => {
                let conflict = false;
                map.insert(key, MapValue { value, conflict });
            }
            (Self::List(list), Prop::Seq(at)) if at < list.len() => list[at] = value,
            (Self::List(list), _) => list.push(value),
            _ => {}
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Map(map) => map.into(),
            Self::List(list) => List::from(list).into(),
            Self::Text(text) => Text::new(TextEncoding::Utf16CodeUnit, text).into(),
        }
    }
}
