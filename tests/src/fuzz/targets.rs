//! What must hold for whatever bytes come: one function per target, and one that only reads.

use std::hint::black_box;
use std::io::Write;

use automerge::ChangeHash;
use bytes::Bytes;
use reconverge::history::chunk::{Chunk, ChunkKind};
use reconverge::history::{
    DocumentChunks, History, Outgoing, Received, Record, Row, decode_heads, encode_heads,
};
use reconverge::id::{
    Access, ConnectionId, DOCUMENT_ID_BYTES_MAX, DocumentId, PEER_ID_BYTES_MAX, PeerId,
    SPACE_BYTES_MAX, Space,
};
use reconverge::leb::push_unsigned;
use reconverge::protocol::{self, Message, SyncMessage};
use reconverge::session::{ClientSession, Event, Local, ServerEvent, Session};

use super::corpus::CORPUS;
use super::mutate::split;
use crate::forge;
use crate::world::sync_message;

const AUTHOR: ConnectionId = ConnectionId(1);
const READER: ConnectionId = ConnectionId(2);
const LATER: ConnectionId = ConnectionId(3);

/// A wire frame: what is read is read again as it is written.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn frame(bytes: &[u8]) -> bool {
    let Ok(mut message) = protocol::decode(bytes) else {
        return false;
    };
    let written = protocol::encode(&message);
    let read = protocol::decode(&written).expect("what is written is read");
    if let Message::Join { speaks_v1, .. } = &mut message {
        // Nothing else is ever written.
        *speaks_v1 = true;
    }
    // A time that is not a number is not equal to itself, but looks like it.
    let same = read == message || format!("{read:?}") == format!("{message:?}");
    assert!(same, "{message:?} was read again as {read:?}");
    true
}

/// Only reads.
pub fn read_frame(bytes: &[u8]) {
    let _ = black_box(protocol::decode(bytes));
}

fn local(name: &str) -> Local {
    Local {
        peer: PeerId::new(name).expect("a good name"),
        storage_id: "3f0c".into(),
    }
}

/// A frame to a relay's and to a client's session, before the handshake and after. An error
/// changes nothing and can be told; what comes out is in the peer's name.
///
/// # Panics
/// When that is not so.
#[must_use]
pub fn session(bytes: &[u8]) -> bool {
    let join = ClientSession::new(local("ann")).join();
    let mut accepted = false;
    for joined in [false, true] {
        let mut relay = Session::new(local("relay"));
        let mut client = ClientSession::new(local("ann"));
        if joined {
            let Ok(Event::Joined { reply, .. }) = relay.handle(&join) else {
                panic!("an honest client is let in");
            };
            client.handle(&reply).expect("an honest relay lets us in");
        }
        accepted |= to_relay(&mut relay, bytes, joined);
        accepted |= to_client(&mut client, bytes, joined);
        // Whatever came, an honest peer on this connection would go on.
        if joined {
            let leave = protocol::encode(&Message::Leave { sender: "ann" });
            assert_eq!(relay.handle(&leave), Ok(Event::Left));
        }
    }
    accepted
}

