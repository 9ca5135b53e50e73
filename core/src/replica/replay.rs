//! Received changes, made here once more where that is cheaper than to apply them.
//!
//! `apply_changes` walks every operation of each object that a change acts on, with its value: one
//! character takes 40 ms in a text of 260,000 operations. A transaction finds its place by the
//! indexes, in 0.03 ms. Somebody else's change that was made on top of all that is here is, for the
//! document, the same as an edit made here: the same operations by the same actor, on top of the
//! same changes, are the same bytes and so have the same hash. Most changes that arrive while
//! nobody types here are of that kind; all others are applied.
//!
//! A transaction cannot be taken back once it is committed, and only then tells its hash. So
//! whatever could make another change is looked at before: that the change is encoded the way
//! Automerge encodes it, what it comes after, and for each operation that it names just what the
//! transaction finds in its place. Should the hash differ all the same, the document is built again
//! without what was made, and nothing is replayed any more.

use automerge::legacy::{ElementId, Key, Op, OpId, OpType, SortedVec};
use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{
    Automerge, AutomergeError, Change, Cursor, ExpandedChange, ObjId, ObjType, Patch, PatchLog,
    Prop, ReadDoc, ScalarValue,
};

use crate::contents;
use crate::difference::object_id;

/// Most operations that are replayed at once: each takes about 0.05 ms, whatever their objects are.
const REPLAYED_OPS_MAX: usize = 32;

/// As many operations of an object take as long to walk as one takes to replay. Those of the whole
/// document are counted, because Automerge does not say how many an object has.
const WALKED_OPS_PER_REPLAYED: usize = 500;

/// Whether making these changes again is faster than applying them.
pub(super) fn is_worthwhile(document: &Automerge, changes: &[Change]) -> bool {
    let ops = changes
        .iter()
        .fold(0, |ops: usize, change| ops.saturating_add(change.len()));
    let walked = usize::try_from(document.stats().num_ops).unwrap_or(usize::MAX);
    ops <= REPLAYED_OPS_MAX && ops * WALKED_OPS_PER_REPLAYED <= walked
}

/// Whether these changes will be made again, as far as can be told before.
pub(super) fn is_for(document: &Automerge, changes: &[Change]) -> bool {
    is_worthwhile(document, changes)
        && changes
            .first()
            .is_some_and(|first| comes_next(document, first))
}

pub(super) enum Outcome {
    /// It is in the document, and changed this.
    Replayed(Vec<Patch>),
    /// The document is as it was.
    Left,
    /// The transaction made something else. The document is as it was, after it was built anew.
    Differed,
}

pub(super) fn replay(
    document: &mut Automerge,
    change: &Change,
    observed: bool,
) -> Result<Outcome, AutomergeError> {
    if !comes_next(document, change) {
        return Ok(Outcome::Left);
    }
    let expanded = change.decode();
    if !is_canonical(change, &expanded) {
        return Ok(Outcome::Left);
    }
    let heads = document.get_heads();
    let own = document.get_actor().clone();
    let author = document.get_author().cloned();
    let as_before = |document: &mut Automerge| {
        document.set_author(author.clone());
        document.set_actor(own.clone());
    };
    // The first change of an actor would have the name of who edits here.
    document.set_author(None);
    document.set_actor(change.actor_id().clone());
    let transaction = document.transaction_log_patches(PatchLog::new(observed));
    let mut transaction = transaction.expect("an empty log fits every document");
    let mut operations = expanded.operations.into_iter();
    let options = CommitOptions {
        message: expanded.message,
        time: Some(expanded.time),
    };
    if !operations.all(|operation| make(&mut transaction, operation).is_some()) {
        transaction.rollback();
        as_before(document);
        return Ok(Outcome::Left);
    }
    let (made, mut log) = transaction.commit_with(options);
    as_before(document);
    if made != Some(change.hash()) {
        *document = document.fork_at(&heads)?;
        as_before(document);
        return Ok(Outcome::Differed);
    }
    Ok(Outcome::Replayed(document.make_patches(&mut log)))
}

