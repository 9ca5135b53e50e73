//! One change, read far enough to decide whether it may enter, without building anything.
//!
//! The data of a change chunk: deps; actor; seq; start_op; time (signed); message; other actors;
//! columns (specification and length each); the columns' data; extra bytes. Operations are columns
//! of runs, which [`Operations`] walks row by row.

use std::borrow::Cow;
use std::ops::Range;

use automerge::{ActorId, ChangeHash, ObjId};

use super::StoredChange;
use super::chunk::{Chunk, ChunkError, ChunkKind};
use super::limits::{CHANGE_ACTORS_MAX, CHANGE_DEPS_MAX, CHANGE_OPS_MAX};
use crate::leb::{Reader, read_signed, read_unsigned};

/// A change's header and columns, borrowing from its inflated chunk.
#[derive(Debug, Clone)]
pub(crate) struct Change<'a> {
    /// Its hash, checked against the chunk's checksum.
    pub(crate) hash: ChangeHash,
    /// The changes it was made on top of.
    pub(crate) deps: Vec<ChangeHash>,
    /// Who made it, and the other actors whose operations it refers to.
    pub(crate) actors: Vec<&'a [u8]>,
    /// How many changes its actor made, this one included.
    pub(crate) seq: u64,
    /// The counter of its first operation.
    pub(crate) start_op: u64,
    /// How many operations it has.
    pub(crate) ops_len: u64,
    /// How many it replaces. A few bytes of runs can claim any number of them.
    preds_len: u64,
    columns: Vec<(u32, &'a [u8])>,
}

