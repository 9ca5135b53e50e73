//! A relay's machines without its sockets, disk and clock: a session for each connection, a history
//! for each document, and the turn between them. It counts what comes and what that costs.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use reconverge::history::{DocumentChunks, History, LIGHT_STEPS_MAX, NeedGraph, Progress, Work};
use reconverge::id::{Access, ConnectionId, DocumentId, PeerId, Space};
use reconverge::protocol::SyncMessage;
use reconverge::session::{Event, Local, Session};

use crate::counting;

/// Most messages that one turn says to one peer; the rest follows in the next turns.
const POLLS_MAX: usize = 4;

/// Most bytes that are looked at where sockets are served, as in the relay.
const LIGHT_BYTES_MAX: usize = 64 * 1024;

/// A document: what is in memory, and what is on disk.
struct Document {
    history: History,
    /// Bytes of the rows that are not folded.
    rows: u64,
    outline: Option<Bytes>,
    segments: Vec<Bytes>,
    /// Messages of which a part is taken in.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    from: ConnectionId,
    data: Vec<u8>,
    progress: Progress,
}

struct Connection {
    session: Session,
    access: Access,
    reads: bool,
}

/// See the module's page.
pub(crate) struct Relay {
    connections: BTreeMap<ConnectionId, Connection>,
    documents: BTreeMap<DocumentId, Document>,
    /// Bytes of frames that came.
    pub(crate) received: u64,
    /// Steps of histories that are closed.
    steps_before: u64,
    /// What the histories have allocated.
    live: isize,
}

impl Relay {
    pub(crate) fn new() -> Self {
        Self {
            connections: BTreeMap::new(),
            documents: BTreeMap::new(),
            received: 0,
            steps_before: 0,
            live: 0,
        }
    }

    /// How many steps were taken.
    pub(crate) fn steps(&self) -> u64 {
        let documents = self.documents.values();
        self.steps_before + documents.map(|d| d.history.steps()).sum::<u64>()
    }

    /// How many bytes the histories say that they hold.
    pub(crate) fn held(&self) -> usize {
        self.documents
            .values()
            .map(|d| d.history.held_bytes())
            .sum()
    }

    /// The same for one connection.
    pub(crate) fn held_for(&self, connection: ConnectionId) -> usize {
        let documents = self.documents.values();
        documents.map(|d| d.history.held_for(connection)).sum()
    }

    /// What the machines have allocated.
    pub(crate) fn live(&self) -> isize {
        self.live
    }

    pub(crate) fn documents_len(&self) -> usize {
        self.documents.len()
    }

    pub(crate) fn is_connected(&self, connection: ConnectionId) -> bool {
        self.connections.contains_key(&connection)
    }

    pub(crate) fn connect(&mut self, id: ConnectionId, access: Access) {
        let peer = PeerId::new("relay").unwrap();
        let storage_id = "3f0c".into();
        let connection = Connection {
            session: Session::new(Local { peer, storage_id }),
            access,
            reads: true,
        };
        self.connections.insert(id, connection);
    }

