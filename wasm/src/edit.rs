//! Edits of a page, carried out in a transaction. Their form is `Operation` of
//! `wasm/js/operations.ts`.

use automerge::marks::ExpandMark;
use automerge::transaction::{Transactable, Transaction};
use automerge::{ActorId, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue};
use js_sys::{Array, Map};
use wasm_bindgen::{JsCast, JsError, JsValue};

use crate::gather::Gathered;
use crate::undo::{Record, is_hidden, mark};
use crate::value::{New, fault, read_new, read_scalar};

/// Carries out `operations` in order. `names` has the real names of objects that the page named
/// itself, and is told of those that are made now. `record` notes what takes them back. Gives how many
/// were left out, at least in part, since their place is gone.
pub(crate) fn apply(
    transaction: &mut Transaction<'_>,
    operations: &Array,
    names: &Map,
    record: &mut Record,
) -> Result<u32, JsError> {
    let mut left_out = 0;
    let mut edit = Edit {
        transaction,
        names,
        record,
    };
    let all = operations.iter().map(|operation| {
        let operation = operation.dyn_into::<Array>();
        operation.map_err(|_| fault("an operation is an array"))
    });
    let all = all.collect::<Result<Vec<_>, _>>()?;
    let mut rest = all.iter();
    while let Some(operation) = rest.next() {
        let mut after = rest.clone();
        match edit.operation(operation, &mut after) {
            Ok(()) => rest = after,
            Err(error) => {
                let object = edit.object(&operation.get(1))?;
                if !is_hidden(edit.transaction, &object) {
                    return Err(error);
                }
                edit.leave_out(&object, operation)?;
                left_out += 1;
            }
        }
    }
    Ok(left_out)
}

type Operations<'a> = std::slice::Iter<'a, Array>;

/// New values, and what the operations that follow put into them.
fn gather(
    new: impl IntoIterator<Item = New>,
    after: &mut Operations<'_>,
) -> Result<Gathered, JsError> {
    let mut gathered = Gathered::new(new.into_iter());
    while let Some(operation) = after.as_slice().first()
        && gathered.take(operation)?
    {
        after.next();
    }
    Ok(gathered)
}

struct Edit<'a, 'b> {
    transaction: &'a mut Transaction<'b>,
    names: &'a Map,
    record: &'a mut Record,
}

impl Edit<'_, '_> {
    /// `after` are those that follow, which may be carried out with it.
    fn operation(&mut self, operation: &Array, after: &mut Operations<'_>) -> Result<(), JsError> {
        let name = text(&operation.get(0))?;
        let object = self.object(&operation.get(1))?;
        match name.as_str() {
            "put" => {
                let prop = prop(&operation.get(2))?;
                let before = self.record.before_put(self.transaction, &object, &prop);
                match read_new(&operation.get(3))? {
                    New::Scalar(value) => self
                        .transaction
                        .put(&object, prop.clone(), value)
                        .map_err(fault)?,
                    new => {
                        let mut gathered = gather([new], after)?;
                        for value in gathered.values() {
                            let transaction = &mut *self.transaction;
                            transaction
                                .batch_create_object(&object, prop.clone(), &value, false)
                                .map_err(fault)?;
                        }
                        gathered.name(self.transaction, &object, |_| prop.clone(), self.names);
                    }
                }
                self.record.put(self.transaction, &object, prop, before);
                Ok(())
            }
            "insert" => {
                let index = index(&operation.get(2))?;
                let values: Array = operation.get(3).unchecked_into();
                let count = values.length() as usize;
                self.insert_all(&object, index, &values, after)?;
                self.record
                    .inserted(self.transaction, &object, index..index + count);
                Ok(())
            }
            "delete" => match prop(&operation.get(2))? {
                Prop::Seq(at) => {
                    let count = index(&operation.get(3))?;
                    self.record
                        .before_deletion(self.transaction, &object, at..at + count);
                    let nothing = std::iter::empty::<ScalarValue>();
                    let deleted = self.transaction.splice(object, at, count as isize, nothing);
                    deleted.map_err(fault)
                }
                key @ Prop::Map(_) => {
                    let before = self.record.before_put(self.transaction, &object, &key);
                    let deleted = self.transaction.delete(&object, key.clone());
                    deleted.map_err(fault)?;
                    self.record.put(self.transaction, &object, key, before);
                    Ok(())
                }
            },
            "splice" => {
                let (at, deleted) = (index(&operation.get(2))?, index(&operation.get(3))?);
                let text = text(&operation.get(4))?;
                self.record
                    .before_deletion(self.transaction, &object, at..at + deleted);
                self.transaction
                    .splice_text(&object, at, deleted as isize, &text)
                    .map_err(fault)?;
                let end = at + text.encode_utf16().count();
                self.record.inserted(self.transaction, &object, at..end);
                Ok(())
            }
            "increment" => {
                let prop = prop(&operation.get(2))?;
                let by = operation.get(3).as_f64().unwrap_or_default() as i64;
                let added = self.transaction.increment(&object, prop.clone(), by);
                added.map_err(fault)?;
                self.record.incremented(self.transaction, &object, prop, by);
                Ok(())
            }
            "mark" => {
                let range = index(&operation.get(2))?..index(&operation.get(3))?;
                // Else it would be begun before it is refused.
                if range.end > self.transaction.length(&object) {
                    return Err(fault(format_args!("there is no place {}", range.end)));
                }
                let name = text(&operation.get(4))?;
                let value = read_scalar(&operation.get(5))?;
                let expand = expand(&operation.get(6));
                self.record
                    .before_mark(self.transaction, &object, range.clone(), &name, &value);
                mark(self.transaction, &object, range, &name, value, expand).map_err(fault)
            }
            other => Err(fault(format_args!("there is no operation \"{other}\""))),
        }
    }

