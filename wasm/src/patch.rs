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
    for patches in patches.chunk_by(|a, b| a.obj == b.obj) {
        let name = patches[0].obj.to_string().into();
        for patch in patches {
            add(document, patch, &name, &operations);
        }
    }
    operations
}

/// The same without the names of objects, which cost much: arrays of the path of an object, and its
/// operations. It is there at that moment, as what changes in an object is told before what changes in
/// those that are in it.
pub(crate) fn steps(document: &Automerge, patches: &[Patch]) -> Array {
    let steps = Array::new();
    for patches in patches.chunk_by(|a, b| a.obj == b.obj) {
        let path: Array = patches[0].path.iter().map(|(_, at)| prop(at)).collect();
        let operations = Array::new();
        for patch in patches {
            add(document, patch, &JsValue::NULL, &operations);
        }
        steps.push(&array([path.into(), operations.into()]));
    }
    steps
}

fn prop(prop: &Prop) -> JsValue {
    match prop {
        Prop::Map(key) => key.as_str().into(),
        Prop::Seq(index) => number(*index),
    }
}

fn add(document: &Automerge, patch: &Patch, name: &JsValue, operations: &Array) {
    let id = || name.clone();
    let is_text = || document.object_type(&patch.obj) == Ok(ObjType::Text);
    match &patch.action {
        PatchAction::PutMap { key, value, .. } => {
            let value = new_value(&value.0, &value.1, name);
            operations.push(&array(["put".into(), id(), key.as_str().into(), value]));
        }
        PatchAction::PutSeq { index, value, .. } => {
            let value = new_value(&value.0, &value.1, name);
            operations.push(&array(["put".into(), id(), number(*index), value]));
        }
        PatchAction::Insert { index, values } => {
            let inserted: Array = values
                .iter()
                .map(|(value, id, _)| new_value(value, id, name))
                .collect();
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
            let (prop, value) = (self::prop(prop), integer(*value));
            operations.push(&array(["increment".into(), id(), prop, value]));
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

/// Objects are told without their names in an object that is.
fn new_value(value: &Value<'_>, id: &ObjId, parent: &JsValue) -> JsValue {
    match value {
        Value::Object(kind) if parent.is_null() => object([("make", kind_name(*kind).into())]),
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
