//! One write transaction: every batch of a commit, or none of them.
//!
//! Commits are two-phase: peers choose the bytes that are stored, and redb's one-phase commit
//! trusts a checksum that is not cryptographic to tell a whole commit from a torn one. With
//! quick-repair, which implies two phases, opening after a crash does not read the whole file.

use std::sync::Arc;

use redb::{
    Database, Durability, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};

use super::faults::of_redb;
use super::space::Change;
use super::tables::{
    ACKNOWLEDGED, ASIDE, BLOBS, DOCUMENTS, META, OUTBOX, PieceKey, RECORDS, REFUSED, RELAYS, ROWS,
    blob_key,
};
use super::values::{blob_place, pieces, record_place, relay_place, row_place};
use crate::history::{Record, Row, encode_heads};
use crate::id::DocumentId;
use crate::storage::{Batch, Blob, DocumentKey, Refused, StorageError, Write, checksum};

/// Begins a transaction that is on disk when it was committed.
pub(super) fn begin(database: &Database) -> Result<WriteTransaction, StorageError> {
    let mut transaction = database.begin_write().map_err(of_redb)?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(of_redb)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// A table that is opened at its first use: each that is opened costs the commit a page, and most
/// commits only add rows.
pub(super) struct LazyTable<'t, K: redb::Key + 'static, V: redb::Value + 'static> {
    transaction: &'t WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    opened: Option<Table<'t, K, V>>,
}

impl<'t, K: redb::Key + 'static, V: redb::Value + 'static> LazyTable<'t, K, V> {
    pub(super) fn new(
        transaction: &'t WriteTransaction,
        definition: TableDefinition<'static, K, V>,
    ) -> Self {
        Self {
            transaction,
            definition,
            opened: None,
        }
    }

    pub(super) fn open(&mut self) -> Result<&mut Table<'t, K, V>, TableError> {
        if self.opened.is_none() {
            self.opened = Some(self.transaction.open_table(self.definition)?);
        }
        Ok(self.opened.as_mut().expect("opened above"))
    }
}

/// After a panic in redb, closing a table would be a second one, which ends the process.
impl<K: redb::Key + 'static, V: redb::Value + 'static> Drop for LazyTable<'_, K, V> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.opened.take());
        }
    }
}

/// Writes all batches. What that does to the space in the file.
pub(super) fn apply(
    transaction: &WriteTransaction,
    batches: &[Batch],
) -> Result<Change, redb::Error> {
    let mut tables = Tables::new(transaction);
    for batch in batches {
        for write in &batch.writes {
            tables.write(&batch.document, batch.key, write)?;
        }
    }
    Ok(tables.change)
}

/// Says for which relays the outbox speaks, by their names, one a line; and puts `all` documents into it
/// where that is true.
pub(super) fn name_relays(
    transaction: &WriteTransaction,
    names: &str,
    all: bool,
) -> Result<Change, redb::Error> {
    LazyTable::new(transaction, META)
        .open()?
        .insert(RELAYS, names.as_bytes())?;
    let mut tables = Tables::new(transaction);
    if all {
        let outbox = tables.outbox.open()?;
        for entry in tables.documents.open()?.iter()? {
            outbox.insert(entry?.0.value(), ())?;
        }
    }
    Ok(tables.change)
}

/// The tables that a commit writes to.
struct Tables<'t> {
    documents: LazyTable<'t, &'static [u8], u64>,
    records: LazyTable<'t, u64, &'static [u8]>,
    rows: LazyTable<'t, (u64, u32, u32), &'static [u8]>,
    blobs: LazyTable<'t, PieceKey, &'static [u8]>,
    acknowledged: LazyTable<'t, (u64, &'static str), &'static [u8]>,
    refused: LazyTable<'t, (u64, &'static str), &'static [u8]>,
    outbox: LazyTable<'t, &'static [u8], ()>,
    aside: LazyTable<'t, (&'static [u8], u64), ()>,
    change: Change,
}

impl<'t> Tables<'t> {
    fn new(transaction: &'t WriteTransaction) -> Self {
        Self {
            documents: LazyTable::new(transaction, DOCUMENTS),
            records: LazyTable::new(transaction, RECORDS),
            rows: LazyTable::new(transaction, ROWS),
            blobs: LazyTable::new(transaction, BLOBS),
            acknowledged: LazyTable::new(transaction, ACKNOWLEDGED),
            refused: LazyTable::new(transaction, REFUSED),
            outbox: LazyTable::new(transaction, OUTBOX),
            aside: LazyTable::new(transaction, ASIDE),
            change: Change::default(),
        }
    }

