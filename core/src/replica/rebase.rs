//! Making changes again under other actors.
//!
//! Two copies of one process (a machine restored from a snapshot while it ran) write different
//! changes under the same actor and sequence number. Only one of the two can be in a document.
//! Whoever has the other one makes it again, and with it all that hangs on it: the same operations
//! with the same counters, under an actor that nobody used. What names an operation that is made
//! again names it under its new actor, so nothing of what was meant is lost.
//!
//! The new actor follows from the change. So whoever makes the same change again makes the same
//! one, however often and wherever.

use std::collections::{HashMap, HashSet};

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId};
use automerge::{ActorId, Automerge, Change, ChangeHash};
use sha2::{Digest, Sha256};

use super::{ContentsError, Replica};
use crate::storage::Write;

/// Makes those of `roots` and all that hang on them again. Gives back the changes that stay and
/// those that were made; as in `changes`, each comes after those that it depends on, and what was
/// made after all that stays.
fn rebase(changes: Vec<Change>, roots: &HashSet<ChangeHash>) -> (Vec<Change>, Vec<Change>) {
    let mut rebase = Rebase::default();
    let (mut stay, mut made) = (Vec::new(), Vec::new());
    for change in changes {
        if change.author().is_some() {
            let name = change.extra_bytes().to_vec();
            rebase.authors.push((change.actor_id().clone(), name));
        }
        let hangs = |dep: &ChangeHash| rebase.hashes.contains_key(dep);
        if roots.contains(&change.hash()) || change.deps().iter().any(hangs) {
            made.push(rebase.make(&change));
        } else {
            stay.push(change);
        }
    }
    (stay, made)
}

/// An actor that follows from a change and from what it is for.
fn actor_after(change: &ChangeHash, purpose: &[u8]) -> ActorId {
    let digest = Sha256::new()
        .chain_update(b"again")
        .chain_update(change.0)
        .chain_update(purpose)
        .finalize();
    ActorId::from(&digest[..16])
}

#[derive(Default)]
struct Rebase {
    /// What became of the changes that were made again.
    hashes: HashMap<ChangeHash, ChangeHash>,
    actors: HashMap<ActorId, Renamed>,
    /// What the first changes of actors have of their authors.
    authors: Vec<(ActorId, Vec<u8>)>,
}

/// An actor whose changes are made again from some point on.
struct Renamed {
    /// Its first operation that is made again.
    from: u64,
    actor: ActorId,
    /// How many changes the new actor has.
    seq: u64,
}

impl Rebase {
    fn make(&mut self, change: &Change) -> Change {
        let renamed = self
            .actors
            .entry(change.actor_id().clone())
            .or_insert_with(|| Renamed {
                from: change.start_op().get(),
                actor: actor_after(&change.hash(), b""),
                seq: 0,
            });
        renamed.seq += 1;
        let mut expanded = change.decode();
        expanded.actor_id = renamed.actor.clone();
        expanded.seq = renamed.seq;
        if renamed.seq == 1 {
            let mut authors = self.authors.iter();
            let named = authors.find(|(actor, _)| actor == change.actor_id());
            expanded.extra_bytes = named.map_or(expanded.extra_bytes, |(_, name)| name.clone());
        }
        for dep in &mut expanded.deps {
            *dep = self.hashes.get(dep).copied().unwrap_or(*dep);
        }
        expanded.deps.sort_unstable();
        for operation in &mut expanded.operations {
            self.rename(operation);
        }
        let made = Change::from(expanded);
        self.hashes.insert(change.hash(), made.hash());
        made
    }

    fn rename(&self, operation: &mut Op) {
        if let ObjectId::Id(id) = &mut operation.obj {
            self.rename_id(id);
        }
        if let Key::Seq(ElementId::Id(id)) = &mut operation.key {
            self.rename_id(id);
        }
        let preds = operation.pred.iter().cloned().map(|mut id| {
            self.rename_id(&mut id);
            id
        });
        operation.pred = preds.collect();
    }

    fn rename_id(&self, id: &mut OpId) {
        if let Some(renamed) = self.actors.get(&id.1)
            && id.0 >= renamed.from
        {
            id.1 = renamed.actor.clone();
        }
    }
}

impl Replica {
    /// Makes changes again that no relay can take, because another change has their actor and
    /// sequence number, together with all that hang on them: under other actors, in the place of
    /// what they were. The contents stay as they are; names of objects that those changes made do
    /// not. Only changes for which `is_refused` says so count, and of them only those that no relay
    /// has: that lie in the past of none of the heads in `acknowledged`. Whether there were any.
    ///
    /// The replica is as one that was imported then: nothing of it is stored, no relay has joined,
    /// and the first commit replaces all that was stored.
    ///
    /// Only for a replica whose contents are built, and have all that was received. `None` if somebody
    /// reads or edits them: try another time.
    ///
    /// # Errors
    /// When a relay would not take them. The replica is as it was.
    pub fn rebase(
        &mut self,
        acknowledged: &[ChangeHash],
        is_refused: impl Fn(&Change) -> bool,
    ) -> Option<Result<bool, ContentsError>> {
        let live = self.editable();
        // Whoever wants to edit meanwhile does so in what takes its place.
        let writing = live.try_write()?;
        Some(self.rebase_from(&writing.document, acknowledged, is_refused))
    }

