//! The gossip of heads: which heads other peers' storages were last seen with.
//!
//! A client that wants to know whether its change reached another device subscribes to the id of
//! that device's storage. The relay tells it the heads that the storage's owner names in its own
//! sync messages, and passes on what others say of storages that it cannot see. What is older than
//! what is known is dropped, so that gossip ends.

use std::collections::HashMap;

use reconverge::protocol::ChangeHash;
use reconverge::protocol::limits::REMOTE_HEADS_MAX;

/// Most storages that one document remembers heads of; beyond, new ones are not remembered.
const STORAGES_MAX: usize = 256;

/// One storage's heads, each as base58check, and when they were seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) heads: Vec<String>,
    pub(crate) timestamp_ms: f64,
}

impl Seen {
    /// Bytes that it holds, with its storage's id.
    fn weight(&self, storage: &str) -> usize {
        let heads = self.heads.iter();
        let heads = heads.map(|head| size_of::<String>() + head.len());
        // A table has room for up to twice as many entries as are in it.
        2 * size_of::<(String, Self)>() + storage.len() + heads.sum::<usize>()
    }
}

#[derive(Debug, Default)]
pub(crate) struct RemoteHeads {
    seen: HashMap<String, Seen>,
    bytes: usize,
}

impl RemoteHeads {
    /// Takes in what was seen; whether it is news.
    pub(crate) fn see(&mut self, storage: &str, seen: Seen) -> bool {
        let old = self.seen.get(storage);
        let newer = old.is_none_or(|old| seen.timestamp_ms > old.timestamp_ms);
        let room = old.is_some() || self.seen.len() < STORAGES_MAX;
        if !newer || !room || seen.heads.len() > REMOTE_HEADS_MAX {
            return false;
        }
        let changed = old.is_none_or(|old| old.heads != seen.heads);
        let before = old.map_or(0, |old| old.weight(storage));
        self.bytes = self.bytes + seen.weight(storage) - before;
        self.seen.insert(storage.to_owned(), seen);
        changed
    }

    /// Bytes that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Seen)> {
        self.seen
            .iter()
            .map(|(storage, seen)| (storage.as_str(), seen))
    }

    pub(crate) fn get(&self, storage: &str) -> Option<&Seen> {
        self.seen.get(storage)
    }
}

pub(crate) fn shown(heads: &[ChangeHash]) -> Vec<String> {
    heads
        .iter()
        .map(|head| bs58::encode(head.0).with_check().into_string())
        .collect()
}
