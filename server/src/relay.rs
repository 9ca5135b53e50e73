//! The relay as a whole: how it starts, and how it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reconverge::id::PeerId;
use reconverge::native::Committer;
use reconverge::session::Local;
use reconverge::storage::{Storage, StorageError};
use tracing::{info, warn};

use crate::access::Authorize;
use crate::config::Config;
use crate::connection::Hub;
use crate::document::{Services, registry, reminders};
use crate::entrance::sockets::Limits;
use crate::entrance::{Entrance, listener};
use crate::lifetime::Lifetime;
use crate::takeover::until_let_go;

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

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    entrance: Arc<Entrance>,
    services: Arc<Services>,
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
        let bind = async || listener::listen(address);
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
        let local = Local {
            peer: peer_id,
            storage_id: storage.storage_id(),
        };
        let lifetime = Lifetime::default();
        let services = Services::new(config, lifetime.clone(), storage, committer, authorize);
        let services = Arc::new(services);
        let hub = Arc::new(Hub::new(services.clone(), local));
        let entrance = Arc::new(Entrance::new(hub.clone(), limits));
        lifetime.spawn(listener::accept(entrance.clone(), listener));
        lifetime.spawn(registry::sweep(services.clone()));
        lifetime.spawn(reminders::remind(services.clone()));
        lifetime.spawn(watch_memory(hub));
        Ok(Self {
            entrance,
            services,
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
        let Self {
            entrance,
            services,
            writer,
            ..
        } = self;
        entrance.is_stopping();
        let tasks = services.lifetime.stop(services.config.drain_timeout).await;
        if tasks > 0 {
            warn!(tasks, "stopped before all tasks ended");
            return;
        }
        // The writer ends when nobody can hand it anything; documents could.
        services.documents.clear();
        drop((entrance, services));
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

/// Sees to it that nobody waits for memory for long, and that none is kept for nothing.
async fn watch_memory(hub: Arc<Hub>) {
    const OFTEN: Duration = Duration::from_secs(1);
    while hub.services.lifetime.sleep(OFTEN).await {
        hub.memory.lose_patience(Instant::now());
        hub.services.large.lose_patience();
        hub.services.workshop.end_idle(Instant::now());
    }
}
