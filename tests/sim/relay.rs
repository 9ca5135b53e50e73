//! A relay: a session per connection, a turn per document, one disk.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use automerge::ChangeHash;
use bytes::Bytes;
use reconverge::id::{Access, ConnectionId, DocumentId, PeerId};
use reconverge::protocol::{self, Ephemeral, Message, Refused, SyncEnvelope, SyncMessage};
use reconverge::session::{Event, Local, Session};
use reconverge_tests::world;

use crate::disk::Disk;
use crate::network::WireId;

/// Most messages of a document that wait for one connection.
const ROOM: usize = 8;

/// Most presence messages that wait for one connection, as in the relay.
const PRESENCE_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) name: String,
    pub(crate) disk: Arc<Disk>,
    pub(crate) up: bool,
    /// Counts its restarts.
    pub(crate) life: u64,
    pub(crate) documents: BTreeMap<DocumentId, world::Relay>,
    pub(crate) peers: BTreeMap<WireId, Peer>,
    /// The heads that it named to anybody.
    pub(crate) named: HashMap<DocumentId, HashSet<ChangeHash>>,
    /// What it had before an older copy took the place of its disk.
    pub(crate) lost: HashMap<DocumentId, HashSet<ChangeHash>>,
    /// Most bytes of changes in one message.
    pub(crate) message_bytes_max: u64,
}

#[derive(Debug)]
pub(crate) struct Peer {
    session: Session,
    name: Option<PeerId>,
    access: Access,
    pub(crate) answers: VecDeque<Bytes>,
    presence: VecDeque<Bytes>,
}

/// A sync message's document and bytes.
pub(crate) type SyncData = (DocumentId, Vec<u8>);

/// What follows from a frame.
#[derive(Debug)]
pub(crate) enum Then {
    Nothing,
    /// Close the connection.
    Close,
    /// This document had a turn.
    Turned,
    /// It had a turn, and the sender asked for it.
    Asked(DocumentId),
}

impl Relay {
    pub(crate) fn new(name: &str, message_bytes_max: u64) -> Self {
        Self {
            name: name.to_owned(),
            disk: Disk::holding(name, &[]),
            up: true,
            life: 0,
            documents: BTreeMap::new(),
            peers: BTreeMap::new(),
            named: HashMap::new(),
            lost: HashMap::new(),
            message_bytes_max,
        }
    }

    pub(crate) fn open(&mut self, wire: WireId, access: Access) {
        let local = Local {
            peer: PeerId::new(&self.name).expect("not empty"),
            storage_id: self.name.as_str().into(),
        };
        let peer = Peer {
            session: Session::new(local),
            name: None,
            access,
            answers: VecDeque::new(),
            presence: VecDeque::new(),
        };
        self.peers.insert(wire, peer);
    }

    pub(crate) fn close(&mut self, wire: WireId) {
        self.peers.remove(&wire);
        for document in self.documents.values_mut() {
            document.disconnect(ConnectionId(wire));
        }
    }

    /// The process ends; the disk stays.
    pub(crate) fn stop(&mut self) {
        self.up = false;
        self.life += 1;
        self.documents.clear();
        self.peers.clear();
    }

    pub(crate) fn document(&mut self, id: DocumentId) -> &mut world::Relay {
        let (disk, max) = (&self.disk, self.message_bytes_max);
        let open = || world::Relay::on(disk.clone(), id).with_message_bytes_max(max);
        self.documents.entry(id).or_insert_with(open)
    }

