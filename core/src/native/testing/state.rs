//! All that a test relay knows: who is connected, and the documents.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use automerge::ChangeHash;
use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::document::Document;
use super::line::{Line, Way};
use crate::history::by_code;
use crate::id::{ConnectionId, DocumentId, PeerId};
use crate::native::Broadcast;
use crate::protocol::{
    self, Ephemeral, Message, REFUSED_HASHES_MAX, Refused, SyncEnvelope, SyncMessage, code,
};
use crate::session::{Event, Local, Session};

/// What a relay's handles and the tasks of its connections share.
#[derive(Debug)]
pub(super) struct Shared {
    host: String,
    state: Mutex<State>,
    way: watch::Sender<Way>,
    /// Something happened.
    news: watch::Sender<()>,
}

#[derive(Debug)]
pub(super) struct State {
    local: Local,
    next_connection: u64,
    peers: BTreeMap<ConnectionId, Peer>,
    documents: BTreeMap<DocumentId, Document>,
    presence: Vec<(DocumentId, Broadcast)>,
    /// Nothing is stored.
    pub(super) holds: bool,
    /// No changes are taken, for this reason.
    pub(super) refuses: Option<String>,
}

/// One connection.
#[derive(Debug)]
struct Peer {
    session: Session,
    /// Its name, once it joined.
    name: Option<PeerId>,
    /// The version of our extensions that it understands.
    reconverge: u64,
    answers: VecDeque<Vec<u8>>,
    /// Documents of which it may have to be sent something.
    due: BTreeSet<DocumentId>,
    /// It is sent what waits, and then no more.
    closes: bool,
    wake: Arc<Notify>,
}

/// What a connection is to do next.
pub(super) enum Next {
    Send(Vec<u8>),
    Wait,
    Close,
}

