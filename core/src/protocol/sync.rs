//! Automerge sync messages, read without copying and written without building a document.
//!
//! The layout (automerge 0.12, `sync`), numbers as unsigned LEB128:
//! a byte 0x42 (V1) or 0x43 (V2); heads; need; have, each a list of hashes (`last_sync`) and a
//! length-prefixed Bloom filter; a list of length-prefixed chunks; and optionally length-prefixed
//! flags. Lists begin with their length, hashes are 32 bytes.

use automerge::ChangeHash;
use automerge::sync::BloomFilter;

use super::error::ProtocolError;
use super::limits::{BLOOM_PROBES_MAX, CHUNKS_MAX, HAVES_MAX, HEADS_MAX, NEED_MAX};
use crate::leb::{push_unsigned, read_unsigned};

const V1: u8 = 0x42;
const V2: u8 = 0x43;

/// How a sync message is written. What is read may be either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// Each chunk is a change; the only version that Automerge knew before 2.1.
    V1,
    /// A chunk may be a whole document. Only for who [says](SyncMessage::flags) that it takes them.
    V2,
}

/// What a sync message says besides its lists.
///
/// Any flags at all mean that the sender takes document chunks (V2) and, to a stock client, that
/// it may send some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// "Forget what you sent me; I did not keep it."
    pub sync_reset: bool,
    /// "I do not take changes from you."
    pub read_only: bool,
    /// "I understand `sync_reset`."
    pub supports_sync_reset: bool,
}

impl Flags {
    const MARKER: u8 = 0x80;
    const SYNC_RESET: u8 = 1;
    const READ_ONLY: u8 = 2;
    const SUPPORTS_SYNC_RESET: u8 = 4;

    fn read(bytes: &[u8]) -> Self {
        let bits = bytes
            .iter()
            .filter(|b| **b & Self::MARKER != 0)
            .fold(0, |all, b| all | b);
        Self {
            sync_reset: bits & Self::SYNC_RESET != 0,
            read_only: bits & Self::READ_ONLY != 0,
            supports_sync_reset: bits & Self::SUPPORTS_SYNC_RESET != 0,
        }
    }

    fn byte(self) -> u8 {
        let bit = |is: bool, bit: u8| if is { bit } else { 0 };
        Self::MARKER
            | bit(self.sync_reset, Self::SYNC_RESET)
            | bit(self.read_only, Self::READ_ONLY)
            | bit(self.supports_sync_reset, Self::SUPPORTS_SYNC_RESET)
    }
}

/// One Automerge sync message, borrowing from the frame it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncMessage<'a> {
    /// The sender's heads.
    pub heads: Vec<ChangeHash>,
    /// Changes that the sender asks for by name.
    pub need: Vec<ChangeHash>,
    /// What the sender has.
    pub have: Vec<Have<'a>>,
    /// Chunks, each of them one or several change or document chunks back to back.
    pub changes: Vec<&'a [u8]>,
    /// `None` if the sender knows [`Version::V1`] only.
    pub flags: Option<Flags>,
}

/// How many heads an encoded message names, without reading more of it.
#[must_use]
pub fn named_heads(message: &[u8]) -> usize {
    let Some((&(V1 | V2), rest)) = message.split_first() else {
        return 0;
    };
    let named = Input(rest).number().unwrap_or(0);
    let room = rest.len() / size_of::<ChangeHash>();
    usize::try_from(named).map_or(room, |named| named.min(room))
}

/// One claim of what the sender has: everything up to `last_sync`, and what `bloom` contains.
#[derive(Debug, Clone, PartialEq)]
pub struct Have<'a> {
    /// Heads up to which the sender has everything.
    pub last_sync: Vec<ChangeHash>,
    /// What it has beyond.
    pub bloom: Bloom<'a>,
}

/// A Bloom filter over change hashes, as it lies in a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bloom<'a> {
    /// How many hashes it covers.
    pub entries: u32,
    probes: u32,
    bits: &'a [u8],
}

