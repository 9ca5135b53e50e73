//! The gossip of heads: which heads other peers' storages were last seen with.
//!
//! A client that wants to know whether its change reached another device subscribes to the id of
//! that device's storage. The relay tells it the heads that the storage's owner names in its own
//! sync messages, and passes on what others say of storages that it cannot see. What is older than
//! what is known is dropped, so that gossip ends. Nobody can say that something was seen later than
//! now, nor anything of a storage whose owner is connected: or what is true would be dropped after it.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use reconverge::protocol::limits::{REMOTE_HEADS_MAX, REMOTE_STORAGES_MAX};
use reconverge::protocol::{ChangeHash, HeadsOfStorage};

/// The shortest text of a head in bytes: base58check of 32 zeros.
const HEAD_TEXT_BYTES_MIN: usize = 36;

/// One storage's heads, each as base58check, and when they were seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) heads: Vec<String>,
    pub(crate) timestamp_ms: f64,
}

impl Seen {
    /// What somebody says that was seen; `None` if it makes no sense.
    pub(crate) fn heard(of: HeadsOfStorage<'_>, now_ms: f64) -> Option<Self> {
        let is_head = |head: &str| head.len() >= HEAD_TEXT_BYTES_MIN;
        let makes_sense = of.heads.len() <= REMOTE_HEADS_MAX
            && of.heads.iter().all(|head| is_head(head))
            && of.timestamp_ms.is_finite();
        makes_sense.then(|| Self {
            heads: of.heads.into_iter().map(Into::into).collect(),
            timestamp_ms: of.timestamp_ms.min(now_ms),
        })
    }

    /// Bytes that it holds, with its storage's id.
    pub(crate) fn weight(&self, storage: &str) -> usize {
        let heads = self.heads.iter();
        let heads = heads.map(|head| size_of::<String>() + head.len());
        // A table has room for up to twice as many entries as are in it.
        2 * size_of::<(String, Entry)>() + storage.len() + heads.sum::<usize>()
    }
}

#[derive(Debug)]
struct Entry {
    seen: Seen,
    /// Its owner is connected, and says so itself.
    is_own: bool,
}

/// Of at most [`REMOTE_STORAGES_MAX`] storages of one document; those whose owners are connected have
/// precedence.
#[derive(Debug, Default)]
pub(crate) struct RemoteHeads {
    of: HashMap<String, Entry>,
    bytes: usize,
}

impl RemoteHeads {
    /// Takes in what was seen; whether it is news.
    pub(crate) fn hear(&mut self, storage: &str, seen: &Seen) -> bool {
        let is_news = match self.of.get(storage) {
            Some(old) => !old.is_own && seen.timestamp_ms > old.seen.timestamp_ms,
            None => self.of.len() < REMOTE_STORAGES_MAX,
        };
        is_news && self.insert(storage, seen.clone(), false)
    }

    /// The owner of a storage says what it has; what is news of that.
    pub(crate) fn see(&mut self, storage: &str, heads: Vec<String>, now_ms: f64) -> Option<&Seen> {
        let old = self.of.get(storage);
        if old.is_none() && self.of.len() >= REMOTE_STORAGES_MAX {
            let hearsay = self.of.iter().find(|(_, entry)| !entry.is_own);
            let hearsay = hearsay.map(|(storage, _)| storage.clone())?;
            self.remove(&hearsay);
        }
        // Whoever was told something at this moment, or by a clock that ran ahead, believes only what
        // is later.
        let old = self.of.get(storage).map(|old| old.seen.timestamp_ms);
        let timestamp_ms = old.map_or(now_ms, |old| now_ms.max(old + 1.0));
        let seen = Seen {
            heads,
            timestamp_ms,
        };
        let is_news = self.insert(storage, seen, true);
        is_news.then(|| &self.of[storage].seen)
    }

    /// The owner of a storage is not connected any more.
    pub(crate) fn left(&mut self, storage: &str) {
        if let Some(entry) = self.of.get_mut(storage) {
            entry.is_own = false;
        }
    }

