//! What changed in a document, in the form in which a page applies it: `Operation` of
//! `wasm/js/operations.ts`.

use automerge::marks::{Mark, MarkSet};
use automerge::{Automerge, ObjId, ObjType, Patch, PatchAction, Prop, ReadDoc, Value};
use js_sys::Array;
use wasm_bindgen::JsValue;

use crate::value::{array, integer, kind_name, object, scalar};

/// The operations that `patches` of `document` are.
pub(crate) fn operations(document: &Automerge, patches: &[Patch]) -> Array {
    let operations = Array::new();
    for patch in patches {
        add(document, patch, &operations);
    }
    operations
}

fn add(document: &Automerge, patch: &Patch, operations: &Array) {
    let id = || JsValue::from(patch.obj.to_string());
    let is_text = || document.object_type(&patch.obj) == Ok(ObjType::Text);
    match &patch.action {
        PatchAction::PutMap { key, value, .. } => {
            let value = new_value(&value.0, &value.1);
            operations.push(&array(["put".into(), id(), key.as_str().into(), value]));
        }
        PatchAction::PutSeq { index, value, .. } => {
            let value = new_value(&value.0, &value.1);
            operations.push(&array(["put".into(), id(), number(*index), value]));
        }
        PatchAction::Insert { index, values } => {
            let inserted: Array = values.iter().map(|(v, id, _)| new_value(v, id)).collect();
            operations.push(&array([
                "insert".into(),
                id(),
                number(*index),
                inserted.into(),
            ]));
        }
        PatchAction::SpliceText {
            index,
            value,
            marks,
        } => {
            let text = value.make_string();
            let end = index + text.encode_utf16().count();
            operations.push(&array([
                "splice".into(),
                id(),
                number(*index),
                0.into(),
                text.into(),
            ]));
            for (name, value) in marks.iter().flat_map(MarkSet::iter) {
                let mark = Mark::new(name.to_owned(), value.clone(), *index, end);
                operations.push(&marked(id(), &mark));
            }
        }
        PatchAction::Increment { prop, value } => {
            let prop = match prop {
                Prop::Map(key) => key.as_str().into(),
                Prop::Seq(index) => number(*index),
            };
            operations.push(&array(["increment".into(), id(), prop, integer(*value)]));
        }
        PatchAction::DeleteMap { key } => {
            operations.push(&array([
                "delete".into(),
                id(),
                key.as_str().into(),
                1.into(),
            ]));
        }
        PatchAction::DeleteSeq { index, length } if is_text() => {
            let (index, length) = (number(*index), number(*length));
            operations.push(&array(["splice".into(), id(), index, length, "".into()]));
        }
        PatchAction::DeleteSeq { index, length } => {
            let (index, length) = (number(*index), number(*length));
            operations.push(&array(["delete".into(), id(), index, length]));
        }
        PatchAction::Mark { marks } => {
            for mark in marks {
                operations.push(&marked(id(), mark));
            }
        }
        // The value that shows is the same.
        PatchAction::Conflict { .. } => {}
    }
}

fn marked(id: JsValue, mark: &Mark) -> JsValue {
    array([
        "mark".into(),
        id,
        number(mark.start),
        number(mark.end),
        mark.name.as_str().into(),
        scalar(&mark.value),
        "none".into(),
    ])
}

fn new_value(value: &Value<'_>, id: &ObjId) -> JsValue {
    match value {
        Value::Object(kind) => object([
            ("make", kind_name(*kind).into()),
            ("id", id.to_string().into()),
        ]),
        Value::Scalar(value) => scalar(value),
    }
}

fn number(index: usize) -> JsValue {
    (index as f64).into()
}