    fn rebase_from(
        &mut self,
        document: &Automerge,
        acknowledged: &[ChangeHash],
        is_refused: impl Fn(&Change) -> bool,
    ) -> Result<bool, ContentsError> {
        let known = |hash: &&ChangeHash| document.get_change_meta_by_hash(hash).is_some();
        let acknowledged: Vec<_> = acknowledged.iter().filter(known).copied().collect();
        let mut unacknowledged = document.get_changes(&acknowledged);
        unacknowledged.retain(is_refused);
        let roots: HashSet<_> = unacknowledged.iter().map(Change::hash).collect();
        let Some(first) = unacknowledged.first() else {
            return Ok(false);
        };
        let actor = actor_after(&first.hash(), self.actor.to_bytes());
        let (stay, made) = rebase(document.get_changes(&[]), &roots);
        let observed = self.patches.is_some();
        let mut replica = match Self::of_changes(actor.clone(), stay.clone(), &made)? {
            Some(replica) => replica,
            None => {
                let all: Vec<_> = stay.into_iter().chain(made).collect();
                let replica = Self::of_changes(actor, all, &[])?;
                replica.expect("nothing has to be looked up for no changes")
            }
        };
        replica.history.keep_quarantine(&self.history);
        if self.stored {
            let writes = replica.adopted.get_or_insert_default();
            writes.insert(0, Write::RemoveContents);
            writes.push(Write::Record(replica.history.record().clone()));
        }
        if observed {
            // The objects have other names now.
            replica.observe_anew();
        }
        *self = replica;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use automerge::marks::{ExpandMark, Mark};
    use automerge::transaction::Transactable;
    use automerge::{Author, Automerge, AutomergeError, ObjType, ROOT, ReadDoc, ScalarValue};

    use super::*;

    /// A document with every kind of operation in it, by two actors.
    fn document() -> Automerge {
        let name = |name: &str| Some(Author::from(name.as_bytes().to_vec()));
        let document = Automerge::new().with_author(name("ann"));
        let mut document = document.with_actor(ActorId::from([1; 16]));
        let made = document.transact::<_, _, AutomergeError>(|tx| {
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "hello world")?;
            tx.put(ROOT, "n", ScalarValue::counter(5))?;
            tx.put(ROOT, "bytes", vec![1u8, 2, 3])?;
            let list = tx.put_object(ROOT, "list", ObjType::List)?;
            tx.insert(&list, 0, 1.5)?;
            tx.insert(&list, 1, true)?;
            let map = tx.insert_object(&list, 2, ObjType::Map)?;
            tx.put(&map, "when", ScalarValue::Timestamp(7))?;
            Ok((text, list))
        });
        let (text, list) = made.unwrap().result;
        let other = document.fork().with_author(name("bob"));
        let mut other = other.with_actor(ActorId::from([2; 16]));
        other
            .transact::<_, _, AutomergeError>(|tx| tx.splice_text(&text, 5, 6, " there"))
            .unwrap();
        document
            .transact::<_, _, AutomergeError>(|tx| {
                tx.increment(ROOT, "n", 3)?;
                let bold = Mark::new("bold".into(), true, 0, 5);
                tx.mark(&text, bold, ExpandMark::Both)?;
                tx.delete(&list, 0)?;
                tx.delete(ROOT, "bytes")
            })
            .unwrap();
        document.merge(&mut other).unwrap();
        document
            .transact::<_, _, AutomergeError>(|tx| {
                tx.unmark(&text, "bold", 1, 2, ExpandMark::None)?;
                tx.increment(ROOT, "n", -1)?;
                tx.insert(&list, 1, "last")
            })
            .unwrap();
        document
    }

    #[test]
    fn a_change_that_is_decoded_and_made_again_is_the_same() {
        for change in document().get_changes(&[]) {
            let again = Change::from(change.decode());
            assert_eq!(again.raw_bytes(), change.raw_bytes());
        }
    }

    #[test]
    fn what_is_made_again_says_the_same_under_another_actor() {
        let document = document();
        let changes = document.get_changes(&[]);
        for first in &changes {
            let roots = HashSet::from([first.hash()]);
            let (stay, made) = rebase(changes.clone(), &roots);
            let mut again = Automerge::new();
            again.apply_changes(stay.clone()).unwrap();
            again.apply_changes(made.clone()).unwrap();
            assert_eq!(again.hydrate(None), document.hydrate(None));
            let (_, text) = document.get(ROOT, "text").unwrap().unwrap();
            let (_, text_again) = again.get(ROOT, "text").unwrap().unwrap();
            let marks = document.marks(&text).unwrap();
            assert_eq!(again.marks(&text_again).unwrap(), marks);
            assert_eq!(stay.len() + made.len(), changes.len());
            let known: HashSet<_> = changes.iter().map(Change::actor_id).collect();
            assert!(made.iter().all(|made| !known.contains(made.actor_id())));
            let author = |made: &Change| again.get_author_for_actor(made.actor_id());
            assert!(made.iter().all(|made| author(made).is_some()));
            let twice = rebase(changes.clone(), &roots);
            assert_eq!((stay, made), twice);
        }
    }
}
