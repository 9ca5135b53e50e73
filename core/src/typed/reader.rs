//! Reads a value out of a document, as serde deserializes it. Only what the type asks for is read.

use automerge::iter::{ListRange, MapRange};
use automerge::{ObjId, ObjType, ReadDoc, ScalarValueRef, ValueRef};
use serde::Deserializer;
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeSeed, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::DEPTH_MAX;
use super::fault::Fault;
use super::kinds::{COUNTER, TIMESTAMP};
use super::tree::whole;

/// Up to here JavaScript tells whole numbers apart, and has no other whole numbers.
const SAFE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;

/// What is at one place of a document.
pub(super) struct Reader<'a, R> {
    document: &'a R,
    found: Found<'a>,
    depth: usize,
}

enum Found<'a> {
    Object(ObjType, ObjId),
    Scalar(ScalarValueRef<'a>),
}

impl<'a> Found<'a> {
    fn new(value: ValueRef<'a>, id: impl FnOnce() -> ObjId) -> Self {
        match value {
            ValueRef::Object(kind) => Self::Object(kind, id()),
            ValueRef::Scalar(value) => Self::Scalar(value),
        }
    }
}

impl<'a, R: ReadDoc> Reader<'a, R> {
    pub(super) fn of_object(document: &'a R, object: ObjId, kind: ObjType) -> Self {
        let found = Found::Object(kind, object);
        Self {
            document,
            found,
            depth: 0,
        }
    }

    fn text(&self, text: &ObjId) -> Result<String, Fault> {
        self.document.text(text).map_err(Fault::new)
    }

    /// One level further in.
    fn inner_depth(&self) -> Result<usize, Fault> {
        if self.depth == DEPTH_MAX {
            return Err(Fault::new(format_args!("deeper than {DEPTH_MAX} levels")));
        }
        Ok(self.depth + 1)
    }

    fn entries(&self, map: &ObjId) -> Result<Entries<'a, R>, Fault> {
        Ok(Entries {
            document: self.document,
            entries: self.document.map_range(map, ..),
            depth: self.inner_depth()?,
            current: None,
        })
    }

    fn elements(&self, list: &ObjId) -> Result<Elements<'a, R>, Fault> {
        Ok(Elements {
            document: self.document,
            elements: self.document.list_range(list, ..),
            depth: self.inner_depth()?,
            index: 0,
        })
    }

    /// JavaScript has one kind of numbers, and a client may store a whole one as a float.
    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.found {
            Found::Scalar(ScalarValueRef::F64(number)) => match whole(number) {
                Some(number) => visitor.visit_i64(number),
                None => visitor.visit_f64(number),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.found {
            Found::Scalar(ScalarValueRef::F64(number)) => visitor.visit_f64(number),
            _ => self.deserialize_any(visitor),
        }
    }

    fn marked<'de, V: Visitor<'de>>(
        self,
        number: Option<i64>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match number {
            Some(number) => visitor.visit_newtype_struct(number.into_deserializer()),
            // The visitor takes nothing else, and says what it wants.
            None => self.deserialize_any(visitor),
        }
    }
}

macro_rules! forward {
    ($to:ident: $($name:ident)*) => {
        $(
            fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
                self.$to(visitor)
            }
        )*
    };
}