    /// Whether its heads are others than before.
    fn insert(&mut self, storage: &str, seen: Seen, is_own: bool) -> bool {
        self.bytes += seen.weight(storage);
        let entry = Entry { seen, is_own };
        let Some(old) = self.of.get_mut(storage) else {
            self.of.insert(storage.to_owned(), entry);
            return true;
        };
        let is_news = entry.seen.heads != old.seen.heads;
        self.bytes -= old.seen.weight(storage);
        *old = entry;
        is_news
    }

    fn remove(&mut self, storage: &str) {
        if let Some(old) = self.of.remove(storage) {
            self.bytes -= old.seen.weight(storage);
        }
    }

    /// Bytes that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Seen)> {
        let all = self.of.iter();
        all.map(|(storage, entry)| (storage.as_str(), &entry.seen))
    }

    pub(crate) fn get(&self, storage: &str) -> Option<&Seen> {
        self.of.get(storage).map(|entry| &entry.seen)
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> f64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Whole milliseconds, as JavaScript's clock gives them.
    since.as_millis() as f64
}

pub(crate) fn shown(heads: &[ChangeHash]) -> Vec<String> {
    heads
        .iter()
        .map(|head| bs58::encode(head.0).with_check().into_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(n: u8) -> Vec<String> {
        shown(&[ChangeHash([n; 32])])
    }

    fn heard(n: u8, timestamp_ms: f64) -> Option<Seen> {
        let heads = heads(n);
        let of = HeadsOfStorage {
            storage: "storage",
            heads: heads.iter().map(|head| head.as_str().into()).collect(),
            timestamp_ms,
        };
        Seen::heard(of, 1_000.0)
    }

    #[test]
    fn nobody_is_silenced_by_a_time_to_come() {
        assert_eq!(heard(1, f64::NAN), None);
        assert_eq!(heard(1, f64::INFINITY), None);
        let mut remote = RemoteHeads::default();
        assert!(remote.hear("storage", &heard(1, 1e15).unwrap()));
        assert!(!remote.hear("storage", &heard(2, 999.0).unwrap()));
        let seen = remote.see("storage", heads(3), 1_000.0);
        let seen = seen.expect("its owner is believed");
        assert!(seen.timestamp_ms > 1_000.0);
        // As long as it is here.
        assert!(!remote.hear("storage", &heard(4, 1e15).unwrap()));
        remote.left("storage");
        let later = Seen {
            timestamp_ms: 2_000.0,
            ..heard(4, 0.0).unwrap()
        };
        assert!(remote.hear("storage", &later));
        assert_eq!(remote.get("storage"), Some(&later));
    }

    #[test]
    fn hearsay_takes_no_room_from_owners_and_what_is_held_is_counted() {
        let mut remote = RemoteHeads::default();
        let seen = heard(1, 1.0).unwrap();
        let names: Vec<String> = (0..2 * REMOTE_STORAGES_MAX)
            .map(|n| n.to_string())
            .collect();
        let (hearsay, owners) = names.split_at(REMOTE_STORAGES_MAX);
        assert!(hearsay.iter().all(|name| remote.hear(name, &seen)));
        assert!(!remote.hear("one more", &seen));
        for name in owners {
            assert!(remote.see(name, heads(2), 1.0).is_some());
        }
        assert!(remote.see("one more", heads(2), 1.0).is_none());
        let held: usize = remote.iter().map(|(name, seen)| seen.weight(name)).sum();
        assert_eq!(remote.bytes(), held);
        owners.iter().for_each(|name| remote.remove(name));
        assert!(remote.is_empty() && remote.bytes() == 0);
    }

    #[test]
    fn what_is_no_head_is_left_out() {
        let of = HeadsOfStorage {
            storage: "storage",
            heads: vec!["".into()],
            timestamp_ms: 1.0,
        };
        assert_eq!(Seen::heard(of, 1.0), None);
    }
}
