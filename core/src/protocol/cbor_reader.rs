//! Reads the CBOR that peers write. Nothing is built before its length is known to be allowed.
//!
//! What stock peers really write, and what is therefore taken (cbor-x 1.6): map headers that are
//! longer than needed, `undefined` for an optional field, and 64-bit floats for integers above 2^32.

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error as CborError;

use super::error::ProtocolError;
use super::limits::NESTING_MAX;

// What follows is called in many places and read once in a message: it is not to be in each of them.

#[cold]
#[inline(never)]
pub(super) fn malformed(error: CborError) -> ProtocolError {
    let what = if error.is_end_of_input() {
        "it ends too soon"
    } else if error.is_type_mismatch() {
        "another type is expected"
    } else {
        "it is malformed"
    };
    let at = error
        .position()
        .map_or_else(String::new, |at| format!(" at byte {at}"));
    ProtocolError::Cbor(format!("{what}{at}"))
}

#[inline(never)]
pub(super) fn is_absent(d: &Decoder<'_>) -> Result<bool, ProtocolError> {
    Ok(matches!(
        d.datatype().map_err(malformed)?,
        Type::Null | Type::Undefined
    ))
}

/// Walks a map of either form.
pub(super) struct Entries {
    /// How many there still are; `None`: until their end is marked.
    left: Option<u64>,
}

impl Entries {
    #[inline(never)]
    pub(super) fn open(d: &mut Decoder<'_>) -> Result<Self, ProtocolError> {
        let left = d.map().map_err(malformed)?;
        Ok(Self { left })
    }

    /// The next key; its value must be read next. Values under keys that are not text are skipped.
    #[inline(never)]
    pub(super) fn next<'a>(
        &mut self,
        d: &mut Decoder<'a>,
    ) -> Result<Option<&'a str>, ProtocolError> {
        loop {
            match &mut self.left {
                Some(0) => return Ok(None),
                Some(left) => *left -= 1,
                None if d.datatype().map_err(malformed)? == Type::Break => {
                    d.skip().map_err(malformed)?;
                    return Ok(None);
                }
                None => {}
            }
            if d.datatype().map_err(malformed)? == Type::String {
                return d.str().map(Some).map_err(malformed);
            }
            skip(d)?;
            skip(d)?;
        }
    }
}

/// Skips one item. minicbor's own way keeps 16 bytes for every level of nesting, and a level takes
/// a byte or two; here nesting has a limit.
#[inline(never)]
pub(super) fn skip(d: &mut Decoder<'_>) -> Result<(), ProtocolError> {
    // What is left to skip of each array and map that is open; `None`: until its end is marked.
    let mut open = [None; NESTING_MAX];
    let mut depth = 0;
    loop {
        let kind = d.datatype().map_err(malformed)?;
        let begun = match kind {
            Type::Array | Type::ArrayIndef => Some(d.array().map_err(malformed)?),
            Type::Map | Type::MapIndef => {
                let pairs = d.map().map_err(malformed)?;
                Some(pairs.map(|n| n.saturating_mul(2)))
            }
            Type::Tag => {
                d.tag().map_err(malformed)?;
                continue;
            }
            _ => {
                d.skip().map_err(malformed)?;
                None
            }
        };
        match begun {
            Some(items) => {
                let Some(place) = open.get_mut(depth) else {
                    return Err(ProtocolError::Cbor(format!(
                        "nested deeper than {NESTING_MAX} levels"
                    )));
                };
                *place = items;
                depth += 1;
            }
            None if kind == Type::Break => {
                let ends = depth
                    .checked_sub(1)
                    .filter(|at| open.get(*at) == Some(&None));
                depth = ends.ok_or_else(|| ProtocolError::Cbor("a break without sense".into()))?;
                count_item(&mut open, depth);
            }
            None => count_item(&mut open, depth),
        }
        // What has no more items ends, and is an item of what it lies in.
        while let Some(at) = depth.checked_sub(1)
            && open.get(at) == Some(&Some(0))
        {
            depth = at;
            count_item(&mut open, depth);
        }
        if depth == 0 {
            return Ok(());
        }
    }
}

/// One item ended in the innermost of what is open.
fn count_item(open: &mut [Option<u64>], depth: usize) {
    if let Some(Some(left)) = depth.checked_sub(1).and_then(|at| open.get_mut(at)) {
        *left = left.saturating_sub(1);
    }
}

/// A text of at most so many bytes.
#[inline(never)]
pub(super) fn read_text<'a>(
    d: &mut Decoder<'a>,
    what: &'static str,
    max: usize,
) -> Result<&'a str, ProtocolError> {
    let text = d.str().map_err(malformed)?;
    within(what, text.len(), max)?;
    Ok(text)
}

pub(super) fn within(what: &'static str, found: usize, max: usize) -> Result<(), ProtocolError> {
    if found > max {
        return Err(ProtocolError::Limit { what, found, max });
    }
    Ok(())
}

/// What a list of texts may have.
pub(super) struct Texts {
    /// Its name, in an error.
    pub(super) list: &'static str,
    pub(super) entries_max: usize,
    /// The name of one entry, in an error.
    pub(super) entry: &'static str,
    pub(super) bytes_max: usize,
}

pub(super) fn read_texts<'a>(
    d: &mut Decoder<'a>,
    of: &Texts,
) -> Result<Vec<&'a str>, ProtocolError> {
    let mut texts = Vec::new();
    each_text(d, |text| {
        within(of.list, texts.len() + 1, of.entries_max)?;
        within(of.entry, text.len(), of.bytes_max)?;
        texts.push(text);
        Ok(())
    })?;
    Ok(texts)
}

pub(super) fn each_text<'a>(
    d: &mut Decoder<'a>,
    mut each: impl FnMut(&'a str) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    for text in d.array_iter::<&'a str>().map_err(malformed)? {
        each(text.map_err(malformed)?)?;
    }
    Ok(())
}

/// Some encoders tag a `Uint8Array` as such, and stock peers read it all the same.
pub(super) fn read_bytes<'a>(d: &mut Decoder<'a>) -> Result<&'a [u8], ProtocolError> {
    const UINT8_ARRAY: u64 = 64;
    if d.datatype().map_err(malformed)? == Type::Tag {
        let tag = d.tag().map_err(malformed)?;
        if tag.as_u64() != UINT8_ARRAY {
            return Err(ProtocolError::Cbor(format!(
                "bytes under the tag {}",
                tag.as_u64()
            )));
        }
    }
    d.bytes().map_err(malformed)
}

pub(super) fn read_number(d: &mut Decoder<'_>) -> Result<f64, ProtocolError> {
    match d.datatype().map_err(malformed)? {
        Type::F16 | Type::F32 | Type::F64 => d.f64().map_err(malformed),
        _ => Ok(i128::from(d.int().map_err(malformed)?) as f64),
    }
}
