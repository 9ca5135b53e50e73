//! What a value is as parts of a document, before it is written.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use automerge::{ObjId, ObjType, Prop, ReadDoc, ScalarValue, TextEncoding, Value, hydrate};

use super::DEPTH_MAX;
use super::fault::Fault;

pub(super) type Key = Cow<'static, str>;

/// Keys of a map are in order.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Scalar(ScalarValue),
    /// A string, which is edited as a text.
    Text(String),
    /// The name of a variant, which is a text that is only replaced as a whole.
    Word(Key),
    List(Vec<Self>),
    Map(Vec<(Key, Self)>),
    /// A map with one key, the name of a variant; to edit a part of it makes no sense if the name is
    /// another one.
    Variant(&'static str, Box<Self>),
}

impl Tree {
    pub(super) const NULL: Self = Self::Scalar(ScalarValue::Null);

    pub(super) fn map(mut entries: Vec<(Key, Self)>) -> Self {
        entries.sort_by(|(key, _), (other, _)| key.cmp(other));
        // Of what is flattened, a key may come twice; who reads JSON takes the last one, too.
        entries.reverse();
        entries.dedup_by(|(key, _), (other, _)| key == other);
        entries.reverse();
        Self::Map(entries)
    }

    /// A variant as the map with one key that it is stored as.
    pub(super) fn named(&self) -> Option<Self> {
        match self {
            Self::Variant(name, content) => {
                Some(Self::Map(vec![((*name).into(), (**content).clone())]))
            }
            _ => None,
        }
    }

