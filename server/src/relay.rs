//! The relay as a whole: what all its tasks share, how it starts, how it stops.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reconverge::id::{ConnectionId, DocumentId, PeerId};
use reconverge::native::Committer;
use reconverge::session::Local;
use reconverge::storage::{Storage, StorageError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::access::Authorize;
use crate::config::Config;
use crate::connection::Connection;
use crate::document::{Reminders, Slot};
use crate::documents::Documents;
use crate::fair::{Owner, Turns};
use crate::held::until_let_go;
use crate::http;
use crate::large::Large;
use crate::memory::Memory;
use crate::open::Open;
use crate::sockets::{Limits, Sockets};
use crate::trouble::Trouble;
use crate::unfolded::Unfolded;
use crate::unheard::Unheard;
use crate::unstored::Unstored;
use crate::workshop::{Done, Job, Workshop};

/// Why a relay could not start or stop. The operator must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The address could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The system gives the process too few descriptors for a socket each.
    #[error(
        "the process may have only {descriptors} files and sockets open at a time, and the relay \
         needs {needed}, and one more for each connection: raise its limit (ulimit -n), or have \
         fewer workers in the workshop (--workshop-workers)"
    )]
    Descriptors {
        /// How many it may have.
        descriptors: usize,
        /// The least that it needs.
        needed: usize,
    },
    /// The relay was told to run in a way that it cannot.
    #[error("{0} is 0, or too large")]
    Config(&'static str),
    /// The writer's thread could not be started.
    #[error("cannot start the writer: {0}")]
    Writer(std::io::Error),
    /// The storage does not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What all tasks of a relay share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) local: Local,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) committer: Committer,
    pub(crate) documents: Documents,
    pub(crate) peers: Peers,
    pub(crate) workshop: Workshop,
    /// Turns for taking in what takes long.
    pub(crate) long_work: Turns,
    pub(crate) authorize: Arc<dyn Authorize>,
    /// Every task of this relay.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the relay begins to stop.
    pub(crate) stopping: CancellationToken,
    pub(crate) sockets: Arc<Sockets>,
    /// Whether documents are being served.
    pub(crate) ready: AtomicBool,
    /// What is held for peers.
    pub(crate) memory: Arc<Memory>,
    /// What the documents hold that connections speak of.
    pub(crate) spoken_of: Arc<Memory>,
    /// The documents that are open.
    pub(crate) open: Open,
    /// Large messages that are being sent.
    pub(crate) large: Arc<Large>,
    /// Peers that share nothing.
    pub(crate) unheard: Unheard,
    /// Changes that were unpacked of snapshots.
    pub(crate) unfolded: Unfolded,
    /// Documents with changes to be checked.
    pub(crate) reminders: Reminders,
    pub(crate) trouble: Trouble,
    /// What could not be stored.
    pub(crate) unstored: Unstored,
    next_connection: AtomicU64,
}

impl Shared {
    /// Runs a job in the workshop; `None` if the relay stops before it is done.
    pub(crate) async fn build(&self, owner: Owner, job: Job) -> Option<Done> {
        tokio::select! {
            () = self.stopping.cancelled() => None,
            done = self.workshop.run(owner, job) => Some(done),
        }
    }

    /// The slot of a document.
    pub(crate) fn slot(self: &Arc<Self>, id: DocumentId) -> Arc<Slot> {
        self.documents.open(id, || Slot::new(id, self.clone()))
    }

    /// Lets go of open documents while they hold more than there is room for.
    pub(crate) fn make_room(&self) {
        // Each is looked at twice at most: those that are used are passed over once.
        let mut looks = None;
        while self.open.bytes() > self.spoken_of.free() {
            let looks = looks.get_or_insert_with(|| 2 * self.open.len());
            if *looks == 0 {
                return;
            }
            *looks -= 1;
            let Some(slot) = self.open.first() else {
                return;
            };
            slot.evict_or_pass_over();
            self.documents.forget_unused(&slot);
        }
    }

    pub(crate) fn new_connection(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }
}

/// Connections under one peer id that are asked for a sign of life when another one joins.
const PROBED_MAX: usize = 4;

/// Who is connected, by the name that each peer gives itself. Nothing vouches for these names, so
/// several connections may have one, and none is ended for what another one does.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<HashMap<PeerId, BTreeMap<ConnectionId, Arc<Connection>>>>);

impl Peers {
    fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, BTreeMap<ConnectionId, Arc<Connection>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer joined. Its older connection may be dead without a word, so those of its name are
    /// asked for a sign of life.
    pub(crate) fn enter(&self, connection: &Arc<Connection>) {
        let mut peers = self.peers();
        let same = peers.entry(connection.peer.clone()).or_default();
        for older in same.values().rev().take(PROBED_MAX) {
            older.outbox.probe();
        }
        same.insert(connection.id, connection.clone());
    }

    pub(crate) fn leave(&self, connection: &Connection) {
        let mut peers = self.peers();
        if let Some(same) = peers.get_mut(&connection.peer) {
            same.remove(&connection.id);
            if same.is_empty() {
                peers.remove(&connection.peer);
            }
        }
    }
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
    writer: std::thread::JoinHandle<()>,
}

