//! Aim: what leads from one state of a document to another is what Automerge says, and to find it
//! costs what changed, not what the document has.
//!
//! Method: random edits by several, who merge now and then; random states of what they made, in both
//! directions. Automerge's own difference of the whole document is compared with that of the objects
//! that were touched, which must be the same patches. But for those of marks, which automerge 0.12
//! tells of other texts, and of texts in which none changed: there it must be so that all texts of
//! which they changed are touched. Where the objects are few is counted, not timed.
//! `RECONVERGE_SEED=n` repeats a run.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use automerge::legacy::OpType;
use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{
    ActorId, Automerge, AutomergeError, Change, ChangeHash, ObjId, ObjType, Patch, PatchAction,
    Prop, ROOT, ReadDoc, ScalarValue, Value,
};
use reconverge::difference::{self, Differing};
use reconverge_tests::Random;

const RUNS: u64 = 150;

#[test]
fn the_objects_that_were_touched_differ_as_the_whole_document_does() {
    let seed = std::env::var("RECONVERGE_SEED").map(|seed| seed.parse().unwrap());
    let (first, runs) = seed.map_or_else(|_| (Random::fresh_seed() >> 32, RUNS), |seed| (seed, 1));
    println!("RECONVERGE_SEED={first} and the {runs} from there on");
    let mut compared = 0;
    for seed in first..first + runs {
        println!("RECONVERGE_SEED={seed} repeats this");
        compared += run(&mut Random::new(seed));
    }
    assert!(compared > runs * 20, "{compared} patches were compared");
}

/// Gives how many patches there were.
fn run(random: &mut Random) -> u64 {
    let mut first = Automerge::new().with_actor(ActorId::from([9; 16]));
    first.transact::<_, _, AutomergeError>(begin).unwrap();
    let mut replicas: Vec<_> = (0..3_u8)
        .map(|n| first.fork().with_actor(ActorId::from([n + 1; 16])))
        .collect();
    let mut states = vec![Vec::new(), first.get_heads()];
    for _ in 0..24 {
        let at = random.below(3) as usize;
        match random.below(10) {
            0..=2 => {
                let mut other = replicas[random.below(3) as usize].clone();
                replicas[at].merge(&mut other).unwrap();
            }
            3 => drop(replicas[at].empty_commit(Default::default())),
            _ => {
                let edits = 1 + random.below(4);
                let edited = replicas[at].transact::<_, _, AutomergeError>(|tx| {
                    (0..edits).try_for_each(|_| edit(tx, random))
                });
                edited.unwrap();
            }
        }
        states.push(replicas[at].get_heads());
    }
    let [mut all, mut second, mut third] = <[_; 3]>::try_from(replicas).unwrap();
    all.merge(&mut second).unwrap();
    all.merge(&mut third).unwrap();
    states.push(all.get_heads());
    let made: Vec<_> = all.get_changes(&[]).iter().flat_map(objects_made).collect();
    let mut compared = 0;
    for _ in 0..60 {
        let mut pick = || {
            let mut heads = states[random.below(states.len() as u64) as usize].clone();
            if random.below(3) == 0 {
                heads.extend(&states[random.below(states.len() as u64) as usize]);
            }
            heads
        };
        let (before, after) = (pick(), pick());
        compared += compare(&all, &made, &before, &after);
    }
    compared
}

fn compare(
    document: &Automerge,
    made: &[ObjId],
    before: &[ChangeHash],
    after: &[ChangeHash],
) -> u64 {
    let differing = Differing::within(document, before, after, u64::MAX).unwrap();
    let found = differing.patches(document, before, after);
    let whole = difference::mended(document, document.diff(before, after), after);
    let from_to = format!("from {before:?} to {after:?}");
    assert_eq!(plain(&found), plain(&whole), "{from_to}");
    let marks = |object: &ObjId, heads| format!("{:?}", document.marks_at(object, heads));
    for object in made {
        if !differing.objects.contains(object) {
            assert_eq!(marks(object, before), marks(object, after), "{from_to}");
        }
    }
    found.len() as u64
}

