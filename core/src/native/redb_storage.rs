//! [`Storage`] in one redb file, which `docs/internals/stored-format.md` describes.
//!
//! Commits are two-phase: peers choose the bytes that are stored, and redb's one-phase commit
//! trusts a checksum that is not cryptographic to tell a whole commit from a torn one. With
//! quick-repair, which implies two phases, opening after a crash does not read the whole file.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Bound, Deref, DerefMut, Range};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, StorageBackend, Table, TableDefinition, TableError, WriteTransaction,
};

use super::files::OpenHere;
use super::folder;
use super::space::{Change, Space};
use super::syncs::{Syncs, Watched};
use crate::history::chunk::{chunk_hash, chunk_is_whole};
use crate::history::{Quarantined, Record, Row, StoredChange, decode_heads, encode_heads};
use crate::id::DocumentId;
use crate::storage::{
    Acknowledged, BLOB_PIECE_BYTES, Batch, Blob, DocumentKey, Refused, Salvaged, Storage,
    StorageError, Stored, Write, damaged, pick, sealed,
};

/// The version of the file's layout. Version 1, without checksums, is read as it is; what is
/// written is of version 2, and so is a file from its first opening on.
pub const FORMAT: u64 = 2;

const FORMAT_OLDEST: u64 = 1;

/// This bit of a piece's number says that it is sealed; version 1 did not set it.
const SEALED: u32 = 1 << 31;

/// Memory that redb may use for pages, in bytes, unless told otherwise.
pub const CACHE_BYTES_DEFAULT: usize = 32 * 1024 * 1024;

type PieceKey = (u64, u8, u32, u32);

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const DOCUMENTS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("documents");
const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// Document, index of the row's last change, piece.
const ROWS: TableDefinition<'_, (u64, u32, u32), &[u8]> = TableDefinition::new("rows");
/// Document, kind, number, piece.
const BLOBS: TableDefinition<'_, PieceKey, &[u8]> = TableDefinition::new("blobs");

/// Document, a relay's name: the heads that it acknowledged. Clients only; made when first used,
/// as are the next two.
const ACKNOWLEDGED: TableDefinition<'_, (u64, &str), &[u8]> = TableDefinition::new("acknowledged");
/// Document, a relay's name: the changes that it does not take, as heads are stored, after their
/// length in four bytes; then why.
const REFUSED: TableDefinition<'_, (u64, &str), &[u8]> = TableDefinition::new("refused");
/// Documents with changes that some relay has not acknowledged.
const OUTBOX: TableDefinition<'_, &[u8], ()> = TableDefinition::new("outbox");

/// Documents of which something was damaged, and the keys under which that was left. Relays only;
/// made when first used.
const ASIDE: TableDefinition<'_, (&[u8], u64), ()> = TableDefinition::new("aside");

/// The key in `meta` of the relays for which the outbox speaks: their names, one a line.
const RELAYS: &str = "relays";

fn blob_key(blob: Blob) -> (u8, u32) {
    match blob {
        Blob::Snapshot(generation) => (1, generation),
        Blob::Outline(generation) => (2, generation),
        Blob::Segment(number) => (3, number),
        Blob::Quarantine(number) => (4, number),
    }
}

/// Opens the database again after a failure: redb refuses everything after the first one.
type Open = Box<dyn Fn() -> Result<Database, StorageError> + Send + Sync>;

/// A database whose closing panics where its file is damaged, which is caught.
struct Closing(Option<Database>);

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

/// A table that is written to. After a panic in redb, closing it would be a second one, which ends
/// the process.
struct Writing<T>(Option<T>);

impl<T> Default for Writing<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Drop for Writing<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

/// Tells the size of the file in bytes.
type Size = Box<dyn Fn() -> std::io::Result<u64> + Send + Sync>;

/// After a failure it is tried again at most so often; whoever commits meanwhile gets the same
/// error. Readers wait while the file is opened.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// Documents in one redb file.
pub struct RedbStorage {
    open: Open,
    size: Size,
    space: Mutex<Space>,
    database: RwLock<Opened>,
    syncs: Arc<Syncs>,
    storage_id: Arc<str>,
    next_key: AtomicU64,
    /// Damage was met where the file was to be made smaller, which is not tried again.
    damaged: AtomicBool,
    made: bool,
    /// The last to be dropped, when the file is closed.
    open_here: Option<OpenHere>,
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
        let database = Closing(Some(guarded(open)?));
        let (storage_id, space, run) = guarded(|| settle(&database, new_storage_id))?;
        Ok(Self {
            database,
            storage_id,
            space,
            run,
        })
    }
}

/// The keys of documents that come while it cannot be read which the last one was; a run of the
/// file has 2^32 of them.
const KEYS_APART: u64 = 1 << 63;

/// Whether the file's name still stands for the file that was opened first. Another one has other
/// documents, under keys that we may be about to use.
#[derive(Debug, Default)]
struct Same(OnceLock<u64>);

impl Same {
    /// The file's size in bytes.
    fn check(&self, path: &Path) -> std::io::Result<u64> {
        let file = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => std::io::Error::other(REMOVED),
            _ => error,
        })?;
        if *self.0.get_or_init(|| number_of(&file)) == number_of(&file) {
            Ok(file.len())
        } else {
            Err(std::io::Error::other(REPLACED))
        }
    }
}

#[cfg(unix)]
fn number_of(file: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(file)
}

#[cfg(not(unix))]
fn number_of(_: &std::fs::Metadata) -> u64 {
    0
}

/// What may be done with the file.
enum Opened {
    /// What is committed is on disk, and can be added to.
    Settled(Closing),
    /// What is committed is on disk, and nothing can be written, since then, for this reason: a full
    /// disk, most of the time.
    ReadOnly(Closing, Instant, StorageError),
    /// Not even that; since then, for this reason.
    Closed(Instant, StorageError),
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is a shell: how often a file is opened again depends on the clock"
)]
fn now() -> Instant {
    Instant::now()
}

