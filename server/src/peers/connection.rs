//! A peer that joined, as documents see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reconverge::history::{Refusal, by_code};
use reconverge::id::{ConnectionId, PeerId, Space};
use reconverge::protocol::{
    self, ChangeHash, HeadsOfStorage, Message, ProtocolError, REFUSED_HASHES_MAX, Refused,
    RemoteHeads, SyncEnvelope, code,
};
use tokio::sync::{OwnedSemaphorePermit, SetOnce};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::outbox::{Frame, Outbox};
use super::subscriptions::Subscriptions;
use crate::limits::fair::Owner;
use crate::limits::large_messages::{LARGE_BYTES, Reader, SendPermit};
use crate::limits::memory::{Charge, Holder, SMALL_BYTES};
use crate::remote_heads::Seen;

/// How long what takes long of a connection is taken in when its peer is gone: many send their last
/// edits and go. What is not acknowledged comes again.
pub(crate) const LEFT_MAX: Duration = Duration::from_secs(30);

/// Turns for messages of a peer that is gone that may bring nothing; then none is looked at any more.
/// A few do with good right, like those of one who sends everything again.
const IN_VAIN_MAX: usize = 8;

/// Counts a message in the limits of its connection and of the relay until it is processed.
#[derive(Debug)]
pub(crate) struct MessagePermit {
    _message: OwnedSemaphorePermit,
    bytes: Charge,
}

impl MessagePermit {
    pub(crate) fn new(message: OwnedSemaphorePermit, bytes: Charge) -> Self {
        Self {
            _message: message,
            bytes,
        }
    }

    /// So much more will be held when the message was taken in.
    pub(crate) fn becomes(&mut self, bytes: usize) {
        // Most messages name a head or two.
        if bytes > SMALL_BYTES {
            self.bytes.resize(self.bytes.bytes() + bytes);
        }
    }
}

/// What a peer says of itself when it joins.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) peer: PeerId,
    /// The id of its storage, if it keeps what it syncs.
    pub(crate) storage_id: Option<String>,
    /// The version of our extensions that it understands; 0 if it understands none.
    pub(crate) reconverge: u64,
}

