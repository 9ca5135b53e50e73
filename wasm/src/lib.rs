//! The Reconverge core for browsers: one-to-one over the core, ergonomics live in TypeScript.
//!
//! For now it answers which version of the protocol and of the formats it speaks, and keeps the
//! whole core compiling to `wasm32-unknown-unknown`.

use reconverge::history::History;
use reconverge::id::{DocumentId, Space};
use wasm_bindgen::prelude::wasm_bindgen;

/// The version of the automerge-repo protocol that this build speaks.
#[wasm_bindgen(js_name = protocolVersion)]
#[must_use]
pub fn protocol_version() -> String {
    reconverge::protocol::PROTOCOL_VERSION.to_owned()
}

/// The id that a url or an id in any of its forms names, as base58check; `undefined` if none.
#[wasm_bindgen(js_name = documentId)]
#[must_use]
pub fn document_id(text: &str) -> Option<String> {
    text.parse::<DocumentId>().ok().map(|id| id.to_string())
}

/// How many changes a new history has, which is none; links the whole sync core.
#[wasm_bindgen(js_name = emptyHistoryLength)]
#[must_use]
pub fn empty_history_length() -> u32 {
    History::new(Space::default()).len()
}