fn to_relay(relay: &mut Session, bytes: &[u8], joined: bool) -> bool {
    let before = relay.remote().cloned();
    match relay.handle(bytes) {
        Err(error) => {
            assert_eq!(relay.remote(), before.as_ref());
            let farewell = relay.farewell(&error);
            let read = protocol::decode(&farewell).expect("a farewell is a frame");
            let said = error.to_string();
            assert!(matches!(read, Message::Error { message, .. } if message == said));
            return false;
        }
        Ok(Event::Joined {
            peer,
            storage_id,
            reply,
            ..
        }) => {
            assert!(!joined);
            assert!(storage_id.is_none_or(|id| id.len() <= 64));
            let read = protocol::decode(&reply).expect("a reply is a frame");
            assert!(matches!(read, Message::Peer { target, .. } if target == peer.as_str()));
            assert!(!peer.as_str().chars().any(char::is_control));
        }
        Ok(Event::Sync(sync)) => assert_eq!(sync.sender, "ann"),
        Ok(Event::Ephemeral(ephemeral)) => {
            assert_eq!(ephemeral.sender, "ann");
            assert!(ephemeral.data.len() <= protocol::EPHEMERAL_BYTES_MAX);
        }
        Ok(Event::RemoteHeads(remote)) => {
            assert_eq!(remote.sender, "ann");
            assert!(remote.heads.len() <= protocol::limits::REMOTE_STORAGES_MAX);
        }
        Ok(Event::RemoteSubscription { add, remove }) => {
            assert!(add.len().max(remove.len()) <= protocol::limits::SUBSCRIPTIONS_MAX);
        }
        Ok(Event::Ping { reply }) => {
            let read = protocol::decode(&reply).expect("a reply is a frame");
            assert_eq!(read, protocol::PONG);
        }
        Ok(Event::Unavailable | Event::Left | Event::Foreign { .. } | Event::Ignored(_)) => {}
    }
    assert_eq!(joined, before.is_some(), "nothing but a join comes first");
    true
}

fn to_client(client: &mut ClientSession, bytes: &[u8], joined: bool) -> bool {
    let before = client.remote().cloned();
    match client.handle(bytes) {
        Err(_) => {
            assert_eq!(client.remote(), before.as_ref());
            return false;
        }
        Ok(ServerEvent::Joined { .. }) => assert!(!joined),
        Ok(ServerEvent::Rejected { joining, .. }) => assert_eq!(joining, !joined),
        Ok(ServerEvent::Refused(refused)) => {
            assert!(refused.hashes.len() <= protocol::REFUSED_HASHES_MAX);
        }
        Ok(ServerEvent::Ephemeral(ephemeral)) => assert_ne!(ephemeral.sender, "ann"),
        Ok(
            ServerEvent::Sync(_)
            | ServerEvent::Unavailable(_)
            | ServerEvent::Pong
            | ServerEvent::Ignored(_),
        ) => {
            assert!(joined);
        }
    }
    true
}

/// A sync message: Automerge reads the same in it, and a history that takes it in answers with
/// messages that can be read, and comes to rest.
///
/// # Panics
/// When that is not so.
#[must_use]
pub fn sync(bytes: &[u8]) -> bool {
    let Ok(message) = SyncMessage::decode(bytes) else {
        return false;
    };
    for have in &message.have {
        black_box(have.bloom.contains(&ChangeHash([9; 32])));
    }
    if let Ok(theirs) = automerge::sync::Message::decode(bytes) {
        assert_eq!(message.heads, theirs.heads);
        assert_eq!(message.need, theirs.need);
        let ours = message.have.iter().map(|have| &have.last_sync);
        assert!(ours.eq(theirs.have.iter().map(|have| &have.last_sync)));
        assert!(message.changes.iter().copied().eq(theirs.changes.iter()));
    }
    let mut history = open_base();
    let _ = receive(&mut history, AUTHOR, &message);
    let _ = receive(&mut history, AUTHOR, &message);
    after(history);
    true
}

/// Only reads.
pub fn read_sync(bytes: &[u8]) {
    let _ = black_box(SyncMessage::decode(bytes));
}

fn open_base() -> History {
    let (record, rows) = &CORPUS.base;
    let mut history = History::open(record.clone(), None, rows).expect("stored by ourselves");
    history.join(AUTHOR, Access::Write);
    history.join(READER, Access::Read);
    history
}

fn receive(history: &mut History, from: ConnectionId, message: &SyncMessage<'_>) -> Received {
    let mut received = history
        .receive(from, message, DocumentChunks::Report)
        .expect("everything is resident");
    if received.unpack {
        received = history
            .receive(from, message, DocumentChunks::Unpacked)
            .expect("everything is resident");
    }
    received
}

