//! What the shell reads for the engine. These functions block on storage.

use std::sync::Arc;

use automerge::{ActorId, ChangeHash};
use bytes::Bytes;

use super::quarantine;
use crate::id::DocumentId;
use crate::replica::Replica;
use crate::storage::{
    self, Acknowledged, Blob, DocumentKey, Refused, Storage, StorageError, damaged,
};

/// A document out of storage, or the place for a new one.
#[derive(Debug)]
pub struct Loaded {
    pub(super) key: DocumentKey,
    /// Without anything in it if it was never stored.
    pub(super) replica: Replica,
    pub(super) acknowledged: Vec<Acknowledged>,
    pub(super) refused: Vec<(Arc<str>, Refused)>,
    /// What was taken out of it, now or before.
    pub(super) quarantined: Arc<[ChangeHash]>,
    /// What was found damaged. It begins anew with the rest, and relays are asked for what they have.
    pub(super) damage: Option<StorageError>,
}

/// What of a document is built when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Nothing: it is only synced.
    History,
    /// Its contents.
    Contents,
    /// Its contents, after a check, because something in it makes no document.
    Sound,
}

/// Carries out [`Output::Load`](super::Output::Load). `actor` must be one that nobody used before.
///
/// Of a document that is damaged, it gives what is whole; see [`Output::Salvaged`](super::Output::Salvaged).
///
/// # Errors
/// When reading fails, or finds damage and nothing can be salvaged.
pub fn load(
    storage: &dyn Storage,
    document: &DocumentId,
    contents: Reading,
    actor: ActorId,
) -> Result<Loaded, StorageError> {
    match read(storage, document, contents, actor.clone()) {
        Err(damage @ StorageError::Damaged { .. }) => salvage(storage, document, actor, damage),
        read => read,
    }
}

fn salvage(
    storage: &dyn Storage,
    document: &DocumentId,
    actor: ActorId,
    damage: StorageError,
) -> Result<Loaded, StorageError> {
    let Ok(salvaged) = storage.salvage(document) else {
        return Err(damage);
    };
    let Ok(replica) = Replica::salvaged(&salvaged, actor) else {
        return Err(damage);
    };
    let quarantined = salvaged.quarantined.iter().map(|change| change.hash);
    Ok(Loaded {
        key: storage.new_key(),
        replica,
        acknowledged: Vec::new(),
        refused: Vec::new(),
        quarantined: quarantined.collect(),
        damage: Some(damage),
    })
}

fn read(
    storage: &dyn Storage,
    document: &DocumentId,
    contents: Reading,
    actor: ActorId,
) -> Result<Loaded, StorageError> {
    let Some(stored) = storage.load(document)? else {
        return Ok(Loaded {
            key: storage.new_key(),
            replica: Replica::new(actor),
            acknowledged: Vec::new(),
            refused: Vec::new(),
            quarantined: Arc::default(),
            damage: None,
        });
    };
    let key = stored.key;
    // Without these, relays are asked and say it again.
    let acknowledged = unless_damaged(storage.acknowledged(key))?;
    let refused = unless_damaged(storage.refused(key))?;
    let snapshot = match stored.record.generation {
        0 => None,
        generation => Some(storage.blob(key, Blob::Snapshot(generation))?),
    };
    let quarantined = quarantine::quarantined(storage, document, &stored)?;
    let replica = match contents {
        Reading::Sound => None,
        Reading::History | Reading::Contents => {
            let replica = Replica::open(stored, snapshot.clone(), actor.clone());
            let unfit = || damaged(document, "its parts do not fit together");
            let mut replica = replica.ok_or_else(unfit)?;
            let builds = contents == Reading::History || replica.build().is_ok();
            builds.then_some(replica)
        }
    };
    let (mut replica, taken_out) = match replica {
        Some(replica) => (replica, Vec::new()),
        None => quarantine::sound(storage, document, snapshot, actor)?,
    };
    replica.quarantine(&quarantined);
    if contents != Reading::History {
        replica
            .build()
            .map_err(|_| damaged(document, "its contents cannot be built"))?;
        let aside = storage.aside(document)?;
        if !aside.is_empty() {
            replica.take_in(&aside, &quarantined);
        }
    }
    let quarantined = quarantined.iter().chain(&taken_out);
    let quarantined = quarantined.map(|change| change.hash).collect();
    Ok(Loaded {
        key,
        replica,
        acknowledged,
        refused,
        quarantined,
        damage: None,
    })
}

fn unless_damaged<T>(read: Result<Vec<T>, StorageError>) -> Result<Vec<T>, StorageError> {
    match read {
        Err(StorageError::Damaged { .. }) => Ok(Vec::new()),
        other => other,
    }
}

/// Carries out [`Output::LoadGraph`](super::Output::LoadGraph).
///
/// # Errors
/// When reading fails.
pub fn load_graph(
    storage: &dyn Storage,
    key: DocumentKey,
    segments: u32,
) -> Result<Vec<Bytes>, StorageError> {
    storage::segments(storage, key, segments)
}
