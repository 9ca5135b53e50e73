//! What was noted of an operation, in names that others cannot move.

use automerge::marks::Mark;
use automerge::{ObjId, ScalarValue};

use super::names::Run;
use super::saved::Saved;

/// An operation that can be taken back.
#[derive(Debug)]
pub(super) enum Step {
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

/// A key of a map, or an element of a list.
#[derive(Debug, Clone)]
pub(super) enum Key {
    Map(String),
    /// The element that is, or was, called so.
    Element(ObjId),
}
