//! Takes edits back, or does them again, by what was noted of them.

use std::ops::Range;

use automerge::marks::ExpandMark;
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, Prop, ReadDoc, ScalarValue, Value};

use super::bytes;
use super::elements::{
    LONG, find_all, id_at, index_of, is_hidden, is_text, place_of, remove, width,
};
use super::marks::{cut, mark, mark_as, marked};
use super::names::Run;
use super::record::Record;
use super::renamed::{Renamed, Renaming};
use super::saved::{Content, Saved};
use super::step::{Key, Step};
use crate::value::blank;

/// How much of an edit was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undone {
    /// What it did is gone, or was changed by others.
    Nothing,
    Part,
    All,
}

/// Edits that are being taken back, or done again, as one.
pub(crate) struct Undoing<'a> {
    steps: Vec<Step>,
    renamed: &'a mut Renamed,
    /// What came back.
    names: Vec<Renaming>,
    /// Of those, the objects, before and now.
    objects: Vec<String>,
    record: Record,
    missed: bool,
}

/// An object, as it was called when something happened in it, and now.
struct ObjectNames<'a> {
    before: &'a ObjId,
    now: &'a ObjId,
}

impl<'a> Undoing<'a> {
    pub(crate) fn new(renamed: &'a mut Renamed) -> Self {
        Self {
            steps: Vec::new(),
            renamed,
            names: Vec::new(),
            objects: Vec::new(),
            record: Record::new(true),
            missed: false,
        }
    }

    /// What another edit did that was made after those before; `None` if these bytes do not say that.
    pub(crate) fn add(&mut self, record: &[u8]) -> Option<()> {
        bytes::steps_of(record, &mut self.steps)
    }

    /// Does it, in a transaction.
    pub(crate) fn run(&mut self, document: &mut Transaction<'_>) -> Result<Undone, AutomergeError> {
        let mut some = false;
        for step in std::mem::take(&mut self.steps).iter().rev() {
            let done = self.step(document, step)?;
            some |= done;
            self.missed |= !done;
        }
        Ok(match (some, self.missed) {
            (false, _) => Undone::Nothing,
            (true, true) => Undone::Part,
            (true, false) => Undone::All,
        })
    }

    /// What takes this back again, as bytes; what came back with its names before and now, as bytes;
    /// and of that, the objects, each by its name before and its name now.
    pub(crate) fn done(self) -> (Vec<u8>, Vec<u8>, Vec<String>) {
        (
            self.record.to_bytes(),
            bytes::of_names(&self.names),
            self.objects,
        )
    }