/// Why bytes are not a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The chunk around it is broken.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A field is missing or cut short.
    #[error("malformed change: {0}")]
    Malformed(&'static str),
    /// More of something than is allowed.
    #[error("{0} above the limit")]
    Limit(&'static str),
}

impl ChangeError {
    /// More than [`CHANGE_OPS_MAX`].
    pub(crate) const TOO_MANY_OPERATIONS: Self = Self::Limit("number of operations in a change");
}

mod column {
    pub(super) const OBJ_ACTOR: u32 = 0x01;
    pub(super) const OBJ_COUNTER: u32 = 0x02;
    pub(super) const KEY_ACTOR: u32 = 0x11;
    pub(super) const KEY_COUNTER: u32 = 0x13;
    pub(super) const KEY_STRING: u32 = 0x15;
    pub(super) const INSERT: u32 = 0x34;
    pub(super) const ACTION: u32 = 0x42;
    pub(super) const PRED_COUNT: u32 = 0x70;
    pub(super) const PRED_ACTOR: u32 = 0x71;
    pub(super) const PRED_COUNTER: u32 = 0x73;
    /// The bit that marks a deflated column, which a change must not have.
    pub(super) const DEFLATED: u32 = 0x08;
    /// The bits that say what is in a column; those above say which attribute it belongs to.
    pub(super) const KIND: u32 = 0x07;
    /// The kind of a column that takes those after it, of the same attribute, for its own.
    pub(super) const GROUP: u32 = 0;
    /// The last attribute that Automerge 0.12 knows: names of marks.
    pub(super) const KNOWN_MAX: u32 = 0xaf;
}

impl<'a> Change<'a> {
    /// Reads the header of an inflated change chunk and counts its operations.
    ///
    /// # Errors
    /// When the checksum is wrong, a field is missing, or there is more of something than the
    /// limits of this module's parent allow. Time and memory are bounded by the chunk's length.
    pub(crate) fn read(chunk: &Chunk<'a>) -> Result<Self, ChangeError> {
        Self::read_trusted(chunk, chunk.verified_hash()?)
    }

    /// The same for a chunk whose hash is known, because it was verified before it was stored.
    ///
    /// # Errors
    /// As for [`Self::read`], but for the checksum.
    pub(crate) fn read_trusted(chunk: &Chunk<'a>, hash: ChangeHash) -> Result<Self, ChangeError> {
        let mut input = Reader(chunk.data);
        let deps = count(&mut input, CHANGE_DEPS_MAX, "number of deps")?;
        let deps = (0..deps).map(|_| input.hash()).collect::<Option<Vec<_>>>();
        let deps = deps.ok_or(ChangeError::Malformed("deps"))?;
        let author = input.prefixed().ok_or(ChangeError::Malformed("actor"))?;
        let seq = input.unsigned().ok_or(ChangeError::Malformed("seq"))?;
        let start_op = input.unsigned().ok_or(ChangeError::Malformed("start_op"))?;
        input.signed().ok_or(ChangeError::Malformed("time"))?;
        input.prefixed().ok_or(ChangeError::Malformed("message"))?;
        let others = count(&mut input, CHANGE_ACTORS_MAX, "number of actors")?;
        let mut actors = vec![author];
        for _ in 0..others {
            actors.push(
                input
                    .prefixed()
                    .ok_or(ChangeError::Malformed("other actors"))?,
            );
        }
        if seq == 0 || start_op == 0 {
            return Err(ChangeError::Malformed("seq and start_op begin at 1"));
        }
        let columns = read_columns(&mut input)?;
        let mut change = Self {
            hash,
            deps,
            actors,
            seq,
            start_op,
            ops_len: 0,
            preds_len: 0,
            columns,
        };
        change.ops_len = change.count_ops()?;
        change.preds_len = change.count_preds()?;
        let last = start_op.checked_add(change.ops_len);
        if last.is_none_or(|last| last > u64::from(u32::MAX)) {
            return Err(ChangeError::Limit("operation counter"));
        }
        Ok(change)
    }

    /// The counter of its last operation; for a change without any, the one before its first.
    #[must_use]
    pub(crate) fn max_op(&self) -> u32 {
        u32::try_from(self.start_op + self.ops_len - 1).expect("checked when it was read")
    }

    fn column(&self, spec: u32) -> &'a [u8] {
        self.columns
            .iter()
            .find(|(s, _)| *s == spec)
            .map_or(&[], |(_, data)| data)
    }

    /// Sums the runs of the action column, which has a value for each operation.
    fn count_ops(&self) -> Result<u64, ChangeError> {
        let column = self.column(column::ACTION);
        let ops = count_rows(column).ok_or(ChangeError::Malformed("actions"))?;
        if ops > CHANGE_OPS_MAX {
            return Err(ChangeError::TOO_MANY_OPERATIONS);
        }
        Ok(ops)
    }

    /// Sums the numbers of replaced operations.
    fn count_preds(&self) -> Result<u64, ChangeError> {
        let mut runs = Runs::new(self.column(column::PRED_COUNT), read_u64);
        let mut preds = 0u64;
        while runs.begin_run()? {
            let (times, run) = match runs.run {
                Run::Same(value) => (std::mem::take(&mut runs.left), value),
                Run::Literal => {
                    runs.left -= 1;
                    (1, Some(runs.value()?))
                }
            };
            preds = preds.saturating_add(times.saturating_mul(run.unwrap_or_default()));
        }
        if preds > CHANGE_OPS_MAX {
            return Err(ChangeError::Limit("number of replaced operations"));
        }
        Ok(preds)
    }

    /// What it takes to look at each operation, and at each that one replaces.
    pub(crate) fn weight(&self) -> u64 {
        self.ops_len + self.preds_len
    }

    /// The change's operations, in order.
    #[must_use]
    pub(crate) fn operations(&self) -> Operations<'a> {
        Operations {
            left: self.ops_len,
            obj_actor: Runs::new(self.column(column::OBJ_ACTOR), read_u64),
            obj_counter: Runs::new(self.column(column::OBJ_COUNTER), read_u64),
            key_actor: Runs::new(self.column(column::KEY_ACTOR), read_u64),
            key_counter: Deltas::new(self.column(column::KEY_COUNTER)),
            key_string: Runs::new(self.column(column::KEY_STRING), read_text),
            insert: Booleans::new(self.column(column::INSERT)),
            action: Runs::new(self.column(column::ACTION), read_u64),
            pred_count: Runs::new(self.column(column::PRED_COUNT), read_u64),
            pred_actor: Runs::new(self.column(column::PRED_ACTOR), read_u64),
            pred_counter: Deltas::new(self.column(column::PRED_COUNTER)),
        }
    }
}

