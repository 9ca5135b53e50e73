//! Why a relay is not connected.

use std::fmt;

/// What kept a connection to a relay from coming about, or ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind, for programs.
    pub kind: FaultKind,
    /// What happened, for people.
    pub message: String,
}

/// The kinds of [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The relay's host has no address.
    Dns,
    /// Nothing listens there, or the network failed.
    Network,
    /// No encrypted connection came about, as when a certificate is not trusted.
    Tls,
    /// What is there answered by this status of HTTP instead of opening a WebSocket.
    Http(u16),
    /// What was said is no WebSocket, or not this protocol.
    Protocol,
    /// No answer came in time.
    Silence,
    /// The relay closed the connection, with this code if it gave one.
    Closed(Option<u16>),
    /// The relay does not let us in.
    Rejected,
    /// What was to be sent could not be read from local storage.
    Storage,
    /// It was not tried yet.
    Untried,
}

impl FaultKind {
    /// A name for programs, which stays the same.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Network => "network",
            Self::Tls => "tls",
            Self::Http(401) => "unauthorized",
            Self::Http(403) => "forbidden",
            Self::Http(_) => "http",
            Self::Protocol => "protocol",
            Self::Silence => "silence",
            Self::Closed(_) => "closed",
            Self::Rejected => "rejected",
            Self::Storage => "storage",
            Self::Untried => "untried",
        }
    }
}

impl Fault {
    /// A fault of this kind.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }

    /// The network failed, without a word.
    #[must_use]
    pub fn lost() -> Self {
        Self::new(FaultKind::Network, "the connection was lost")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// How the connection to a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RelayState {
    /// It is there, and the relay let us in.
    Connected,
    /// It is being made.
    Connecting,
    /// It is tried again after a while.
    Waiting,
    /// The relay does not want us, and is not tried again by itself.
    Refused,
    /// Nobody wants it now.
    Away,
}
