//! Aim: nothing that a commit acknowledged is ever lost, whatever the disk does.
//! Method: a script of commits runs on a disk in memory that, at its n-th operation, fails or
//! freezes; then the machine crashes, and of the writes that were not synced all, none, or a
//! seeded part survive. For every n of the script; then again with a second crash while the file
//! is being opened. Beside it: the file's name, and a disk that is full.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use automerge::ChangeHash;
use bytes::Bytes;
use reconverge::history::{Objects, Record, Row, StoredChange};
use reconverge::id::{DocumentId, Space};
use reconverge::native::RedbStorage;
use reconverge::storage::{Batch, Blob, DocumentKey, Storage, StorageError, Write};
use reconverge_tests::faults::{Disk, Fault, Survivors};
use redb::StorageBackend;

const CACHE_BYTES: usize = 1 << 20;
const DOCUMENTS: u8 = 3;

/// What was written of each document: the rows in order, and the snapshot's generation.
type Written = BTreeMap<u8, (u32, u32)>;

fn id(n: u8) -> DocumentId {
    DocumentId::new(&[n + 1; 16]).unwrap()
}

fn row(index: u32, size: usize) -> Row {
    let bytes = Bytes::from(vec![index as u8; size]);
    let hash = ChangeHash([index as u8; 32]);
    let parents = index.checked_sub(1).into_iter().collect();
    Row {
        changes: vec![StoredChange {
            hash,
            parents,
            max_op: index + 1,
            objects: Objects::default(),
            bytes,
        }],
    }
}

fn open(disk: &Disk) -> Result<RedbStorage, StorageError> {
    let (disk, file) = (disk.clone(), disk.clone());
    RedbStorage::with_backend(
        move || disk.clone(),
        move || file.len(),
        CACHE_BYTES,
        "crashes",
    )
}

/// The script's n-th commit: a row for one or two documents, now and then a large one or a new
/// snapshot. What is acknowledged is entered into `acknowledged`, what was tried into `tried`.
fn commit(
    storage: &RedbStorage,
    keys: &mut BTreeMap<u8, DocumentKey>,
    n: u32,
    acknowledged: &mut Written,
    tried: &mut Written,
) -> Result<(), StorageError> {
    let documents = [
        (n % u32::from(DOCUMENTS)) as u8,
        ((n / 3) % u32::from(DOCUMENTS)) as u8,
    ];
    let mut after = acknowledged.clone();
    let mut batches = Vec::new();
    for document in documents
        .iter()
        .take(if documents[0] == documents[1] { 1 } else { 2 })
    {
        let key = *keys.entry(*document).or_insert_with(|| storage.new_key());
        let (rows, generation) = after.entry(*document).or_default();
        let size = if n % 7 == 3 { 80_000 } else { 100 };
        let mut writes = vec![Write::Row {
            last: *rows,
            row: row(*rows, size),
        }];
        *rows += 1;
        if n % 5 == 4 {
            *generation += 1;
            let snapshot = Bytes::from(vec![*generation as u8; 70_000]);
            writes.push(Write::Blob(Blob::Snapshot(*generation), snapshot));
            writes.push(Write::RemoveBlob(Blob::Snapshot(*generation - 1)));
        }
        let mut record = Record::new(Space::default());
        record.generation = *generation;
        writes.push(Write::Record(record));
        batches.push(Batch {
            document: id(*document),
            key,
            writes,
        });
    }
    tried.clone_from(&after);
    storage.commit(&batches)?;
    acknowledged.clone_from(&after);
    Ok(())
}

/// A disk with an empty storage on it. Making the file is not part of the crash: the relay makes it
/// under another name and renames it when it is whole.
fn made() -> Disk {
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    disk
}

/// What the storage really holds; panics when a document is torn.
fn read(storage: &RedbStorage) -> Written {
    let mut found = Written::new();
    for document in 0..DOCUMENTS {
        let Some(stored) = storage.load(&id(document)).unwrap() else {
            continue;
        };
        for (index, row) in stored.rows.iter().enumerate() {
            assert_eq!(
                row.changes[0].hash.0[0], index as u8,
                "rows in order, without a gap"
            );
        }
        let generation = stored.record.generation;
        if generation > 0 {
            let snapshot = storage
                .blob(stored.key, Blob::Snapshot(generation))
                .unwrap();
            assert_eq!(
                snapshot,
                vec![generation as u8; 70_000],
                "the record's own snapshot"
            );
            assert!(
                storage
                    .blob(stored.key, Blob::Snapshot(generation - 1))
                    .is_err()
            );
        }
        found.insert(document, (stored.rows.len() as u32, generation));
    }
    found
}