fn check_outgoing(out: &Outgoing, len: u32) {
    let head = out.encode_head(0);
    let read = SyncMessage::decode(&head).expect("what is sent can be read");
    assert_eq!(read.heads, *out.heads);
    assert_eq!(read.need, out.need);
    assert!(out.changes.iter().all(|range| range.end <= len));
}

/// Whatever a history took in: it can be stored, opened again, served and folded, and it takes
/// more changes.
fn after(mut history: History) {
    const ANSWERS_MAX: usize = 32;
    let row = history.take_unsaved().map(|(_, row)| row);
    history.committed();
    for peer in [AUTHOR, READER] {
        let answers = std::iter::from_fn(|| history.poll_send(peer)).take(ANSWERS_MAX);
        let answers: Vec<_> = answers.collect();
        assert!(answers.len() < ANSWERS_MAX, "it never comes to rest");
        for out in &answers {
            check_outgoing(out, history.len());
        }
    }

    let (record, mut rows) = CORPUS.base.clone();
    if let Some(row) = row {
        let stored = Bytes::from(row.encode());
        assert_eq!(Row::decode(&stored).as_ref(), Some(&row));
        rows.push(row);
    }
    let reopened = History::open(record, None, &rows);
    let mut reopened = reopened.expect("what was stored can be opened");
    assert_eq!(reopened.durable_heads(), history.durable_heads());
    assert_eq!(reopened.hashes(), history.hashes());

    // Who has nothing gets all of it.
    reopened.join(LATER, Access::Write);
    let nothing = sync_message(&[], &[], &[]);
    let nothing = SyncMessage::decode(&nothing).expect("written by ourselves");
    let _ = receive(&mut reopened, LATER, &nothing);
    let out = reopened.poll_send(LATER).expect("there is a document");
    check_outgoing(&out, reopened.len());
    let sent: usize = out.changes.iter().map(ExactSizeIterator::len).sum();
    assert_eq!(sent, reopened.len() as usize);

    let mut folded = refold(&reopened);
    assert_eq!(folded.durable_heads(), history.durable_heads());
    assert_eq!(folded.hashes(), history.hashes());
    goes_on(&mut folded);
    goes_on(&mut reopened);
}

/// The same document, all of it below a snapshot.
fn refold(history: &History) -> History {
    let fold = history.begin_fold();
    let mut record = fold.record;
    record.snapshot_bytes = 1;
    let stored = Record::decode(&record.encode());
    assert_eq!(stored.as_ref(), Some(&record));
    let folded = History::open(record, Some(&fold.outline), &[]);
    let mut folded = folded.expect("what was folded can be opened");
    folded
        .load_graph(&[&fold.segment])
        .expect("its segment belongs to it");
    folded.join(LATER, Access::Write);
    folded
}

/// An honest change on top of everything enters, whatever is below.
fn goes_on(history: &mut History) {
    // What stands near the end of the counters takes nothing more.
    let top = u64::from(u32::MAX) / 2;
    let change = empty_change(&history.heads(), top);
    let message = sync_message(&[], &[], &[&change]);
    let message = SyncMessage::decode(&message).expect("written by ourselves");
    let received = receive(history, LATER, &message);
    let start_op = |refusal: &str| refusal.starts_with("start_op");
    let refused = received.refused.iter().map(|(_, why)| why.to_string());
    let above = refused.clone().any(|why| start_op(&why));
    assert!(
        received.admitted == 1 || above,
        "an honest change is refused: {:?}",
        refused.collect::<Vec<_>>()
    );
}

/// A change without operations, of an author that nobody knows.
fn empty_change(deps: &[ChangeHash], start_op: u64) -> Vec<u8> {
    let mut data = Vec::new();
    push_unsigned(&mut data, deps.len() as u64);
    data.extend(deps.iter().flat_map(|dep| dep.0));
    data.push(16);
    data.extend([0xee; 16]);
    data.push(1);
    push_unsigned(&mut data, start_op);
    // Time, message, other actors, columns.
    data.extend([0, 0, 0, 0]);
    forge::chunk(1, &data)
}

