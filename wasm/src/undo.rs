//! Taking back one's own edits while others edit.
//!
//! For each operation of an edit its opposite is noted, in the names of operations, which others
//! cannot move: the element that was inserted, the value that was written, what stood there
//! before. Taking an edit back is an edit of its own, and notes its opposite too, which is how to
//! do it again.
//!
//! What somebody else has changed since stays: a value is set back only while it is the one that
//! was written, and only those characters are removed that are still there. What was deleted comes
//! back under new names, so old names are looked up in `renamed`.
//!
//! A page keeps what takes its edits back (`bytes`), as the host in which they were made may be gone
//! before it asks for that.
//!
//! Not taken back: how marks expand.

mod bytes;
mod marks;

use std::ops::Range;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{
    ActorId, AutomergeError, Cursor, ObjId, ObjType, Prop, ReadDoc, ScalarValue, ScalarValueRef,
    Value, ValueRef,
};

/// What lies deeper in what was deleted does not come back: the stack is not made for all depths.
const DEPTH_MAX: usize = 200;

/// Texts of more indexes than this are kept as a whole, because looking at each character of a
/// pasted book takes seconds.
const LONG: usize = 512;

mod renamed;

use crate::value::blank;
use marks::{mark_as, marks_in};
pub(crate) use renamed::{Moved, Renamed};

/// Names that an earlier host gave; `None` if these are none.
pub(crate) fn rename(bytes: &[u8], renamed: &mut Renamed) -> Option<()> {
    bytes::names_of(bytes, renamed)
}

/// The opposites of operations, while they are carried out; nothing if nobody will ask.
#[derive(Debug)]
pub(crate) struct Record {
    steps: Option<Vec<Step>>,
}

/// An operation that can be taken back.
#[derive(Debug)]
enum Step {
    Put {
        object: ObjId,
        key: Key,
        /// What the value is called that was written; none if it was deleted.
        written: Option<ObjId>,
        before: Option<Saved>,
    },
    Inserted {
        object: ObjId,
        elements: Vec<Run>,
    },
    Deleted {
        object: ObjId,
        /// The element before; none at the beginning.
        after: Option<ObjId>,
        /// The one behind; none at the end.
        before: Option<ObjId>,
        elements: Vec<Saved>,
        /// Of a text, by where they were in these elements.
        marks: Vec<Mark>,
    },
    Incremented {
        object: ObjId,
        key: Key,
        by: i64,
    },
    Marked {
        object: ObjId,
        first: ObjId,
        last: ObjId,
        name: String,
        /// Null if the mark was removed.
        written: ScalarValue,
        before: Vec<(ObjId, ObjId, ScalarValue)>,
    },
}

/// Elements whose operations were made one after the other, so that the first's name tells those of
/// all.
#[derive(Debug, Clone)]
struct Run {
    first: ObjId,
    count: usize,
}

impl Run {
    fn name(&self, at: usize) -> ObjId {
        named(&self.first, at as u64)
    }

    fn has(&self, id: &ObjId) -> bool {
        match (&self.first, id) {
            (ObjId::Id(first, actor, _), ObjId::Id(counter, by, _)) => {
                counter.wrapping_sub(*first) < self.count as u64 && actor == by
            }
            _ => false,
        }
    }
}

/// What is called so many after the first.
fn named(first: &ObjId, at: u64) -> ObjId {
    match first {
        ObjId::Id(counter, actor, hint) => ObjId::Id(counter + at, actor.clone(), *hint),
        ObjId::Root => ObjId::Root,
    }
}

#[derive(Debug, Clone)]
enum Key {
    Map(String),
    /// The element that is, or was, called so.
    Element(ObjId),
}

/// A value that was replaced or deleted, with all that is in it and what it was called.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    id: ObjId,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Scalar(ScalarValue),
    /// Characters of a text, whose names follow that of the first.
    Run(String),
    Map(Vec<(String, Saved)>),
    List(Vec<Saved>),
    Text(Vec<Saved>, Vec<Mark>),
}

