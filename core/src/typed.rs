//! Documents as values of one's own types, by [serde](https://serde.rs).
//!
//! * [`read`] gives a value of what an object holds.
//! * [`update`] lets a function edit the value, and writes what is different afterwards: the rest of
//!   the document is not touched, whether the type knows it or not.
//! * [`write()`] makes an object what a value says, as in a new document.
//!
//! ```
//! use automerge::transaction::Transactable;
//! use automerge::{Automerge, ROOT};
//! use reconverge::typed;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Order {
//!     customer: String,
//!     lines: Vec<Line>,
//!     note: Option<String>,
//!     views: typed::Counter,
//! }
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Line {
//!     id: u64,
//!     article: String,
//!     count: u32,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut order = Order {
//!     customer: "Ann".into(),
//!     lines: vec![Line { id: 1, article: "lamp".into(), count: 1 }],
//!     note: None,
//!     views: typed::Counter(0),
//! };
//! let mut document = Automerge::new();
//! let mut tx = document.transaction();
//! typed::write(&mut tx, &ROOT, &order)?;
//! // What the type does not know stays.
//! tx.put(ROOT, "colour", "green")?;
//! typed::update(&mut tx, &ROOT, |order: &mut Order| {
//!     order.lines[0].count = 2;
//!     order.views.0 += 1;
//! })?;
//! tx.commit();
//! order.lines[0].count = 2;
//! order.views.0 = 1;
//! assert_eq!(typed::read::<Order>(&document, &ROOT)?, order);
//! # Ok(())
//! # }
//! ```
//!
//! # What is stored
//!
//! Documents that are made here are the same, to JavaScript, as those that it makes itself.
//!
//! | Rust | stored as | JavaScript |
//! |---|---|---|
//! | `String`, `char` | text | string |
//! | integers | int; uint from 2⁶³ on | number; bigint beyond ±(2⁵³ - 1) |
//! | `f64`, `f32` | float | number |
//! | `bool` | boolean | boolean |
//! | `Option<T>` | what `T` is, or null | `null` |
//! | structs, `HashMap<K, V>`, `BTreeMap<K, V>` | map; keys are strings, numbers or variants without contents | object |
//! | `Vec<T>`, tuples, sets | list | array |
//! | variants without contents | text, which is only replaced as a whole | string |
//! | other variants | as serde's attributes say; without any, a map with one key | object |
//! | [`Bytes`], and what else serde calls bytes (`serde_bytes`) | bytes | `Uint8Array` |
//! | [`Counter`] | counter | `Counter` |
//! | [`Timestamp`] | timestamp | `Date` |
//! | [`ImmutableString`] | string | `ImmutableString` |
//!
//! More is read than is written: strings of both kinds as `String`; numbers of any kind that fit as
//! any number, since JavaScript has only one; a counter or a timestamp as an integer, bytes as
//! `Vec<u8>`; what is missing as `None`. Serde's attributes are heeded, `default`, `rename`,
//! `flatten` and `skip_serializing_if` among them; with `alias`, a field that is edited is written
//! by its own name beside the other one, so update no types that have it.
//!
//! # What an update writes
//!
//! The value is compared with what it was when it was read, so a field that the function leaves alone
//! is not written: other values that were written to it at the same time stay (conflicts), and so do
//! its kind and its absence. Of the others:
//!
//! * A text is edited where it differs, by what readers take for characters. A single word of which
//!   less than half stays is replaced, as is the name of a variant, a tag too: two at once are a
//!   conflict, and not a mixture.
//! * A counter is incremented by the difference.
//! * What else is stored keeps its kind, if the new value can have it: an immutable string, a date,
//!   bytes.
//! * In a list, an element with an `id` (a string or an integer) is the same one as long as it has
//!   that. Others are the same if they are equal; and what took the place of something in between, if it
//!   shares much with it or if as many came as went. Such elements are edited in place, and so merge
//!   with what others do to them. The rest is deleted and inserted. What moved is deleted, and a copy
//!   inserted, with what the type does not know: what others do at the same time to the one that was
//!   there is lost, and what they delete or move as well comes back or is there twice, with an `id`,
//!   too. So sort what was read, by a field, and not what is stored. Elements that the type does not
//!   read, as those behind a tuple, stay.
//! * A key that the value no longer has is deleted. `None` is null, or with `skip_serializing_if`
//!   nothing.
//!
//! What an update costs is to read and compare the value, and then what differs: not the document.
//!
//! Absent on purpose: the past. Read it of the document as it was ([`Automerge::fork_at`]).
//!
//! [`Automerge::fork_at`]: automerge::Automerge::fork_at

mod edit;
mod elements;
mod fault;
mod hunks;
mod kinds;
mod reader;
mod text;
mod tree;
mod writer;

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId, ObjType, ReadDoc};
use serde::Serialize;
use serde::de::DeserializeOwned;

