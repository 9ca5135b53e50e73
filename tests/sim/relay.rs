//! A relay: a session per connection, a turn per document, one disk.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use automerge::ChangeHash;
use bytes::Bytes;
use reconverge::id::{Access, ConnectionId, DocumentId, PeerId};
use reconverge::protocol::{self, Message, Refused, SyncEnvelope, SyncMessage};
use reconverge::session::{Event, Local, Session};
use reconverge_tests::world;

use crate::disk::Disk;
use crate::network::WireId;

/// Most messages of a document that wait for one connection.
const ROOM: usize = 8;

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
}

#[derive(Debug)]
pub(crate) struct Peer {
    session: Session,
    name: Option<PeerId>,
    access: Access,
    pub(crate) answers: VecDeque<Bytes>,
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
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            disk: Disk::holding(name, &[]),
            up: true,
            life: 0,
            documents: BTreeMap::new(),
            peers: BTreeMap::new(),
            named: HashMap::new(),
            lost: HashMap::new(),
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
        let disk = &self.disk;
        self.documents
            .entry(id)
            .or_insert_with(|| world::Relay::on(disk.clone(), id))
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
            Ok(_) => Then::Nothing,
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
        None
    }
}