    /// Gives whether anything was done.
    fn step(
        &mut self,
        document: &mut Transaction<'_>,
        step: &Step,
    ) -> Result<bool, AutomergeError> {
        let before = match step {
            Step::Put { object, .. }
            | Step::Inserted { object, .. }
            | Step::Deleted { object, .. }
            | Step::Incremented { object, .. }
            | Step::Marked { object, .. } => object,
        };
        let object = self.name(before);
        let of = ObjectNames {
            before,
            now: &object,
        };
        // Nobody would see it.
        if document.object_type(&object).is_err() || is_hidden(document, &object) {
            return Ok(false);
        }
        match step {
            Step::Put {
                key,
                written,
                before,
                ..
            } => {
                let Some(prop) = self.prop(document, &of, key) else {
                    return Ok(false);
                };
                let now = id_at(document, &object, prop.clone());
                let stands = written.as_ref().map(|id| self.element(&of, id));
                if now.map(Some) != stands {
                    return Ok(false);
                }
                let now = self.record.before_put(document, &object, &prop);
                match before {
                    Some(saved) => self.put(document, &object, prop.clone(), saved)?,
                    None => document.delete(&object, prop.clone())?,
                }
                self.record.put(document, &object, prop, now);
            }
            Step::Inserted { elements, .. } => {
                let mut ranges = Vec::new();
                for run in elements {
                    let found = self.find(document, &of, run, &mut ranges);
                    self.missed |= found < run.count;
                }
                if ranges.is_empty() {
                    return Ok(false);
                }
                ranges.sort_unstable_by_key(|range| range.start);
                while let Some(Range { mut start, end }) = ranges.pop() {
                    while let Some(before) = ranges.last()
                        && before.end == start
                    {
                        start = before.start;
                        ranges.pop();
                    }
                    self.record.before_deletion(document, &object, start..end);
                    remove(document, &object, start..end)?;
                }
            }
            Step::Deleted {
                after,
                before,
                elements,
                marks,
                ..
            } => {
                let index = |id: &Option<ObjId>| {
                    let now = self.element(&of, id.as_ref()?)?;
                    index_of(document, &object, &now)
                };
                // Beside what was beside it, if that is there; else where it was, which is known for as
                // long as the object is the same.
                let begin = if let Some(index) = index(after) {
                    index + width(document, &object, index)
                } else if let Some(index) = index(before) {
                    index
                } else if let Some(first) = elements.first().filter(|_| of.before == of.now) {
                    place_of(document, &object, &first.id).unwrap_or_default()
                } else {
                    0
                };
                let end = self.insert(document, &object, begin, elements)?;
                mark_as(document, &object, &(begin..end), marks)?;
                self.record.inserted(document, &object, begin..end);
            }
            Step::Incremented { key, by, .. } => {
                let Some(prop) = self.prop(document, &of, key) else {
                    return Ok(false);
                };
                let counter = document.get(&object, prop.clone());
                let is_counter =
                    |value: &Value<'_>| matches!(value.as_scalar(), Some(ScalarValue::Counter(_)));
                if !counter.is_ok_and(|value| value.is_some_and(|(value, _)| is_counter(&value))) {
                    return Ok(false);
                }
                document.increment(&object, prop.clone(), -by)?;
                self.record.incremented(document, &object, prop, -by);
            }
            Step::Marked {
                first,
                last,
                name,
                written,
                before,
                ..
            } => {
                let range = |undoing: &Self, document: &Transaction<'_>, first, last| {
                    let index = |id| index_of(document, &object, &undoing.element(&of, id)?);
                    let (start, last) = (index(first)?, index(last)?);
                    Some(start..last + width(document, &object, last))
                };
                let Some(whole) = range(self, document, first, last) else {
                    return Ok(false);
                };
                let before = before.iter().filter_map(|(first, last, value)| {
                    Some((range(self, document, first, last)?, value.clone()))
                });
                let before: Vec<_> = before.collect();
                let mut some = false;
                for (part, value) in cut(whole, &marked(document, &object, name)) {
                    if value != *written {
                        self.missed = true;
                        continue;
                    }
                    some = true;
                    for (part, value) in cut(part, &before) {
                        let at = part.clone();
                        self.record.before_mark(document, &object, at, name, &value);
                        mark(document, &object, part, name, value, ExpandMark::None)?;
                    }
                }
                return Ok(some);
            }
        }
        Ok(true)
    }

    /// What an object is called now.
    fn name(&self, id: &ObjId) -> ObjId {
        let mut name = id.clone();
        while let Some((next, _)) = self.renamed.get(&name) {
            name = next;
        }
        name
    }

    /// Elements of an object as they are called now, those that are in what that object is now.
    fn elements(&self, of: &ObjectNames<'_>, run: Run) -> Vec<Run> {
        self.renamed.now(run, of.before, of.now)
    }

    fn element(&self, of: &ObjectNames<'_>, id: &ObjId) -> Option<ObjId> {
        let first = id.clone();
        let mut now = self.elements(of, Run { first, count: 1 });
        now.pop().map(|run| run.first)
    }

    /// Where those elements of a run are that are still there, and how many. One by one: what others
    /// wrote among them must not be taken for them.
    fn find(
        &self,
        document: &Transaction<'_>,
        of: &ObjectNames<'_>,
        run: &Run,
        ranges: &mut Vec<Range<usize>>,
    ) -> usize {
        let object = of.now;
        let runs = self.elements(of, run.clone());
        if run.count > LONG
            && let Some((found, count)) = find_all(document, object, &runs)
        {
            ranges.extend(found);
            return count;
        }
        let names = runs
            .iter()
            .flat_map(|run| (0..run.count).map(|at| run.name(at)));
        let starts = names.filter_map(|name| index_of(document, object, &name));
        let before = ranges.len();
        ranges.extend(starts.map(|start| start..start + width(document, object, start)));
        ranges.len() - before
    }

    fn prop(&self, document: &Transaction<'_>, of: &ObjectNames<'_>, key: &Key) -> Option<Prop> {
        match key {
            Key::Map(key) => Some(Prop::Map(key.clone())),
            Key::Element(id) => {
                let index = index_of(document, of.now, &self.element(of, id)?)?;
                Some(Prop::Seq(index))
            }
        }
    }

    /// Writes back what was saved, and remembers what it is called now.
    fn put(
        &mut self,
        document: &mut Transaction<'_>,
        object: &ObjId,
        prop: Prop,
        saved: &Saved,
    ) -> Result<(), AutomergeError> {
        let at = prop.clone();
        match &saved.content {
            Content::Scalar(value) => document.put(object, at, value.clone())?,
            content => drop(document.put_object(object, at, content.kind())?),
        }
        self.filled(document, object, prop, saved)
    }

    /// Inserts elements at an index. Gives the index after them.
    fn insert(
        &mut self,
        document: &mut Transaction<'_>,
        object: &ObjId,
        mut at: usize,
        elements: &[Saved],
    ) -> Result<usize, AutomergeError> {
        if is_text(document, object) {
            for element in elements {
                at += self.insert_in_text(document, object, at, element)?;
            }
            return Ok(at);
        }
        let blanks = elements.iter().map(|element| match &element.content {
            Content::Scalar(value) => value.clone().into(),
            content => blank(content.kind()),
        });
        document.splice(object, at, 0, blanks)?;
        for element in elements {
            self.filled(document, object, at.into(), element)?;
            at += 1;
        }
        Ok(at)
    }

    /// Gives how many indexes it takes.
    fn insert_in_text(
        &mut self,
        document: &mut Transaction<'_>,
        object: &ObjId,
        at: usize,
        saved: &Saved,
    ) -> Result<usize, AutomergeError> {
        match &saved.content {
            Content::Run(text) => document.splice_text(object, at, 0, text)?,
            Content::Scalar(ScalarValue::Str(text)) => document.splice_text(object, at, 0, text)?,
            Content::Scalar(value) => document.insert(object, at, value.clone())?,
            _ => drop(document.split_block(object, at)?),
        }
        self.filled(document, object, at.into(), saved)?;
        Ok(match &saved.content {
            Content::Run(text) => text.encode_utf16().count(),
            Content::Scalar(ScalarValue::Str(text)) => text.encode_utf16().count(),
            _ => width(document, object, at),
        })
    }

    /// It was written; what is in it follows.
    fn filled(
        &mut self,
        document: &mut Transaction<'_>,
        object: &ObjId,
        prop: Prop,
        saved: &Saved,
    ) -> Result<(), AutomergeError> {
        let Some(made) = id_at(document, object, prop) else {
            return Ok(());
        };
        let mut count = 1;
        match &saved.content {
            Content::Scalar(_) => {}
            Content::Run(text) => count = text.chars().count(),
            Content::Map(entries) => {
                for (key, value) in entries {
                    self.put(document, &made, Prop::Map(key.clone()), value)?;
                }
            }
            Content::List(elements) => drop(self.insert(document, &made, 0, elements)?),
            Content::Text(elements, marks) => {
                self.insert(document, &made, 0, elements)?;
                for mark in marks {
                    document.mark(&made, mark.clone(), ExpandMark::None)?;
                }
            }
        }
        if made == saved.id {
            return Ok(());
        }
        if !matches!(saved.content, Content::Scalar(_) | Content::Run(_)) {
            self.objects
                .extend([saved.id.to_string(), made.to_string()]);
        }
        let first = saved.id.clone();
        let moved = Renaming {
            before: Run { first, count },
            now: made,
            object: object.clone(),
        };
        self.renamed.insert(moved.clone());
        if !self.names.last_mut().is_some_and(|last| last.join(&moved)) {
            self.names.push(moved);
        }
        Ok(())
    }
}
