//! One connection: frames in, frames out, and what the relay knows of the peer.

mod metered;
mod socket;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reconverge::history::Refusal;
use reconverge::id::{ConnectionId, DocumentId, PeerId, Space};
use reconverge::protocol::limits::SUBSCRIPTIONS_MAX;
use reconverge::protocol::{
    self, ChangeHash, Ephemeral, HeadsOfStorage, MESSAGE_BYTES_MAX, Message, ProtocolError,
    REFUSED_HASHES_MAX, Refused, RemoteHeads, SyncEnvelope, named_heads,
};
use reconverge::session::{Event, Session};
use tokio::sync::{OwnedSemaphorePermit, SetOnce};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite;
use tokio_util::sync::PollSemaphore;
use tracing::{debug, info, trace, warn};

use crate::document::{Incoming, Input, Slot, now_ms};
use crate::fair::Owner;
use crate::large::{LARGE_BYTES, Place};
use crate::memory::{Charge, Holder, SMALL_BYTES};
use crate::outbox::{Closing, Frame, Outbox};
use crate::relay::Shared;
use crate::remote_heads::Seen;
use crate::unheard;

use socket::Next;
pub(crate) use socket::Socket;

/// Messages of one connection that may wait in documents' mailboxes. When as many do, the
/// connection is not read until one was processed.
const WAITING_MAX: usize = 256;

/// How long a peer may take to answer when another connection joins under its id. Nobody waits for
/// it, so it is generous: the ping may lie behind a large message on a slow line.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a connection goes on when the relay stops. Documents send nothing any more, but what
/// was sent just before is still answered, and what arrives meanwhile is stored.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// How long what takes long of a connection is taken in when its peer is gone: many send their last
/// edits and go. What is not acknowledged comes again.
const LEFT_MAX: Duration = Duration::from_secs(30);

/// Turns for messages of a peer that is gone that may bring nothing; then none is looked at any more.
/// A few do with good right, like those of one who sends everything again.
const IN_VAIN_MAX: usize = 8;

/// Larger payloads of presence are shared between those who get them.
const LARGE_PRESENCE_BYTES: usize = 4 * 1024;

/// What is remembered of a document for a connection that speaks of it, and of the document itself,
/// while nothing comes (measured: 0.7 KB).
pub(crate) const SPOKEN_OF_BYTES: usize = 704;

/// What a head that a peer names holds, if it is not known here: it is remembered that the peer has it
/// and was asked for it.
const NAMED_BYTES: usize = 4 * size_of::<ChangeHash>();

/// Documents that a connection which ended leaves in one turn.
const LEFT_AT_A_TIME: usize = 256;

/// Documents whose storages a peer is told of in one turn.
const REPLAYED_AT_A_TIME: usize = 256;

/// Holds a message's place in the limits of its connection and of the relay until it is processed.
#[derive(Debug)]
pub(crate) struct Permit {
    _message: OwnedSemaphorePermit,
    bytes: Charge,
}

impl Permit {
    /// So much more will be held when the message was taken in.
    fn becomes(&mut self, bytes: usize) {
        // Most messages name a head or two.
        if bytes > SMALL_BYTES {
            self.bytes.resize(self.bytes.bytes() + bytes);
        }
    }
}

/// The storages of whose heads a peer wants to be told.
#[derive(Debug)]
struct Subscriptions {
    storages: HashSet<String>,
    charge: Charge,
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
    reconverge: u64,
    relay_peer: PeerId,
    subscribed: AtomicBool,
    subscriptions: Mutex<Subscriptions>,
    /// The storages that it subscribed to and was not told of, while it is being told of some.
    replaying: Mutex<Option<HashSet<String>>>,
    /// Since when its peer is gone. What it sent before may not be read yet.
    gone: SetOnce<Instant>,
    /// Turns since then that brought nothing.
    in_vain: AtomicUsize,
}