use fault::Fault;
pub use kinds::{Bytes, Counter, ImmutableString, Timestamp};
use reader::Reader;
use tree::Tree;
use writer::Writer;

/// Values may be so many levels deep; deeper ones are neither read nor written. What is stored may be
/// deeper where a type does not look.
pub const DEPTH_MAX: usize = 200;

/// Why a document and a value of a type do not come together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// What is stored is not of the type.
    #[error("{}{what}", place(path))]
    Read {
        /// Where, as `lines[3].customer`; empty for the whole. In what serde looks at twice (`flatten`,
        /// `untagged`, `tag`), where that begins.
        path: String,
        /// What is there, and what is expected.
        what: String,
    },
    /// The value is none that a document can have, or not at this place.
    #[error("{}{what}", place(path))]
    Write {
        /// Where in the value, as `lines[3].customer`; empty for the whole.
        path: String,
        /// What cannot be.
        what: String,
    },
    /// There is no such object.
    #[error("there is no such object: {0}")]
    Object(String),
}

fn place(path: &str) -> String {
    match path {
        "" => String::new(),
        _ => format!("{path}: "),
    }
}

fn unreadable(fault: Fault) -> TypedError {
    let (path, what) = fault.told();
    TypedError::Read { path, what }
}

fn unwritable(fault: Fault) -> TypedError {
    let (path, what) = fault.told();
    TypedError::Write { path, what }
}

/// A value as what would be written. What is deeper than anybody could read is not.
fn tree_of(value: &(impl Serialize + ?Sized)) -> Result<Tree, TypedError> {
    let tree = value.serialize(Writer).map_err(unwritable)?;
    match tree.has_levels_within(DEPTH_MAX) {
        true => Ok(tree),
        false => Err(unwritable(Fault::new(format_args!(
            "deeper than {DEPTH_MAX} levels"
        )))),
    }
}

fn kind_of(document: &impl ReadDoc, object: &ObjId) -> Result<ObjType, TypedError> {
    let kind = document.object_type(object);
    kind.map_err(|error: AutomergeError| TypedError::Object(error.to_string()))
}

/// What an object of a document holds ([`ROOT`](automerge::ROOT): the whole document), as a value of
/// a type. Only what the type asks for is read.
///
/// # Errors
/// [`TypedError::Read`] when the object is not of this type, with the place; [`TypedError::Object`]
/// when it is not there.
pub fn read<T: DeserializeOwned>(document: &impl ReadDoc, object: &ObjId) -> Result<T, TypedError> {
    let kind = kind_of(document, object)?;
    let reader = Reader::of_object(document, object.clone(), kind);
    T::deserialize(reader).map_err(unreadable)
}

/// Makes an object of a document what a value says. What is there and the same is not touched, and
/// keys of maps that the value does not have stay.
///
/// # Errors
/// [`TypedError::Write`] when a document cannot hold the value, or this object, as its kind is another
/// one; [`TypedError::Object`] when it is not there. Then roll the transaction back: some of it may
/// be written.
pub fn write(
    tx: &mut impl Transactable,
    object: &ObjId,
    value: &(impl Serialize + ?Sized),
) -> Result<(), TypedError> {
    let kind = kind_of(tx, object)?;
    let after = tree_of(value)?;
    edit::whole(tx, object, kind, None, &after).map_err(unwritable)
}

/// Edits an object of a document as a value of a type: what is different afterwards is written, as
/// [above](self#what-an-update-writes). Gives what `edit` gives.
///
/// # Errors
/// As for [`read`] and [`write()`].
pub fn update<T: DeserializeOwned + Serialize, R>(
    tx: &mut impl Transactable,
    object: &ObjId,
    edit: impl FnOnce(&mut T) -> R,
) -> Result<R, TypedError> {
    let kind = kind_of(tx, object)?;
    let mut value: T = read(tx, object)?;
    let before = tree_of(&value)?;
    let result = edit(&mut value);
    let after = tree_of(&value)?;
    if before != after {
        edit::whole(tx, object, kind, Some(&before), &after).map_err(unwritable)?;
    }
    Ok(result)
}
