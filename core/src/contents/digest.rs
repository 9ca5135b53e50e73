//! What a document shows, as one hash.
//!
//! Two documents with the same digest show the same. Values count by their bits: a number that is
//! not one equals itself, and zero differs from minus zero. Objects are visited from a list, not by
//! recursion, so depth takes memory and no stack: every level of a document is one operation of
//! some bytes, and people do nest outlines thousands of levels deep.

use automerge::{Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use sha2::{Digest as _, Sha256};

/// What a document shows: maps, lists, texts and values, and where there are several values. Not
/// marks, and no ids of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    hash: [u8; 32],
    /// How many objects lie in each other, the root included.
    pub(super) depth: u32,
}

impl Digest {
    /// Reads all of a document.
    ///
    /// # Errors
    /// When Automerge cannot read what it shows.
    pub fn of(document: &Automerge) -> Result<Self, AutomergeError> {
        let mut hasher = Hasher(Sha256::new());
        let mut depth = 0;
        let mut unvisited = vec![(ROOT, ObjType::Map, 1)];
        while let Some((object, kind, level)) = unvisited.pop() {
            depth = depth.max(level);
            let mut inside = |hasher: &mut Hasher, value, conflict, id: &dyn Fn() -> ObjId| {
                hasher.byte(u8::from(conflict));
                match value {
                    Value::Object(kind) => {
                        hasher.byte(b'o');
                        hasher.byte(kind_byte(kind));
                        unvisited.push((id(), kind, level + 1));
                    }
                    Value::Scalar(value) => hasher.scalar(&value),
                }
            };
            match kind {
                ObjType::Map | ObjType::Table => {
                    for item in document.map_range(&object, ..) {
                        hasher.bytes(item.key.as_bytes());
                        let value = item.value.clone().into_value();
                        inside(&mut hasher, value, item.conflict, &|| item.id());
                    }
                }
                ObjType::List => {
                    for item in document.list_range(&object, ..) {
                        let value = item.value.clone().into_value();
                        inside(&mut hasher, value, item.conflict, &|| item.id());
                    }
                }
                ObjType::Text => hasher.bytes(document.text(&object)?.as_bytes()),
            }
            hasher.byte(b'.');
        }
        Ok(Self {
            hash: hasher.0.finalize().into(),
            depth,
        })
    }
}

fn kind_byte(kind: ObjType) -> u8 {
    match kind {
        ObjType::Map => b'm',
        ObjType::Table => b't',
        ObjType::List => b'l',
        ObjType::Text => b'x',
    }
}

struct Hasher(Sha256);

impl Hasher {
    fn byte(&mut self, byte: u8) {
        self.0.update([byte]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn number(&mut self, kind: u8, bits: u64) {
        self.byte(kind);
        self.0.update(bits.to_le_bytes());
    }

    fn scalar(&mut self, value: &ScalarValue) {
        match value {
            ScalarValue::Null => self.byte(b'n'),
            ScalarValue::Boolean(value) => self.number(b'b', u64::from(*value)),
            ScalarValue::Int(value) => self.number(b'i', value.cast_unsigned()),
            ScalarValue::Uint(value) => self.number(b'u', *value),
            #[cfg(feature = "planted")]
            ScalarValue::F64(value)
                if value.is_nan() && crate::planted::is(crate::planted::Bug::ComparedByValue) =>
            {
                self.number(b'f', crate::planted::fresh());
            }
            ScalarValue::F64(value) => self.number(b'f', value.to_bits()),
            ScalarValue::Counter(value) => self.number(b'c', i64::from(value).cast_unsigned()),
            ScalarValue::Timestamp(value) => self.number(b't', value.cast_unsigned()),
            ScalarValue::Str(value) => {
                self.byte(b's');
                self.bytes(value.as_bytes());
            }
            ScalarValue::Bytes(value) => {
                self.byte(b'd');
                self.bytes(value);
            }
            ScalarValue::Unknown { type_code, bytes } => {
                self.number(b'?', u64::from(*type_code));
                self.bytes(bytes);
            }
        }
    }
}