impl<'de, R: ReadDoc> Deserializer<'de> for Reader<'_, R> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let scalar = match self.found {
            Found::Object(ObjType::Map | ObjType::Table, ref map) => {
                return visitor.visit_map(self.entries(map)?);
            }
            Found::Object(ObjType::List, ref list) => {
                return visitor.visit_seq(self.elements(list)?);
            }
            Found::Object(ObjType::Text, ref text) => {
                return visitor.visit_string(self.text(text)?);
            }
            Found::Scalar(scalar) => scalar,
        };
        match scalar {
            ScalarValueRef::Null => visitor.visit_unit(),
            ScalarValueRef::Boolean(value) => visitor.visit_bool(value),
            ScalarValueRef::Int(number)
            | ScalarValueRef::Counter(number)
            | ScalarValueRef::Timestamp(number) => visitor.visit_i64(number),
            ScalarValueRef::Uint(number) => visitor.visit_u64(number),
            ScalarValueRef::F64(number) => {
                let is_safe = number.abs() <= SAFE_INTEGER_MAX;
                match whole(number).filter(|_| is_safe) {
                    Some(number) => visitor.visit_i64(number),
                    None => visitor.visit_f64(number),
                }
            }
            ScalarValueRef::Str(text) => visitor.visit_str(&text),
            ScalarValueRef::Bytes(bytes) => visitor.visit_bytes(&bytes),
            ScalarValueRef::Unknown { type_code, .. } => Err(Fault::new(format_args!(
                "a value of kind {type_code}, which a later version wrote"
            ))),
        }
    }

    forward!(integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128);
    forward!(float: deserialize_f32 deserialize_f64);

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.found {
            Found::Scalar(ScalarValueRef::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let number = match (name, &self.found) {
            (COUNTER, Found::Scalar(ScalarValueRef::Counter(sum))) => Some(*sum),
            (TIMESTAMP, Found::Scalar(ScalarValueRef::Timestamp(ms))) => Some(*ms),
            (COUNTER | TIMESTAMP, _) => None,
            _ => return visitor.visit_newtype_struct(self),
        };
        self.marked(number, visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.found {
            // To serde, a `Vec<u8>` is a list like any other.
            Found::Scalar(ScalarValueRef::Bytes(bytes)) => {
                let mut bytes = serde::de::value::SeqDeserializer::new(bytes.iter().copied());
                visitor.visit_seq(&mut bytes)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.found {
            Found::Scalar(ScalarValueRef::Str(variant)) => {
                visitor.visit_enum(variant.clone().into_deserializer())
            }
            Found::Object(ObjType::Text, text) => {
                let variant: StringDeserializer<Fault> = self.text(text)?.into_deserializer();
                visitor.visit_enum(variant)
            }
            Found::Object(ObjType::Map | ObjType::Table, map) => {
                let mut entries = self.entries(map)?;
                let first = entries.entries.next();
                let (Some(variant), None) = (first, entries.entries.next()) else {
                    let what = "a map, but one with a single key is expected, for a variant of";
                    return Err(Fault::new(format_args!("{what} {name}")));
                };
                visitor.visit_enum(Variant {
                    content: Self {
                        document: self.document,
                        found: Found::new(variant.value.clone(), || variant.id()),
                        depth: entries.depth,
                    },
                    name: variant.key.into_owned(),
                })
            }
            _ => self.deserialize_any(visitor),
        }
    }

    /// What nobody wants is not read.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool char str string bytes byte_buf unit unit_struct map struct identifier
    }
}

struct Entries<'a, R> {
    document: &'a R,
    entries: MapRange<'a>,
    depth: usize,
    current: Option<(String, Found<'a>)>,
}

impl<'de, R: ReadDoc> MapAccess<'de> for Entries<'_, R> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some(entry) = self.entries.next() else {
            return Ok(None);
        };
        let found = Found::new(entry.value.clone(), || entry.id());
        let key = seed.deserialize(Key(&entry.key));
        let key = key.map_err(|fault| fault.in_key(&entry.key))?;
        self.current = Some((entry.key.into_owned(), found));
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let current = self.current.take();
        let (key, found) = current.expect("serde asks for a value after its key");
        let value = seed.deserialize(Reader {
            document: self.document,
            found,
            depth: self.depth,
        });
        value.map_err(|fault| fault.in_key(&key))
    }
}

struct Elements<'a, R> {
    document: &'a R,
    elements: ListRange<'a>,
    depth: usize,
    index: usize,
}

impl<'de, R: ReadDoc> SeqAccess<'de> for Elements<'_, R> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(element) = self.elements.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        let value = seed.deserialize(Reader {
            document: self.document,
            found: Found::new(element.value.clone(), || element.id()),
            depth: self.depth,
        });
        value.map(Some).map_err(|fault| fault.in_index(index))
    }
}

struct Variant<'a, R> {
    name: String,
    content: Reader<'a, R>,
}

impl<'de, 'a, R: ReadDoc> EnumAccess<'de> for Variant<'a, R> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StringDeserializer<Fault> = self.name.clone().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de, R: ReadDoc> VariantAccess<'de> for Variant<'_, R> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        self.newtype_variant_seed(std::marker::PhantomData)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        let content = seed.deserialize(self.content);
        content.map_err(|fault| fault.in_key(&self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        let content = self.content.deserialize_tuple(len, visitor);
        content.map_err(|fault| fault.in_key(&self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let content = self.content.deserialize_any(visitor);
        content.map_err(|fault| fault.in_key(&self.name))
    }
}

/// Keys of documents are strings; those of a `HashMap<u32, _>` are numbers written out.
struct Key<'a>(&'a str);

macro_rules! parsed_keys {
    ($($name:ident $visit:ident)*) => {
        $(
            fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
                match self.0.parse() {
                    Ok(key) => visitor.$visit(key),
                    Err(_) => Err(Fault::invalid_type(Unexpected::Str(self.0), &visitor)),
                }
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Key<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.0)
    }

    parsed_keys! {
        deserialize_i8 visit_i64 deserialize_i16 visit_i64 deserialize_i32 visit_i64
        deserialize_i64 visit_i64 deserialize_i128 visit_i128
        deserialize_u8 visit_u64 deserialize_u16 visit_u64 deserialize_u32 visit_u64
        deserialize_u64 visit_u64 deserialize_u128 visit_u128
        deserialize_bool visit_bool
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}
