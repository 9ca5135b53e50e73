//! How long to wait before the next try: exponential, with full jitter, so that many clients that
//! lost the same relay do not come back together.

use std::time::Duration;

/// Longest wait after the first failure.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(250);

/// Longest wait after any number of failures.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Random numbers that follow from a seed (xorshift64*).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Spread the bits of small seeds; the state must not be zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A duration from nothing to `longest`.
    fn up_to(&mut self, longest: Duration) -> Duration {
        // The upper 32 bits as a fraction of 1.
        longest.mul_f64((self.number() >> 32) as f64 / f64::from(u32::MAX))
    }
}

/// The wait after `failures` in a row, at least one.
pub(super) fn wait(failures: u32, random: &mut Random) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    random.up_to((BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_spread_over_all_of_it() {
        let mut random = Random::new(1);
        for (failures, longest) in [
            (1, BACKOFF_FIRST),
            (2, BACKOFF_FIRST * 2),
            (40, BACKOFF_MAX),
        ] {
            let waits: Vec<_> = (0..1000).map(|_| wait(failures, &mut random)).collect();
            assert!(waits.iter().all(|wait| *wait <= longest));
            assert!(waits.iter().any(|wait| *wait < longest / 10), "{failures}");
            assert!(
                waits.iter().any(|wait| *wait > longest * 9 / 10),
                "{failures}"
            );
        }
    }
}