impl Content {
    /// Of what object it is.
    fn kind(&self) -> ObjType {
        match self {
            Self::List(_) => ObjType::List,
            Self::Text(..) => ObjType::Text,
            Self::Scalar(_) | Self::Run(_) | Self::Map(_) => ObjType::Map,
        }
    }
}

impl Record {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self {
            steps: is_wanted.then(Vec::new),
        }
    }

    /// For [`Taking`].
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
        save(document, object, prop.clone(), DEPTH_MAX)
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
            elements: save_range(document, object, range, DEPTH_MAX),
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

/// How much of an edit was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// What it did is gone, or was changed by others.
    Nothing,
    Part,
    All,
}

/// Edits that are being taken back, or done again, as one.
pub(crate) struct Taking<'a> {
    steps: Vec<Step>,
    renamed: &'a mut Renamed,
    /// What came back.
    names: Vec<Moved>,
    /// Of those, the objects, before and now.
    objects: Vec<String>,
    record: Record,
    missed: bool,
}

/// An object, as it was called when something happened in it, and now.
struct Of<'a> {
    before: &'a ObjId,
    now: &'a ObjId,
}

impl<'a> Taking<'a> {
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
    pub(crate) fn run(&mut self, document: &mut Transaction<'_>) -> Result<Taken, AutomergeError> {
        let mut some = false;
        for step in std::mem::take(&mut self.steps).iter().rev() {
            let done = self.step(document, step)?;
            some |= done;
            self.missed |= !done;
        }
        Ok(match (some, self.missed) {
            (false, _) => Taken::Nothing,
            (true, true) => Taken::Part,
            (true, false) => Taken::All,
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
        let of = Of {
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
                let range = |taking: &Self, document: &Transaction<'_>, first, last| {
                    let index = |id| index_of(document, &object, &taking.element(&of, id)?);
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
    fn elements(&self, of: &Of<'_>, run: Run) -> Vec<Run> {
        self.renamed.now(run, of.before, of.now)
    }

    fn element(&self, of: &Of<'_>, id: &ObjId) -> Option<ObjId> {
        let first = id.clone();
        let mut now = self.elements(of, Run { first, count: 1 });
        now.pop().map(|run| run.first)
    }

    /// Where those elements of a run are that are still there, and how many. One by one: what others
    /// wrote among them must not be taken for them.
    fn find(
        &self,
        document: &Transaction<'_>,
        of: &Of<'_>,
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

    fn prop(&self, document: &Transaction<'_>, of: &Of<'_>, key: &Key) -> Option<Prop> {
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
        let moved = Moved {
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

fn save(document: &Transaction<'_>, object: &ObjId, prop: Prop, depth: usize) -> Option<Saved> {
    let (value, id) = document.get(object, prop).ok()??;
    if value.is_object() && depth == 0 {
        return None;
    }
    let inner = depth.saturating_sub(1);
    let content = match value {
        Value::Scalar(value) => Content::Scalar(value.into_owned()),
        Value::Object(ObjType::Map | ObjType::Table) => {
            let keys: Vec<String> = document.keys(&id).collect();
            let entry =
                |key: String| Some((key.clone(), save(document, &id, Prop::Map(key), inner)?));
            Content::Map(keys.into_iter().filter_map(entry).collect())
        }
        Value::Object(ObjType::List) => {
            Content::List(save_range(document, &id, 0..document.length(&id), inner))
        }
        Value::Object(ObjType::Text) => {
            let elements = save_range(document, &id, 0..document.length(&id), inner);
            Content::Text(elements, document.marks(&id).unwrap_or_default())
        }
    };
    Some(Saved { id, content })
}

fn save_range(
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
        let Some(next) = save(document, object, element.into(), depth) else {
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
                None => (saved.all).extend(save(document, object, at.start.into(), depth)),
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

/// Tells of each element in turn where it is, what it is called and what text it has, if any. `None` if
/// that cannot be said, of a text in which texts are marks: they are not told from characters.
fn each(
    document: &Transaction<'_>,
    object: &ObjId,
    mut tell: impl FnMut(Range<usize>, ObjId, Option<&str>),
) -> Option<()> {
    let is_text = is_text(document, object);
    let mut start = 0;
    for item in document.list_range(object, ..) {
        let text = match &item.value {
            ValueRef::Scalar(ScalarValueRef::Str(text)) if is_text => Some(&**text),
            // A mark, or its end.
            ValueRef::Scalar(_) if is_text => continue,
            _ => None,
        };
        let end = start + text.map_or(1, |text| text.encode_utf16().count());
        tell(start..end, item.id(), text);
        start = end;
    }
    (start == document.length(object)).then_some(())
}

/// Where elements are, and how many are still there, by looking at all that is in the object, once.
fn find_all(
    document: &Transaction<'_>,
    object: &ObjId,
    runs: &[Run],
) -> Option<(Vec<Range<usize>>, usize)> {
    let mut runs: Vec<&Run> = runs.iter().collect();
    runs.sort_unstable_by(|a, b| by_actor(&a.first).cmp(&by_actor(&b.first)));
    let mut ranges = Vec::<Range<usize>>::new();
    let mut count = 0;
    each(document, object, |at, id, _| {
        let after = runs.partition_point(|run| by_actor(&run.first) <= by_actor(&id));
        if !after.checked_sub(1).is_some_and(|at| runs[at].has(&id)) {
            return;
        }
        count += 1;
        match ranges.last_mut() {
            Some(last) if last.end == at.start => last.end = at.end,
            _ => ranges.push(at),
        }
    })?;
    Some((ranges, count))
}

/// Sets a mark, or removes it if the value is null.
pub(crate) fn mark(
    document: &mut Transaction<'_>,
    object: &ObjId,
    range: Range<usize>,
    name: &str,
    value: ScalarValue,
    expand: ExpandMark,
) -> Result<(), AutomergeError> {
    if value == ScalarValue::Null {
        document.unmark(object, name, range.start, range.end, expand)
    } else {
        let mark = Mark::new(name.to_owned(), value, range.start, range.end);
        document.mark(object, mark, expand)
    }
}

/// Where a text has this mark, with which value.
fn marked(
    document: &Transaction<'_>,
    object: &ObjId,
    name: &str,
) -> Vec<(Range<usize>, ScalarValue)> {
    marks::named(&document.marks(object).unwrap_or_default(), name, 0)
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Option<Range<usize>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

/// The parts of a range by what they are marked with; null if with nothing.
fn cut(
    range: Range<usize>,
    marked: &[(Range<usize>, ScalarValue)],
) -> Vec<(Range<usize>, ScalarValue)> {
    let mut parts = Vec::new();
    let mut from = range.start;
    let overlaps = |(at, value): &(_, ScalarValue)| Some((overlap(at, &range)?, value.clone()));
    for (at, value) in marked.iter().filter_map(overlaps) {
        parts.push((from..at.start, ScalarValue::Null));
        from = at.end;
        parts.push((at, value));
    }
    parts.push((from..range.end, ScalarValue::Null));
    parts.retain(|(at, _)| !at.is_empty());
    parts
}

/// In this order the names of a run stand together.
fn by_actor(id: &ObjId) -> Option<(&ActorId, u64)> {
    match id {
        ObjId::Id(counter, actor, _) => Some((actor, *counter)),
        ObjId::Root => None,
    }
}

/// The elements that were just inserted.
fn runs(document: &Transaction<'_>, object: &ObjId, range: Range<usize>) -> Vec<Run> {
    let id = |index: usize| id_at(document, object, index.into());
    // Where each index has its operation, nothing of the text need be read.
    if range.len() > LONG
        && let (Some(first), Some(last)) = (id(range.start), id(range.end - 1))
    {
        let count = range.len();
        let run = Run { first, count };
        if run.name(count - 1) == last {
            return vec![run];
        }
    }
    if range.len() > LONG
        && let Some(text) = plain_text(document, object, range.clone())
        && let Some(wide) = text.chars().next_back().map(char::len_utf16)
        && let (Some(first), Some(last)) = (id(range.start), id(range.end - wide))
    {
        let count = text.chars().count();
        let run = Run { first, count };
        if run.name(count - 1) == last {
            return vec![run];
        }
    }
    joined(elements(document, object, range).filter_map(id))
}

/// Names, as runs of those that follow each other.
fn joined(ids: impl Iterator<Item = ObjId>) -> Vec<Run> {
    let mut runs = Vec::<Run>::new();
    for first in ids {
        match runs.last_mut() {
            Some(last) if last.name(last.count) == first => last.count += 1,
            _ => runs.push(Run { first, count: 1 }),
        }
    }
    runs
}

/// A part of a text, unless there are blocks in it.
fn plain_text(document: &Transaction<'_>, object: &ObjId, range: Range<usize>) -> Option<String> {
    if !is_text(document, object) {
        return None;
    }
    let units: Vec<u16> = document.text(object).ok()?.encode_utf16().collect();
    let text = String::from_utf16(units.get(range)?).ok()?;
    (!text.contains('\u{fffc}')).then_some(text)
}

fn is_text(document: &Transaction<'_>, object: &ObjId) -> bool {
    document.object_type(object) == Ok(ObjType::Text)
}

/// The indexes at which elements begin.
fn elements<'a>(
    document: &'a Transaction<'_>,
    object: &'a ObjId,
    range: Range<usize>,
) -> impl Iterator<Item = usize> + 'a {
    let next = move |index: &usize| Some(index + width(document, object, *index));
    std::iter::successors(Some(range.start), next).take_while(move |index| *index < range.end)
}

/// How many indexes an element takes: two if it is a character beyond the basic plane.
fn width(document: &Transaction<'_>, object: &ObjId, index: usize) -> usize {
    let text = match document.get(object, index) {
        Ok(Some((value, _))) if is_text(document, object) => {
            value.as_str().map(|text| text.encode_utf16().count())
        }
        _ => None,
    };
    text.unwrap_or(1).max(1)
}

/// Whether an object is there, and no part of what the document shows.
pub(crate) fn is_hidden(document: &Transaction<'_>, object: &ObjId) -> bool {
    let parents = document.parents(object);
    parents.is_ok_and(|mut parents| parents.any(|parent| !parent.visible))
}

pub(crate) fn id_at(document: &Transaction<'_>, object: &ObjId, prop: Prop) -> Option<ObjId> {
    Some(document.get(object, prop).ok()??.1)
}

/// Where an element is, if it is still there.
fn index_of(document: &Transaction<'_>, object: &ObjId, element: &ObjId) -> Option<usize> {
    let index = place_of(document, object, element)?;
    (id_at(document, object, index.into()).as_ref() == Some(element)).then_some(index)
}

/// Where an element of this object is or was: how many indexes are before it.
fn place_of(document: &Transaction<'_>, object: &ObjId, element: &ObjId) -> Option<usize> {
    let cursor = Cursor::try_from(element.to_string()).ok()?;
    document.get_cursor_position(object, &cursor, None).ok()
}

fn remove(
    document: &mut Transaction<'_>,
    object: &ObjId,
    range: Range<usize>,
) -> Result<(), AutomergeError> {
    let count = range.len() as isize;
    if document.object_type(object)? == ObjType::Text {
        document.splice_text(object, range.start, count, "")
    } else {
        document.splice(
            object,
            range.start,
            count,
            std::iter::empty::<ScalarValue>(),
        )
    }
}
