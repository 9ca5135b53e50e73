//! The engine, as JavaScript calls it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use automerge::marks::{Mark, MarkSet};
use automerge::{
    ActorId, Automerge, ChangeHash, Cursor, Patch, PatchAction, ReadDoc, ScalarValue, Span, Value,
    hydrate,
};
use bytes::Bytes;
use js_sys::{Array, Map, Object, Reflect, Uint8Array};
use reconverge::cursor::Cursors;
use reconverge::difference;
use reconverge::engine::{
    self, Asked, Closed, Config, Engine, Fault, FaultKind, FindError, Input, NotCurrent, Output,
    Reading, RelayId, Status,
};
use reconverge::history::Quarantined;
use reconverge::id::{ConnectionId, DocumentId, PeerId};
use reconverge::replica::{ChangeOptions, DocumentRef, EditError, Replica};
use reconverge::storage::{Batch, Blob, MemoryStorage, Storage, StorageError, Stored, Write};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsError, JsValue};

use crate::listing::Listing;
use crate::undo::{self, Record, Renamed, Taking};
use crate::value::{fault, map, object, object_of, plain, scalar};
use crate::{cbor, edit, keys, patch};

/// A whole client: documents, relays, status. What it keeps of the documents that are open lies in
/// its memory too, so that reading never waits.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Client {
    engine: Engine,
    storage: MemoryStorage,
    /// What of a document is wanted that JavaScript reads from storage.
    loading: HashMap<DocumentId, Reading>,
    /// What was found damaged of a document, which is kept elsewhere when it begins anew.
    damaged: HashMap<DocumentId, Vec<DamagedEntry>>,
    /// The documents of which something is in `storage`.
    mirrored: HashSet<DocumentId>,
    /// What came back in a document when an edit was taken back.
    renamed: HashMap<DocumentId, Renamed>,
    /// What is known of the cursors of a document.
    cursors: HashMap<DocumentId, Cursors>,
    /// What takes the last change back, and what came back by it, as [`Taking::done`] has it.
    record: (Vec<u8>, Vec<u8>, Vec<String>),
    /// How many operations of the last change were left out.
    left_out: u32,
    /// What is left of the histories that are being told.
    listings: Vec<Listing>,
}

/// A key after the document's id, and the value that is damaged.
type DamagedEntry = (Vec<String>, Bytes);

/// What went wrong in JavaScript.
#[derive(Debug)]
struct Reported(String);

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reported {}

fn reported(error: String) -> StorageError {
    StorageError::failed(Reported(error))
}

fn at(now: f64) -> Duration {
    Duration::try_from_secs_f64(now / 1000.0).unwrap_or_default()
}

fn id_of(document: &str) -> Result<DocumentId, JsError> {
    document.parse().map_err(fault)
}

fn connection_of(connection: f64) -> ConnectionId {
    ConnectionId(connection as u64)
}

fn heads_of(heads: Vec<String>) -> Result<Vec<ChangeHash>, JsError> {
    let parse = |head: String| {
        head.parse()
            .map_err(|_| fault(format_args!("\"{head}\" is no hash of a change")))
    };
    heads.into_iter().map(parse).collect()
}

fn no_record() -> JsError {
    fault("this was not recorded by the same version")
}

fn strings(hashes: &[ChangeHash]) -> Vec<String> {
    hashes.iter().map(ToString::to_string).collect()
}

#[wasm_bindgen]
impl Client {
    /// A client that has done nothing yet. `relays` are the names of the relays, `session` names
    /// this run, `seed` makes the jitter of its waits.
    #[wasm_bindgen(constructor)]
    pub fn new(
        peer: &str,
        storage_id: &str,
        session: &str,
        relays: Vec<String>,
        seed: f64,
    ) -> Result<Self, JsError> {
        let peer = PeerId::new(peer);
        let peer =
            peer.ok_or_else(|| fault("a peer id has 1 to 256 bytes, and no control characters"))?;
        let config = Config {
            peer,
            storage_id: storage_id.into(),
            session: session.to_owned(),
            relays: relays.into_iter().map(Arc::from).collect(),
            seed: seed.to_bits(),
            settle_at_once: usize::MAX,
        };
        Ok(Self {
            engine: Engine::new(config),
            storage: MemoryStorage::new(storage_id),
            loading: HashMap::new(),
            damaged: HashMap::new(),
            mirrored: HashSet::new(),
            renamed: HashMap::new(),
            cursors: HashMap::new(),
            record: Default::default(),
            left_out: 0,
            listings: Vec::new(),
        })
    }

    /// The connection is there that was asked for.
    pub fn connected(&mut self, now: f64, connection: f64) {
        self.handle(now, Input::Connected(connection_of(connection)));
    }