/// Whether a transaction begun now by the change's actor has its sequence number, its first
/// operation's counter and its deps: the heads, and the actor's change before.
fn comes_next(document: &Automerge, change: &Change) -> bool {
    let heads = document.get_heads();
    if !heads.iter().all(|head| change.deps().contains(head)) {
        return false;
    }
    // No change has operations above those of the changes that come after it.
    let mut max_op = 0;
    let mut is_continued = change.seq() == 1;
    for dep in change.deps() {
        let Some(meta) = document.get_change_meta_by_hash(dep) else {
            return false;
        };
        let continues = *meta.actor == *change.actor_id() && meta.seq + 1 == change.seq();
        if !continues && !heads.contains(dep) {
            return false;
        }
        is_continued |= continues;
        max_op = max_op.max(meta.max_op);
    }
    is_continued && change.start_op().get() == max_op + 1
}

/// Whether Automerge makes these bytes of these operations. An author's name goes with the actor's
/// first change, and no transaction has one in which a change is made again.
fn is_canonical(change: &Change, expanded: &ExpandedChange) -> bool {
    !change.is_empty()
        && change.extra_bytes().is_empty()
        && Change::from(expanded.clone()).hash() == change.hash()
}

/// Makes an operation; `None` if it is not known that the transaction makes just this one.
fn make(transaction: &mut Transaction<'_>, operation: Op) -> Option<()> {
    let before = transaction.pending_ops();
    let object = object_id(&operation.obj);
    match (operation.key, operation.insert) {
        (Key::Seq(after), true) => insert(transaction, &object, &after, operation.action)?,
        (Key::Seq(ElementId::Head), false) => return None,
        (Key::Seq(ElementId::Id(element)), false) => {
            let index = index_of(transaction, &object, &element)?;
            set(
                transaction,
                &object,
                index.into(),
                operation.action,
                &operation.pred,
            )?;
        }
        (Key::Map(name), _) => {
            let name = name.as_str().into();
            set(
                transaction,
                &object,
                name,
                operation.action,
                &operation.pred,
            )?;
        }
    }
    (transaction.pending_ops() == before + 1).then_some(())
}

fn insert(
    transaction: &mut Transaction<'_>,
    object: &ObjId,
    after: &ElementId,
    action: OpType,
) -> Option<()> {
    let is_text = transaction.object_type(object).ok()? == ObjType::Text;
    // Where marks begin and end, an insertion may come after the mark and not after the character.
    if is_text && !transaction.marks(object).ok()?.is_empty() {
        return None;
    }
    let index = match after {
        ElementId::Head => 0,
        ElementId::Id(element) => {
            let index = index_of(transaction, object, element)?;
            // What was deleted has the index of what follows.
            let (_, visible) = transaction.get(object, index).ok()??;
            if !is(&visible, element) {
                return None;
            }
            // In a text this may lie inside a wide character, which counts as after it.
            index + 1
        }
    };
    match (action, is_text) {
        (OpType::Put(value @ ScalarValue::Str(_)), true) => {
            transaction.insert(object, index, value).ok()
        }
        (OpType::Put(value), false) => transaction.insert(object, index, value).ok(),
        (OpType::Make(ObjType::Map), true) => transaction.split_block(object, index).map(drop).ok(),
        (OpType::Make(kind), false) => transaction
            .insert_object(object, index, kind)
            .map(drop)
            .ok(),
        _ => None,
    }
}

/// Puts, increments or deletes what is at a name or an index, if that are just the operations that
/// `replaced` names.
fn set(
    transaction: &mut Transaction<'_>,
    object: &ObjId,
    at: Prop,
    action: OpType,
    replaced: &SortedVec<OpId>,
) -> Option<()> {
    let visible = transaction.get_all(object, at.clone()).ok()?;
    let is_replaced = |id: &ObjId| replaced.iter().any(|replaced| is(id, replaced));
    if visible.len() != replaced.len() || !visible.iter().all(|(_, id)| is_replaced(id)) {
        return None;
    }
    let is_text = transaction.object_type(object).ok()? == ObjType::Text;
    match action {
        OpType::Delete => transaction.delete(object, at).ok(),
        // Of several values, a put of the last one would delete the others instead.
        _ if is_text || visible.len() > 1 => None,
        OpType::Put(value) => transaction.put(object, at, value).ok(),
        OpType::Make(kind) => transaction.put_object(object, at, kind).map(drop).ok(),
        OpType::Increment(by) => transaction.increment(object, at, by).ok(),
        OpType::MarkBegin(_) | OpType::MarkEnd(_) => None,
    }
}

