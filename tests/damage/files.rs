//! The files that are damaged.

use std::ops::Range;

use bytes::Bytes;
use reconverge::id::DocumentId;
use reconverge::storage::{Batch, Blob, Storage, Write};
use reconverge_tests::faults::{Disk, Fault, Survivors};
use reconverge_tests::stored::{Contents, documents, open, read, stored, versions};
use redb::StorageBackend;

/// A file to be damaged.
pub(crate) struct File {
    pub(crate) name: String,
    /// The version that made it, if it is one of the files that are kept.
    pub(crate) version: Option<u32>,
    pub(crate) ids: Vec<DocumentId>,
    pub(crate) bytes: Vec<u8>,
    /// The same file some commits earlier.
    pub(crate) before: Vec<u8>,
    pub(crate) whole: Contents,
    /// Where in it values lie that are read.
    pub(crate) values: Vec<Range<usize>>,
    /// It was closed, and not left by a crash.
    pub(crate) closed: bool,
}

impl File {
    fn new(name: String, ids: Vec<DocumentId>, bytes: Vec<u8>, before: Vec<u8>) -> Self {
        let mut whole = Contents::new();
        let storage = open(&Disk::holding(bytes.clone())).unwrap();
        assert_eq!(read(&storage, &ids, &mut whole), 0, "{name}");
        assert!(whole.len() > 3, "{} values", whole.len());
        let values = whole.values().flatten().filter(|value| value.len() > 16);
        let step = values.clone().count().div_ceil(40);
        let values = values.step_by(step).filter_map(|value| {
            let at = bytes.windows(value.len()).position(|at| at == &value[..])?;
            Some(at..at + value.len())
        });
        Self {
            values: values.collect(),
            closed: bytes[9] & 2 == 0,
            version: None,
            name,
            ids,
            bytes,
            before,
            whole,
        }
    }
}

fn image(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.len().unwrap() as usize];
    disk.read(0, &mut bytes).unwrap();
    bytes
}

/// All files: those of each version as they were closed, as a crash leaves them after some commits,
/// and grown to many pages.
pub(crate) fn files() -> Vec<File> {
    let mut files = Vec::new();
    for version in versions() {
        let ids: Vec<_> = documents(version).into_values().map(|(id, _)| id).collect();
        for of in ["relay", "client"] {
            let name = format!("{of} of version {version}");
            let closed = stored(version, of);
            let disk = Disk::holding(closed.clone());
            let storage = open(&disk).unwrap();
            storage.commit(&[edit(&storage, DOCUMENT_NEW)]).unwrap();
            let crashed = image(&disk.crash(Survivors::All));
            drop(storage);
            let after_crash = format!("{name}, after a crash");
            for (name, bytes) in [(name, closed.clone()), (after_crash, crashed)] {
                files.push(File {
                    version: Some(version),
                    ..File::new(name, ids.clone(), bytes, closed.clone())
                });
            }
        }
    }
    let (ids, bytes) = torn();
    files.push(File::new(String::from("torn"), ids, bytes.clone(), bytes));
    let grown = grown();
    for (name, after) in [
        ("grown, after a crash", grown.crash(Survivors::All)),
        ("grown", {
            let disk = grown.crash(Survivors::All);
            drop(open(&disk).unwrap());
            disk
        }),
    ] {
        let ids = (0..COPIES).map(copy_id).collect();
        let before = image(&grown);
        files.push(File::new(name.to_owned(), ids, image(&after), before));
    }
    files
}

/// What a crash in the middle of making a file smaller leaves: redb then looks by itself which commit
/// is whole.
fn torn() -> (Vec<DocumentId>, Vec<u8>) {
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    let mut left = None;
    for strikes in 1.. {
        let fresh = disk.crash(Survivors::All);
        let storage = open(&fresh).unwrap();
        let mut large = edit(&storage, 1);
        large.writes[0] = Write::Blob(Blob::Snapshot(7), Bytes::from(vec![1; 5_000_000]));
        storage.commit(std::slice::from_ref(&large)).unwrap();
        storage.commit(&[edit(&storage, 2)]).unwrap();
        large.writes = vec![Write::RemoveBlob(Blob::Snapshot(7))];
        fresh.strike_at(strikes, Fault::Freezes);
        let _ = storage.commit(&[large]);
        let after = fresh.crash(Survivors::Some(strikes));
        let bytes = image(&after);
        if bytes[9] & 4 == 0 && open(&after).is_ok() {
            left = Some(bytes);
        } else if left.is_some() || !fresh.struck() {
            break;
        }
    }
    (vec![copy_id(2)], left.expect("a commit in one phase"))
}

const COPIES: u32 = 48;

fn copy_id(n: u32) -> DocumentId {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    DocumentId::new(&id).unwrap()
}

const DOCUMENT_NEW: u32 = 1_000_000;

/// Copies of a relay's documents, so that every table has several levels of pages.
fn grown() -> Disk {
    let last = versions().end - 1;
    let from = open(&Disk::holding(stored(last, "relay"))).unwrap();
    let names = documents(last);
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    let storage = open(&disk).unwrap();
    for n in 0..COPIES {
        let name = ["new", "folded", "new", "quarantined"][n as usize % 4];
        let (id, _) = &names[name];
        let stored = from.load(id).unwrap().unwrap();
        let record = stored.record;
        let mut writes = Vec::new();
        let rows = from.rows(stored.key, record.rows_from, usize::MAX).unwrap();
        for (last, row) in rows {
            writes.push(Write::Row { last, row });
        }
        let mut blobs: Vec<Blob> = (0..record.segments).map(Blob::Segment).collect();
        blobs.extend((0..record.quarantined).map(Blob::Quarantine));
        if record.generation > 0 {
            blobs.push(Blob::Snapshot(record.generation));
            blobs.push(Blob::Outline(record.generation));
        }
        for blob in blobs {
            writes.push(Write::Blob(blob, from.blob(stored.key, blob).unwrap()));
        }
        writes.push(Write::Record(record));
        let batch = Batch {
            document: copy_id(n),
            key: storage.new_key(),
            writes,
        };
        storage.commit(&[batch]).unwrap();
    }
    let left = disk.crash(Survivors::All);
    // Closed, so that pages are given back and used again by what comes after.
    drop(storage);
    left
}

/// A document with little in it.
pub(crate) fn edit(storage: &dyn Storage, n: u32) -> Batch {
    let from = DocumentId::new(&[3; 16]).unwrap();
    let mut record = reconverge::history::Record::new(reconverge::id::Space::default());
    record.generation = 1;
    Batch {
        document: if n == 0 { from } else { copy_id(n) },
        key: storage.new_key(),
        writes: vec![
            Write::Blob(Blob::Snapshot(1), Bytes::from(vec![n as u8; 9000])),
            Write::Record(record),
            Write::Outbox(true),
        ],
    }
}
