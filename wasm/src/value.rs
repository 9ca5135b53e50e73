//! Values of documents as JavaScript has them.

use std::fmt::Display;

use automerge::{ObjType, ScalarValue, TextEncoding, hydrate};
use js_sys::{Array, BigInt, Date, Number, Object, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsError, JsValue};

/// A value that an edit writes.
pub(crate) enum New {
    Scalar(ScalarValue),
    /// An object, under the name that the page gave it.
    Object {
        kind: ObjType,
        name: JsValue,
        text: Option<String>,
    },
}

/// An object with nothing in it. Such values are inserted as one, since the place is searched for each
/// time.
pub(crate) fn blank(kind: ObjType) -> hydrate::Value {
    match kind {
        ObjType::Map | ObjType::Table => hydrate::Value::Map(hydrate::Map::default()),
        ObjType::List => hydrate::Value::List(hydrate::List::default()),
        ObjType::Text => hydrate::Text::new(TextEncoding::Utf16CodeUnit, "").into(),
    }
}

pub(crate) fn fault(what: impl Display) -> JsError {
    JsError::new(&what.to_string())
}

/// An object with these entries.
pub(crate) fn object<const N: usize>(entries: [(&str, JsValue); N]) -> JsValue {
    let object = Object::new();
    for (key, value) in entries {
        // A new plain object takes every property.
        let _ = Reflect::set(&object, &key.into(), &value);
    }
    object.into()
}

/// An object with these entries, whatever their keys are.
pub(crate) fn object_of<'a>(entries: impl Iterator<Item = (&'a str, JsValue)>) -> JsValue {
    let entries: Array = entries
        .map(|(key, value)| array([key.into(), value]))
        .collect();
    // All of them are pairs.
    Object::from_entries(&entries).map_or(JsValue::UNDEFINED, JsValue::from)
}

/// What a map holds, as plain data: a counter is its sum. Keys are in order, as in what a page shows.
pub(crate) fn map(map: &hydrate::Map) -> JsValue {
    // Copies, because names are sorted elsewhere: another kind of sort would have 3 kB.
    let mut keys: Vec<String> = map.keys().cloned().collect();
    keys.sort_unstable();
    object_of(
        keys.iter()
            .filter_map(|key| Some((key.as_str(), plain(map.get(key)?)))),
    )
}

/// A counter is its sum.
pub(crate) fn plain(value: &hydrate::Value) -> JsValue {
    match value {
        hydrate::Value::Map(entries) => map(entries),
        hydrate::Value::List(list) => list
            .iter()
            .map(|element| plain(&element.value))
            .collect::<Array>()
            .into(),
        hydrate::Value::Text(text) => text.to_string().into(),
        hydrate::Value::Scalar(ScalarValue::Counter(sum)) => (i64::from(sum) as f64).into(),
        hydrate::Value::Scalar(value) => scalar(value),
    }
}

pub(crate) fn array<const N: usize>(elements: [JsValue; N]) -> JsValue {
    Array::of(&elements).into()
}

fn get(object: &JsValue, key: &str) -> JsValue {
    Reflect::get(object, &key.into()).unwrap_or(JsValue::UNDEFINED)
}

pub(crate) fn kind_name(kind: ObjType) -> &'static str {
    match kind {
        ObjType::Map | ObjType::Table => "map",
        ObjType::List => "list",
        ObjType::Text => "text",
    }
}

pub(crate) fn read_new(value: &JsValue) -> Result<New, JsError> {
    let make = get_if_object(value, "make").and_then(|make| make.as_string());
    let Some(kind) = make else {
        return read_scalar(value).map(New::Scalar);
    };
    let kind = match kind.as_str() {
        "map" => ObjType::Map,
        "list" => ObjType::List,
        "text" => ObjType::Text,
        other => {
            return Err(fault(format_args!(
                "there is no kind of object \"{other}\""
            )));
        }
    };
    Ok(New::Object {
        kind,
        name: get(value, "id"),
        text: get(value, "text").as_string(),
    })
}

fn get_if_object(value: &JsValue, key: &str) -> Option<JsValue> {
    let is_other = !value.is_object()
        || value.is_instance_of::<Date>()
        || value.is_instance_of::<Uint8Array>();
    (!is_other).then(|| get(value, key))
}

pub(crate) fn read_scalar(value: &JsValue) -> Result<ScalarValue, JsError> {
    if value.is_null() {
        return Ok(ScalarValue::Null);
    }
    if let Some(boolean) = value.as_bool() {
        return Ok(ScalarValue::Boolean(boolean));
    }
    if let Some(number) = value.as_f64() {
        return Ok(if Number::is_safe_integer(value) {
            ScalarValue::Int(number as i64)
        } else {
            ScalarValue::F64(number)
        });
    }
    if let Some(text) = value.as_string() {
        return Ok(ScalarValue::Str(text.into()));
    }
    if let Some(date) = value.dyn_ref::<Date>() {
        return Ok(ScalarValue::Timestamp(date.get_time() as i64));
    }
    if let Some(bytes) = value.dyn_ref::<Uint8Array>() {
        return Ok(ScalarValue::Bytes(bytes.to_vec()));
    }
    if value.is_bigint() {
        if let Ok(number) = i64::try_from(value.clone()) {
            return Ok(ScalarValue::Int(number));
        }
        let number = u64::try_from(value.clone());
        return number
            .map(ScalarValue::Uint)
            .map_err(|_| fault("a bigint has at most 64 bits"));
    }
    match get_if_object(value, "counter").and_then(|counter| counter.as_f64()) {
        Some(counter) => Ok(ScalarValue::counter(counter as i64)),
        None => Err(fault("this is no value of a document")),
    }
}

pub(crate) fn scalar(value: &ScalarValue) -> JsValue {
    match value {
        ScalarValue::Bytes(bytes) => Uint8Array::from(bytes.as_slice()).into(),
        ScalarValue::Str(text) => text.as_str().into(),
        ScalarValue::Int(number) => integer(*number),
        ScalarValue::Uint(number) => match i64::try_from(*number) {
            Ok(number) => integer(number),
            Err(_) => BigInt::from(*number).into(),
        },
        ScalarValue::F64(number) => (*number).into(),
        ScalarValue::Counter(counter) => object([("counter", (i64::from(counter) as f64).into())]),
        ScalarValue::Timestamp(ms) => Date::new(&(*ms as f64).into()).into(),
        ScalarValue::Boolean(boolean) => (*boolean).into(),
        // What a later version wrote is not understood, and not touched.
        ScalarValue::Unknown { .. } | ScalarValue::Null => JsValue::NULL,
    }
}

/// A number, unless JavaScript's cannot hold it.
pub(crate) fn integer(number: i64) -> JsValue {
    let as_number = JsValue::from(number as f64);
    if Number::is_safe_integer(&as_number) {
        as_number
    } else {
        BigInt::from(number).into()
    }
}
