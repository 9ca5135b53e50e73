//! A database that is opened again after a fault: redb refuses everything after the first one.
//!
//! Before anything is read then, a commit proves that the disk has what the file shows: a sync that
//! failed may have left it in the system's cache alone. On a full disk no commit succeeds; if no sync
//! failed, the file is read from as it is, and written to when there is room again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::faults::{Closing, guarded, of_redb};
use super::format::{last_key, settle, store_live};
use super::space::{Change, Space};
use super::syncs::Syncs;
use super::transaction::begin;
use crate::storage::{StorageError, damaged};

/// Opens the database, again and again.
pub(super) type Open = Box<dyn Fn() -> Result<Database, StorageError> + Send + Sync>;

/// Tells the size of the file in bytes.
pub(super) type Size = Box<dyn Fn() -> std::io::Result<u64> + Send + Sync>;

/// After a failure it is tried again at most so often; whoever commits meanwhile gets the same
/// error. Readers wait while the file is opened.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// The keys of documents that come while it cannot be read which the last one was; a run of the
/// file has 2^32 of them.
const KEYS_APART: u64 = 1 << 63;

/// A database that recovers from faults. See the module's page.
pub(super) struct RecoveringDatabase {
    open: Open,
    size: Size,
    space: Mutex<Space>,
    state: RwLock<State>,
    syncs: Arc<Syncs>,
    storage_id: Arc<str>,
    /// Damage was met where the file was to be made smaller, which is not tried again.
    damaged: AtomicBool,
}

/// What may be done with the file.
enum State {
    /// What is committed is on disk, and can be added to.
    Writable(Closing),
    /// What is committed is on disk, and nothing can be written, since then, for this reason: a full
    /// disk, most of the time.
    ReadOnly(Closing, Instant, StorageError),
    /// Not even that; since then, for this reason.
    Closed(Instant, StorageError),
}

impl State {
    fn to_read(&self) -> Result<&Database, StorageError> {
        match self {
            Self::Writable(database) | Self::ReadOnly(database, ..) => Ok(database),
            Self::Closed(_, error) => Err(error.clone()),
        }
    }

    fn to_write(&self) -> Result<&Database, StorageError> {
        match self {
            Self::Writable(database) => Ok(database),
            Self::ReadOnly(_, _, error) | Self::Closed(_, error) => Err(error.clone()),
        }
    }
}

/// A database that is open, and committed to since.
struct Settled {
    database: Closing,
    storage_id: Arc<str>,
    space: Space,
    /// How often it was opened.
    run: u64,
}

impl Settled {
    fn open(open: &Open, new_storage_id: &str) -> Result<Self, StorageError> {
        let database = Closing::new(guarded(open)?);
        let (storage_id, space, run) = guarded(|| settle(&database, new_storage_id))?;
        Ok(Self {
            database,
            storage_id,
            space,
            run,
        })
    }
}

impl RecoveringDatabase {
    /// Opens it for the first time, and makes the file smaller if that pays. Also gives a key that no
    /// document has, nor any above it.
    pub(super) fn open(
        open: Open,
        size: Size,
        syncs: Arc<Syncs>,
        new_storage_id: &str,
    ) -> Result<(Self, u64), StorageError> {
        let mut settled = Settled::open(&open, new_storage_id)?;
        let file = || size().map_err(StorageError::failed);
        let mut damaged = false;
        if settled.space.is_sparse(file()?) {
            let database = &mut settled.database;
            match guarded(|| database.compact().map_err(of_redb)) {
                Ok(_) => settled.space.compacted(file()?),
                // The file stays as large as it is, and what is whole in it is served.
                Err(StorageError::Unusable { .. }) => {
                    damaged = true;
                    drop(settled);
                    settled = Settled::open(&open, new_storage_id)?;
                }
                Err(error) => return Err(error),
            }
        }
        let next_key = match guarded(|| last_key(&settled.database)) {
            Ok(last) => last + 1,
            // The others can be read, so new ones need keys that none of them has.
            Err(StorageError::Unusable { .. }) => {
                drop(settled);
                settled = Settled::open(&open, new_storage_id)?;
                KEYS_APART | settled.run << 32
            }
            Err(error) => return Err(error),
        };
        let Settled {
            database,
            storage_id,
            space,
            ..
        } = settled;
        let opened = Self {
            open,
            size,
            space: Mutex::new(space),
            state: RwLock::new(State::Writable(database)),
            syncs,
            storage_id,
            damaged: AtomicBool::new(damaged),
        };
        Ok((opened, next_key))
    }

