//! What an operator may choose.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use reconverge::history::limits::CHANGE_BYTES_MAX;
use reconverge::protocol::MESSAGE_BYTES_MAX;

use crate::workshop::WorkshopConfig;

/// How a relay runs. [`Config::default`] suits tests: loopback, any free port.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Most connections at a time; others are answered 503. There are fewer if the process may not
    /// open as many files.
    pub connections_max: usize,
    /// Most of them from one IPv4 address, or one /64 of IPv6; half of all, if it is not said.
    pub connections_per_address_max: Option<usize>,
    /// How long a socket may live that does not become a WebSocket.
    pub upgrade_timeout: Duration,
    /// Most documents that one connection may speak of; further ones are refused, each by itself.
    pub documents_max: usize,
    /// How often a connection is pinged. One that was silent for two pings is closed.
    pub ping_interval: Duration,
    /// How long a new connection may take to join.
    pub join_timeout: Duration,
    /// How long a request for a document that nobody has waits for one to appear.
    pub unavailable_grace: Duration,
    /// The same while a connected peer has announced the document and is uploading it.
    pub upload_grace: Duration,
    /// How long a document stays in memory after it was last used.
    pub idle_timeout: Duration,
    /// How long a document waits after its storage failed before it tries again.
    pub storage_retry: Duration,
    /// How long the relay waits for connections to end when it stops.
    pub drain_timeout: Duration,
    /// Memory of the relay's own process in bytes: of what is held for peers and what is worked on;
    /// not that of the [workshop](Self::workshop). See [`default_memory`].
    pub memory_bytes_max: usize,
    /// Bytes of large messages (above 64 KiB) that are being sent, over all connections; if not
    /// given, an eighth of the memory. When there are as many, those who need another one wait; one
    /// message may exceed it.
    pub sending_bytes_max: Option<usize>,
    /// When what only contents can tell is checked.
    pub verify: Verify,
    /// Not inline: at the latest so long after a change was stored, or after its document was next
    /// used when the relay stopped meanwhile. A workshop that has more to do takes longer.
    pub verify_lag: Duration,
    /// Not inline: and when a document has so many changes that are not checked; or an eighth of
    /// its history, if that is more, because a check builds all of it.
    pub verify_lag_changes: u32,
    /// The limits of the workshop.
    pub workshop: WorkshopConfig,
    /// Serves the demo at `/`, in a binary that [has it](crate::demo::is_built).
    pub demo: bool,
}

impl Config {
    /// Whether a relay can run so.
    ///
    /// # Errors
    /// The name of what may not be 0, or is too large to be added to a time.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let workshop = &self.workshop;
        let numbers = [
            (self.connections_max, "connections_max"),
            (
                self.connections_per_address_max.unwrap_or(1),
                "connections_per_address_max",
            ),
            (self.memory_bytes_max / MEMORY_BYTES_MIN, "memory_bytes_max"),
            (self.sending_bytes_max(), "sending_bytes_max"),
            (self.verify_lag_changes as usize, "verify_lag_changes"),
            (workshop.workers, "workshop.workers"),
            (
                workshop.jobs_per_worker as usize,
                "workshop.jobs_per_worker",
            ),
        ];
        let times = [
            (self.ping_interval, "ping_interval"),
            (self.upgrade_timeout, "upgrade_timeout"),
            (self.join_timeout, "join_timeout"),
            (self.unavailable_grace, "unavailable_grace"),
            (self.idle_timeout, "idle_timeout"),
            (self.storage_retry, "storage_retry"),
            (self.verify_lag, "verify_lag"),
            (workshop.deadline, "workshop.deadline"),
        ];
        let number = numbers.into_iter().find(|(number, _)| *number == 0);
        let wrong = |time: &Duration| time.is_zero() || *time > TIME_MAX;
        let time = times.into_iter().find(|(time, _)| wrong(time));
        match number
            .map(|(_, name)| name)
            .or_else(|| time.map(|(_, name)| name))
        {
            Some(name) => Err(name),
            None => Ok(()),
        }
    }
}

impl Config {
    /// The largest WebSocket message that is taken: when it is worked on, the memory has room for it
    /// three times.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX.min(self.memory_bytes_max / 4)
    }

    /// The largest result of the workshop that is taken.
    pub(crate) fn result_bytes_max(&self) -> usize {
        self.memory_bytes_max / 4
    }

    /// What may be held for all peers together. The rest is for what the relay itself needs, and for
    /// what is worked on.
    pub(crate) fn held_bytes_max(&self) -> usize {
        self.memory_bytes_max / 8 * 3
    }

    /// What documents may hold: those that are open, and what is remembered of each that a connection
    /// speaks of.
    pub(crate) fn document_bytes_max(&self) -> usize {
        self.memory_bytes_max / 4
    }

    /// How many messages that take long are taken in at a time: fewer than there are processors, so
    /// that one is always there for sockets, and as many as half of the memory has room for the
    /// largest change twice, inflated and as Automerge reads it.
    pub(crate) fn turns(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let room = self.memory_bytes_max / 2 / (2 * CHANGE_BYTES_MAX);
        processors.saturating_sub(1).min(room).max(1)
    }

    /// Bytes of large messages that may be on their way out.
    #[must_use]
    pub fn sending_bytes_max(&self) -> usize {
        self.sending_bytes_max.unwrap_or(self.memory_bytes_max / 8)
    }
}

/// The least memory that a relay runs with.
pub const MEMORY_BYTES_MIN: usize = 128 * 1024 * 1024;

/// Half of what this process may have: of the machine's memory, or of its control group's if that
/// has less. The other half is for the workshop and the system.
#[must_use]
pub fn default_memory() -> usize {
    const UNKNOWN: u64 = 2 * 1024 * 1024 * 1024;
    let machine = || {
        let info = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = info.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    };
    // Both versions of control groups, as they are seen from inside a container.
    let group = |path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let groups = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limits = groups.into_iter().filter_map(group).chain(machine());
    let all = limits.min().unwrap_or(UNKNOWN);
    usize::try_from(all / 2)
        .unwrap_or(usize::MAX)
        .max(MEMORY_BYTES_MIN)
}

/// The binary that runs, also when another one has taken its place on the disk meanwhile, as an upgrade
/// does, or nothing has.
fn own_program() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    match running.exists() {
        true => running,
        false => std::env::current_exe().unwrap_or_else(|_| PathBuf::from("reconverge")),
    }
}

/// No time may be longer.
const TIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// When the relay checks what only contents can tell: that all changes together make a document
/// which clients can apply, read, save and load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// A while after changes were stored and passed on. What fails is taken out again, and kept
    /// apart for the operator.
    Later,
    /// Before changes are stored: nothing that fails is acknowledged or passed on. Every edit
    /// waits until its document was built.
    Inline,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            connections_max: 100_000,
            connections_per_address_max: None,
            upgrade_timeout: Duration::from_secs(120),
            documents_max: 1024 * 1024,
            ping_interval: Duration::from_secs(20),
            join_timeout: Duration::from_secs(20),
            unavailable_grace: Duration::from_millis(300),
            upload_grace: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            storage_retry: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(5),
            memory_bytes_max: default_memory(),
            sending_bytes_max: None,
            verify: Verify::Later,
            verify_lag: Duration::from_secs(60),
            verify_lag_changes: 4096,
            workshop: WorkshopConfig {
                program: own_program(),
                workers: 1,
                memory_bytes_max: 3 * 1024 * 1024 * 1024,
                cpu_s_max: 60,
                deadline: Duration::from_secs(120),
                jobs_per_worker: 1024,
            },
            demo: false,
        }
    }
}