/// What entering takes to know of a change.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub(crate) actor: Cow<'a, [u8]>,
    pub(crate) start_op: u64,
    pub(crate) ops_len: u64,
}

impl<'a> From<&Change<'a>> for Header<'a> {
    fn from(change: &Change<'a>) -> Self {
        Self {
            actor: Cow::Borrowed(change.actors[0]),
            start_op: change.start_op,
            ops_len: change.ops_len,
        }
    }
}

impl<'a> Header<'a> {
    /// That of a change that was read before it was stored. One that is kept deflated is inflated no
    /// further than its first operation's counter. `None` if it is not what was stored.
    pub(crate) fn of_stored(chunk: &Chunk<'a>, stored: &StoredChange) -> Option<Self> {
        let header = match chunk.kind {
            ChunkKind::DeflatedChange => Self::of_deflated(chunk, stored.max_op)?,
            _ => Self::from(&Change::read_trusted(chunk, stored.hash).ok()?),
        };
        let last = header.start_op + header.ops_len;
        (last == u64::from(stored.max_op) + 1).then_some(header)
    }

    fn of_deflated(chunk: &Chunk<'_>, max_op: u32) -> Option<Self> {
        let mut len = 512;
        loop {
            let beginning = chunk.inflated_beginning(len)?;
            if let Some((actor, start_op)) = read_beginning(&beginning) {
                return Some(Self {
                    actor: Cow::Owned(actor.to_vec()),
                    start_op,
                    ops_len: (u64::from(max_op) + 1).checked_sub(start_op)?,
                });
            }
            if beginning.len() < len {
                return None;
            }
            len *= 8;
        }
    }
}

/// The actor of a change's data, and its first operation's counter.
fn read_beginning(data: &[u8]) -> Option<(&[u8], u64)> {
    let mut input = Reader(data);
    let deps: usize = input.number()?;
    input.take(deps.checked_mul(32)?)?;
    let actor = input.prefixed()?;
    input.unsigned()?;
    Some((actor, input.unsigned()?))
}

/// How many rows a run-length column of numbers has. Costs what its bytes cost, not its rows.
pub(crate) fn count_rows(column: &[u8]) -> Option<u64> {
    let mut runs = Runs::new(column, read_u64);
    let mut rows = 0u64;
    while let Some(run) = runs.next_run().ok()? {
        rows = rows.saturating_add(run);
    }
    Some(rows)
}

fn count(input: &mut Reader<'_>, max: usize, what: &'static str) -> Result<usize, ChangeError> {
    let found = input.unsigned().ok_or(ChangeError::Malformed(what))?;
    usize::try_from(found)
        .ok()
        .filter(|n| *n <= max)
        .ok_or(ChangeError::Limit(what))
}

fn read_columns<'a>(input: &mut Reader<'a>) -> Result<Vec<(u32, &'a [u8])>, ChangeError> {
    const MALFORMED: ChangeError = ChangeError::Malformed("columns");
    // Automerge 0.12 knows 15 columns; later versions may add some.
    let declared = count(input, 64, "number of columns")?;
    let mut specs = Vec::with_capacity(declared);
    for _ in 0..declared {
        let spec: u32 = input.number().ok_or(MALFORMED)?;
        let len: usize = input.number().ok_or(MALFORMED)?;
        if spec & column::DEFLATED != 0 {
            return Err(ChangeError::Malformed("a deflated column"));
        }
        let is_group = spec & column::KIND == column::GROUP && spec <= column::KNOWN_MAX;
        if is_group && spec != column::PRED_COUNT {
            // Automerge would see fewer operations, or others, than are read here.
            return Err(ChangeError::Malformed("a group of known columns"));
        }
        specs.push((spec, len));
    }
    let column = |(spec, len)| Some((spec, input.take(len)?));
    specs
        .into_iter()
        .map(column)
        .collect::<Option<_>>()
        .ok_or(MALFORMED)
}