impl Opened {
    fn to_read(&self) -> Result<&Database, StorageError> {
        match self {
            Self::Settled(database) | Self::ReadOnly(database, ..) => Ok(database),
            Self::Closed(_, error) => Err(error.clone()),
        }
    }

    fn to_write(&self) -> Result<&Database, StorageError> {
        match self {
            Self::Settled(database) => Ok(database),
            Self::ReadOnly(_, _, error) | Self::Closed(_, error) => Err(error.clone()),
        }
    }
}

impl fmt::Debug for RedbStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStorage")
            .field("storage_id", &self.storage_id)
            .finish_non_exhaustive()
    }
}

impl RedbStorage {
    /// Opens or makes the file, and gives back to the file system what the last run freed. When it
    /// returns, the file's name is on disk too: the last run may have died before that.
    ///
    /// `new_storage_id` names the storage if it is made now. `cache_bytes` bounds redb's page
    /// cache.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another process has the file; [`StorageError::Unusable`] if it is
    /// empty or damaged; when it cannot be opened, or has another format.
    pub fn open(
        path: &Path,
        cache_bytes: usize,
        new_storage_id: &str,
    ) -> Result<Self, StorageError> {
        Self::open_syncing(path, cache_bytes, new_storage_id, folder::sync)
    }

    pub(super) fn is_open_here(&mut self, open_here: OpenHere) {
        self.open_here = Some(open_here);
    }