    /// A binary WebSocket message came.
    pub fn frame(&mut self, now: f64, connection: f64, frame: Vec<u8>) {
        self.handle(
            now,
            Input::Frame(connection_of(connection), Bytes::from(frame)),
        );
    }

    /// The connection is alive.
    pub fn pong(&mut self, now: f64, connection: f64) {
        self.handle(now, Input::Pong(connection_of(connection)));
    }

    /// A message was handed to the socket. `reads` is what came with it.
    pub fn sent(&mut self, now: f64, connection: f64, reads: Option<String>) {
        let reads = reads.and_then(|document| document.parse().ok());
        self.handle(now, Input::Sent(connection_of(connection), reads));
    }

    /// A connection ended, or did not come about; `refused` says why it will not another time.
    pub fn closed(&mut self, now: f64, connection: f64, refused: Option<String>) {
        let refused = refused.map(|why| Closed::Refused(Fault::new(FaultKind::Rejected, why)));
        let closed = refused.unwrap_or_else(|| Closed::Lost(Fault::lost()));
        self.handle(now, Input::Closed(connection_of(connection), closed));
    }

    /// Why a relay refused us, if it did so last.
    #[must_use]
    pub fn refusal(&self, relay: usize) -> Option<String> {
        self.engine.refusal(RelayId(relay)).map(Into::into)
    }

    /// There is a network again.
    #[wasm_bindgen(js_name = networkAvailable)]
    pub fn network_available(&mut self, now: f64) {
        self.handle(now, Input::NetworkAvailable);
    }

    /// From now on these are the relays, in this order: those that somebody wants, and those for which
    /// only the outbox speaks.
    #[wasm_bindgen(js_name = nameRelays)]
    pub fn name_relays(&mut self, now: f64, wanted: Vec<String>, away: Vec<String>) {
        let names = |names: Vec<String>| names.into_iter().map(Arc::from).collect();
        self.engine.name_relays(at(now), names(wanted), names(away));
    }

    /// A relay that is not connected may be worth another try at once.
    pub fn retry(&mut self, now: f64, relay: usize) {
        self.engine.retry(at(now), RelayId(relay));
    }

    /// These documents are in the stored outbox; said at the start, and of others when they are put
    /// there for a relay that is new.
    pub fn outbox(&mut self, now: f64, documents: Vec<String>) {
        let documents = documents.iter().filter_map(|id| id.parse().ok()).collect();
        self.handle(now, Input::Outbox(documents));
    }

    /// The answer to `load`: all entries of the document, as arrays of the key after the
    /// document's id and the value; or why they could not be read.
    pub fn loaded(
        &mut self,
        now: f64,
        document: &str,
        entries: Vec<Array>,
        error: Option<String>,
    ) -> Result<(), JsError> {
        let id = id_of(document)?;
        let result = match error {
            Some(error) => Err(reported(error)),
            None => self.restore(id, &entries),
        };
        match result {
            Ok(()) => self.load(now, id),
            Err(error) => {
                self.loading.remove(&id);
                self.handle(now, Input::Loaded(id, Err(error)));
            }
        }
        Ok(())
    }

    /// The answer to `store`, with what went wrong.
    pub fn stored(
        &mut self,
        now: f64,
        document: &str,
        error: Option<String>,
    ) -> Result<(), JsError> {
        let result = error.map_or(Ok(()), |error| Err(reported(error)));
        self.handle(now, Input::Stored(id_of(document)?, result));
        Ok(())
    }

    /// Time went by.
    pub fn tick(&mut self, now: f64) {
        self.handle(now, Input::Tick);
    }

