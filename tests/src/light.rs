//! A light automerge-repo client: it speaks the protocol as a stock client does, and holds of each
//! document only its heads and, if asked to, the bytes it received. So one process drives
//! thousands.
//!
//! What it does like a stock client (automerge-repo 2.5, automerge 0.12): `request` for what it
//! has nothing of, `sync` with heads and a Bloom filter for what it has; creation announces heads
//! first and sends changes when the relay answered; every sync message that changed its heads is
//! acknowledged by one message. What it does not: wait 100 ms before it sends an edit, answer
//! messages that told it nothing new, send document chunks unless it was given one.
//!
//! Heads are followed by reading each change's hash and deps; contents are not looked at. What was
//! received is checked afterwards by [`typist::load`](crate::typist::load).

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use automerge::ChangeHash;
use automerge::sync::BloomFilter;
use bytes::Bytes;
use futures::future::poll_fn;
use futures::{SinkExt, StreamExt};
use reconverge::history::chunk::{Chunk, ChunkKind};
use reconverge::id::DocumentId;
use reconverge::leb::{Reader, push_unsigned};
use reconverge::protocol::{
    self, Flags, Message, PeerMetadata, SyncEnvelope, SyncMessage, Version, encode_sync,
};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message as Frame};

/// Largest WebSocket message and frame in bytes, as in the stock server.
const MESSAGE_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Read buffer of one connection in bytes; the library's own 128 KiB times thousands is too much.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Most bytes of changes that go into one message.
pub const UPLOAD_BYTES_MAX: usize = 1024 * 1024;

/// How many frames may wait while there is more to read.
const OUTBOX_FRAMES: usize = 32;

/// How long any one step with a relay may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Why a client cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The connection could not be made or broke.
    #[error("connection: {0}")]
    Socket(#[from] Box<tungstenite::Error>),
    /// The connection was closed by the relay.
    #[error("closed by the relay")]
    Closed,
    /// The relay said `error`.
    #[error("refused by the relay: {0}")]
    Refused(String),
    /// The relay sent what no relay may send.
    #[error("the relay broke the protocol: {0}")]
    Relay(String),
    /// Nothing came for too long.
    #[error("nothing came for {0:?} to {1}")]
    Silence(Duration, String),
}

impl Fault {
    /// Whether the relay ended the connection: with a close frame, or without one, as it does to
    /// clients that do not answer and may not stand one.
    #[must_use]
    pub fn is_end(&self) -> bool {
        use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
        let without = |error: &tungstenite::Error| {
            matches!(
                error,
                tungstenite::Error::Protocol(ResetWithoutClosingHandshake)
            )
        };
        match self {
            Self::Closed => true,
            Self::Socket(error) => without(error),
            _ => false,
        }
    }
}

impl From<tungstenite::Error> for Fault {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Closed
            }
            error => Self::Socket(Box::new(error)),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        tungstenite::Error::Io(error).into()
    }
}

impl From<protocol::ProtocolError> for Fault {
    fn from(error: protocol::ProtocolError) -> Self {
        Self::Relay(error.to_string())
    }
}

/// One change as its author sends it.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its hash.
    pub hash: ChangeHash,
    /// The change chunk, not compressed.
    pub bytes: Bytes,
}

impl From<&automerge::Change> for Change {
    fn from(change: &automerge::Change) -> Self {
        Self {
            hash: change.hash(),
            bytes: Bytes::copy_from_slice(change.raw_bytes()),
        }
    }
}

/// The first of these chunks, and its hash if it is a change that is not deflated: then its
/// checksum is verified.
fn read_chunk(bytes: &[u8]) -> Option<(Chunk<'_>, ChangeHash)> {
    let (chunk, _) = Chunk::split(bytes).ok()?;
    // A document chunk's hash has no use here, and hashing it would take the driver's time.
    let hash = match chunk.kind {
        ChunkKind::Change => chunk.verified_hash().ok()?,
        _ => ChangeHash([0; 32]),
    };
    Some((chunk, hash))
}

