//! What an operator does with changes that were taken out of their documents. The relay must not
//! run meanwhile: the file is open in one process at a time.

use std::io::Write;
use std::path::Path;

use clap::Subcommand;
use reconverge::history::Quarantined;
use reconverge::id::DocumentId;
use reconverge::native::RedbStorage;
use reconverge::storage::{Batch, Blob, DocumentKey, Storage, Write as StoredWrite};

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Print one line for each change: its document, hash, size in bytes, sender and the reason.
    List,
    /// Write the changes of a document to a file, one chunk behind the other in Automerge's own
    /// format, each after those that it depends on.
    Export {
        /// The document's id, with or without "automerge:".
        document: String,
        /// The file. It must not be there yet.
        #[arg(long)]
        to: std::path::PathBuf,
    },
    /// Delete the contents of a document's changes. Their hashes stay, so that the changes are
    /// still refused.
    Drop {
        /// The document's id, with or without "automerge:".
        document: String,
    },
}

/// Does it to the file in this folder.
pub(crate) fn run(data: &Path, action: &Action) -> Result<(), String> {
    let file = data.join("reconverge.redb");
    if !file.exists() {
        return Err(format!(
            "there is no {}; name the relay's folder by --data",
            file.display()
        ));
    }
    // Not the id of the storage, which the file has already.
    let storage = RedbStorage::open(&file, 1024 * 1024, "")
        .map_err(|e| format!("cannot open {}: {e}", file.display()))?;
    let documents = storage.quarantined().map_err(|e| e.to_string())?;
    let of = |name: &str| {
        let name = name.strip_prefix("automerge:").unwrap_or(name);
        let id = name.parse::<DocumentId>();
        let id = id.map_err(|_| format!("{name:?} is no document id"))?;
        let found = documents.iter().find(|(document, ..)| *document == id);
        found.ok_or_else(|| format!("{id} has no quarantined changes"))
    };
    match action {
        Action::List => {
            for (document, key, lots) in &documents {
                for change in all(&storage, *key, *lots)? {
                    let sender = match change.sender.as_str() {
                        "" => "-",
                        sender => sender,
                    };
                    let (hash, bytes) = (change.hash, change.bytes.len());
                    println!("{document} {hash} {bytes} {sender} {}", change.reason);
                }
            }
        }
        Action::Export { document, to } => {
            let (_, key, lots) = of(document)?;
            let failed = |e: std::io::Error| format!("cannot write {}: {e}", to.display());
            let mut out = std::fs::File::create_new(to).map_err(failed)?;
            for change in all(&storage, *key, *lots)? {
                out.write_all(&change.bytes).map_err(failed)?;
            }
            out.sync_all().map_err(failed)?;
        }
        Action::Drop { document } => {
            let (id, key, lots) = of(document)?;
            let mut writes = Vec::new();
            for number in 0..*lots {
                let mut lot = read(&storage, *key, number)?;
                lot.iter_mut().for_each(|change| change.bytes.clear());
                let blob = Blob::Quarantine(number);
                // A blob is not overwritten: the pieces that it had more would stay.
                writes.push(StoredWrite::RemoveBlob(blob));
                writes.push(StoredWrite::Blob(blob, Quarantined::encode(&lot).into()));
            }
            let batch = Batch {
                document: *id,
                key: *key,
                writes,
            };
            storage.commit(&[batch]).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn all(storage: &RedbStorage, key: DocumentKey, lots: u32) -> Result<Vec<Quarantined>, String> {
    let mut all = Vec::new();
    for number in 0..lots {
        all.extend(read(storage, key, number)?);
    }
    Ok(all)
}

fn read(storage: &RedbStorage, key: DocumentKey, lot: u32) -> Result<Vec<Quarantined>, String> {
    let bytes = storage.blob(key, Blob::Quarantine(lot));
    let bytes = bytes.map_err(|e| e.to_string())?;
    Quarantined::decode(&bytes).ok_or_else(|| "the file is damaged: a quarantined lot".into())
}