    /// What happens in an object that is hidden is told to no page, so a page that had not heard that
    /// it was may edit at places that are gone. Nobody sees the object, unless it comes back. But
    /// later edits may be of the objects that were to be made there.
    fn leave_out(&mut self, object: &ObjId, operation: &Array) -> Result<(), JsError> {
        let values = match text(&operation.get(0))?.as_str() {
            "put" => Array::of(&[operation.get(3)]),
            "insert" => operation.get(3).unchecked_into(),
            _ => return Ok(()),
        };
        let end = self.transaction.length(object);
        for value in values.iter() {
            let value = read_new(&value)?;
            if matches!(value, New::Object { .. }) {
                self.insert(object, end, value)?;
            }
        }
        Ok(())
    }

    fn insert_all(
        &mut self,
        object: &ObjId,
        index: usize,
        values: &Array,
        after: &mut Operations<'_>,
    ) -> Result<(), JsError> {
        let new = values.iter().map(|value| read_new(&value));
        let new = new.collect::<Result<Vec<_>, _>>()?;
        if self.transaction.object_type(object).map_err(fault)? != ObjType::List {
            let mut each = (index..).zip(new);
            return each.try_for_each(|(at, value)| self.insert(object, at, value));
        }
        let mut gathered = gather(new, after)?;
        let values = gathered.values();
        let inserted = self.transaction.splice(object, index, 0, values);
        inserted.map_err(fault)?;
        let at = |number| Prop::Seq(index + number);
        gathered.name(self.transaction, object, at, self.names);
        Ok(())
    }

    fn insert(&mut self, object: &ObjId, index: usize, value: New) -> Result<(), JsError> {
        match value {
            New::Scalar(value) => self.transaction.insert(object, index, value).map_err(fault),
            New::Object { kind, name, text } => {
                let in_text = self.transaction.object_type(object).map_err(fault)? == ObjType::Text;
                let made = if in_text {
                    self.transaction.split_block(object, index)
                } else {
                    self.transaction.insert_object(object, index, kind)
                };
                self.fill(&made.map_err(fault)?, &name, text)
            }
        }
    }

    /// Remembers what a new object is called, and writes its text.
    fn fill(&mut self, made: &ObjId, name: &JsValue, text: Option<String>) -> Result<(), JsError> {
        self.names.set(name, &made.to_string().into());
        match text {
            Some(text) if !text.is_empty() => self
                .transaction
                .splice_text(made, 0, 0, &text)
                .map_err(fault),
            _ => Ok(()),
        }
    }

    fn object(&self, name: &JsValue) -> Result<ObjId, JsError> {
        let real = self.names.get(name).as_string();
        match real {
            Some(real) => object_id(&real),
            None => object_id(&text(name)?),
        }
    }
}

/// The object that `counter@actor` or `_root` names.
pub(crate) fn object_id(name: &str) -> Result<ObjId, JsError> {
    if name == "_root" {
        return Ok(ROOT);
    }
    let parse = || {
        let (counter, actor) = name.split_once('@')?;
        let actor = ActorId::try_from(actor).ok()?;
        // The last number is only a hint.
        Some(ObjId::Id(counter.parse().ok()?, actor, 0))
    };
    parse().ok_or_else(|| fault(format_args!("there is no object \"{name}\"")))
}

pub(crate) fn text(value: &JsValue) -> Result<String, JsError> {
    let text = value.as_string();
    text.ok_or_else(|| fault("a string is missing from an operation"))
}

pub(crate) fn index(value: &JsValue) -> Result<usize, JsError> {
    match value.as_f64() {
        Some(number) if (0.0..=f64::from(u32::MAX)).contains(&number) => Ok(number as usize),
        _ => Err(fault("an index is missing from an operation")),
    }
}

pub(crate) fn prop(value: &JsValue) -> Result<Prop, JsError> {
    match value.as_string() {
        Some(key) => Ok(Prop::Map(key)),
        None => index(value).map(Prop::Seq),
    }
}

fn expand(value: &JsValue) -> ExpandMark {
    match value.as_string().as_deref() {
        Some("before") => ExpandMark::Before,
        Some("after") => ExpandMark::After,
        Some("both") => ExpandMark::Both,
        _ => ExpandMark::None,
    }
}