/// Without those of marks; of one object, in their order.
fn plain(patches: &[Patch]) -> Vec<String> {
    let mut sorted: Vec<_> = patches.iter().collect();
    sorted.sort_by(|a, b| a.obj.cmp(&b.obj));
    let sorted = sorted.iter();
    let others = sorted
        .copied()
        .filter(|patch| !matches!(patch.action, PatchAction::Mark { .. }));
    let text = |patch: &Patch| format!("{} {:?} {:?}", patch.obj, patch.path, patch.action);
    others.map(text).collect()
}

fn objects_made(change: &Change) -> Vec<ObjId> {
    let start = change.start_op().get();
    let operations = change.decode().operations;
    let made = operations.iter().zip(start..);
    let made = made.filter(|(op, _)| matches!(op.action, OpType::Make(_)));
    made.map(|(_, counter)| ObjId::Id(counter, change.actor_id().clone(), 0))
        .collect()
}

fn begin(tx: &mut Transaction<'_>) -> Result<(), AutomergeError> {
    let list = tx.put_object(ROOT, "list", ObjType::List)?;
    for index in 0..4 {
        let map = tx.insert_object(&list, index, ObjType::Map)?;
        tx.put(&map, "a", index as u64)?;
        let text = tx.put_object(&map, "text", ObjType::Text)?;
        tx.splice_text(&text, 0, 0, "hello 😀 world")?;
    }
    tx.put(ROOT, "n", ScalarValue::counter(3))?;
    Ok(())
}

/// All objects that show, and some that do not.
fn objects(tx: &Transaction<'_>) -> Vec<ObjId> {
    let mut objects = vec![ROOT];
    for at in 0.. {
        let Some(object) = objects.get(at).cloned() else {
            break;
        };
        let inner: Vec<_> = match tx.object_type(&object) {
            Ok(ObjType::Map | ObjType::Table) => {
                let keys: Vec<_> = tx.keys(&object).collect();
                let all = keys.into_iter().map(|key| tx.get_all(&object, key));
                all.flat_map(Result::unwrap).collect()
            }
            _ => {
                let all = (0..tx.length(&object)).map(|index| tx.get_all(&object, index));
                all.flat_map(Result::unwrap).collect()
            }
        };
        let inner = inner.into_iter().filter(|(value, _)| value.is_object());
        for (_, id) in inner {
            if !objects.contains(&id) {
                objects.push(id);
            }
        }
    }
    objects
}

fn edit(tx: &mut Transaction<'_>, random: &mut Random) -> Result<(), AutomergeError> {
    let all = objects(tx);
    let object = all[random.below(all.len() as u64) as usize].clone();
    let length = tx.length(&object);
    let at = random.below(length as u64 + 1) as usize;
    match tx.object_type(&object)? {
        ObjType::Text => edit_text(tx, random, &object, at, length),
        ObjType::List if at == length || random.below(3) == 0 => match random.below(2) {
            0 => tx.insert(&object, at, random.below(99)),
            _ => made(tx, random, |tx, kind| tx.insert_object(&object, at, kind)),
        },
        ObjType::List => edit_at(tx, random, &object, at.into()),
        _ => {
            let key = ["a", "b", "n", "text"][random.below(4) as usize];
            edit_at(tx, random, &object, key.into())
        }
    }
}

fn edit_at(
    tx: &mut Transaction<'_>,
    random: &mut Random,
    object: &ObjId,
    prop: Prop,
) -> Result<(), AutomergeError> {
    let other = tx.get(object, prop.clone())?;
    let is_counter = |value: &Value<'_>| matches!(value.as_scalar(), Some(ScalarValue::Counter(_)));
    match (random.below(7), other) {
        (0..3, Some((value, _))) if is_counter(&value) => tx.increment(object, prop, 2),
        (0..2, Some(_)) => tx.delete(object, prop),
        (2, _) => tx.put(object, prop, ScalarValue::counter(random.below(9) as i64)),
        (3 | 4, _) => made(tx, random, |tx, kind| tx.put_object(object, prop, kind)),
        _ => tx.put(object, prop, random.below(99)),
    }
}