impl Shared {
    pub(super) fn new(host: &str) -> Self {
        let local = Local {
            peer: PeerId::new(&format!("storage-server-{host}")).expect("short"),
            storage_id: uuid::Uuid::new_v4().to_string().into(),
        };
        let way = Way {
            line: Line::Open,
            ends: 0,
        };
        Self {
            host: host.to_owned(),
            state: Mutex::new(State {
                local,
                next_connection: 0,
                peers: BTreeMap::new(),
                documents: BTreeMap::new(),
                presence: Vec::new(),
                holds: false,
                refuses: None,
            }),
            way: watch::Sender::new(way),
            news: watch::Sender::new(()),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("ws://{}/", self.host)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn way(&self) -> watch::Receiver<Way> {
        self.way.subscribe()
    }

    /// Whether a connection can be tried.
    pub(super) fn is_there(&self) -> bool {
        !matches!(self.way.borrow().line, Line::Cut | Line::Gone)
    }

    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Tells that something happened.
    pub(super) fn tell(&self) {
        self.news.send_replace(());
    }

    pub(super) fn set_line(&self, line: Line) {
        self.way.send_modify(|way| way.line = line);
        self.tell();
    }

    /// Ends all connections. Nothing of them is taken in any more.
    pub(super) fn end_connections(&self, then: impl FnOnce(&mut State, &mut Line)) {
        let mut state = self.state();
        let peers = state.peers.keys().copied().collect::<Vec<_>>();
        for peer in peers {
            state.leave(peer);
        }
        // No other comes in between.
        self.way.send_modify(|way| {
            way.ends += 1;
            then(&mut state, &mut way.line);
        });
        drop(state);
        self.tell();
    }

    /// Somebody connected, unless all connections were ended since `ends`.
    pub(super) fn enter(&self, ends: u64) -> Option<(ConnectionId, Arc<Notify>)> {
        let mut state = self.state();
        if self.way.borrow().ends != ends {
            return None;
        }
        Some(state.enter())
    }

    pub(super) fn receive(&self, from: ConnectionId, frame: &Bytes) {
        self.state().receive(from, frame);
        self.tell();
    }

    pub(super) fn leave(&self, peer: ConnectionId) {
        self.state().leave(peer);
        self.tell();
    }
}

/// The connections.
impl State {
    fn enter(&mut self) -> (ConnectionId, Arc<Notify>) {
        self.next_connection += 1;
        let id = ConnectionId(self.next_connection);
        let wake = Arc::new(Notify::new());
        let peer = Peer {
            session: Session::new(self.local.clone()),
            name: None,
            reconverge: 0,
            answers: VecDeque::new(),
            due: BTreeSet::new(),
            closes: false,
            wake: wake.clone(),
        };
        self.peers.insert(id, peer);
        (id, wake)
    }

    fn leave(&mut self, id: ConnectionId) {
        if self.peers.remove(&id).is_none() {
            return;
        }
        let mut left = Vec::new();
        for (document, found) in &mut self.documents {
            if found.peers().contains(&id) {
                found.leave(id);
                left.push(*document);
            }
        }
        // What it was about to send will not come.
        left.into_iter().for_each(|document| self.turn(document));
    }

    pub(super) fn joined(&self) -> Vec<PeerId> {
        let joined = self.peers.values();
        joined.filter_map(|peer| peer.name.clone()).collect()
    }

    /// Takes in one frame. Of a connection that was ended, nothing is.
    fn receive(&mut self, from: ConnectionId, frame: &Bytes) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let event = match peer.session.handle(frame) {
            Ok(event) => event,
            Err(error) => {
                let farewell = peer.session.farewell(&error);
                peer.answer(farewell);
                peer.close();
                return;
            }
        };
        match event {
            Event::Joined {
                peer: name,
                reconverge,
                reply,
                ..
            } => {
                peer.name = Some(name);
                peer.reconverge = reconverge;
                peer.answer(reply);
            }
            Event::Sync(sync) => {
                let Ok(id) = sync.document.parse::<DocumentId>() else {
                    peer.close();
                    return;
                };
                match SyncMessage::decode(sync.data) {
                    Ok(_) => self.sync(from, id, frame.slice_ref(sync.data)),
                    Err(error) if error.is_of_its_document() => {
                        self.refuse(from, id, Vec::new(), code::LIMIT, &error.to_string());
                    }
                    Err(error) => {
                        let farewell = peer.session.farewell(&error);
                        peer.answer(farewell);
                        peer.close();
                    }
                }
            }
            Event::Ephemeral(ephemeral) => self.broadcast(from, &ephemeral),
            Event::Ping { reply } => peer.answer(reply),
            Event::Left => peer.close(),
            Event::Unavailable
            | Event::Foreign { .. }
            | Event::RemoteSubscription { .. }
            | Event::RemoteHeads(_)
            | Event::Ignored(_) => {}
        }
    }

    fn sync(&mut self, from: ConnectionId, id: DocumentId, data: Bytes) {
        let is_ours = self.peers[&from].reconverge > 0;
        let document = self.documents.entry(id).or_insert_with(Document::new);
        if !document.peers().contains(&from) {
            document.join(from, is_ours);
        }
        document.push(from, data);
        self.turn(id);
    }

    /// Passes presence on to all who speak of the document, if its sender does.
    fn broadcast(&mut self, from: ConnectionId, ephemeral: &Ephemeral<'_>) {
        let Ok(id) = ephemeral.document.parse::<DocumentId>() else {
            return;
        };
        let audience = self.documents.get(&id).map(Document::peers);
        let Some(audience) = audience.filter(|audience| audience.contains(&from)) else {
            return;
        };
        let Some(sender) = self.peers.get(&from).and_then(|peer| peer.name.clone()) else {
            return;
        };
        for to in audience {
            let peer = self.peers.get_mut(&to).filter(|_| to != from);
            let Some(peer) = peer.filter(|peer| peer.name.as_ref() != Some(&sender)) else {
                continue;
            };
            let message = Message::Ephemeral(Ephemeral {
                target: peer.name.as_ref().map_or("", PeerId::as_str),
                ..ephemeral.clone()
            });
            peer.answer(protocol::encode(&message));
        }
        let data = Bytes::copy_from_slice(ephemeral.data);
        self.presence.push((id, Broadcast { sender, data }));
    }

    /// Tells a peer that changes are not taken, if it understands that.
    fn refuse(
        &mut self,
        from: ConnectionId,
        id: DocumentId,
        mut hashes: Vec<ChangeHash>,
        code: &str,
        reason: &str,
    ) {
        hashes.truncate(REFUSED_HASHES_MAX);
        let sender = self.local.peer.as_str();
        let peer = self.peers.get_mut(&from);
        if let Some(peer) = peer.filter(|peer| peer.reconverge > 0) {
            let refused = Message::Refused(Refused {
                sender,
                target: peer.name.as_ref().map_or("", PeerId::as_str),
                document: id.to_string().into(),
                hashes,
                code,
                reason,
            });
            peer.answer(protocol::encode(&refused));
        }
    }

    /// What a connection is to do next; what is to be sent counts as sent.
    pub(super) fn next(&mut self, to: ConnectionId) -> Next {
        let Some(peer) = self.peers.get_mut(&to) else {
            return Next::Close;
        };
        if let Some(answer) = peer.answers.pop_front() {
            return Next::Send(answer);
        }
        if peer.closes {
            return Next::Close;
        }
        while let Some(id) = peer.due.first().copied() {
            let document = self.documents.get_mut(&id);
            if let Some(data) = document.and_then(|document| document.next_message(to)) {
                let message = Message::Sync(SyncEnvelope {
                    sender: self.local.peer.as_str(),
                    target: peer.name.as_ref().map_or("", PeerId::as_str),
                    document: id.to_string().into(),
                    data: &data,
                    request: false,
                });
                return Next::Send(protocol::encode(&message));
            }
            peer.due.remove(&id);
        }
        Next::Wait
    }
}

/// The documents.
impl State {
    /// Does what can be done of a document.
    fn turn(&mut self, id: DocumentId) {
        let (holds, refuses) = (self.holds, self.refuses.clone());
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        let came = document.turn(holds, refuses.is_some());
        let unavailable = document.unavailable_to();
        for peer in document.peers() {
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.due.insert(id);
                peer.wake.notify_one();
            }
        }
        for (from, refused) in came.refused {
            for (first, hashes) in by_code(&refused) {
                self.refuse(from, id, hashes, first.code(), &first.to_string());
            }
        }
        for from in came.unwanted {
            let reason = refuses.as_deref().unwrap_or_default();
            self.refuse(from, id, Vec::new(), "test", reason);
        }
        for to in unavailable {
            if let Some(peer) = self.peers.get_mut(&to) {
                let message = Message::DocUnavailable {
                    sender: self.local.peer.as_str(),
                    target: peer.name.as_ref().map_or("", PeerId::as_str),
                    document: id.to_string().into(),
                };
                peer.answer(protocol::encode(&message));
            }
        }
    }

