//! Aim: nothing that a commit acknowledged is ever lost, whatever the disk does.
//! Method: a script of commits runs on a disk in memory that, at its n-th operation, fails or
//! freezes; then the machine crashes, and of the writes that were not synced all, none, or a
//! seeded part survive. For every n of the script; then again with a second crash while the file
//! is being opened.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::collections::BTreeMap;

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