fn made(
    tx: &mut Transaction<'_>,
    random: &mut Random,
    make: impl FnOnce(&mut Transaction<'_>, ObjType) -> Result<ObjId, AutomergeError>,
) -> Result<(), AutomergeError> {
    match random.below(3) {
        0 => drop(make(tx, ObjType::List)?),
        1 => {
            let text = make(tx, ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "new")?;
        }
        _ => {
            let map = make(tx, ObjType::Map)?;
            tx.put(&map, "a", random.below(99))?;
        }
    }
    Ok(())
}

fn edit_text(
    tx: &mut Transaction<'_>,
    random: &mut Random,
    text: &ObjId,
    at: usize,
    length: usize,
) -> Result<(), AutomergeError> {
    let some = random.below((length - at) as u64 + 1) as usize;
    match random.below(8) {
        0 | 1 => tx.splice_text(text, at, some.min(3) as isize, ""),
        2 if at + some > at => {
            let name = ["bold", "link"][random.below(2) as usize];
            let mark = Mark::new(name.into(), random.below(3), at, at + some);
            let expand = [ExpandMark::None, ExpandMark::Both][random.below(2) as usize];
            tx.mark(text, mark, expand)
        }
        3 if at + some > at => tx.unmark(text, "bold", at, at + some, ExpandMark::None),
        4 => {
            let block = tx.split_block(text, at)?;
            tx.put(&block, "a", random.below(9))
        }
        _ => tx.splice_text(text, at, 0, ["x", "yz", "é😀"][random.below(3) as usize]),
    }
}

/// A board of so many cards, and the texts of them.
fn board(cards: usize) -> (Automerge, Vec<ObjId>) {
    let mut document = Automerge::new().with_actor(ActorId::from([1; 16]));
    let made = document.transact::<_, _, AutomergeError>(|tx| {
        let list = tx.put_object(ROOT, "cards", ObjType::List)?;
        let card = |index| {
            let card = tx.insert_object(&list, index, ObjType::Map)?;
            tx.put(&card, "done", false)?;
            let text = tx.put_object(&card, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "what there is to be done until tomorrow")?;
            Ok(text)
        };
        (0..cards).map(card).collect()
    });
    (document, made.unwrap().result)
}

/// What is there now is read as it is, and must be the same as what Automerge finds to be different from
/// nothing.
#[test]
fn all_that_there_is_differs_from_nothing() {
    let (mut document, _) = board(20);
    let mut other = document.fork().with_actor(ActorId::from([7; 16]));
    for (at, edited) in [&mut document, &mut other].into_iter().enumerate() {
        let put = edited.transact::<_, _, AutomergeError>(|tx| {
            let list = tx.put_object(ROOT, "list", ObjType::List)?;
            tx.insert(&list, 0, at as i64)?;
            tx.put(ROOT, "counter", ScalarValue::counter(at as i64))
        });
        put.unwrap();
    }
    document.merge(&mut other).unwrap();
    let mut heads = document.get_heads();
    heads.reverse();
    assert_eq!(heads.len(), 2);
    let found = difference::between(&document, &[], &heads);
    let expected = difference::mended(&document, document.diff(&[], &heads), &heads);
    assert_eq!(found, expected);
    // What came later is not in it.
    let before = heads;
    let put = document.transact::<_, _, AutomergeError>(|tx| tx.put(ROOT, "later", 1));
    put.unwrap();
    let found = difference::between(&document, &[], &before);
    assert_eq!(found, expected);
}

#[test]
fn a_change_of_one_character_is_looked_for_in_one_text() {
    for cards in [1_000, 4_000] {
        let (mut document, texts) = board(cards);
        let mut states = vec![document.get_heads()];
        for round in 0..20 {
            let text = &texts[round % texts.len()];
            let edited =
                document.transact::<_, _, AutomergeError>(|tx| tx.splice_text(text, round, 0, "x"));
            edited.unwrap();
            states.push(document.get_heads());
        }
        let operations = cards as u64 * 40;
        for (round, pair) in states.windows(2).enumerate() {
            for (before, after) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                // Found without reading more than a small part of the document.
                let found = Differing::within(&document, before, after, operations / 10);
                let found = found.expect("it costs less than a tenth of the whole");
                assert_eq!(found.objects, [texts[round].clone()]);
                assert_eq!(found.patches(&document, before, after).len(), 1);
            }
        }
    }
}