/// The id of an operation inside a change: the actor's place in [`Change::actors`], and a counter.
pub(crate) type ChangeOpId = (u32, u32);

/// Where in its object an operation acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// At a name: the object is a map or a table.
    Name,
    /// At the beginning of a list or text.
    Head,
    /// At or after the element that this operation inserted.
    Element(ChangeOpId),
}

/// One operation, as far as structure goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    /// The object it acts on; `None` for the root.
    pub(crate) object: Option<ChangeOpId>,
    /// Where in the object.
    pub(crate) key: Key,
    /// Whether it inserts an element.
    pub(crate) insert: bool,
    /// Automerge's action number.
    pub(crate) action: u64,
    /// How many operations it replaces; their ids follow by [`Operations::pred`].
    pub(crate) preds: u64,
}

/// Walks a change's operations.
#[derive(Debug, Clone)]
pub(crate) struct Operations<'a> {
    left: u64,
    obj_actor: Runs<'a, u64>,
    obj_counter: Runs<'a, u64>,
    key_actor: Runs<'a, u64>,
    key_counter: Deltas<'a>,
    key_string: Runs<'a, ()>,
    insert: Booleans<'a>,
    action: Runs<'a, u64>,
    pred_count: Runs<'a, u64>,
    pred_actor: Runs<'a, u64>,
    pred_counter: Deltas<'a>,
}

impl Operations<'_> {
    /// The next operation. After each one, [`Self::pred`] must be called as often as it says.
    ///
    /// # Errors
    /// When the columns do not make sense.
    pub(crate) fn next_operation(&mut self) -> Result<Option<Operation>, ChangeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let object = match (self.obj_actor.next()?, self.obj_counter.next()?) {
            (None, None) => None,
            (Some(actor), Some(counter)) => Some(op_id(actor, counter)?),
            _ => return Err(ChangeError::Malformed("object id")),
        };
        let name = self.key_string.next()?;
        let key = match (name, self.key_actor.next()?, self.key_counter.next()?) {
            (Some(()), None, None) => Key::Name,
            (None, None, Some(0)) => Key::Head,
            (None, Some(actor), Some(counter)) => Key::Element(op_id(actor, unsigned(counter)?)?),
            _ => return Err(ChangeError::Malformed("key")),
        };
        Ok(Some(Operation {
            object,
            key,
            insert: self.insert.next()?,
            action: self
                .action
                .next()?
                .ok_or(ChangeError::Malformed("action"))?,
            preds: self.pred_count.next()?.unwrap_or(0),
        }))
    }

    /// The next operation id that the current operation replaces.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn pred(&mut self) -> Result<ChangeOpId, ChangeError> {
        match (self.pred_actor.next()?, self.pred_counter.next()?) {
            (Some(actor), Some(counter)) => op_id(actor, unsigned(counter)?),
            _ => Err(ChangeError::Malformed("replaced operations")),
        }
    }
}

fn unsigned(number: i64) -> Result<u64, ChangeError> {
    u64::try_from(number).map_err(|_| ChangeError::Malformed("a negative counter"))
}

fn op_id(actor: u64, counter: u64) -> Result<ChangeOpId, ChangeError> {
    match (u32::try_from(actor), u32::try_from(counter)) {
        (Ok(actor), Ok(counter)) => Ok((actor, counter)),
        _ => Err(ChangeError::Limit("operation id")),
    }
}

