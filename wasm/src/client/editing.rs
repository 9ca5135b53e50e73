//! New documents and edits, as JavaScript asks for them, and what takes edits back.

use automerge::ActorId;
use js_sys::{Array, Map, Uint8Array};
use reconverge::replica::{ChangeOptions, EditError, Replica};
use reconverge::storage::Storage;
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

use super::{Client, gone, heads_of, id_of};
use crate::edit;
use crate::undo::{self, Record, Undoing};
use crate::value::fault;

#[wasm_bindgen]
impl Client {
    /// Makes a document that begins with these operations, as one change.
    pub fn create(
        &mut self,
        document: &str,
        operations: &Array,
        time_s: f64,
        author: Option<String>,
    ) -> Result<(), JsError> {
        let mut replica = Replica::new(ActorId::random());
        replica.write_as(author.as_deref(), ActorId::random);
        let options = ChangeOptions::made_at(time_s as i64);
        let made = replica.change(options, |tx| {
            edit::apply(tx, operations, &Map::new(), &mut Record::new(false))
        });
        let made = made.map_err(edit_fault)?;
        if made.1.is_none() {
            replica.begin(time_s as i64);
        }
        self.insert(document, replica)
    }

    /// Makes a document of a saved one, with its history.
    pub fn import(&mut self, document: &str, saved: &[u8], time_s: f64) -> Result<(), JsError> {
        let mut replica = Replica::import(saved, ActorId::random()).map_err(fault)?;
        if replica.is_empty() {
            replica.begin(time_s as i64);
        }
        self.insert(document, replica)
    }

    fn insert(&mut self, document: &str, replica: Replica) -> Result<(), JsError> {
        let key = self.mirror.storage().new_key();
        self.engine.create(id_of(document)?, key, replica);
        Ok(())
    }

    /// Edits a document, as one change: `at` these heads, or now. The hash of the change;
    /// `undefined` if there was nothing to change. `record` has what takes it back, if that `is_recorded`.
    #[allow(
        clippy::too_many_arguments,
        reason = "JavaScript has no structs to pass"
    )]
    #[wasm_bindgen(js_name = change)]
    pub fn change(
        &mut self,
        document: &str,
        operations: &Array,
        names: &Map,
        time_s: f64,
        message: Option<String>,
        at: Option<Vec<String>>,
        is_recorded: bool,
        author: Option<String>,
    ) -> Result<Option<String>, JsError> {
        let at = at.map(heads_of).transpose()?;
        let options = ChangeOptions {
            time_s: time_s as i64,
            message: message.as_deref(),
            at: at.as_deref(),
        };
        let id = id_of(document)?;
        self.knows(&id, at.as_deref().unwrap_or_default())?;
        let mut record = Record::new(is_recorded);
        self.engine
            .write_as(&id, author.as_deref(), ActorId::random);
        let changed = self.engine.change(&id, options, |tx| {
            edit::apply(tx, operations, names, &mut record)
        });
        let (left_out, hash) = changed.ok_or_else(gone)?.map_err(edit_fault)?;
        self.left_out = left_out;
        self.record = (record.to_bytes(), Vec::new(), Vec::new());
        Ok(hash.map(|hash| hash.to_string()))
    }

    /// How many operations of the last change were left out, since their place is gone.
    #[wasm_bindgen(getter, js_name = leftOut)]
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    /// What takes the last change back, for `takeBack`; empty if there was nothing to take back.
    #[wasm_bindgen(getter)]
    pub fn record(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.record.0)
    }

    /// What came back by the last `takeBack` and is called otherwise now, for `rename`.
    #[wasm_bindgen(getter)]
    pub fn renamed(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.record.1)
    }

    /// Of that, the objects, each by its name before and its name now.
    #[wasm_bindgen(getter, js_name = renamedObjects)]
    pub fn renamed_objects(&mut self) -> Vec<String> {
        std::mem::take(&mut self.record.2)
    }

    /// Takes back what was recorded, in the order in which it was made, as one change of its own: 2 if
    /// all of it was taken back, 1 if a part, 0 if nothing of it is left.
    #[wasm_bindgen(js_name = takeBack)]
    pub fn take_back(
        &mut self,
        document: &str,
        records: Vec<Uint8Array>,
        time_s: f64,
        author: Option<String>,
    ) -> Result<u8, JsError> {
        let id = id_of(document)?;
        let mut undoing = Undoing::new(self.renamed.entry(id).or_default());
        for record in records {
            undoing.add(&record.to_vec()).ok_or_else(no_record)?;
        }
        let engine = &mut self.engine;
        engine.write_as(&id, author.as_deref(), ActorId::random);
        let options = ChangeOptions::made_at(time_s as i64);
        let changed = engine.change(&id, options, |tx| undoing.run(tx));
        let (undone, _) = changed.ok_or_else(gone)?.map_err(fault)?;
        self.record = undoing.done();
        Ok(undone as u8)
    }

    /// What an earlier instance renamed.
    pub fn rename(&mut self, document: &str, renamed: &[u8]) -> Result<(), JsError> {
        let names = self.renamed.entry(id_of(document)?).or_default();
        undo::rename(renamed, names).ok_or_else(no_record)
    }

    /// Takes all changes of another document.
    pub fn merge(&mut self, document: &str, other: &str) -> Result<(), JsError> {
        let changes = self.document(&id_of(other)?)?.get_changes(&[]);
        let merged = self.engine.merge(&id_of(document)?, changes);
        merged.ok_or_else(gone)?.map_err(fault)?;
        Ok(())
    }
}

/// Why an edit was not made.
fn edit_fault(error: EditError<JsError>) -> JsError {
    match error {
        EditError::Edit(error) => error,
        EditError::Limit(limit) => fault(format!("too much for one change: {limit}")),
    }
}

fn no_record() -> JsError {
    fault("this was not recorded by the same version")
}
