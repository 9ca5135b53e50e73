//! The form in which a document lies in storage; `docs/internals/stored-format.md` has every byte.
//!
//! * a [`Row`] holds the changes of one turn, as they arrived;
//! * a *segment* (see [`graph`](super::graph)) holds what the graph keeps of folded changes;
//! * an *outline* (see [`outline`](super::outline)) holds actors and objects of folded changes;
//! * a [`Record`] says what there is.
//!
//! Each begins with its version. What does not read as written was damaged or made by a later
//! version, and is reported as such, never skipped.

use automerge::ChangeHash;
use bytes::Bytes;

use super::objects::Objects;
use crate::id::Space;
use crate::leb::{Reader, push_unsigned};

/// The version of all stored forms.
pub(crate) const VERSION: u8 = 1;

/// A difference of either sign, small ones short.
pub(crate) fn push_difference(out: &mut Vec<u8>, to: u32, from: u32) {
    let difference = i64::from(to) - i64::from(from);
    push_unsigned(out, ((difference << 1) ^ (difference >> 63)) as u64);
}

pub(crate) fn read_difference(input: &mut Reader<'_>, from: u32) -> Option<u32> {
    let zigzag = input.unsigned()?;
    let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    u32::try_from(i64::from(from).checked_add(difference)?).ok()
}

/// One change of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChange {
    /// Its hash.
    pub hash: ChangeHash,
    /// The indexes of its deps, in the order of the change.
    pub parents: Vec<u32>,
    /// The counter of its last operation.
    pub max_op: u32,
    /// The objects that it makes.
    pub objects: Objects,
    /// Its chunk, inflated, or deflated as it came if that is much shorter.
    pub bytes: Bytes,
}

/// The changes that one turn stored, in order of arrival.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// At least one change.
    pub changes: Vec<StoredChange>,
}

impl Row {
    /// About how many bytes its stored form has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.changes.iter().map(|c| c.bytes.len() + 48).sum()
    }

    /// The row's stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes() + 8);
        out.push(VERSION);
        push_unsigned(&mut out, self.changes.len() as u64);
        for change in &self.changes {
            out.extend_from_slice(&change.hash.0);
            push_unsigned(&mut out, change.parents.len() as u64);
            for parent in &change.parents {
                push_unsigned(&mut out, u64::from(*parent));
            }
            push_unsigned(&mut out, u64::from(change.max_op));
            change.objects.encode(&mut out);
            push_unsigned(&mut out, change.bytes.len() as u64);
            out.extend_from_slice(&change.bytes);
        }
        out
    }

    /// Reads a row; its changes share `bytes`. `None` if it is damaged.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut input = Reader(bytes);
        if input.take(1)? != [VERSION] {
            return None;
        }
        let mut changes = Vec::new();
        for _ in 0..input.unsigned()? {
            let hash = input.hash()?;
            let parents = 0..input.unsigned()?;
            let parents = parents.map(|_| input.number()).collect::<Option<_>>()?;
            let max_op = input.number()?;
            let objects = Objects::decode(&mut input)?;
            let bytes = bytes.slice_ref(input.prefixed()?);
            changes.push(StoredChange {
                hash,
                parents,
                max_op,
                objects,
                bytes,
            });
        }
        input.is_empty().then_some(Self { changes })
    }
}

/// What a document consists of: written when it is made and when it is compacted, never by an
/// edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The space in which it was first stored.
    pub space: Space,
    /// How many changes the snapshot covers: those with lower indexes.
    pub folded: u32,
    /// The first index whose bytes are stored as a row; at most `folded`.
    pub rows_from: u32,
    /// The folded changes that keep their rows, by the foldings that kept them: the first index
    /// and the bytes of each lot, in order. Lots below `rows_from` are gone.
    pub retained: Vec<(u32, u64)>,
    /// Which snapshot and outline are current; 0 if there are none yet.
    pub generation: u32,
    /// The snapshot's size in bytes.
    pub snapshot_bytes: u64,
    /// How many segments there are.
    pub segments: u32,
    /// The heads of the folded changes: index, hash, counter of the last operation.
    pub heads: Vec<(u32, ChangeHash, u32)>,
    /// The changes below this index were checked by building the document; those that are folded
    /// always were.
    pub verified: u32,
    /// How many lots of quarantined changes there are.
    pub quarantined: u32,
}

impl Record {
    /// The record of a document that has no snapshot.
    #[must_use]
    pub fn new(space: Space) -> Self {
        Self {
            space,
            folded: 0,
            rows_from: 0,
            retained: Vec::new(),
            generation: 0,
            snapshot_bytes: 0,
            segments: 0,
            heads: Vec::new(),
            verified: 0,
            quarantined: 0,
        }
    }