    /// What to do next; `Output` of `wasm/js/host/output.ts`. `idle` when there is nothing.
    pub fn poll(&mut self, now: f64) -> Result<JsValue, JsError> {
        loop {
            match self.engine.poll_output() {
                Output::Load { document, contents } => {
                    self.loading.insert(document, contents);
                    if !self.mirrored.contains(&document) {
                        return Ok(output("load", [("document", name(document))]));
                    }
                    self.load(now, document);
                }
                Output::LoadGraph {
                    document,
                    key,
                    segments,
                } => {
                    let graph = engine::load_graph(&self.storage, key, segments);
                    self.handle(now, Input::Graph(document, graph));
                }
                Output::Fold(document, folding) => {
                    let folded = engine::fold(&self.storage, &folding);
                    self.handle(now, Input::Folded(document, folded));
                }
                Output::Settle(..) => unreachable!("in a page all is done at once"),
                Output::Store(batch) => return Ok(self.store(&batch)),
                Output::Idle { wake_at } => {
                    self.forget_released();
                    let wake_at = wake_at.map(|at| at.as_secs_f64() * 1000.0);
                    return Ok(output("idle", [("wakeAt", wake_at.into())]));
                }
                Output::Connect(relay, connection) => {
                    let (relay, connection) = ((relay.0 as f64).into(), line(connection));
                    return Ok(output(
                        "connect",
                        [("relay", relay), ("connection", connection)],
                    ));
                }
                Output::Disconnect(connection) => {
                    return Ok(output("disconnect", [("connection", line(connection))]));
                }
                Output::Send(connection, frame) => {
                    let reads = frame.reads().map(|document| document.to_string());
                    let Ok(bytes) = frame.encode(&self.storage) else {
                        // It counts as sent, so the connection must not go on.
                        let closed = Closed::Lost(Fault::lost());
                        self.handle(now, Input::Closed(connection, closed));
                        return Ok(output("disconnect", [("connection", line(connection))]));
                    };
                    let bytes = Uint8Array::from(&*bytes).into();
                    return Ok(output(
                        "send",
                        [
                            ("connection", line(connection)),
                            ("bytes", bytes),
                            ("reads", reads.into()),
                        ],
                    ));
                }
                Output::Ping(connection) => {
                    let bytes = self.engine.ping(connection);
                    let bytes = bytes.map(|bytes| Uint8Array::from(&*bytes)).into();
                    return Ok(output(
                        "ping",
                        [("connection", line(connection)), ("bytes", bytes)],
                    ));
                }
                Output::StoreFailed(document, error) => {
                    let error = error.to_string().into();
                    return Ok(output(
                        "storeFailed",
                        [("document", name(document)), ("error", error)],
                    ));
                }
                Output::Flushed(document) => {
                    return Ok(output("flushed", [("document", name(document))]));
                }
                Output::Found(document, result) => return Ok(found(document, result)),
                Output::Changed(document) => {
                    return Ok(output("changed", [("document", name(document))]));
                }
                Output::Salvaged(document) => {
                    let error = self.engine.damage(&document);
                    let error = error.map(ToString::to_string).into();
                    return Ok(output(
                        "salvaged",
                        [("document", name(document)), ("error", error)],
                    ));
                }
                Output::TakenOut(document) => {
                    return Ok(output("takenOut", [("document", name(document))]));
                }
                Output::Status(document, status) => return Ok(told(document, &status)),
                Output::Ephemeral {
                    document,
                    sender,
                    data,
                } => {
                    // What is not CBOR is nobody's presence.
                    if let Ok(message) = cbor::decode(&data) {
                        let sender = sender.as_str().into();
                        return Ok(output(
                            "ephemeral",
                            [
                                ("document", name(document)),
                                ("sender", sender),
                                ("message", message),
                            ],
                        ));
                    }
                }
                Output::Added(document) => {
                    return Ok(output("added", [("document", name(document))]));
                }
                Output::Deleted(document) => {
                    return Ok(output("deleted", [("document", name(document))]));
                }
                Output::Current(asked, answer) => {
                    let why = match answer {
                        Ok(()) => "".into(),
                        Err(NotCurrent::Unreachable(fault)) => fault.message.into(),
                        // It is told otherwise.
                        Err(NotCurrent::Gone) => JsValue::UNDEFINED,
                    };
                    let asked = (asked.0 as f64).into();
                    return Ok(output("current", [("asked", asked), ("why", why)]));
                }
            }
        }
    }

    fn handle(&mut self, now: f64, input: Input) {
        self.engine.handle(at(now), input);
    }

    /// Puts what JavaScript read where the engine reads it.
    fn restore(&mut self, id: DocumentId, entries: &[Array]) -> Result<(), StorageError> {
        let mut writes = Vec::new();
        let name = id.to_string();
        let (mut aside, mut damaged) = (Vec::new(), Vec::new());
        for entry in entries {
            let key: Array = entry.get(0).unchecked_into();
            let key: Vec<String> = key.iter().filter_map(|part| part.as_string()).collect();
            let value: Uint8Array = entry.get(1).unchecked_into();
            let value = Bytes::from(value.to_vec());
            let kind = key.first().map_or("", String::as_str);
            if kind == keys::ASIDE {
                match keys::unsealed(&name, &key, &value) {
                    Some(chunk) => aside.push(chunk),
                    None => damaged.push((key, value)),
                }
                continue;
            }
            let write = keys::entry(&name, &key, &value);
            if write.is_none() && matches!(kind, "acknowledged" | "refused") {
                // Without these, relays are asked and say it again.
                continue;
            }
            match write {
                Some(write) => writes.push(write),
                None => damaged.push((key, value)),
            }
        }
        let key = self.storage.new_key();
        if !aside.is_empty() {
            self.storage.keep_aside(id, aside);
        }
        if !damaged.is_empty() {
            self.storage.mark_damaged(id, key);
            self.damaged.insert(id, damaged);
        }
        if !writes.is_empty() {
            self.storage.commit(&[Batch {
                document: id,
                key,
                writes,
            }])?;
            self.mirrored.insert(id);
        }
        Ok(())
    }