    /// The same, with another way to put a folder's entries on disk.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_syncing(
        path: &Path,
        cache_bytes: usize,
        new_storage_id: &str,
        sync_folder: impl Fn(&Path) -> std::io::Result<()>,
    ) -> Result<Self, StorageError> {
        let made = match std::fs::metadata(path) {
            Ok(file) if !file.is_file() => return Err(unusable(path, "it is no file")),
            Ok(file) if file.len() == 0 => return Err(unusable(path, EMPTY)),
            Ok(_) => false,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if path.is_symlink() {
                    return Err(unusable(path, DANGLING));
                }
                make(path, new_storage_id)?;
                true
            }
            Err(error) => return Err(StorageError::failed(error)),
        };
        folder::sync_all(path, sync_folder).map_err(StorageError::failed)?;
        let syncs = Arc::new(Syncs::default());
        let same = Arc::new(Same::default());
        let open = {
            let (path, syncs, same) = (path.to_owned(), syncs.clone(), same.clone());
            move || {
                same.check(&path).map_err(|e| unusable(&path, e))?;
                open_file(&path, cache_bytes, &syncs)
            }
        };
        let file: PathBuf = path.to_owned();
        let size = move || same.check(&file);
        let name = path.display().to_string();
        let opened = Self::with(Box::new(open), Box::new(size), syncs, new_storage_id);
        let mut storage = opened.map_err(|error| match error {
            StorageError::Unusable { what } if !what.starts_with(&name) => unusable(path, what),
            other => other,
        })?;
        storage.made = made;
        Ok(storage)
    }

    /// The same on any backend of redb. `backend` is called again after a failure, and then must
    /// give the same bytes; `size` tells how many it has, also while it is in use.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn with_backend<B: StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
        size: impl Fn() -> std::io::Result<u64> + Send + Sync + 'static,
        cache_bytes: usize,
        new_storage_id: &str,
    ) -> Result<Self, StorageError> {
        let syncs = Arc::new(Syncs::default());
        let open = {
            let syncs = syncs.clone();
            move || {
                let backend = Watched::new(backend(), syncs.clone());
                let opened = Builder::new()
                    .set_cache_size(cache_bytes)
                    .create_with_backend(backend);
                opened.map_err(of_opening)
            }
        };
        Self::with(Box::new(open), Box::new(size), syncs, new_storage_id)
    }

    fn with(
        open: Open,
        size: Size,
        syncs: Arc<Syncs>,
        new_storage_id: &str,
    ) -> Result<Self, StorageError> {
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
        let next_key = AtomicU64::new(next_key);
        Ok(Self {
            open,
            size,
            space: Mutex::new(space),
            database: RwLock::new(Opened::Settled(database)),
            syncs,
            storage_id,
            next_key,
            damaged: AtomicBool::new(damaged),
            made: false,
            open_here: None,
        })
    }

    /// Whether there was no file, so that an empty one was made.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.made
    }

    fn database(&self) -> RwLockReadGuard<'_, Opened> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Self::read`] for what belongs to one document: where redb's own structure is damaged, so is
    /// that document.
    fn read_of<T>(
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

    fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if matches!(&*self.database(), Opened::Closed(..)) {
            self.reopen_if_due();
        }
        let result = {
            let opened = self.database();
            let database = opened.to_read()?;
            guarded(|| read(&database.begin_read().map_err(of_redb)?))
        };
        // redb refuses everything after one read that failed, and a panic may leave its locks
        // poisoned.
        if let Err(StorageError::Failed(_) | StorageError::Unusable { .. }) = &result {
            self.reopen();
        }
        result
    }

    /// Opens the database anew, and makes sure that what it shows now is on disk: a failed sync
    /// may have left in the system's cache what the disk has not got. If that cannot be done
    /// because nothing can be written, and no sync failed, then what it shows is what the last
    /// successful commit left, and it is read from as it is.
    fn reopen(&self) {
        let mut opened = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // The file is locked while it is open.
        *opened = Opened::Closed(now(), StorageError::failed(Reopening));
        let error = match Settled::open(&self.open, &self.storage_id) {
            Ok(settled) => {
                self.syncs.settled();
                *self.space() = settled.space;
                *opened = Opened::Settled(settled.database);
                return;
            }
            Err(error) => error,
        };
        let shown = guarded(&self.open).and_then(|database| {
            let database = Closing(Some(database));
            self.syncs.sync()?;
            Ok(database)
        });
        *opened = match shown {
            Ok(database) => Opened::ReadOnly(database, now(), error),
            Err(_) => Opened::Closed(now(), error),
        };
    }

    /// Opens the database again if it must be and the last attempt is a while ago.
    fn reopen_if_due(&self) {
        let due = match &*self.database() {
            Opened::Settled(_) => false,
            Opened::ReadOnly(_, since, _) | Opened::Closed(since, _) => {
                now().duration_since(*since) >= REOPEN_AFTER
            }
        };
        if due {
            self.reopen();
        }
    }

    /// What a table has of a document, by the names of relays.
    fn by_relay<T>(
        &self,
        key: DocumentKey,
        table: TableDefinition<'_, (u64, &'static str), &'static [u8]>,
        decode: impl Fn(&[u8]) -> Option<T>,
        what: &'static str,
    ) -> Result<Vec<(Arc<str>, T)>, StorageError> {
        self.read_of(key.0, |transaction| {
            let read = || -> Result<Vec<_>, redb::Error> {
                let table = match transaction.open_table(table) {
                    Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                    opened => opened?,
                };
                let entries = table.range((key.0, "")..(key.0 + 1, ""))?;
                entries
                    .map(|entry| {
                        let (place, bytes) = entry?;
                        let relay = place.value().1;
                        let value = sealed::unseal(&relay_place(key.0, relay), bytes.value());
                        Ok((Arc::from(relay), value.and_then(&decode)))
                    })
                    .collect()
            };
            let entries = read().map_err(of_redb)?;
            let whole = |(relay, value): (Arc<str>, Option<T>)| Some((relay, value?));
            let whole: Option<Vec<_>> = entries.into_iter().map(whole).collect();
            whole.ok_or_else(|| damaged(key.0, what))
        })
    }

    fn try_commit(&self, batches: &[Batch]) -> Result<Change, StorageError> {
        let opened = self.database();
        let database = opened.to_write()?;
        guarded(|| {
            let transaction = begin(database)?;
            let change = apply(&transaction, batches).map_err(of_redb)?;
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

    /// Makes the file smaller, if that is worth the pause.
    fn give_back(&self) -> Result<(), StorageError> {
        let file = (self.size)().map_err(StorageError::failed)?;
        if !self.space().is_worth_a_pause(file) || self.damaged.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Opened::Settled(database) = &mut *database {
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
impl Drop for RedbStorage {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.database().to_write().is_ok() {
            let _ = self.give_back();
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the database is being opened again after a failure")]
struct Reopening;

/// What an operator can do about a file that is not as we left it.
const EMPTY: &str = "it is empty. A store is given its name when it is whole, so something else \
    emptied or made this file: put a backup in its place, or, to begin with an empty store, \
    remove it";
const DANGLING: &str = "it is a link to a file that is not there. Is a volume not mounted? To \
    begin with an empty store, remove the link";
const REMOVED: &str =
    "the file was removed or renamed while it was in use; put it back, or restart";
const REPLACED: &str = "another file was put in its place while it was in use; put it back, or \
    restart";
const DAMAGED: &str = "what redb keeps of its own in it is damaged. Keep a copy of the file and put \
    a backup in its place, or, to begin with an empty store that clients fill with what they have, \
    remove it";

fn unusable(path: &Path, what: impl fmt::Display) -> StorageError {
    StorageError::Unusable {
        what: format!("{}: {what}", path.display()),
    }
}

fn open_file(
    path: &Path,
    cache_bytes: usize,
    syncs: &Arc<Syncs>,
) -> Result<Database, StorageError> {
    create_file(path, cache_bytes, false, syncs)
}

fn create_file(
    path: &Path,
    cache_bytes: usize,
    new: bool,
    syncs: &Arc<Syncs>,
) -> Result<Database, StorageError> {
    let mut options = std::fs::File::options();
    options.read(true).write(true).create_new(new);
    let file = options.open(path).map_err(StorageError::failed)?;
    if !new && file.metadata().map_err(StorageError::failed)?.len() == 0 {
        // While we had it, too.
        return Err(unusable(path, EMPTY));
    }
    let backend = FileBackend::new(file).map_err(of_opening)?;
    let opened = Builder::new()
        .set_cache_size(cache_bytes)
        .create_with_backend(Watched::new(backend, syncs.clone()));
    opened.map_err(|error| match of_opening(error) {
        StorageError::Unusable { what } => unusable(path, what),
        other => other,
    })
}

fn of_opening(error: DatabaseError) -> StorageError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StorageError::InUse,
        DatabaseError::Storage(error) => of_redb(error),
        other => damage_of_redb(other),
    }
}

/// What redb says of what it did: damage, or a disk that fails.
fn of_redb(error: impl Into<redb::Error>) -> StorageError {
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

fn damage_of_redb(error: impl fmt::Display) -> StorageError {
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
fn guarded<T>(run: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
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

fn begin(database: &Database) -> Result<WriteTransaction, StorageError> {
    let mut transaction = database.begin_write().map_err(of_redb)?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(of_redb)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn store_live(transaction: &WriteTransaction, live: u64) -> Result<(), redb::Error> {
    let mut meta = Writing::default();
    opened(&mut meta, transaction, META)?.insert("live", live.to_be_bytes().as_slice())?;
    Ok(())
}

/// Makes the tables of a new file, checks those of an old one, and commits in any case. Also gives
/// how often the file was opened.
fn settle(
    database: &Database,
    new_storage_id: &str,
) -> Result<(Arc<str>, Space, u64), StorageError> {
    let transaction = begin(database)?;
    let settled = (|| -> Result<_, redb::Error> {
        let mut meta = Writing::default();
        let meta = opened(&mut meta, &transaction, META)?;
        let format = meta.get("format")?.map(|bytes| bytes.value().to_vec());
        let known = meta.get("storage-id")?.map(|bytes| bytes.value().to_vec());
        let runs = meta.get("runs")?.map(|bytes| bytes.value().to_vec());
        let live = meta.get("live")?.map(|bytes| bytes.value().to_vec());
        // What cannot be read is left as it is, below.
        if format
            .as_deref()
            .map_or(FORMAT_OLDEST, |bytes| number(Some(bytes)))
            < FORMAT
        {
            meta.insert("format", FORMAT.to_be_bytes().as_slice())?;
        }
        if known.is_none() {
            meta.insert("storage-id", new_storage_id.as_bytes())?;
        }
        // A commit that changes something, so that it reaches the disk.
        let run = number(runs.as_deref()) + 1;
        meta.insert("runs", run.to_be_bytes().as_slice())?;
        transaction.open_table(DOCUMENTS)?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(ROWS)?;
        transaction.open_table(BLOBS)?;
        let known = known.and_then(|bytes| String::from_utf8(bytes).ok());
        let storage_id = known.unwrap_or_else(|| new_storage_id.to_owned());
        Ok((format, storage_id, number(live.as_deref()), run))
    })();
    let (format, storage_id, live, run) = settled.map_err(of_redb)?;
    let found = format.map_or(FORMAT, |bytes| number(Some(&bytes)));
    if !(FORMAT_OLDEST..=FORMAT).contains(&found) {
        return Err(StorageError::Format {
            found,
            expected: FORMAT,
        });
    }
    transaction.commit().map_err(of_redb)?;
    Ok((storage_id.into(), Space::stored(live), run))
}

fn read_record(key: u64, document: &DocumentId, stored: &[u8]) -> Option<Record> {
    Record::decode(sealed::unseal(&record_place(key, document), stored)?)
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

fn last_key(database: &Database) -> Result<u64, StorageError> {
    let read = || -> Result<u64, redb::Error> {
        let records = database.begin_read()?.open_table(RECORDS)?;
        Ok(records.last()?.map_or(0, |(key, _)| key.value()))
    };
    read().map_err(of_redb)
}

/// Makes the file under another name and renames it when it is whole: a crash while redb makes a
/// file leaves one that it does not open.
fn make(path: &Path, storage_id: &str) -> Result<(), StorageError> {
    let unfinished = path.with_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StorageError::failed(error));
        }
        _ => {}
    }
    let syncs = Arc::new(Syncs::default());
    let database = create_file(&unfinished, CACHE_BYTES_DEFAULT, true, &syncs)?;
    settle(&database, storage_id)?;
    drop(database);
    let publish = || -> std::io::Result<()> {
        std::fs::File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    publish().map_err(StorageError::failed)
}

fn apply(transaction: &WriteTransaction, batches: &[Batch]) -> Result<Change, redb::Error> {
    let mut change = Change::default();
    // Most commits only add rows, and each table that is opened costs the commit a page.
    let (mut rows, mut blobs) = (Writing::default(), Writing::default());
    let (mut records, mut documents) = (Writing::default(), Writing::default());
    let (mut acknowledged, mut refusals) = (Writing::default(), Writing::default());
    let (mut outbox, mut aside) = (Writing::default(), Writing::default());
    for batch in batches {
        let key = batch.key.0;
        for write in &batch.writes {
            match write {
                Write::Record(record) => {
                    opened(&mut documents, transaction, DOCUMENTS)?
                        .insert(batch.document.as_bytes(), key)?;
                    let place = record_place(key, &batch.document);
                    let bytes = sealed::seal(&place, &record.encode());
                    change.added += Change::entry(&bytes);
                    let old = opened(&mut records, transaction, RECORDS)?
                        .insert(key, bytes.as_slice())?;
                    change.removed += old.map_or(0, |old| Change::entry(old.value()));
                }
                Write::Row { last, row } => {
                    let rows = opened(&mut rows, transaction, ROWS)?;
                    let place = |piece| row_place(key, *last, piece);
                    for (piece, bytes) in pieces(&row.encode(), place) {
                        rows.insert((key, *last, piece), bytes.as_slice())?;
                        change.added += Change::entry(&bytes);
                    }
                }
                Write::Blob(blob, bytes) => {
                    let (kind, number) = blob_key(*blob);
                    let blobs = opened(&mut blobs, transaction, BLOBS)?;
                    let place = |piece| blob_place(key, kind, number, piece);
                    for (piece, bytes) in pieces(bytes, place) {
                        blobs.insert((key, kind, number, piece), bytes.as_slice())?;
                        change.added += Change::entry(&bytes);
                    }
                }
                Write::RemoveBlob(blob) => {
                    let (kind, number) = blob_key(*blob);
                    let all = (key, kind, number, 0)..=(key, kind, number, u32::MAX);
                    opened(&mut blobs, transaction, BLOBS)?.retain_in(all, |_, value| {
                        change.removed += Change::entry(value);
                        false
                    })?;
                }
                Write::RemoveRowsBelow(index) => {
                    let below = (key, 0, 0)..(key, *index, 0);
                    opened(&mut rows, transaction, ROWS)?.retain_in(below, |_, value| {
                        change.removed += Change::entry(value);
                        false
                    })?;
                }
                Write::RemoveRowsFrom(index) => {
                    let from = (key, *index, 0)..=(key, u32::MAX, u32::MAX);
                    opened(&mut rows, transaction, ROWS)?.retain_in(from, |_, value| {
                        change.removed += Change::entry(value);
                        false
                    })?;
                }
                Write::Acknowledged { relay, heads } => {
                    let bytes = sealed::seal(&relay_place(key, relay), &encode_heads(heads));
                    opened(&mut acknowledged, transaction, ACKNOWLEDGED)?
                        .insert((key, &**relay), bytes.as_slice())?;
                }
                Write::Refused { relay, refused } => {
                    let refusals = opened(&mut refusals, transaction, REFUSED)?;
                    match refused {
                        Some(refused) => {
                            let bytes = sealed::seal(&relay_place(key, relay), &refused.encode());
                            refusals.insert((key, &**relay), bytes.as_slice())?;
                        }
                        None => drop(refusals.remove((key, &**relay))?),
                    }
                }
                Write::Outbox(true) => {
                    opened(&mut outbox, transaction, OUTBOX)?
                        .insert(batch.document.as_bytes(), ())?;
                }
                Write::Outbox(false) => {
                    opened(&mut outbox, transaction, OUTBOX)?.remove(batch.document.as_bytes())?;
                }
                Write::SetAside => {
                    let documents = opened(&mut documents, transaction, DOCUMENTS)?;
                    let before = documents.get(batch.document.as_bytes())?;
                    if let Some(before) = before.map(|key| key.value()) {
                        let place = (batch.document.as_bytes(), before);
                        opened(&mut aside, transaction, ASIDE)?.insert(place, ())?;
                    }
                }
                Write::RemoveDocument | Write::RemoveContents => {
                    let id = batch.document.as_bytes();
                    let is_all = matches!(write, Write::RemoveDocument);
                    let mut keys = vec![key];
                    if is_all {
                        opened(&mut documents, transaction, DOCUMENTS)?.remove(id)?;
                        let all = (id, 0)..=(id, u64::MAX);
                        opened(&mut aside, transaction, ASIDE)?.retain_in(
                            all,
                            |(_, key), ()| {
                                keys.push(key);
                                false
                            },
                        )?;
                    }
                    opened(&mut outbox, transaction, OUTBOX)?.remove(id)?;
                    let mut gone = |value: &[u8]| {
                        change.removed += Change::entry(value);
                        false
                    };
                    let (quarantine, _) = blob_key(Blob::Quarantine(0));
                    for key in keys {
                        let record = opened(&mut records, transaction, RECORDS)?.remove(key)?;
                        if let Some(record) = record {
                            gone(record.value());
                        }
                        let all_rows = (key, 0, 0)..=(key, u32::MAX, u32::MAX);
                        opened(&mut rows, transaction, ROWS)?
                            .retain_in(all_rows, |_, value| gone(value))?;
                        let all_blobs = (key, 0, 0, 0)..=(key, u8::MAX, u32::MAX, u32::MAX);
                        opened(&mut blobs, transaction, BLOBS)?.retain_in(
                            all_blobs,
                            |(_, kind, ..), value| {
                                let stays = !is_all && kind == quarantine;
                                stays || gone(value)
                            },
                        )?;
                        opened(&mut acknowledged, transaction, ACKNOWLEDGED)?
                            .retain_in((key, "")..(key + 1, ""), |_, _| false)?;
                        opened(&mut refusals, transaction, REFUSED)?
                            .retain_in((key, "")..(key + 1, ""), |_, _| false)?;
                    }
                }
            }
        }
    }
    Ok(change)
}

/// The table, opened at its first use.
fn opened<'a, 't, K: redb::Key + 'static, V: redb::Value + 'static>(
    table: &'a mut Writing<Table<'t, K, V>>,
    transaction: &'t WriteTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<&'a mut Table<'t, K, V>, TableError> {
    if table.0.is_none() {
        table.0 = Some(transaction.open_table(definition)?);
    }
    Ok(table.0.as_mut().expect("opened above"))
}

fn record_place(key: u64, document: &DocumentId) -> Vec<u8> {
    let mut place = vec![b'r'];
    place.extend_from_slice(&key.to_le_bytes());
    place.extend_from_slice(document.as_bytes());
    place
}

fn relay_place(key: u64, relay: &str) -> Vec<u8> {
    let mut place = vec![b'a'];
    place.extend_from_slice(&key.to_le_bytes());
    place.extend_from_slice(relay.as_bytes());
    place
}

fn row_place(key: u64, last: u32, piece: u32) -> [u8; 17] {
    let mut place = [b'w'; 17];
    place[1..9].copy_from_slice(&key.to_le_bytes());
    place[9..13].copy_from_slice(&last.to_le_bytes());
    place[13..].copy_from_slice(&piece.to_le_bytes());
    place
}

fn blob_place(key: u64, kind: u8, number: u32, piece: u32) -> [u8; 18] {
    let mut place = [b'b'; 18];
    place[1..9].copy_from_slice(&key.to_le_bytes());
    place[9] = kind;
    place[10..14].copy_from_slice(&number.to_le_bytes());
    place[14..].copy_from_slice(&piece.to_le_bytes());
    place
}

/// Cuts a value into numbered pieces and seals each; an empty one is one empty piece. redb rounds
/// the pages of large values up to a power of two.
fn pieces<P: AsRef<[u8]>>(
    bytes: &[u8],
    place: impl Fn(u32) -> P,
) -> impl Iterator<Item = (u32, Vec<u8>)> {
    let empty = bytes.is_empty().then_some(bytes);
    let mut pieces = empty
        .into_iter()
        .chain(bytes.chunks(BLOB_PIECE_BYTES))
        .peekable();
    let mut number = 0;
    std::iter::from_fn(move || {
        let piece = pieces.next()?;
        let at = number | SEALED;
        number += 1;
        let is_last = pieces.peek().is_none();
        Some((at, sealed::seal_piece(place(at).as_ref(), piece, is_last)))
    })
}

/// A value that is put together from its pieces, in order.
#[derive(Debug, Default)]
struct Whole {
    bytes: BytesMut,
    pieces: u32,
    /// Each piece has its checksum.
    sealed: bool,
    /// The last one came.
    ended: bool,
    damaged: bool,
}

impl Whole {
    fn add(&mut self, number: u32, place: &[u8], stored: &[u8]) {
        let is_sealed = number & SEALED != 0;
        self.damaged |= number & !SEALED != self.pieces;
        self.damaged |= self.pieces > 0 && (is_sealed != self.sealed || self.ended);
        self.sealed = is_sealed;
        self.pieces += 1;
        if !is_sealed {
            self.bytes.extend_from_slice(stored);
        } else if let Some((piece, is_last)) = sealed::unseal_piece(place, stored) {
            self.bytes.extend_from_slice(piece);
            self.ended = is_last;
        } else {
            self.damaged = true;
        }
    }

    /// The value, and whether its checksum was seen to be right; `None` if it is damaged.
    fn finish(self) -> Option<(Bytes, bool)> {
        let whole = !self.damaged && (self.ended || !self.sealed);
        whole.then(|| (self.bytes.freeze(), self.sealed))
    }
}

/// A blob; `None` if there is none.
fn read_blob(
    transaction: &ReadTransaction,
    key: DocumentKey,
    blob: Blob,
) -> Result<Option<Bytes>, StorageError> {
    let (kind, number) = blob_key(blob);
    let read = || -> Result<_, redb::Error> {
        let blobs = transaction.open_table(BLOBS)?;
        let mut whole = Whole::default();
        for piece in blobs.range((key.0, kind, number, 0)..=(key.0, kind, number, u32::MAX))? {
            let (at, bytes) = piece?;
            let piece = at.value().3;
            whole.add(
                piece,
                &blob_place(key.0, kind, number, piece),
                bytes.value(),
            );
        }
        Ok(whole)
    };
    let whole = read().map_err(of_redb)?;
    if whole.pieces == 0 {
        return Ok(None);
    }
    let (bytes, is_checked) = whole.finish().ok_or_else(|| damaged(key.0, blob.name()))?;
    // Of version 1, only chunks have a checksum, which is their own.
    if !is_checked && matches!(blob, Blob::Snapshot(_)) && !chunk_is_whole(&bytes) {
        return Err(damaged(key.0, blob.name()));
    }
    Ok(Some(bytes))
}

/// Reads the rows whose last change has at least the index `from`, until `enough` says so.
fn read_rows(
    transaction: &ReadTransaction,
    key: DocumentKey,
    from: u32,
    mut each: impl FnMut(u32, Row) -> bool,
) -> Result<(), StorageError> {
    let mut whole = Whole::default();
    let mut of = None;
    let mut next = from;
    let mut decode = |last: u32, whole: Whole| -> Result<bool, StorageError> {
        let row = whole.finish().and_then(|(bytes, is_checked)| {
            let row = Row::decode(&bytes)?;
            // Of version 1, only chunks have a checksum, which is their own.
            let is_whole = |change: &StoredChange| chunk_hash(&change.bytes) == Some(change.hash);
            (is_checked || row.changes.iter().all(is_whole)).then_some(row)
        });
        let row = row.ok_or_else(|| damaged(key.0, "a row of changes"))?;
        // The changes that come next are in it, or a row before it is gone.
        let first = (last as usize + 1).checked_sub(row.changes.len());
        if row.changes.is_empty() || first.is_none_or(|first| first > next as usize) {
            return Err(damaged(key.0, "a row of changes is missing"));
        }
        next = last + 1;
        Ok(each(last, row))
    };
    let rows = transaction.open_table(ROWS).map_err(of_redb)?;
    let range = rows.range((key.0, from, 0)..=(key.0, u32::MAX, u32::MAX));
    for piece in range.map_err(of_redb)? {
        let (place, bytes) = piece.map_err(of_redb)?;
        let (_, last, piece) = place.value();
        if let Some(before) = of.filter(|of| *of != last)
            && !decode(before, std::mem::take(&mut whole))?
        {
            return Ok(());
        }
        of = Some(last);
        whole.add(piece, &row_place(key.0, last, piece), bytes.value());
    }
    if let Some(last) = of {
        decode(last, whole)?;
    }
    Ok(())
}

impl Storage for RedbStorage {
    fn storage_id(&self) -> Arc<str> {
        self.storage_id.clone()
    }

    fn new_key(&self) -> DocumentKey {
        DocumentKey(self.next_key.fetch_add(1, Ordering::Relaxed))
    }

    fn load(&self, document: &DocumentId) -> Result<Option<Stored>, StorageError> {
        self.read_of(document, |transaction| {
            let place = || -> Result<_, redb::Error> {
                let documents = transaction.open_table(DOCUMENTS)?;
                let Some(key) = documents.get(document.as_bytes())?.map(|key| key.value()) else {
                    return Ok(None);
                };
                let records = transaction.open_table(RECORDS)?;
                let record = records.get(key)?;
                let record = record.and_then(|bytes| read_record(key, document, bytes.value()));
                Ok(Some((DocumentKey(key), record)))
            };
            let Some((key, record)) = place().map_err(of_redb)? else {
                return Ok(None);
            };
            let record = record.ok_or_else(|| damaged(document, "its record"))?;
            let outline = match record.generation {
                0 => None,
                generation => read_blob(transaction, key, Blob::Outline(generation))?,
            };
            let mut rows = Vec::new();
            read_rows(transaction, key, record.folded, |_, row| {
                rows.push(row);
                true
            })?;
            Ok(Some(Stored {
                key,
                record,
                outline,
                rows,
            }))
        })
    }

    fn blob(&self, key: DocumentKey, blob: Blob) -> Result<Bytes, StorageError> {
        let found = self.read_of(key.0, |transaction| read_blob(transaction, key, blob))?;
        found.ok_or_else(|| damaged(key.0, "a blob is missing"))
    }

    fn changes(&self, key: DocumentKey, ranges: &[Range<u32>]) -> Result<Vec<Bytes>, StorageError> {
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let end = last.end;
        self.read_of(key.0, |transaction| {
            read_rows(transaction, key, first.start, |last, row| {
                pick(&row, last, ranges, &mut found);
                last + 1 < end
            })
        })?;
        let wanted: usize = ranges.iter().map(Range::len).sum();
        if found.len() == wanted {
            Ok(found)
        } else {
            Err(damaged(key.0, "a change is missing"))
        }
    }

    fn blob_piece(&self, key: DocumentKey, blob: Blob, number: u32) -> Result<Bytes, StorageError> {
        let (kind, of) = blob_key(blob);
        let found = self.read_of(key.0, |transaction| {
            let read = || -> Result<_, redb::Error> {
                let blobs = transaction.open_table(BLOBS)?;
                let sealed = number | SEALED;
                if let Some(piece) = blobs.get((key.0, kind, of, sealed))? {
                    let place = blob_place(key.0, kind, of, sealed);
                    let piece = sealed::unseal_piece(&place, piece.value());
                    return Ok(piece.map(|(piece, _)| Bytes::copy_from_slice(piece)));
                }
                if let Some(piece) = blobs.get((key.0, kind, of, number))? {
                    return Ok(Some(Bytes::copy_from_slice(piece.value())));
                }
                // After the last one, if there is any.
                let before = number.checked_sub(1);
                let is_after = match before {
                    Some(before) => match blobs.get((key.0, kind, of, before | SEALED))? {
                        Some(piece) => {
                            let place = blob_place(key.0, kind, of, before | SEALED);
                            sealed::unseal_piece(&place, piece.value()).is_some_and(|last| last.1)
                        }
                        None => blobs.get((key.0, kind, of, 0))?.is_some(),
                    },
                    None => false,
                };
                Ok(is_after.then(Bytes::new))
            };
            read().map_err(of_redb)
        })?;
        found.ok_or_else(|| damaged(key.0, blob.name()))
    }

    fn rows(
        &self,
        key: DocumentKey,
        from: u32,
        bytes: usize,
    ) -> Result<Vec<(u32, Row)>, StorageError> {
        let (mut rows, mut found) = (Vec::new(), 0);
        self.read_of(key.0, |transaction| {
            read_rows(transaction, key, from, |last, row| {
                found += row.bytes();
                rows.push((last, row));
                found < bytes
            })
        })?;
        Ok(rows)
    }

    fn acknowledged(&self, key: DocumentKey) -> Result<Vec<Acknowledged>, StorageError> {
        self.by_relay(key, ACKNOWLEDGED, decode_heads, "acknowledged heads")
    }

    fn refused(&self, key: DocumentKey) -> Result<Vec<(Arc<str>, Refused)>, StorageError> {
        self.by_relay(key, REFUSED, Refused::decode, "a refusal")
    }

    fn outbox(&self) -> Result<Vec<DocumentId>, StorageError> {
        self.read(|transaction| {
            let read = || -> Result<Vec<_>, redb::Error> {
                let outbox = match transaction.open_table(OUTBOX) {
                    Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                    opened => opened?,
                };
                let entries = outbox.iter()?;
                entries
                    .map(|entry| Ok(DocumentId::new(entry?.0.value()).ok()))
                    .collect()
            };
            let ids: Option<Vec<_>> = read().map_err(of_redb)?.into_iter().collect();
            ids.ok_or_else(|| damaged("outbox", "a document's id"))
        })
    }

    fn documents(
        &self,
        after: Option<&DocumentId>,
        max: usize,
    ) -> Result<Vec<DocumentId>, StorageError> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes()));
        self.read(|transaction| {
            let read = || -> Result<Vec<_>, redb::Error> {
                let documents = transaction.open_table(DOCUMENTS)?;
                let entries = documents.range::<&[u8]>((from, Bound::Unbounded))?;
                let ids = entries.take(max);
                ids.map(|entry| Ok(DocumentId::new(entry?.0.value()).ok()))
                    .collect()
            };
            let ids: Option<Vec<_>> = read().map_err(of_redb)?.into_iter().collect();
            ids.ok_or_else(|| damaged("documents", "a document's id"))
        })
    }

    fn name_relays(&self, relays: &[Arc<str>]) -> Result<(), StorageError> {
        let mut relays = relays.to_vec();
        relays.sort_unstable();
        relays.dedup();
        let named = self.read(|transaction| {
            let read = || -> Result<_, redb::Error> {
                let named = transaction.open_table(META)?.get(RELAYS)?;
                Ok(named.map_or_else(String::new, |names| {
                    String::from_utf8_lossy(names.value()).into_owned()
                }))
            };
            read().map_err(of_redb)
        })?;
        let lines = relays.join("\n");
        if lines == named {
            return Ok(());
        }
        let is_new = |relay: &Arc<str>| named.lines().all(|line| *line != **relay);
        let all = relays.iter().any(is_new);
        let file = self.database();
        let database = file.to_write()?;
        guarded(|| {
            let transaction = begin(database)?;
            let write = || -> Result<(), redb::Error> {
                let (mut meta, mut outbox) = (Writing::default(), Writing::default());
                let mut documents = Writing::default();
                opened(&mut meta, &transaction, META)?.insert(RELAYS, lines.as_bytes())?;
                if all {
                    let outbox = opened(&mut outbox, &transaction, OUTBOX)?;
                    for entry in opened(&mut documents, &transaction, DOCUMENTS)?.iter()? {
                        outbox.insert(entry?.0.value(), ())?;
                    }
                }
                Ok(())
            };
            write().map_err(of_redb)?;
            transaction.commit().map_err(of_redb)
        })
    }

    fn salvage(&self, document: &DocumentId) -> Result<Salvaged, StorageError> {
        let mut salvaged = Salvaged::default();
        for key in self.keys_of(document)? {
            self.salvage_key(document, key, &mut salvaged);
        }
        Ok(salvaged)
    }

    fn aside(&self, document: &DocumentId) -> Result<Vec<Bytes>, StorageError> {
        let mut salvaged = Salvaged::default();
        for key in self.keys_aside(document)? {
            self.salvage_rows(key, &mut salvaged);
        }
        Ok(salvaged.changes)
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StorageError> {
        self.reopen_if_due();
        self.database().to_write()?;
        let committed = self.try_commit(batches);
        let settled = match &committed {
            Ok(change) if change.removed > 0 => self.give_back(),
            Ok(_) => Ok(()),
            Err(error) => Err(error.clone()),
        };
        if settled.is_err() {
            // The next caller finds out whether that helped.
            self.reopen();
        }
        committed.map(|_| ())
    }
}

/// What is whole of documents that are damaged. Each value is read by itself, as far as redb finds
/// its way.
impl RedbStorage {
    /// The keys of what was set aside of a document, oldest first.
    fn keys_aside(&self, document: &DocumentId) -> Result<Vec<u64>, StorageError> {
        self.read_of(document, |transaction| {
            let read = || -> Result<Vec<_>, redb::Error> {
                let aside = match transaction.open_table(ASIDE) {
                    Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                    opened => opened?,
                };
                let id = document.as_bytes();
                let keys = aside.range((id, 0)..=(id, u64::MAX))?;
                keys.map(|entry| Ok(entry?.0.value().1)).collect()
            };
            read().map_err(of_redb)
        })
    }

    /// The same, and its key now.
    fn keys_of(&self, document: &DocumentId) -> Result<Vec<u64>, StorageError> {
        let mut keys = self.keys_aside(document).unwrap_or_default();
        let now = self.read_of(document, |transaction| {
            let read = || -> Result<_, redb::Error> {
                let documents = transaction.open_table(DOCUMENTS)?;
                Ok(documents.get(document.as_bytes())?.map(|key| key.value()))
            };
            read().map_err(of_redb)
        })?;
        keys.extend(now);
        Ok(keys)
    }

    fn salvage_key(&self, document: &DocumentId, key: u64, salvaged: &mut Salvaged) {
        let record = self.read_of(key, |transaction| {
            let read = || -> Result<_, redb::Error> {
                let records = transaction.open_table(RECORDS)?;
                let record = records.get(key)?;
                Ok(record.and_then(|bytes| read_record(key, document, bytes.value())))
            };
            read().map_err(of_redb)
        });
        if let Ok(Some(record)) = record {
            salvaged.space = Some(record.space);
        }
        let numbers = self.read_of(key, |transaction| {
            let read = || -> Result<BTreeSet<(u8, u32)>, redb::Error> {
                let blobs = transaction.open_table(BLOBS)?;
                let all = blobs.range((key, 0, 0, 0)..=(key, u8::MAX, u32::MAX, u32::MAX))?;
                let number = |place: PieceKey| (place.1, place.2);
                all.map(|entry| Ok(number(entry?.0.value()))).collect()
            };
            read().map_err(of_redb)
        });
        for (kind, number) in numbers.unwrap_or_default() {
            let blob = match kind {
                1 => Blob::Snapshot(number),
                4 => Blob::Quarantine(number),
                _ => continue,
            };
            match (blob, self.blob(DocumentKey(key), blob)) {
                (Blob::Snapshot(_), Ok(snapshot)) => salvaged.snapshot = Some(snapshot),
                (_, Ok(lot)) => {
                    let lot = Quarantined::decode(&lot).unwrap_or_default();
                    salvaged.quarantined.extend(lot);
                }
                (_, Err(_)) => {}
            }
        }
        self.salvage_rows(key, salvaged);
    }

    fn salvage_rows(&self, key: u64, salvaged: &mut Salvaged) {
        let mut from = Some(0);
        while let Some(next) = from {
            let found = self.read_of(key, |transaction| {
                let mut last = None;
                let rows = transaction.open_table(ROWS).map_err(of_redb)?;
                let mut of_document = rows
                    .range((key, next, 0)..=(key, u32::MAX, u32::MAX))
                    .map_err(of_redb)?;
                if let Some(place) = of_document.next() {
                    last = Some(place.map_err(of_redb)?.0.value().1);
                }
                Ok(last)
            });
            let Ok(Some(last)) = found else {
                return;
            };
            let row = self.read_of(key, |transaction| {
                let mut row = None;
                // From its own index on, so that no gap before it counts.
                let read = read_rows(transaction, DocumentKey(key), last, |_, found| {
                    row = Some(found);
                    false
                });
                read.map(|()| row)
            });
            if let Ok(Some(row)) = row {
                salvaged
                    .changes
                    .extend(row.changes.into_iter().map(|change| change.bytes));
            }
            from = last.checked_add(1);
        }
    }
}

impl RedbStorage {
    /// The documents that have quarantined changes, and how many lots of them.
    ///
    /// # Errors
    /// When reading fails or finds damage.
    pub fn quarantined(&self) -> Result<Vec<(DocumentId, DocumentKey, u32)>, StorageError> {
        self.read(|transaction| {
            let read = || -> Result<_, redb::Error> {
                let records = transaction.open_table(RECORDS)?;
                let mut found = Vec::new();
                for entry in transaction.open_table(DOCUMENTS)?.iter()? {
                    let (document, key) = entry?;
                    let key = key.value();
                    let document = DocumentId::new(document.value());
                    let record = match &document {
                        Ok(document) => records
                            .get(key)?
                            .and_then(|bytes| read_record(key, document, bytes.value())),
                        Err(_) => None,
                    };
                    found.push((document, DocumentKey(key), record));
                }
                Ok(found)
            };
            let mut quarantined = Vec::new();
            for (document, key, record) in read().map_err(of_redb)? {
                let document = document.map_err(|_| damaged(key.0, "its id"))?;
                let record = record.ok_or_else(|| damaged(document, "its record"))?;
                if record.quarantined > 0 {
                    quarantined.push((document, key, record.quarantined));
                }
            }
            Ok(quarantined)
        })
    }

    /// Bytes of what is stored, without redb's own structure and free pages.
    ///
    /// # Errors
    /// When reading fails.
    pub fn live_bytes(&self) -> Result<u64, StorageError> {
        self.read(|transaction| {
            let sum = || -> Result<u64, redb::Error> {
                let mut bytes = 0;
                for table in transaction.list_tables()? {
                    let table = transaction.open_untyped_table(table)?;
                    bytes += table.stats()?.stored_bytes();
                }
                Ok(bytes)
            };
            sum().map_err(of_redb)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    #[test]
    fn redb_keeps_the_contract() {
        crate::storage::conformance::check(|| {
            let storage =
                RedbStorage::with_backend(InMemoryBackend::new, || Ok(0), 1 << 20, "redb");
            Arc::new(storage.unwrap())
        });
    }
}
