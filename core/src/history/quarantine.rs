//! What the check found: up to where all is sound, which changes are at fault and are taken out with
//! what depends on them, and that those are never taken again.

use std::collections::HashMap;

use super::History;
use super::refusal::Refusal;
use super::stored::{Quarantined, Row, StoredChange};
use crate::id::ConnectionId;

/// What changes in storage when some changes are taken out. See [`History::remove`].
#[derive(Debug)]
pub struct Removal {
    /// The first index of the stored rows that are to be replaced.
    pub rows_from: u32,
    /// What replaces them, each with the index of its last change.
    pub rows: Vec<(u32, Row)>,
    /// What was taken out, in order.
    pub removed: Vec<RemovedChange>,
}

/// A change that was taken out.
#[derive(Debug)]
pub struct RemovedChange {
    /// The index that it had.
    pub index: u32,
    /// Why.
    pub refusal: Refusal,
    /// The change.
    pub change: StoredChange,
}

impl RemovedChange {
    /// The form in which it is kept apart. The sender is empty if it is not known any more.
    #[must_use]
    pub fn into_quarantined(self, sender: String) -> Quarantined {
        Quarantined {
            hash: self.change.hash,
            reason: self.refusal.to_string(),
            sender,
            bytes: self.change.bytes,
        }
    }
}

impl History {
    /// How many of the changes were checked by building the document: those with lower indexes.
    #[must_use]
    pub fn verified(&self) -> u32 {
        self.record.verified
    }

    /// The changes below `upto` were checked, and make a document.
    pub fn set_verified(&mut self, upto: u32) {
        self.record.verified = self.record.verified.max(upto);
    }

    /// Never takes these changes, which were quarantined before.
    pub fn quarantine(&mut self, lot: &[Quarantined]) {
        for change in lot {
            let refusal = Refusal::Unsound(change.reason.clone());
            self.refused.insert(change.hash, refusal);
        }
    }

    /// The same for a history that was made anew: they are to be stored as its first lot.
    pub fn quarantine_anew(&mut self, lot: &[Quarantined]) {
        self.quarantine(lot);
        self.record.quarantined = 1;
    }

    /// The same for a history that takes the place of `before`, whose quarantined changes stay where
    /// they are stored.
    pub fn keep_quarantine(&mut self, before: &Self) {
        self.record.quarantined = before.record.quarantined;
        for (hash, refusal) in before.refused.iter() {
            if matches!(refusal, Refusal::Unsound(_)) {
                self.refused.insert(*hash, refusal.clone());
            }
        }
    }

    /// Takes changes out that are `refused`, by their indexes, and what depends on them; they are
    /// refused from now on. `outline`, `segments` and `rows` (from the record's `folded` on, in
    /// order) are as they lie in storage; if they do not fit, it is `None` and nothing happened.
    ///
    /// When something of it was stored, there is one lot more in the record. Store that lot,
    /// replace the rows from [`Removal::rows_from`] on, and report [`Self::committed`]; all in one
    /// commit. What was not saved still is not.
    #[must_use]
    pub fn remove(
        &mut self,
        refused: &HashMap<u32, Refusal>,
        outline: Option<&[u8]>,
        segments: &[impl AsRef<[u8]>],
        rows: &[Row],
    ) -> Option<Removal> {
        let mut index = self.record.folded;
        let stay = rows.iter().take_while(|row| {
            let end = index + row.changes.len() as u32;
            let stays = !(index..end).any(|index| refused.contains_key(&index));
            index = if stays { end } else { index };
            stays
        });
        let (stay, again) = rows.split_at(stay.count());
        let rows_from = index;
        let durable_len = self.durable_len;
        let mut record = self.record.clone();
        record.verified = record.verified.min(rows_from);
        let mut history = Self::open(record, outline, stay)?;
        if !segments.is_empty() {
            history.load_graph(segments)?;
        }
        let mut removed = Vec::new();
        let mut admit = |history: &mut Self, change: &StoredChange| {
            if let Some(refusal) = refused.get(&index) {
                history.refused.insert(change.hash, refusal.clone());
                removed.push(RemovedChange {
                    index,
                    refusal: refusal.clone(),
                    change: change.clone(),
                });
            } else {
                let bytes = std::slice::from_ref(&change.bytes);
                let received = history.receive_unpacked(ConnectionId::NOBODY, bytes).ok()?;
                let refused = received.refused.into_iter();
                removed.extend(refused.map(|(_, refusal)| RemovedChange {
                    index,
                    refusal,
                    change: change.clone(),
                }));
            }
            index += 1;
            Some(())
        };
        let mut replaced = Vec::new();
        for row in again {
            for change in &row.changes {
                admit(&mut history, change)?;
            }
            replaced.extend(history.take_unsaved());
        }
        for change in &self.unsaved {
            admit(&mut history, change)?;
        }
        history.message_bytes_max = self.message_bytes_max;
        history.whole_bytes_max = self.whole_bytes_max;
        history.orphans = std::mem::take(&mut self.orphans);
        history.peers = std::mem::take(&mut self.peers);
        let before = std::mem::take(&mut self.refused);
        for (hash, refusal) in before.iter() {
            history.refused.insert(*hash, refusal.clone());
        }
        let gone: Vec<u32> = removed.iter().map(|change| change.index).collect();
        for peer in history.peers.values_mut() {
            peer.forget(&gone);
        }
        history.weigh_all();
        let first = gone.first().copied().unwrap_or(u32::MAX);
        history.record.quarantined += u32::from(first < durable_len);
        *self = history;
        Some(Removal {
            rows_from,
            rows: replaced,
            removed,
        })
    }
}
