//! The task of one connection: it reads frames and writes what waits, until the connection ends.

mod charged_stream;
mod documents;
mod events;
mod gossip;
mod presence;
mod socket;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reconverge::id::{ConnectionId, PeerId, Space};
use reconverge::session::{Local, Session};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::PollSemaphore;
use tracing::{debug, info, warn};

use self::documents::Documents;
use self::socket::Next;
pub(crate) use self::socket::Socket;
use crate::document::Services;
use crate::limits::memory::{Holder, Memory};
use crate::peers::{Closing, Connection, LEFT_MAX};
use crate::telemetry::silent_peers::{self, SilentPeers};

/// Messages of one connection that may wait in documents' mailboxes. When as many do, the
/// connection is not read until one was processed.
const WAITING_MAX: usize = 256;

/// How long a peer may take to answer when another connection joins under its id. Nobody waits for
/// it, so it is generous: the ping may lie behind a large message on a slow line.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a connection goes on when the relay stops. Documents send nothing any more, but what
/// was sent just before is still answered, and what arrives meanwhile is stored.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) services: Arc<Services>,
    /// How the relay introduces itself.
    pub(crate) local: Local,
    /// What is held for peers.
    pub(crate) memory: Arc<Memory>,
    silent_peers: SilentPeers,
    next: AtomicU64,
}

impl Hub {
    pub(crate) fn new(services: Arc<Services>, local: Local) -> Self {
        Self {
            memory: Arc::new(Memory::new(services.config.held_bytes_max())),
            services,
            local,
            silent_peers: SilentPeers::default(),
            next: AtomicU64::new(1),
        }
    }

    pub(crate) fn new_connection(&self) -> ConnectionId {
        ConnectionId(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Who connected, as far as that is known before it joins.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) id: ConnectionId,
    /// Where it comes from: one that has not joined has no name.
    pub(crate) address: IpAddr,
    pub(crate) space: Space,
    pub(crate) holder: Arc<Holder>,
}

struct ConnectionTask {
    hub: Arc<Hub>,
    id: ConnectionId,
    address: IpAddr,
    space: Space,
    holder: Arc<Holder>,
    session: Session,
    connection: Option<Arc<Connection>>,
    documents: Documents,
    /// It spoke of a document.
    shares: bool,
    /// It sent sync messages in another's name, and the log says so.
    foreign: bool,
    messages: PollSemaphore,
}

/// Serves a WebSocket until it ends.
pub(crate) async fn serve(hub: Arc<Hub>, socket: Box<Socket>, arrival: Arrival) {
    let Arrival {
        id,
        address,
        space,
        holder,
    } = arrival;
    let _connected = hub.services.peers.connect();
    let mut task = ConnectionTask {
        session: Session::new(hub.local.clone()),
        documents: Documents::new(hub.services.clone(), id),
        hub,
        id,
        address,
        space,
        holder,
        connection: None,
        shares: false,
        foreign: false,
        messages: PollSemaphore::new(Arc::new(Semaphore::new(WAITING_MAX))),
    };
    let closing = task.run(socket).await;
    let (code, reason) = (closing.code, closing.reason);
    match task.session.remote() {
        Some(peer) => info!(connection = id.0, %peer, code, reason, "closed"),
        None => debug!(connection = id.0, code, reason, "closed"),
    }
    task.leave().await;
}

impl ConnectionTask {
    async fn run(&mut self, mut socket: Box<Socket>) -> Closing {
        let hub = self.hub.clone();
        let Services {
            config, lifetime, ..
        } = &*hub.services;
        let ping = config.ping_interval;
        let mut heard = Instant::now();
        let mut pings: u32 = 0;
        let (mut stopping, mut gone) = (false, false);
        // Since when an answer is waited for because another connection joined under this id, and
        // what the deadline was before.
        let mut probed: Option<(Instant, Instant)> = None;
        // Both stand outside the loop: entering and leaving their lists takes locks that all
        // connections share.
        let mut stop = pin!(lifetime.stopping());
        let mut deadline = pin!(sleep_until(heard + config.join_timeout));
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
                next = socket.next(outbox, &mut self.messages) => next,
                () = &mut deadline => Next::Deadline,
            };
            let closing = match next {
                Next::Message(message, permit, charge) => {
                    heard = Instant::now();
                    let joined = self.connection.is_some();
                    match self.message(message, permit, charge) {
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
                Next::Deadline if self.documents.has_room_again() => Closing {
                    code: 1013,
                    reason: "there is room again for documents that were refused".into(),
                },
                Next::Deadline => {
                    deadline.as_mut().reset(Instant::now() + ping);
                    socket.ping();
                    pings = pings.saturating_add(1);
                    if pings == silent_peers::PINGS && !self.shares {
                        self.hint_at_silence();
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
                // What comes last is boxed: it would make every connection larger for all its life.
                Some(connection) if joined && !connection.is_ours() => {
                    let settled = Box::pin(socket.settle(outbox)).await;
                    Box::pin(socket.finish(None, settled.then_some(&closing))).await;
                }
                _ => Box::pin(socket.finish(outbox, Some(&closing))).await,
            }
            return closing;
        }
    }

    /// Tells the operator that the peer shares nothing, and why that may be. Our own clients ask
    /// nobody's name.
    fn hint_at_silence(&self) {
        let Some(connection) = &self.connection else {
            return;
        };
        if connection.is_ours() {
            return;
        }
        let Some(others) = self.hub.silent_peers.count(std::time::Instant::now()) else {
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
        self.documents.leave(self.id).await;
        if let Some(connection) = &self.connection {
            self.hub.services.peers.leave(connection);
        }
    }
}