    fn load(&mut self, now: f64, id: DocumentId) {
        let reading = self.loading.remove(&id).unwrap_or(Reading::Contents);
        let loaded = engine::load(&self.storage, &id, reading, ActorId::random());
        self.handle(now, Input::Loaded(id, loaded.map(Box::new)));
    }

    fn store(&mut self, batch: &Batch) -> JsValue {
        // A commit that fails is given out again until it succeeds, so this only runs ahead.
        let committed = self.storage.commit(std::slice::from_ref(batch));
        committed.expect("memory does not fail");
        if batch.writes.contains(&Write::RemoveDocument) {
            self.mirrored.remove(&batch.document);
        } else {
            self.mirrored.insert(batch.document);
        }
        let writes = keys::writes(batch);
        if batch.writes.contains(&Write::SetAside) {
            self.keep_aside(batch.document, &writes);
        }
        output(
            "store",
            [
                ("document", name(batch.document)),
                ("writes", writes.into()),
            ],
        )
    }

    /// The writes for what was set aside of a document, and is damaged.
    fn keep_aside(&self, document: DocumentId, writes: &Array) {
        let id = document.to_string();
        let aside = self.storage.aside(&document);
        let aside = aside.expect("memory does not fail");
        for (number, chunk) in aside.iter().enumerate() {
            writes.push(&keys::aside(&id, number, chunk));
        }
        let damaged = self.damaged.get(&document);
        for (key, value) in damaged.into_iter().flatten() {
            writes.push(&keys::damaged(&id, key, value));
        }
    }

    /// Documents that left the engine's memory leave this one too.
    fn forget_released(&mut self) {
        let (engine, storage) = (&self.engine, &self.storage);
        self.damaged.retain(|id, _| !engine.is_released(id));
        self.renamed.retain(|id, _| !engine.is_released(id));
        self.cursors.retain(|id, _| !engine.is_released(id));
        self.mirrored.retain(|id| {
            if engine.is_released(id) {
                storage.forget(id);
                return false;
            }
            true
        });
    }
}

