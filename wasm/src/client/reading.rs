//! What a document holds and held, as JavaScript reads it. Nothing here changes a document.

use automerge::marks::{Mark, MarkSet};
use automerge::{
    Automerge, ChangeHash, Cursor, Patch, PatchAction, ReadDoc, ScalarValue, Span, Value, hydrate,
};
use js_sys::{Array, Object, Reflect, Uint8Array};
use reconverge::difference;
use reconverge::replica::DocumentRef;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, JsValue};

use super::output::output;
use super::{Client, gone, heads_of, id_of};
use crate::listing::Listing;
use crate::value::{fault, map, object, object_of, plain, scalar};
use crate::{edit, patch};

#[wasm_bindgen]
impl Client {
    /// The operations that make a document's contents, now or at these heads, out of nothing.
    pub fn state(&self, document: &str, heads: Option<Vec<String>>) -> Result<Array, JsError> {
        let id = id_of(document)?;
        let document = self.document(&id)?;
        let patches = match heads.map(heads_of).transpose()? {
            None => document.current_state(),
            Some(heads) => {
                self.knows(&id, &heads)?;
                document.diff(&[], &heads)
            }
        };
        Ok(patch::operations(&document, &patches))
    }

    /// The operations that lead from one state to another.
    pub fn since(
        &self,
        document: &str,
        before: Vec<String>,
        after: Vec<String>,
    ) -> Result<Array, JsError> {
        let (document, patches, _) = self.between(document, before, after)?;
        Ok(patch::operations(&document, &patches))
    }

    /// The same for somebody who has no names of objects: arrays of the path of one, and its
    /// operations.
    pub fn diff(
        &self,
        document: &str,
        before: Vec<String>,
        after: Vec<String>,
    ) -> Result<Array, JsError> {
        let (document, mut patches, after) = self.between(document, before, after)?;
        clip(&document, &mut patches, &after);
        Ok(patch::steps(&document, &patches))
    }

    /// The heads of a document's contents.
    pub fn heads(&self, document: &str) -> Result<Vec<String>, JsError> {
        let mut heads = strings(&self.document(&id_of(document)?)?.get_heads());
        heads.sort_unstable();
        Ok(heads)
    }

    /// All values at a key of a map or an index of a list, by the operations that put them there;
    /// `undefined` unless there are several.
    pub fn conflicts(
        &self,
        document: &str,
        object: &str,
        prop: &JsValue,
    ) -> Result<JsValue, JsError> {
        let document = self.document(&id_of(document)?)?;
        let all = document.get_all(edit::object_id(object)?, edit::prop(prop)?);
        let all = all.map_err(fault)?;
        if all.len() < 2 {
            return Ok(JsValue::UNDEFINED);
        }
        let values = Object::new();
        for (value, id) in all {
            let value = match value {
                Value::Object(_) => ReadDoc::hydrate(&*document, &id, None).map_err(fault)?,
                Value::Scalar(value) => hydrate::Value::Scalar(value.into_owned()),
            };
            // A new plain object takes every property.
            let _ = Reflect::set(&values, &id.to_string().into(), &plain(&value));
        }
        Ok(values.into())
    }

    /// The operations that make an object, with what is in it, what it was at these heads; if it was
    /// not there, the value at a key of the map around it.
    pub fn restoring(
        &self,
        document: &str,
        object: Option<String>,
        map: Option<String>,
        key: Option<String>,
        heads: Vec<String>,
    ) -> Result<Array, JsError> {
        let id = id_of(document)?;
        let heads = heads_of(heads)?;
        self.knows(&id, &heads)?;
        let document = self.document(&id)?;
        let mut found = None;
        for (object, key) in [(object, None), (map, key)] {
            let Some(object) = object.filter(|_| found.is_none()) else {
                continue;
            };
            let object = edit::object_id(&object)?;
            if difference::shows(&document, &object, &heads) {
                found = Some((object, key));
            }
        }
        let (object, key) = found.ok_or_else(|| fault("it was not there at these heads"))?;
        let patches = difference::between(&document, &document.get_heads(), &heads);
        let mut within = difference::within(patches, object, key);
        clip(&document, &mut within, &heads);
        take_marks(&document, &mut within, &heads);
        Ok(patch::operations(&document, &within))
    }

    /// A place in a list or text that stays with its element. At the end, it stays at the end.
    pub fn cursor(&self, document: &str, object: &str, index: usize) -> Result<String, JsError> {
        let document = self.document(&id_of(document)?)?;
        let object = edit::object_id(object)?;
        if index >= document.length(&object) {
            return Ok(Cursor::End.to_string());
        }
        let cursor = document.get_cursor(&object, index, None);
        Ok(cursor.map_err(fault)?.to_string())
    }

    /// Where a cursor is, whoever gave it; `undefined` if it is none of this object.
    pub fn position(
        &mut self,
        document: &str,
        object: &str,
        cursor: &str,
    ) -> Result<Option<usize>, JsError> {
        let id = id_of(document)?;
        let object = edit::object_id(object)?;
        let document = self.engine.document(&id).ok_or_else(gone)?;
        let cursors = self.cursors.entry(id).or_default();
        Ok(cursors.position(&document, &object, cursor))
    }