impl<'a> Bloom<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ProtocolError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut input = Input(bytes);
        let entries = input.number()?;
        let bits_per_entry = input.number()?;
        let probes = input.number()?;
        let bits = entries.saturating_mul(bits_per_entry).div_ceil(8);
        let (Ok(entries), Ok(probes)) = (u32::try_from(entries), u32::try_from(probes)) else {
            return Err(ProtocolError::Sync("Bloom filter out of range"));
        };
        if probes > BLOOM_PROBES_MAX || bits != input.0.len() as u64 {
            return Err(ProtocolError::Sync(
                "Bloom filter whose parameters do not fit its size",
            ));
        }
        Ok(Self {
            entries,
            probes,
            bits: input.0,
        })
    }

    /// Whether the sender said to have this change; wrong for about 1 % of those it has not.
    #[must_use]
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        let modulo = 8 * self.bits.len() as u64;
        if modulo == 0 {
            return false;
        }
        let word = |at: usize| {
            let bytes = hash.0[at..at + 4].try_into().expect("4 of 32 bytes");
            u64::from(u32::from_le_bytes(bytes)) % modulo
        };
        let (mut x, mut y, z) = (word(0), word(4), word(8));
        (0..self.probes).all(|probe| {
            if probe > 0 {
                x = (x + y) % modulo;
                y = (y + z) % modulo;
            }
            self.bits
                .get((x / 8) as usize)
                .is_some_and(|byte| byte & (1 << (x % 8)) != 0)
        })
    }
}

impl<'a> SyncMessage<'a> {
    /// Reads one sync message.
    ///
    /// # Errors
    /// When the bytes are none, or exceed one of the [`limits`](super::limits).
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut input = Input(bytes);
        if !matches!(input.take(1)?, [V1 | V2]) {
            return Err(ProtocolError::Sync("unknown version"));
        }
        let heads = input.hashes("heads", HEADS_MAX)?;
        let need = input.hashes("need", NEED_MAX)?;
        // An entry has at least a length of hashes and one of a filter.
        let haves = input.count("have entries", HAVES_MAX, 2)?;
        let mut have = Vec::with_capacity(haves);
        for _ in 0..haves {
            let last_sync = input.hashes("last_sync", HEADS_MAX)?;
            have.push(Have {
                last_sync,
                bloom: Bloom::read(input.prefixed()?)?,
            });
        }
        // Each chunk takes at least the byte of its length.
        let chunks = input.count("chunks", CHUNKS_MAX, 1)?;
        let mut changes = Vec::with_capacity(chunks);
        for _ in 0..chunks {
            changes.push(input.prefixed()?);
        }
        let flags = match input.0 {
            [] => None,
            _ => Some(Flags::read(input.prefixed()?)),
        };
        Ok(Self {
            heads,
            need,
            have,
            changes,
            flags,
        })
    }

    /// Whether this asks for everything from the start, as Automerge does when it does not know
    /// all of our `last_sync`.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        let from_the_start =
            |have: &Have<'_>| have.last_sync.is_empty() && have.bloom == Bloom::default();
        !self.heads.is_empty()
            && self.changes.is_empty()
            && matches!(self.have.as_slice(), [have] if from_the_start(have))
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], ProtocolError> {
        let Some((taken, rest)) = self.0.split_at_checked(n) else {
            return Err(ProtocolError::Sync("cut short"));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, ProtocolError> {
        let (number, len) = read_unsigned(self.0).ok_or(ProtocolError::Sync("bad number"))?;
        self.0 = self.0.get(len..).unwrap_or_default();
        Ok(number)
    }

    /// The length of a list whose entries take at least `bytes_min` each. One that the bytes do not
    /// bear out is nonsense, whatever the limit.
    fn count(
        &mut self,
        what: &'static str,
        max: usize,
        bytes_min: usize,
    ) -> Result<usize, ProtocolError> {
        let found = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if found > self.0.len() / bytes_min {
            return Err(ProtocolError::Sync("cut short"));
        }
        if found > max {
            return Err(ProtocolError::Limit { what, found, max });
        }
        Ok(found)
    }

    fn prefixed(&mut self) -> Result<&'a [u8], ProtocolError> {
        let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        self.take(len)
    }

    fn hashes(&mut self, what: &'static str, max: usize) -> Result<Vec<ChangeHash>, ProtocolError> {
        let count = self.count(what, max, 32)?;
        let bytes = self.take(count * 32)?;
        let hash = |bytes: &[u8]| ChangeHash(bytes.try_into().expect("chunks of 32"));
        Ok(bytes.chunks_exact(32).map(hash).collect())
    }
}

/// Writes the part of a sync message that comes before its chunks. `have` is what the sender
/// claims to have, if anything. `chunks` is how many length-prefixed chunks the caller appends,
/// and after them come [`encode_flags`](Flags)' bytes, if any.
#[must_use]
pub fn encode_sync(
    version: Version,
    heads: &[ChangeHash],
    need: &[ChangeHash],
    have: Option<(&[ChangeHash], &BloomFilter)>,
    chunks: usize,
) -> Vec<u8> {
    let last_sync = have.map_or(0, |(last_sync, _)| last_sync.len());
    let hashes = heads.len() + need.len() + last_sync;
    let mut out = Vec::with_capacity(16 + 32 * hashes);
    out.push(match version {
        Version::V1 => V1,
        Version::V2 => V2,
    });
    push_hashes(&mut out, heads);
    push_hashes(&mut out, need);
    match have {
        None => out.push(0),
        Some((last_sync, bloom)) => {
            out.push(1);
            push_hashes(&mut out, last_sync);
            let bloom = bloom.to_bytes();
            push_unsigned(&mut out, bloom.len() as u64);
            out.extend_from_slice(&bloom);
        }
    }
    push_unsigned(&mut out, chunks as u64);
    out
}

