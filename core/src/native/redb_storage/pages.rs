//! Whether a page is what redb wrote, before redb sees it.
//!
//! redb's branch pages have the checksums of their children, and its header those of the roots, but
//! it looks at them only when it repairs a file. A damaged page that it reads makes it panic, twice
//! sometimes, which ends the process, or lose its way in silence. So the checksums are looked at
//! here, under redb, each time that a page comes from the disk: a page that is wrong is a failed
//! read, which redb takes well. Of its format (version 3, see its `docs/design.md`) this knows what
//! leads to checksums.
//!
//! What it knows of a page comes from that page's parent, which redb must have read before, or from
//! the page's own bytes when they were written by this process. It is bounded: of a file of which
//! very much is in use, some pages go unchecked.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Most pages of which something is known, at 13 to 27 bytes each.
const PAGES_MAX: usize = 1 << 20;

const PAGE_BYTES: u64 = 4096;

/// The largest page that redb makes, as a power of two.
const ORDER_MAX: u8 = 20;

const HEADER_BYTES: usize = 320;
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// Of the header's tenth byte: which slot counts, whether the file was not closed, and whether what
/// that slot names was on disk before it counted.
const PRIMARY: u8 = 1;
const UNCLEAN: u8 = 2;
const TWO_PHASES: u8 = 4;

/// What a commit slot is, in bytes; the last 16 are its checksum.
const SLOT_BYTES: usize = 128;
const SLOTS_AT: usize = 64;

/// Pages of a region in files that we make: redb's own choice for pages of 4 KiB.
const REGION_PAGES: u32 = 1 << 20;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// redb's placeholder for the checksum of a page that is not committed yet.
const DEFERRED: u128 = 999;

/// How keys and values lie in the pages of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    key_bytes: Option<u32>,
    value_bytes: Option<u32>,
    /// Its values name the roots of tables.
    names_tables: bool,
}

/// The tree of a database's tables, by name.
const TABLES: Shape = Shape {
    key_bytes: None,
    value_bytes: None,
    names_tables: true,
};

/// What is known of a page.
#[derive(Debug, Clone, Copy)]
struct Known {
    checksum: u32,
    /// Its size, as a power of two of [`PAGE_BYTES`].
    order: u8,
    /// The tree that it belongs to, as its place among the shapes plus one; zero if the checksum is
    /// that of all its bytes, as this process wrote them.
    shape: u8,
}

/// What is known of the pages of a file that is open.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: HashMap<u32, Known>,
    shapes: Vec<Shape>,
    /// The header was read.
    opened: bool,
    /// redb looks which of two commits is whole, and checks every page by itself: to it a failed
    /// read would be no answer.
    repairs: bool,
}

#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("the page at byte {0} is not what was written")]
    Page(u64),
    #[error("its header says what no file of ours does")]
    Header,
    #[error("its header names the last commit but one")]
    Older,
}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> Self {
        Self::new(io::ErrorKind::InvalidData, damage)
    }
}

