//! What a client keeps, as keys and values of a storage for bytes.
//!
//! A key is a list of strings, as automerge-repo's storage adapters have them:
//!
//! * `documents`, id, `record`
//! * `documents`, id, `row`, index of its last change
//! * `documents`, id, `snapshot` | `outline` | `segment` | `quarantine`, number
//! * `documents`, id, `acknowledged` | `refused`, relay
//! * `documents`, id, `aside`, number: a change of a document that was damaged and began anew
//! * `damaged`, id, the rest of the key: a value that was found damaged, as it was
//! * `outbox`, id
//!
//! Numbers have ten digits, so that they sort. The values are those of the core's file format, each
//! sealed with a checksum that covers its key too; those of version 1, without one, are read as well.

use std::sync::Arc;

use bytes::Bytes;
use js_sys::{Array, Uint8Array};
use reconverge::history::{Record, Row, decode_heads, encode_heads};
use reconverge::storage::{Batch, Blob, Refused, Write, checksum};
use wasm_bindgen::JsValue;

use crate::value::object;

const DOCUMENTS: &str = "documents";
const OUTBOX: &str = "outbox";
pub(crate) const ASIDE: &str = "aside";
const DAMAGED: &str = "damaged";

/// What a storage writes, all at once, to commit a batch; `StorageWrite` of `wasm/js/storage.ts`.
pub(crate) fn writes(batch: &Batch) -> Array {
    let id = batch.document.to_string();
    let writes = Array::new();
    for write in &batch.writes {
        match write {
            // What is set aside is written again: `aside`.
            Write::RemoveDocument | Write::SetAside => {
                writes.push(&remove_range([DOCUMENTS, &id]));
                if *write == Write::RemoveDocument {
                    writes.push(&remove_range([DAMAGED, &id]));
                }
                writes.push(&remove(key(&[OUTBOX, &id])));
            }
            Write::RemoveContents => {
                for kind in CONTENTS {
                    writes.push(&remove_range([DOCUMENTS, &id, kind]));
                }
                writes.push(&remove(key(&[OUTBOX, &id])));
            }
            _ => {
                writes.push(&one(&id, write));
            }
        }
    }
    writes
}

/// What a document is made of, and what relays said of that.
const CONTENTS: [&str; 7] = [
    "record",
    "row",
    "snapshot",
    "outline",
    "segment",
    "acknowledged",
    "refused",
];

/// The write that keeps a chunk of a change which was set aside.
pub(crate) fn aside(document: &str, number: usize, chunk: &[u8]) -> JsValue {
    let number = u32::try_from(number).expect("fewer than changes in a document");
    put_sealed(&[DOCUMENTS, document, ASIDE, &digits(number)], chunk)
}

/// What was stored under a key of a document, after its id; `None` if it is damaged.
pub(crate) fn unsealed(document: &str, key: &[String], value: &Bytes) -> Option<Bytes> {
    let mut parts = vec![DOCUMENTS, document];
    parts.extend(key.iter().map(String::as_str));
    checksum::unseal_bytes(&place_of(&parts), value)
}

/// The write that keeps a damaged value.
pub(crate) fn damaged(document: &str, of: &[String], value: &[u8]) -> JsValue {
    let mut parts = vec![DAMAGED, document];
    parts.extend(of.iter().map(String::as_str));
    put(key(&parts), value)
}

fn one(id: &str, write: &Write) -> JsValue {
    let place = |kind: &str, name: &str| key(&[DOCUMENTS, id, kind, name]);
    match write {
        Write::Record(record) => put_sealed(&[DOCUMENTS, id, "record"], &record.encode()),
        Write::Row { last, row } => {
            put_sealed(&[DOCUMENTS, id, "row", &digits(*last)], &row.encode())
        }
        Write::Blob(blob, bytes) => {
            let (kind, number) = blob_name(*blob);
            put_sealed(&[DOCUMENTS, id, kind, &digits(number)], bytes)
        }
        Write::RemoveBlob(blob) => {
            let (kind, number) = blob_name(*blob);
            remove(place(kind, &digits(number)))
        }
        Write::RemoveRowsBelow(index) => object([
            ("removeRange", key(&[DOCUMENTS, id, "row"])),
            ("below", digits(*index).into()),
        ]),
        Write::RemoveRowsFrom(index) => object([
            ("removeRange", key(&[DOCUMENTS, id, "row"])),
            ("from", digits(*index).into()),
        ]),
        Write::Acknowledged { relay, heads } => put_sealed(
            &[DOCUMENTS, id, "acknowledged", relay],
            &encode_heads(heads),
        ),
        Write::Refused { relay, refused } => match refused {
            Some(refused) => put_sealed(&[DOCUMENTS, id, "refused", relay], &refused.encode()),
            None => remove(place("refused", relay)),
        },
        Write::Outbox(true) => put(key(&[OUTBOX, id]), &[]),
        Write::Outbox(false) => remove(key(&[OUTBOX, id])),
        Write::RemoveDocument | Write::RemoveContents | Write::SetAside => {
            unreachable!("several writes here")
        }
    }
}

/// The write that put this entry there: the key after the document's id, and the value. `None` if
/// it is damaged, or not known to this version.
pub(crate) fn entry(document: &str, key: &[String], value: &Bytes) -> Option<Write> {
    let value = unsealed(document, key, value)?;
    let name = key.get(1).map_or("", String::as_str);
    let number = || name.parse::<u32>().ok();
    Some(match key.first()?.as_str() {
        "record" => Write::Record(Record::decode(&value)?),
        "row" => Write::Row {
            last: number()?,
            row: Row::decode(&value)?,
        },
        "snapshot" => Write::Blob(Blob::Snapshot(number()?), value),
        "outline" => Write::Blob(Blob::Outline(number()?), value),
        "segment" => Write::Blob(Blob::Segment(number()?), value),
        "quarantine" => Write::Blob(Blob::Quarantine(number()?), value),
        "acknowledged" => Write::Acknowledged {
            relay: Arc::from(name),
            heads: decode_heads(&value)?,
        },
        "refused" => Write::Refused {
            relay: Arc::from(name),
            refused: Some(Refused::decode(&value)?),
        },
        _ => return None,
    })
}

fn blob_name(blob: Blob) -> (&'static str, u32) {
    match blob {
        Blob::Snapshot(number) => ("snapshot", number),
        Blob::Outline(number) => ("outline", number),
        Blob::Segment(number) => ("segment", number),
        Blob::Quarantine(number) => ("quarantine", number),
    }
}

fn digits(number: u32) -> String {
    format!("{number:010}")
}

fn key(parts: &[&str]) -> JsValue {
    let parts: Array = parts.iter().map(|part| JsValue::from(*part)).collect();
    parts.into()
}

fn put(key: JsValue, value: &[u8]) -> JsValue {
    object([("put", key), ("data", Uint8Array::from(value).into())])
}

/// What the checksum of a value covers besides the value.
fn place_of(key: &[&str]) -> Vec<u8> {
    key.join("\0").into_bytes()
}

fn put_sealed(parts: &[&str], value: &[u8]) -> JsValue {
    put(key(parts), &checksum::seal(&place_of(parts), value))
}

fn remove_range<const N: usize>(prefix: [&str; N]) -> JsValue {
    object([("removeRange", key(&prefix))])
}

fn remove(key: JsValue) -> JsValue {
    object([("remove", key)])
}
