//! One connection's side of the automerge-repo protocol: [`Session`] as a server speaks it,
//! [`ClientSession`] as a client does.
//!
//! The handshake is `join` from the client, answered by `peer` or by `error` and the end. After
//! that both sides talk freely. A message whose sender is not the peer that joined is dropped:
//! stock clients send every presence message that they receive back to where it came from, under
//! its author's name. That nobody needs to hear of; a sync message is told as
//! [`Event::Foreign`], since edits are lost with it.

mod client;

use std::sync::Arc;

pub use client::{ClientSession, ServerEvent};

use crate::id::PeerId;
use crate::protocol::{
    self, Ephemeral, Message, PeerMetadata, ProtocolError, RemoteHeads, SyncEnvelope,
};

/// Who this side of a connection is.
#[derive(Debug, Clone)]
pub struct Local {
    /// Its peer id.
    pub peer: PeerId,
    /// The id of its storage, stable across restarts. Peers remember what they share with a
    /// storage, so that a reconnect costs little.
    pub storage_id: Arc<str>,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    local: Local,
    remote: Option<PeerId>,
    /// Who wanted to join and could not.
    stranger: Option<PeerId>,
}

/// What a frame means.
#[derive(Debug, PartialEq)]
pub enum Event<'a> {
    /// The peer joined.
    Joined {
        /// Its name.
        peer: PeerId,
        /// The id of its storage, if it keeps what it syncs.
        storage_id: Option<String>,
        /// The version of Reconverge's extensions that it understands.
        reconverge: u64,
        /// The frame to answer with.
        reply: Vec<u8>,
    },
    /// It syncs a document.
    Sync(SyncEnvelope<'a>),
    /// It has not got a document that it was asked for; a relay asks nobody, so nothing follows.
    Unavailable,
    /// It syncs a document under a name that is not its own, which is dropped.
    Foreign {
        /// The name.
        sender: &'a str,
    },
    /// It broadcasts.
    Ephemeral(Ephemeral<'a>),
    /// It wants to hear of other heads.
    RemoteSubscription {
        /// Storage ids to add.
        add: Vec<&'a str>,
        /// Storage ids to remove.
        remove: Vec<&'a str>,
    },
    /// It tells heads that it heard of.
    RemoteHeads(RemoteHeads<'a>),
    /// It asks whether we are there; browsers have no other way.
    Ping {
        /// The frame to answer with.
        reply: Vec<u8>,
    },
    /// It says goodbye.
    Left,
    /// Nothing, for this reason.
    Ignored(&'static str),
}

impl Session {
    /// A connection on which nothing was said.
    #[must_use]
    pub fn new(local: Local) -> Self {
        Self {
            local,
            remote: None,
            stranger: None,
        }
    }

    /// The peer that joined.
    #[must_use]
    pub fn remote(&self) -> Option<&PeerId> {
        self.remote.as_ref()
    }

    /// Takes in one frame.
    ///
    /// # Errors
    /// When the frame is no message, or one that may not come now: send [`Self::farewell`] and
    /// close the connection.
    pub fn handle<'a>(&mut self, frame: &'a [u8]) -> Result<Event<'a>, ProtocolError> {
        let message = protocol::decode(frame)?;
        let Some(remote) = &self.remote else {
            return self.join(message);
        };
        let sender = match &message {
            Message::Join { .. } => {
                return Err(ProtocolError::Unexpected("a second join on one connection"));
            }
            Message::Sync(sync) => sync.sender,
            Message::Ephemeral(ephemeral) => ephemeral.sender,
            Message::DocUnavailable { sender, .. }
            | Message::RemoteSubscriptionChange { sender, .. }
            | Message::Leave { sender } => sender,
            Message::RemoteHeadsChanged(remote) => remote.sender,
            ping if *ping == protocol::PING => {
                return Ok(Event::Ping {
                    reply: protocol::encode(&protocol::PONG),
                });
            }
            _ => {
                return Ok(Event::Ignored(
                    "a message that only servers send, or of unknown type",
                ));
            }
        };
        if sender != remote.as_str() {
            if let Message::Sync(SyncEnvelope { sender, .. }) = message {
                return Ok(Event::Foreign { sender });
            }
            return Ok(Event::Ignored("a message in another peer's name"));
        }
        Ok(match message {
            Message::Sync(sync) => Event::Sync(sync),
            Message::Ephemeral(ephemeral) => Event::Ephemeral(ephemeral),
            Message::RemoteSubscriptionChange { add, remove, .. } => {
                Event::RemoteSubscription { add, remove }
            }
            Message::RemoteHeadsChanged(remote) => Event::RemoteHeads(remote),
            Message::Leave { .. } => Event::Left,
            _ => Event::Unavailable,
        })
    }

    fn join<'a>(&mut self, message: Message<'a>) -> Result<Event<'a>, ProtocolError> {
        let Message::Join {
            sender,
            metadata,
            speaks_v1,
        } = message
        else {
            return Err(ProtocolError::Unexpected(
                "the first message must be a join",
            ));
        };
        let peer = PeerId::new(sender);
        if !speaks_v1 {
            self.stranger = peer;
            return Err(ProtocolError::Version);
        }
        let peer = peer.ok_or(ProtocolError::Unexpected(
            "a peer id has 1 to 256 bytes, none of control",
        ))?;
        self.remote = Some(peer.clone());
        let reply = protocol::encode(&Message::Peer {
            sender: self.local.peer.as_str(),
            target: sender,
            metadata: PeerMetadata {
                storage_id: Some((&*self.local.storage_id).into()),
                is_ephemeral: false,
                reconverge: protocol::EXTENSIONS,
            },
        });
        let keeps = metadata.storage_id.filter(|_| !metadata.is_ephemeral);
        Ok(Event::Joined {
            peer,
            storage_id: keeps.map(Into::into),
            reconverge: metadata.reconverge,
            reply,
        })
    }

    /// The frame that tells the peer why it is sent away.
    #[must_use]
    pub fn farewell(&self, error: &ProtocolError) -> Vec<u8> {
        let target = self.remote.as_ref().or(self.stranger.as_ref());
        protocol::encode(&Message::Error {
            sender: Some(self.local.peer.as_str()),
            target: Some(target.map_or("", PeerId::as_str)),
            message: &error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let peer = PeerId::new("relay").unwrap();
        Session::new(Local {
            peer,
            storage_id: "3f0c".into(),
        })
    }

    fn join(name: &str) -> Vec<u8> {
        let metadata = PeerMetadata::default();
        protocol::encode(&Message::Join {
            sender: name,
            metadata,
            speaks_v1: true,
        })
    }

    #[test]
    fn a_peer_joins_once_and_speaks_in_its_own_name() {
        let mut session = session();
        let leave = protocol::encode(&Message::Leave { sender: "ann" });
        assert!(session.handle(&leave).is_err(), "before the join");
        let joining = join("ann");
        let joined = session.handle(&joining).unwrap();
        assert!(matches!(&joined, Event::Joined { reply, .. }
            if matches!(protocol::decode(reply).unwrap(), Message::Peer { target: "ann", .. })));
        let other = protocol::encode(&Message::Leave { sender: "bob" });
        assert!(matches!(session.handle(&other).unwrap(), Event::Ignored(_)));
        let foreign = protocol::encode(&Message::Sync(SyncEnvelope {
            sender: "bob",
            target: "relay",
            document: "x".into(),
            data: &[],
            request: false,
        }));
        let foreign = session.handle(&foreign).unwrap();
        assert_eq!(foreign, Event::Foreign { sender: "bob" });
        assert_eq!(session.handle(&leave).unwrap(), Event::Left);
        assert!(session.handle(&join("ann")).is_err(), "a second join");
    }

    #[test]
    fn an_unknown_type_is_survived_and_another_version_is_not() {
        let mut session = session();
        let versions =
            b"\xa3\x64type\x64join\x68senderId\x61a\x78\x19supportedProtocolVersions\x81\x612";
        let error = session.handle(versions).unwrap_err();
        assert_eq!(error, ProtocolError::Version);
        let farewell = session.farewell(&error);
        assert!(matches!(
            protocol::decode(&farewell).unwrap(),
            Message::Error {
                target: Some("a"),
                ..
            }
        ));
        session.handle(&join("ann")).unwrap();
        let unknown = protocol::encode(&Message::Unknown { kind: "telepathy" });
        assert!(matches!(
            session.handle(&unknown).unwrap(),
            Event::Ignored(_)
        ));
    }
}
