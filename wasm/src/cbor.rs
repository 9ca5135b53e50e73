//! Presence messages: CBOR, as automerge-repo's clients send it.

use js_sys::{Array, Date, Number, Object, Uint8Array};
use minicbor::data::{Tag, Type};
use minicbor::decode::Error as DecodeError;
use minicbor::{Decoder, Encoder};
use wasm_bindgen::{JsCast, JsError, JsValue};

use crate::value::{fault, integer};

/// Deepest nesting of what is sent and taken.
const NESTING_MAX: u32 = 64;

/// Seconds since 1970.
const EPOCH: Tag = Tag::new(1);

pub(crate) fn encode(value: &JsValue) -> Result<Vec<u8>, JsError> {
    let mut encoder = Encoder::new(Vec::new());
    write(value, &mut encoder, NESTING_MAX)?;
    Ok(encoder.into_writer())
}

fn write(value: &JsValue, out: &mut Encoder<Vec<u8>>, depth: u32) -> Result<(), JsError> {
    let deeper = depth
        .checked_sub(1)
        .ok_or_else(|| fault("a message is nested too deep, or contains itself"))?;
    let written = if value.is_null() {
        out.null().map(|_| ())
    } else if value.is_undefined() {
        out.undefined().map(|_| ())
    } else if let Some(boolean) = value.as_bool() {
        out.bool(boolean).map(|_| ())
    } else if let Some(number) = value.as_f64() {
        if Number::is_safe_integer(value) {
            out.i64(number as i64).map(|_| ())
        } else {
            out.f64(number).map(|_| ())
        }
    } else if let Some(text) = value.as_string() {
        out.str(&text).map(|_| ())
    } else if let Some(bytes) = value.dyn_ref::<Uint8Array>() {
        out.bytes(&bytes.to_vec()).map(|_| ())
    } else if let Some(date) = value.dyn_ref::<Date>() {
        let seconds = date.get_time() / 1000.0;
        out.tag(EPOCH).and_then(|out| out.f64(seconds)).map(|_| ())
    } else if let Some(array) = value.dyn_ref::<Array>() {
        out.array(u64::from(array.length())).map_err(fault)?;
        for element in array.iter() {
            write(&element, out, deeper)?;
        }
        return Ok(());
    } else if value.is_object() && !value.is_function() {
        let entries = Object::entries(value.unchecked_ref());
        out.map(u64::from(entries.length())).map_err(fault)?;
        for entry in entries {
            let entry: Array = entry.unchecked_into();
            write(&entry.get(0), out, deeper)?;
            write(&entry.get(1), out, deeper)?;
        }
        return Ok(());
    } else {
        return Err(fault(
            "a message holds plain data: no functions, symbols or bigints",
        ));
    };
    written.map_err(fault)
}

/// The message, or an error if this is not CBOR.
pub(crate) fn decode(bytes: &[u8]) -> Result<JsValue, DecodeError> {
    read(&mut Decoder::new(bytes), NESTING_MAX)
}

fn read(from: &mut Decoder<'_>, depth: u32) -> Result<JsValue, DecodeError> {
    let too_deep = || DecodeError::message("nested too deep");
    let deeper = depth.checked_sub(1).ok_or_else(too_deep)?;
    Ok(match from.datatype()? {
        Type::Null => from.null().map(|()| JsValue::NULL)?,
        Type::Undefined => from.undefined().map(|()| JsValue::UNDEFINED)?,
        Type::Bool => from.bool()?.into(),
        Type::F16 | Type::F32 | Type::F64 => from.f64()?.into(),
        Type::Bytes => Uint8Array::from(from.bytes()?).into(),
        Type::BytesIndef => {
            let parts = from.bytes_iter()?.collect::<Result<Vec<_>, _>>()?;
            Uint8Array::from(parts.concat().as_slice()).into()
        }
        Type::String => from.str()?.into(),
        Type::StringIndef => from.str_iter()?.collect::<Result<String, _>>()?.into(),
        Type::Array | Type::ArrayIndef => {
            let array = Array::new();
            let len = from.array()?;
            let mut read_so_far = 0;
            while more(from, len, read_so_far)? {
                array.push(&read(from, deeper)?);
                read_so_far += 1;
            }
            array.into()
        }
        Type::Map | Type::MapIndef => {
            let entries = Array::new();
            let len = from.map()?;
            let mut read_so_far = 0;
            while more(from, len, read_so_far)? {
                let (key, value) = (read(from, deeper)?, read(from, deeper)?);
                entries.push(&Array::of(&[key, value]));
                read_so_far += 1;
            }
            // Whatever the keys are called, they become the object's own.
            let object = Object::from_entries(&entries);
            object
                .map_err(|_| DecodeError::message("a map's keys cannot be used"))?
                .into()
        }
        Type::Tag => {
            let tag = from.tag()?;
            let value = read(from, deeper)?;
            match value.as_f64() {
                Some(seconds) if tag == EPOCH => Date::new(&(seconds * 1000.0).into()).into(),
                _ => value,
            }
        }
        Type::Int => from.skip().map(|()| JsValue::NULL)?,
        Type::U64 => match i64::try_from(from.u64()?) {
            Ok(number) => integer(number),
            Err(_) => JsValue::NULL,
        },
        kind if is_integer(kind) => integer(from.i64()?),
        kind => return Err(DecodeError::type_mismatch(kind)),
    })
}

fn is_integer(kind: Type) -> bool {
    use Type::{I8, I16, I32, I64, U8, U16, U32};
    matches!(kind, U8 | U16 | U32 | I8 | I16 | I32 | I64)
}

/// Whether another element follows.
fn more(from: &mut Decoder<'_>, len: Option<u64>, read: u64) -> Result<bool, DecodeError> {
    match len {
        Some(len) => Ok(read < len),
        None if from.datatype()? == Type::Break => from.skip().map(|()| false),
        None => Ok(true),
    }
}
