//! What the shell hands in, and what it is told to do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::fault::Fault;
use super::fold_job::{Folded, Folding};
use super::frame::Frame;
use super::load::{Loaded, Reading};
use crate::id::{ConnectionId, DocumentId, DocumentIdError, PeerId};
use crate::replica::Settling;
use crate::storage::{Batch, DocumentKey, StorageError};

/// Who the client is and whom it syncs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name among peers; one per process.
    pub peer: PeerId,
    /// The id of its storage; empty if it keeps nothing.
    pub storage_id: Arc<str>,
    /// The name of this run, for presence messages.
    pub session: String,
    /// The relays, by the names under which what they acknowledged is stored. A relay keeps its
    /// name across restarts.
    pub relays: Vec<Arc<str>>,
    /// Makes the jitter of this client differ from that of others.
    pub seed: u64,
    /// Most bytes of received changes that are brought into a document's contents at once, if that
    /// takes little; others by [`Output::Settle`]. With `usize::MAX` all are, as always in a page, where
    /// there is one thread.
    pub settle_at_once: usize,
}

impl Config {
    pub(super) fn at_once(&self) -> usize {
        if cfg!(target_family = "wasm") {
            usize::MAX
        } else {
            self.settle_at_once
        }
    }
}

/// A relay's place in [`Config::relays`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(pub usize);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The connection that [`Output::Connect`] asked for is there.
    Connected(ConnectionId),
    /// A binary WebSocket message came.
    Frame(ConnectionId, Bytes),
    /// The answer to a ping came.
    Pong(ConnectionId),
    /// A frame was handed to the socket; the second is what [`Frame::reads`] said of it.
    Sent(ConnectionId, Option<DocumentId>),
    /// A connection ended, or did not come about.
    Closed(ConnectionId, Closed),
    /// There is a network again: try at once.
    NetworkAvailable,
    /// These documents are in the stored outbox; handed in at the start, and when others were put
    /// there by [`Storage::name_relays`](crate::storage::Storage::name_relays).
    Outbox(Vec<DocumentId>),
    /// The answer to [`Output::Load`].
    Loaded(DocumentId, Result<Box<Loaded>, StorageError>),
    /// The answer to [`Output::LoadGraph`].
    Graph(DocumentId, Result<Vec<Bytes>, StorageError>),
    /// The answer to [`Output::Fold`].
    Folded(DocumentId, Result<Folded, StorageError>),
    /// The answer to [`Output::Store`].
    Stored(DocumentId, Result<(), StorageError>),
    /// Time went by.
    Tick,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// By the other side or the network; it is worth another try.
    Lost(Fault),
    /// The relay does not want us, for this reason, and will not another time.
    Refused(Fault),
}