impl Pages {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what was read at this offset.
    ///
    /// # Errors
    /// When it is not what was written.
    pub(super) fn check(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Bug::DamagePassedOn) {
            return Ok(());
        }
        if offset == 0 {
            return self.check_header(bytes);
        }
        let Some((number, order)) = place(offset, bytes.len()) else {
            return Ok(());
        };
        let (known, repairs) = {
            let state = self.state();
            (state.known.get(&number).copied(), state.repairs)
        };
        let Some(known) = known.filter(|known| known.order == order) else {
            return Ok(());
        };
        let damage = || io::Error::from(Damage::Page(offset));
        let Some(shape) = known.shape.checked_sub(1) else {
            let written = xxh3_64(bytes) as u32 == known.checksum;
            return written.then_some(()).ok_or_else(damage);
        };
        let shape = self.state().shapes[usize::from(shape)];
        let covered = end(bytes, shape).and_then(|end| bytes.get(..end));
        if covered.is_none_or(|covered| xxh3_128(covered) as u32 != known.checksum) {
            return repairs.then_some(()).ok_or_else(damage);
        }
        self.note_below(bytes, shape);
        Ok(())
    }

    /// Notes what was written at this offset.
    pub(super) fn wrote(&self, offset: u64, bytes: &[u8]) {
        if offset > 0 || bytes.get(9).is_some_and(|byte| byte & UNCLEAN == 0) {
            self.state().repairs = false;
        }
        if let Some((number, order)) = place(offset, bytes.len()).filter(|_| offset > 0) {
            let checksum = xxh3_64(bytes) as u32;
            let known = Known {
                checksum,
                order,
                shape: 0,
            };
            self.state().insert(number, known);
        }
    }

    /// Nothing is known of what is at this offset.
    pub(super) fn forget(&self, offset: u64) {
        if let Some((number, _)) = place(offset, PAGE_BYTES as usize) {
            self.state().known.remove(&number);
        }
    }

    /// Checks what redb takes for granted of the header, and notes the roots that it names.
    fn check_header(&self, bytes: &[u8]) -> io::Result<()> {
        // redb reads the magic number alone before, and says so if it is another.
        let Some(header) = bytes.get(..HEADER_BYTES).filter(|b| b.starts_with(&MAGIC)) else {
            return Ok(());
        };
        let number = |at: usize| u32_at(header, at).unwrap_or_default();
        if (number(12), number(16), number(20)) != (PAGE_BYTES as u32, 0, REGION_PAGES) {
            return Err(Damage::Header.into());
        }
        let primary = usize::from(header[9] & PRIMARY);
        let slots = [0, 1].map(|n| Slot::read(&header[SLOTS_AT + n * SLOT_BYTES..][..SLOT_BYTES]));
        // A commit that is written and does not count yet is what a crash leaves, never a close.
        if let [Some(newer), Some(primary)] = [&slots[1 - primary], &slots[primary]]
            && newer.transaction > primary.transaction
            && header[9] & UNCLEAN == 0
        {
            return Err(Damage::Older.into());
        }
        let mut state = self.state();
        if !std::mem::replace(&mut state.opened, true) {
            // Of two commits that are in question both must be there: in place of one whose slot is
            // damaged, redb takes an empty database.
            state.repairs = header[9] & TWO_PHASES == 0 && slots.iter().all(Option::is_some);
        }
        // The other slot's commit may be gone, and its pages be others' now.
        let other = slots[1 - primary].iter().flat_map(|slot| slot.roots);
        for root in other.flatten() {
            let is_known = |number: &u32| state.known.contains_key(number);
            if !root.place().is_some_and(|(number, _)| is_known(&number)) {
                state.note(root, TABLES);
            }
        }
        let counts = slots[primary].iter().flat_map(|slot| slot.roots);
        for root in counts.flatten() {
            state.note(root, TABLES);
        }
        Ok(())
    }

    /// Notes what a page that is right says of others.
    fn note_below(&self, page: &[u8], shape: Shape) {
        match page.first() {
            Some(&BRANCH) => {
                let mut state = self.state();
                for child in children(page) {
                    state.note(child, shape);
                }
            }
            Some(&LEAF) if shape.names_tables => {
                let mut state = self.state();
                for (root, shape) in tables(page) {
                    state.note(root, shape);
                }
            }
            _ => {}
        }
    }
}

impl State {
    fn insert(&mut self, number: u32, known: Known) {
        if self.known.len() >= PAGES_MAX && !self.known.contains_key(&number) {
            let mut at = 0;
            self.known.retain(|_, _| {
                at += 1;
                at % 4 > 0
            });
        }
        self.known.insert(number, known);
    }

    /// Notes what the parent of a page says of it, unless this process wrote the page: then the
    /// parent is older, or not finished.
    fn note(&mut self, child: Child, shape: Shape) {
        let Some((number, order)) = child.place() else {
            return;
        };
        if child.checksum == DEFERRED || self.known.get(&number).is_some_and(|it| it.shape == 0) {
            return;
        }
        let at = self.shapes.iter().position(|known| *known == shape);
        let at = at.unwrap_or_else(|| {
            self.shapes.push(shape);
            self.shapes.len() - 1
        });
        // redb and we have a dozen tables, of fewer shapes.
        let Ok(shape) = u8::try_from(at + 1) else {
            return;
        };
        let checksum = child.checksum as u32;
        let known = Known {
            checksum,
            order,
            shape,
        };
        self.insert(number, known);
    }
}