type Read<V> = fn(&[u8]) -> Option<(V, usize)>;

fn read_u64(input: &[u8]) -> Option<(u64, usize)> {
    read_unsigned(input)
}

fn read_i64(input: &[u8]) -> Option<(i64, usize)> {
    read_signed(input)
}

/// A name; only whether there is one matters here.
fn read_text(input: &[u8]) -> Option<((), usize)> {
    let (len, header) = read_unsigned(input)?;
    let end = header.checked_add(usize::try_from(len).ok()?)?;
    let text = input.get(header..end)?;
    std::str::from_utf8(text).ok()?;
    Some(((), end))
}

#[derive(Debug, Clone, Copy)]
enum Run<V> {
    Same(Option<V>),
    Literal,
}

/// A run-length column: a signed count, then (above 0) one value repeated, (below 0) that many
/// values, or (0) an unsigned count of nulls. A column that ended goes on with nulls.
#[derive(Debug, Clone)]
struct Runs<'a, V> {
    input: &'a [u8],
    read: Read<V>,
    left: u64,
    run: Run<V>,
}

impl<'a, V: Copy> Runs<'a, V> {
    fn new(input: &'a [u8], read: Read<V>) -> Self {
        Self {
            input,
            read,
            left: 0,
            run: Run::Same(None),
        }
    }

    fn value(&mut self) -> Result<V, ChangeError> {
        let (value, len) = (self.read)(self.input).ok_or(ChangeError::Malformed("column value"))?;
        self.input = &self.input[len..];
        Ok(value)
    }

    fn begin_run(&mut self) -> Result<bool, ChangeError> {
        const CUT: ChangeError = ChangeError::Malformed("column cut short");
        while self.left == 0 {
            if self.input.is_empty() {
                return Ok(false);
            }
            let (count, len) = read_signed(self.input).ok_or(CUT)?;
            self.input = &self.input[len..];
            if count == 0 {
                let (nulls, len) = read_unsigned(self.input).ok_or(CUT)?;
                self.input = &self.input[len..];
                (self.left, self.run) = (nulls, Run::Same(None));
            } else if count > 0 {
                self.run = Run::Same(Some(self.value()?));
                self.left = count.unsigned_abs();
            } else {
                (self.left, self.run) = (count.unsigned_abs(), Run::Literal);
            }
        }
        Ok(true)
    }

    fn next(&mut self) -> Result<Option<V>, ChangeError> {
        if !self.begin_run()? {
            return Ok(None);
        }
        self.left -= 1;
        match self.run {
            Run::Same(value) => Ok(value),
            Run::Literal => self.value().map(Some),
        }
    }

    /// The length of the next run, its values skipped: costs what its bytes cost, not its rows.
    fn next_run(&mut self) -> Result<Option<u64>, ChangeError> {
        if !self.begin_run()? {
            return Ok(None);
        }
        let run = self.left;
        if matches!(self.run, Run::Literal) {
            for _ in 0..run {
                self.value()?;
            }
        }
        self.left = 0;
        Ok(Some(run))
    }
}

/// A run-length column of differences; nulls leave the sum alone.
#[derive(Debug, Clone)]
struct Deltas<'a> {
    runs: Runs<'a, i64>,
    sum: i64,
}

impl<'a> Deltas<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            runs: Runs::new(input, read_i64),
            sum: 0,
        }
    }

    fn next(&mut self) -> Result<Option<i64>, ChangeError> {
        let Some(delta) = self.runs.next()? else {
            return Ok(None);
        };
        let sum = self
            .sum
            .checked_add(delta)
            .ok_or(ChangeError::Limit("counter"))?;
        self.sum = sum;
        Ok(Some(sum))
    }
}

