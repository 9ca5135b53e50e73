//! What comes to a document.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reconverge::id::ConnectionId;
use tokio::sync::OwnedSemaphorePermit;

use super::building::BuildResult;
use crate::limits::fair::Turn;
use crate::limits::wait_queue::Invitation;
use crate::peers::{Connection, MessagePermit};
use crate::remote_heads::Seen;

/// What comes to a document.
pub(crate) enum Input {
    /// A sync message.
    Message(Arc<Incoming>),
    /// Heads that a peer heard of.
    RemoteHeads {
        from: ConnectionId,
        heads: Vec<(String, Seen)>,
        _permit: MessagePermit,
    },
    /// A peer wants to hear of these storages' heads.
    Replay {
        to: Arc<Connection>,
        storages: Arc<[String]>,
    },
    /// A connection ended.
    Leave(ConnectionId),
    /// The peer of one whose upload was being unpacked is gone.
    Gone(ConnectionId),
    /// There is room for this document where there was none.
    Room(Arc<Invitation>),
    /// A peer's request waited for so long.
    Grace(ConnectionId, Duration),
    /// A message that takes long has a turn, or its peer is gone for too long.
    Part {
        from: ConnectionId,
        _turn: Option<Turn>,
    },
    /// The workshop is done.
    Built(Box<BuildResult>),
    /// Changes were stored a while ago and are not checked yet.
    Verify(Arc<OwnedSemaphorePermit>),
    /// Storage failed a while ago.
    Retry,
    /// The same, and what was to be stored is to be tried again.
    Store,
}

impl Input {
    /// Whether it is taken in without the history.
    pub(super) fn needs_nothing(&self) -> bool {
        matches!(
            self,
            Self::Leave(_) | Self::Gone(_) | Self::RemoteHeads { .. } | Self::Replay { .. }
        )
    }
}

/// A sync message, and the permit that bounds how many of them wait.
pub(crate) struct Incoming {
    pub(crate) from: Arc<Connection>,
    pub(crate) data: Bytes,
    pub(crate) _permit: MessagePermit,
}
