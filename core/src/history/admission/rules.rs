//! The rules of admission: everything about a change that structure can decide, before it is stored
//! or passed on.
//!
//! A change that passes here has the hash it claims, comes after its deps, continues its actor's
//! sequence, and refers only to operations and objects that exist in its own past and are of the
//! right kind. What only a document with contents could tell (that an element belongs to this very
//! list, that a counter is a number) is not decided here.

use super::super::change::{Change, ChangeError, ChangeOpId, Key};
use super::super::clocks::Past;
use super::super::limits::{
    ACTOR_BYTES_MAX, CHANGE_OPS_MAX, DOCUMENT_ACTORS_MAX, DOCUMENT_OBJECTS_MAX,
};
use super::super::objects::{ObjectKind, Objects};
use super::super::outline::{OpId, Outline};
use super::super::refusal::Refusal;

/// What the document learns from an admitted change.
#[derive(Debug)]
pub(crate) struct Learned {
    /// The objects it makes.
    pub(crate) objects: Objects,
}

/// Decides about a change whose deps are known and lie, with all below them, in `past`.
/// `deps_max_op` is the highest counter among its deps.
pub(crate) fn admit(
    change: &Change<'_>,
    outline: &Outline,
    past: &Past,
    deps_max_op: u32,
) -> Result<Learned, Refusal> {
    check_author(change, outline)?;
    check_sequence(change, outline, past)?;
    if change.start_op <= u64::from(deps_max_op) {
        return Err(Refusal::StartOp {
            found: change.start_op,
            max_op: deps_max_op,
        });
    }
    let objects = check_operations(change, outline, past)?;
    fits_document(change, objects.len(), outline)?;
    Ok(Learned { objects })
}

/// Whether its author's id has a length that is taken. A document that was stored before there was
/// this limit goes on with the longer ones that it has.
fn check_author(change: &Change<'_>, outline: &Outline) -> Result<(), Refusal> {
    let author = change.actors[0];
    match author.len() > ACTOR_BYTES_MAX && outline.actor(author).is_none() {
        true => Err(ChangeError::Limit("length of an actor's id").into()),
        false => Ok(()),
    }
}

/// Whether the document has room for a change whose operations are right.
pub(crate) fn has_room_for(change: &Change<'_>, outline: &Outline) -> Result<(), Refusal> {
    check_author(change, outline)?;
    let mut objects = 0;
    // Most changes make fewer objects than there is room for, whatever they do.
    if outline.objects_len() + change.ops_len as usize > DOCUMENT_OBJECTS_MAX {
        let mut operations = change.operations();
        while let Some(operation) = operations.next_operation()? {
            objects += usize::from(ObjectKind::made_by(operation.action).is_some());
        }
    }
    fits_document(change, objects, outline)
}

fn fits_document(change: &Change<'_>, objects: usize, outline: &Outline) -> Result<(), Refusal> {
    if outline.objects_len() + objects > DOCUMENT_OBJECTS_MAX {
        return Err(Refusal::DocumentFull("objects"));
    }
    if outline.actors().len() >= DOCUMENT_ACTORS_MAX && outline.actor(change.actors[0]).is_none() {
        return Err(Refusal::DocumentFull("actors"));
    }
    Ok(())
}

fn check_sequence(change: &Change<'_>, outline: &Outline, past: &Past) -> Result<(), Refusal> {
    let actor = || hex(change.actors[0]);
    let place = outline.actor(change.actors[0]);
    let last = place.map_or(0, |place| outline.actors()[place as usize].seq);
    if change.seq > last + 1 {
        return Err(Refusal::Sequence {
            actor: actor(),
            last,
            found: change.seq,
        });
    }
    let forked = place.is_some_and(|place| past.seq(outline, place) < last);
    if change.seq <= last || forked {
        return Err(Refusal::ActorReused {
            actor: actor(),
            seq: change.seq,
        });
    }
    Ok(())
}

/// A reference as the change makes it: into itself, or into its past.
enum Reference {
    Own(u32),
    Past(OpId),
}

struct Resolver<'a> {
    change: &'a Change<'a>,
    outline: &'a Outline,
    past: &'a Past,
    /// Where the change's actors stand in the outline.
    places: Vec<Option<u32>>,
    start: u32,
    /// The counter of the operation that is being checked.
    now: u32,
}

