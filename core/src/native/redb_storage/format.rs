//! The version of the file's layout, and what every opening does: it makes the tables of a new file,
//! brings an old one to this version, and commits.

use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::faults::of_redb;
use super::space::Space;
use super::tables::{self, BLOBS, DOCUMENTS, META, RECORDS, ROWS};
use super::transaction::{LazyTable, begin};
use crate::storage::StorageError;

/// The version of the file's layout. Version 1, without checksums, is read as it is; what is
/// written is of version 2, and so is a file from its first opening on.
pub const FORMAT: u64 = 2;

const FORMAT_OLDEST: u64 = 1;

/// Says how many bytes are alive.
pub(super) fn store_live(transaction: &WriteTransaction, live: u64) -> Result<(), redb::Error> {
    let mut meta = LazyTable::new(transaction, META);
    meta.open()?
        .insert(tables::LIVE, live.to_be_bytes().as_slice())?;
    Ok(())
}

/// Makes the tables of a new file, checks those of an old one, and commits in any case. Also gives
/// how often the file was opened.
pub(super) fn settle(
    database: &Database,
    new_storage_id: &str,
) -> Result<(Arc<str>, Space, u64), StorageError> {
    let transaction = begin(database)?;
    let settled = (|| -> Result<_, redb::Error> {
        let mut meta = LazyTable::new(&transaction, META);
        let meta = meta.open()?;
        let format = meta
            .get(tables::FORMAT)?
            .map(|bytes| bytes.value().to_vec());
        let known = meta
            .get(tables::STORAGE_ID)?
            .map(|bytes| bytes.value().to_vec());
        let runs = meta.get(tables::RUNS)?.map(|bytes| bytes.value().to_vec());
        let live = meta.get(tables::LIVE)?.map(|bytes| bytes.value().to_vec());
        // What cannot be read is left as it is, below.
        if format
            .as_deref()
            .map_or(FORMAT_OLDEST, |bytes| number(Some(bytes)))
            < FORMAT
        {
            meta.insert(tables::FORMAT, FORMAT.to_be_bytes().as_slice())?;
        }
        if known.is_none() {
            meta.insert(tables::STORAGE_ID, new_storage_id.as_bytes())?;
        }
        // A commit that changes something, so that it reaches the disk.
        let run = number(runs.as_deref()) + 1;
        meta.insert(tables::RUNS, run.to_be_bytes().as_slice())?;
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

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

/// The highest key that a document has.
pub(super) fn last_key(database: &Database) -> Result<u64, StorageError> {
    let read = || -> Result<u64, redb::Error> {
        let records = database.begin_read()?.open_table(RECORDS)?;
        Ok(records.last()?.map_or(0, |(key, _)| key.value()))
    };
    read().map_err(of_redb)
}
