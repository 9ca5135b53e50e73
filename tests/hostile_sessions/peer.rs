//! What hostile peers say, drawn at random: each message is one that some limit or some bound is
//! there for.

use automerge::ChangeHash;
use automerge::sync::BloomFilter;
use reconverge::id::DocumentId;
use reconverge::leb::push_unsigned;
use reconverge::protocol::limits::{
    HEAD_TEXT_BYTES_MAX, REMOTE_HEADS_MAX, REMOTE_STORAGES_MAX, SESSION_ID_BYTES_MAX,
    STORAGE_ID_BYTES_MAX,
};
use reconverge::protocol::{
    self, BLOOM_PROBES_MAX, Ephemeral, Flags, HeadsOfStorage, Message, PeerMetadata, RemoteHeads,
    SyncEnvelope, Version, encode_sync,
};
use reconverge_tests::Random;
use reconverge_tests::world::push_chunks;

use crate::material::{LANES, Lane, Piece};

/// A frame, and what it may cost beyond its bytes, by what its changes declare.
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) inflated: u64,
    pub(crate) operations: u64,
}

/// The seeds of hashes that are of nothing, so that some are named again.
const HASHES: u64 = 5_000;

pub(crate) struct Hostile<'a> {
    pub(crate) random: &'a mut Random,
    pub(crate) name: &'a str,
    pub(crate) document: DocumentId,
}

