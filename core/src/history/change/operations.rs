//! The operations of a change, read row by row.

use super::columns::{Booleans, Deltas, Runs, read_text, read_u64, spec};
use super::error::ChangeError;

/// The id of an operation inside a change: the actor's place among the change's actors, and a counter.
pub(crate) type ChangeOpId = (u32, u32);

/// Where in its object an operation acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// At a name: the object is a map or a table.
    Name,
    /// At the beginning of a list or text.
    Head,
    /// At or after the element that this operation inserted.
    Element(ChangeOpId),
}

/// One operation, as far as structure goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    /// The object it acts on; `None` for the root.
    pub(crate) object: Option<ChangeOpId>,
    /// Where in the object.
    pub(crate) key: Key,
    /// Whether it inserts an element.
    pub(crate) insert: bool,
    /// Automerge's action number.
    pub(crate) action: u64,
    /// How many operations it replaces; their ids follow by [`Operations::pred`].
    pub(crate) preds: u64,
}

/// Walks a change's operations.
#[derive(Debug, Clone)]
pub(crate) struct Operations<'a> {
    left: u64,
    obj_actor: Runs<'a, u64>,
    obj_counter: Runs<'a, u64>,
    key_actor: Runs<'a, u64>,
    key_counter: Deltas<'a>,
    key_string: Runs<'a, ()>,
    insert: Booleans<'a>,
    action: Runs<'a, u64>,
    pred_count: Runs<'a, u64>,
    pred_actor: Runs<'a, u64>,
    pred_counter: Deltas<'a>,
}

impl<'a> Operations<'a> {
    /// Those of a change with so many operations, and these columns by what they are.
    pub(super) fn new(len: u64, column: impl Fn(u32) -> &'a [u8]) -> Self {
        Self {
            left: len,
            obj_actor: Runs::new(column(spec::OBJ_ACTOR), read_u64),
            obj_counter: Runs::new(column(spec::OBJ_COUNTER), read_u64),
            key_actor: Runs::new(column(spec::KEY_ACTOR), read_u64),
            key_counter: Deltas::new(column(spec::KEY_COUNTER)),
            key_string: Runs::new(column(spec::KEY_STRING), read_text),
            insert: Booleans::new(column(spec::INSERT)),
            action: Runs::new(column(spec::ACTION), read_u64),
            pred_count: Runs::new(column(spec::PRED_COUNT), read_u64),
            pred_actor: Runs::new(column(spec::PRED_ACTOR), read_u64),
            pred_counter: Deltas::new(column(spec::PRED_COUNTER)),
        }
    }
}

impl Operations<'_> {
    /// The next operation. After each one, [`Self::pred`] must be called as often as it says.
    ///
    /// # Errors
    /// When the columns do not make sense.
    pub(crate) fn next_operation(&mut self) -> Result<Option<Operation>, ChangeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let object = match (self.obj_actor.next()?, self.obj_counter.next()?) {
            (None, None) => None,
            (Some(actor), Some(counter)) => Some(op_id(actor, counter)?),
            _ => return Err(ChangeError::Malformed("object id")),
        };
        let name = self.key_string.next()?;
        let key = match (name, self.key_actor.next()?, self.key_counter.next()?) {
            (Some(()), None, None) => Key::Name,
            (None, None, Some(0)) => Key::Head,
            (None, Some(actor), Some(counter)) => Key::Element(op_id(actor, unsigned(counter)?)?),
            _ => return Err(ChangeError::Malformed("key")),
        };
        Ok(Some(Operation {
            object,
            key,
            insert: self.insert.next()?,
            action: self
                .action
                .next()?
                .ok_or(ChangeError::Malformed("action"))?,
            preds: self.pred_count.next()?.unwrap_or(0),
        }))
    }

    /// The next operation id that the current operation replaces.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn pred(&mut self) -> Result<ChangeOpId, ChangeError> {
        match (self.pred_actor.next()?, self.pred_counter.next()?) {
            (Some(actor), Some(counter)) => op_id(actor, unsigned(counter)?),
            _ => Err(ChangeError::Malformed("replaced operations")),
        }
    }
}

fn unsigned(number: i64) -> Result<u64, ChangeError> {
    u64::try_from(number).map_err(|_| ChangeError::Malformed("a negative counter"))
}

fn op_id(actor: u64, counter: u64) -> Result<ChangeOpId, ChangeError> {
    match (u32::try_from(actor), u32::try_from(counter)) {
        (Ok(actor), Ok(counter)) => Ok((actor, counter)),
        _ => Err(ChangeError::Limit("operation id")),
    }
}