/// Runs the script until a commit fails or `commits` are done, with one more attempt afterwards,
/// as the group commit makes it. The acknowledged state and the one that was last tried.
fn run(disk: &Disk, commits: u32) -> (Written, Written) {
    let (mut acknowledged, mut tried) = (Written::new(), Written::new());
    let Ok(storage) = open(disk) else {
        return (acknowledged, tried);
    };
    let mut keys = BTreeMap::new();
    for n in 0..commits {
        if commit(&storage, &mut keys, n, &mut acknowledged, &mut tried).is_err() {
            // Tried alone once more; the disk may have recovered.
            let _ = commit(&storage, &mut keys, n, &mut acknowledged, &mut tried);
            break;
        }
    }
    (acknowledged, tried)
}

const COMMITS: u32 = 14;

fn all_survivors(seed: u64) -> [Survivors; 3] {
    [Survivors::All, Survivors::None, Survivors::Some(seed)]
}

fn check(found: &Written, acknowledged: &Written, tried: &Written, case: &str) {
    assert!(
        found == acknowledged || found == tried,
        "{case}: {found:?}, acknowledged {acknowledged:?}, tried {tried:?}"
    );
}

#[test]
fn whatever_operation_fails_nothing_acknowledged_is_lost() {
    let whole = made();
    let made_by = whole.operations();
    let (acknowledged, _) = run(&whole, COMMITS);
    assert_eq!(
        read(&open(&whole.crash(Survivors::None)).unwrap()),
        acknowledged
    );
    let operations = whole.operations() - made_by;
    assert!(operations >= 200, "the script has {operations} operations");
    let mut struck = 0;
    for n in 1..=operations {
        for fault in [Fault::Fails, Fault::Freezes] {
            let disk = made();
            disk.strike_at(n, fault);
            let (acknowledged, tried) = run(&disk, COMMITS);
            struck += u32::from(disk.struck());
            for survivors in all_survivors(n * 0x9e37_79b9) {
                let case = format!("operation {n} {fault:?}, unsynced writes kept: {survivors:?}");
                let storage =
                    open(&disk.crash(survivors)).unwrap_or_else(|e| panic!("{case}: {e}"));
                check(&read(&storage), &acknowledged, &tried, &case);
            }
        }
    }
    assert!(
        u64::from(struck) >= operations,
        "faults came about: {struck}"
    );
}

#[test]
fn a_second_crash_while_the_file_is_opened_loses_nothing_either() {
    let whole = made();
    run(&whole, COMMITS);
    for n in (1..=whole.operations()).step_by(9) {
        let disk = made();
        disk.strike_at(n, Fault::Freezes);
        let (acknowledged, tried) = run(&disk, COMMITS);
        let crashed = disk.crash(Survivors::Some(n));
        for again in 1..=12 {
            let second = crashed.crash(Survivors::All);
            second.strike_at(again, Fault::Freezes);
            drop(open(&second));
            for survivors in all_survivors(n + again) {
                let case = format!("operation {n}, then {again} of opening, kept: {survivors:?}");
                let third = second.crash(survivors);
                let storage = open(&third).unwrap_or_else(|e| panic!("{case}: {e}"));
                check(&read(&storage), &acknowledged, &tried, &case);
            }
        }
    }
}

#[test]
fn a_disk_that_recovers_is_written_to_again() {
    let disk = made();
    let storage = open(&disk).unwrap();
    let (mut keys, mut acknowledged, mut tried) = Default::default();
    disk.strike_at(3, Fault::Fails);
    assert!(
        commit(&storage, &mut keys, 0, &mut acknowledged, &mut tried).is_err(),
        "is reported"
    );
    commit(&storage, &mut keys, 0, &mut acknowledged, &mut tried).unwrap();
    assert_eq!(read(&storage), acknowledged);
}

/// Commits a snapshot of `bytes` bytes in the place of the one before.
fn replace_snapshot(
    storage: &RedbStorage,
    key: DocumentKey,
    generation: u32,
    bytes: usize,
) -> Result<(), StorageError> {
    let mut record = Record::new(Space::default());
    record.generation = generation;
    let snapshot = Bytes::from(vec![generation as u8; bytes]);
    let writes = vec![
        Write::Blob(Blob::Snapshot(generation), snapshot),
        Write::RemoveBlob(Blob::Snapshot(generation.saturating_sub(1))),
        Write::Record(record),
    ];
    storage.commit(&[Batch {
        document: id(0),
        key,
        writes,
    }])
}

