//! Received changes, brought into the contents, and what they changed there.

use automerge::{Automerge, AutomergeError, Change, Patch, PatchAction, PatchLog};

use super::replay::{self, Outcome};
use crate::difference::{self, Touched};

/// Brings changes into a document, each after its deps, and gives what they changed in it, if it
/// is `observed`. They are applied, or replayed where that is faster and `may_replay`, which it
/// takes back when a replayed change came out different.
///
/// # Errors
/// When Automerge does not take them. Neither is the document of use then.
pub(super) fn bring_in(
    document: &mut Automerge,
    mut changes: Vec<Change>,
    observed: bool,
    may_replay: &mut bool,
) -> Result<Vec<Patch>, AutomergeError> {
    let mut patches = Vec::new();
    if *may_replay && replay::is_worthwhile(document, &changes) {
        let mut replayed = 0;
        for change in &changes {
            match replay::replay(document, change, observed)? {
                Outcome::Replayed(made) => patches.extend(made),
                Outcome::Left => break,
                Outcome::Differed => {
                    *may_replay = false;
                    break;
                }
            }
            replayed += 1;
        }
        changes.drain(..replayed);
    }
    patches.extend(apply(document, changes, observed)?);
    Ok(patches)
}

/// Applies changes, and gives what they changed in the document, if it is `observed`.
///
/// # Errors
/// When Automerge does not take them. The document is as it was then.
pub(super) fn apply(
    document: &mut Automerge,
    changes: Vec<Change>,
    observed: bool,
) -> Result<Vec<Patch>, AutomergeError> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    if !observed {
        document.apply_changes(changes)?;
        return Ok(Vec::new());
    }
    let before = document.get_heads();
    let touched = Touched::by(&changes);
    let mut is_contested = touched.is_contested(document);
    let mut log = PatchLog::new(!is_contested);
    document.apply_changes_log_patches(changes, &mut log)?;
    let patches = document.make_patches(&mut log);
    let is_conflict = |patch: &Patch| matches!(patch.action, PatchAction::Conflict { .. });
    is_contested |= patches.iter().any(is_conflict) || touched.is_contested(document);
    if is_contested {
        return Ok(difference::between(
            document,
            &before,
            &document.get_heads(),
        ));
    }
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use automerge::transaction::{Transactable, Transaction};
    use automerge::{
        ActorId, ChangeHash, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, Value, ValueRef,
        hydrate,
    };

    use super::*;
    use crate::replica::replay::tests::Random;

    fn actor(number: u8) -> ActorId {
        ActorId::from([number; 16])
    }

    fn begin() -> Automerge {
        let mut document = Automerge::new().with_actor(actor(1));
        let begun = document.transact::<_, _, AutomergeError>(|tx| {
            let list = tx.put_object(ROOT, "list", ObjType::List)?;
            for index in 0..3 {
                tx.insert(&list, index, index as u64)?;
            }
            Ok(())
        });
        begun.unwrap();
        document
    }

    /// Little to edit, so that several edit the same.
    fn edit(tx: &mut Transaction<'_>, random: &mut Random) -> Result<(), AutomergeError> {
        let (_, list) = tx.get(ROOT, "list")?.expect("it was made first");
        let (object, at, other) = if random.below(2) == 0 {
            let name = ["a", "b"][random.below(2)];
            (ROOT, Prop::from(name), tx.get(ROOT, name)?)
        } else {
            let index = random.below(tx.length(&list).max(1));
            if tx.length(&list) == 0 {
                return tx.insert(&list, 0, 7);
            }
            (list.clone(), Prop::from(index), tx.get(&list, index)?)
        };
        let is_counter =
            |value: &Value<'_>| matches!(value.as_scalar(), Some(ScalarValue::Counter(_)));
        match (random.below(7), other) {
            (0..2, Some((value, _))) if is_counter(&value) => tx.increment(&object, at, 3),
            (2 | 3, Some(_)) => tx.delete(&object, at),
            (4, _) => tx.put(&object, at, ScalarValue::counter(random.below(9) as i64)),
            (5, _) => {
                let map = tx.put_object(&object, at, ObjType::Map)?;
                tx.put(&map, "in", random.below(9) as u64)
            }
            (6, _) => {
                let index = random.below(tx.length(&list) + 1);
                tx.insert(&list, index, random.below(9) as u64)
            }
            _ => tx.put(&object, at, random.below(99) as u64),
        }
    }

    /// What shows. `hydrate`, and `get` by index, have counters in conflict in a list twice.
    fn contents(document: &Automerge, object: &ObjId) -> hydrate::Value {
        let value = |value: ValueRef<'_>, id: ObjId| match value.into_value() {
            Value::Object(_) => contents(document, &id),
            Value::Scalar(value) => value.into_owned().into(),
        };
        if document.object_type(object) == Ok(ObjType::List) {
            let items = document.list_range(object, ..);
            let items = items.map(|item| value(item.value.clone(), item.id()));
            return hydrate::List::from(items.collect::<Vec<_>>()).into();
        }
        let entries: Vec<_> = document.map_range(object, ..).collect();
        let entries = entries.iter();
        let entries = entries.map(|entry| (&*entry.key, value(entry.value.clone(), entry.id())));
        entries.collect::<HashMap<_, _>>().into()
    }

    /// A value without its conflicts: that they ended is not told.
    fn plain(value: &hydrate::Value) -> String {
        match value {
            hydrate::Value::Map(map) => {
                let entries = map.iter().map(|(key, entry)| (key, plain(&entry.value)));
                format!("{:?}", entries.collect::<BTreeMap<_, _>>())
            }
            hydrate::Value::List(list) => {
                format!(
                    "{:?}",
                    list.iter()
                        .map(|item| plain(&item.value))
                        .collect::<Vec<_>>()
                )
            }
            hydrate::Value::Scalar(ScalarValue::Counter(counter)) => counter.to_string(),
            value => format!("{value:?}"),
        }
    }

    fn assert_leads_here(
        document: &Automerge,
        mut told: hydrate::Value,
        patches: Vec<Patch>,
        seed: u64,
    ) {
        told.apply_patches(document.text_encoding(), patches.clone())
            .unwrap();
        assert_eq!(
            plain(&told),
            plain(&contents(document, &ROOT)),
            "seed {seed}: {patches:?}"
        );
    }

    /// What is noted of random changes that arrive together leads from what was to what is.
    #[test]
    fn what_is_told_of_changes_is_what_they_changed() {
        for seed in 0..100 {
            let random = &mut Random(seed);
            let start = begin();
            let mut replicas: Vec<Automerge> = (2..5)
                .map(|number| start.fork().with_actor(actor(number)))
                .collect();
            let mut states: Vec<(Vec<ChangeHash>, hydrate::Value)> = Vec::new();
            for _ in 0..60 {
                let at = random.below(3);
                if random.below(3) > 0 {
                    let mut transaction = replicas[at].transaction();
                    for _ in 0..=random.below(2) {
                        edit(&mut transaction, random).unwrap();
                    }
                    transaction.commit();
                    continue;
                }
                let from = replicas[random.below(3)].clone();
                let replica = &mut replicas[at];
                let new = replica.get_changes_added(&from);
                let told = contents(replica, &ROOT);
                let patches = bring_in(replica, new, true, &mut true).unwrap();
                assert_leads_here(replica, told, patches, seed);
                // So does the difference to any state that was known there.
                let after = replica.get_heads();
                let is_known = |hash| replica.get_change_meta_by_hash(hash).is_some();
                for (before, value) in &states {
                    if !before.iter().all(is_known) {
                        continue;
                    }
                    let patches = difference::between(replica, before, &after);
                    assert_leads_here(replica, value.clone(), patches, seed);
                }
                states.push((after, contents(replica, &ROOT)));
            }
        }
    }
}