/// Run lengths of false and true in turn; a column that ended goes on with false.
#[derive(Debug, Clone)]
struct Booleans<'a> {
    input: &'a [u8],
    left: u64,
    value: bool,
}

impl<'a> Booleans<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            left: 0,
            value: true,
        }
    }

    fn next(&mut self) -> Result<bool, ChangeError> {
        while self.left == 0 {
            if self.input.is_empty() {
                return Ok(false);
            }
            let run = read_unsigned(self.input).ok_or(ChangeError::Malformed("flags"))?;
            self.input = &self.input[run.1..];
            self.left = run.0;
            self.value = !self.value;
        }
        self.left -= 1;
        Ok(self.value)
    }
}

/// The object in which a change's operation of this counter acts, and the counters of all around it
/// that act in the same one.
pub(crate) fn acts_in(change: &automerge::Change, counter: u64) -> Option<(ObjId, Range<u64>)> {
    let (chunk, _) = Chunk::split(change.raw_bytes()).ok()?;
    let change = Change::read_trusted(&chunk, change.hash()).ok()?;
    let mut operations = change.operations();
    let mut run = (None, change.start_op..change.start_op);
    while let Some(operation) = operations.next_operation().ok()? {
        for _ in 0..operation.preds {
            operations.pred().ok()?;
        }
        let (object, counters) = &mut run;
        if operation.object != *object {
            if counters.contains(&counter) {
                break;
            }
            (*object, counters.start) = (operation.object, counters.end);
        }
        counters.end += 1;
    }
    let ((actor, object), counters) = (run.0?, run.1);
    let actor = ActorId::from(*change.actors.get(actor as usize)?);
    let object = ObjId::Id(u64::from(object), actor, 0);
    counters.contains(&counter).then_some((object, counters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ObjType, ROOT, ReadDoc};

    /// Compares what is read here with what Automerge reads, over changes of every shape.
    #[test]
    fn the_walk_agrees_with_automerges_own() {
        let mut doc = AutoCommit::new();
        let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
        doc.splice_text(&text, 0, 0, "hello wörld").unwrap();
        doc.commit();
        let mut other = doc.fork();
        other.splice_text(&text, 3, 4, "123").unwrap();
        let list = other.put_object(ROOT, "list", ObjType::List).unwrap();
        for n in 0..300 {
            other.insert(&list, 0, n).unwrap();
        }
        doc.put(ROOT, "text2", "x").unwrap();
        doc.merge(&mut other).unwrap();
        let (list, _) = (doc.get(ROOT, "list").unwrap().unwrap().1, ());
        doc.put(&list, 7, "seven").unwrap();
        doc.delete(&list, 9).unwrap();
        doc.put(ROOT, "text2", "y").unwrap();
        let changes = doc.get_changes(&[]);
        assert!(changes.len() >= 4);
        for expected in changes {
            let (chunk, rest) = Chunk::split(expected.raw_bytes()).unwrap();
            assert!(rest.is_empty());
            let change = Change::read(&chunk).unwrap();
            assert_eq!(change.hash, expected.hash());
            assert_eq!(change.deps, expected.deps());
            assert_eq!(change.actors[0], expected.actor_id().to_bytes());
            assert_eq!(u64::from(change.max_op()), expected.max_op());
            let mut operations = change.operations();
            for op in expected.decode().operations {
                let ours = operations.next_operation().unwrap().unwrap();
                assert_eq!(ours.insert, op.insert);
                assert_eq!(
                    ours.object.is_none(),
                    matches!(op.obj, automerge::legacy::ObjectId::Root)
                );
                assert_eq!(ours.preds, op.pred.len() as u64);
                for pred in op.pred.iter() {
                    let (actor, counter) = operations.pred().unwrap();
                    assert_eq!(u64::from(counter), pred.0);
                    assert_eq!(change.actors[actor as usize], pred.1.to_bytes());
                }
            }
            assert_eq!(operations.next_operation().unwrap(), None);
        }
    }
}