#[test]
fn a_file_with_little_alive_is_made_smaller_whatever_happens_meanwhile() {
    const LARGE: usize = 8_000_000;
    const SMALL: usize = 100_000;
    let full = made();
    let storage = open(&full).unwrap();
    let key = storage.new_key();
    replace_snapshot(&storage, key, 1, LARGE).unwrap();
    drop(storage);
    let large = full.len().unwrap();
    assert!(large > LARGE as u64);

    // Without a fault.
    let disk = full.crash(Survivors::All);
    let storage = open(&disk).unwrap();
    let opened = disk.operations();
    replace_snapshot(&storage, key, 2, SMALL).unwrap();
    let small = disk.len().unwrap();
    println!(
        "{large} bytes before, {small} after, in {} operations",
        disk.operations() - opened
    );
    assert!(small < 3 * SMALL as u64 + 4 * 1024 * 1024);
    assert_eq!(storage.blob(key, Blob::Snapshot(2)).unwrap().len(), SMALL);
    let operations = disk.operations() - opened;

    for n in 1..=operations {
        for fault in [Fault::Fails, Fault::Freezes] {
            let disk = full.crash(Survivors::All);
            let storage = open(&disk).unwrap();
            disk.strike_at(n, fault);
            let replaced = replace_snapshot(&storage, key, 2, SMALL);
            assert!(disk.struck(), "operation {n} {fault:?}");
            if let (Fault::Fails, Ok(())) = (fault, &replaced) {
                assert_eq!(storage.blob(key, Blob::Snapshot(2)).unwrap().len(), SMALL);
            }
            drop(storage);
            for survivors in all_survivors(n) {
                let case = format!("operation {n} {fault:?}, kept: {survivors:?}");
                let storage =
                    open(&disk.crash(survivors)).unwrap_or_else(|e| panic!("{case}: {e}"));
                let stored = storage.load(&id(0)).unwrap().unwrap();
                let generation = stored.record.generation;
                assert!(
                    generation == 2 || (generation == 1 && replaced.is_err()),
                    "{case}: generation {generation} after {replaced:?}"
                );
                let snapshot = storage.blob(key, Blob::Snapshot(generation)).unwrap();
                let bytes = if generation == 1 { LARGE } else { SMALL };
                assert_eq!(snapshot, vec![generation as u8; bytes], "{case}");
            }
        }
    }
}

/// Aim: a file that grew in its last commits, which freed nothing, is in proportion when it is closed.
/// Method: the store learns of its file's size only then.
#[test]
fn a_file_that_grew_last_is_made_smaller_when_it_is_closed() {
    const LARGE: usize = 8_000_000;
    const SMALL: usize = 100_000;
    let (disk, known) = (Disk::default(), Arc::new(AtomicBool::new(false)));
    let (backend, file, known_to_store) = (disk.clone(), disk.clone(), known.clone());
    let size = move || match known_to_store.load(Relaxed) {
        true => file.len(),
        false => Ok(0),
    };
    let storage =
        RedbStorage::with_backend(move || backend.clone(), size, CACHE_BYTES, "crashes").unwrap();
    let key = storage.new_key();
    replace_snapshot(&storage, key, 1, LARGE).unwrap();
    replace_snapshot(&storage, key, 2, SMALL).unwrap();
    let large = disk.len().unwrap();
    assert!(large > LARGE as u64);

    known.store(true, Relaxed);
    drop(storage);
    let small = disk.len().unwrap();
    println!("{large} bytes before, {small} after");
    assert!(small < 3 * SMALL as u64 + 4 * 1024 * 1024);
    let storage = open(&disk).unwrap();
    assert_eq!(storage.blob(key, Blob::Snapshot(2)).unwrap().len(), SMALL);
}

