//! Honest input made hostile.

use reconverge::leb::{push_unsigned, read_unsigned};

use crate::Random;

/// Larger input is cut: a mutation repeats, and repetitions multiply.
const INPUT_BYTES_MAX: usize = 256 * 1024;

/// What an input is built of, so that mutations hit what matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Numbers are LEB128.
    Leb,
    /// CBOR: the first byte of an item has its kind and length.
    Cbor,
    /// Text.
    Text,
    /// Several inputs of [`Shape::Leb`], see [`join`].
    Parts,
}

/// Numbers at which something ends.
const EXTREMES: [u64; 20] = [
    0,
    1,
    2,
    31,
    63,
    64,
    127,
    128,
    255,
    16_384,
    65_536,
    1 << 20,
    1 << 24,
    (1 << 31) - 1,
    (1 << 31) + 1,
    u32::MAX as u64 - 1,
    u32::MAX as u64,
    1 << 60,
    i64::MAX as u64,
    u64::MAX,
];

/// Puts parts into one input, each behind its length in 4 bytes.
#[must_use]
pub fn join<P: AsRef<[u8]>>(parts: &[P]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts.iter().map(AsRef::as_ref) {
        out.extend((part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// The parts of an input; a last one that is cut short is left out.
#[must_use]
pub fn split(mut input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((len, rest)) = input.split_at_checked(4) {
        let len = u32::from_le_bytes(len.try_into().expect("4 bytes")) as usize;
        let Some((part, rest)) = rest.split_at_checked(len) else {
            break;
        };
        parts.push(part);
        input = rest;
    }
    parts
}

/// One entry of the corpus with one to four mutations.
#[must_use]
pub fn mutate(random: &mut Random, corpus: &[Vec<u8>], shape: Shape) -> Vec<u8> {
    let mut input = pick(random, corpus).clone();
    let times = 1 + random.below(4);
    for _ in 0..times {
        let other = pick(random, corpus);
        if shape == Shape::Parts {
            let others = split(other);
            let mut parts: Vec<Vec<u8>> = split(&input).into_iter().map(<[u8]>::to_vec).collect();
            let at = random.below(parts.len() as u64) as usize;
            let same = others.get(at).copied().unwrap_or_default();
            if random.below(8) == 0 {
                // A part that belongs to something else.
                parts[at] = same.to_vec();
            } else {
                once(random, &mut parts[at], same, Shape::Leb);
            }
            input = join(&parts);
        } else {
            once(random, &mut input, other, shape);
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

fn pick<'a>(random: &mut Random, corpus: &'a [Vec<u8>]) -> &'a Vec<u8> {
    &corpus[random.below(corpus.len() as u64) as usize]
}

/// A place in `bytes`, more often near the start, where headers are.
fn place(random: &mut Random, bytes: &[u8]) -> usize {
    let len = bytes.len() as u64;
    let end = if random.below(2) == 0 {
        len.min(64)
    } else {
        len
    };
    random.below(end) as usize
}

fn range(random: &mut Random, bytes: &[u8]) -> std::ops::Range<usize> {
    let from = random.below(bytes.len() as u64 + 1) as usize;
    let len_max = (bytes.len() - from).min(if random.below(2) == 0 { 8 } else { 512 });
    from..from + random.below(len_max as u64 + 1) as usize
}

fn once(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8], shape: Shape) {
    if bytes.is_empty() {
        bytes.extend_from_slice(other);
        return;
    }
    let at = place(random, bytes);
    match random.below(12) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.number() as u8,
        2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
        3 => bytes.truncate(at),
        4 => {
            let removed = range(random, bytes);
            bytes.drain(removed);
        }
        5 => {
            let taken = other[range(random, other)].to_vec();
            bytes.splice(at..at, taken);
        }
        6 => {
            // The beginning of this, the end of another.
            bytes.truncate(at);
            let from = random.below(other.len() as u64 + 1) as usize;
            bytes.extend_from_slice(&other[from..]);
        }
        7 => {
            let repeated = bytes[range(random, bytes)].to_vec();
            let times_max = if random.below(16) == 0 { 2_000 } else { 8 };
            let times = 1 + random.below(times_max) as usize;
            let repeated = repeated.repeat(times.min(INPUT_BYTES_MAX / repeated.len().max(1)));
            bytes.splice(at..at, repeated);
        }
        _ => match shape {
            Shape::Cbor => cbor(random, bytes, at),
            Shape::Text => text(random, bytes, at),
            Shape::Leb | Shape::Parts => leb(random, bytes, at),
        },
    }
}

/// A number replaced by an extreme one, or written longer than needed.
fn leb(random: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let (number, len) = read_unsigned(&bytes[at..]).unwrap_or_else(|| (u64::from(bytes[at]), 1));
    let mut new = Vec::new();
    match random.below(4) {
        0 => {
            push_unsigned(&mut new, number);
            let widened = random.below(12) as usize;
            if widened > 0 {
                *new.last_mut().expect("at least a byte") |= 0x80;
                new.extend(std::iter::repeat_n(0x80, widened - 1));
                new.push(0);
            }
        }
        1 => push_unsigned(&mut new, number.wrapping_add(1)),
        2 => push_unsigned(&mut new, number.wrapping_sub(1)),
        _ => {
            let extreme = EXTREMES[random.below(EXTREMES.len() as u64) as usize];
            push_unsigned(&mut new, extreme);
        }
    }
    bytes.splice(at..at + len, new);
}

/// An item's head with a false length, of indefinite length, or inside of many others.
fn cbor(random: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let kind = if random.below(2) == 0 {
        bytes[at] & 0xe0
    } else {
        (random.below(8) as u8) << 5
    };
    let extreme = EXTREMES[random.below(EXTREMES.len() as u64) as usize];
    let head: Vec<u8> = match random.below(7) {
        0 => [&[kind | 0x18][..], &[extreme as u8]].concat(),
        1 => [&[kind | 0x19][..], &(extreme as u16).to_be_bytes()].concat(),
        2 => [&[kind | 0x1a][..], &(extreme as u32).to_be_bytes()].concat(),
        3 => [&[kind | 0x1b][..], &extreme.to_be_bytes()].concat(),
        4 => vec![kind | 0x1f],
        5 => vec![0xff],
        _ => {
            let nested: &[u8] = [
                &[0x81][..],
                &[0x9f],
                &[0x82, 0x9f],
                &[0xa1, 0x61, 0x61],
                &[0xc1],
            ][random.below(5) as usize];
            let times = 1 + random.below(3_000) as usize;
            bytes.splice(at..at, nested.repeat(times));
            return;
        }
    };
    let replaced = usize::from(random.below(2) == 0);
    bytes.splice(at..at + replaced, head);
}

fn text(random: &mut Random, bytes: &mut Vec<u8>, at: usize) {
    let new: &[u8] = [
        &b"automerge:"[..],
        b"-",
        b"0",
        b"1",
        b"z",
        b"\n",
        b"\x1b[2K",
        "\u{202e}".as_bytes(),
        "ü".as_bytes(),
        b"\0",
    ][random.below(10) as usize];
    bytes.splice(at..at, new.iter().copied());
}