/// Chunks back to back: they are split as they are put together, and none enters that Automerge
/// does not read.
///
/// # Panics
/// When that is not so.
#[must_use]
pub fn chunk(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut verified = false;
    while let Ok((chunk, after)) = Chunk::split(rest) {
        assert!(!chunk.bytes.is_empty());
        assert_eq!(chunk.bytes.len() + after.len(), rest.len());
        let hash = chunk.verified_hash();
        verified |= hash.is_ok();
        if chunk.kind == ChunkKind::Document {
            black_box((chunk.document_heads(), chunk.declared_rows()));
        }
        if let Ok(inflated) = chunk.inflated() {
            let (whole, end) = Chunk::split(&inflated).expect("a chunk when inflated");
            assert!(end.is_empty());
            assert_eq!(whole.checksum, chunk.checksum);
            let deflated = chunk.kind == ChunkKind::DeflatedChange;
            assert_eq!(whole.kind == chunk.kind, !deflated);
        }
        if chunk.kind == ChunkKind::Change && hash.is_ok() {
            let again = forge::chunk(1, chunk.data);
            let (again, _) = Chunk::split(&again).expect("a chunk");
            assert_eq!(again.verified_hash(), hash);
            assert_eq!(again.data, chunk.data);
        }
        rest = after;
    }
    let message = sync_message(&[], &[], &[bytes]);
    let message = SyncMessage::decode(&message).expect("written by ourselves");
    let mut history = open_base();
    let received = receive(&mut history, AUTHOR, &message);
    for stored in history.unsaved() {
        automerge::Change::try_from(stored.bytes.as_ref()).expect("Automerge reads what entered");
    }
    if received.admitted > 0 {
        after(history);
    }
    verified
}

/// Only reads.
pub fn read_chunk(bytes: &[u8]) {
    if let Ok((chunk, _)) = Chunk::split(bytes) {
        let _ = black_box(chunk.verified_hash());
        let _ = black_box(chunk.inflated());
    }
}

fn admit(chunk: &[u8]) -> (History, Received) {
    let message = sync_message(&[], &[], &[chunk]);
    let message = SyncMessage::decode(&message).expect("written by ourselves");
    let mut history = open_base();
    let received = receive(&mut history, AUTHOR, &message);
    (history, received)
}

/// What is in a change, under a right checksum: deflated or not, the answer is the same, a second
/// time nothing enters, and what entered does no harm.
///
/// # Panics
/// When that is not so.
#[must_use]
pub fn change(data: &[u8]) -> bool {
    let plain = forge::chunk(1, data);
    let (mut history, received) = admit(&plain);
    let mut deflater = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    deflater.write_all(data).expect("into memory");
    let deflated = deflater.finish().expect("into memory");
    let deflated = forge::chunk_of_hash(2, &deflated, 1, data);
    let (other, received_deflated) = admit(&deflated);
    assert_eq!(received.admitted, received_deflated.admitted);
    assert_eq!(received.refused, received_deflated.refused);
    assert_eq!(history.hashes(), other.hashes());

    if received.admitted == 0 {
        assert_eq!(history.len(), open_base().len());
        // It is known already, or waits for another.
        return received.refused.is_empty();
    }
    let entered = automerge::Change::try_from(plain.as_slice());
    let entered = entered.expect("Automerge reads what entered");
    assert_eq!(history.unsaved()[0].hash, entered.hash());
    assert_eq!(history.unsaved()[0].bytes, plain);
    assert_eq!(u64::from(history.unsaved()[0].max_op), entered.max_op());
    let again = sync_message(&[], &[], &[&plain]);
    let again = SyncMessage::decode(&again).expect("written by ourselves");
    assert_eq!(receive(&mut history, AUTHOR, &again).admitted, 0);
    after(history);
    true
}

