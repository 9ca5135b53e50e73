//! The engine, as JavaScript calls it.

mod editing;
mod mirror;
mod output;
mod reading;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use automerge::{ActorId, ChangeHash};
use bytes::Bytes;
use js_sys::{Array, Uint8Array};
use reconverge::cursor::Cursors;
use reconverge::engine::{
    self, Asked, Closed, Config, Engine, Fault, FaultKind, Input, Reading, RelayId,
};
use reconverge::history::Quarantined;
use reconverge::id::{ConnectionId, DocumentId, PeerId};
use reconverge::replica::DocumentRef;
use reconverge::storage::StorageError;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsError, JsValue};

use crate::listing::Listing;
use crate::undo::Renamed;
use crate::value::{fault, object};
use crate::{cbor, patch};
use mirror::Mirror;

/// A whole client: documents, relays, status. What it keeps of the documents that are open lies in
/// its memory too, so that reading never waits.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Client {
    engine: Engine,
    mirror: Mirror,
    /// What of a document is wanted that JavaScript reads from storage.
    loading: HashMap<DocumentId, Reading>,
    /// What came back in a document when an edit was taken back.
    renamed: HashMap<DocumentId, Renamed>,
    /// What is known of the cursors of a document.
    cursors: HashMap<DocumentId, Cursors>,
    /// What takes the last change back, and what came back by it, as [`Undoing::done`] has it.
    record: (Vec<u8>, Vec<u8>, Vec<String>),
    /// How many operations of the last change were left out.
    left_out: u32,
    /// What is left of the histories that are being told.
    listings: Vec<Listing>,
}

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
            mirror: Mirror::new(storage_id),
            loading: HashMap::new(),
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
            None => self.mirror.restore(id, &entries),
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

    fn handle(&mut self, now: f64, input: Input) {
        self.engine.handle(at(now), input);
    }

    fn load(&mut self, now: f64, id: DocumentId) {
        let reading = self.loading.remove(&id).unwrap_or(Reading::Contents);
        let loaded = engine::load(self.mirror.storage(), &id, reading, ActorId::random());
        self.handle(now, Input::Loaded(id, loaded.map(Box::new)));
    }

    /// Nothing is known any more of documents that left the engine's memory.
    fn forget_released(&mut self) {
        let engine = &self.engine;
        self.mirror.forget(|id| engine.is_released(id));
        self.renamed.retain(|id, _| !engine.is_released(id));
        self.cursors.retain(|id, _| !engine.is_released(id));
    }
}

/// What an app wants of its documents.
#[wasm_bindgen]
impl Client {
    /// Looks for a document; `found` follows.
    pub fn find(&mut self, document: &str) -> Result<(), JsError> {
        self.engine.find(id_of(document)?);
        Ok(())
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

    /// Who edits a document here in the name of this author, in hexadecimal.
    pub fn actor(&mut self, document: &str, author: Option<String>) -> Result<String, JsError> {
        let id = id_of(document)?;
        self.engine
            .write_as(&id, author.as_deref(), ActorId::random);
        let replica = self.engine.replica(&id).ok_or_else(gone)?;
        Ok(replica.actor().to_string())
    }

    /// What was taken out of a document and is kept aside, as the page is told it.
    pub fn quarantined(&self, document: &str) -> Result<Array, JsError> {
        let kept = engine::kept_aside(self.mirror.storage(), &id_of(document)?).map_err(fault)?;
        let row = |change: &Quarantined| {
            object([
                ("hash", change.hash.to_string().into()),
                ("reason", change.reason.as_str().into()),
                ("change", Uint8Array::from(&*change.bytes).into()),
            ])
        };
        Ok(kept.iter().map(row).collect())
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
        let belongs_in_outbox = self.engine.belongs_in_outbox(&id);
        self.mirror.kept(id, belongs_in_outbox).map_err(fault)
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
        Ok(status.map_or(JsValue::UNDEFINED, |status| output::status(id, status)))
    }

    /// The documents that are open.
    pub fn documents(&self) -> Vec<String> {
        self.engine.documents().map(ToString::to_string).collect()
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

fn gone() -> JsError {
    fault("the document is not open")
}
