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
mod elements;
mod marks;
mod names;
mod record;
mod renamed;
mod saved;
mod step;
mod undoing;

pub(crate) use elements::{id_at, is_hidden};
pub(crate) use marks::mark;
pub(crate) use record::Record;
pub(crate) use renamed::Renamed;
pub(crate) use undoing::Undoing;

/// Names that an earlier host gave; `None` if these are none.
pub(crate) fn rename(bytes: &[u8], renamed: &mut Renamed) -> Option<()> {
    bytes::names_of(bytes, renamed)
}