/// The beginning of a change's data: deps, and the author's sequence number.
fn deps_and_seq(data: &[u8]) -> Option<(&[u8], u64)> {
    let mut input = Reader(data);
    let deps: usize = input.number()?;
    let deps = input.take(deps.checked_mul(32)?)?;
    input.prefixed()?;
    Some((deps, input.unsigned()?))
}

fn hashes(bytes: &[u8]) -> impl Iterator<Item = ChangeHash> + '_ {
    bytes
        .chunks_exact(32)
        .map(|hash| ChangeHash(hash.try_into().unwrap()))
}

/// Splits bytes into changes: what a trace's cache holds.
///
/// # Panics
/// When they are anything but change chunks back to back.
#[must_use]
pub fn split_changes(bytes: &Bytes) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (chunk, hash) = read_chunk(&bytes[at..]).expect("chunks back to back");
        assert_eq!(chunk.kind, ChunkKind::Change, "change chunks only");
        changes.push(Change {
            hash,
            bytes: bytes.slice_ref(chunk.bytes),
        });
        at += chunk.bytes.len();
    }
    changes
}

/// Hashes are random already: their first eight bytes are the hash.
#[derive(Debug, Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are used");
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

fn key(hash: &ChangeHash) -> u64 {
    u64::from_le_bytes(hash.0[..8].try_into().unwrap())
}

/// What a client knows of one document.
#[derive(Debug)]
pub struct Document {
    name: Arc<str>,
    heads: Vec<ChangeHash>,
    relay_heads: Option<Vec<ChangeHash>>,
    /// Heads that both sides certainly have.
    shared: Vec<ChangeHash>,
    /// Received since `shared`, and not below the relay's heads as far as we know.
    beyond_shared: Vec<ChangeHash>,
    /// Every change seen one by one, with how many of our own are among it and its ancestors.
    seen: HashMap<u64, u32, BuildHasherDefault<FirstBytes>>,
    /// Changes came inside a document chunk, so `seen` is not everything.
    has_snapshot: bool,
    own: Vec<Change>,
    /// The changes inside `own[0]`, if that is a document chunk.
    own_snapshot: Arc<[ChangeHash]>,
    sent: usize,
    acked: usize,
    kept: Option<Vec<u8>>,
    unavailable: bool,
    /// What came for this document.
    pub received: Received,
}

/// Counters of what came for one document, over all connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Sync messages.
    pub messages: u64,
    /// Sync messages that carried chunks.
    pub messages_with_chunks: u64,
    /// Changes that were new.
    pub changes: u64,
    /// Changes that were had already.
    pub duplicates: u64,
    /// Changes that came before one they depend on: a relay must not do that.
    pub gaps: u64,
    /// Document chunks.
    pub snapshots: u64,
    /// Bytes of chunks.
    pub chunk_bytes: u64,
}

impl Document {
    /// A document of which nothing is had yet.
    #[must_use]
    pub fn new(id: DocumentId) -> Self {
        Self {
            name: id.to_string().into(),
            heads: Vec::new(),
            relay_heads: None,
            shared: Vec::new(),
            beyond_shared: Vec::new(),
            seen: HashMap::default(),
            has_snapshot: false,
            own: Vec::new(),
            own_snapshot: Arc::new([]),
            sent: 0,
            acked: 0,
            kept: None,
            unavailable: false,
            received: Received::default(),
        }
    }

