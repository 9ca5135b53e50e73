//! How one text becomes another.

use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation};

use super::hunks::{fewest_hunks, hunks, numbered};

/// At a byte of the text, some of it is deleted and something inserted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Splice<'a> {
    pub(super) at: usize,
    pub(super) deleted: &'a str,
    pub(super) inserted: &'a str,
}

/// Edits by what a reader takes for characters; by words, if very much is different. In order.
pub(super) fn splices<'a>(before: &'a str, after: &'a str) -> Vec<Splice<'a>> {
    let start = same_start(before, after);
    let end = same_end(&before[start..], &after[start..]);
    let before = &before[start..before.len() - end];
    let after = &after[start..after.len() - end];
    let mut parts = [before, after].map(|text| text.graphemes(true).collect::<Vec<_>>());
    let [b, a] = numbered(&parts[0], &parts[1]);
    let hunks = fewest_hunks(&b, &a).unwrap_or_else(|| {
        parts = [before, after].map(|text| text.split_word_bounds().collect());
        let [b, a] = numbered(&parts[0], &parts[1]);
        hunks(&b, &a)
    });
    let ends = parts.map(|parts| {
        let mut end = 0;
        let lengths = parts.iter().map(|part| part.len());
        let ends = lengths.map(|length| {
            end += length;
            end
        });
        [0].into_iter().chain(ends).collect::<Vec<_>>()
    });
    let splices = hunks.into_iter().map(|hunk| {
        let deleted = ends[0][hunk.before.start]..ends[0][hunk.before.end];
        let inserted = ends[1][hunk.after.start]..ends[1][hunk.after.end];
        Splice {
            at: start + deleted.start,
            deleted: &before[deleted],
            inserted: &after[inserted],
        }
    });
    splices.collect()
}

/// An end of a character is looked for so many bytes back, and no further: that may take long in what
/// is no text that anybody reads.
const BACK_BYTES_MAX: usize = 200;

/// How many bytes both begin with, up to an end of a character in both.
fn same_start(before: &str, after: &str) -> usize {
    let bytes = before.bytes().zip(after.bytes());
    let same = bytes.take_while(|(one, other)| one == other).count();
    let is_end = |start: &usize| is_between(before, *start) && is_between(after, *start);
    back_from(same).find(is_end).unwrap_or_default()
}

/// How many bytes both end with, from the beginning of a character in both.
fn same_end(before: &str, after: &str) -> usize {
    let bytes = before.bytes().rev().zip(after.bytes().rev());
    let same = bytes.take_while(|(one, other)| one == other).count();
    let is_beginning = |end: &usize| {
        is_between(before, before.len() - end) && is_between(after, after.len() - end)
    };
    back_from(same).find(is_beginning).unwrap_or_default()
}

fn back_from(bytes: usize) -> impl Iterator<Item = usize> {
    (bytes.saturating_sub(BACK_BYTES_MAX)..=bytes).rev()
}

/// Whether this is between two characters.
fn is_between(text: &str, at: usize) -> bool {
    let mut cursor = GraphemeCursor::new(at, text.len(), true);
    text.is_char_boundary(at) && cursor.is_boundary(text, 0) == Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str, expected: &[(usize, &str, &str)]) {
        let splices = splices(before, after);
        let told: Vec<_> = splices
            .iter()
            .map(|it| (it.at, it.deleted, it.inserted))
            .collect();
        assert_eq!(told, expected);
        let mut made = before.to_owned();
        for Splice {
            at,
            deleted,
            inserted,
        } in splices.into_iter().rev()
        {
            assert_eq!(&made[at..at + deleted.len()], deleted);
            made.replace_range(at..at + deleted.len(), inserted);
        }
        assert_eq!(made, after);
    }

    #[test]
    fn a_text_is_edited_where_it_differs() {
        check("bread", "bread", &[]);
        check("", "bread", &[(0, "", "bread")]);
        check("bread", "", &[(0, "bread", "")]);
        check("bread", "breads", &[(5, "", "s")]);
        check("aaa", "aa", &[(2, "a", "")]);
        check(
            "one two three",
            "one 2 three!",
            &[(4, "two", "2"), (13, "", "!")],
        );
        check("a\r\nb", "a\nb", &[(1, "\r\n", "\n")]);
    }

    #[test]
    fn no_character_is_cut() {
        // The same first code point, and the same last one.
        check("🇩🇪", "🇩🇰", &[(0, "🇩🇪", "🇩🇰")]);
        check("x👩‍👧y", "x👨‍👧y", &[(1, "👩‍👧", "👨‍👧")]);
        check("e\u{301}", "e", &[(0, "e\u{301}", "e")]);
        check("本の木", "本木", &[(3, "の", "")]);
    }

    #[test]
    fn a_text_that_is_very_different_is_edited_by_words() {
        let before = "the ".repeat(1_000) + "end";
        let after = "a ".repeat(1_000) + "end";
        let mut made = before.clone();
        for splice in splices(&before, &after).into_iter().rev() {
            made.replace_range(splice.at..splice.at + splice.deleted.len(), splice.inserted);
        }
        assert_eq!(made, after);
    }
}
