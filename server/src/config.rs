//! What an operator may choose.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Bytes of messages that were received and not yet processed, over all connections; and the
    /// same again for messages that are not whole yet. When there are more, connections wait to
    /// read.
    pub received_bytes_max: usize,
    /// Bytes of large messages (above 64 KiB) that are being sent, over all connections. When
    /// there are as many, those who need another one wait; one message may exceed it.
    pub sending_bytes_max: usize,
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
            (self.received_bytes_max / 1024, "received_bytes_max"),
            (self.sending_bytes_max, "sending_bytes_max"),
            (self.verify_lag_changes as usize, "verify_lag_changes"),
            (workshop.workers, "workshop.workers"),
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
            received_bytes_max: 256 * 1024 * 1024,
            sending_bytes_max: 256 * 1024 * 1024,
            verify: Verify::Later,
            verify_lag: Duration::from_secs(60),
            verify_lag_changes: 4096,
            workshop: WorkshopConfig {
                program: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("reconverge")),
                workers: 1,
                memory_bytes_max: 3 * 1024 * 1024 * 1024,
                cpu_s_max: 60,
                deadline: Duration::from_secs(120),
            },
            demo: false,
        }
    }
}