/// For the application.
#[wasm_bindgen]
impl Client {
    /// Looks for a document; `found` follows.
    pub fn find(&mut self, document: &str) -> Result<(), JsError> {
        self.engine.find(id_of(document)?);
        Ok(())
    }

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
        let key = self.storage.new_key();
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
        let mut taking = Taking::new(self.renamed.entry(id).or_default());
        for record in records {
            taking.add(&record.to_vec()).ok_or_else(no_record)?;
        }
        let engine = &mut self.engine;
        engine.write_as(&id, author.as_deref(), ActorId::random);
        let options = ChangeOptions::made_at(time_s as i64);
        let changed = engine.change(&id, options, |tx| taking.run(tx));
        let (taken, _) = changed.ok_or_else(gone)?.map_err(fault)?;
        self.record = taking.done();
        Ok(taken as u8)
    }

    /// What an earlier instance renamed.
    pub fn rename(&mut self, document: &str, renamed: &[u8]) -> Result<(), JsError> {
        let names = self.renamed.entry(id_of(document)?).or_default();
        undo::rename(renamed, names).ok_or_else(no_record)
    }

    /// Whether all these heads are in a document.
    #[wasm_bindgen(js_name = knowsHeads)]
    pub fn knows_heads(&self, document: &str, heads: Vec<String>) -> Result<bool, JsError> {
        Ok(self.knows(&id_of(document)?, &heads_of(heads)?).is_ok())
    }

    /// Asks whether a document is here as a relay has it.
    #[wasm_bindgen(js_name = askCurrent)]
    pub fn ask_current(&mut self, document: &str) -> Result<f64, JsError> {
        Ok(self.engine.ask_current(id_of(document)?).0 as f64)
    }

    /// Nobody waits for it any more.
    pub fn withdraw(&mut self, asked: f64) {
        self.engine.withdraw(Asked(asked as u64));
    }

    /// Takes all changes of another document.
    pub fn merge(&mut self, document: &str, other: &str) -> Result<(), JsError> {
        let changes = self.document(&id_of(other)?)?.get_changes(&[]);
        let merged = self.engine.merge(&id_of(document)?, changes);
        merged.ok_or_else(gone)?.map_err(fault)?;
        Ok(())
    }

    /// From now on, or no longer, remembers what changes in a document.
    pub fn observe(&mut self, document: &str, observed: bool) -> Result<(), JsError> {
        self.engine.observe(&id_of(document)?, observed);
        Ok(())
    }

    /// What changed since the last call: an array of the operations, and whether they take the
    /// place of all that was.
    #[wasm_bindgen(js_name = takePatches)]
    pub fn take_patches(&mut self, document: &str) -> Result<Array, JsError> {
        let id = id_of(document)?;
        let patches = self.engine.take_patches(&id);
        let Some(document) = self.engine.document(&id) else {
            return Ok(Array::of(&[Array::new().into(), false.into()]));
        };
        let operations = patch::operations(&document, &patches.list);
        Ok(Array::of(&[operations.into(), patches.whole.into()]))
    }

    /// The operations that make a document's contents, now or at these heads, out of nothing.
    pub fn state(&self, document: &str, heads: Option<Vec<String>>) -> Result<Array, JsError> {
        let id = id_of(document)?;
        let document = self.document(&id)?;
        let patches = match heads.map(heads_of).transpose()? {
            None => document.current_state(),
            Some(heads) => {
                self.knows(&id, &heads)?;
                document.diff(&[], &heads)
            }
        };
        Ok(patch::operations(&document, &patches))
    }

    /// The operations that lead from one state to another.
    pub fn since(
        &self,
        document: &str,
        before: Vec<String>,
        after: Vec<String>,
    ) -> Result<Array, JsError> {
        let (document, patches, _) = self.between(document, before, after)?;
        Ok(patch::operations(&document, &patches))
    }

    /// The same for somebody who has no names of objects: arrays of the path of one, and its
    /// operations.
    pub fn diff(
        &self,
        document: &str,
        before: Vec<String>,
        after: Vec<String>,
    ) -> Result<Array, JsError> {
        let (document, mut patches, after) = self.between(document, before, after)?;
        clip(&document, &mut patches, &after);
        Ok(patch::steps(&document, &patches))
    }

    /// The heads of a document's contents.
    pub fn heads(&self, document: &str) -> Result<Vec<String>, JsError> {
        let mut heads = strings(&self.document(&id_of(document)?)?.get_heads());
        heads.sort_unstable();
        Ok(heads)
    }

    /// Who edits a document here in the name of this author, in hexadecimal.
    pub fn actor(&mut self, document: &str, author: Option<String>) -> Result<String, JsError> {
        let id = id_of(document)?;
        self.engine
            .write_as(&id, author.as_deref(), ActorId::random);
        let replica = self.engine.replica(&id).ok_or_else(gone)?;
        Ok(replica.actor().to_string())
    }

    /// Begins to tell, as `listing`, the changes of a document that made, edited or deleted an object
    /// or what is in it, up to these heads, each after those it depends on.
    pub fn list(
        &mut self,
        listing: u32,
        document: &str,
        object: &str,
        heads: Vec<String>,
    ) -> Result<(), JsError> {
        let (id, heads) = (id_of(document)?, heads_of(heads)?);
        let object = edit::object_id(object)?;
        let listed = Listing::new(listing, id, &*self.document(&id)?, object, &heads);
        self.listings.push(listed);
        Ok(())
    }

    /// The next of these changes, as many as cost about as much as `count` of a whole history:
    /// arrays of hash, actor, sequence number, seconds since 1970, message, deps, number of
    /// operations, author, and whether it was made here. `undefined` when there are no more.
    pub fn listed(&mut self, listing: u32, count: u32) -> Result<Option<Array>, JsError> {
        let mut listings = self.listings.iter_mut();
        let Some(listed) = listings.find(|listed| listed.number == listing) else {
            return Ok(None);
        };
        let replica = self.engine.replica(&listed.document).ok_or_else(gone)?;
        Ok(listed.next(replica, count))
    }

    /// Nobody asks for more of these.
    pub fn unlist(&mut self, listing: u32) {
        self.listings.retain(|listed| listed.number != listing);
    }

    /// All values at a key of a map or an index of a list, by the operations that put them there;
    /// `undefined` unless there are several.
    pub fn conflicts(
        &self,
        document: &str,
        object: &str,
        prop: &JsValue,
    ) -> Result<JsValue, JsError> {
        let document = self.document(&id_of(document)?)?;
        let all = document.get_all(edit::object_id(object)?, edit::prop(prop)?);
        let all = all.map_err(fault)?;
        if all.len() < 2 {
            return Ok(JsValue::UNDEFINED);
        }
        let values = Object::new();
        for (value, id) in all {
            let value = match value {
                Value::Object(_) => ReadDoc::hydrate(&*document, &id, None).map_err(fault)?,
                Value::Scalar(value) => hydrate::Value::Scalar(value.into_owned()),
            };
            // A new plain object takes every property.
            let _ = Reflect::set(&values, &id.to_string().into(), &plain(&value));
        }
        Ok(values.into())
    }

    /// The operations that make an object, with what is in it, what it was at these heads; if it was
    /// not there, the value at a key of the map around it.
    pub fn restoring(
        &self,
        document: &str,
        object: Option<String>,
        map: Option<String>,
        key: Option<String>,
        heads: Vec<String>,
    ) -> Result<Array, JsError> {
        let id = id_of(document)?;
        let heads = heads_of(heads)?;
        self.knows(&id, &heads)?;
        let document = self.document(&id)?;
        let mut found = None;
        for (object, key) in [(object, None), (map, key)] {
            let Some(object) = object.filter(|_| found.is_none()) else {
                continue;
            };
            let object = edit::object_id(&object)?;
            if difference::shows(&document, &object, &heads) {
                found = Some((object, key));
            }
        }
        let (object, key) = found.ok_or_else(|| fault("it was not there at these heads"))?;
        let patches = difference::between(&document, &document.get_heads(), &heads);
        let mut within = difference::within(patches, object, key);
        clip(&document, &mut within, &heads);
        take_marks(&document, &mut within, &heads);
        Ok(patch::operations(&document, &within))
    }

    /// What was taken out of a document and is kept aside, as the page is told it.
    pub fn quarantined(&self, document: &str) -> Result<Array, JsError> {
        let kept = engine::kept_aside(&self.storage, &id_of(document)?).map_err(fault)?;
        let row = |change: &Quarantined| {
            object([
                ("hash", change.hash.to_string().into()),
                ("reason", change.reason.as_str().into()),
                ("change", Uint8Array::from(&*change.bytes).into()),
            ])
        };
        Ok(kept.iter().map(row).collect())
    }

    /// A place in a list or text that stays with its element. At the end, it stays at the end.
    pub fn cursor(&self, document: &str, object: &str, index: usize) -> Result<String, JsError> {
        let document = self.document(&id_of(document)?)?;
        let object = edit::object_id(object)?;
        if index >= document.length(&object) {
            return Ok(Cursor::End.to_string());
        }
        let cursor = document.get_cursor(&object, index, None);
        Ok(cursor.map_err(fault)?.to_string())
    }

    /// Where a cursor is, whoever gave it; `undefined` if it is none of this object.
    pub fn position(
        &mut self,
        document: &str,
        object: &str,
        cursor: &str,
    ) -> Result<Option<usize>, JsError> {
        let id = id_of(document)?;
        let object = edit::object_id(object)?;
        let document = self.engine.document(&id).ok_or_else(gone)?;
        let cursors = self.cursors.entry(id).or_default();
        Ok(cursors.position(&document, &object, cursor))
    }

    /// The marks of a text; `Mark` of `wasm/js/types.ts`.
    pub fn marks(
        &self,
        document: &str,
        object: &str,
        heads: Option<Vec<String>>,
    ) -> Result<Array, JsError> {
        let document = self.document(&id_of(document)?)?;
        let object = edit::object_id(object)?;
        let marks = match heads.map(heads_of).transpose()? {
            Some(heads) => document.marks_at(&object, &heads),
            None => document.marks(&object),
        };
        Ok(marks.map_err(fault)?.iter().map(mark).collect())
    }

    /// The parts of a text, in order; `Span` of `wasm/js/types.ts`.
    pub fn spans(
        &self,
        document: &str,
        object: &str,
        heads: Option<Vec<String>>,
    ) -> Result<Array, JsError> {
        let document = self.document(&id_of(document)?)?;
        let object = edit::object_id(object)?;
        let spans = match heads.map(heads_of).transpose()? {
            Some(heads) => document.spans_at(&object, &heads),
            None => document.spans(&object),
        };
        Ok(spans.map_err(fault)?.map(|part| span(&part)).collect())
    }

    /// The whole document with its history, in the form that Automerge saves.
    pub fn save(&self, document: &str) -> Result<Uint8Array, JsError> {
        let saved = self.document(&id_of(document)?)?.save();
        Ok(Uint8Array::from(saved.as_slice()))
    }

    /// Keeps a document that is ready in memory, until it is let go of.
    pub fn hold(&mut self, document: &str) -> Result<(), JsError> {
        self.engine.hold(&id_of(document)?);
        Ok(())
    }

    /// The application does not use a document any more.
    #[wasm_bindgen(js_name = letGo)]
    pub fn let_go(&mut self, document: &str) -> Result<(), JsError> {
        self.engine.let_go(&id_of(document)?);
        Ok(())
    }

    /// Sends plain data to all who have the document open, now or never.
    pub fn broadcast(&mut self, document: &str, message: &JsValue) -> Result<(), JsError> {
        let message = cbor::encode(message)?;
        self.engine.broadcast(&id_of(document)?, &message);
        Ok(())
    }

    /// Removes a document from local storage; `deleted` follows.
    pub fn delete(&mut self, document: &str) -> Result<(), JsError> {
        self.engine.delete(&id_of(document)?);
        Ok(())
    }

    /// All that is kept of a document that is open, as writes for a storage that lost it.
    pub fn kept(&self, document: &str) -> Result<Array, JsError> {
        let id = id_of(document)?;
        let batch = match self.kept_batch(id) {
            // It begins anew, with a commit that has all that is whole.
            Err(StorageError::Damaged { .. }) => None,
            kept => kept.map_err(fault)?,
        };
        let writes = batch.map_or_else(Array::new, |batch| keys::writes(&batch));
        self.keep_aside(id, &writes);
        Ok(writes)
    }

    fn kept_batch(&self, document: DocumentId) -> Result<Option<Batch>, StorageError> {
        let Some(Stored { key, record, .. }) = self.storage.load(&document)? else {
            return Ok(None);
        };
        let generation = record.generation;
        let current = [Blob::Snapshot(generation), Blob::Outline(generation)];
        let numbered = (0..record.segments)
            .map(Blob::Segment)
            .chain((0..record.quarantined).map(Blob::Quarantine));
        let mut writes = Vec::new();
        for blob in current
            .into_iter()
            .filter(|_| generation > 0)
            .chain(numbered)
        {
            writes.push(Write::Blob(blob, self.storage.blob(key, blob)?));
        }
        let rows = self.storage.rows(key, record.rows_from, usize::MAX)?;
        writes.extend(rows.into_iter().map(|(last, row)| Write::Row { last, row }));
        for (relay, heads) in self.storage.acknowledged(key)? {
            writes.push(Write::Acknowledged { relay, heads });
        }
        for (relay, refused) in self.storage.refused(key)? {
            let refused = Some(refused);
            writes.push(Write::Refused { relay, refused });
        }
        writes.push(Write::Outbox(self.engine.belongs_in_outbox(&document)));
        writes.push(Write::Record(record));
        Ok(Some(Batch {
            document,
            key,
            writes,
        }))
    }

    /// Writes what would be written later.
    pub fn flush(&mut self) {
        self.engine.flush();
    }

    /// Whether everything of a document is in local storage.
    #[wasm_bindgen(js_name = isStored)]
    pub fn is_stored(&self, document: &str) -> Result<bool, JsError> {
        Ok(self.engine.is_stored(&id_of(document)?))
    }

    /// Whether, besides, it is stored what relays acknowledged.
    #[wasm_bindgen(js_name = isFlushed)]
    pub fn is_flushed(&self, document: &str) -> Result<bool, JsError> {
        Ok(self.engine.is_flushed(&id_of(document)?))
    }

    /// After how many commits everything so far is in local storage.
    #[wasm_bindgen(js_name = commitsDue)]
    pub fn commits_due(&self, document: &str) -> Result<u32, JsError> {
        Ok(self.engine.commits_due(&id_of(document)?))
    }

    /// Whether every relay has acknowledged everything of a document, and there is one.
    #[wasm_bindgen(js_name = isEverywhere)]
    pub fn is_everywhere(&self, document: &str) -> Result<bool, JsError> {
        Ok(self.engine.is_everywhere(&id_of(document)?))
    }

    /// Whether a relay has acknowledged these changes, or all relays have.
    #[wasm_bindgen(js_name = isAcknowledged)]
    pub fn is_acknowledged(
        &self,
        document: &str,
        changes: Vec<String>,
        by_all: bool,
    ) -> Result<bool, JsError> {
        let changes = heads_of(changes)?;
        let document = id_of(document)?;
        Ok(self.engine.is_acknowledged(&document, &changes, by_all))
    }

    /// A document's status, as in the output `status`; `undefined` before it is ready.
    pub fn status(&self, document: &str) -> Result<JsValue, JsError> {
        let id = id_of(document)?;
        let status = self.engine.status(&id);
        Ok(status.map_or(JsValue::UNDEFINED, |status| told(id, status)))
    }

    /// The documents that are open.
    pub fn documents(&self) -> Vec<String> {
        self.engine.documents().map(ToString::to_string).collect()
    }

    fn between(
        &self,
        document: &str,
        before: Vec<String>,
        after: Vec<String>,
    ) -> Result<(DocumentRef<'_>, Vec<Patch>, Vec<ChangeHash>), JsError> {
        let (before, after) = (heads_of(before)?, heads_of(after)?);
        let id = id_of(document)?;
        self.knows(&id, &before)?;
        self.knows(&id, &after)?;
        let document = self.document(&id)?;
        let patches = difference::between(&document, &before, &after);
        Ok((document, patches, after))
    }

    fn document(&self, id: &DocumentId) -> Result<DocumentRef<'_>, JsError> {
        self.engine.document(id).ok_or_else(gone)
    }

    fn knows(&self, id: &DocumentId, heads: &[ChangeHash]) -> Result<(), JsError> {
        let document = self.document(id)?;
        let unknown = |head: &&ChangeHash| document.get_change_meta_by_hash(head).is_none();
        match heads.iter().find(unknown) {
            Some(head) => Err(fault(format_args!("the document has no change {head}"))),
            None => Ok(()),
        }
    }
}

