//! The history of a document, told in parts: nobody waits for all of a long one.

use std::collections::HashSet;

use automerge::legacy::{ObjectId, OpType};
use automerge::{Automerge, Change, ChangeHash, ChangeMetadata, ObjId, ROOT, ReadDoc};
use js_sys::Array;
use reconverge::difference::object_id;
use reconverge::id::DocumentId;
use reconverge::replica::Replica;
use wasm_bindgen::JsValue;

use crate::value::array;

/// To look into a change costs as much as to tell this many.
const LOOK_COST: u32 = 8;

/// What is left to tell of a document's history.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) number: u32,
    pub(crate) document: DocumentId,
    changes: std::vec::IntoIter<ChangeHash>,
    /// Told are only changes of this object.
    object: ObjId,
    /// Objects that are in it, and others.
    inside: HashSet<ObjId>,
    outside: HashSet<ObjId>,
}

impl Listing {
    /// What came after these heads is left out.
    pub(crate) fn new(
        number: u32,
        id: DocumentId,
        document: &Automerge,
        object: ObjId,
        heads: &[ChangeHash],
    ) -> Self {
        let made_at = match &object {
            ObjId::Root => 0,
            ObjId::Id(counter, ..) => *counter,
        };
        let all = document.get_changes_meta(&[]);
        let later = document.get_changes_meta(heads);
        let later: HashSet<_> = later.iter().map(|change| change.hash).collect();
        // What was there before the object did not change it.
        let changes = all
            .iter()
            .filter(|change| change.max_op >= made_at && !later.contains(&change.hash));
        let changes: Vec<_> = changes.map(|change| change.hash).collect();
        Self {
            number,
            document: id,
            changes: changes.into_iter(),
            object,
            inside: HashSet::new(),
            outside: HashSet::new(),
        }
    }

    /// Tells of about so many changes; `None` if there are no more. See `Client::history`.
    pub(crate) fn next(&mut self, replica: &Replica, count: u32) -> Option<Array> {
        let document = replica.document()?;
        let rows = Array::new();
        let mut cost = 0;
        while cost < count {
            let Some(hash) = self.changes.next() else {
                return (cost > 0).then_some(rows);
            };
            cost += 1;
            if self.object != ROOT {
                cost += LOOK_COST;
                let change = document.get_change_by_hash(&hash);
                if !change.is_some_and(|change| self.is_changed_by(&document, &change)) {
                    continue;
                }
            }
            if let Some(change) = document.get_change_meta_by_hash(&hash) {
                rows.push(&row(replica, &change));
            }
        }
        Some(rows)
    }

    /// Whether a change makes, edits or deletes the object, or what is in it.
    fn is_changed_by(&mut self, document: &Automerge, change: &Change) -> bool {
        let start = change.start_op().get();
        let operations = change.decode().operations;
        operations.iter().zip(start..).any(|(op, counter)| {
            let ObjId::Id(made_at, actor, _) = &self.object else {
                return true;
            };
            let makes = matches!(op.action, OpType::Make(_))
                && counter == *made_at
                && change.actor_id() == actor;
            makes
                || op.pred.iter().any(|id| id.0 == *made_at && id.1 == *actor)
                || self.has(document, &op.obj)
        })
    }

    fn has(&mut self, document: &Automerge, object: &ObjectId) -> bool {
        let object = object_id(object);
        if object == self.object || self.inside.contains(&object) {
            return true;
        }
        if self.outside.contains(&object) {
            return false;
        }
        let parents = document.parents(&object);
        let is = parents.is_ok_and(|mut parents| parents.any(|parent| parent.obj == self.object));
        let known = if is {
            &mut self.inside
        } else {
            &mut self.outside
        };
        known.insert(object);
        is
    }
}

fn row(replica: &Replica, change: &ChangeMetadata<'_>) -> JsValue {
    let message = change.message.as_deref();
    let author = change.author.as_ref();
    let author = author.map(|author| String::from_utf8_lossy(author.as_bytes()));
    let deps: Array = change
        .deps
        .iter()
        .map(|dep| JsValue::from(dep.to_string()))
        .collect();
    array([
        change.hash.to_string().into(),
        change.actor.to_string().into(),
        (change.seq as f64).into(),
        (change.timestamp as f64).into(),
        message.map_or(JsValue::UNDEFINED, JsValue::from),
        deps.into(),
        ((change.max_op + 1 - change.start_op) as f64).into(),
        author.map_or(JsValue::UNDEFINED, |author| author.as_ref().into()),
        replica.is_own(&change.actor).into(),
    ])
}