impl Resolver<'_> {
    /// `None` if there is no such operation in the past.
    fn resolve(&self, (actor, counter): ChangeOpId) -> Option<Reference> {
        let place = *self.places.get(actor as usize)?;
        if actor == 0 && counter >= self.start {
            return (counter < self.now).then_some(Reference::Own(counter));
        }
        let id = (place?, counter);
        self.past
            .has(self.outline, id)
            .then_some(Reference::Past(id))
    }

    fn show(&self, (actor, counter): ChangeOpId) -> String {
        let actor = self
            .change
            .actors
            .get(actor as usize)
            .copied()
            .unwrap_or_default();
        format!("{counter}@{}", hex(actor))
    }
}

fn check_operations(
    change: &Change<'_>,
    outline: &Outline,
    past: &Past,
) -> Result<Objects, Refusal> {
    const INCREMENT: u64 = 5;
    const DELETE: u64 = 3;
    const MARK: u64 = 7;
    let start = u32::try_from(change.start_op).expect("checked when it was read");
    let places = change.actors.iter().map(|id| outline.actor(id)).collect();
    let mut resolver = Resolver {
        change,
        outline,
        past,
        places,
        start,
        now: start,
    };
    let mut made = Objects::default();
    // Neighbouring operations mostly act on the same object.
    let mut same = (None, ObjectKind::Map);
    // A few bytes of runs can claim any number of them.
    let mut preds = 0u64;
    // The elements that this change inserts: first, last, object.
    let mut inserted: Vec<(u32, u32, Option<ChangeOpId>)> = Vec::new();
    let mut operations = change.operations();
    while let Some(operation) = operations.next_operation()? {
        if operation.object != same.0 {
            let id = operation.object;
            let kind = id.map_or(Some(ObjectKind::Map), |id| match resolver.resolve(id)? {
                Reference::Own(counter) => made.kind(counter),
                Reference::Past(id) => outline.object(id),
            });
            let unknown =
                || Refusal::UnknownObject(id.map(|i| resolver.show(i)).unwrap_or_default());
            same = (id, kind.ok_or_else(unknown)?);
        }
        let named = operation.key == Key::Name;
        if named != (same.1 == ObjectKind::Map) {
            let shown = operation
                .object
                .map_or_else(|| "the root".into(), |id| resolver.show(id));
            return Err(Refusal::ObjectKind(shown));
        }
        if operation.insert && named {
            return Err(Refusal::Operation("insertion at a name"));
        }
        if operation.key == Key::Head && !operation.insert {
            return Err(Refusal::Operation("a change of the head of a list"));
        }
        if operation.action > MARK {
            return Err(Refusal::Operation("unknown action"));
        }
        if operation.insert && operation.preds > 0 {
            return Err(Refusal::Operation("an insertion that replaces something"));
        }
        if operation.action == MARK && !operation.insert {
            return Err(Refusal::Operation("a mark that is no insertion"));
        }
        if operation.action == DELETE && operation.preds == 0 {
            return Err(Refusal::Operation("a deletion of nothing"));
        }
        if operation.action == DELETE && operation.insert {
            return Err(Refusal::Operation("a deletion that inserts"));
        }
        if operation.action == INCREMENT && operation.insert {
            return Err(Refusal::Operation("an increment that inserts"));
        }
        if let Key::Element(id) = operation.key {
            let exists = match resolver.resolve(id) {
                Some(Reference::Past(_)) => true,
                Some(Reference::Own(counter)) => {
                    let at = inserted.partition_point(|(from, _, _)| *from <= counter);
                    at.checked_sub(1).is_some_and(|at| {
                        let (_, to, object) = inserted[at];
                        counter <= to && object == operation.object
                    })
                }
                None => false,
            };
            if !exists {
                return Err(Refusal::UnknownOperation(resolver.show(id)));
            }
        }
        if operation.insert {
            match inserted.last_mut() {
                Some((_, to, object)) if *to + 1 == resolver.now && *object == operation.object => {
                    *to += 1
                }
                _ => inserted.push((resolver.now, resolver.now, operation.object)),
            }
        }
        preds = operation.preds.saturating_add(preds);
        if preds > CHANGE_OPS_MAX {
            return Err(ChangeError::Limit("number of replaced operations").into());
        }
        for _ in 0..operation.preds {
            let id = operations.pred()?;
            if resolver.resolve(id).is_none() {
                return Err(Refusal::UnknownOperation(resolver.show(id)));
            }
        }
        if let Some(kind) = ObjectKind::made_by(operation.action) {
            made.push(resolver.now, kind);
        }
        resolver.now += 1;
    }
    Ok(made)
}

/// An actor's id as people read it; its beginning, if it is longer than one may be.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let bytes = &bytes[..bytes.len().min(ACTOR_BYTES_MAX)];
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