impl Flags {
    /// The end of a sync message that carries flags.
    #[must_use]
    pub fn encode(self) -> [u8; 3] {
        const LEGACY_V2: u8 = 0x02;
        [2, LEGACY_V2, self.byte()]
    }
}

fn push_hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    debug_assert!(hashes.is_sorted(), "Automerge writes hashes in order");
    push_unsigned(out, hashes.len() as u64);
    for hash in hashes {
        out.extend_from_slice(&hash.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::sync::{Message, State, SyncDoc};
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ROOT};

    #[test]
    fn automerges_own_messages_are_read_as_automerge_reads_them() {
        let mut doc = AutoCommit::new();
        for n in 0..100 {
            doc.put(ROOT, "n", n).unwrap();
            doc.commit();
        }
        let message = doc.sync().generate_sync_message(&mut State::new()).unwrap();
        let bytes = message.clone().encode();
        let ours = SyncMessage::decode(&bytes).unwrap();
        assert_eq!(ours.heads, message.heads);
        assert_eq!(ours.have[0].bloom.entries, 100);
        assert!(ours.flags.unwrap().supports_sync_reset);
        for change in doc.get_changes(&[]) {
            assert!(ours.have[0].bloom.contains(&change.hash()));
        }
        let others = (0..=255u8).filter(|n| ours.have[0].bloom.contains(&ChangeHash([*n; 32])));
        let theirs =
            (0..=255u8).filter(|n| message.have[0].bloom.contains_hash(&ChangeHash([*n; 32])));
        assert!(others.eq(theirs));
    }

    #[test]
    fn automerge_reads_what_is_written() {
        let hashes = [ChangeHash([1; 32]), ChangeHash([2; 32])];
        let bloom = BloomFilter::from_hashes(hashes.iter());
        let have = Some((&hashes[..], &bloom));
        let mut bytes = encode_sync(Version::V1, &hashes, &hashes[..1], have, 1);
        bytes.extend([3, 7, 7, 7]);
        bytes.extend(
            Flags {
                sync_reset: true,
                ..Flags::default()
            }
            .encode(),
        );
        let read = Message::decode(&bytes).unwrap();
        assert_eq!(read.heads, hashes);
        assert_eq!(read.need, &hashes[..1]);
        assert_eq!(read.have[0].bloom, bloom);
        assert_eq!(read.changes.iter().collect::<Vec<_>>(), [[7, 7, 7]]);
        assert!(
            read.flags
                .unwrap()
                .contains(automerge::sync::MessageFlags::SYNC_RESET)
        );
    }

    #[test]
    fn what_is_there_and_above_a_limit_is_told_from_nonsense() {
        let list = |len: usize, there: usize| {
            let mut bytes = vec![V1];
            push_unsigned(&mut bytes, len as u64);
            bytes.resize(bytes.len() + 32 * there, 7);
            bytes.extend([0, 0, 0]);
            SyncMessage::decode(&bytes).map(|message| message.heads.len())
        };
        assert_eq!(list(HEADS_MAX, HEADS_MAX), Ok(HEADS_MAX));
        let above = list(HEADS_MAX + 1, HEADS_MAX + 1).unwrap_err();
        assert!(above.is_of_its_document(), "{above}");
        let claimed = list(HEADS_MAX + 1, HEADS_MAX - 1).unwrap_err();
        assert!(!claimed.is_of_its_document(), "{claimed}");
    }

    #[test]
    fn claims_that_the_bytes_do_not_bear_out_are_errors() {
        let giant_bloom = b"\x42\x00\x00\x01\x00\x06\xff\xff\xff\xff\x0f\x01\x00";
        let many_probes = b"\x42\x00\x00\x01\x00\x06\x08\x01\xff\xff\xff\x0f\x00";
        for bytes in [
            &b""[..],
            b"\x41",
            b"\x42\x01",
            b"\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x42\x00\x00\x00\xff\xff\x03",
            giant_bloom,
            many_probes,
        ] {
            assert!(SyncMessage::decode(bytes).is_err(), "{bytes:x?}");
        }
    }
}