/// A peer that joined, as documents see it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: PeerId,
    since: std::time::Instant,
    /// The id of its storage, if it keeps what it syncs.
    pub(crate) storage_id: Option<String>,
    pub(crate) space: Space,
    pub(crate) outbox: Arc<Outbox>,
    /// Who pays for what is held because of it.
    pub(crate) holder: Arc<Holder>,
    /// The version of our extensions that it understands.
    pub(crate) reconverge: u64,
    pub(crate) relay_peer: PeerId,
    /// The storages of whose heads it wants to be told.
    pub(crate) subscriptions: Subscriptions,
    /// Since when its peer is gone. What it sent before may not be read yet.
    gone: SetOnce<Instant>,
    /// Turns since then that brought nothing.
    in_vain: AtomicUsize,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        space: Space,
        holder: Arc<Holder>,
        relay_peer: PeerId,
        joined: Joined,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer: joined.peer,
            since: std::time::Instant::now(),
            storage_id: joined.storage_id,
            space,
            outbox: Outbox::new(&holder),
            reconverge: joined.reconverge,
            relay_peer,
            subscriptions: Subscriptions::new(&holder),
            holder,
            gone: SetOnce::new(),
            in_vain: AtomicUsize::new(0),
        })
    }

    /// As who it has work done.
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            id: self.id,
            since: Some(self.since),
        }
    }

    /// Its peer is gone.
    pub(crate) fn goes(&self) {
        let _ = self.gone.set(Instant::now());
    }

    /// Waits until its peer is gone; since when it is.
    pub(crate) async fn gone(&self) -> Instant {
        *self.gone.wait().await
    }

    /// Waits until its peer is gone for so long that nothing of it is taken in any more.
    pub(crate) async fn long_gone(&self) {
        sleep_until(self.gone().await + LEFT_MAX).await;
    }

    /// Whether nothing of it is taken in any more: its peer is gone, for long or for good reason.
    pub(crate) fn is_given_up(&self) -> bool {
        let is_up = |since: &Instant| {
            since.elapsed() >= LEFT_MAX || self.in_vain.load(Ordering::Relaxed) >= IN_VAIN_MAX
        };
        self.gone.get().is_some_and(is_up)
    }

    /// A message had a turn, and brought nothing in it.
    pub(crate) fn was_in_vain(&self) {
        // Who is there pays for it with its turns.
        if self.gone.get().is_some() {
            self.in_vain.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it understands our extensions.
    pub(crate) fn is_ours(&self) -> bool {
        self.reconverge > 0
    }

    /// Sends a sync message; a large one with its permit.
    pub(crate) fn sync(&self, document: &str, payload: Bytes, permit: Option<SendPermit>) {
        let envelope = SyncEnvelope {
            sender: self.relay_peer.as_str(),
            target: self.peer.as_str(),
            document: document.into(),
            data: &[],
            request: false,
        };
        let small = payload.len() <= LARGE_BYTES;
        let spare = if small { payload.len() } else { 0 };
        let mut head = envelope.encode_prefix(payload.len(), spare);
        if small {
            head.extend_from_slice(&payload);
            self.outbox.push(Frame::whole(head));
        } else {
            self.outbox.push(Frame {
                head: head.into(),
                payload,
                permit,
            });
        }
    }

    /// Answers that nobody has a document.
    pub(crate) fn unavailable(&self, document: &str) {
        self.outbox
            .answer(protocol::encode(&Message::DocUnavailable {
                sender: self.relay_peer.as_str(),
                target: self.peer.as_str(),
                document: document.into(),
            }));
    }

    /// Tells that changes are not taken, to a peer that understands it.
    pub(crate) fn refused(&self, document: &str, refused: &[(Option<ChangeHash>, Refusal)]) {
        for (first, mut hashes) in by_code(refused) {
            hashes.truncate(REFUSED_HASHES_MAX);
            self.tell_refused(document, first.code(), hashes, &first.to_string());
        }
    }

    fn tell_refused(&self, document: &str, code: &str, hashes: Vec<ChangeHash>, reason: &str) {
        if self.reconverge == 0 {
            return;
        }
        self.outbox
            .answer(protocol::encode(&Message::Refused(Refused {
                sender: self.relay_peer.as_str(),
                target: self.peer.as_str(),
                document: document.into(),
                hashes,
                code,
                reason,
            })));
    }

    /// Tells that a message of a document is not taken, to a peer that understands it. Others hear
    /// nothing: `samod` closes the connection on an `error`, and its other documents with it.
    pub(crate) fn not_taken(&self, document: &str, error: &ProtocolError) {
        self.tell_refused(document, code::LIMIT, Vec::new(), &error.to_string());
    }

    /// Tells the heads of a storage.
    pub(crate) fn remote_heads(&self, document: &str, storage: &str, seen: &Seen) {
        let heads = seen.heads.iter().map(|head| head.as_str().into()).collect();
        self.outbox
            .answer(protocol::encode(&Message::RemoteHeadsChanged(
                RemoteHeads {
                    sender: self.relay_peer.as_str(),
                    target: self.peer.as_str(),
                    document: document.into(),
                    heads: vec![HeadsOfStorage {
                        storage,
                        heads,
                        timestamp_ms: seen.timestamp_ms,
                    }],
                },
            )));
    }

    /// Ends the connection for what it sent.
    pub(crate) fn refuse_frame(&self, error: &ProtocolError) {
        warn!(connection = self.id.0, peer = %self.peer, %error, "bad frame; connection closed");
        self.outbox.answer(protocol::encode(&Message::Error {
            sender: Some(self.relay_peer.as_str()),
            target: Some(self.peer.as_str()),
            message: &error.to_string(),
        }));
        self.outbox.close(1002, "bad frame");
    }
}

impl Reader for Connection {
    fn is_too_slow(&self) {
        // It may be sent several.
        if !self.outbox.is_closing() {
            warn!(peer = %self.peer, "closed: reads a large message slowly while others wait");
            self.outbox.close(1013, "too slow while others wait");
        }
    }
}