    /// The record's stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        push_unsigned(&mut out, self.space.as_str().len() as u64);
        out.extend_from_slice(self.space.as_str().as_bytes());
        for number in [self.folded, self.rows_from, self.generation, self.segments] {
            push_unsigned(&mut out, u64::from(number));
        }
        push_unsigned(&mut out, self.snapshot_bytes);
        push_unsigned(&mut out, self.heads.len() as u64);
        for (index, hash, max_op) in &self.heads {
            push_unsigned(&mut out, u64::from(*index));
            out.extend_from_slice(&hash.0);
            push_unsigned(&mut out, u64::from(*max_op));
        }
        push_unsigned(&mut out, self.retained.len() as u64);
        for (from, bytes) in &self.retained {
            push_unsigned(&mut out, u64::from(*from));
            push_unsigned(&mut out, *bytes);
        }
        push_unsigned(&mut out, u64::from(self.verified));
        push_unsigned(&mut out, u64::from(self.quarantined));
        out
    }

    /// Reads a record. `None` if it is damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader(bytes);
        if input.take(1)? != [VERSION] {
            return None;
        }
        let space = Space::new(std::str::from_utf8(input.prefixed()?).ok()?)?;
        let (folded, rows_from) = (input.number()?, input.number()?);
        let (generation, segments) = (input.number()?, input.number()?);
        let snapshot_bytes = input.unsigned()?;
        let heads = 0..input.unsigned()?;
        let head = |_| Some((input.number()?, input.hash()?, input.number()?));
        let heads = heads.map(head).collect::<Option<_>>()?;
        let retained = 0..input.unsigned()?;
        let lot = |_| Some((input.number()?, input.unsigned()?));
        let retained = retained.map(lot).collect::<Option<_>>()?;
        let (verified, quarantined) = (input.number()?, input.number()?);
        let record = Self {
            space,
            folded,
            rows_from,
            retained,
            generation,
            snapshot_bytes,
            segments,
            heads,
            verified,
            quarantined,
        };
        input.is_empty().then_some(record)
    }
}

/// A change that was taken out of its document: its contents made no document, or it depends on one
/// whose contents did not. It is kept for the operator, and never taken again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Its hash.
    pub hash: ChangeHash,
    /// Why.
    pub reason: String,
    /// The peer that sent it; empty if that is not known any more.
    pub sender: String,
    /// Its chunk, as it was stored; empty after the operator dropped it.
    pub bytes: Bytes,
}

impl Quarantined {
    /// The stored form of some.
    #[must_use]
    pub fn encode(lot: &[Self]) -> Vec<u8> {
        let mut out = vec![VERSION];
        push_unsigned(&mut out, lot.len() as u64);
        for change in lot {
            out.extend_from_slice(&change.hash.0);
            let parts: [&[u8]; 3] = [
                change.reason.as_bytes(),
                change.sender.as_bytes(),
                &change.bytes,
            ];
            for part in parts {
                push_unsigned(&mut out, part.len() as u64);
                out.extend_from_slice(part);
            }
        }
        out
    }

    /// Reads some; their bytes share `bytes`. `None` if they are damaged.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Vec<Self>> {
        let mut input = Reader(bytes);
        if input.take(1)? != [VERSION] {
            return None;
        }
        let mut lot = Vec::new();
        for _ in 0..input.unsigned()? {
            let hash = input.hash()?;
            let text = |bytes: &[u8]| Some(std::str::from_utf8(bytes).ok()?.to_owned());
            lot.push(Self {
                hash,
                reason: text(input.prefixed()?)?,
                sender: text(input.prefixed()?)?,
                bytes: bytes.slice_ref(input.prefixed()?),
            });
        }
        input.is_empty().then_some(lot)
    }
}

/// The stored form of the heads that a relay acknowledged.
#[must_use]
pub fn encode_heads(heads: &[ChangeHash]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(heads.iter().flat_map(|hash| hash.0));
    out
}

/// Reads acknowledged heads. `None` if they are damaged.
#[must_use]
pub fn decode_heads(bytes: &[u8]) -> Option<Vec<ChangeHash>> {
    let (version, hashes) = bytes.split_first()?;
    let whole = *version == VERSION && hashes.len() % 32 == 0;
    let hash = |bytes: &[u8]| ChangeHash(bytes.try_into().expect("chunks of 32"));
    whole.then(|| hashes.chunks_exact(32).map(hash).collect())
}

#[cfg(test)]
mod tests {
    use super::super::objects::ObjectKind;
    use super::*;

    #[test]
    fn rows_and_records_are_read_as_written_and_damage_is_seen() {
        let change = StoredChange {
            hash: ChangeHash([3; 32]),
            parents: vec![0, 5],
            max_op: 70_000,
            objects: Objects::from_iter([(69_999, ObjectKind::Text)]),
            bytes: Bytes::from_static(b"chunk"),
        };
        let row = Row {
            changes: vec![change.clone(), change],
        };
        let bytes = Bytes::from(row.encode());
        assert_eq!(Row::decode(&bytes), Some(row));
        let mut record = Record::new(Space::default());
        record.folded = 7;
        record.heads.push((6, ChangeHash([4; 32]), 9));
        record.retained.extend([(3, 70_000), (5, 1)]);
        (record.verified, record.quarantined) = (9, 300);
        let stored = record.encode();
        assert_eq!(Record::decode(&stored), Some(record));
        let lot = vec![Quarantined {
            hash: ChangeHash([5; 32]),
            reason: "Automerge panicked".into(),
            sender: "ann".into(),
            bytes: Bytes::from_static(b"chunk"),
        }];
        let kept = Bytes::from(Quarantined::encode(&lot));
        assert_eq!(Quarantined::decode(&kept), Some(lot));
        for cut in 0..kept.len() {
            assert_eq!(Quarantined::decode(&kept.slice(..cut)), None);
        }
        for cut in 0..bytes.len() {
            assert_eq!(Row::decode(&bytes.slice(..cut)), None);
        }
        for cut in 0..stored.len() {
            assert_eq!(Record::decode(&stored[..cut]), None);
        }
    }

    #[test]
    fn differences_of_both_signs_survive() {
        for (to, from) in [(5, 3), (3, 5), (u32::MAX, 0), (0, u32::MAX), (1, 1)] {
            let mut out = Vec::new();
            push_difference(&mut out, to, from);
            assert_eq!(read_difference(&mut Reader(&out), from), Some(to));
        }
    }
}