impl Relay {
    /// Whether a relay could be started so in this process, as far as that can be told before
    /// anything is opened.
    ///
    /// # Errors
    /// What is in the way.
    pub fn check(config: &Config) -> Result<(), RelayError> {
        config.check().map_err(RelayError::Config)?;
        limits(config).map(drop)
    }

    /// Starts a relay on the current multi-threaded tokio runtime. `peer_id` is its name: apps
    /// may expect `storage-server` in it.
    ///
    /// # Errors
    /// When it cannot listen or write.
    pub async fn start(
        config: Config,
        peer_id: PeerId,
        storage: Arc<dyn Storage>,
        authorize: Arc<dyn Authorize>,
    ) -> Result<Self, RelayError> {
        config.check().map_err(RelayError::Config)?;
        let address = config.listen;
        let listen = |source| RelayError::Listen { address, source };
        let bind = async || http::listen(address);
        let in_use = |e: &std::io::Error| e.kind() == std::io::ErrorKind::AddrInUse;
        let listener = until_let_go(&address.to_string(), bind, in_use).await;
        let listener = listener.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let limits = limits(&config)?;
        if limits.connected < config.connections_max {
            info!(
                connections_max = limits.connected,
                connections_per_address_max = limits.connected_per_address,
                "the process may not open more sockets (ulimit -n): fewer connections than configured"
            );
        }
        let (committer, writer) = Committer::start(storage.clone()).map_err(RelayError::Writer)?;
        let shared = Arc::new(Shared {
            local: Local {
                peer: peer_id,
                storage_id: storage.storage_id(),
            },
            memory: Arc::new(Memory::new(config.held_bytes_max())),
            spoken_of: Arc::new(Memory::new(config.document_bytes_max())),
            open: Open::default(),
            large: Arc::new(Large::new(config.sending_bytes_max())),
            unheard: Unheard::default(),
            unfolded: Unfolded::default(),
            reminders: Reminders::default(),
            trouble: Trouble::default(),
            unstored: Unstored::default(),
            workshop: Workshop::new(config.workshop.clone(), config.result_bytes_max()),
            long_work: Turns::new(config.turns()),
            config,
            storage,
            committer,
            documents: Documents::new(),
            peers: Peers::default(),
            authorize,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            sockets: Sockets::new(limits),
            ready: AtomicBool::new(true),
            next_connection: AtomicU64::new(1),
        });
        shared.tasks.spawn(http::accept(shared.clone(), listener));
        shared.tasks.spawn(sweep(shared.clone()));
        shared.tasks.spawn(remind(shared.clone()));
        shared.tasks.spawn(watch_memory(shared.clone()));
        Ok(Self {
            shared,
            address,
            writer,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: accepts nobody any more, commits what was taken in, closes connections with 1012
    /// ("service restart"). No `leave` is sent: stock JavaScript clients drop it, and samod closes
    /// on it.
    pub async fn stop(self) {
        let Self { shared, writer, .. } = self;
        shared.ready.store(false, Ordering::Relaxed);
        shared.stopping.cancel();
        shared.tasks.close();
        let drained = tokio::time::timeout(shared.config.drain_timeout, shared.tasks.wait());
        if drained.await.is_err() {
            warn!(tasks = shared.tasks.len(), "stopped before all tasks ended");
            return;
        }
        // The writer ends when nobody can hand it anything; documents could.
        shared.documents.clear();
        drop(shared);
        let joined = tokio::task::spawn_blocking(|| writer.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            warn!("the writer ended badly");
        }
    }
}

fn limits(config: &Config) -> Result<Limits, RelayError> {
    let limits = Limits::new(config);
    limits.map_err(|few| RelayError::Descriptors {
        descriptors: few.descriptors,
        needed: few.needed,
    })
}

/// Tells documents when to check what is new. As many have a place at a time as keep the workshop
/// busy; many may be due at once, and each is opened for it.
async fn remind(relay: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(relay.workshop.jobs_at_a_time() + 1));
    loop {
        let told = async {
            match relay.reminders.next(Instant::now()) {
                // Nothing that comes meanwhile is due before.
                Err(wait) => tokio::time::sleep(wait.min(relay.config.verify_lag)).await,
                Ok(id) => {
                    let place = places.clone().acquire_owned().await;
                    let place = place.expect("nobody closes it");
                    relay.slot(id).verify(place);
                }
            }
        };
        tokio::select! {
            () = relay.stopping.cancelled() => return,
            () = told => {}
        }
    }
}

/// Sees to it that nobody waits for memory for long.
async fn watch_memory(relay: Arc<Shared>) {
    const OFTEN: Duration = Duration::from_secs(1);
    loop {
        tokio::select! {
            () = relay.stopping.cancelled() => return,
            () = tokio::time::sleep(OFTEN) => {
                relay.memory.lose_patience(Instant::now());
                relay.large.lose_patience();
            }
        }
    }
}

/// Evicts documents that nobody used for a while.
async fn sweep(relay: Arc<Shared>) {
    let idle = relay.config.idle_timeout;
    loop {
        tokio::select! {
            () = relay.stopping.cancelled() => return,
            () = tokio::time::sleep(idle / 2) => {}
        }
        relay.documents.sweep(|slot| slot.is_idle(idle)).await;
    }
}