    fn turn_all(&mut self) {
        let documents: Vec<_> = self.documents.keys().copied().collect();
        documents.into_iter().for_each(|id| self.turn(id));
    }

    pub(super) fn acknowledge(&mut self) {
        self.holds = false;
        self.turn_all();
    }

    pub(super) fn accept_changes(&mut self) {
        self.refuses = None;
        self.documents.values_mut().for_each(Document::ask_again);
        self.turn_all();
    }

    /// What was not stored is gone; nobody is connected.
    pub(super) fn forget_unstored(&mut self) {
        let documents = std::mem::take(&mut self.documents).into_iter();
        self.documents = documents
            .filter_map(|(id, document)| Some((id, document.reopened()?)))
            .collect();
    }

    pub(super) fn waiting(&self) -> Vec<String> {
        self.urls(Document::waits)
    }

    pub(super) fn stored(&self) -> Vec<String> {
        self.urls(|document| document.stored().len() > 0)
    }

    fn urls(&self, are: impl Fn(&Document) -> bool) -> Vec<String> {
        let found = self.documents.iter().filter(|(_, document)| are(document));
        found.map(|(id, _)| format!("automerge:{id}")).collect()
    }

    pub(super) fn changes(&self, id: &DocumentId) -> Option<Vec<Bytes>> {
        let document = self.documents.get(id)?;
        let changes: Vec<Bytes> = document.stored().cloned().collect();
        (!changes.is_empty()).then_some(changes)
    }

    pub(super) fn presence(&self, id: &DocumentId) -> Vec<Broadcast> {
        let of_document = self.presence.iter().filter(|(of, _)| of == id);
        of_document
            .map(|(_, broadcast)| broadcast.clone())
            .collect()
    }
}

impl Peer {
    fn answer(&mut self, frame: Vec<u8>) {
        self.answers.push_back(frame);
        self.wake.notify_one();
    }

    fn close(&mut self) {
        self.closes = true;
        self.wake.notify_one();
    }
}