/// Automerge may tell of marks that end behind the text.
fn clip(document: &Automerge, patches: &mut [Patch], after: &[ChangeHash]) {
    for patch in patches {
        if let PatchAction::Mark { marks } = &mut patch.action {
            let length = document.length_at(&patch.obj, after);
            for mark in &mut *marks {
                mark.end = mark.end.min(length);
            }
            marks.retain(|mark| mark.start < mark.end);
        }
    }
}

/// What is inserted beside a mark may get it: the patches say what it has, and now also what it has not.
fn take_marks(document: &Automerge, patches: &mut [Patch], after: &[ChangeHash]) {
    for patches in patches.chunk_by_mut(|a, b| a.obj == b.obj) {
        let text = &patches[0].obj;
        let mut all = document.marks(text).unwrap_or_default();
        all.extend(document.marks_at(text, after).unwrap_or_default());
        if all.is_empty() {
            continue;
        }
        for patch in patches {
            if let PatchAction::SpliceText { marks, .. } = &mut patch.action {
                let nothing = all
                    .iter()
                    .map(|mark| (mark.name.to_string(), ScalarValue::Null));
                let own = marks.iter().flat_map(MarkSet::iter);
                let own = own.map(|(name, value)| (name.to_owned(), value.clone()));
                *marks = Some(nothing.chain(own.collect::<Vec<_>>()).collect());
            }
        }
    }
}

