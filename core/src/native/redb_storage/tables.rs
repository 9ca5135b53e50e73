//! The tables of the file, and the keys of what lies in them.

use redb::TableDefinition;

use crate::storage::Blob;

pub(super) type PieceKey = (u64, u8, u32, u32);

pub(super) const META: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("meta");
pub(super) const DOCUMENTS: TableDefinition<'static, &'static [u8], u64> =
    TableDefinition::new("documents");
pub(super) const RECORDS: TableDefinition<'static, u64, &'static [u8]> =
    TableDefinition::new("records");
/// Document, index of the row's last change, piece.
pub(super) const ROWS: TableDefinition<'static, (u64, u32, u32), &'static [u8]> =
    TableDefinition::new("rows");
/// Document, kind, number, piece.
pub(super) const BLOBS: TableDefinition<'static, PieceKey, &'static [u8]> =
    TableDefinition::new("blobs");

/// Document, a relay's name: the heads that it acknowledged. Clients only; made when first used,
/// as are the next two.
pub(super) const ACKNOWLEDGED: TableDefinition<'static, (u64, &'static str), &'static [u8]> =
    TableDefinition::new("acknowledged");
/// Document, a relay's name: the changes that it does not take, as heads are stored, after their
/// length in four bytes; then why.
pub(super) const REFUSED: TableDefinition<'static, (u64, &'static str), &'static [u8]> =
    TableDefinition::new("refused");
/// Documents with changes that some relay has not acknowledged.
pub(super) const OUTBOX: TableDefinition<'static, &'static [u8], ()> =
    TableDefinition::new("outbox");

/// Documents of which something was damaged, and the keys under which that was left. Relays only;
/// made when first used.
pub(super) const ASIDE: TableDefinition<'static, (&'static [u8], u64), ()> =
    TableDefinition::new("aside");

/// The key in `meta` of the file's format.
pub(super) const FORMAT: &str = "format";
/// The key in `meta` of the name of the storage.
pub(super) const STORAGE_ID: &str = "storage-id";
/// The key in `meta` of how often the file was opened.
pub(super) const RUNS: &str = "runs";
/// The key in `meta` of how many bytes are alive; see [`Space`](super::space::Space).
pub(super) const LIVE: &str = "live";
/// The key in `meta` of the relays for which the outbox speaks: their names, one a line.
pub(super) const RELAYS: &str = "relays";

/// A blob's kind and number.
pub(super) fn blob_key(blob: Blob) -> (u8, u32) {
    match blob {
        Blob::Snapshot(generation) => (1, generation),
        Blob::Outline(generation) => (2, generation),
        Blob::Segment(number) => (3, number),
        Blob::Quarantine(number) => (4, number),
    }
}