    /// Whether what is said to it is taken.
    pub(crate) fn set_reads(&mut self, id: ConnectionId, reads: bool) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.reads = reads;
        }
    }

    pub(crate) fn disconnect(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
        for document in self.documents.values_mut() {
            for waiting in &mut document.waiting {
                if waiting.from == id {
                    drop_counted(&mut self.live, std::mem::take(&mut waiting.progress));
                }
            }
            document.waiting.retain(|waiting| waiting.from != id);
            counted(&mut self.live, || document.history.leave(id));
            assert_eq!(document.history.held_for(id), 0, "it left");
        }
    }

    /// A frame of a connection, which is not there any more if it broke the protocol.
    pub(crate) fn receive(&mut self, from: ConnectionId, frame: &[u8]) {
        let Some(connection) = self.connections.get_mut(&from) else {
            return;
        };
        self.received += frame.len() as u64;
        let mut ends = false;
        match connection.session.handle(frame) {
            Ok(Event::Sync(envelope)) => {
                if let Ok(id) = envelope.document.parse::<DocumentId>() {
                    ends = self.sync(id, from, envelope.data);
                }
            }
            Ok(Event::Left) => ends = true,
            Err(error) => {
                drop(connection.session.farewell(&error));
                ends = true;
            }
            Ok(_) => {}
        }
        if ends {
            self.disconnect(from);
        }
    }

    /// A sync message; whether it ends its connection.
    fn sync(&mut self, id: DocumentId, from: ConnectionId, data: &[u8]) -> bool {
        if let Err(error) = SyncMessage::decode(data) {
            return !error.is_of_its_document();
        }
        let access = self.connections[&from].access;
        let document = self.documents.entry(id).or_insert_with(Document::new);
        counted(&mut self.live, || document.history.join(from, access));
        let mut waiting = Waiting {
            from,
            data: data.to_vec(),
            progress: Progress::default(),
        };
        let is_first = document.waiting.iter().all(|other| other.from != from);
        let is_light = is_first && data.len() <= LIGHT_BYTES_MAX;
        if is_light {
            let before = document.history.steps();
            let more = document.take_in(&mut waiting, Work::Light, &mut self.live);
            let steps = document.history.steps() - before;
            let max = LIGHT_STEPS_MAX + 8 * data.len() as u64 + LIGHT_STEPS_MAX / 8;
            assert!(steps <= max, "{steps} steps where sockets are served");
            if !more {
                drop_counted(&mut self.live, waiting.progress);
                self.turn(id);
                return false;
            }
        }
        document.waiting.push_back(waiting);
        self.turn(id);
        false
    }

    /// One slice of what waits, of each document.
    pub(crate) fn slice(&mut self) {
        let ids: Vec<_> = self.documents.keys().copied().collect();
        for id in ids {
            let document = self.documents.get_mut(&id).expect("just listed");
            let Some(mut waiting) = document.waiting.pop_front() else {
                continue;
            };
            if document.take_in(&mut waiting, Work::Slice, &mut self.live) {
                // What others sent comes between.
                document.waiting.push_back(waiting);
            } else {
                drop_counted(&mut self.live, waiting.progress);
            }
            self.turn(id);
        }
    }

    /// Whether something waits to be taken in.
    pub(crate) fn is_busy(&self) -> bool {
        self.documents.values().any(|d| !d.waiting.is_empty())
    }

    fn turn(&mut self, id: DocumentId) {
        let document = self.documents.get_mut(&id).expect("it is open");
        document.save(&mut self.live);
        for (peer, connection) in &self.connections {
            for _ in 0..POLLS_MAX {
                if !connection.reads || !document.say(*peer, &mut self.live) {
                    break;
                }
            }
        }
    }

    /// Folds what is stored of a document, and opens it anew.
    pub(crate) fn fold_and_reopen(&mut self, id: &DocumentId) {
        let Some(document) = self.documents.get_mut(id) else {
            return;
        };
        if document.history.len() == document.history.record().folded {
            return;
        }
        self.steps_before += document.history.steps();
        document.fold_and_reopen(&mut self.live);
    }
}

fn counted<T>(live: &mut isize, run: impl FnOnce() -> T) -> T {
    let before = counting::live();
    let done = run();
    *live += counting::live() - before;
    done
}

fn drop_counted<T>(live: &mut isize, gone: T) {
    counted(live, || drop(gone));
}

impl Document {
    fn new() -> Self {
        Self {
            history: History::new(Space::default()),
            rows: 0,
            outline: None,
            segments: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Whether there is more of it.
    fn take_in(&mut self, waiting: &mut Waiting, work: Work, live: &mut isize) -> bool {
        let message = SyncMessage::decode(&waiting.data).expect("it was decoded before");
        let documents = DocumentChunks::Unpacked;
        loop {
            let (history, progress) = (&mut self.history, &mut waiting.progress);
            let part = || {
                let part = history.receive_part(waiting.from, &message, documents, progress, work);
                part.map(|received| received.more)
            };
            match counted(live, part) {
                Ok(more) => return more,
                Err(NeedGraph) if work == Work::Light => {
                    drop_counted(live, waiting.progress.found());
                    return true;
                }
                Err(NeedGraph) => {
                    let loaded = counted(live, || self.history.load_graph(&self.segments));
                    loaded.expect("it is what was stored");
                }
            }
        }
    }

    fn save(&mut self, live: &mut isize) {
        if let Some((_, row)) = counted(live, || self.history.take_unsaved()) {
            self.rows += row.bytes() as u64;
            drop_counted(live, row);
        }
        counted(live, || self.history.committed());
    }

    /// Says what there is to say to a peer; whether there was.
    fn say(&mut self, to: ConnectionId, live: &mut isize) -> bool {
        counted(live, || match self.history.poll_send(to) {
            Some(outgoing) => {
                drop(outgoing.encode_head(0));
                true
            }
            None => false,
        })
    }

    fn fold_and_reopen(&mut self, live: &mut isize) {
        let fold = self.history.begin_fold();
        let mut record = fold.record;
        record.snapshot_bytes += std::mem::take(&mut self.rows);
        record.rows_from = record.folded;
        record.retained.clear();
        self.segments.push(fold.segment);
        self.outline = Some(fold.outline);
        let before = std::mem::replace(&mut self.history, History::new(Space::default()));
        let peers = counted(live, || before.into_peers());
        let opened = counted(live, || {
            let mut opened = History::open(record, self.outline.as_deref(), &[])?;
            opened.set_peers(peers);
            Some(opened)
        });
        self.history = opened.expect("it is what was stored");
    }
}