fn gone() -> JsError {
    fault("the document is not open")
}

/// Why an edit was not made.
fn edit_fault(error: EditError<JsError>) -> JsError {
    match error {
        EditError::Edit(error) => error,
        EditError::Limit(limit) => fault(format!("too much for one change: {limit}")),
    }
}

fn name(document: DocumentId) -> JsValue {
    document.to_string().into()
}

fn line(connection: ConnectionId) -> JsValue {
    (connection.0 as f64).into()
}

fn output<const N: usize>(kind: &str, fields: [(&str, JsValue); N]) -> JsValue {
    let output = object(fields);
    // A plain object takes every property.
    let _ = Reflect::set(&output, &"type".into(), &kind.into());
    output
}

fn mark(mark: &Mark) -> JsValue {
    object([
        ("name", mark.name.as_str().into()),
        ("start", (mark.start as f64).into()),
        ("end", (mark.end as f64).into()),
        ("value", scalar(&mark.value)),
    ])
}

fn span(span: &Span) -> JsValue {
    match span {
        Span::Block(block) => output("block", [("value", map(block))]),
        Span::Text { text, marks: None } => output("text", [("value", text.as_str().into())]),
        Span::Text {
            text,
            marks: Some(marks),
        } => {
            let marks = object_of(marks.iter().map(|(name, value)| (name, scalar(value))));
            output("text", [("value", text.as_str().into()), ("marks", marks)])
        }
    }
}

fn told(document: DocumentId, status: &Status) -> JsValue {
    let (state, reason) = match status {
        Status::Saved => ("saved", None),
        Status::Saving => ("saving", None),
        Status::Offline => ("offline", None),
        Status::Refused(reason) => ("refused", Some(reason.clone())),
    };
    output(
        "status",
        [
            ("document", name(document)),
            ("state", state.into()),
            ("reason", reason.into()),
        ],
    )
}

fn found(document: DocumentId, result: Result<(), FindError>) -> JsValue {
    let (code, error) = match result {
        Ok(()) => (None, None),
        Err(error) => {
            let code = match error {
                FindError::Unavailable | FindError::Unreachable(_) => "unavailable",
                FindError::Deleted => "deleted",
                FindError::Storage(_) => "storage",
                _ => "damaged",
            };
            (Some(code), Some(error.to_string()))
        }
    };
    output(
        "found",
        [
            ("document", name(document)),
            ("code", code.into()),
            ("error", error.into()),
        ],
    )
}