impl Hostile<'_> {
    fn one_in(&mut self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    /// A count that is mostly small.
    fn count(&mut self, max: u64) -> usize {
        let shift = self.random.below(12);
        let below = (max >> shift).max(1) + 1;
        self.random.below(below) as usize
    }

    fn lane(&mut self) -> &'static Lane {
        &LANES[self.random.below(LANES.len() as u64) as usize]
    }

    fn hashes(&mut self, max: u64) -> Vec<ChangeHash> {
        let count = self.count(max);
        match self.random.below(4) {
            0 => Vec::new(),
            // Of nothing.
            1 => {
                let first = self.random.below(HASHES);
                let hash = |n| ChangeHash(Random::new(n).noise(32).try_into().unwrap());
                (first..first + count as u64).map(hash).collect()
            }
            // The same again and again.
            2 => {
                let lane = self.lane();
                let at = self.random.below(lane.len() as u64) as usize;
                lane[at].hash.into_iter().cycle().take(count).collect()
            }
            // Of changes, known or not, backwards or not.
            _ => {
                let lane = self.lane();
                let step = 1 + self.random.below(4) as usize;
                let mut some: Vec<_> = lane.iter().step_by(step).filter_map(|p| p.hash).collect();
                if self.one_in(2) {
                    some.reverse();
                }
                some.truncate(count);
                some
            }
        }
    }

    fn pieces(&mut self) -> Vec<&'static Piece> {
        let lane = self.lane();
        let from = match self.one_in(2) {
            true => 0,
            false => self.random.below(lane.len() as u64) as usize,
        };
        let count = 1 + self.count(lane.len() as u64);
        let mut pieces: Vec<_> = lane[from..].iter().take(count).collect();
        match self.random.below(4) {
            0 => pieces.reverse(),
            1 => pieces.extend_from_within(..),
            2 => pieces.sort_by_key(|piece| piece.hash),
            _ => {}
        }
        pieces
    }

    fn flags(&mut self) -> Option<Flags> {
        let mut bit = || self.random.below(3) == 0;
        let flags = Flags {
            sync_reset: bit(),
            read_only: bit() && bit(),
            supports_sync_reset: !bit(),
        };
        (!bit()).then_some(flags)
    }

    /// A sync message with any of its parts.
    fn sync(&mut self) -> Frame {
        let heads = self.hashes(2_000);
        let need = match self.one_in(3) {
            true => self.hashes(2_000),
            false => Vec::new(),
        };
        let pieces = match self.one_in(2) {
            true => self.pieces(),
            false => Vec::new(),
        };
        let filter = self.hashes(1_000);
        let last_sync = match self.one_in(2) {
            true => self.hashes(500),
            false => Vec::new(),
        };
        let mut bloom = BloomFilter::from_hashes(filter.iter());
        if self.one_in(2) {
            bloom = BloomFilter::default();
        }
        let have = (!self.one_in(4)).then_some((last_sync.as_slice(), &bloom));
        let version = match self.one_in(4) {
            true => Version::V2,
            false => Version::V1,
        };
        let mut data = encode_sync(version, &heads, &need, have, pieces.len());
        let chunks: Vec<_> = pieces.iter().map(|piece| piece.bytes.as_slice()).collect();
        push_chunks(&mut data, &chunks);
        if let Some(flags) = self.flags() {
            data.extend(flags.encode());
        }
        let mut frame = self.envelope(&data);
        frame.inflated = pieces.iter().map(|piece| piece.inflated).sum();
        frame.operations = pieces.iter().map(|piece| piece.operations).sum();
        frame
    }

    fn envelope(&mut self, data: &[u8]) -> Frame {
        let document = self.document.to_string();
        bare(&Message::Sync(SyncEnvelope {
            sender: self.name,
            target: "relay",
            document: document.into(),
            data,
            request: self.random.below(4) == 0,
        }))
    }

    /// A filter that claims to be larger than it is, or to be asked more often.
    fn false_filter(&mut self) -> Frame {
        let mut data = vec![0x42];
        push_unsigned(&mut data, 0);
        push_unsigned(&mut data, 0);
        push_unsigned(&mut data, 1);
        push_unsigned(&mut data, 0);
        let mut bloom = Vec::new();
        push_unsigned(&mut bloom, self.random.number() >> self.random.below(64));
        push_unsigned(&mut bloom, self.random.below(40));
        push_unsigned(
            &mut bloom,
            self.random.below(2 * u64::from(BLOOM_PROBES_MAX)),
        );
        bloom.extend(self.random.noise(40));
        push_unsigned(&mut data, bloom.len() as u64);
        data.extend(bloom);
        push_unsigned(&mut data, 0);
        self.envelope(&data)
    }

    /// A text at its longest, or beyond.
    fn text(&mut self, max: usize) -> String {
        let over = usize::from(self.one_in(8));
        "x".repeat(max + over)
    }

    fn ephemeral(&mut self) -> Frame {
        let session = self.text(SESSION_ID_BYTES_MAX);
        let data = vec![0; self.count(10_000)];
        bare(&Message::Ephemeral(Ephemeral {
            sender: self.name,
            target: "relay",
            document: self.document.to_string().into(),
            count: self.random.number(),
            session: &session,
            data: &data,
        }))
    }

    fn gossip(&mut self) -> Frame {
        let storage = self.text(STORAGE_ID_BYTES_MAX);
        let head = self.text(HEAD_TEXT_BYTES_MAX);
        let heads = self.count(REMOTE_HEADS_MAX as u64 + 8);
        let storages = 1 + self.count(REMOTE_STORAGES_MAX as u64) / 16;
        let one = HeadsOfStorage {
            storage: &storage,
            heads: vec![head.into(); heads],
            timestamp_ms: 1.0,
        };
        bare(&Message::RemoteHeadsChanged(RemoteHeads {
            sender: self.name,
            target: "relay",
            document: self.document.to_string().into(),
            heads: vec![one; storages],
        }))
    }

    fn subscription(&mut self) -> Frame {
        let storage = self.text(STORAGE_ID_BYTES_MAX);
        let count = self.count(1_100);
        bare(&Message::RemoteSubscriptionChange {
            sender: self.name,
            target: "relay",
            add: vec![&storage; count],
            remove: Vec::new(),
        })
    }

    /// A good frame that was damaged. What it declares then is small, as its numbers are.
    fn damaged(&mut self) -> Frame {
        let mut frame = self.sync();
        for _ in 0..1 + self.random.below(3) {
            let at = self.random.below(frame.bytes.len() as u64) as usize;
            frame.bytes[at] = self.random.number() as u8;
        }
        frame
    }

    /// The next frame.
    pub(crate) fn frame(&mut self) -> Frame {
        match self.random.below(24) {
            0 => self.ephemeral(),
            1 => self.gossip(),
            2 => self.subscription(),
            3 => self.damaged(),
            4 => self.false_filter(),
            _ => self.sync(),
        }
    }
}

/// The first frame of a connection.
pub(crate) fn join(name: &str) -> Vec<u8> {
    protocol::encode(&Message::Join {
        sender: name,
        metadata: PeerMetadata::default(),
        speaks_v1: true,
    })
}

fn bare(message: &Message<'_>) -> Frame {
    Frame {
        bytes: protocol::encode(message),
        inflated: 0,
        operations: 0,
    }
}
