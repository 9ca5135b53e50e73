//! One change, read far enough to decide whether it may enter, without building anything.
//!
//! The data of a change chunk: deps; actor; seq; start_op; time (signed); message; other actors;
//! columns (specification and length each); the columns' data; extra bytes. Operations are columns
//! of runs, which [`Operations`] walks row by row.

mod columns;
mod error;
mod operations;

use std::borrow::Cow;
use std::ops::Range;

use automerge::{ActorId, ChangeHash, ObjId};

use super::chunk::{Chunk, ChunkKind};
use super::limits::{CHANGE_ACTORS_MAX, CHANGE_DEPS_MAX, CHANGE_OPS_MAX};
use super::stored::StoredChange;
use crate::leb::Reader;

pub(super) use columns::count_rows;
pub use error::ChangeError;
pub(super) use operations::{ChangeOpId, Key, Operations};

use columns::{spec, sum_of_rows};

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

impl<'a> Change<'a> {
    /// Reads the header of an inflated change chunk and counts its operations.
    ///
    /// # Errors
    /// When the checksum is wrong, a field is missing, or there is more of something than the
    /// limits allow. Time and memory are bounded by the chunk's length.
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

    fn column(&self, wanted: u32) -> &'a [u8] {
        self.columns
            .iter()
            .find(|(spec, _)| *spec == wanted)
            .map_or(&[], |(_, data)| data)
    }

    /// Sums the runs of the action column, which has a value for each operation.
    fn count_ops(&self) -> Result<u64, ChangeError> {
        let column = self.column(spec::ACTION);
        let ops = count_rows(column).ok_or(ChangeError::Malformed("actions"))?;
        if ops > CHANGE_OPS_MAX {
            return Err(ChangeError::TOO_MANY_OPERATIONS);
        }
        Ok(ops)
    }

    /// Sums the numbers of replaced operations.
    fn count_preds(&self) -> Result<u64, ChangeError> {
        let preds = sum_of_rows(self.column(spec::PRED_COUNT))?;
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
        Operations::new(self.ops_len, |spec| self.column(spec))
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
        if spec & spec::DEFLATED != 0 {
            return Err(ChangeError::Malformed("a deflated column"));
        }
        let is_group = spec & spec::KIND == spec::GROUP && spec <= spec::KNOWN_MAX;
        if is_group && spec != spec::PRED_COUNT {
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