/// Only reads: a history with one more change, and what it stores.
pub fn read_change(data: &[u8]) {
    let (mut history, _) = admit(&forge::chunk(1, data));
    let row = history.take_unsaved().map(|(_, row)| row.encode());
    black_box(row);
}

/// What is in a document chunk, under a right checksum, as far as the relay looks before it gives
/// the chunk to the workshop.
///
/// # Panics
/// When a chunk is taken for known that is not.
#[must_use]
pub fn document(data: &[u8]) -> bool {
    let bytes = forge::chunk(0, data);
    let (chunk, rest) = Chunk::split(&bytes).expect("a chunk");
    assert!(rest.is_empty() && chunk.data == data);
    chunk.verified_hash().expect("the checksum is right");
    let heads = chunk.document_heads();
    let declared = chunk.declared_rows();
    let message = sync_message(&[], &[], &[&bytes]);
    let message = SyncMessage::decode(&message).expect("written by ourselves");
    let mut history = open_base();
    let received = history.receive(AUTHOR, &message, DocumentChunks::Report);
    let received = received.expect("everything is resident");
    let known = history.hashes().expect("everything is resident");
    let all = heads
        .as_ref()
        .is_some_and(|heads| !heads.is_empty() && heads.iter().all(|head| known.contains(head)));
    assert_eq!(received.unpack, !all);
    assert_eq!(received.admitted, 0);
    heads.is_some() && declared.is_some()
}

/// Only reads.
pub fn read_document(data: &[u8]) {
    let bytes = forge::chunk(0, data);
    if let Ok((chunk, _)) = Chunk::split(&bytes) {
        black_box((chunk.document_heads(), chunk.declared_rows()));
    }
}

/// A stored record.
///
/// # Panics
/// When it is not read again as it is written.
#[must_use]
pub fn record(bytes: &[u8]) -> bool {
    let Some(record) = Record::decode(bytes) else {
        return false;
    };
    let read = Record::decode(&record.encode());
    assert_eq!(read.as_ref(), Some(&record));
    true
}

/// Only reads.
pub fn read_record(bytes: &[u8]) {
    black_box(Record::decode(bytes));
}

/// A stored row.
///
/// # Panics
/// When it is not read again as it is written.
#[must_use]
pub fn row(bytes: &[u8]) -> bool {
    let Some(row) = Row::decode(&Bytes::copy_from_slice(bytes)) else {
        return false;
    };
    let read = Row::decode(&Bytes::from(row.encode()));
    assert_eq!(read.as_ref(), Some(&row));
    true
}

/// Only reads.
pub fn read_row(bytes: &[u8]) {
    black_box(Row::decode(&Bytes::copy_from_slice(bytes)));
}

fn open_stored(bytes: &[u8]) -> Option<(History, Vec<Bytes>)> {
    let parts = split(bytes);
    let [record, outline, first, second, row] = parts.as_slice() else {
        return None;
    };
    let record = Record::decode(record)?;
    let outline = (!outline.is_empty()).then_some(*outline);
    let mut rows = Vec::new();
    if !row.is_empty() {
        rows.push(Row::decode(&Bytes::copy_from_slice(row))?);
    }
    let segments = [first, second].into_iter().filter(|s| !s.is_empty());
    let segments = segments.map(|s| Bytes::copy_from_slice(s)).collect();
    Some((History::open(record, outline, &rows)?, segments))
}

