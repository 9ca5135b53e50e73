//! What documents hold and Rust has no type for.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// By these names a document's reader and writer know the types; other formats ignore them.
pub(super) const COUNTER: &str = "reconverge::typed::Counter";
pub(super) const TIMESTAMP: &str = "reconverge::typed::Timestamp";
pub(super) const IMMUTABLE_STRING: &str = "reconverge::typed::ImmutableString";

/// A number to which everybody adds: what several add at once is summed up. In JavaScript it is a
/// `Counter`. Of an [update](super::update), the difference is added.
///
/// In other formats it is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Counter(pub i64);

/// A moment, in milliseconds since 1970 began (UTC). In JavaScript it is a `Date`.
///
/// In other formats it is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// A string that is replaced as a whole and never merged. In JavaScript it is an
/// `ImmutableString`. Texts are read as one, too.
///
/// In other formats it is a string.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ImmutableString(pub String);

/// Bytes, which are replaced as a whole. In JavaScript they are a `Uint8Array`.
///
/// In other formats they are what serde's bytes are there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

/// Reads a newtype's inside, whether the format knows newtypes or not.
struct Inside(&'static str);

impl<'de> Visitor<'de> for Inside {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inside: D) -> Result<i64, D::Error> {
        i64::deserialize(inside)
    }
}

macro_rules! number {
    ($type:ident, $name:ident, $expected:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_newtype_struct($name, &self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let inside = Inside($expected);
                let number = deserializer.deserialize_newtype_struct($name, inside);
                number.map(Self)
            }
        }
    };
}

number!(Counter, COUNTER, "a counter");
number!(Timestamp, TIMESTAMP, "a timestamp");

impl Serialize for ImmutableString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(IMMUTABLE_STRING, &self.0)
    }
}

impl<'de> Deserialize<'de> for ImmutableString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = list.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }

        deserializer.deserialize_byte_buf(All).map(Self)
    }
}
