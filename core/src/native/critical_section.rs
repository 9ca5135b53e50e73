//! What a thread does with documents, so that it never waits for itself, nor in a circle with another.
//!
//! A thread that reads may read again, this document or another one: then it waits for nobody but
//! those who edit, and they wait for nobody. All else would hang sooner or later, so it panics at once
//! and always.

use std::cell::Cell;

thread_local! {
    static DOES: Cell<Does> = const { Cell::new(Does::Nothing) };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Nothing,
    Read,
    Edit,
}

/// Until it is dropped, this thread reads or edits a document.
#[derive(Debug)]
pub(super) struct CriticalSection {
    before: Does,
}

impl CriticalSection {
    /// # Panics
    /// In an edit.
    pub(super) fn to_read() -> Self {
        let before = DOES.replace(Does::Read);
        if before == Does::Edit {
            DOES.set(before);
            panic!(
                "a document is read within an edit, which would wait for itself: read by the \
                 transaction, and other documents before the edit"
            );
        }
        Self { before }
    }

    /// # Panics
    /// In a read or an edit.
    pub(super) fn to_edit() -> Self {
        let before = DOES.get();
        assert!(
            before == Does::Nothing,
            "a document is edited within a read or an edit, which would wait for itself: edit it \
             afterwards"
        );
        DOES.set(Does::Edit);
        Self { before }
    }

    /// Whether this thread read something already.
    pub(super) fn is_nested(&self) -> bool {
        self.before == Does::Read
    }
}

impl Drop for CriticalSection {
    fn drop(&mut self) {
        DOES.set(self.before);
    }
}
