//! What a message of the peer means: each goes to the document that it is of, or is answered here.

use std::sync::Arc;

use bytes::Bytes;
use reconverge::id::PeerId;
use reconverge::protocol::{
    ChangeHash, HeadsOfStorage, MESSAGE_BYTES_MAX, ProtocolError, named_heads,
};
use reconverge::session::Event;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite;
use tracing::{info, trace, warn};

use super::ConnectionTask;
use crate::document::{Incoming, Input};
use crate::limits::memory::Charge;
use crate::peers::{Closing, Connection, Joined, MessagePermit};
use crate::remote_heads::{Seen, now_ms};

/// What a head that a peer names holds, if it is not known here: it is remembered that the peer has it
/// and was asked for it.
const NAMED_BYTES: usize = 4 * size_of::<ChangeHash>();

impl ConnectionTask {
    /// Takes in one WebSocket message.
    pub(super) fn message(
        &mut self,
        message: tungstenite::Message,
        permit: OwnedSemaphorePermit,
        charge: Charge,
    ) -> Result<(), Closing> {
        let frame = match message {
            tungstenite::Message::Binary(frame) => frame,
            tungstenite::Message::Text(_) => {
                return Err(self.bad_frame(&ProtocolError::Unexpected("a text message")));
            }
            // Pongs count as a sign of life, pings were answered.
            _ => return Ok(()),
        };
        let permit = MessagePermit::new(permit, charge);
        match self.session.handle(&frame) {
            Ok(event) => self.event(&frame, event, permit),
            Err(error) => Err(self.bad_frame(&error)),
        }
    }

    pub(super) fn bad_frame(&mut self, error: &ProtocolError) -> Closing {
        let farewell = self.session.farewell(error);
        let peer = self.session.remote().map(PeerId::as_str);
        warn!(connection = self.id.0, peer, address = %self.address, %error, "bad frame; connection closed");
        let closing = Closing {
            code: 1002,
            reason: "bad frame".into(),
        };
        match &self.connection {
            Some(connection) => connection.outbox.answer(farewell),
            None => {
                // It has no outbox yet; one is made to carry the farewell.
                let connection = self.joined(Joined {
                    peer: PeerId::new("-").expect("not empty"),
                    storage_id: None,
                    reconverge: 0,
                });
                connection.outbox.answer(farewell);
                self.connection = Some(connection);
            }
        }
        closing
    }

    /// Ends the connection for a message that the memory has no room for, or that nobody may send.
    pub(super) fn too_large(&self, bytes: usize, max: usize) -> Closing {
        let peer = self.session.remote().map(PeerId::as_str);
        let what = match max < MESSAGE_BYTES_MAX {
            true => "a quarter of the memory, which one may have; see --memory-mib",
            false => "any may be",
        };
        warn!(
            connection = self.id.0,
            peer,
            address = %self.address,
            bytes,
            max,
            "a message is larger than {what}; connection closed, and its client will try again"
        );
        Closing {
            code: 1009,
            reason: format!("a message of {bytes} bytes; the relay takes {max}"),
        }
    }

    pub(super) fn event(
        &mut self,
        frame: &Bytes,
        event: Event<'_>,
        mut permit: MessagePermit,
    ) -> Result<(), Closing> {
        let connection = match (&self.connection, event) {
            (
                None,
                Event::Joined {
                    peer,
                    storage_id,
                    reconverge,
                    reply,
                },
            ) => {
                info!(connection = self.id.0, %peer, space = self.space.as_str(), "joined");
                let connection = self.joined(Joined {
                    peer,
                    storage_id,
                    reconverge,
                });
                connection.outbox.answer(reply);
                self.hub.services.peers.enter(&connection);
                self.connection = Some(connection);
                return Ok(());
            }
            (Some(connection), event) => (connection.clone(), event),
            (None, _) => return Ok(()),
        };
        match connection {
            (from, Event::Sync(sync)) => {
                self.shares = true;
                let data = frame.slice_ref(sync.data);
                permit.becomes(named_heads(&data) * NAMED_BYTES);
                let Some(slot) = self.documents.open(&from, &sync.document)? else {
                    self.documents.refuse(&from, &sync);
                    return Ok(());
                };
                slot.push(Input::Message(Arc::new(Incoming {
                    from,
                    data,
                    _permit: permit,
                })));
            }
            (from, Event::Ephemeral(ephemeral)) => self.broadcast(&from, frame, &ephemeral),
            (from, Event::RemoteSubscription { add, remove }) => {
                let added = from.subscriptions.update(&add, &remove);
                if !added.is_empty() && !self.documents.is_empty() {
                    self.replay(&from, added);
                }
            }
            (from, Event::RemoteHeads(remote)) => {
                // Only for documents that it syncs; of others it has nothing to tell.
                if let Some(slot) = self.documents.get(&remote.document) {
                    let now = now_ms();
                    let heard = |of: HeadsOfStorage<'_>| {
                        Some((of.storage.to_owned(), Seen::heard(of, now)?))
                    };
                    let heads: Vec<_> = remote.heads.into_iter().filter_map(heard).collect();
                    let weights = heads.iter().map(|(storage, seen)| seen.weight(storage));
                    permit.becomes(weights.sum());
                    slot.push(Input::RemoteHeads {
                        from: from.id,
                        heads,
                        _permit: permit,
                    });
                }
            }
            (from, Event::Ping { reply }) => from.outbox.answer(reply),
            (_, Event::Left) => {
                return Err(Closing {
                    code: 1000,
                    reason: "left".into(),
                });
            }
            (from, Event::Foreign { sender }) => self.foreign(&from, sender),
            (_, Event::Ignored(why)) => trace!(connection = self.id.0, why, "ignored"),
            (_, Event::Joined { .. } | Event::Unavailable) => {}
        }
        Ok(())
    }

    /// A sync message in another's name is dropped; the log says so once.
    pub(super) fn foreign(&mut self, from: &Connection, sender: &str) {
        if !std::mem::replace(&mut self.foreign, true) {
            warn!(connection = self.id.0, peer = %from.peer, sender,
                "a sync message in another peer's name is dropped, and so are further ones; a client \
                 must send under the name that it joined with");
        }
    }

    fn joined(&self, joined: Joined) -> Arc<Connection> {
        Connection::new(
            self.id,
            self.space.clone(),
            self.holder.clone(),
            self.hub.local.peer.clone(),
            joined,
        )
    }
}
