//! The Reconverge core for browsers: a whole client, one-to-one over [`reconverge::engine`].
//!
//! [`Client`] is an engine with its storage in memory. JavaScript hands in what happened, and
//! carries out what comes out: sockets, timers, and writing to IndexedDB what was committed here.
//! Everything that is not the engine's lives in TypeScript, in `wasm/js`.
//!
//! Times are milliseconds on a clock that does not go back, unless they are called seconds.
//! Documents are named by base58check, changes and heads by hexadecimal hashes.

#![forbid(unsafe_code)]

mod cbor;
mod client;
mod edit;
mod gather;
mod keys;
mod listing;
mod patch;
mod undo;
mod value;

pub use client::Client;

use reconverge::id::DocumentId;
use wasm_bindgen::prelude::wasm_bindgen;

/// The id that a url or an id in any of its forms names, as base58check; `undefined` if none.
#[wasm_bindgen(js_name = documentId)]
#[must_use]
pub fn document_id(text: &str) -> Option<String> {
    text.parse::<DocumentId>().ok().map(|id| id.to_string())
}