/// Aim: a file that is served from has a name on disk. Method: the run that makes the file dies
/// between its renaming and the folder's sync, or that fails; the next one has to sync the folder
/// and those above it, which the relay may have made too, before it serves.
#[test]
fn whoever_opens_the_file_puts_its_name_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().canonicalize().unwrap().join("made/data");
    std::fs::create_dir_all(&own).unwrap();
    let file = own.join("reconverge.redb");
    let open = |fails: bool, synced: &mut Vec<PathBuf>| {
        let synced = std::cell::RefCell::new(synced);
        RedbStorage::open_syncing(&file, CACHE_BYTES, "names", |folder| {
            // The file has its name before the name is synced.
            assert!(file.exists());
            synced.borrow_mut().push(folder.to_owned());
            if fails {
                return Err(std::io::Error::from_raw_os_error(5));
            }
            std::fs::File::open(folder)?.sync_all()
        })
    };
    for _ in 0..2 {
        // Not even what is there already is served while the name cannot be made safe.
        let failed = open(true, &mut Vec::new()).unwrap_err();
        assert!(failed.to_string().contains("os error 5"), "{failed}");
        assert!(file.exists());
    }
    for _ in 0..2 {
        let mut synced = Vec::new();
        let storage = open(false, &mut synced).unwrap();
        assert!(!storage.is_new(), "the run before made it");
        let above: Vec<_> = own.ancestors().take(3).map(Path::to_owned).collect();
        assert_eq!(synced[..3], above, "the folder, and those that may be new");
    }
}

#[test]
fn a_file_that_is_not_ours_is_no_new_store() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("reconverge.redb");
    let open = || RedbStorage::open(&file, CACHE_BYTES, "files");
    assert!(open().unwrap().is_new());
    assert!(!open().unwrap().is_new());
    let whole = std::fs::read(&file).unwrap();
    let refused = |what: &str| {
        let left = std::fs::read(&file).ok();
        let error = open().unwrap_err();
        assert!(matches!(error, StorageError::Unusable { .. }), "{error:?}");
        let error = error.to_string();
        assert!(error.contains(what), "{error}");
        assert!(error.contains(&file.display().to_string()), "{error}");
        assert_eq!(std::fs::read(&file).ok(), left, "it is left as it is");
    };
    for (len, what) in [
        (0, "it is empty"),
        (1, "damaged"),
        (4096, "damaged"),
        (5000, "damaged"),
    ] {
        std::fs::write(&file, &whole[..len]).unwrap();
        refused(what);
    }
    std::fs::write(&file, "{ \"listen\": \"127.0.0.1:3030\" }").unwrap();
    refused("damaged");
    std::fs::write(&file, vec![0; whole.len()]).unwrap();
    refused("damaged");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(directory.path().join("volume/reconverge.redb"), &file).unwrap();
    refused("Is a volume not mounted?");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    refused("it is no file");
}

/// Aim: while nothing can be written, everything that was committed is read. Method: a disk that
/// has no room from its n-th write on, for every n of a commit; what is read meanwhile must be on
/// disk, so it must survive a crash at that moment, and afterwards commits go on.
#[test]
fn a_full_disk_is_read_from() {
    let counted = made();
    let (mut keys, mut acknowledged, mut tried) = Default::default();
    let before = |storage: &RedbStorage, keys: &mut _, acknowledged: &mut _, tried: &mut _| {
        for n in 0..4 {
            commit(storage, keys, n, acknowledged, tried).unwrap();
        }
    };
    let storage = open(&counted).unwrap();
    before(&storage, &mut keys, &mut acknowledged, &mut tried);
    let from = counted.operations();
    commit(&storage, &mut keys, 4, &mut acknowledged, &mut tried).unwrap();
    let operations = counted.operations() - from;
    let mut read_from = 0;
    for n in 1..=operations {
        let disk = made();
        let storage = open(&disk).unwrap();
        let (mut keys, mut acknowledged, mut tried) = Default::default();
        before(&storage, &mut keys, &mut acknowledged, &mut tried);
        disk.fill_at(n);
        let full = commit(&storage, &mut keys, 4, &mut acknowledged, &mut tried);
        if full.is_ok() {
            continue;
        }
        assert!(full.unwrap_err().to_string().contains("no room"));
        // A write that failed left everything before it on disk.
        assert_eq!(read(&storage), acknowledged, "operation {n}");
        assert_eq!(
            read(&open(&disk.crash(Survivors::None)).unwrap()),
            acknowledged
        );
        let again = commit(&storage, &mut keys, 4, &mut acknowledged, &mut tried);
        assert!(again.unwrap_err().to_string().contains("no room"));
        assert_eq!(read(&storage), acknowledged, "operation {n}");
        read_from += 1;
        disk.empty();
        // It is tried again after a moment.
        let since = std::time::Instant::now();
        while commit(&storage, &mut keys, 4, &mut acknowledged, &mut tried).is_err() {
            assert!(since.elapsed().as_secs() < 60);
            std::thread::yield_now();
        }
        assert_eq!(read(&storage), acknowledged, "operation {n}");
    }
    assert!(read_from > 3, "read from {read_from} full disks");
}