    /// The name of the storage, which lies in the file.
    pub(super) fn storage_id(&self) -> &Arc<str> {
        &self.storage_id
    }

    /// [`Self::read`] for what belongs to one document: where redb's own structure is damaged, so is
    /// that document.
    pub(super) fn read_of<T>(
        &self,
        document: impl ToString,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.read(read).map_err(|error| match error {
            StorageError::Unusable { .. } => {
                damaged(document, "what redb keeps of its own around it")
            }
            other => other,
        })
    }

    /// Reads in one transaction.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if matches!(&*self.state(), State::Closed(..)) {
            self.reopen_if_due();
        }
        let result = {
            let state = self.state();
            let database = state.to_read()?;
            guarded(|| read(&database.begin_read().map_err(of_redb)?))
        };
        // redb refuses everything after one read that failed, and a panic may leave its locks
        // poisoned.
        if let Err(StorageError::Failed(_) | StorageError::Unusable { .. }) = &result {
            self.reopen();
        }
        result
    }

    /// Writes in one transaction, which is on disk when this returns.
    pub(super) fn write(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<Change, redb::Error>,
    ) -> Result<(), StorageError> {
        self.reopen_if_due();
        self.state().to_write()?;
        let committed = self.commit(write);
        let settled = match &committed {
            Ok(change) if change.frees() => self.give_back(),
            Ok(_) => Ok(()),
            Err(error) => Err(error.clone()),
        };
        if settled.is_err() {
            // The next caller finds out whether that helped.
            self.reopen();
        }
        committed.map(|_| ())
    }

    fn commit(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<Change, redb::Error>,
    ) -> Result<Change, StorageError> {
        let state = self.state();
        let database = state.to_write()?;
        guarded(|| {
            let transaction = begin(database)?;
            let change = write(&transaction).map_err(of_redb)?;
            let after = self.space().after(change);
            if let (live, true) = after {
                store_live(&transaction, live).map_err(of_redb)?;
            }
            // What is written to a file without a name is gone with us.
            (self.size)().map_err(StorageError::failed)?;
            transaction.commit().map_err(of_redb)?;
            self.space().committed(after);
            Ok(change)
        })
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the database anew, and makes sure that what it shows now is on disk: a failed sync
    /// may have left in the system's cache what the disk has not got. If that cannot be done
    /// because nothing can be written, and no sync failed, then what it shows is what the last
    /// successful commit left, and it is read from as it is.
    fn reopen(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // The file is locked while it is open.
        *state = State::Closed(now(), StorageError::failed(Reopening));
        let error = match Settled::open(&self.open, &self.storage_id) {
            Ok(settled) => {
                self.syncs.settled();
                *self.space() = settled.space;
                *state = State::Writable(settled.database);
                return;
            }
            Err(error) => error,
        };
        let shown = guarded(&self.open).and_then(|database| {
            let database = Closing::new(database);
            self.syncs.sync()?;
            Ok(database)
        });
        *state = match shown {
            Ok(database) => State::ReadOnly(database, now(), error),
            Err(_) => State::Closed(now(), error),
        };
    }

    /// Opens the database again if it must be and the last attempt is a while ago.
    fn reopen_if_due(&self) {
        let due = match &*self.state() {
            State::Writable(_) => false,
            State::ReadOnly(_, since, _) | State::Closed(since, _) => {
                now().duration_since(*since) >= REOPEN_AFTER
            }
        };
        if due {
            self.reopen();
        }
    }

    /// Makes the file smaller, if that is worth the pause.
    fn give_back(&self) -> Result<(), StorageError> {
        let file = (self.size)().map_err(StorageError::failed)?;
        if !self.space().is_worth_a_pause(file) || self.damaged.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if let State::Writable(database) = &mut *state {
            let compacted = guarded(|| database.compact().map_err(of_redb));
            if let Err(StorageError::Unusable { .. }) = compacted {
                self.damaged.store(true, Ordering::Relaxed);
            }
            compacted?;
        }
        let file = (self.size)().map_err(StorageError::failed)?;
        self.space().compacted(file);
        Ok(())
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// redb doubles a file that is full, also for a commit that frees nothing and gives nothing back.
impl Drop for RecoveringDatabase {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.state().to_write().is_ok() {
            let _ = self.give_back();
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the database is being opened again after a failure")]
struct Reopening;

#[expect(
    clippy::disallowed_methods,
    reason = "this is a shell: how often a file is opened again depends on the clock"
)]
fn now() -> Instant {
    Instant::now()
}