    /// Keeps the bytes that come, for [`kept`](Self::kept).
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.kept = Some(Vec::new());
        self
    }

    /// A document of which everything up to these heads is had, and known to be at the relay: a
    /// client with stored sync state. What lies below the heads is not known one by one, so what
    /// comes again of it counts among [`Received::gaps`].
    #[must_use]
    pub fn resumed(id: DocumentId, heads: Vec<ChangeHash>) -> Self {
        let mut document = Self::new(id);
        document
            .seen
            .extend(heads.iter().map(|head| (key(head), 0)));
        document.shared.clone_from(&heads);
        document.heads = heads;
        document
    }

    /// A document that this client has whole, as one document chunk and the hashes of all changes
    /// in it, the last of them its only head; uploaded in that form.
    #[must_use]
    pub fn with_snapshot(id: DocumentId, saved: Bytes, hashes: Arc<[ChangeHash]>) -> Self {
        let mut document = Self::new(id);
        let head = *hashes.last().expect("a document has changes");
        document.own_snapshot = hashes;
        document.has_snapshot = true;
        document.write(Change {
            hash: head,
            bytes: saved,
        });
        document
    }

    /// A new document, begun with these changes.
    #[must_use]
    pub fn created(id: DocumentId, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut document = Self::new(id);
        for change in changes {
            document.write(change);
        }
        document
    }

    /// The document's id as text.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its heads, sorted.
    #[must_use]
    pub fn heads(&self) -> &[ChangeHash] {
        &self.heads
    }

    /// Whether this change was written here or came by itself, not inside a snapshot.
    #[must_use]
    pub fn has(&self, hash: &ChangeHash) -> bool {
        self.seen.contains_key(&key(hash))
    }

    /// What the relay last named as its heads, on this connection.
    #[must_use]
    pub fn relay_heads(&self) -> Option<&[ChangeHash]> {
        self.relay_heads.as_deref()
    }

    /// How many own changes were made.
    #[must_use]
    pub fn written(&self) -> usize {
        self.own.len()
    }

    /// How many own changes, from the first, the relay has acknowledged as durable.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.acked
    }

    /// The own changes.
    #[must_use]
    pub fn own(&self) -> &[Change] {
        &self.own
    }

    /// Whether the relay and we have the same, and something.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        !self.heads.is_empty() && self.relay_heads.as_deref() == Some(&self.heads)
    }

    /// Whether the relay last said that nobody has this document.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.unavailable
    }

    /// The chunks received, back to back.
    ///
    /// # Panics
    /// Unless the document is [`keeping`](Self::keeping).
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        self.kept
            .as_deref()
            .expect("a document that keeps what comes")
    }

    fn write(&mut self, change: Change) {
        self.own.push(change);
        let change = self.own.last().unwrap();
        let hash = change.hash;
        if self.own.len() == 1 && !self.own_snapshot.is_empty() {
            self.heads = vec![hash];
        } else {
            let (chunk, _) = read_chunk(&change.bytes).expect("an own change is a chunk");
            let (deps, _) = deps_and_seq(chunk.data).expect("an own change is well-formed");
            let bytes = deps;
            self.heads
                .retain(|head| !hashes(bytes).any(|dep| dep == *head));
            let at = self.heads.partition_point(|head| *head < hash);
            self.heads.insert(at, hash);
        }
        self.seen.insert(key(&hash), self.own.len() as u32);
    }

    /// Takes in one chunk and gives its length; `applied` gets the sequence number of each change
    /// that was new.
    fn take(&mut self, bytes: &[u8], applied: &mut Vec<u64>) -> Result<usize, Fault> {
        let malformed = || Fault::Relay("a malformed chunk".into());
        let (chunk, hash) = read_chunk(bytes).ok_or_else(malformed)?;
        match chunk.kind {
            ChunkKind::Change => {
                let (deps, seq) = deps_and_seq(chunk.data).ok_or_else(malformed)?;
                self.take_change(hash, deps, seq, applied);
            }
            ChunkKind::DeflatedChange => {
                let change = automerge::Change::try_from(chunk.bytes)
                    .map_err(|e| Fault::Relay(format!("a malformed change: {e}")))?;
                let deps: Vec<u8> = change.deps().iter().flat_map(|dep| dep.0).collect();
                self.take_change(change.hash(), &deps, change.seq(), applied);
            }
            ChunkKind::Document => {
                let heads = chunk.document_heads().ok_or_else(malformed)?;
                self.take_snapshot(&heads);
            }
            ChunkKind::Bundle => return Err(Fault::Relay("a bundle chunk".into())),
        }
        Ok(chunk.bytes.len())
    }

    fn take_change(&mut self, hash: ChangeHash, deps: &[u8], seq: u64, applied: &mut Vec<u64>) {
        if self.seen.contains_key(&key(&hash)) {
            self.received.duplicates += 1;
            return;
        }
        let mut own = 0;
        for dep in hashes(deps) {
            match self.seen.get(&key(&dep)) {
                Some(below) => own = own.max(*below),
                None if self.has_snapshot => {}
                None => self.received.gaps += 1,
            }
            self.heads.retain(|head| *head != dep);
        }
        self.seen.insert(key(&hash), own);
        let at = self.heads.partition_point(|head| *head < hash);
        self.heads.insert(at, hash);
        self.beyond_shared.push(hash);
        self.received.changes += 1;
        applied.push(seq);
    }

    /// A document chunk covers everything we have but our own changes that the relay lacks, or
    /// brings nothing.
    fn take_snapshot(&mut self, heads: &[ChangeHash]) {
        self.received.snapshots += 1;
        if heads.iter().all(|head| self.seen.contains_key(&key(head))) {
            return;
        }
        self.has_snapshot = true;
        let (acked, seen) = (self.acked as u32, &self.seen);
        self.heads
            .retain(|head| seen.get(&key(head)).is_some_and(|own| *own > acked));
        for head in heads {
            if self.seen.insert(key(head), 0).is_none() {
                self.heads.push(*head);
            }
        }
        self.heads.sort_unstable();
        // True whatever the relay knows: we have everything below these.
        self.shared = heads.to_vec();
        self.shared.sort_unstable();
        self.beyond_shared.clear();
    }

    fn take_relay_heads(&mut self, heads: &[ChangeHash]) {
        if heads.is_empty() {
            // A relay that has nothing was not sent anything that it kept.
            self.sent = 0;
        }
        let own = |head: &ChangeHash| self.seen.get(&key(head)).copied();
        let acked = heads.iter().filter_map(own).max().unwrap_or(0) as usize;
        self.acked = self.acked.max(acked);
        self.sent = self.sent.max(acked);
        if !heads.is_empty() && heads.iter().all(|head| own(head).is_some()) {
            self.shared.clear();
            self.shared.extend_from_slice(heads);
            self.beyond_shared.clear();
            if self.has_snapshot && self.heads.len() > 1 {
                // A change that came twice, the first time inside a snapshot, was taken for a
                // head. Everything but our own news lies below the relay's heads.
                let (acked, seen) = (self.acked as u32, &self.seen);
                self.heads.retain(|head| {
                    heads.contains(head) || seen.get(&key(head)).is_some_and(|own| *own > acked)
                });
            }
        }
        let relay_heads = self.relay_heads.get_or_insert_default();
        relay_heads.clear();
        relay_heads.extend_from_slice(heads);
    }

    /// A sync message with those of our changes.
    fn sync_message(&self, changes: Range<usize>) -> Vec<u8> {
        let own = self.own[self.acked.min(self.own.len())..]
            .iter()
            .map(|change| &change.hash);
        let in_snapshot: &[ChangeHash] = match self.own_snapshot.split_last() {
            // The last is own[0] itself.
            Some((_, rest)) if self.acked == 0 => rest,
            _ => &[],
        };
        let beyond = in_snapshot.iter().chain(&self.beyond_shared).chain(own);
        let bloom = if self.beyond_shared.is_empty() && self.acked == self.own.len() {
            BloomFilter::default()
        } else {
            let beyond: Vec<&ChangeHash> = beyond.collect();
            BloomFilter::from_hashes(beyond.into_iter())
        };
        let have = Some((self.shared.as_slice(), &bloom));
        let changes = &self.own[changes];
        let mut data = encode_sync(Version::V1, &self.heads, &[], have, changes.len());
        data.reserve(
            changes
                .iter()
                .map(|change| change.bytes.len() + 4)
                .sum::<usize>()
                + 3,
        );
        for change in changes {
            push_unsigned(&mut data, change.bytes.len() as u64);
            data.extend_from_slice(&change.bytes);
        }
        data.extend(
            Flags {
                supports_sync_reset: true,
                ..Flags::default()
            }
            .encode(),
        );
        data
    }
}

