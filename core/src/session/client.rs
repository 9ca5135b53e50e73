//! One connection's side of the automerge-repo protocol, as a client speaks it.
//!
//! The client says `join`, the server answers `peer`, or `error` and the end. After that both
//! sides talk freely. Presence comes under its author's name, everything else under the server's.

use std::borrow::Cow;

use crate::id::PeerId;
use crate::protocol::{
    self, Ephemeral, Message, PeerMetadata, ProtocolError, Refused, SyncEnvelope,
};

use super::Local;

/// One connection to a server.
#[derive(Debug)]
pub struct ClientSession {
    local: Local,
    remote: Option<PeerId>,
}

/// What a server's frame means.
#[derive(Debug, PartialEq)]
pub enum ServerEvent<'a> {
    /// We are let in.
    Joined {
        /// The server's name.
        peer: PeerId,
        /// The id of its storage, if it says that it keeps what it syncs.
        storage_id: Option<String>,
        /// The version of Reconverge's extensions that it understands.
        reconverge: u64,
    },
    /// We are not let in, or sent away, for this reason; the server closes the connection.
    Rejected {
        /// The server's words.
        reason: &'a str,
        /// Whether that was its answer to our `join`: the next one will be no different.
        joining: bool,
    },
    /// It syncs a document.
    Sync(SyncEnvelope<'a>),
    /// Nobody that it can ask has this document.
    Unavailable(Cow<'a, str>),
    /// It does not take some changes.
    Refused(Refused<'a>),
    /// Somebody broadcasts.
    Ephemeral(Ephemeral<'a>),
    /// The answer to a [`PING`](crate::protocol::PING).
    Pong,
    /// Nothing, for this reason.
    Ignored(&'static str),
}

impl ClientSession {
    /// A connection on which nothing was said. `local.storage_id` is empty for a client that keeps
    /// nothing.
    #[must_use]
    pub fn new(local: Local) -> Self {
        Self {
            local,
            remote: None,
        }
    }

    /// The server, once it let us in.
    #[must_use]
    pub fn remote(&self) -> Option<&PeerId> {
        self.remote.as_ref()
    }

    /// The first frame to send.
    #[must_use]
    pub fn join(&self) -> Vec<u8> {
        let storage_id = &*self.local.storage_id;
        protocol::encode(&Message::Join {
            sender: self.local.peer.as_str(),
            metadata: PeerMetadata {
                storage_id: (!storage_id.is_empty()).then_some(storage_id.into()),
                is_ephemeral: storage_id.is_empty(),
                reconverge: protocol::EXTENSIONS,
            },
            speaks_v1: true,
        })
    }

    /// Takes in one frame.
    ///
    /// # Errors
    /// When the frame is no message, or one that may not come now: close the connection.
    pub fn handle<'a>(&mut self, frame: &'a [u8]) -> Result<ServerEvent<'a>, ProtocolError> {
        let message = protocol::decode(frame)?;
        let joining = self.remote.is_none();
        if let Message::Error { message, .. } = message {
            return Ok(ServerEvent::Rejected {
                reason: message,
                joining,
            });
        }
        if joining {
            return self.let_in(message);
        }
        Ok(match message {
            Message::Sync(sync) => ServerEvent::Sync(sync),
            Message::DocUnavailable { document, .. } => ServerEvent::Unavailable(document),
            Message::Ephemeral(ephemeral) if ephemeral.sender == self.local.peer.as_str() => {
                ServerEvent::Ignored("an echo of our own presence")
            }
            Message::Ephemeral(ephemeral) => ServerEvent::Ephemeral(ephemeral),
            Message::Refused(refused) => ServerEvent::Refused(refused),
            // To compare whole messages would put that into the module for browsers.
            Message::Unknown { kind: "pong" } => ServerEvent::Pong,
            Message::Peer { .. } => {
                return Err(ProtocolError::Unexpected("a second peer on one connection"));
            }
            _ => ServerEvent::Ignored("a message that only clients send, or of unknown type"),
        })
    }

    fn let_in<'a>(&mut self, message: Message<'a>) -> Result<ServerEvent<'a>, ProtocolError> {
        let Message::Peer {
            sender, metadata, ..
        } = message
        else {
            return Err(ProtocolError::Unexpected("the first answer must be a peer"));
        };
        let peer = PeerId::new(sender);
        let peer = peer.ok_or(ProtocolError::Unexpected(
            "a peer id has 1 to 256 bytes, none of control",
        ))?;
        self.remote = Some(peer.clone());
        let keeps = metadata.storage_id.filter(|_| !metadata.is_ephemeral);
        Ok(ServerEvent::Joined {
            peer,
            storage_id: keeps.map(Into::into),
            reconverge: metadata.reconverge,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Event, Session};
    use super::*;

    fn local(name: &str) -> Local {
        Local {
            peer: PeerId::new(name).expect("not empty"),
            storage_id: "3f0c".into(),
        }
    }

    #[test]
    fn a_client_and_a_server_let_each_other_in() {
        let (mut client, mut server) = (
            ClientSession::new(local("ann")),
            Session::new(local("relay")),
        );
        let join = client.join();
        let Ok(Event::Joined {
            peer,
            storage_id,
            reply,
            ..
        }) = server.handle(&join)
        else {
            panic!("the server lets the client in");
        };
        assert_eq!(
            (peer.as_str(), storage_id.as_deref()),
            ("ann", Some("3f0c"))
        );
        let joined = client.handle(&reply).unwrap();
        assert!(
            matches!(joined, ServerEvent::Joined { peer, storage_id, reconverge: protocol::EXTENSIONS }
            if peer.as_str() == "relay" && storage_id.as_deref() == Some("3f0c"))
        );
        assert!(client.handle(&reply).is_err(), "a second time");
        let ping = protocol::encode(&protocol::PING);
        let Ok(Event::Ping { reply }) = server.handle(&ping) else {
            panic!("the server answers");
        };
        assert_eq!(protocol::decode(&reply).unwrap(), protocol::PONG);
        assert!(matches!(client.handle(&reply).unwrap(), ServerEvent::Pong));
    }

    #[test]
    fn a_rejected_join_is_told_from_a_later_farewell() {
        let mut client = ClientSession::new(local("ann"));
        let server = Session::new(local("relay"));
        let farewell = server.farewell(&ProtocolError::Version);
        let rejected = |joining| ServerEvent::Rejected {
            reason: "unsupported protocol version",
            joining,
        };
        assert_eq!(client.handle(&farewell).unwrap(), rejected(true));
        let peer = protocol::encode(&Message::Peer {
            sender: "relay",
            target: "ann",
            metadata: PeerMetadata::default(),
        });
        client.handle(&peer).unwrap();
        assert_eq!(client.handle(&farewell).unwrap(), rejected(false));
    }

    #[test]
    fn nothing_but_an_answer_may_come_first() {
        let mut client = ClientSession::new(local("ann"));
        let leave = protocol::encode(&Message::Leave { sender: "relay" });
        assert!(client.handle(&leave).is_err());
    }
}
