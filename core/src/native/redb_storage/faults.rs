//! What redb says when something is wrong, and what it does: where its own structures are damaged
//! it panics, which is caught here.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::sync::Once;

use redb::{Database, DatabaseError};

use crate::storage::StorageError;

/// What an operator can do about it.
const DAMAGED: &str = "what redb keeps of its own in it is damaged. Keep a copy of the file and put \
    a backup in its place, or, to begin with an empty store that clients fill with what they have, \
    remove it";

pub(super) fn of_opening(error: DatabaseError) -> StorageError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StorageError::InUse,
        DatabaseError::Storage(error) => of_redb(error),
        other => damage_of_redb(other),
    }
}

/// What redb says of what it did: damage, or a disk that fails.
pub(super) fn of_redb(error: impl Into<redb::Error>) -> StorageError {
    match error.into() {
        redb::Error::Io(error) if is_damage(&error) => damage_of_redb(error),
        // The kinds of tables are part of what redb keeps.
        error @ (redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }) => damage_of_redb(error),
        other => StorageError::failed(other),
    }
}

pub(super) fn damage_of_redb(error: impl fmt::Display) -> StorageError {
    StorageError::Unusable {
        what: format!("{DAMAGED} ({error})"),
    }
}

fn is_damage(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
    )
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs what calls redb, which panics where its own structures are damaged; what that would print
/// is said by the error.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = std::panic::catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(outer);
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(damage_of_redb(text.unwrap_or("redb panicked")))
    })
}

/// A database whose closing panics where its file is damaged, which is caught.
pub(super) struct Closing(Option<Database>);

impl Closing {
    pub(super) fn new(database: Database) -> Self {
        Self(Some(database))
    }
}

impl Deref for Closing {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect("taken only when it is dropped")
    }
}

impl DerefMut for Closing {
    fn deref_mut(&mut self) -> &mut Database {
        self.0.as_mut().expect("taken only when it is dropped")
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let database = self.0.take();
        let _ = guarded(|| {
            drop(database);
            Ok(())
        });
    }
}
