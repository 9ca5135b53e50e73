//! A history, and the peer that sends to it.

use automerge::{AutoCommit, ChangeHash};
use reconverge::history::chunk::ChunkError;
use reconverge::history::{
    ChangeError, DocumentChunks, History, Progress, Received, Refusal, Row, Work,
};
use reconverge::id::{Access, ConnectionId, Space};
use reconverge::protocol::{Flags, SyncMessage};

pub(crate) const PEER: ConnectionId = ConnectionId(1);

pub(crate) fn history() -> History {
    let mut history = History::new(Space::default());
    history.join(PEER, Access::Write);
    history
}

/// Sends chunks as a peer does, that names `heads` as its own.
pub(crate) fn send_as(history: &mut History, heads: &[ChangeHash], chunks: &[&[u8]]) -> Received {
    let flags = Flags {
        supports_sync_reset: true,
        ..Flags::default()
    };
    let message = SyncMessage {
        heads: heads.to_vec(),
        need: Vec::new(),
        have: Vec::new(),
        changes: chunks.to_vec(),
        flags: Some(flags),
    };
    let received = history.receive(PEER, &message, DocumentChunks::Report);
    received.expect("the whole graph is resident")
}

/// As much of a message as is taken in where sockets are served.
pub(crate) fn receive_light(history: &mut History, message: &SyncMessage<'_>) -> Received {
    let (progress, work) = (&mut Progress::default(), Work::Light);
    let received = history.receive_part(PEER, message, DocumentChunks::Report, progress, work);
    received.expect("the whole graph is resident")
}

pub(crate) fn send(history: &mut History, chunks: &[&[u8]]) -> Received {
    send_as(history, &[], chunks)
}

/// Stores what is new, and gives it back.
pub(crate) fn commit(history: &mut History) -> Option<Row> {
    let row = history.take_unsaved().map(|(_, row)| row);
    history.committed();
    row
}

/// A history that has all of a document.
pub(crate) fn history_of(doc: &mut AutoCommit) -> History {
    let mut history = history();
    for change in doc.get_changes(&[]) {
        let received = send(&mut history, &[change.raw_bytes()]);
        assert_eq!(received.refused, []);
        assert_eq!(received.admitted, 1);
    }
    history
}

/// The same history, opened from what it stored.
fn reopened(doc: &mut AutoCommit) -> History {
    let mut history = history_of(doc);
    let record = history.record().clone();
    let rows: Vec<Row> = commit(&mut history).into_iter().collect();
    let mut history = History::open(record, None, &rows).unwrap();
    history.join(PEER, Access::Write);
    history
}

#[track_caller]
pub(crate) fn check(doc: &mut AutoCommit, bad: &[u8], expect: &Refusal) {
    for mut history in [history_of(doc), reopened(doc)] {
        let len = history.len();
        let received = send(&mut history, &[bad]);
        let reasons: Vec<_> = received.refused.iter().map(|(_, reason)| reason).collect();
        assert_eq!(reasons, [expect]);
        assert_eq!((received.admitted, history.len()), (0, len));
        // Once more, nothing changes.
        let received = send(&mut history, &[bad]);
        assert_eq!((received.admitted, history.len()), (0, len));
    }
}

#[track_caller]
pub(crate) fn enters(history: &mut History, change: &[u8]) {
    let received = send(history, &[change]);
    assert_eq!((received.admitted, received.refused), (1, vec![]));
}

pub(crate) fn broken(error: ChunkError) -> Refusal {
    ChangeError::from(error).into()
}
