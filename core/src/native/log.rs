//! What the log says, by `tracing`: changes of state as warnings and news, each attempt for whoever looks
//! closely. Nothing of a document but its id, and of a relay its url without the token.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::connection::Connection;
use crate::engine::{Engine, Fault, FindError, Output, Reason, RelayState, Status};
use crate::id::DocumentId;
use crate::storage::StorageError;

/// Something to be said of a document, when no lock is held.
#[derive(Debug)]
pub(super) struct Note {
    document: DocumentId,
    what: What,
}

#[derive(Debug)]
enum What {
    NotFound(FindError),
    Refused(Reason),
    NotStored(StorageError),
    Stored,
    TakenOut(usize),
    Damaged(StorageError),
    Deleted,
}

impl Note {
    /// What is to be said of this, if anything is.
    pub(super) fn of(output: &Output, engine: &Engine) -> Option<Self> {
        let (document, what) = match output {
            Output::Found(document, Err(error)) => (document, What::NotFound(error.clone())),
            Output::Status(document, Status::Refused(reason)) => {
                (document, What::Refused(reason.clone()))
            }
            Output::StoreFailed(document, error) => (document, What::NotStored(error.clone())),
            Output::Flushed(document) => (document, What::Stored),
            Output::TakenOut(document) => {
                let all = engine.quarantined(document).len();
                (document, What::TakenOut(all))
            }
            Output::Salvaged(document) => {
                let damage = engine.damage(document)?;
                (document, What::Damaged(damage.clone()))
            }
            Output::Deleted(document) => (document, What::Deleted),
            _ => return None,
        };
        Some(Self {
            document: *document,
            what,
        })
    }
}

/// What was said, so that it is not said again and again.
#[derive(Debug, Default)]
pub(super) struct Log {
    connections: Arc<[Connection]>,
    unstored: HashSet<DocumentId>,
}

impl Log {
    /// Says how connections changed.
    pub(super) fn connections(&mut self, now: Arc<[Connection]>) {
        for (at, connection) in now.iter().enumerate() {
            let before = self.connections.get(at);
            say_connection(before, connection);
        }
        self.connections = now;
    }

    pub(super) fn note(&mut self, note: &Note) {
        let document = note.document;
        match &note.what {
            What::NotFound(error) => debug!(%document, %error, "not found"),
            What::Refused(reason) => {
                warn!(%document, code = reason.code, reason = %one_line(&reason.text),
                    "no relay takes the document");
            }
            What::NotStored(error) if self.unstored.insert(document) => {
                warn!(%document, %error, "local storage failed, and is tried again");
            }
            What::NotStored(error) => debug!(%document, %error, "local storage failed again"),
            What::Stored if self.unstored.remove(&document) => {
                info!(%document, "stored after all");
            }
            What::Stored => {}
            What::TakenOut(changes) => {
                warn!(%document, changes, "changes were quarantined, as they make no document");
            }
            What::Damaged(damage) => {
                error!(%document, %damage, "damaged in local storage; it goes on with what is whole");
            }
            What::Deleted => {
                self.unstored.remove(&document);
                debug!(%document, "deleted");
            }
        }
    }
}

fn say_connection(before: Option<&Connection>, now: &Connection) {
    let relay = &now.relay;
    let was = before.map(|before| before.state);
    let fault = now.fault.as_ref();
    let had_fault = before.is_some_and(|before| before.fault.is_some());
    match now.state {
        RelayState::Connected if was != Some(RelayState::Connected) => {
            info!(%relay, "connected");
        }
        RelayState::Refused if was != Some(RelayState::Refused) => {
            warn!(%relay, fault = fault.map(described), "the relay refuses us, and is not tried again");
        }
        RelayState::Waiting | RelayState::Connecting if was == Some(RelayState::Connected) => {
            warn!(%relay, fault = fault.map(described), "disconnected");
        }
        RelayState::Waiting | RelayState::Connecting if fault.is_some() && !had_fault => {
            warn!(%relay, fault = fault.map(described), "the relay cannot be reached, and is tried again");
        }
        _ => {}
    }
}

/// The kind of a fault, and what is said of it.
pub(super) fn described(fault: &Fault) -> String {
    format!("{:?}: {}", fault.kind, one_line(&fault.message))
}

/// What others say must not make lines of its own.
fn one_line(text: &str) -> String {
    const CHARS_MAX: usize = 256;
    let plain = text.chars().take(CHARS_MAX);
    plain
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}