/// A stored document, damaged: it is not opened, or what is opened can be used like any other. It
/// may answer nonsense, since nothing tells a wrong hash from a right one.
///
/// # Panics
/// When it panics.
#[must_use]
pub fn stored(bytes: &[u8]) -> bool {
    let Some((mut history, segments)) = open_stored(bytes) else {
        return false;
    };
    history.join(AUTHOR, Access::Write);
    history.join(LATER, Access::Write);
    let heads = history.durable_heads().to_vec();
    let known = sync_message(&heads, &heads, &[]);
    let unknown = sync_message(&[ChangeHash([5; 32])], &[], &[]);
    let nothing = sync_message(&[], &[], &[]);
    let change = empty_change(&heads, u64::from(u32::MAX) / 2);
    let oldest = heads.get(..1).unwrap_or_default();
    let concurrent = empty_change(oldest, u64::from(u32::MAX) / 2);
    let writes = sync_message(&[], &[], &[&change, &concurrent]);
    for message in [&nothing, &unknown, &known, &writes] {
        let message = SyncMessage::decode(message).expect("written by ourselves");
        let mut received = history.receive(AUTHOR, &message, DocumentChunks::Report);
        if received.is_err() {
            if history.load_graph(&segments).is_none() {
                return false;
            }
            received = history.receive(AUTHOR, &message, DocumentChunks::Report);
        }
        received.expect("the whole graph is loaded");
        let row = history.take_unsaved().map(|(_, row)| row.encode());
        black_box(row);
        history.committed();
        for peer in [AUTHOR, LATER] {
            black_box(history.bytes_to_send(peer));
            if let Some(out) = history.poll_send(peer) {
                check_outgoing(&out, history.len());
            }
        }
    }
    if history.load_graph(&segments).is_none() {
        return false;
    }
    black_box(history.hashes().expect("the whole graph is loaded"));
    let fold = history.begin_fold();
    let again = History::open(fold.record, Some(&fold.outline), &[]);
    let mut again = again.expect("what was folded can be opened");
    let segments: Vec<Bytes> = segments.into_iter().chain([fold.segment]).collect();
    if again.load_graph(&segments).is_none() {
        // The damaged record named fewer changes than the segments have.
        return false;
    }
    assert_eq!(again.hashes(), history.hashes());
    assert_eq!(again.begin_fold().outline, fold.outline);
    true
}

/// Only reads.
pub fn read_stored(bytes: &[u8]) {
    if let Some((mut history, segments)) = open_stored(bytes) {
        black_box(history.load_graph(&segments));
    }
}

/// Stored acknowledged heads.
///
/// # Panics
/// When they are not read again as they are written.
#[must_use]
pub fn heads(bytes: &[u8]) -> bool {
    let Some(heads) = decode_heads(bytes) else {
        return false;
    };
    assert_eq!(encode_heads(&heads), bytes);
    true
}

/// Only reads.
pub fn read_heads(bytes: &[u8]) {
    black_box(decode_heads(bytes));
}

/// The names that peers choose: document ids, as bytes and as text, peer ids, spaces. What is
/// taken is within its limits and does not break a line of the log.
///
/// # Panics
/// When that is not so.
#[must_use]
pub fn name(bytes: &[u8]) -> bool {
    let fits = (1..=DOCUMENT_ID_BYTES_MAX).contains(&bytes.len());
    assert_eq!(DocumentId::new(bytes).is_ok(), fits);
    if let Ok(id) = DocumentId::new(bytes) {
        assert_eq!(id.as_bytes(), bytes);
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let harmless = |name: &str| !name.is_empty() && !name.chars().any(char::is_control);
    if let Some(peer) = PeerId::new(text) {
        assert!(peer.as_str() == text && text.len() <= PEER_ID_BYTES_MAX && harmless(text));
    }
    if let Some(space) = Space::new(text) {
        assert!(space.as_str() == text && text.len() <= SPACE_BYTES_MAX && harmless(text));
    }
    match text.parse::<DocumentId>() {
        Ok(id) => {
            let shown = id.to_string();
            assert_eq!(shown.parse(), Ok(id));
            assert_eq!(format!("automerge:{shown}").parse(), Ok(id));
            true
        }
        Err(error) => {
            assert!(error.to_string().len() <= 2 * KIB, "an error is short");
            false
        }
    }
}

const KIB: usize = 1024;

/// Only reads.
pub fn read_name(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = black_box(text.parse::<DocumentId>());
    }
}