    pub(crate) fn receive(&mut self, wire: WireId, frame: &Bytes) -> Then {
        let Some(peer) = self.peers.get_mut(&wire) else {
            return Then::Nothing;
        };
        match peer.session.handle(frame) {
            Err(_) | Ok(Event::Left) => Then::Close,
            Ok(Event::Joined {
                peer: name, reply, ..
            }) => {
                peer.name = Some(name);
                peer.answers.push_back(reply.into());
                Then::Nothing
            }
            Ok(Event::Sync(sync)) => {
                let Ok(message) = SyncMessage::decode(sync.data) else {
                    return Then::Close;
                };
                let Ok(id) = sync.document.parse::<DocumentId>() else {
                    return Then::Close;
                };
                let asks = message.heads.is_empty();
                let data = sync.data.to_vec();
                let (access, connection) = (peer.access, ConnectionId(wire));
                let document = self.document(id);
                document.connect_once(connection, access, ROOM);
                document.receive(connection, &data);
                if asks { Then::Asked(id) } else { Then::Turned }
            }
            Ok(Event::Ephemeral(ephemeral)) => {
                self.broadcast(wire, &ephemeral);
                Then::Turned
            }
            Ok(_) => Then::Nothing,
        }
    }

    /// Passes presence on to all who speak of the document, if its sender does.
    fn broadcast(&mut self, from: WireId, ephemeral: &Ephemeral<'_>) {
        let document = ephemeral.document.parse::<DocumentId>();
        let Some(document) = document.ok().and_then(|id| self.documents.get(&id)) else {
            return;
        };
        let audience: Vec<_> = document.connections().map(|to| to.0).collect();
        if !audience.contains(&from) {
            return;
        }
        for to in audience.into_iter().filter(|to| *to != from) {
            let Some(peer) = self.peers.get_mut(&to) else {
                continue;
            };
            let message = Message::Ephemeral(Ephemeral {
                target: peer.name.as_ref().map_or("", PeerId::as_str),
                ..ephemeral.clone()
            });
            peer.presence.push_back(protocol::encode(&message).into());
            if peer.presence.len() > PRESENCE_MAX {
                peer.presence.pop_front();
            }
        }
    }

    /// Tells the senders what was refused of them.
    pub(crate) fn report(&mut self, id: DocumentId) {
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        for (from, hash, refusal) in std::mem::take(&mut document.reports) {
            let Some(peer) = self.peers.get_mut(&from.0) else {
                continue;
            };
            let refused = Message::Refused(Refused {
                sender: &self.name,
                target: peer.name.as_ref().map_or("", PeerId::as_str),
                document: id.to_string().into(),
                hashes: hash.into_iter().collect(),
                code: refusal.code(),
                reason: &refusal.to_string(),
            });
            peer.answers.push_back(protocol::encode(&refused).into());
        }
    }

    pub(crate) fn say_unavailable(&mut self, wire: WireId, id: DocumentId) {
        if let Some(peer) = self.peers.get_mut(&wire) {
            let unavailable = Message::DocUnavailable {
                sender: &self.name,
                target: peer.name.as_ref().map_or("", PeerId::as_str),
                document: id.to_string().into(),
            };
            peer.answers
                .push_back(protocol::encode(&unavailable).into());
        }
    }

    /// The next frame for a connection, and the sync message in it.
    pub(crate) fn next_frame(&mut self, wire: WireId) -> Option<(Bytes, Option<SyncData>)> {
        let peer = self.peers.get_mut(&wire)?;
        if let Some(answer) = peer.answers.pop_front() {
            return Some((answer, None));
        }
        let target = peer.name.as_ref()?;
        for (id, document) in &mut self.documents {
            let waiting = document.outbox_len(ConnectionId(wire));
            assert!(
                waiting <= ROOM,
                "{waiting} messages wait for one connection"
            );
            let Some(data) = document.take(ConnectionId(wire)) else {
                continue;
            };
            let frame = protocol::encode(&Message::Sync(SyncEnvelope {
                sender: &self.name,
                target: target.as_str(),
                document: id.to_string().into(),
                data: &data,
                request: false,
            }));
            return Some((frame.into(), Some((*id, data))));
        }
        let presence = self.peers.get_mut(&wire)?.presence.pop_front()?;
        Some((presence, None))
    }
}
