//! Why a client cannot go on.

use std::time::Duration;

use reconverge::protocol;
use tokio_tungstenite::tungstenite;

/// Why a client cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The connection could not be made or broke.
    #[error("connection: {0}")]
    Socket(#[from] Box<tungstenite::Error>),
    /// The connection was closed by the relay.
    #[error("closed by the relay")]
    Closed,
    /// The relay said `error`.
    #[error("refused by the relay: {0}")]
    Refused(String),
    /// The relay sent what no relay may send.
    #[error("the relay broke the protocol: {0}")]
    Relay(String),
    /// Nothing came for too long.
    #[error("nothing came for {0:?} to {1}")]
    Silence(Duration, String),
}

impl Fault {
    /// Whether the relay ended the connection: with a close frame, or without one, as it does to
    /// clients that do not answer and may not stand one.
    #[must_use]
    pub fn is_end(&self) -> bool {
        use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
        let without = |error: &tungstenite::Error| {
            matches!(
                error,
                tungstenite::Error::Protocol(ResetWithoutClosingHandshake)
            )
        };
        match self {
            Self::Closed => true,
            Self::Socket(error) => without(error),
            _ => false,
        }
    }
}

impl From<tungstenite::Error> for Fault {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Closed
            }
            error => Self::Socket(Box::new(error)),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        tungstenite::Error::Io(error).into()
    }
}

impl From<protocol::ProtocolError> for Fault {
    fn from(error: protocol::ProtocolError) -> Self {
        Self::Relay(error.to_string())
    }
}
