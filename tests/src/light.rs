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

mod change;
mod document;
mod fault;

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::future::poll_fn;
use futures::{SinkExt, StreamExt};
use reconverge::protocol::{self, Message, PeerMetadata, SyncEnvelope, SyncMessage};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub use self::change::{Change, split_changes};
pub use self::document::{Document, Received, UPLOAD_BYTES_MAX};
pub use self::fault::Fault;
use crate::socket::address_of;

/// Largest WebSocket message and frame in bytes, as in the stock server.
const MESSAGE_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Read buffer of one connection in bytes; the library's own 128 KiB times thousands is too much.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// How many frames may wait while there is more to read.
const OUTBOX_FRAMES: usize = 32;

/// How long any one step with a relay may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

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
    answers_late: bool,
    answered: Option<Instant>,
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
        let metadata = PeerMetadata {
            storage_id: storage.map(Into::into),
            is_ephemeral: storage.is_none(),
            ..PeerMetadata::default()
        };
        Self::connect_as(url, name, metadata).await
    }

    /// Connects as a client of ours, which understands our extensions, and acknowledges at most twice a
    /// second what it has no changes to send with. (Ours acknowledges the last of them, too.)
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_ours(url: &str, name: &str) -> Result<Self, Fault> {
        let metadata = PeerMetadata {
            is_ephemeral: true,
            reconverge: protocol::EXTENSIONS,
            ..PeerMetadata::default()
        };
        let mut client = Self::connect_as(url, name, metadata).await?;
        client.answers_late = true;
        Ok(client)
    }

    fn answers_now(&mut self) -> bool {
        let now = Instant::now();
        let is_early = |at: Instant| now - at < Duration::from_millis(500);
        if self.answers_late && self.answered.is_some_and(is_early) {
            return false;
        }
        self.answered = Some(now);
        true
    }

    async fn connect_as(url: &str, name: &str, metadata: PeerMetadata<'_>) -> Result<Self, Fault> {
        let joining = Box::pin(Self::join(url, name, metadata));
        tokio::time::timeout(PATIENCE, joining)
            .await
            .unwrap_or_else(|_| Err(Fault::Silence(PATIENCE, name.to_owned())))
    }

    async fn join(url: &str, name: &str, metadata: PeerMetadata<'_>) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address_of(url)).await?;
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
            answers_late: false,
            answered: None,
            traffic: Traffic::default(),
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
        let request = document.begin();
        let at = self.documents.len();
        self.index.insert(Arc::clone(&document.name), at);
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
        if document.relay_heads().is_some() {
            self.queue_unsent(at);
        }
    }

    /// Adds many changes of our own that travel together.
    pub fn write_all(&mut self, at: usize, changes: impl IntoIterator<Item = Change>) {
        let document = &mut self.documents[at];
        for change in changes {
            document.write(change);
        }
        if document.relay_heads().is_some() {
            self.queue_unsent(at);
        }
    }

    fn queue_unsent(&mut self, at: usize) {
        while let Some(changes) = self.documents[at].next_unsent() {
            self.queue(at, changes, false);
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
                let _ = write!(state, "; {}", document.state());
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
                self.documents[at].take_unavailable();
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
        let news = document.receive(message, &mut self.applied)?;
        if document.has_unsent() {
            self.queue_unsent(at);
        } else if news && self.answers_now() {
            self.queue(at, 0..0, false);
        }
        Ok(())
    }
}
