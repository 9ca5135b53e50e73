//! Where a cursor is, whoever made it up.
//!
//! Automerge panics at a cursor whose element is of another object, and walks from element to element
//! for one that moves to what was before. Cursors come from others, by presence or out of a document,
//! so the change that made an element is asked first in which object that is.

use std::collections::VecDeque;
use std::ops::Range;

use automerge::{ActorId, Automerge, Cursor, ObjId, ReadDoc};

use crate::history::acts_in;

/// What is known of so many runs of elements is kept.
const RUNS_MAX: usize = 64;

/// Finds cursors in one document.
#[derive(Debug, Default)]
pub struct Cursors {
    /// Elements that one change made in an object, one after the other. They stay there for good.
    runs: VecDeque<(ObjId, ActorId, Range<u64>)>,
}

impl Cursors {
    /// The index of a cursor in a list or text; of one whose element was deleted, the index of what
    /// comes after it or, if it moves to what was before, of that. `None` if it is no cursor of this
    /// object.
    ///
    /// It takes microseconds, and the first time for the elements of a change as long as to read
    /// that.
    pub fn position(
        &mut self,
        document: &Automerge,
        object: &ObjId,
        cursor: &str,
    ) -> Option<usize> {
        match cursor {
            "s" => return Some(0),
            "e" => return Some(document.length(object)),
            _ => {}
        }
        let after = cursor.strip_prefix('-').unwrap_or(cursor);
        let (counter, actor) = after.split_once('@')?;
        // Automerge panics at a counter of more than 32 bits.
        let counter = u64::from(counter.parse::<u32>().ok()?);
        let actor = ActorId::try_from(actor).ok()?;
        if !document.object_type(object).ok()?.is_sequence()
            || !self.is_in(document, object, counter, &actor)
        {
            return None;
        }
        let found = Cursor::try_from(after).ok()?;
        let index = document.get_cursor_position(object, &found, None).ok()?;
        let id = |index: usize| Some(document.get(object, index).ok()??.1);
        let element = ObjId::Id(counter, actor, 0);
        if after == cursor || index == 0 || id(index).as_ref() == Some(&element) {
            return Some(index);
        }
        // A character may be two indexes wide.
        let is_wide = index > 1 && id(index - 1) == id(index - 2);
        Some(index - if is_wide { 2 } else { 1 })
    }

    fn is_in(
        &mut self,
        document: &Automerge,
        object: &ObjId,
        counter: u64,
        actor: &ActorId,
    ) -> bool {
        let mut runs = self.runs.iter();
        if let Some((of, ..)) =
            runs.find(|(_, by, counters)| by == actor && counters.contains(&counter))
        {
            return of == object;
        }
        let made = document.hash_for_opid(&ObjId::Id(counter, actor.clone(), 0));
        let Some(change) = made.and_then(|hash| document.get_change_by_hash(&hash)) else {
            return false;
        };
        let Some((of, counters)) = acts_in(&change, counter) else {
            return false;
        };
        let is_in = of == *object;
        self.runs.truncate(RUNS_MAX - 1);
        self.runs.push_front((of, actor.clone(), counters));
        is_in
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{AutomergeError, ObjType, ROOT};

    use super::*;

    fn document() -> (Automerge, ObjId, ObjId, ObjId) {
        let mut document = Automerge::new();
        let made = document.transact::<_, _, AutomergeError>(|tx| {
            let one = tx.put_object(ROOT, "one", ObjType::Text)?;
            tx.splice_text(&one, 0, 0, "one text")?;
            let other = tx.put_object(ROOT, "other", ObjType::Text)?;
            tx.splice_text(&other, 0, 0, "another")?;
            let list = tx.put_object(ROOT, "list", ObjType::List)?;
            tx.insert(&list, 0, 1)?;
            tx.put(ROOT, "key", 1)?;
            Ok((one, other, list))
        });
        let (one, other, list) = made.unwrap().result;
        (document, one, other, list)
    }

    fn cursors(document: &Automerge, object: &ObjId) -> Vec<String> {
        let all = 0..document.length(object);
        all.map(|at| document.get_cursor(object, at, None).unwrap().to_string())
            .collect()
    }

    #[test]
    fn a_cursor_is_found_in_its_object_and_in_no_other() {
        let (document, one, other, list) = document();
        let objects = [one, other, list, ROOT];
        for object in &objects[..3] {
            for (at, cursor) in cursors(&document, object).iter().enumerate() {
                for asked in &objects {
                    // Known or not, it is the same.
                    for known in [&mut Cursors::default(), &mut Cursors::default()] {
                        for _ in 0..2 {
                            let expected = (asked == object).then_some(at);
                            assert_eq!(known.position(&document, asked, cursor), expected);
                        }
                    }
                }
            }
        }
        let mut known = Cursors::default();
        let [one, ..] = &objects;
        assert_eq!(known.position(&document, one, "s"), Some(0));
        assert_eq!(known.position(&document, one, "e"), Some(8));
    }

    #[test]
    fn what_is_no_cursor_is_none() {
        let (document, one, ..) = document();
        let actor = document.get_actor().to_string();
        let mut known = Cursors::default();
        let max = u64::MAX;
        let other = "00".repeat(16);
        for cursor in [
            "", "-", "@", "-@", "é", "x", "1", "2@", "2@z", "2@abc", "s@", "0@", "2@é", "--2@",
        ] {
            assert_eq!(known.position(&document, &one, cursor), None, "{cursor:?}");
        }
        for counter in [0, 1, 10, 17, 18, 20, 21, 1000, max] {
            for cursor in [
                format!("{counter}@{actor}"),
                format!("-{counter}@{actor}"),
                format!("{counter}@{other}"),
            ] {
                assert_eq!(known.position(&document, &one, &cursor), None, "{cursor}");
            }
        }
        assert_eq!(
            known.position(&document, &ROOT, &format!("2@{actor}")),
            None
        );
    }

    #[test]
    fn a_cursor_of_what_was_deleted_is_where_that_was() {
        let (mut document, one, ..) = document();
        let mut known = Cursors::default();
        let all = cursors(&document, &one);
        let tx = document.transact::<_, _, AutomergeError>(|tx| {
            tx.splice_text(&one, 0, 2, "")?;
            tx.splice_text(&one, 2, 3, "\u{1f600}")
        });
        tx.unwrap();
        assert_eq!(document.text(&one).unwrap(), "e \u{1f600}t");
        let wide = document.length(&one) - 3;
        let mut at = |cursor: &str| known.position(&document, &one, cursor);
        let places: Vec<_> = all.iter().map(|cursor| at(cursor)).collect();
        let last = 2 + wide;
        assert_eq!(places, [0, 0, 0, 1, last, last, last, last].map(Some));
        let places: Vec<_> = all.iter().map(|cursor| at(&format!("-{cursor}"))).collect();
        assert_eq!(places, [0, 0, 0, 1, 2, 2, 2, last].map(Some));
    }
}
