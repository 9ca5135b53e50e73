//! Hostile input: what reads bytes of a peer or of the disk, as plain functions over bytes.
//!
//! * [`TARGETS`] lists them, each with its corpus and with what it may allocate;
//! * [`targets`] says what each must keep, besides not to panic;
//! * [`corpus`] makes honest input, from real documents and recorded editing;
//! * [`mutate`] makes it hostile, from a seed.
//!
//! `tests/fuzz.rs` drives all of them. A coverage-guided fuzzer may call [`Target::run`] just so.

pub mod corpus;
pub mod mutate;
pub mod targets;

use corpus::CORPUS;
use mutate::Shape;

use crate::Random;

/// One decoder under test.
#[derive(Debug)]
pub struct Target {
    /// Its name, as in `RECONVERGE_FUZZ_TARGET`.
    pub name: &'static str,
    /// Reads the bytes and checks all that must hold; whether they were accepted.
    ///
    /// # Panics
    /// When something does not hold.
    pub run: fn(&[u8]) -> bool,
    /// Only reads the bytes, so that what it allocates can be measured.
    pub read: fn(&[u8]),
    /// Most bytes that reading so many bytes may allocate at a time.
    pub allocates_max: fn(usize) -> usize,
    /// Honest input.
    pub corpus: fn() -> &'static [Vec<u8>],
    /// How the input is built.
    pub shape: Shape,
    /// How many mutated inputs the short run tries.
    pub runs: u64,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

/// Everything that reads bytes which others made.
pub static TARGETS: &[Target] = &[
    Target {
        name: "frame",
        run: targets::frame,
        read: targets::read_frame,
        // Lists of strings, which may be empty: 1,024 times 1,024 of them at most.
        allocates_max: |len| (64 * len).min(64 * MIB) + 4 * KIB,
        corpus: || &CORPUS.frames,
        shape: Shape::Cbor,
        runs: 600_000,
    },
    Target {
        name: "session",
        run: targets::session,
        read: targets::read_frame,
        allocates_max: |len| (64 * len).min(64 * MIB) + 4 * KIB,
        corpus: || &CORPUS.frames,
        shape: Shape::Cbor,
        runs: 300_000,
    },
    Target {
        name: "sync",
        run: targets::sync,
        read: targets::read_sync,
        // A slice is 16 bytes, and the chunk that it names at least one.
        allocates_max: |len| 17 * len + 4 * KIB,
        corpus: || &CORPUS.syncs,
        shape: Shape::Leb,
        runs: 20_000,
    },
    Target {
        name: "chunk",
        run: targets::chunk,
        read: targets::read_chunk,
        allocates_max: inflating,
        corpus: || &CORPUS.chunks,
        shape: Shape::Leb,
        runs: 20_000,
    },
    Target {
        name: "change",
        run: targets::change,
        read: targets::read_change,
        allocates_max: |len| 64 * len + 256 * KIB,
        corpus: || &CORPUS.changes,
        shape: Shape::Leb,
        runs: 40_000,
    },
    Target {
        name: "document",
        run: targets::document,
        read: targets::read_document,
        allocates_max: inflating,
        corpus: || &CORPUS.documents,
        shape: Shape::Leb,
        runs: 20_000,
    },
    Target {
        name: "record",
        run: targets::record,
        read: targets::read_record,
        // A lot is 16 bytes and takes 2; a list that grows lies in memory twice.
        allocates_max: |len| 32 * len + 4 * KIB,
        corpus: || &CORPUS.records,
        shape: Shape::Leb,
        runs: 60_000,
    },
    Target {
        name: "row",
        run: targets::row,
        read: targets::read_row,
        allocates_max: |len| 24 * len + 4 * KIB,
        corpus: || &CORPUS.rows,
        shape: Shape::Leb,
        runs: 40_000,
    },
    Target {
        name: "stored",
        run: targets::stored,
        read: targets::read_stored,
        allocates_max: |len| 64 * len + 256 * KIB,
        corpus: || &CORPUS.stored,
        shape: Shape::Parts,
        runs: 40_000,
    },
    Target {
        name: "heads",
        run: targets::heads,
        read: targets::read_heads,
        allocates_max: |len| len + KIB,
        corpus: || &CORPUS.heads,
        shape: Shape::Leb,
        runs: 20_000,
    },
    Target {
        name: "name",
        run: targets::name,
        read: targets::read_name,
        // An error quotes 64 characters.
        allocates_max: |_| 4 * KIB,
        corpus: || &CORPUS.names,
        shape: Shape::Text,
        runs: 60_000,
    },
];

/// Deflate makes at most 1,032 bytes of one; inflating stops at `CHANGE_BYTES_MAX`, and a buffer
/// that grows lies in memory twice.
fn inflating(len: usize) -> usize {
    (4 * 1032 * len).min(4 * reconverge::history::CHANGE_BYTES_MAX) + 128 * KIB
}

impl Target {
    /// The mutated input that a seed makes.
    #[must_use]
    pub fn input(&self, seed: u64) -> Vec<u8> {
        mutate::mutate(&mut Random::new(seed), (self.corpus)(), self.shape)
    }
}
