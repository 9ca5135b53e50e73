//! What the engine wants done and has to tell, as JavaScript is told it: `Output` of
//! `wasm/js/host/output.ts`. What concerns memory alone is done here.

use js_sys::{Reflect, Uint8Array};
use reconverge::engine::{self, Closed, Fault, FindError, Input, NotCurrent, Output, Status};
use reconverge::id::{ConnectionId, DocumentId};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, JsValue};

use super::Client;
use crate::cbor;
use crate::value::object;

#[wasm_bindgen]
impl Client {
    /// What to do next; `Output` of `wasm/js/host/output.ts`. `idle` when there is nothing.
    pub fn poll(&mut self, now: f64) -> Result<JsValue, JsError> {
        loop {
            match self.engine.poll_output() {
                Output::Load { document, contents } => {
                    self.loading.insert(document, contents);
                    if !self.mirror.has(&document) {
                        return Ok(output("load", [("document", name(document))]));
                    }
                    self.load(now, document);
                }
                Output::LoadGraph {
                    document,
                    key,
                    segments,
                } => {
                    let graph = engine::load_graph(self.mirror.storage(), key, segments);
                    self.handle(now, Input::Graph(document, graph));
                }
                Output::Fold(document, folding) => {
                    let folded = engine::fold(self.mirror.storage(), &folding);
                    self.handle(now, Input::Folded(document, folded));
                }
                Output::Settle(..) => unreachable!("in a page all is done at once"),
                Output::Store(batch) => {
                    let writes = self.mirror.store(&batch).into();
                    let document = ("document", name(batch.document));
                    return Ok(output("store", [document, ("writes", writes)]));
                }
                Output::Idle { wake_at } => {
                    self.forget_released();
                    let wake_at = wake_at.map(|at| at.as_secs_f64() * 1000.0);
                    return Ok(output("idle", [("wakeAt", wake_at.into())]));
                }
                Output::Connect(relay, connection) => {
                    let (relay, connection) = ((relay.0 as f64).into(), line(connection));
                    return Ok(output(
                        "connect",
                        [("relay", relay), ("connection", connection)],
                    ));
                }
                Output::Disconnect(connection) => {
                    return Ok(output("disconnect", [("connection", line(connection))]));
                }
                Output::Send(connection, frame) => {
                    let reads = frame.reads().map(|document| document.to_string());
                    let Ok(bytes) = frame.encode(self.mirror.storage()) else {
                        // It counts as sent, so the connection must not go on.
                        let closed = Closed::Lost(Fault::lost());
                        self.handle(now, Input::Closed(connection, closed));
                        return Ok(output("disconnect", [("connection", line(connection))]));
                    };
                    let bytes = Uint8Array::from(&*bytes).into();
                    return Ok(output(
                        "send",
                        [
                            ("connection", line(connection)),
                            ("bytes", bytes),
                            ("reads", reads.into()),
                        ],
                    ));
                }
                Output::Ping(connection) => {
                    let bytes = self.engine.ping(connection);
                    let bytes = bytes.map(|bytes| Uint8Array::from(&*bytes)).into();
                    return Ok(output(
                        "ping",
                        [("connection", line(connection)), ("bytes", bytes)],
                    ));
                }
                Output::StoreFailed(document, error) => {
                    let error = error.to_string().into();
                    return Ok(output(
                        "storeFailed",
                        [("document", name(document)), ("error", error)],
                    ));
                }
                Output::Flushed(document) => {
                    return Ok(output("flushed", [("document", name(document))]));
                }
                Output::Found(document, result) => return Ok(found(document, result)),
                Output::Changed(document) => {
                    return Ok(output("changed", [("document", name(document))]));
                }
                Output::Salvaged(document) => {
                    let error = self.engine.damage(&document);
                    let error = error.map(ToString::to_string).into();
                    return Ok(output(
                        "salvaged",
                        [("document", name(document)), ("error", error)],
                    ));
                }
                Output::TakenOut(document) => {
                    return Ok(output("takenOut", [("document", name(document))]));
                }
                Output::Status(document, status) => return Ok(self::status(document, &status)),
                Output::Ephemeral {
                    document,
                    sender,
                    data,
                } => {
                    // What is not CBOR is nobody's presence.
                    if let Ok(message) = cbor::decode(&data) {
                        let sender = sender.as_str().into();
                        return Ok(output(
                            "ephemeral",
                            [
                                ("document", name(document)),
                                ("sender", sender),
                                ("message", message),
                            ],
                        ));
                    }
                }
                Output::Added(document) => {
                    return Ok(output("added", [("document", name(document))]));
                }
                Output::Deleted(document) => {
                    return Ok(output("deleted", [("document", name(document))]));
                }
                Output::Current(asked, answer) => {
                    let why = match answer {
                        Ok(()) => "".into(),
                        Err(NotCurrent::Unreachable(fault)) => fault.message.into(),
                        // It is told otherwise.
                        Err(NotCurrent::Gone) => JsValue::UNDEFINED,
                    };
                    let asked = (asked.0 as f64).into();
                    return Ok(output("current", [("asked", asked), ("why", why)]));
                }
            }
        }
    }
}

/// The output `status`.
pub(super) fn status(document: DocumentId, status: &Status) -> JsValue {
    let (state, reason) = match status {
        Status::Saved => ("saved", None),
        Status::Saving => ("saving", None),
        Status::Offline => ("offline", None),
        Status::Refused(reason) => ("refused", Some(reason)),
    };
    output(
        "status",
        [
            ("document", name(document)),
            ("state", state.into()),
            ("code", reason.map(|reason| &*reason.code).into()),
            ("reason", reason.map(|reason| &*reason.text).into()),
        ],
    )
}

fn found(document: DocumentId, result: Result<(), FindError>) -> JsValue {
    let (code, error) = match result {
        Ok(()) => (None, None),
        Err(error) => {
            let code = match error {
                FindError::Unavailable | FindError::Unreachable(_) => "unavailable",
                FindError::Deleted => "deleted",
                FindError::Storage(_) => "storage",
                _ => "damaged",
            };
            (Some(code), Some(error.to_string()))
        }
    };
    output(
        "found",
        [
            ("document", name(document)),
            ("code", code.into()),
            ("error", error.into()),
        ],
    )
}

/// An object that JavaScript knows by its type.
pub(super) fn output<const N: usize>(kind: &str, fields: [(&str, JsValue); N]) -> JsValue {
    let output = object(fields);
    // A plain object takes every property.
    let _ = Reflect::set(&output, &"type".into(), &kind.into());
    output
}

fn name(document: DocumentId) -> JsValue {
    document.to_string().into()
}

fn line(connection: ConnectionId) -> JsValue {
    (connection.0 as f64).into()
}
