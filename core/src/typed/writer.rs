//! What a value is as parts of a document, as serde serializes it.

use std::fmt::Display;

use automerge::ScalarValue;
use serde::ser::{
    Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use super::fault::Fault;
use super::kinds::{COUNTER, IMMUTABLE_STRING, TIMESTAMP};
use super::tree::{Key, Tree};

/// Makes trees.
#[derive(Clone, Copy)]
pub(super) struct Writer;

fn integer(number: impl TryInto<i64> + TryInto<u64> + Display + Copy) -> Result<Tree, Fault> {
    let signed = number.try_into().map(ScalarValue::Int);
    let number_of = |value| Ok(Tree::Scalar(value));
    match signed {
        Ok(value) => number_of(value),
        Err(_) => match number.try_into().map(ScalarValue::Uint) {
            Ok(value) => number_of(value),
            Err(_) => Err(Fault::new(format_args!(
                "{number}, but a document's integers have at most 64 bits"
            ))),
        },
    }
}

macro_rules! integers {
    ($($name:ident $type:ident)*) => {
        $(
            fn $name(self, number: $type) -> Result<Tree, Fault> {
                integer(number)
            }
        )*
    };
}

impl Serializer for Writer {
    type Ok = Tree;
    type Error = Fault;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = Map;
    type SerializeStruct = Map;
    type SerializeStructVariant = Map;

    integers! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64 serialize_i128 i128
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64 serialize_u128 u128
    }

    fn serialize_bool(self, value: bool) -> Result<Tree, Fault> {
        Ok(Tree::Scalar(ScalarValue::Boolean(value)))
    }

    fn serialize_f32(self, number: f32) -> Result<Tree, Fault> {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> Result<Tree, Fault> {
        Ok(Tree::Scalar(ScalarValue::F64(number)))
    }

    fn serialize_char(self, character: char) -> Result<Tree, Fault> {
        Ok(Tree::Text(character.to_string()))
    }

    fn serialize_str(self, text: &str) -> Result<Tree, Fault> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Tree, Fault> {
        Ok(Tree::Scalar(ScalarValue::Bytes(bytes.to_vec())))
    }

    fn serialize_none(self) -> Result<Tree, Fault> {
        Ok(Tree::NULL)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Tree, Fault> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Tree, Fault> {
        Ok(Tree::NULL)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Tree, Fault> {
        Ok(Tree::NULL)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Tree, Fault> {
        Ok(Tree::Word(variant.into()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Tree, Fault> {
        let inside = value.serialize(self)?;
        Ok(match (name, inside) {
            (COUNTER, Tree::Scalar(ScalarValue::Int(sum))) => {
                Tree::Scalar(ScalarValue::counter(sum))
            }
            (TIMESTAMP, Tree::Scalar(ScalarValue::Int(ms))) => {
                Tree::Scalar(ScalarValue::Timestamp(ms))
            }
            (IMMUTABLE_STRING, Tree::Text(text)) => Tree::Scalar(ScalarValue::Str(text.into())),
            (_, inside) => inside,
        })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Tree, Fault> {
        let content = value.serialize(self);
        let content = content.map_err(|fault| fault.in_key(variant))?;
        Ok(Tree::Variant(variant, Box::new(content)))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<List, Fault> {
        Ok(List::new(None, len.unwrap_or_default()))
    }

    fn serialize_tuple(self, len: usize) -> Result<List, Fault> {
        Ok(List::new(None, len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<List, Fault> {
        Ok(List::new(None, len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<List, Fault> {
        Ok(List::new(Some(variant), len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Map, Fault> {
        Ok(Map::new(None, len.unwrap_or_default()))
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Map, Fault> {
        Ok(Map::new(None, len))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Map, Fault> {
        Ok(Map::new(Some(variant), len))
    }
}

fn of_variant(variant: Option<&'static str>, content: Tree) -> Tree {
    match variant {
        Some(name) => Tree::Variant(name, Box::new(content)),
        None => content,
    }
}

pub(super) struct List {
    variant: Option<&'static str>,
    elements: Vec<Tree>,
}

impl List {
    fn new(variant: Option<&'static str>, len: usize) -> Self {
        let elements = Vec::with_capacity(len);
        Self { variant, elements }
    }

    fn push(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Fault> {
        let element = value.serialize(Writer);
        let element = element.map_err(|fault| fault.in_index(self.elements.len()))?;
        self.elements.push(element);
        Ok(())
    }

    fn tree(self) -> Tree {
        of_variant(self.variant, Tree::List(self.elements))
    }
}

macro_rules! lists {
    ($($trait:ident $push:ident)*) => {
        $(
            impl $trait for List {
                type Ok = Tree;
                type Error = Fault;

                fn $push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                    self.push(value)
                }

                fn end(self) -> Result<Tree, Fault> {
                    Ok(self.tree())
                }
            }
        )*
    };
}

lists! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

pub(super) struct Map {
    variant: Option<&'static str>,
    entries: Vec<(Key, Tree)>,
    key: Option<Key>,
}

impl Map {
    fn new(variant: Option<&'static str>, len: usize) -> Self {
        Self {
            variant,
            entries: Vec::with_capacity(len),
            key: None,
        }
    }

    fn push<T: Serialize + ?Sized>(&mut self, key: Key, value: &T) -> Result<(), Fault> {
        let value = value.serialize(Writer);
        let mut value = value.map_err(|fault| fault.in_key(&key))?;
        // A bare `str` no field can be: serde passes it as the tag of a variant (`#[serde(tag)]`).
        if std::any::type_name::<T>() == std::any::type_name::<str>()
            && let Tree::Text(name) = value
        {
            value = Tree::Word(name.into());
        }
        self.entries.push((key, value));
        Ok(())
    }

    fn tree(self) -> Tree {
        of_variant(self.variant, Tree::map(self.entries))
    }
}

impl SerializeMap for Map {
    type Ok = Tree;
    type Error = Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        self.key = Some(key.serialize(KeyWriter)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let key = self
            .key
            .take()
            .expect("serde gives the key before its value");
        self.push(key, value)
    }

    fn end(self) -> Result<Tree, Fault> {
        Ok(self.tree())
    }
}

macro_rules! structs {
    ($($trait:ident)*) => {
        $(
            impl $trait for Map {
                type Ok = Tree;
                type Error = Fault;

                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    key: &'static str,
                    value: &T,
                ) -> Result<(), Fault> {
                    self.push(key.into(), value)
                }

                fn end(self) -> Result<Tree, Fault> {
                    Ok(self.tree())
                }
            }
        )*
    };
}

structs! { SerializeStruct SerializeStructVariant }

/// Makes keys, of all that is written as one word.
struct KeyWriter;

fn no_key<T>(what: &str) -> Result<T, Fault> {
    Err(Fault::new(format_args!(
        "{what} is the key of a map, but only a string, a number or a variant can be"
    )))
}

macro_rules! keys {
    ($($name:ident $type:ty)*) => {
        $(
            fn $name(self, key: $type) -> Result<Key, Fault> {
                Ok(key.to_string().into())
            }
        )*
    };
}

impl Serializer for KeyWriter {
    type Ok = Key;
    type Error = Fault;
    type SerializeSeq = Impossible<Key, Fault>;
    type SerializeTuple = Impossible<Key, Fault>;
    type SerializeTupleStruct = Impossible<Key, Fault>;
    type SerializeTupleVariant = Impossible<Key, Fault>;
    type SerializeMap = Impossible<Key, Fault>;
    type SerializeStruct = Impossible<Key, Fault>;
    type SerializeStructVariant = Impossible<Key, Fault>;

    keys! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64 serialize_i128 i128
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64 serialize_u128 u128
        serialize_bool bool serialize_char char serialize_str &str
    }

    fn serialize_f32(self, _: f32) -> Result<Key, Fault> {
        no_key("a float")
    }

    fn serialize_f64(self, _: f64) -> Result<Key, Fault> {
        no_key("a float")
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<Key, Fault> {
        no_key("bytes")
    }

    fn serialize_none(self) -> Result<Key, Fault> {
        no_key("nothing")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, key: &T) -> Result<Key, Fault> {
        key.serialize(self)
    }

    fn serialize_unit(self) -> Result<Key, Fault> {
        no_key("nothing")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Key, Fault> {
        no_key("nothing")
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Key, Fault> {
        Ok(variant.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        key: &T,
    ) -> Result<Key, Fault> {
        key.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Key, Fault> {
        no_key("a variant with contents")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Fault> {
        no_key("a list")
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Fault> {
        no_key("a tuple")
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Fault> {
        no_key("a tuple")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Fault> {
        no_key("a variant with contents")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Fault> {
        no_key("a map")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Fault> {
        no_key("a struct")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Fault> {
        no_key("a variant with contents")
    }
}
