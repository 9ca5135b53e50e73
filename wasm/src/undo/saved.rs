//! What a document has somewhere before it is replaced or deleted, so that it can be written again.

use std::ops::Range;

use automerge::marks::Mark;
use automerge::transaction::Transaction;
use automerge::{ObjId, ObjType, Prop, ReadDoc, ScalarValue, Value};

use super::elements::{LONG, each, elements, is_text};
use super::names::named;

/// What lies deeper in what was deleted does not come back: the stack is not made for all depths.
const DEPTH_MAX: usize = 200;

/// A value that was replaced or deleted, with all that is in it and what it was called.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    pub(super) id: ObjId,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Scalar(ScalarValue),
    /// Characters of a text, whose names follow that of the first.
    Run(String),
    Map(Vec<(String, Saved)>),
    List(Vec<Saved>),
    Text(Vec<Saved>, Vec<Mark>),
}

impl Content {
    /// Of what object it is.
    pub(super) fn kind(&self) -> ObjType {
        match self {
            Self::List(_) => ObjType::List,
            Self::Text(..) => ObjType::Text,
            Self::Scalar(_) | Self::Run(_) | Self::Map(_) => ObjType::Map,
        }
    }
}

/// What is at a key or an index, if anything is.
pub(super) fn save(document: &Transaction<'_>, object: &ObjId, prop: Prop) -> Option<Saved> {
    save_within(document, object, prop, DEPTH_MAX)
}

/// The elements of a list or text in a range.
pub(super) fn save_range(
    document: &Transaction<'_>,
    object: &ObjId,
    range: Range<usize>,
) -> Vec<Saved> {
    save_range_within(document, object, range, DEPTH_MAX)
}

fn save_within(
    document: &Transaction<'_>,
    object: &ObjId,
    prop: Prop,
    depth: usize,
) -> Option<Saved> {
    let (value, id) = document.get(object, prop).ok()??;
    if value.is_object() && depth == 0 {
        return None;
    }
    let inner = depth.saturating_sub(1);
    let content = match value {
        Value::Scalar(value) => Content::Scalar(value.into_owned()),
        Value::Object(ObjType::Map | ObjType::Table) => {
            let keys: Vec<String> = document.keys(&id).collect();
            let entry = |key: String| {
                Some((
                    key.clone(),
                    save_within(document, &id, Prop::Map(key), inner)?,
                ))
            };
            Content::Map(keys.into_iter().filter_map(entry).collect())
        }
        Value::Object(ObjType::List) => Content::List(save_range_within(
            document,
            &id,
            0..document.length(&id),
            inner,
        )),
        Value::Object(ObjType::Text) => {
            let elements = save_range_within(document, &id, 0..document.length(&id), inner);
            Content::Text(elements, document.marks(&id).unwrap_or_default())
        }
    };
    Some(Saved { id, content })
}

fn save_range_within(
    document: &Transaction<'_>,
    object: &ObjId,
    range: Range<usize>,
    depth: usize,
) -> Vec<Saved> {
    if range.len() > LONG
        && let Some(saved) = save_characters(document, object, range.clone(), depth)
    {
        return saved;
    }
    let mut saved = Elements::default();
    let in_text = is_text(document, object);
    for element in elements(document, object, range) {
        let Some(next) = save_within(document, object, element.into(), depth) else {
            continue;
        };
        match next.content {
            Content::Scalar(ScalarValue::Str(text)) if in_text => saved.add(next.id, &text),
            _ => saved.all.push(next),
        }
    }
    saved.all
}

/// A part of a long text, by looking at all of it, once.
fn save_characters(
    document: &Transaction<'_>,
    object: &ObjId,
    range: Range<usize>,
    depth: usize,
) -> Option<Vec<Saved>> {
    if !is_text(document, object) {
        return None;
    }
    let mut saved = Elements::default();
    each(document, object, |at, id, text| {
        if range.contains(&at.start) {
            match text {
                Some(text) => saved.add(id, text),
                None => (saved.all).extend(save_within(document, object, at.start.into(), depth)),
            }
        }
    })?;
    Some(saved.all)
}

/// Elements of a text that are being saved.
#[derive(Default)]
struct Elements {
    all: Vec<Saved>,
    /// What a character that belongs to the last run is called.
    next: Option<ObjId>,
}

impl Elements {
    /// Adds what an element has, to the characters before it if it is one and is named like the next
    /// of them.
    fn add(&mut self, id: ObjId, text: &str) {
        let is_character = text.chars().nth(1).is_none();
        let follows = is_character && self.next.as_ref() == Some(&id);
        self.next = is_character.then(|| named(&id, 1));
        match self.all.last_mut() {
            Some(Saved {
                content: Content::Run(run),
                ..
            }) if follows => run.push_str(text),
            _ => {
                let content = if is_character {
                    Content::Run(text.to_owned())
                } else {
                    Content::Scalar(ScalarValue::Str(text.into()))
                };
                self.all.push(Saved { id, content });
            }
        }
    }
}
