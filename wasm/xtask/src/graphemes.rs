//! What tells graphemes apart: 31 kB, most of it tables.
//!
//! Automerge counts a text by the encoding that its document was made with, and can count graphemes.
//! Ours are all made with UTF-16, which is Automerge's default with the feature `utf16-indexing`, and
//! which no stored document says anything about. It also tells graphemes apart where it updates a
//! text to another one by their difference, which has no caller here.

use walrus::Module;

use crate::unused;

/// Characters with rules are below, and places in data, which come after the stack, are not.
const CHARS_END: u32 = 0x10_0000;

/// More than there are kinds of graphemes.
const KINDS_END: u32 = 32;

/// More than there are rows.
const ROWS_END: u16 = 2048;

/// Cuts down to a trap what goes from one grapheme to the next. All else of it is only called by that,
/// and some of it might serve others, whose code is the same.
pub(crate) fn cut(module: &mut Module) {
    unused::cut(module, is_unused, table_bytes);
}

fn is_unused(name: &str) -> bool {
    let Some((implementor, method)) = name.split_once(" as core") else {
        return false;
    };
    implementor.starts_with("<unicode_segmentation")
        && implementor.ends_with("::grapheme::Graphemes")
        && method.contains("::Iterator>::next")
}

/// How many bytes from the first on are a table of characters, or what says where to look in it.
fn table_bytes(data: &[u8]) -> usize {
    let pairs = ranges(data, 8);
    let kinds = ranges(data, 12);
    pairs.max(kinds).max(places(data))
}

/// Rows of so many bytes with two characters, a first and a last, maybe of some kind. They are sorted.
fn ranges(data: &[u8], row_bytes: usize) -> usize {
    let mut free = 0;
    let rows = data.chunks_exact(row_bytes).take_while(|row| {
        let word = |at: usize| {
            let word = row.get(4 * at..4 * at + 4)?;
            word.try_into().ok().map(u32::from_le_bytes)
        };
        let (first, last) = (word(0).unwrap_or(0), word(1).unwrap_or(0));
        let kind = word(2).unwrap_or(0);
        let is_range = free <= first && first <= last && last < CHARS_END && kind < KINDS_END;
        free = last.saturating_add(1);
        is_range
    });
    rows.count() * row_bytes
}

/// For each part of all characters, the first row to look in.
fn places(data: &[u8]) -> usize {
    let mut rows = data
        .chunks_exact(2)
        .map(|row| u16::from_le_bytes([row[0], row[1]]));
    let mut before = match rows.next() {
        Some(0) => 0,
        _ => return 0,
    };
    let rows = rows.take_while(|&row| {
        // What is all zeros is no table.
        let is_place = (before.max(1)..ROWS_END).contains(&row);
        before = row;
        is_place
    });
    2 * (1 + rows.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows with such a number of words, of every other character.
    fn rows(words: usize) -> Vec<u8> {
        let rows = (0..100).map(|row| [2 * row, 2 * row, row % 3]);
        let words = rows.flat_map(|row| row.into_iter().take(words));
        words.flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn tables_of_characters_have_an_end() {
        let text = b"text of another kind";
        for (table, words) in [(rows(2), 2), (rows(3), 3)] {
            assert_eq!(table.len(), 100 * 4 * words);
            let place = 0x10_0100_u32.to_le_bytes();
            for behind in [&b""[..], text, &[0; 24], &[place, place, [0; 4]].concat()] {
                let data = [&table, behind].concat();
                assert_eq!(table_bytes(&data), table.len(), "{words} {behind:?}");
            }
        }
    }

    #[test]
    fn tables_of_places_have_an_end() {
        let places = (0..200_u16).map(|part| 5 * part);
        let table: Vec<u8> = places.flat_map(u16::to_le_bytes).collect();
        for behind in [&b""[..], b"text of another kind", &[0; 24]] {
            let data = [&table, behind].concat();
            assert_eq!(table_bytes(&data), table.len(), "{behind:?}");
        }
    }

    #[test]
    fn other_data_is_no_table() {
        let inside = rows(3).split_off(4);
        for data in [&b"text "[..], &[0; 256], &[0xff; 256], &inside] {
            assert!(table_bytes(data) < 32, "{data:?}");
        }
        assert_eq!(table_bytes(b""), 0);
    }

    #[test]
    fn names_tell_what_is_unused() {
        for (name, unused) in [
            (
                "<unicode_segmentation[1f]::grapheme::Graphemes as core[2e]::iter::traits::iterator::Iterator>::next",
                true,
            ),
            (
                "<unicode_segmentation::grapheme::Graphemes as core::iter::traits::iterator::Iterator>::next::h0123456789abcdef",
                true,
            ),
            (
                "<unicode_segmentation::grapheme::GraphemeState as core::cmp::PartialEq>::eq",
                false,
            ),
            (
                "<core::iter::adapters::map::Map<unicode_segmentation::grapheme::Graphemes, F> as core::iter::traits::iterator::Iterator>::next",
                false,
            ),
            ("unicode_segmentation::tables::is_incb_linker", false),
        ] {
            assert_eq!(is_unused(name), unused, "{name}");
        }
    }
}
