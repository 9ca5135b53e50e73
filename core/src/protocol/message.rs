//! The messages of the automerge-repo protocol.

use std::borrow::Cow;

use super::ephemeral::Ephemeral;
use super::handshake::PeerMetadata;
use super::refused::Refused;
use super::remote_heads::RemoteHeads;
use super::sync_envelope::SyncEnvelope;

/// One message of the automerge-repo protocol, borrowing from the frame it came in.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// A client asks to be let in; the first message on a connection.
    Join {
        /// The client's name for itself.
        sender: &'a str,
        /// What it says of itself.
        metadata: PeerMetadata<'a>,
        /// Whether version "1" is among those it speaks (also if it names none).
        speaks_v1: bool,
    },
    /// A server lets a client in.
    Peer {
        /// The server's name for itself.
        sender: &'a str,
        /// Who is let in.
        target: &'a str,
        /// What the server says of itself.
        metadata: PeerMetadata<'a>,
    },
    /// A server says why it closes the connection.
    Error {
        /// The server's name; `samod` leaves it out.
        sender: Option<&'a str>,
        /// Whom it addresses; `samod` leaves it out.
        target: Option<&'a str>,
        /// The reason, for a person to read.
        message: &'a str,
    },
    /// A peer says goodbye.
    Leave {
        /// Who leaves.
        sender: &'a str,
    },
    /// An Automerge sync message (`sync`, or `request` from a peer that has nothing of it yet).
    Sync(SyncEnvelope<'a>),
    /// "I do not have this document, nor does anybody whom I could ask."
    DocUnavailable {
        /// Who says so.
        sender: &'a str,
        /// Who asked.
        target: &'a str,
        /// The document's id as text.
        document: Cow<'a, str>,
    },
    /// A message that is passed on and not kept (presence).
    Ephemeral(Ephemeral<'a>),
    /// Which peers' storages the sender wants to hear the heads of.
    RemoteSubscriptionChange {
        /// Who asks.
        sender: &'a str,
        /// Whom it asks.
        target: &'a str,
        /// Storage ids to add.
        add: Vec<&'a str>,
        /// Storage ids to remove.
        remove: Vec<&'a str>,
    },
    /// The heads that some storages were last seen with.
    RemoteHeadsChanged(RemoteHeads<'a>),
    /// The server does not take some changes; only for peers that understand it.
    Refused(Refused<'a>),
    /// A type of which nothing else is read: one that this version does not know, which is skipped,
    /// or [`PING`](super::PING) and [`PONG`](super::PONG).
    Unknown {
        /// The `type`.
        kind: &'a str,
    },
}
