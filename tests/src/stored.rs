//! Files that each version of the stored format made, and all that can be read of one.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use automerge::ChangeHash;
use bytes::Bytes;
use reconverge::history::{History, Quarantined};
use reconverge::id::DocumentId;
use reconverge::native::RedbStorage;
use reconverge::storage::{Acknowledged, Blob, Storage, StorageError, each_change, each_piece};
use redb::StorageBackend;

use crate::faults::Disk;

const CACHE_BYTES: usize = 1 << 20;

/// The versions of which there are files; at least those that were published.
///
/// # Panics
/// When there are not.
#[must_use]
pub fn versions() -> Range<u32> {
    let is_there = |version: &u32| folder().join(format!("documents-{version}.txt")).exists();
    let versions = 1..(1..).find(|version| !is_there(version)).unwrap();
    assert!(versions.end > 2, "files of versions 1 and 2");
    versions
}

/// Where they lie.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/stored")
}

/// A version's file, of a relay or a client.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn stored(version: u32, of: &str) -> Vec<u8> {
    let path = folder().join(format!("{of}-{version}.redb.gz"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// The documents of a version's files, by name, and the heads of each.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn documents(version: u32) -> BTreeMap<String, (DocumentId, Vec<ChangeHash>)> {
    let text = std::fs::read_to_string(folder().join(format!("documents-{version}.txt"))).unwrap();
    let lines = text.lines().map(|line| {
        let mut words = line.split(' ');
        let name = words.next().unwrap().to_owned();
        let id = words.next().unwrap().parse().unwrap();
        (
            name,
            (id, words.map(|hash| hash.parse().unwrap()).collect()),
        )
    });
    lines.collect()
}

/// All that a file has, by where it was read; what fails is left out.
pub type Contents = BTreeMap<String, Vec<Bytes>>;

/// Opens what is on a disk.
///
/// # Errors
/// As for [`RedbStorage::open`].
pub fn open(disk: &Disk) -> Result<RedbStorage, StorageError> {
    let (disk, file) = (disk.clone(), disk.clone());
    RedbStorage::with_backend(
        move || disk.clone(),
        move || file.len(),
        CACHE_BYTES,
        "damage",
    )
}

/// Reads everything, as relays and clients do. How many reads failed.
///
/// # Panics
/// When an error says nothing.
pub fn read(storage: &RedbStorage, ids: &[DocumentId], contents: &mut Contents) -> usize {
    let mut failed = 0;
    let mut keep = |place: String, read: Result<Vec<Bytes>, StorageError>| match read {
        Ok(read) => {
            contents.insert(place, read);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            failed += 1;
        }
    };
    for id in ids {
        let stored = match storage.load(id) {
            Ok(Some(stored)) => stored,
            Ok(None) => {
                keep(format!("{id}"), Ok(Vec::new()));
                continue;
            }
            Err(error) => {
                keep(format!("{id}"), Err(error));
                continue;
            }
        };
        let (key, record) = (stored.key, stored.record.clone());
        // Whatever it is, a history is made of it or not.
        let _ = History::open(record.clone(), stored.outline.as_deref(), &stored.rows);
        keep(format!("{id} record"), Ok(vec![record.encode().into()]));
        keep(
            format!("{id} outline"),
            Ok(stored.outline.into_iter().collect()),
        );
        let rows = stored.rows.iter().map(|row| row.encode().into());
        keep(format!("{id} rows"), Ok(rows.collect()));
        let mut blobs: Vec<Blob> = (0..record.segments.min(8)).map(Blob::Segment).collect();
        blobs.extend((0..record.quarantined.min(8)).map(Blob::Quarantine));
        if record.generation > 0 {
            blobs.push(Blob::Snapshot(record.generation));
        }
        for blob in blobs {
            let read = storage.blob(key, blob).map(|bytes| vec![bytes]);
            if let (Blob::Quarantine(_), Ok(lot)) = (blob, &read) {
                let _ = Quarantined::decode(&lot[0]);
            }
            keep(format!("{id} {blob:?}"), read);
            let mut pieces = Vec::new();
            let read = each_piece(storage, key, blob, |piece| {
                pieces.push(Bytes::copy_from_slice(piece));
                Ok::<_, StorageError>(())
            });
            keep(format!("{id} {blob:?} in pieces"), read.map(|()| pieces));
        }
        let from = record.rows_from;
        let mut changes = Vec::new();
        let read = storage.rows(key, from, usize::MAX).map(|rows| {
            let encoded = rows.iter().map(|(_, row)| row.encode().into());
            let len = rows.last().map_or(from, |(last, _)| last + 1);
            (len, encoded.collect())
        });
        let len = read.as_ref().map_or(from, |(len, _)| *len);
        keep(format!("{id} all rows"), read.map(|(_, rows)| rows));
        if from < len {
            let read = each_change(storage, key, from..len, |change| {
                changes.push(Bytes::copy_from_slice(change));
                Ok::<_, StorageError>(())
            });
            keep(format!("{id} changes"), read.map(|()| changes));
            let read = storage.changes(key, std::slice::from_ref(&(from..len)));
            keep(format!("{id} changes by name"), read);
        }
        let known = |names: Vec<_>| {
            let names = names.into_iter().map(|name: String| name.into());
            names.collect()
        };
        let acknowledged = storage.acknowledged(key);
        let named = |relays: Vec<Acknowledged>| {
            known(
                relays
                    .iter()
                    .map(|(relay, heads)| format!("{relay} {heads:?}"))
                    .collect(),
            )
        };
        keep(
            format!("{id} acknowledged in rows"),
            acknowledged.map(named),
        );
        let refused = storage.refused(key);
        let named = |refused: Vec<_>| known(refused.iter().map(|r| format!("{r:?}")).collect());
        keep(format!("{id} refused in rows"), refused.map(named));
    }
    let _ = (
        storage.outbox(),
        storage.quarantined(),
        storage.live_bytes(),
    );
    failed
}