/// What came from the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A sync message for the document with this index; [`Client::applied`] says what was new.
    Synced(usize),
    /// "Nobody has this document."
    Unavailable(usize),
    /// A presence message for the document with this index.
    Ephemeral(usize),
}

/// Counters of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// WebSocket messages received.
    pub messages_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// WebSocket messages sent.
    pub messages_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
}

/// One connection to a relay, with its documents.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    name: String,
    relay: String,
    relay_storage: Option<String>,
    documents: Vec<Document>,
    index: HashMap<Arc<str>, usize>,
    outbox: VecDeque<Vec<u8>>,
    is_flushed: bool,
    applied: Vec<u64>,
    /// What passed on this connection.
    pub traffic: Traffic,
}

impl Client {
    /// Connects and joins. `name` must be unlike that of every other client of the relay.
    ///
    /// # Errors
    /// When there is no relay, or it refuses, or does not answer in time.
    pub async fn connect(url: &str, name: &str) -> Result<Self, Fault> {
        Self::connect_with(url, name, None).await
    }

    /// Connects as a peer with a storage of this id behind it.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(url: &str, name: &str, storage: Option<&str>) -> Result<Self, Fault> {
        let joining = Box::pin(Self::join(url, name, storage));
        tokio::time::timeout(PATIENCE, joining)
            .await
            .unwrap_or_else(|_| Err(Fault::Silence(PATIENCE, name.to_owned())))
    }

    async fn join(url: &str, name: &str, storage: Option<&str>) -> Result<Self, Fault> {
        let address = url
            .trim_start_matches("ws://")
            .split(['/', '?'])
            .next()
            .unwrap();
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
        let mut client = Self {
            socket,
            name: name.to_owned(),
            relay: String::new(),
            relay_storage: None,
            documents: Vec::new(),
            index: HashMap::new(),
            outbox: VecDeque::new(),
            is_flushed: true,
            applied: Vec::new(),
            traffic: Traffic::default(),
        };
        let metadata = PeerMetadata {
            storage_id: storage.map(Into::into),
            is_ephemeral: storage.is_none(),
            ..PeerMetadata::default()
        };
        let join = Message::Join {
            sender: name,
            metadata,
            speaks_v1: true,
        };
        client.outbox.push_back(protocol::encode(&join));
        client.flush().await?;
        while client.relay.is_empty() {
            match client.socket.next().await {
                Some(Ok(Frame::Binary(frame))) => drop(client.receive(&frame)?),
                Some(Ok(Frame::Close(_))) | None => return Err(Fault::Closed),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
        Ok(client)
    }

    /// The relay's storage id: present if it promises to remember.
    #[must_use]
    pub fn relay_storage(&self) -> Option<&str> {
        self.relay_storage.as_deref()
    }

    /// Takes up a document: asks for it, or announces what is had of it. Its index is returned.
    pub fn open(&mut self, mut document: Document) -> usize {
        document.relay_heads = None;
        document.unavailable = false;
        document.sent = document.acked;
        let at = self.documents.len();
        self.index.insert(Arc::clone(&document.name), at);
        let request = document.heads.is_empty() && document.shared.is_empty();
        self.documents.push(document);
        self.queue(at, 0..0, request);
        at
    }

    /// The document with this index.
    #[must_use]
    pub fn document(&self, at: usize) -> &Document {
        &self.documents[at]
    }

    /// All documents.
    #[must_use]
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// Gives up the connection and keeps the documents, to open them on another.
    #[must_use]
    pub fn into_documents(self) -> Vec<Document> {
        self.documents
    }

    /// Adds a change of our own, and queues it as soon as the relay has spoken of the document.
    pub fn write(&mut self, at: usize, change: Change) {
        let document = &mut self.documents[at];
        document.write(change);
        if document.relay_heads.is_some() {
            self.queue_unsent(at);
        }
    }

    /// Adds many changes of our own that travel together.
    pub fn write_all(&mut self, at: usize, changes: impl IntoIterator<Item = Change>) {
        let document = &mut self.documents[at];
        for change in changes {
            document.write(change);
        }
        if document.relay_heads.is_some() {
            self.queue_unsent(at);
        }
    }

    fn queue_unsent(&mut self, at: usize) {
        loop {
            let document = &mut self.documents[at];
            let (from, mut to, mut bytes) = (document.sent, document.sent, 0);
            while let Some(change) = document.own.get(to) {
                bytes += change.bytes.len();
                if bytes > UPLOAD_BYTES_MAX && to > from {
                    break;
                }
                to += 1;
            }
            if from == to {
                return;
            }
            document.sent = to;
            self.queue(at, from..to, false);
        }
    }

    fn queue(&mut self, at: usize, changes: Range<usize>, request: bool) {
        let document = &self.documents[at];
        let data = document.sync_message(changes);
        let envelope = SyncEnvelope {
            sender: &self.name,
            target: &self.relay,
            document: (&*document.name).into(),
            data: &data,
            request,
        };
        self.outbox
            .push_back(protocol::encode(&Message::Sync(envelope)));
    }

    /// Queues a presence message.
    pub fn broadcast(&mut self, at: usize, count: u64, data: &[u8]) {
        let message = Message::Ephemeral(protocol::Ephemeral {
            sender: &self.name,
            target: &self.relay,
            document: (&*self.documents[at].name).into(),
            count,
            session: &self.name,
            data,
        });
        self.outbox.push_back(protocol::encode(&message));
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// When the connection breaks.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn flush(&mut self) -> Result<(), Fault> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        while !self.outbox.is_empty() {
            ready!(self.socket.poll_ready_unpin(cx))?;
            let frame = self.outbox.pop_front().unwrap();
            self.traffic.messages_out += 1;
            self.traffic.bytes_out += frame.len() as u64;
            self.socket.start_send_unpin(Frame::Binary(frame.into()))?;
            self.is_flushed = false;
        }
        if !self.is_flushed {
            ready!(self.socket.poll_flush_unpin(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// What comes next. Answers that the protocol asks for are sent on the way, at the latest when
    /// there is nothing more to read.
    ///
    /// # Errors
    /// When the connection breaks or the relay breaks the protocol.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Event, Fault> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Fault>> {
        loop {
            match self.socket.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(Frame::Binary(frame)))) => {
                    let event = self.receive(&frame)?;
                    if self.outbox.len() > OUTBOX_FRAMES
                        && let Poll::Ready(Err(fault)) = self.poll_flush(cx)
                    {
                        return Poll::Ready(Err(fault));
                    }
                    if let Some(event) = event {
                        return Poll::Ready(Ok(event));
                    }
                }
                Poll::Ready(Some(Ok(Frame::Close(_))) | None) => {
                    return Poll::Ready(Err(Fault::Closed));
                }
                // The pong that a ping asks for goes with the next flush.
                Poll::Ready(Some(Ok(_))) => self.is_flushed = false,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {
                    return match self.poll_flush(cx) {
                        Poll::Ready(Err(fault)) => Poll::Ready(Err(fault)),
                        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    }

    /// Takes what comes until `done`.
    ///
    /// # Errors
    /// As [`next`](Self::next), and when nothing comes for [`PATIENCE`].
    pub async fn until(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<(), Fault> {
        self.flush().await?;
        while !done(self) {
            self.next_in_time().await?;
        }
        Ok(())
    }

    /// What comes next, within [`PATIENCE`].
    ///
    /// # Errors
    /// As [`next`](Self::next), and when nothing comes.
    pub async fn next_in_time(&mut self) -> Result<Event, Fault> {
        match tokio::time::timeout(PATIENCE, self.next()).await {
            Ok(event) => event,
            Err(_) => Err(Fault::Silence(PATIENCE, self.state())),
        }
    }

    /// The state of those documents that are not in step, for a person to read.
    fn state(&self) -> String {
        let (mut state, mut behind) = (String::new(), 0);
        for document in self
            .documents
            .iter()
            .filter(|document| !document.is_in_step())
        {
            behind += 1;
            if behind <= 3 {
                let _ = write!(
                    state,
                    "; {}: heads {:?}, of the relay {:?}, {} written, {} sent, {} acked, {:?}",
                    document.name,
                    document.heads,
                    document.relay_heads,
                    document.own.len(),
                    document.sent,
                    document.acked,
                    document.received,
                );
            }
        }
        format!("{} with {behind} documents not in step{state}", self.name)
    }

    /// Takes what comes until the relay has acknowledged every own change of the document.
    ///
    /// # Errors
    /// As [`until`](Self::until).
    pub async fn until_acked(&mut self, at: usize) -> Result<(), Fault> {
        self.until(|client| client.document(at).acked() == client.document(at).written())
            .await
    }

    /// The sequence numbers of the changes that the last message brought and were new.
    #[must_use]
    pub fn applied(&self) -> &[u64] {
        &self.applied
    }

    fn receive(&mut self, frame: &[u8]) -> Result<Option<Event>, Fault> {
        self.applied.clear();
        self.traffic.messages_in += 1;
        self.traffic.bytes_in += frame.len() as u64;
        Ok(match protocol::decode(frame)? {
            Message::Peer {
                sender, metadata, ..
            } => {
                sender.clone_into(&mut self.relay);
                self.relay_storage = metadata.storage_id.map(Into::into);
                None
            }
            Message::Error { message, .. } => return Err(Fault::Refused(message.to_owned())),
            Message::Sync(sync) => {
                let at = self.index_of(&sync.document)?;
                self.receive_sync(at, &SyncMessage::decode(sync.data)?)?;
                Some(Event::Synced(at))
            }
            Message::DocUnavailable { document, .. } => {
                let at = self.index_of(&document)?;
                self.documents[at].unavailable = true;
                Some(Event::Unavailable(at))
            }
            Message::Ephemeral(ephemeral) => {
                Some(Event::Ephemeral(self.index_of(&ephemeral.document)?))
            }
            _ => None,
        })
    }

    fn index_of(&self, name: &str) -> Result<usize, Fault> {
        let unknown = || Fault::Relay(format!("a message for {name}, which was never asked for"));
        self.index.get(name).copied().ok_or_else(unknown)
    }

    fn receive_sync(&mut self, at: usize, message: &SyncMessage<'_>) -> Result<(), Fault> {
        let document = &mut self.documents[at];
        let received_before = document.received;
        for mut chunks in message.changes.iter().copied() {
            document.received.chunk_bytes += chunks.len() as u64;
            while !chunks.is_empty() {
                let taken = document.take(chunks, &mut self.applied)?;
                if let Some(kept) = &mut document.kept {
                    kept.extend_from_slice(&chunks[..taken]);
                }
                chunks = &chunks[taken..];
            }
        }
        document.received.messages += 1;
        let before = received_before;
        let now = document.received;
        if now.chunk_bytes > before.chunk_bytes {
            document.received.messages_with_chunks += 1;
        }
        if !document.heads.is_empty() {
            document.unavailable = false;
        }
        document.take_relay_heads(&message.heads);
        if document.sent < document.own.len() {
            self.queue_unsent(at);
        } else if now.changes > before.changes || now.snapshots > before.snapshots {
            self.queue(at, 0..0, false);
        }
        Ok(())
    }
}