/// The index of an element, or of what follows it. Automerge panics where the element is of another
/// object, and without optimizations where it is the beginning or end of a mark.
fn index_of(transaction: &Transaction<'_>, object: &ObjId, element: &OpId) -> Option<usize> {
    let cursor = Cursor::try_from(format!("{}@{}", element.0, element.1)).ok()?;
    contents::guard(|| transaction.get_cursor_position(object, &cursor, None)).ok()
}

fn is(id: &ObjId, operation: &OpId) -> bool {
    matches!(id, ObjId::Id(counter, actor, _) if *counter == operation.0 && *actor == operation.1)
}

#[cfg(test)]
pub(super) mod tests {
    use automerge::legacy::ObjectId;
    use automerge::marks::{ExpandMark, Mark};
    use automerge::{ActorId, Author, ChangeHash, PatchAction, ROOT};

    use super::super::incoming::bring_in;
    use super::*;

    /// Numbers that look random, the same ones for the same seed.
    pub(in crate::replica) struct Random(pub(in crate::replica) u64);

    impl Random {
        pub(in crate::replica) fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005) + 1;
            (self.0 >> 33) as usize % end
        }
    }

    fn actor(number: u8) -> ActorId {
        ActorId::from([number; 16])
    }

    fn objects(document: &Automerge) -> (ObjId, ObjId) {
        let object = |name| document.get(ROOT, name).unwrap().unwrap().1;
        (object("text"), object("list"))
    }

    fn begin() -> Automerge {
        let mut document = Automerge::new().with_actor(actor(1));
        let begun = document.transact::<_, _, AutomergeError>(|tx| {
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "hello world")?;
            tx.put_object(ROOT, "list", ObjType::List)?;
            tx.put(ROOT, "n", ScalarValue::counter(5))
        });
        begun.unwrap();
        document
    }

    fn edit(tx: &mut Transaction<'_>, random: &mut Random, marks: bool) -> Option<()> {
        let (_, text) = tx.get(ROOT, "text").unwrap()?;
        let (_, list) = tx.get(ROOT, "list").unwrap()?;
        let (length, items) = (tx.length(&text), tx.length(&list));
        let name = ["a", "b", "c"][random.below(3)];
        match random.below(if marks { 16 } else { 14 }) {
            0..3 => tx.splice_text(&text, random.below(length + 1), 0, "x").ok(),
            3 => tx
                .splice_text(&text, random.below(length + 1), 0, "\u{1F600}yz")
                .ok(),
            4 => tx.splice_text(&text, random.below(length + 1), 2, "").ok(),
            5 => tx.splice_text(&text, random.below(length + 1), 1, "q").ok(),
            6 => tx
                .split_block(&text, random.below(length + 1))
                .map(drop)
                .ok(),
            7 => tx.put(ROOT, name, random.below(3) as i64).ok(),
            8 => tx.delete(ROOT, name).ok(),
            9 => tx.increment(ROOT, "n", 2).ok(),
            10 => tx
                .insert(&list, random.below(items + 1), random.below(9) as u64)
                .ok(),
            11 => {
                let map = tx.insert_object(&list, random.below(items + 1), ObjType::Map);
                tx.put(map.ok()?, "when", ScalarValue::Timestamp(7)).ok()
            }
            12 if items > 0 => tx.put(&list, random.below(items), "put").ok(),
            13 if items > 0 => tx.delete(&list, random.below(items)).ok(),
            14 if length > 1 => {
                let start = random.below(length - 1);
                let end = start + 1 + random.below(length - start - 1);
                let mark = Mark::new("bold".into(), true, start, end);
                tx.mark(&text, mark, ExpandMark::After).ok()
            }
            15 if length > 1 => tx.unmark(&text, "bold", 0, length, ExpandMark::Both).ok(),
            _ => Some(()),
        }
    }

    fn apply(document: &mut Automerge, change: &Change) -> Vec<Patch> {
        let mut log = PatchLog::active();
        document
            .apply_changes_log_patches(vec![change.clone()], &mut log)
            .unwrap();
        document.make_patches(&mut log)
    }

    fn assert_same(replayed: &Automerge, applied: &Automerge) {
        assert_eq!(replayed.get_heads(), applied.get_heads());
        assert_eq!(replayed.hydrate(None), applied.hydrate(None));
        assert!(replayed.save() == applied.save());
    }

    /// How many of the changes that others make at random were replayed, and how many not.
    fn random_changes(seed: u64, marks: bool) -> (usize, usize) {
        let random = &mut Random(seed);
        let start = begin();
        let mut others: Vec<Automerge> = (2..5)
            .map(|number| start.fork().with_actor(actor(number)))
            .collect();
        // Whose name is no part of what others made.
        let name = Some(Author::from(b"somebody".to_vec()));
        let named = start.fork().with_author(name.clone());
        let mut replayed = named.with_actor(actor(9));
        let mut applied = start.clone();
        let (mut done, mut left) = (0, 0);
        for round in 0..150 {
            let author = random.below(others.len());
            if random.below(4) > 0 {
                others[author].merge(&mut applied).unwrap();
            }
            let other = &mut others[author];
            let mut transaction = other.transaction();
            for _ in 0..=random.below(3) {
                edit(&mut transaction, random, marks);
            }
            let options = CommitOptions::default().with_time(round);
            let options = match random.below(2) {
                0 => options.with_message("why"),
                _ => options,
            };
            let (Some(hash), _) = transaction.commit_with(options) else {
                continue;
            };
            // What its author made before and did not send comes first.
            let unsent: Vec<ChangeHash> = applied.get_heads();
            let known = |hash: &ChangeHash| other.get_change_meta_by_hash(hash).is_some();
            let unsent: Vec<_> = unsent.into_iter().filter(known).collect();
            for change in other.get_changes(&unsent) {
                if applied.get_change_meta_by_hash(&change.hash()).is_some() {
                    continue;
                }
                // Patches come in another order, and not as many, but tell of the same.
                let before = applied.hydrate(None);
                let told = |patches: Vec<Patch>| {
                    let is_mark = |patch: &Patch| matches!(patch.action, PatchAction::Mark { .. });
                    // Automerge does not apply them to values.
                    let (marks, others): (Vec<_>, Vec<_>) = patches.into_iter().partition(is_mark);
                    let mut value = before.clone();
                    let encoding = start.text_encoding();
                    value.apply_patches(encoding, others).unwrap();
                    (value, marks)
                };
                let expected = told(apply(&mut applied, &change));
                match replay(&mut replayed, &change, true).unwrap() {
                    Outcome::Replayed(patches) => {
                        assert_eq!(told(patches), expected, "{:?}", change.decode());
                        done += 1;
                    }
                    Outcome::Left => {
                        apply(&mut replayed, &change);
                        left += 1;
                    }
                    Outcome::Differed => panic!("{:?}", change.decode()),
                }
                assert_eq!(replayed.get_actor(), &actor(9));
                assert_eq!(replayed.get_author(), name.as_ref());
                assert_same(&replayed, &applied);
            }
            assert!(applied.get_change_meta_by_hash(&hash).is_some());
        }
        (done, left)
    }

    #[test]
    fn what_is_replayed_is_what_is_applied() {
        for seed in 0..8 {
            let (done, left) = random_changes(seed, false);
            assert!(done > 20 && left > 20, "{done} replayed, {left} not");
        }
    }

    #[test]
    fn what_is_replayed_beside_marks_is_what_is_applied() {
        for seed in 100..108 {
            let (done, left) = random_changes(seed, true);
            assert!(done > 5 && left > 20, "{done} replayed, {left} not");
        }
    }

    /// The change that `edit` makes on top of a document, with something else in it.
    fn altered(document: &Automerge, alter: impl FnOnce(&mut ExpandedChange)) -> Change {
        let mut other = document.fork().with_actor(actor(7));
        let (text, _) = objects(document);
        let mut transaction = other.transaction();
        transaction.splice_text(&text, 1, 0, "y").unwrap();
        transaction.commit();
        let mut expanded = other.get_last_local_change().unwrap().decode();
        alter(&mut expanded);
        Change::from(expanded)
    }

    fn assert_left(document: &Automerge, change: &Change) {
        let mut tried = document.clone();
        assert!(matches!(
            replay(&mut tried, change, true).unwrap(),
            Outcome::Left
        ));
        assert_same(&tried, document);
        assert_eq!(tried.get_actor(), document.get_actor());
        let mut applied = document.clone();
        apply(&mut tried, change);
        apply(&mut applied, change);
        assert_same(&tried, &applied);
    }

    #[test]
    fn what_a_transaction_would_not_make_is_left_to_be_applied() {
        let mut document = begin();
        let change = altered(&document, |_| {});
        let mut replayed = document.clone();
        let outcome = replay(&mut replayed, &change, true).unwrap();
        assert!(matches!(outcome, Outcome::Replayed(patches) if patches.len() == 1));
        let skips = |change: &mut ExpandedChange| {
            change.start_op = change.start_op.checked_add(3).unwrap();
        };
        assert_left(&document, &altered(&document, skips));
        let authored = |change: &mut ExpandedChange| change.extra_bytes = vec![1, 2, 3];
        assert_left(&document, &altered(&document, authored));
        let behind = altered(&document, |_| {});
        let mut transaction = document.transaction();
        transaction.put(ROOT, "later", 1).unwrap();
        transaction.commit();
        assert_left(&document, &behind);
    }

    #[test]
    fn a_put_of_what_won_a_conflict_is_left_to_be_applied() {
        let mut document = begin();
        let mut other = document.fork().with_actor(actor(6));
        for (document, value) in [(&mut document, 1), (&mut other, 2)] {
            let mut transaction = document.transaction();
            transaction.put(ROOT, "c", value).unwrap();
            transaction.commit();
        }
        document.merge(&mut other).unwrap();
        let change = altered(&document, |change| {
            let visible = document.get_all(ROOT, "c").unwrap();
            let ids = visible.iter().map(|(_, id)| match id {
                ObjId::Id(counter, actor, _) => OpId(*counter, actor.clone()),
                ObjId::Root => unreachable!("a value is no root"),
            });
            change.operations = vec![Op {
                action: OpType::Put(2.into()),
                obj: ObjectId::Root,
                key: Key::Map("c".into()),
                pred: ids.collect(),
                insert: false,
            }];
        });
        assert_left(&document, &change);
    }

    /// Marks that are all taken away still pull insertions behind their ends, and cannot be asked
    /// for. Whoever inserts right after the character makes a change that Automerge does not.
    #[test]
    fn a_change_that_came_out_different_is_taken_back_and_applied() {
        let mut document = begin();
        let (text, _) = objects(&document);
        let mut transaction = document.transaction();
        transaction
            .unmark(&text, "bold", 0, 5, ExpandMark::None)
            .unwrap();
        transaction.commit();
        let (_, first) = document.get(&text, 4).unwrap().unwrap();
        let ObjId::Id(counter, author, _) = first else {
            unreachable!("a character is no root");
        };
        let change = altered(&document, |change| {
            change.operations[0].key = Key::Seq(ElementId::Id(OpId(counter, author)));
        });
        let mut replayed = document.clone();
        let outcome = replay(&mut replayed, &change, true).unwrap();
        assert!(matches!(outcome, Outcome::Differed));
        assert_same(&replayed, &document);
        assert_eq!(replayed.get_actor(), document.get_actor());
        let expected = apply(&mut document, &change);
        assert_eq!(apply(&mut replayed, &change), expected);
        assert_same(&replayed, &document);
    }

    #[test]
    fn after_a_change_that_came_out_different_nothing_is_replayed() {
        let mut document = begin();
        let (text, _) = objects(&document);
        let mut transaction = document.transaction();
        for _ in 0..WALKED_OPS_PER_REPLAYED {
            transaction.splice_text(&text, 3, 0, "z").unwrap();
        }
        transaction
            .unmark(&text, "bold", 0, 5, ExpandMark::None)
            .unwrap();
        transaction.commit();
        let (_, last) = document.get(&text, 4).unwrap().unwrap();
        let ObjId::Id(counter, author, _) = last else {
            unreachable!("a character is no root");
        };
        let good = altered(&document, |_| {});
        let mut may_replay = true;
        let patches = bring_in(&mut document.clone(), vec![good], true, &mut may_replay);
        assert!(may_replay && patches.unwrap().len() == 1);
        let change = altered(&document, |change| {
            change.operations[0].key = Key::Seq(ElementId::Id(OpId(counter, author)));
        });
        let mut applied = document.clone();
        let expected = apply(&mut applied, &change);
        let patches = bring_in(&mut document, vec![change], true, &mut may_replay).unwrap();
        assert!(!may_replay);
        assert_eq!(patches, expected);
        assert_same(&document, &applied);
    }
}