/// What to do.
#[derive(Debug)]
pub enum Output {
    /// Connect to a relay, under this id.
    Connect(RelayId, ConnectionId),
    /// Close a connection; nothing is expected of it any more.
    Disconnect(ConnectionId),
    /// Send a message, after those before it.
    Send(ConnectionId, Frame),
    /// Send a WebSocket ping, or where that cannot be done what [`Engine::ping`](super::Engine::ping) gives.
    Ping(ConnectionId),
    /// Read a document by [`load`](super::load()), and build its contents if so told.
    Load {
        /// The document.
        document: DocumentId,
        /// What the application will want of it.
        contents: Reading,
    },
    /// Read a document's graph by [`load_graph`](super::load_graph()).
    LoadGraph {
        /// The document.
        document: DocumentId,
        /// Its place.
        key: DocumentKey,
        /// How many segments there are.
        segments: u32,
    },
    /// Fold a document's history by [`fold`](super::fold()).
    Fold(DocumentId, Box<Folding>),
    /// Bring a document's contents up to what was received, or unpack what was, by [`Settling::run`], and
    /// hand in what comes of it by [`Engine::settled`](super::Engine::settled). It may take long, and waits for those who use the
    /// document.
    Settle(DocumentId, Box<Settling>),
    /// Commit this.
    Store(Batch),
    /// Committing failed and is tried again: the document's changes are in memory only.
    StoreFailed(DocumentId, StorageError),
    /// Everything of a document is in local storage.
    Flushed(DocumentId),
    /// A document that was searched for is there, or is not.
    Found(DocumentId, Result<(), FindError>),
    /// A document's contents changed.
    Changed(DocumentId),
    /// Changes were taken out of a document, because together with their past they make none. See
    /// [`Engine::quarantined`](super::Engine::quarantined) and [`kept_aside`](super::kept_aside()).
    TakenOut(DocumentId),
    /// A part of a document is damaged in local storage, and stays there. The document begins anew
    /// with what is whole, and relays are asked for what they have of it. See [`Engine::damage`](super::Engine::damage).
    Salvaged(DocumentId),
    /// A document's status changed.
    Status(DocumentId, Status),
    /// Somebody broadcast.
    Ephemeral {
        /// On which document.
        document: DocumentId,
        /// Who.
        sender: PeerId,
        /// What, as it came.
        data: Bytes,
    },
    /// A document exists here that did not: it was made, or searched for and found at a relay. A part of
    /// it may have been in local storage before.
    Added(DocumentId),
    /// A document is removed from local storage.
    Deleted(DocumentId),
    /// The answer to [`Engine::ask_current`](super::Engine::ask_current).
    Current(Asked, Result<(), NotCurrent>),
    /// Nothing until something happens, or until then.
    Idle {
        /// When to hand in [`Input::Tick`].
        wake_at: Option<Duration>,
    },
}

/// What is true of a document's changes, computed from what relays acknowledged and never from a
/// socket being open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Status {
    /// Some relay has everything on disk.
    Saved,
    /// Not everything; a relay is connected, and is being sent it.
    Saving,
    /// Not everything, and no relay is connected: it is kept in local storage only.
    Offline,
    /// Not everything, and it will not be, for this reason.
    Refused(Reason),
}

/// Why changes are not taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reason {
    /// For programs: what a relay gave as the code of its refusal, as listed in
    /// `docs/internals/check.md`, `unknown` if it gave none; or the [code of the
    /// fault](super::FaultKind::code) with which no relay lets us in; or `damaged` or `storage`, if the
    /// document cannot be read from local storage.
    pub code: String,
    /// For people.
    pub text: String,
}

impl Reason {
    /// A reason with this code.
    pub fn new(code: &str, text: impl Into<String>) -> Self {
        let code = if code.is_empty() { "unknown" } else { code };
        Self {
            code: code.to_owned(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saved => f.write_str("saved"),
            Self::Saving => f.write_str("saving"),
            Self::Offline => f.write_str("offline"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

/// Why a document cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// It does not exist, as far as all relays know: it is not stored here, and none of them has it.
    #[error("the document is unavailable")]
    Unavailable,
    /// It is not stored here, and whether it exists is not known: a relay could not be asked, for this
    /// reason.
    #[error("the document is not here, and a relay cannot be asked for it: {0}")]
    Unreachable(Fault),
    /// It did not come in time. The relays that can be reached were asked.
    #[error("the document did not come in time")]
    Late,
    /// Local storage failed. It is tried again whenever the document is asked for.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What a relay sent, or what was stored, gives no document.
    #[error("{0}")]
    Damaged(String),
    /// It was deleted here.
    #[error("the document was deleted")]
    Deleted,
    /// What was asked for is no document's url.
    #[error(transparent)]
    Url(#[from] DocumentIdError),
    /// The client was shut down.
    #[error("the client is shut down")]
    Closed,
}

/// A question that [`Output::Current`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asked(pub u64);

/// Why a document does not become current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCurrent {
    /// No relay can be asked, for this reason.
    Unreachable(Fault),
    /// The document is not open, was deleted, or cannot be used.
    Gone,
}
