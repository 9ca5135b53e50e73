//! Notes the opposites of operations, while they are carried out.

use std::ops::Range;

use automerge::transaction::Transaction;
use automerge::{ObjId, Prop, ScalarValue};

use super::bytes;
use super::elements::{id_at, runs};
use super::marks::{marked, marks_in, overlap};
use super::saved::{Saved, save, save_range};
use super::step::{Key, Step};

/// The opposites of operations, while they are carried out; nothing if nobody will ask.
#[derive(Debug)]
pub(crate) struct Record {
    steps: Option<Vec<Step>>,
}

impl Record {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self {
            steps: is_wanted.then(Vec::new),
        }
    }

    /// For [`Undoing`].
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        bytes::of_steps(self.steps.as_deref().unwrap_or_default())
    }

    /// The value that is about to be replaced.
    pub(crate) fn before_put(
        &self,
        document: &Transaction<'_>,
        object: &ObjId,
        prop: &Prop,
    ) -> Option<Saved> {
        self.steps.as_ref()?;
        save(document, object, prop.clone())
    }

    pub(crate) fn put(
        &mut self,
        document: &Transaction<'_>,
        object: &ObjId,
        prop: Prop,
        before: Option<Saved>,
    ) {
        let Some(steps) = &mut self.steps else { return };
        let written = id_at(document, object, prop.clone());
        // Nothing was written where the value was the same.
        if written.is_some() && written == before.as_ref().map(|before| before.id.clone()) {
            return;
        }
        let key = match (prop, &written) {
            (Prop::Map(key), _) => Key::Map(key),
            (Prop::Seq(_), Some(written)) => Key::Element(written.clone()),
            (Prop::Seq(_), None) => return,
        };
        steps.push(Step::Put {
            object: object.clone(),
            key,
            written,
            before,
        });
    }

    pub(crate) fn inserted(
        &mut self,
        document: &Transaction<'_>,
        object: &ObjId,
        range: Range<usize>,
    ) {
        let Some(steps) = &mut self.steps else { return };
        let elements = runs(document, object, range);
        if !elements.is_empty() {
            steps.push(Step::Inserted {
                object: object.clone(),
                elements,
            });
        }
    }

    pub(crate) fn before_deletion(
        &mut self,
        document: &Transaction<'_>,
        object: &ObjId,
        range: Range<usize>,
    ) {
        let Some(steps) = &mut self.steps else { return };
        if range.is_empty() {
            return;
        }
        let id = |index: usize| id_at(document, object, index.into());
        steps.push(Step::Deleted {
            object: object.clone(),
            after: range.start.checked_sub(1).and_then(id),
            before: id(range.end),
            marks: marks_in(document, object, &range),
            elements: save_range(document, object, range),
        });
    }

    pub(crate) fn incremented(
        &mut self,
        document: &Transaction<'_>,
        object: &ObjId,
        prop: Prop,
        by: i64,
    ) {
        let Some(steps) = &mut self.steps else { return };
        let key = match prop {
            Prop::Map(key) => Key::Map(key),
            Prop::Seq(_) => match id_at(document, object, prop) {
                Some(id) => Key::Element(id),
                None => return,
            },
        };
        steps.push(Step::Incremented {
            object: object.clone(),
            key,
            by,
        });
    }

    pub(crate) fn before_mark(
        &mut self,
        document: &Transaction<'_>,
        object: &ObjId,
        range: Range<usize>,
        name: &str,
        written: &ScalarValue,
    ) {
        let Some(steps) = &mut self.steps else { return };
        let ends = |range: &Range<usize>| {
            let first = id_at(document, object, range.start.into())?;
            let last = id_at(document, object, range.end.checked_sub(1)?.into())?;
            Some((first, last))
        };
        let Some((first, last)) = ends(&range) else {
            return;
        };
        let before = marked(document, object, name)
            .into_iter()
            .filter_map(|(marked, value)| {
                let (first, last) = ends(&overlap(&marked, &range)?)?;
                Some((first, last, value))
            });
        let before = before.collect();
        steps.push(Step::Marked {
            object: object.clone(),
            first,
            last,
            name: name.to_owned(),
            written: written.clone(),
            before,
        });
    }
}