    fn write(
        &mut self,
        document: &DocumentId,
        DocumentKey(key): DocumentKey,
        write: &Write,
    ) -> Result<(), redb::Error> {
        match write {
            Write::Record(record) => self.record(document, key, record)?,
            Write::Row { last, row } => self.row(key, *last, row)?,
            Write::Blob(blob, bytes) => self.blob(key, *blob, bytes)?,
            Write::RemoveBlob(blob) => {
                let (kind, number) = blob_key(*blob);
                let all = (key, kind, number, 0)..=(key, kind, number, u32::MAX);
                let blobs = self.blobs.open()?;
                blobs.retain_in(all, |_, value| self.change.remove(value))?;
            }
            Write::RemoveRowsBelow(index) => {
                let below = (key, 0, 0)..(key, *index, 0);
                let rows = self.rows.open()?;
                rows.retain_in(below, |_, value| self.change.remove(value))?;
            }
            Write::RemoveRowsFrom(index) => {
                let from = (key, *index, 0)..=(key, u32::MAX, u32::MAX);
                let rows = self.rows.open()?;
                rows.retain_in(from, |_, value| self.change.remove(value))?;
            }
            Write::Acknowledged { relay, heads } => {
                let bytes = checksum::seal(&relay_place(key, relay), &encode_heads(heads));
                let acknowledged = self.acknowledged.open()?;
                acknowledged.insert((key, &**relay), bytes.as_slice())?;
            }
            Write::Refused { relay, refused } => self.refused(key, relay, refused.as_ref())?,
            Write::Outbox(true) => {
                self.outbox.open()?.insert(document.as_bytes(), ())?;
            }
            Write::Outbox(false) => {
                self.outbox.open()?.remove(document.as_bytes())?;
            }
            Write::SetAside => {
                let before = self.documents.open()?.get(document.as_bytes())?;
                if let Some(before) = before.map(|key| key.value()) {
                    let place = (document.as_bytes(), before);
                    self.aside.open()?.insert(place, ())?;
                }
            }
            Write::RemoveDocument => self.remove_document(document, key)?,
            Write::RemoveContents => {
                self.outbox.open()?.remove(document.as_bytes())?;
                let (quarantine, _) = blob_key(Blob::Quarantine(0));
                self.remove_key(key, |kind| kind == quarantine)?;
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        document: &DocumentId,
        key: u64,
        record: &Record,
    ) -> Result<(), redb::Error> {
        self.documents.open()?.insert(document.as_bytes(), key)?;
        let bytes = checksum::seal(&record_place(key, document), &record.encode());
        self.change.add(&bytes);
        let records = self.records.open()?;
        if let Some(old) = records.insert(key, bytes.as_slice())? {
            self.change.remove(old.value());
        }
        Ok(())
    }

    fn row(&mut self, key: u64, last: u32, row: &Row) -> Result<(), redb::Error> {
        let rows = self.rows.open()?;
        let place = |piece| row_place(key, last, piece);
        for (piece, bytes) in pieces(&row.encode(), place) {
            rows.insert((key, last, piece), bytes.as_slice())?;
            self.change.add(&bytes);
        }
        Ok(())
    }

    fn blob(&mut self, key: u64, blob: Blob, bytes: &[u8]) -> Result<(), redb::Error> {
        let (kind, number) = blob_key(blob);
        let blobs = self.blobs.open()?;
        let place = |piece| blob_place(key, kind, number, piece);
        for (piece, bytes) in pieces(bytes, place) {
            blobs.insert((key, kind, number, piece), bytes.as_slice())?;
            self.change.add(&bytes);
        }
        Ok(())
    }

    fn refused(
        &mut self,
        key: u64,
        relay: &Arc<str>,
        refused: Option<&Refused>,
    ) -> Result<(), redb::Error> {
        let table = self.refused.open()?;
        match refused {
            Some(refused) => {
                let bytes = checksum::seal(&relay_place(key, relay), &refused.encode());
                table.insert((key, &**relay), bytes.as_slice())?;
            }
            None => drop(table.remove((key, &**relay))?),
        }
        Ok(())
    }

    /// With what was set aside of it.
    fn remove_document(&mut self, document: &DocumentId, key: u64) -> Result<(), redb::Error> {
        let id = document.as_bytes();
        let mut keys = vec![key];
        self.documents.open()?.remove(id)?;
        let aside = self.aside.open()?;
        aside.retain_in((id, 0)..=(id, u64::MAX), |(_, key), ()| {
            keys.push(key);
            false
        })?;
        self.outbox.open()?.remove(id)?;
        for key in keys {
            self.remove_key(key, |_| false)?;
        }
        Ok(())
    }

    /// All that lies under a key, but for blobs of the kinds that stay.
    fn remove_key(&mut self, key: u64, stays: impl Fn(u8) -> bool) -> Result<(), redb::Error> {
        if let Some(record) = self.records.open()?.remove(key)? {
            self.change.remove(record.value());
        }
        let rows = self.rows.open()?;
        let all_rows = (key, 0, 0)..=(key, u32::MAX, u32::MAX);
        rows.retain_in(all_rows, |_, value| self.change.remove(value))?;
        let blobs = self.blobs.open()?;
        let all_blobs = (key, 0, 0, 0)..=(key, u8::MAX, u32::MAX, u32::MAX);
        blobs.retain_in(all_blobs, |(_, kind, ..), value| {
            stays(kind) || self.change.remove(value)
        })?;
        let acknowledged = self.acknowledged.open()?;
        acknowledged.retain_in((key, "")..(key + 1, ""), |_, _| false)?;
        let refused = self.refused.open()?;
        refused.retain_in((key, "")..(key + 1, ""), |_, _| false)?;
        Ok(())
    }
}