    /// Whether values have at most so many levels, as readers take them.
    pub(super) fn has_levels_within(&self, max: usize) -> bool {
        let inner = |value: &Self| max > 0 && value.has_levels_within(max - 1);
        match self {
            Self::Scalar(_) | Self::Text(_) | Self::Word(_) => true,
            Self::List(elements) => max > 0 && elements.iter().all(inner),
            Self::Map(entries) => max > 0 && entries.iter().all(|(_, value)| inner(value)),
            Self::Variant(_, content) => inner(content),
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else {
            return None;
        };
        let found = entries.binary_search_by(|(name, _)| name.as_ref().cmp(key));
        Some(&entries[found.ok()?].1)
    }

    /// As what is made anew with all that is in it.
    pub(super) fn hydrated(&self, encoding: TextEncoding) -> hydrate::Value {
        let text = |text: &str| hydrate::Text::new(encoding, text).into();
        match self {
            Self::Scalar(value) => hydrate::Value::Scalar(value.clone()),
            Self::Text(value) => text(value),
            Self::Word(name) => text(name),
            Self::List(elements) => {
                let elements = elements.iter().map(|element| element.hydrated(encoding));
                hydrate::Value::List(elements.collect::<Vec<_>>().into())
            }
            Self::Map(entries) => {
                let entries = entries.iter();
                let entries = entries.map(|(key, value)| (&**key, value.hydrated(encoding)));
                hydrate::Value::Map(entries.collect::<HashMap<_, _>>().into())
            }
            Self::Variant(name, content) => {
                hydrate::Value::Map(HashMap::from([(*name, content.hydrated(encoding))]).into())
            }
        }
    }

    /// What is at a place of a document.
    pub(super) fn at(
        document: &impl ReadDoc,
        object: &ObjId,
        prop: impl Into<Prop>,
    ) -> Result<Option<Self>, Fault> {
        let found = document.get(object, prop).map_err(Fault::new)?;
        let found = found.map(|(value, id)| Self::of(document, value, &id, 0));
        found.transpose()
    }

    pub(super) fn of_object(
        document: &impl ReadDoc,
        object: &ObjId,
        kind: ObjType,
    ) -> Result<Self, Fault> {
        Self::of(document, Value::Object(kind), object, 0)
    }

    fn of(
        document: &impl ReadDoc,
        value: Value<'_>,
        id: &ObjId,
        depth: usize,
    ) -> Result<Self, Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault::new(format_args!("deeper than {DEPTH_MAX} levels")));
        }
        let inner = |value, id: &ObjId| Self::of(document, value, id, depth + 1);
        Ok(match value {
            Value::Scalar(value) => Self::Scalar(value.into_owned()),
            Value::Object(ObjType::Text) => Self::Text(document.text(id).map_err(Fault::new)?),
            Value::Object(ObjType::List) => {
                let elements = document.list_range(id, ..);
                let elements = elements.map(|it| inner(it.value.clone().into_value(), &it.id()));
                Self::List(elements.collect::<Result<_, _>>()?)
            }
            Value::Object(ObjType::Map | ObjType::Table) => {
                let entries = document.map_range(id, ..).map(|it| {
                    let value = inner(it.value.clone().into_value(), &it.id())?;
                    Ok((it.key.into_owned().into(), value))
                });
                Self::map(entries.collect::<Result<_, Fault>>()?)
            }
        })
    }

    /// Whether what is in a document may have been read as this: keys that the document does not have
    /// may have got defaults, and others the type may not know.
    pub(super) fn may_be_read_of(&self, stored: &Self) -> bool {
        match (self, stored) {
            (Self::Map(entries), Self::Map(_)) => entries.iter().all(|(key, value)| {
                let stored = stored.entry(key);
                stored.is_none_or(|stored| value.may_be_read_of(stored))
            }),
            (Self::Variant(name, content), Self::Map(_)) => {
                let stored = stored.entry(name);
                stored.is_some_and(|stored| content.may_be_read_of(stored))
            }
            (Self::List(elements), Self::List(stored)) => {
                let mut pairs = elements.iter().zip(stored);
                elements.len() == stored.len() && pairs.all(|(value, of)| value.may_be_read_of(of))
            }
            (Self::List(_), Self::Scalar(ScalarValue::Bytes(bytes))) => {
                self.as_bytes().as_ref() == Some(bytes)
            }
            (Self::Scalar(value @ (ScalarValue::Counter(_) | ScalarValue::Timestamp(_))), _) => {
                matches!(stored, Self::Scalar(stored) if value == stored)
            }
            _ => Alike(self) == Alike(stored),
        }
    }

    /// The same, and the document has all of its keys.
    pub(super) fn is_read_of(&self, stored: &Self) -> bool {
        let has_keys = match self {
            Self::Map(entries) => entries.iter().all(|(key, _)| stored.entry(key).is_some()),
            _ => true,
        };
        has_keys && self.may_be_read_of(stored)
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Word(name) => Some(name),
            Self::Scalar(ScalarValue::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// What an element of a list calls itself: a string or an integer that it has as its `id`.
    pub(super) fn id(&self) -> Option<&Self> {
        let id = self.entry("id")?;
        let is_id = match id {
            Self::Text(_) => true,
            Self::Scalar(value) => matches!(
                value,
                ScalarValue::Str(_) | ScalarValue::Int(_) | ScalarValue::Uint(_)
            ),
            _ => false,
        };
        is_id.then_some(id)
    }

    /// A list of numbers as bytes, if they are.
    pub(super) fn as_bytes(&self) -> Option<Vec<u8>> {
        let Self::List(elements) = self else {
            return None;
        };
        let byte = |element: &Self| match element {
            Self::Scalar(ScalarValue::Int(number)) => (*number).try_into().ok(),
            _ => None,
        };
        elements.iter().map(byte).collect()
    }
}

/// Trees that are equal to a reader, however they are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alike<'a>(pub(super) &'a Tree);

/// What there is to compare in a tree that has no others in it.
#[derive(PartialEq, Eq, Hash)]
enum Leaf<'a> {
    Text(&'a str),
    Integer(i128),
    Float(u64),
    Boolean(bool),
    Bytes(&'a [u8]),
    Unknown(u8, &'a [u8]),
    Null,
}

impl<'a> Alike<'a> {
    fn leaf(self) -> Option<Leaf<'a>> {
        if let Some(text) = self.0.as_str() {
            return Some(Leaf::Text(text));
        }
        let Tree::Scalar(value) = self.0 else {
            return None;
        };
        Some(match value {
            ScalarValue::Str(text) => Leaf::Text(text),
            ScalarValue::Int(number) | ScalarValue::Timestamp(number) => {
                Leaf::Integer((*number).into())
            }
            ScalarValue::Counter(sum) => Leaf::Integer(i64::from(sum).into()),
            ScalarValue::Uint(number) => Leaf::Integer((*number).into()),
            ScalarValue::F64(number) => match whole(*number) {
                Some(number) => Leaf::Integer(number.into()),
                None => Leaf::Float(number.to_bits()),
            },
            ScalarValue::Boolean(value) => Leaf::Boolean(*value),
            ScalarValue::Bytes(bytes) => Leaf::Bytes(bytes),
            ScalarValue::Unknown { type_code, bytes } => Leaf::Unknown(*type_code, bytes),
            ScalarValue::Null => Leaf::Null,
        })
    }
}

impl PartialEq for Alike<'_> {
    fn eq(&self, other: &Self) -> bool {
        let alike = |one: &Tree, other: &Tree| Alike(one) == Alike(other);
        match (self.0, other.0) {
            (Tree::List(elements), Tree::List(others)) => {
                let mut pairs = elements.iter().zip(others);
                elements.len() == others.len() && pairs.all(|(one, other)| alike(one, other))
            }
            (Tree::Map(entries), Tree::Map(others)) => {
                let mut pairs = entries.iter().zip(others);
                entries.len() == others.len()
                    && pairs.all(|(one, other)| one.0 == other.0 && alike(&one.1, &other.1))
            }
            (Tree::Variant(name, content), Tree::Variant(other, others)) => {
                name == other && alike(content, others)
            }
            (Tree::Variant(name, content), Tree::Map(entries))
            | (Tree::Map(entries), Tree::Variant(name, content)) => {
                matches!(&entries[..], [(key, value)] if key == name && alike(content, value))
            }
            _ => match (self.leaf(), other.leaf()) {
                (Some(leaf), Some(other)) => leaf == other,
                _ => false,
            },
        }
    }
}

impl Eq for Alike<'_> {}

impl Hash for Alike<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            Tree::List(elements) => {
                elements.len().hash(state);
                elements
                    .iter()
                    .for_each(|element| Alike(element).hash(state));
            }
            Tree::Map(entries) => {
                entries.len().hash(state);
                for (key, value) in entries {
                    key.hash(state);
                    Alike(value).hash(state);
                }
            }
            Tree::Variant(name, content) => {
                1_usize.hash(state);
                name.hash(state);
                Alike(content).hash(state);
            }
            _ => self.leaf().hash(state),
        }
    }
}

/// A number as an integer, if it is one.
pub(super) fn whole(number: f64) -> Option<i64> {
    let is_whole = number.fract() == 0.0 && (-2_f64.powi(63)..2_f64.powi(63)).contains(&number);
    // As an integer, minus zero would lose its sign.
    let is_plain = number != 0.0 || number.is_sign_positive();
    (is_whole && is_plain).then_some(number as i64)
}

/// Of the same kind, too; something that is not a number is the same as itself.
fn is_same(value: &ScalarValue, other: &ScalarValue) -> bool {
    match (value, other) {
        (ScalarValue::F64(value), ScalarValue::F64(other)) => value.to_bits() == other.to_bits(),
        _ => value == other,
    }
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar(value), Self::Scalar(other)) => is_same(value, other),
            (Self::Text(text), Self::Text(other)) => text == other,
            (Self::Word(name), Self::Word(other)) => name == other,
            (Self::List(elements), Self::List(others)) => elements == others,
            (Self::Map(entries), Self::Map(others)) => entries == others,
            (Self::Variant(name, content), Self::Variant(other, others)) => {
                name == other && content == others
            }
            _ => false,
        }
    }
}
