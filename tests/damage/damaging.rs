//! What disks, memory and other programs do to a file, from a seed.

use reconverge_tests::Random;

use crate::files::File;

const PAGE: usize = 4096;

/// Where the header has a field, and how many bytes it takes.
const FIELDS: [(usize, usize); 20] = [
    (0, 8),
    (9, 1),
    (12, 4),
    (16, 4),
    (20, 4),
    (24, 4),
    (28, 4),
    (64, 1),
    (65, 1),
    (66, 1),
    (72, 8),
    (80, 16),
    (96, 8),
    (104, 8),
    (112, 16),
    (168, 8),
    (176, 16),
    (192, 1),
    (200, 8),
    (304, 16),
];

/// What disks, memory and other programs do to a file; what was done, in words.
fn damage(bytes: &mut Vec<u8>, file: &File, random: &mut Random) -> String {
    let len = bytes.len();
    if len < 2 * PAGE {
        // Cut to this before; all of it is header.
        return String::from("nothing more");
    }
    let at = random.below(len as u64) as usize;
    let page = |random: &mut Random| {
        let pages = (len / PAGE) as u64;
        random.below(pages) as usize * PAGE
    };
    let end = |from: usize, by: usize| len.min(from + by);
    match random.below(16) {
        0 => {
            bytes[at] ^= 1 << random.below(8);
            format!("a bit at {at}")
        }
        1 => {
            for _ in 0..64 {
                bytes[random.below(len as u64) as usize] ^= 1 << random.below(8);
            }
            String::from("64 bits")
        }
        2 => {
            bytes[at..end(at, 64)].iter_mut().for_each(|b| *b = !*b);
            format!("64 bytes inverted at {at}")
        }
        3 => {
            let at = page(random);
            bytes[at..at + PAGE].fill(0);
            format!("the page at {at} zeroed")
        }
        4 => {
            let (one, other) = (page(random), page(random));
            for n in 0..PAGE {
                bytes.swap(one + n, other + n);
            }
            format!("the pages at {one} and {other} swapped")
        }
        5 => {
            let to = if random.below(2) == 0 {
                at
            } else {
                page(random)
            };
            bytes.truncate(to.max(1));
            format!("cut to {}", bytes.len())
        }
        6 => {
            let more = random.below(20_000) as usize;
            let more = if random.below(2) == 0 {
                more
            } else {
                more / PAGE * PAGE
            };
            bytes.extend(random.noise(more));
            format!("{more} bytes appended")
        }
        7 | 8 => {
            let (at, size) = FIELDS[random.below(FIELDS.len() as u64) as usize];
            let field = &mut bytes[at.min(len - 1)..end(at, size)];
            match random.below(5) {
                0 => field.fill(0),
                1 => field.fill(0xff),
                2 => field[0] ^= 1 << random.below(8),
                3 => field[0] = field[0].wrapping_add(1),
                _ => {
                    let noise = random.noise(field.len());
                    field.copy_from_slice(&noise);
                }
            }
            format!("the field of the header at {at}")
        }
        9 => {
            let to = end(at, 1 + random.below(512) as usize);
            let noise = random.noise(to - at);
            bytes[at..to].copy_from_slice(&noise);
            format!("noise from {at} to {to}")
        }
        10 => {
            let (from, to) = (page(random), page(random));
            bytes.copy_within(from..from + PAGE, to);
            format!("the page at {from} written to {to}")
        }
        11 => {
            let at = page(random);
            let to = end(at, PAGE << random.below(3));
            if let Some(old) = file.before.get(at..to) {
                bytes[at..to].copy_from_slice(old);
            }
            format!("bytes {at} to {to} as they were before")
        }
        12 | 13 => {
            // What redb reads first of a page: its kind, and where what is.
            let at = page(random) + random.below(64) as usize;
            match random.below(3) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = 0xff,
                _ => bytes[at] = random.below(4) as u8,
            }
            format!("a byte near the beginning of a page, at {at}")
        }
        _ => {
            let places = file.values.len() as u64;
            let value = &file.values[random.below(places) as usize];
            let at = value.start + random.below(value.len() as u64) as usize;
            if at >= len {
                return String::from("nothing");
            }
            bytes[at..end(at, 4)].fill(0xff);
            format!("a value at {at}")
        }
    }
}

pub(crate) fn damaged(seed: u64, file: &File) -> (Vec<u8>, String) {
    let mut random = Random::new(seed);
    let mut bytes = file.bytes.clone();
    let times = 1 + random.below(3) * random.below(2);
    let done = (0..times).map(|_| damage(&mut bytes, file, &mut random));
    let done = done.collect::<Vec<_>>().join(", ");
    if bytes.len() > 9 {
        keep_the_commit_that_counts(&mut bytes, file);
    }
    (bytes, done)
}

/// Which of its two commits counts, and whether only that one may, are bits in redb's header that no
/// checksum covers (`PRIMARY_BIT` and `TWO_PHASE_COMMIT`, redb 4.5.0,
/// `src/tree_store/page_store/header.rs:61` and 63; `select_primary_slot`, line 324). After a crash
/// both commits may be whole, and nobody can tell that a bit was not what it is now: the last commit
/// is gone. Nothing outside of redb can help, so these bits are left alone in files that were not
/// closed.
fn keep_the_commit_that_counts(bytes: &mut [u8], file: &File) {
    const BITS: u8 = 1 | 4;
    if !file.closed {
        bytes[9] = bytes[9] & !BITS | file.bytes[9] & BITS;
    }
}