    /// The marks of a text; `Mark` of `wasm/js/types.ts`.
    pub fn marks(
        &self,
        document: &str,
        object: &str,
        heads: Option<Vec<String>>,
    ) -> Result<Array, JsError> {
        let document = self.document(&id_of(document)?)?;
        let object = edit::object_id(object)?;
        let marks = match heads.map(heads_of).transpose()? {
            Some(heads) => document.marks_at(&object, &heads),
            None => document.marks(&object),
        };
        Ok(marks.map_err(fault)?.iter().map(mark).collect())
    }

    /// The parts of a text, in order; `Span` of `wasm/js/types.ts`.
    pub fn spans(
        &self,
        document: &str,
        object: &str,
        heads: Option<Vec<String>>,
    ) -> Result<Array, JsError> {
        let document = self.document(&id_of(document)?)?;
        let object = edit::object_id(object)?;
        let spans = match heads.map(heads_of).transpose()? {
            Some(heads) => document.spans_at(&object, &heads),
            None => document.spans(&object),
        };
        Ok(spans.map_err(fault)?.map(|part| span(&part)).collect())
    }

    /// The whole document with its history, in the form that Automerge saves.
    pub fn save(&self, document: &str) -> Result<Uint8Array, JsError> {
        let saved = self.document(&id_of(document)?)?.save();
        Ok(Uint8Array::from(saved.as_slice()))
    }

    fn between(
        &self,
        document: &str,
        before: Vec<String>,
        after: Vec<String>,
    ) -> Result<(DocumentRef<'_>, Vec<Patch>, Vec<ChangeHash>), JsError> {
        let (before, after) = (heads_of(before)?, heads_of(after)?);
        let id = id_of(document)?;
        self.knows(&id, &before)?;
        self.knows(&id, &after)?;
        let document = self.document(&id)?;
        let patches = difference::between(&document, &before, &after);
        Ok((document, patches, after))
    }

    /// Begins to tell, as `listing`, the changes of a document that made, edited or deleted an object
    /// or what is in it, up to these heads, each after those it depends on.
    pub fn list(
        &mut self,
        listing: u32,
        document: &str,
        object: &str,
        heads: Vec<String>,
    ) -> Result<(), JsError> {
        let (id, heads) = (id_of(document)?, heads_of(heads)?);
        let object = edit::object_id(object)?;
        let listed = Listing::new(listing, id, &*self.document(&id)?, object, &heads);
        self.listings.push(listed);
        Ok(())
    }

    /// The next of these changes, as many as cost about as much as `count` of a whole history:
    /// arrays of hash, actor, sequence number, seconds since 1970, message, deps, number of
    /// operations, author, and whether it was made here. `undefined` when there are no more.
    pub fn listed(&mut self, listing: u32, count: u32) -> Result<Option<Array>, JsError> {
        let mut listings = self.listings.iter_mut();
        let Some(listed) = listings.find(|listed| listed.number == listing) else {
            return Ok(None);
        };
        let replica = self.engine.replica(&listed.document).ok_or_else(gone)?;
        Ok(listed.next(replica, count))
    }

    /// Nobody asks for more of these.
    pub fn unlist(&mut self, listing: u32) {
        self.listings.retain(|listed| listed.number != listing);
    }
}

/// Automerge may tell of marks that end behind the text.
fn clip(document: &Automerge, patches: &mut [Patch], after: &[ChangeHash]) {
    for patch in patches {
        if let PatchAction::Mark { marks } = &mut patch.action {
            let length = document.length_at(&patch.obj, after);
            for mark in &mut *marks {
                mark.end = mark.end.min(length);
            }
            marks.retain(|mark| mark.start < mark.end);
        }
    }
}

/// What is inserted beside a mark may get it: the patches say what it has, and now also what it has not.
fn take_marks(document: &Automerge, patches: &mut [Patch], after: &[ChangeHash]) {
    for patches in patches.chunk_by_mut(|a, b| a.obj == b.obj) {
        let text = &patches[0].obj;
        let mut all = document.marks(text).unwrap_or_default();
        all.extend(document.marks_at(text, after).unwrap_or_default());
        if all.is_empty() {
            continue;
        }
        for patch in patches {
            if let PatchAction::SpliceText { marks, .. } = &mut patch.action {
                let nothing = all
                    .iter()
                    .map(|mark| (mark.name.to_string(), ScalarValue::Null));
                let own = marks.iter().flat_map(MarkSet::iter);
                let own = own.map(|(name, value)| (name.to_owned(), value.clone()));
                *marks = Some(nothing.chain(own.collect::<Vec<_>>()).collect());
            }
        }
    }
}

fn mark(mark: &Mark) -> JsValue {
    object([
        ("name", mark.name.as_str().into()),
        ("start", (mark.start as f64).into()),
        ("end", (mark.end as f64).into()),
        ("value", scalar(&mark.value)),
    ])
}

fn span(span: &Span) -> JsValue {
    match span {
        Span::Block(block) => output("block", [("value", map(block))]),
        Span::Text { text, marks: None } => output("text", [("value", text.as_str().into())]),
        Span::Text {
            text,
            marks: Some(marks),
        } => {
            let marks = object_of(marks.iter().map(|(name, value)| (name, scalar(value))));
            output("text", [("value", text.as_str().into()), ("marks", marks)])
        }
    }
}

fn strings(hashes: &[ChangeHash]) -> Vec<String> {
    hashes.iter().map(ToString::to_string).collect()
}