/// The number of the page at this offset, and its size as a power of two, if it is a page.
fn place(offset: u64, len: usize) -> Option<(u32, u8)> {
    let pages = len as u64 / PAGE_BYTES;
    let whole = offset.is_multiple_of(PAGE_BYTES) && pages.is_power_of_two();
    let whole = whole && pages * PAGE_BYTES == len as u64;
    let number = u32::try_from(offset / PAGE_BYTES).ok()?;
    whole.then_some((number, pages.trailing_zeros() as u8))
}

/// A page as another names it.
#[derive(Debug, Clone, Copy)]
struct Child {
    page: u64,
    checksum: u128,
}

impl Child {
    fn place(self) -> Option<(u32, u8)> {
        let order = (self.page >> 59) as u8;
        if order > ORDER_MAX {
            return None;
        }
        let index = self.page & (0xf_ffff >> order);
        let region = (self.page >> 20) & 0xf_ffff;
        // After the header, in regions of equal size.
        let number = 1 + region * u64::from(REGION_PAGES) + (index << order);
        Some((u32::try_from(number).ok()?, order))
    }
}

#[derive(Debug)]
struct Slot {
    roots: [Option<Child>; 2],
    transaction: u64,
}

impl Slot {
    /// A commit slot; `None` if it is damaged, which redb finds by itself.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (covered, checksum) = bytes.split_at_checked(SLOT_BYTES - 16)?;
        if xxh3_128(covered).to_le_bytes() != *checksum {
            return None;
        }
        let root = |is_there: usize, at: usize| {
            let is_there = covered.get(is_there).is_some_and(|byte| *byte != 0);
            is_there.then(|| child(covered, at, at + 8)).flatten()
        };
        Some(Self {
            roots: [root(1, 8), root(2, 40)],
            transaction: u64_at(covered, 104)?,
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

fn child(bytes: &[u8], page_at: usize, checksum_at: usize) -> Option<Child> {
    let checksum = bytes.get(checksum_at..)?.first_chunk()?;
    Some(Child {
        page: u64_at(bytes, page_at)?,
        checksum: u128::from_le_bytes(*checksum),
    })
}

/// Up to where a page's checksum covers it: the end of its last value, or of its last key.
fn end(page: &[u8], shape: Shape) -> Option<usize> {
    let n = usize::from(u16_at(page, 2)?);
    let last = n.checked_sub(1)?;
    match *page.first()? {
        LEAF => leaf_end(page, shape, n, last),
        BRANCH => {
            let keys_at = 8 + 24 * (n + 1);
            match shape.key_bytes {
                Some(bytes) => Some(keys_at + n * bytes as usize),
                None => Some(u32_at(page, keys_at + 4 * last)? as usize),
            }
        }
        _ => None,
    }
}

fn leaf_end(page: &[u8], shape: Shape, n: usize, last: usize) -> Option<usize> {
    let key_ends = if shape.key_bytes.is_none() { 4 * n } else { 0 };
    let Some(value_bytes) = shape.value_bytes else {
        return Some(u32_at(page, 4 + key_ends + 4 * last)? as usize);
    };
    let keys_end = match shape.key_bytes {
        Some(key_bytes) => 4 + n * key_bytes as usize,
        None => u32_at(page, 4 + 4 * last)? as usize,
    };
    keys_end.checked_add(n * value_bytes as usize)
}

/// The children of a branch page.
fn children(page: &[u8]) -> impl Iterator<Item = Child> {
    let n = usize::from(u16_at(page, 2).unwrap_or_default()) + 1;
    (0..n).filter_map(move |at| child(page, 8 + 16 * n + 8 * at, 8 + 16 * at))
}

/// The roots of the tables that a leaf of the tree of tables names.
fn tables(leaf: &[u8]) -> impl Iterator<Item = (Child, Shape)> {
    let n = usize::from(u16_at(leaf, 2).unwrap_or_default());
    (0..n).filter_map(move |at| {
        let value_end = |at: usize| Some(u32_at(leaf, 4 + 4 * n + 4 * at)? as usize);
        let start = match at.checked_sub(1) {
            Some(before) => value_end(before)?,
            None => u32_at(leaf, 4 + 4 * n.checked_sub(1)?)? as usize,
        };
        table(leaf.get(start..value_end(at)?)?)
    })
}

/// A table's root, and the shape of its tree; `None` if it has none, or is of a kind that we do not
/// use.
fn table(value: &[u8]) -> Option<(Child, Shape)> {
    const ONE_VALUE_PER_KEY: u8 = 3;
    let is_there = |at: usize| value.get(at).is_some_and(|byte| *byte != 0);
    if value.first() != Some(&ONE_VALUE_PER_KEY) || !is_there(9) {
        return None;
    }
    let width = |at: usize| match is_there(at) {
        true => u32_at(value, at + 1).map(Some),
        false => Some(None),
    };
    let shape = Shape {
        key_bytes: width(42)?,
        value_bytes: width(47)?,
        names_tables: false,
    };
    Some((child(value, 10, 18)?, shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition};
    use std::sync::Arc;

    const NUMBERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("numbers");
    const NAMES: TableDefinition<'_, &str, u64> = TableDefinition::new("names");
    const PAIRS: TableDefinition<'_, (u64, u32), u64> = TableDefinition::new("pairs");

    /// Counts the pages that are read, and those of them of which nothing is known.
    #[derive(Debug, Clone, Default)]
    struct Counting {
        memory: Arc<InMemoryBackend>,
        pages: Arc<Pages>,
        reads: Arc<Mutex<(u64, u64)>>,
    }

    impl StorageBackend for Counting {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.memory.read(offset, out)?;
            let mut reads = self.reads.lock().unwrap();
            if let Some((number, order)) = place(offset, out.len()).filter(|_| offset > 0) {
                let known = self.pages.state().known.get(&number).copied();
                reads.0 += 1;
                reads.1 += u64::from(known.is_none_or(|known| known.order != order));
            }
            self.pages.check(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.memory.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.memory.write(offset, data)?;
            self.pages.wrote(offset, data);
            Ok(())
        }
    }

    fn open(backend: &Counting) -> Database {
        let builder = &mut Builder::new();
        let builder = builder.set_cache_size(64 * 1024);
        builder.create_with_backend(backend.clone()).unwrap()
    }

    fn fill(database: &Database, from: u64) {
        for some in 0..20 {
            let transaction = database.begin_write().unwrap();
            {
                let mut numbers = transaction.open_table(NUMBERS).unwrap();
                let mut names = transaction.open_table(NAMES).unwrap();
                let mut pairs = transaction.open_table(PAIRS).unwrap();
                for n in 0..100 {
                    let n = from + 100 * some + n;
                    let bytes = vec![n as u8; (n * 37 % 3000) as usize];
                    numbers.insert(n % 900, bytes.as_slice()).unwrap();
                    names.insert(&*format!("name {n}"), n).unwrap();
                    pairs.insert((n, 7), n).unwrap();
                    pairs.remove((n / 2, 7)).unwrap();
                }
            }
            transaction.commit().unwrap();
        }
    }

    /// Every page that redb reads is one of which something is known: of its own, and of those that
    /// another process left.
    #[test]
    fn no_page_is_read_unchecked() {
        let backend = Counting::default();
        for run in 0..4 {
            let fresh = Counting {
                memory: backend.memory.clone(),
                ..Counting::default()
            };
            let mut database = open(&fresh);
            fill(&database, run * 2000);
            if run == 2 {
                database.compact().unwrap();
            }
            let read = database.begin_read().unwrap();
            let names = read.open_table(NAMES).unwrap();
            assert_eq!(
                names.range::<&str>(..).unwrap().count(),
                2000 * (run as usize + 1)
            );
            drop((names, read, database));
            let (reads, unknown) = *fresh.reads.lock().unwrap();
            assert!(reads > 100, "{reads} reads");
            assert_eq!(unknown, 0, "of {reads} reads, in run {run}");
        }
    }

    /// What the map has no room for goes unchecked, and nothing else changes.
    #[test]
    fn what_is_known_is_bounded() {
        let pages = Pages::default();
        let page = [1; PAGE_BYTES as usize];
        for number in 1..=PAGES_MAX as u64 + 1 {
            let known = Known {
                checksum: number as u32,
                order: 0,
                shape: 0,
            };
            pages.state().insert(number as u32, known);
        }
        assert!(pages.state().known.len() <= PAGES_MAX);
        pages.wrote(PAGE_BYTES, &page);
        pages.check(PAGE_BYTES, &page).unwrap();
        pages
            .check(PAGE_BYTES, &[2; PAGE_BYTES as usize])
            .unwrap_err();
    }
}
