//! What the tests and the load driver share: a light automerge-repo client, the recorded editing
//! traces, and the relay as a process that can be killed.
//!
//! The relay is a process of its own, reached over a socket, as its users reach it; only where a
//! test must break its disk or its workshop is it linked in. `world` runs the core alone.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

pub mod door;
pub mod faults;
pub mod forge;
pub mod fuzz;
pub mod honest;
pub mod light;
pub mod patience;
pub mod process;
pub mod socket;
pub mod stored;
pub mod trace;
pub mod typist;
pub mod world;

/// Random numbers that a seed repeats (xorshift64*): what a failed test prints, it also takes.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Spread the bits of small seeds; the state must not be zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A seed from the clock and the process id, for runs that should differ.
    #[must_use]
    pub fn fresh_seed() -> u64 {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
    }

    /// The next 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number from 0 to `end`, without it.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// 16 random bytes, as in a document id.
    pub fn bytes(&mut self) -> [u8; 16] {
        (u128::from(self.number()) << 64 | u128::from(self.number())).to_le_bytes()
    }

    /// That many bytes, which do not compress.
    pub fn noise(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.number().to_le_bytes());
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    }

    /// A document id nobody used before.
    pub fn document_id(&mut self) -> reconverge::id::DocumentId {
        reconverge::id::DocumentId::new(&self.bytes()).unwrap()
    }
}