impl Connection {
    /// As who it has work done.
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            id: self.id,
            since: Some(self.since),
        }
    }

    /// Its peer is gone.
    fn goes(&self) {
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

    /// Sends a sync message; a large one with its place among the large ones.
    pub(crate) fn sync(&self, document: &str, payload: Bytes, place: Option<Place>) {
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
                place,
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
        let Some((_, reason)) = refused.first().filter(|_| self.reconverge > 0) else {
            return;
        };
        let hashes = refused.iter().filter_map(|(hash, _)| *hash);
        self.outbox
            .answer(protocol::encode(&Message::Refused(Refused {
                sender: self.relay_peer.as_str(),
                target: self.peer.as_str(),
                document: document.into(),
                hashes: hashes.take(REFUSED_HASHES_MAX).collect(),
                reason: &reason.to_string(),
            })));
    }

    /// Tells that a message of a document is not taken, to a peer that understands it. Others hear
    /// nothing: `samod` closes the connection on an `error`, and its other documents with it.
    pub(crate) fn not_taken(&self, document: &str, error: &ProtocolError) {
        if self.reconverge == 0 {
            return;
        }
        self.outbox
            .answer(protocol::encode(&Message::Refused(Refused {
                sender: self.relay_peer.as_str(),
                target: self.peer.as_str(),
                document: document.into(),
                hashes: Vec::new(),
                reason: &error.to_string(),
            })));
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

    /// What is to be told next; `None` if nothing is, and then nobody does it any more.
    fn next_replay(&self) -> Option<Arc<[String]>> {
        let mut replaying = self
            .replaying
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let storages = std::mem::take(replaying.as_mut()?);
        if storages.is_empty() {
            *replaying = None;
            return None;
        }
        Some(storages.into_iter().collect())
    }

    pub(crate) fn subscribes_to(&self, storage: &str) -> bool {
        self.subscribed.load(Ordering::Relaxed)
            && self
                .subscriptions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .storages
                .contains(storage)
    }
}

/// What the task of a connection owns.
pub(crate) struct Peer {
    relay: Arc<Shared>,
    id: ConnectionId,
    /// Where it comes from: one that has not joined has no name.
    address: IpAddr,
    space: Space,
    session: Session,
    connection: Option<Arc<Connection>>,
    holder: Arc<Holder>,
    documents: HashMap<Box<str>, Arc<Slot>>,
    /// What is remembered of those.
    spoken_of: Charge,
    /// It spoke of a document.
    shares: bool,
    /// How often a document was one too many.
    refused_documents: usize,
    /// It sent sync messages in another's name, and the log says so.
    foreign: bool,
    places: PollSemaphore,
}

/// Serves a WebSocket until it ends.
pub(crate) async fn serve(
    relay: Arc<Shared>,
    socket: Socket,
    holder: Arc<Holder>,
    id: ConnectionId,
    address: IpAddr,
    space: Space,
) {
    let places = Arc::new(tokio::sync::Semaphore::new(WAITING_MAX));
    let mut peer = Peer {
        session: Session::new(relay.local.clone()),
        spoken_of: relay.spoken_of.holder(id).charge(0),
        relay,
        id,
        address,
        space,
        connection: None,
        documents: HashMap::new(),
        holder,
        shares: false,
        refused_documents: 0,
        foreign: false,
        places: PollSemaphore::new(places),
    };
    let closing = peer.run(socket).await;
    let (code, reason) = (closing.code, closing.reason);
    match peer.session.remote() {
        Some(peer) => info!(connection = id.0, %peer, code, reason, "closed"),
        None => debug!(connection = id.0, code, reason, "closed"),
    }
    peer.leave().await;
}

impl Peer {
    async fn run(&mut self, mut socket: Socket) -> Closing {
        let ping = self.relay.config.ping_interval;
        let mut heard = Instant::now();
        let mut pings: u32 = 0;
        let (mut stopping, mut gone) = (false, false);
        // Since when an answer is waited for because another connection joined under this id, and
        // what the deadline was before.
        let mut probed: Option<(Instant, Instant)> = None;
        let relay = self.relay.clone();
        // Both stand outside the loop: entering and leaving their lists takes locks that all
        // connections share.
        let mut stop = pin!(relay.stopping.cancelled());
        let mut deadline = pin!(sleep_until(heard + relay.config.join_timeout));
        loop {
            let outbox = self
                .connection
                .as_ref()
                .map(|connection| &connection.outbox);
            let next = tokio::select! {
                biased;
                () = &mut stop, if !stopping => {
                    stopping = true;
                    deadline.as_mut().reset(Instant::now() + LAST_ANSWERS);
                    continue;
                }
                next = socket.next(outbox, &mut self.places) => next,
                () = &mut deadline => Next::Deadline,
            };
            let closing = match next {
                Next::Message(message, place, charge) => {
                    heard = Instant::now();
                    let joined = self.connection.is_some();
                    match self.message(message, place, charge) {
                        Ok(()) if !joined && self.connection.is_some() && !stopping && !gone => {
                            deadline.as_mut().reset(heard + ping);
                            continue;
                        }
                        Ok(()) => continue,
                        Err(closing) => closing,
                    }
                }
                Next::Deadline if stopping => Closing {
                    code: 1012,
                    reason: "service restart".into(),
                },
                Next::Deadline if gone => return Closing::unread(),
                Next::Deadline if self.connection.is_none() => Closing {
                    code: 1008,
                    reason: "no join in time".into(),
                },
                Next::Deadline if let Some((since, due)) = probed.take() => {
                    let answered = heard.max(socket.read_at()) > since;
                    if !answered && !socket.is_writing() && !socket.is_held_up() {
                        let peer = self.session.remote().map(PeerId::as_str);
                        info!(connection = self.id.0, peer, "replaced by a new connection");
                        Closing {
                            code: 4000,
                            reason: "replaced by a new connection of the same peer".into(),
                        }
                    } else {
                        deadline.as_mut().reset(due);
                        continue;
                    }
                }
                Next::Probe => {
                    // Not more often than once in the time for an answer, whoever joins. While it
                    // is being written to, a ping would only wait, and other limits end it.
                    if probed.is_none() && !stopping && !gone && !socket.is_writing() {
                        let now = Instant::now();
                        probed = Some((now, deadline.deadline()));
                        deadline.as_mut().reset(now + ANSWER.min(ping));
                        socket.ping();
                    }
                    continue;
                }
                Next::Deadline if socket.is_writing() => {
                    heard = Instant::now();
                    deadline.as_mut().reset(heard + ping);
                    continue;
                }
                Next::Deadline if heard.max(socket.read_at()).elapsed() > ping * 2 => Closing {
                    code: 1001,
                    reason: "no answer to pings".into(),
                },
                Next::Deadline if self.may_speak_of_more() => Closing {
                    code: 1013,
                    reason: "there is room again for documents that were refused".into(),
                },
                Next::Deadline => {
                    deadline.as_mut().reset(Instant::now() + ping);
                    socket.ping();
                    pings = pings.saturating_add(1);
                    if pings == unheard::PINGS && !self.shares {
                        self.unheard();
                    }
                    continue;
                }
                // What it sent before is read, but not for ever.
                Next::Gone => {
                    let Some(connection) = &self.connection else {
                        return Closing::unread();
                    };
                    gone = true;
                    connection.goes();
                    if !stopping {
                        deadline.as_mut().reset(Instant::now() + LEFT_MAX);
                    }
                    continue;
                }
                Next::Closing(closing) => closing,
                Next::Broken(closing) => {
                    let peer = self.session.remote().map(PeerId::as_str);
                    warn!(
                        connection = self.id.0,
                        peer,
                        address = %self.address,
                        error = closing.reason,
                        "bad frame; connection closed"
                    );
                    closing
                }
                Next::TooLarge { bytes, max } => self.too_large(bytes, max),
                Next::Ended(reason) => return Closing { code: 1006, reason },
            };
            let outbox = self
                .connection
                .as_ref()
                .map(|connection| &connection.outbox);
            let joined = self.session.remote().is_some();
            match &self.connection {
                // A client that is not ours may not stand a close frame behind a sync message. If it
                // does not read in time, it is sent none.
                Some(connection) if joined && !connection.is_ours() => {
                    let settled = socket.settle(outbox).await;
                    socket.finish(None, settled.then_some(&closing)).await;
                }
                _ => socket.finish(outbox, Some(&closing)).await,
            }
            return closing;
        }
    }

    /// Takes in one WebSocket message.
    fn message(
        &mut self,
        message: tungstenite::Message,
        place: OwnedSemaphorePermit,
        charge: Charge,
    ) -> Result<(), Closing> {
        let frame = match message {
            tungstenite::Message::Binary(frame) => frame,
            tungstenite::Message::Text(_) => {
                return Err(self.bad_frame(&ProtocolError::Unexpected("a text message")));
            }
            // Pongs count as a sign of life, pings were answered.
            _ => return Ok(()),
        };
        let permit = Permit {
            _message: place,
            bytes: charge,
        };
        match self.session.handle(&frame) {
            Ok(event) => self.event(&frame, event, permit),
            Err(error) => Err(self.bad_frame(&error)),
        }
    }

    /// Ends the connection for a message that the memory has no room for, or that nobody may send.
    fn too_large(&self, bytes: usize, max: usize) -> Closing {
        let peer = self.session.remote().map(PeerId::as_str);
        let what = match max < MESSAGE_BYTES_MAX {
            true => "a quarter of the memory, which one may have; see --memory-mib",
            false => "any may be",
        };
        warn!(
            connection = self.id.0,
            peer,
            address = %self.address,
            bytes,
            max,
            "a message is larger than {what}; connection closed, and its client will try again"
        );
        Closing {
            code: 1009,
            reason: format!("a message of {bytes} bytes; the relay takes {max}"),
        }
    }

    fn bad_frame(&mut self, error: &ProtocolError) -> Closing {
        let farewell = self.session.farewell(error);
        let peer = self.session.remote().map(PeerId::as_str);
        warn!(connection = self.id.0, peer, address = %self.address, %error, "bad frame; connection closed");
        let closing = Closing {
            code: 1002,
            reason: "bad frame".into(),
        };
        match &self.connection {
            Some(connection) => connection.outbox.answer(farewell),
            None => {
                // It has no outbox yet; one is made to carry the farewell.
                let connection = self.joined(PeerId::new("-").expect("not empty"), None, 0);
                connection.outbox.answer(farewell);
                self.connection = Some(connection);
            }
        }
        closing
    }

    fn joined(&self, peer: PeerId, storage_id: Option<String>, reconverge: u64) -> Arc<Connection> {
        Arc::new(Connection {
            id: self.id,
            peer,
            since: std::time::Instant::now(),
            storage_id,
            space: self.space.clone(),
            outbox: Outbox::new(&self.holder),
            holder: self.holder.clone(),
            reconverge,
            relay_peer: self.relay.local.peer.clone(),
            subscribed: AtomicBool::new(false),
            subscriptions: Mutex::new(Subscriptions {
                storages: HashSet::new(),
                charge: self.holder.charge(0),
            }),
            replaying: Mutex::default(),
            gone: SetOnce::new(),
            in_vain: AtomicUsize::new(0),
        })
    }

    fn event(
        &mut self,
        frame: &Bytes,
        event: Event<'_>,
        mut permit: Permit,
    ) -> Result<(), Closing> {
        let connection = match (&self.connection, event) {
            (
                None,
                Event::Joined {
                    peer,
                    storage_id,
                    reconverge,
                    reply,
                },
            ) => {
                info!(connection = self.id.0, %peer, space = self.space.as_str(), "joined");
                let connection = self.joined(peer, storage_id, reconverge);
                connection.outbox.answer(reply);
                self.relay.peers.enter(&connection);
                self.connection = Some(connection);
                return Ok(());
            }
            (Some(connection), event) => (connection.clone(), event),
            (None, _) => return Ok(()),
        };
        match connection {
            (from, Event::Sync(sync)) => {
                self.shares = true;
                let data = frame.slice_ref(sync.data);
                permit.becomes(named_heads(&data) * NAMED_BYTES);
                let Some(slot) = self.slot(&sync.document)? else {
                    self.refuse_document(&from, &sync);
                    return Ok(());
                };
                slot.push(Input::Message(Arc::new(Incoming {
                    from,
                    data,
                    _permit: permit,
                })));
            }
            (from, Event::Ephemeral(ephemeral)) => self.broadcast(&from, frame, &ephemeral),
            (from, Event::RemoteSubscription { add, remove }) => {
                self.subscribe(&from, &add, &remove);
            }
            (from, Event::RemoteHeads(remote)) => {
                // Only for documents that it syncs; of others it has nothing to tell.
                if let Some(slot) = self.documents.get(&*remote.document) {
                    let now = now_ms();
                    let heard = |of: HeadsOfStorage<'_>| {
                        Some((of.storage.to_owned(), Seen::heard(of, now)?))
                    };
                    let heads: Vec<_> = remote.heads.into_iter().filter_map(heard).collect();
                    let weights = heads.iter().map(|(storage, seen)| seen.weight(storage));
                    permit.becomes(weights.sum());
                    slot.push(Input::RemoteHeads {
                        from: from.id,
                        heads,
                        _permit: permit,
                    });
                }
            }
            (from, Event::Ping { reply }) => from.outbox.answer(reply),
            (_, Event::Left) => {
                return Err(Closing {
                    code: 1000,
                    reason: "left".into(),
                });
            }
            (from, Event::Foreign { sender }) => self.foreign(&from, sender),
            (_, Event::Ignored(why)) => trace!(connection = self.id.0, why, "ignored"),
            (_, Event::Joined { .. } | Event::Unavailable) => {}
        }
        Ok(())
    }

    /// A sync message in another's name is dropped; the log says so once.
    fn foreign(&mut self, from: &Connection, sender: &str) {
        if !std::mem::replace(&mut self.foreign, true) {
            warn!(connection = self.id.0, peer = %from.peer, sender,
                "a sync message in another peer's name is dropped, and so are further ones; a client \
                 must send under the name that it joined with");
        }
    }

    /// The slot of a document; `None` if the connection speaks of too many others.
    fn slot(&mut self, document: &str) -> Result<Option<Arc<Slot>>, Closing> {
        if let Some(slot) = self.documents.get(document) {
            return Ok(Some(slot.clone()));
        }
        let peer = self.session.remote().map(PeerId::as_str);
        let id: DocumentId = document.parse().map_err(|error| {
            warn!(connection = self.id.0, peer, %error, "bad document id; connection closed");
            Closing {
                code: 1002,
                reason: "bad document id".into(),
            }
        })?;
        let len = self.documents.len();
        if len >= self.relay.config.documents_max || !self.spoken_of.holder().has_room() {
            return Ok(None);
        }
        self.spoken_of.resize((len + 1) * SPOKEN_OF_BYTES);
        let slot = self.relay.slot(id);
        self.documents.insert(document.into(), slot.clone());
        Ok(Some(slot))
    }

    /// Refuses one document more than a connection may speak of. The others go on.
    fn refuse_document(&mut self, from: &Connection, sync: &SyncEnvelope<'_>) {
        let max = self.documents.len();
        let (what, option) = match max >= self.relay.config.documents_max {
            true => ("documents of one connection", ""),
            false => (
                "documents that the relay has memory for",
                " (see --memory-mib)",
            ),
        };
        self.refused_documents += 1;
        if self.refused_documents == 1 {
            warn!(connection = self.id.0, peer = %from.peer, max,
                "too many {what}{option}; further ones are refused");
        }
        let error = ProtocolError::Limit {
            what,
            found: max + 1,
            max,
        };
        from.not_taken(&sync.document, &error);
        if sync.request {
            // Who asks gets an answer, or it would wait for one.
            from.unavailable(&sync.document);
        }
    }

    /// Whether there is room by now for documents that were refused. Their peer knows nothing of that,
    /// and speaks of them again when it comes back.
    fn may_speak_of_more(&self) -> bool {
        let left = self.relay.config.documents_max - self.documents.len();
        let more = self.refused_documents.min(left);
        more > 0 && self.spoken_of.holder().has_room_for(more * SPOKEN_OF_BYTES)
    }

    /// Passes presence on. One task does this for all documents of the sender, so what it sends
    /// arrives in its order.
    fn broadcast(&self, from: &Connection, frame: &Bytes, ephemeral: &Ephemeral<'_>) {
        let Some(slot) = self.documents.get(&*ephemeral.document) else {
            return;
        };
        // What is large is in memory once, however many it goes to.
        let shared = ephemeral.data.len() > LARGE_PRESENCE_BYTES;
        let payload = match shared {
            true => frame.slice_ref(ephemeral.data),
            false => Bytes::new(),
        };
        // Nor to another connection of the same name: a stock client passes on what it did not send
        // itself, and what it passes on in its own name would go round without end.
        let others = |to: &&Arc<Connection>| to.id != from.id && to.peer != from.peer;
        for to in slot.audience().iter().filter(others) {
            let ephemeral = Ephemeral {
                target: to.peer.as_str(),
                ..ephemeral.clone()
            };
            let head = match shared {
                true => ephemeral.encode_prefix(),
                false => protocol::encode(&Message::Ephemeral(ephemeral)),
            };
            to.outbox.present(Frame {
                head: head.into(),
                payload: payload.clone(),
                place: None,
            });
        }
    }

    fn subscribe(&self, from: &Arc<Connection>, add: &[&str], remove: &[&str]) {
        let added: Vec<String> = {
            let mut subscriptions = from
                .subscriptions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let Subscriptions {
                storages: all,
                charge,
            } = &mut *subscriptions;
            for storage in remove {
                all.remove(*storage);
            }
            let room = SUBSCRIPTIONS_MAX.saturating_sub(all.len());
            let new: HashSet<&str> = add
                .iter()
                .copied()
                .filter(|storage| !all.contains(*storage))
                .take(room)
                .collect();
            all.extend(new.iter().map(ToString::to_string));
            from.subscribed.store(!all.is_empty(), Ordering::Relaxed);
            let ids: usize = all.iter().map(String::len).sum();
            charge.resize(ids + all.capacity() * 2 * size_of::<String>());
            new.into_iter().map(ToOwned::to_owned).collect()
        };
        if !added.is_empty() && !self.documents.is_empty() {
            self.replay(from, added);
        }
    }

    /// Tells of all its documents what these storages were last seen with: one after the other, in
    /// turn with others who cause work. What is subscribed to meanwhile comes in the next round.
    fn replay(&self, to: &Arc<Connection>, added: Vec<String>) {
        let mut replaying = to.replaying.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = replaying.is_some();
        let pending = replaying.get_or_insert_default();
        pending.extend(added);
        if pending.len() > SUBSCRIPTIONS_MAX {
            // It has taken some back, of which it need not be told.
            pending.retain(|storage| to.subscribes_to(storage));
        }
        if runs {
            return;
        }
        drop(replaying);
        let slots: Vec<_> = self.documents.values().cloned().collect();
        let (relay, to) = (self.relay.clone(), to.clone());
        relay.clone().tasks.spawn(async move {
            while let Some(storages) = to.next_replay() {
                for slots in slots.chunks(REPLAYED_AT_A_TIME) {
                    if relay.stopping.is_cancelled() || to.outbox.is_closing() {
                        return;
                    }
                    let _turn = relay.long_work.take(to.owner(), Duration::ZERO).await;
                    for slot in slots {
                        slot.replay(&to, &storages);
                    }
                }
            }
        });
    }

    /// Tells the operator that the peer shares nothing, and why that may be. Our own clients ask
    /// nobody's name.
    fn unheard(&self) {
        let Some(connection) = &self.connection else {
            return;
        };
        if connection.reconverge > 0 {
            return;
        }
        let Some(others) = self.relay.unheard.count(std::time::Instant::now()) else {
            return;
        };
        warn!(
            connection = self.id.0,
            peer = %connection.peer,
            own = %connection.relay_peer,
            others,
            "a peer joined and has neither shared nor asked for a document since; that is right if \
             its app has opened none, but some apps share only with servers of a certain name, \
             mostly one that includes \"storage-server\" (see --peer-id)"
        );
    }

    async fn leave(&self) {
        if let Some(connection) = &self.connection {
            connection.goes();
        }
        for (at, slot) in self.documents.values().enumerate() {
            slot.leave(self.id);
            if at % LEFT_AT_A_TIME == LEFT_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
        }
        if let Some(connection) = &self.connection {
            self.relay.peers.leave(connection);
        }
    }
}
