//! Disks that misbehave on command: a file whose syncs fail or hang, for a relay under live
//! clients; and a disk in memory that loses what was not synced, for every crash there is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use redb::backends::FileBackend;

/// What goes wrong with a [`FaultyFile`], changed while it is in use.
#[derive(Debug, Clone, Default)]
pub struct SyncFaults(Arc<(Mutex<SyncState>, Condvar)>);

#[derive(Debug, Default)]
struct SyncState {
    failing: u32,
    held: bool,
    full: bool,
    refused: u64,
}

impl SyncFaults {
    fn state(&self) -> MutexGuard<'_, SyncState> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `times` syncs fail.
    pub fn fail(&self, times: u32) {
        self.state().failing = times;
    }

    /// Syncs wait from now on.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Syncs that wait go on.
    pub fn release(&self) {
        self.state().held = false;
        self.0.1.notify_all();
    }

    /// From now on there is room for nothing, or there is again.
    pub fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// Waits until so many more writes were refused because there was no room.
    pub fn wait_for_refused(&self, times: u64) {
        let mut state = self.state();
        let enough = state.refused + times;
        while state.refused < enough {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether there is room; counts when there is none.
    fn has_room(&self) -> bool {
        let mut state = self.state();
        if state.full {
            state.refused += 1;
            self.0.1.notify_all();
        }
        !state.full
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        while state.held {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.failing > 0 {
            state.failing -= 1;
            return Err(io::Error::other("the disk failed to sync, as it was told"));
        }
        Ok(())
    }
}

/// A file whose syncs and room obey [`SyncFaults`].
#[derive(Debug)]
pub struct FaultyFile {
    file: FileBackend,
    faults: SyncFaults,
}

impl FaultyFile {
    /// Wraps an open file.
    ///
    /// # Panics
    /// When the file is in use.
    #[must_use]
    pub fn new(file: File, faults: SyncFaults) -> Self {
        Self {
            file: FileBackend::new(file).unwrap(),
            faults,
        }
    }
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.sync()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // The header is written in its old place.
        if offset > 0 && !self.faults.has_room() {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no room, as it was told",
            ));
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// What happens at the fatal operation of a [`Disk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and the disk works again afterwards.
    Fails,
    /// It and everything after it fails: the disk is gone until the machine starts again.
    Freezes,
}

/// What a crash leaves of the writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// Every one.
    All,
    /// None.
    None,
    /// Those that this seed picks.
    Some(u64),
}

/// What a disk has room for or not.
const PAGE_BYTES: usize = 4096;

/// A disk in memory. Clones are handles to the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    synced: Vec<u8>,
    now: Vec<u8>,
    unsynced: Vec<Change>,
    operations: u64,
    fatal: Option<(u64, Fault)>,
    struck: bool,
    /// From this operation on there is no room for pages that were never written.
    full_from: Option<u64>,
    /// The pages that were ever written.
    pages: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Len(len) => bytes.resize(*len, 0),
        Change::Write(offset, data) => {
            let end = offset + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(data);
        }
    }
}

impl Disk {
    /// A disk that has this on it.
    #[must_use]
    pub fn holding(bytes: Vec<u8>) -> Self {
        let state = DiskState {
            synced: bytes.clone(),
            now: bytes,
            ..DiskState::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms a fault at the n-th write, resize or sync from now, counted from 1.
    pub fn strike_at(&self, operation: u64, fault: Fault) {
        let mut state = self.state();
        state.fatal = Some((state.operations + operation, fault));
        state.struck = false;
    }

    /// Lets the disk be full from the n-th write, resize or sync on, counted from 1: what was never
    /// written cannot be. As on most disks, the rest goes on: old pages are written, the file's
    /// length changes, syncs succeed.
    pub fn fill_at(&self, operation: u64) {
        let mut state = self.state();
        state.full_from = Some(state.operations + operation);
    }

    /// There is room again.
    pub fn empty(&self) {
        self.state().full_from = None;
    }

    /// How many writes, resizes and syncs there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether the fault came about.
    #[must_use]
    pub fn struck(&self) -> bool {
        self.state().struck
    }

    /// The disk after a crash and a restart, with no fault armed.
    #[must_use]
    pub fn crash(&self, survivors: Survivors) -> Self {
        let state = self.state();
        let mut bytes = state.synced.clone();
        let mut random = match survivors {
            Survivors::Some(seed) => seed | 1,
            Survivors::All | Survivors::None => 1,
        };
        for change in &state.unsynced {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let survives = match survivors {
                Survivors::All => true,
                Survivors::None => false,
                Survivors::Some(_) => random & 1 == 0,
            };
            if survives {
                apply(&mut bytes, change);
            }
        }
        let fresh = DiskState {
            synced: bytes.clone(),
            now: bytes,
            ..DiskState::default()
        };
        Self(Arc::new(Mutex::new(fresh)))
    }

    fn operate(&self) -> io::Result<MutexGuard<'_, DiskState>> {
        let mut state = self.state();
        state.operations += 1;
        let fails = match state.fatal {
            Some((at, Fault::Fails)) => state.operations == at,
            Some((at, Fault::Freezes)) => state.operations >= at,
            None => false,
        };
        state.struck |= fails;
        if fails {
            Err(io::Error::other("the disk failed, as it was told"))
        } else {
            Ok(state)
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let offset = usize::try_from(offset).unwrap();
        let bytes = state.now.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.operate()?;
        let change = Change::Len(usize::try_from(len).unwrap());
        apply(&mut state.now, &change);
        state.unsynced.push(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.operate()?;
        state.synced = state.now.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.operate()?;
        let first = usize::try_from(offset).unwrap() / PAGE_BYTES;
        let pages = first
            ..(first * PAGE_BYTES + data.len())
                .div_ceil(PAGE_BYTES)
                .max(first + 1);
        let full = state.full_from.is_some_and(|from| state.operations >= from);
        if full && !pages.clone().all(|page| state.pages.contains(&page)) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no room, as it was told",
            ));
        }
        state.pages.extend(pages);
        let change = Change::Write(usize::try_from(offset).unwrap(), data.to_vec());
        apply(&mut state.now, &change);
        state.unsynced.push(change);
        Ok(())
    }
}
