//! Stored values with a checksum: the stored format from version 2 on.
//!
//! A sealed value is a byte, four bytes of checksum (XXH32, little-endian) and what version 1 stored
//! in this place. The checksum covers the value and the place that it belongs to, so a value that
//! turns up elsewhere is damaged too. It finds what disks, memory and other programs do to bytes by
//! mistake; it is no protection against somebody who writes to the file.

use bytes::Bytes;
use xxhash_rust::xxh32::xxh32;

/// A whole value, or the last piece of one. No value of version 1 that is not cut into pieces
/// begins with this byte.
const WHOLE: u8 = 2;

/// A piece that others follow.
const CONTINUED: u8 = 3;

/// How much longer a value is than before.
pub const SEAL_BYTES: usize = 5;

fn checksum(place: &[u8], value: &[u8]) -> [u8; 4] {
    xxh32(value, xxh32(place, 0)).to_le_bytes()
}

fn sealed(kind: u8, place: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + SEAL_BYTES);
    out.push(kind);
    out.extend_from_slice(&checksum(place, value));
    out.extend_from_slice(value);
    // The kind is a bit of the checksum, so that no piece passes for the last.
    out[1] ^= kind;
    out
}

/// Seals a value for its place.
#[must_use]
pub fn seal(place: &[u8], value: &[u8]) -> Vec<u8> {
    sealed(WHOLE, place, value)
}

/// A value that was stored in this place, sealed or by version 1; `None` if it is damaged.
#[must_use]
pub fn unseal<'a>(place: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    match stored.first() {
        Some(&WHOLE) => match unseal_piece(place, stored)? {
            (value, true) => Some(value),
            _ => None,
        },
        _ => Some(stored),
    }
}

/// The same of a value that the caller owns.
#[must_use]
pub fn unseal_bytes(place: &[u8], stored: &Bytes) -> Option<Bytes> {
    Some(stored.slice_ref(unseal(place, stored)?))
}

/// Seals a piece of a value for its place.
#[must_use]
pub fn seal_piece(place: &[u8], piece: &[u8], is_last: bool) -> Vec<u8> {
    sealed(if is_last { WHOLE } else { CONTINUED }, place, piece)
}

/// A sealed piece, and whether it is the last; `None` if it is damaged.
#[must_use]
pub fn unseal_piece<'a>(place: &[u8], stored: &'a [u8]) -> Option<(&'a [u8], bool)> {
    let (head, value) = stored.split_first_chunk::<SEAL_BYTES>()?;
    let [kind, sum @ ..] = *head;
    let mut expected = checksum(place, value);
    expected[0] ^= kind;
    #[cfg(feature = "planted")]
    if crate::planted::is(crate::planted::Bug::DamagePassedOn) {
        expected = sum;
    }
    let known = kind == WHOLE || kind == CONTINUED;
    (known && sum == expected).then_some((value, kind == WHOLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bit_that_changes_is_seen() {
        let stored = seal(b"here", b"a value");
        assert_eq!(unseal(b"here", &stored), Some(&b"a value"[..]));
        assert_eq!(unseal(b"there", &stored), None);
        for bit in 0..stored.len() * 8 {
            let mut damaged = stored.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = unseal_piece(b"here", &damaged);
            assert_eq!(read, None, "bit {bit}");
        }
        for len in 1..stored.len() {
            assert_eq!(unseal(b"here", &stored[..len]), None);
        }
        let piece = seal_piece(b"here", b"a piece", false);
        assert_eq!(
            unseal_piece(b"here", &piece),
            Some((&b"a piece"[..], false))
        );
        assert_eq!(unseal(b"here", b"\x01old"), Some(&b"\x01old"[..]));
    }
}
