//! A sync message to a peer: what it says, and which chunks it carries, whose bytes are elsewhere.

use std::ops::Range;
use std::sync::Arc;

use automerge::ChangeHash;
use automerge::sync::BloomFilter;

use crate::protocol::{Flags, Version, encode_sync};

/// What one peer should be sent now.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The heads to name.
    pub heads: Arc<[ChangeHash]>,
    /// The changes to ask for.
    pub need: Vec<ChangeHash>,
    /// What to claim to have.
    pub have: Claim,
    /// Whether the snapshot goes first.
    pub snapshot: bool,
    /// Then these changes, in order.
    pub changes: Vec<Range<u32>>,
    /// The flags, if any.
    pub flags: Option<Flags>,
}

/// What a sync message claims to have.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// Nothing is said: more follows.
    Nothing,
    /// Everything up to the heads that the message names.
    Heads,
    /// Everything up to some heads, and what a filter over these hashes contains.
    Filter {
        /// The heads that the peer certainly has.
        last_sync: Vec<ChangeHash>,
        /// Hashes of the changes after those.
        hashes: Vec<ChangeHash>,
    },
}

impl Outgoing {
    /// The first message to a peer that waits for us to speak. It has all up to `last_sync`; `hashes`
    /// are those of the changes after that, of which a filter is made.
    pub(crate) fn greeting(
        heads: Arc<[ChangeHash]>,
        last_sync: Vec<ChangeHash>,
        hashes: Vec<ChangeHash>,
    ) -> Self {
        Self {
            heads,
            need: Vec::new(),
            have: Claim::Filter { last_sync, hashes },
            snapshot: false,
            changes: Vec::new(),
            flags: Some(Flags {
                sync_reset: false,
                read_only: false,
                supports_sync_reset: true,
            }),
        }
    }

    /// The sync message up to its chunks, of which `chunks` follow, each behind its length, and
    /// then the [`Self::flags`].
    #[must_use]
    pub fn encode_head(&self, chunks: usize) -> Vec<u8> {
        let bloom;
        let have: Option<(&[ChangeHash], _)> = match &self.have {
            Claim::Nothing => None,
            Claim::Heads => {
                bloom = BloomFilter::default();
                Some((&self.heads, &bloom))
            }
            Claim::Filter { last_sync, hashes } => {
                bloom = BloomFilter::from_hashes(hashes.iter());
                Some((last_sync, &bloom))
            }
        };
        let version = match self.snapshot {
            true => Version::V2,
            false => Version::V1,
        };
        encode_sync(version, &self.heads, &self.need, have, chunks)
    }
}
