//! Honest input for every target, made from real values.

use std::sync::LazyLock;

use automerge::marks::{ExpandMark, Mark};
use automerge::sync::{State, SyncDoc};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, Change, ChangeHash, ObjType, ROOT, ScalarValue};
use reconverge::history::chunk::Chunk;
use reconverge::history::{DocumentChunks, History, Record, Row, encode_heads};
use reconverge::id::{Access, ConnectionId, DocumentId, Space};
use reconverge::leb::push_unsigned;
use reconverge::protocol::{
    self, Ephemeral, Flags, HeadsOfStorage, Message, PeerMetadata, Refused, RemoteHeads,
    SyncEnvelope, SyncMessage,
};

use super::mutate::join;
use crate::trace::{FRIENDS, Trace};
use crate::world::sync_message;

/// The corpus of all targets, and what it was made of.
#[derive(Debug)]
pub struct Corpus {
    /// Wire frames.
    pub frames: Vec<Vec<u8>>,
    /// Sync messages.
    pub syncs: Vec<Vec<u8>>,
    /// Chunks of all kinds, and the published crashers.
    pub chunks: Vec<Vec<u8>>,
    /// What is in change chunks: of [`Corpus::base`], and of changes on top of it.
    pub changes: Vec<Vec<u8>>,
    /// What is in document chunks.
    pub documents: Vec<Vec<u8>>,
    /// Stored records.
    pub records: Vec<Vec<u8>>,
    /// Stored rows.
    pub rows: Vec<Vec<u8>>,
    /// Whole stored documents: record, outline, two segments, a row.
    pub stored: Vec<Vec<u8>>,
    /// Stored acknowledged heads.
    pub heads: Vec<Vec<u8>>,
    /// Ids and urls.
    pub names: Vec<Vec<u8>>,
    /// A stored document of all types of values, on top of which [`Corpus::changes`] come.
    pub base: (Record, Vec<Row>),
}

/// Made when first used.
pub static CORPUS: LazyLock<Corpus> = LazyLock::new(Corpus::make);

impl Corpus {
    fn make() -> Self {
        let mut base = values();
        let on_top = edits(&mut base);
        let crashers = crashers().into_iter().map(|(_, bytes)| bytes);
        let mut all = base.get_changes(&[]);
        let stored_base = {
            let (record, _, row) = history_of(&all).into_stored();
            (record, row.into_iter().collect())
        };
        all.extend(on_top.iter().cloned());

        let data = |bytes: &[u8]| Chunk::split(bytes).unwrap().0.data.to_vec();
        let saved = saved(&base, &on_top);
        let mut chunks: Vec<Vec<u8>> = all.iter().map(|c| c.raw_bytes().to_vec()).collect();
        chunks.extend(all.iter().map(|c| c.clone().bytes().to_vec()));
        chunks.extend(saved.iter().cloned());
        chunks.extend(crashers);

        let stored = stored_documents();
        let part = |at: usize| {
            let part = move |s: &Vec<Vec<u8>>| s[at].clone();
            stored.iter().map(part).filter(|part| !part.is_empty())
        };
        Self {
            frames: frames(),
            syncs: syncs(&mut base, &saved[0]),
            changes: all.iter().map(|c| data(c.raw_bytes())).collect(),
            documents: saved.iter().map(|bytes| data(bytes)).collect(),
            chunks,
            records: part(0).collect(),
            rows: part(4).collect(),
            stored: stored.iter().map(|parts| join(parts)).collect(),
            heads: (0..4)
                .map(|n| encode_heads(&vec![ChangeHash([n; 32]); usize::from(n)]))
                .collect(),
            names: names(),
            base: stored_base,
        }
    }
}

/// The files on which earlier versions of Automerge crashed, and their names.
///
/// # Panics
/// When they are not there.
#[must_use]
pub fn crashers() -> Vec<(String, Vec<u8>)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/data/fuzz-crashers");
    let mut found: Vec<(String, Vec<u8>)> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != "LICENSE")
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    found.sort();
    assert!(found.len() >= 8, "crashers in {directory}");
    found
}

fn actor(n: u8) -> ActorId {
    ActorId::from([n; 16])
}

/// A document with objects and values of all types.
fn values() -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(actor(1));
    let map = doc.put_object(ROOT, "map", ObjType::Map).unwrap();
    let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.put_object(ROOT, "table", ObjType::Table).unwrap();
    doc.commit();
    let scalars = [
        ScalarValue::Null,
        ScalarValue::Boolean(true),
        ScalarValue::Int(-70_000),
        ScalarValue::Uint(u64::MAX),
        ScalarValue::F64(1.5),
        ScalarValue::Str("grün".into()),
        ScalarValue::Bytes(vec![0, 255]),
        ScalarValue::Timestamp(1_795_000_000_000),
        ScalarValue::counter(3),
    ];
    for (at, value) in scalars.into_iter().enumerate() {
        doc.put(&map, format!("{at}"), value.clone()).unwrap();
        doc.insert(&list, at, value).unwrap();
    }
    doc.commit();
    doc.splice_text(&text, 0, 0, "hello wörld").unwrap();
    doc.commit_with(CommitOptions::default().with_message("typed").with_time(1));
    let strong = Mark::new("strong".into(), true, 1, 4);
    doc.mark(&text, strong, ExpandMark::Both).unwrap();
    doc.increment(&map, "8", 2).unwrap();
    doc.delete(&map, "0").unwrap();
    doc.delete(&list, 2).unwrap();
    doc.commit();
    let mut other = doc.fork().with_actor(actor(2));
    other.splice_text(&text, 5, 1, "123").unwrap();
    other.put_object(&list, 1, ObjType::Map).unwrap();
    other.commit();
    doc.splice_text(&text, 0, 2, "J").unwrap();
    doc.commit();
    doc.merge(&mut other).unwrap();
    doc.put(ROOT, "merged", true).unwrap();
    doc.commit();
    doc
}

/// Changes that others make on top of all of it, each of an author of its own.
fn edits(base: &mut AutoCommit) -> Vec<Change> {
    type Edit = fn(&mut AutoCommit);
    let edits: [Edit; 5] = [
        |doc| doc.put(ROOT, "map", ScalarValue::Null).unwrap(),
        |doc| {
            let list = doc.put_object(ROOT, "new", ObjType::List).unwrap();
            for n in 0..40 {
                doc.insert(&list, 0, n).unwrap();
            }
            let inner = doc.insert_object(&list, 3, ObjType::Text).unwrap();
            doc.splice_text(&inner, 0, 0, "inside").unwrap();
            doc.delete(&list, 5).unwrap();
        },
        |doc| {
            let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
            let long = "a long text that is deflated, ".repeat(20);
            doc.splice_text(&text, 0, 0, &long).unwrap();
        },
        |doc| {
            for n in 0..12 {
                doc.put_object(ROOT, format!("object {n}"), ObjType::Map)
                    .unwrap();
            }
        },
        |doc| doc.increment(ROOT, "count", 1).unwrap(),
    ];
    base.put(ROOT, "count", ScalarValue::counter(0)).unwrap();
    base.commit();
    let made = edits.iter().zip(10..).map(|(edit, n)| {
        let mut doc = base.fork().with_actor(actor(n));
        edit(&mut doc);
        doc.commit();
        doc.get_last_local_change().unwrap()
    });
    made.collect()
}

/// Documents as they are saved: small and without deflated columns, large and with them.
fn saved(base: &AutoCommit, on_top: &[Change]) -> Vec<Vec<u8>> {
    let mut whole = base.clone();
    whole.apply_changes(on_top.iter().cloned()).unwrap();
    let trace = Trace::load(FRIENDS).replay(600);
    vec![
        base.clone().save(),
        whole.save(),
        whole.save_nocompress(),
        trace.saved.to_vec(),
    ]
}

struct Built(History);

const AUTHOR: ConnectionId = ConnectionId(1);

fn history_of(changes: &[Change]) -> Built {
    let mut history = History::new(Space::default());
    history.join(AUTHOR, Access::Write);
    Built(history).with(changes)
}

impl Built {
    fn with(mut self, changes: &[Change]) -> Self {
        let chunks: Vec<&[u8]> = changes.iter().map(Change::raw_bytes).collect();
        let message = sync_message(&[], &[], &chunks);
        let message = SyncMessage::decode(&message).unwrap();
        let received = self
            .0
            .receive(AUTHOR, &message, DocumentChunks::Report)
            .unwrap();
        assert_eq!(received.admitted as usize, changes.len());
        self
    }

    /// Record, outline if there is a snapshot, and the row after it.
    fn into_stored(mut self) -> (Record, Vec<u8>, Option<Row>) {
        let row = self.0.take_unsaved().map(|(_, row)| row);
        self.0.committed();
        (self.0.record().clone(), Vec::new(), row)
    }
}

/// The recorded editing of two authors, stored without a snapshot, with one, and with two behind
/// each other, with and without a tail.
fn stored_documents() -> Vec<Vec<Vec<u8>>> {
    let replayed = Trace::load(FRIENDS).replay(240);
    let changes: Vec<Change> = replayed
        .changes
        .iter()
        .map(|change| Change::try_from(change.bytes.as_ref()).unwrap())
        .collect();
    let (record, outline, row) = history_of(&changes[..60]).into_stored();
    let mut all = vec![vec![
        record.encode(),
        outline,
        Vec::new(),
        Vec::new(),
        row.unwrap().encode(),
    ]];
    let mut built = history_of(&changes[..100]);
    let mut segments = Vec::new();
    for end in [100, 200] {
        let _ = built.0.take_unsaved();
        built.0.committed();
        let fold = built.0.begin_fold();
        segments.push(fold.segment.to_vec());
        let mut record = fold.record;
        record.snapshot_bytes = 1_000;
        let second = segments.get(1).cloned().unwrap_or_default();
        let parts = |row: Vec<u8>| {
            let (record, outline) = (record.encode(), fold.outline.clone());
            vec![
                record,
                outline.to_vec(),
                segments[0].clone(),
                second.clone(),
                row,
            ]
        };
        all.push(parts(Vec::new()));
        built.0.folded(record.clone());
        let to = (end + 100).min(changes.len());
        built = built.with(&changes[end..to]);
        let tail = Row {
            changes: built.0.unsaved().to_vec(),
        };
        all.push(parts(tail.encode()));
    }
    all
}

fn document_id() -> DocumentId {
    DocumentId::new(&[7; 16]).unwrap()
}

fn names() -> Vec<Vec<u8>> {
    let id = document_id().to_string();
    let long = DocumentId::new(&[255; 32]).unwrap().to_string();
    [
        id.clone(),
        format!("automerge:{id}"),
        long,
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(),
        "automerge:6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(),
        "peer-1f2e".into(),
    ]
    .map(String::into_bytes)
    .into()
}

fn syncs(base: &mut AutoCommit, saved: &[u8]) -> Vec<Vec<u8>> {
    let changes = base.get_changes(&[]);
    let heads = base.get_heads();
    let chunks: Vec<&[u8]> = changes.iter().map(Change::raw_bytes).collect();
    let mut all = vec![
        sync_message(&[], &[], &[]),
        sync_message(&heads, &heads, &chunks[..3]),
        sync_message(&heads, &[], &[saved]),
    ];
    for flags in [Flags::default(), all_flags()] {
        let mut message = sync_message(&heads, &[], &chunks[..1]);
        message.extend(flags.encode());
        all.push(message);
    }
    // Two stock clients, one of which has nothing, the other all of it.
    let (mut fresh, mut ours, mut theirs) = (AutoCommit::new(), State::new(), State::new());
    for _ in 0..8 {
        if let Some(message) = base.sync().generate_sync_message(&mut ours) {
            all.push(message.clone().encode());
            let received = fresh.sync().receive_sync_message(&mut theirs, message);
            received.unwrap();
        }
        if let Some(message) = fresh.sync().generate_sync_message(&mut theirs) {
            all.push(message.clone().encode());
            base.sync()
                .receive_sync_message(&mut ours, message)
                .unwrap();
        }
    }
    all
}

fn all_flags() -> Flags {
    Flags {
        sync_reset: true,
        read_only: true,
        supports_sync_reset: true,
    }
}

/// All ten types of messages and those of ours, as this encoder and as cbor-x write them.
fn frames() -> Vec<Vec<u8>> {
    let document = document_id().to_string();
    let (sender, target) = ("ann", "relay");
    let metadata = PeerMetadata {
        storage_id: Some("3f0c".into()),
        is_ephemeral: false,
        reconverge: 1,
    };
    let sync = sync_message(&[ChangeHash([1; 32])], &[], &[b"chunk"]);
    let envelope = SyncEnvelope {
        sender,
        target,
        document: document.as_str().into(),
        data: &sync,
        request: false,
    };
    let messages = [
        Message::Join {
            sender,
            metadata: metadata.clone(),
            speaks_v1: true,
        },
        Message::Peer {
            sender: target,
            target: sender,
            metadata,
        },
        Message::Error {
            sender: Some(target),
            target: Some(sender),
            message: "no",
        },
        Message::Leave { sender },
        protocol::PING,
        protocol::PONG,
        Message::Sync(envelope.clone()),
        Message::Sync(SyncEnvelope {
            request: true,
            ..envelope
        }),
        Message::DocUnavailable {
            sender: target,
            target: sender,
            document: document.as_str().into(),
        },
        Message::Ephemeral(Ephemeral {
            sender,
            target,
            document: document.as_str().into(),
            count: 1 << 40,
            session: "x",
            data: &[0xa0],
        }),
        Message::RemoteSubscriptionChange {
            sender,
            target,
            add: vec!["one", "two"],
            remove: vec!["three"],
        },
        Message::RemoteHeadsChanged(RemoteHeads {
            sender,
            target,
            document: document.as_str().into(),
            heads: vec![HeadsOfStorage {
                storage: "one",
                heads: vec!["h".into(), "i".into()],
                timestamp_ms: 1_795_000_000_000.5,
            }],
        }),
        Message::Refused(Refused {
            sender: target,
            target: sender,
            document: document.as_str().into(),
            hashes: vec![ChangeHash([7; 32])],
            code: "document_full",
            reason: "no",
        }),
        Message::Unknown { kind: "telepathy" },
    ];
    let mut frames: Vec<Vec<u8>> = messages.iter().map(protocol::encode).collect();
    frames.extend(cbor_x(&document, &sync));
    frames
}

/// Frames as cbor-x 1.6 writes them: map headers of three bytes, `undefined`, long floats; and the
/// id as bytes, as `samod` may.
fn cbor_x(document: &str, sync: &[u8]) -> Vec<Vec<u8>> {
    fn text(text: &str) -> Vec<u8> {
        let mut out = match u8::try_from(text.len()) {
            Ok(len @ 0..24) => vec![0x60 | len],
            Ok(len) => vec![0x78, len],
            Err(_) => panic!("short texts only"),
        };
        out.extend_from_slice(text.as_bytes());
        out
    }
    fn bytes(bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0x59];
        out.extend((bytes.len() as u16).to_be_bytes());
        out.extend_from_slice(bytes);
        out
    }
    fn map(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut out = vec![0xb9, 0, fields.len() as u8];
        for (key, value) in fields {
            out.extend(text(key));
            out.extend_from_slice(value);
        }
        out
    }
    let list = |texts: &[&str]| {
        let mut out = vec![0x80 | texts.len() as u8];
        out.extend(texts.iter().flat_map(|t| text(t)));
        out
    };
    let mut number = vec![0xfb];
    number.extend(4_294_967_297_f64.to_be_bytes());
    let metadata = map(&[
        ("storageId", vec![0xf7]),
        ("isEphemeral", vec![0xf5]),
        ("nested", map(&[("a", vec![0x81, 0x81, 0xf6])])),
    ]);
    let mut raw_id = Vec::new();
    push_unsigned(&mut raw_id, 0x50);
    raw_id.extend([7; 16]);
    vec![
        map(&[
            ("type", text("join")),
            ("senderId", text("ann")),
            ("peerMetadata", metadata),
            ("supportedProtocolVersions", list(&["1"])),
        ]),
        map(&[
            ("type", text("sync")),
            ("senderId", text("ann")),
            ("targetId", vec![0xf7]),
            ("documentId", text(document)),
            ("data", bytes(sync)),
        ]),
        map(&[
            ("type", text("request")),
            ("senderId", text("ann")),
            ("targetId", text("relay")),
            ("documentId", raw_id),
            ("data", bytes(sync)),
        ]),
        map(&[
            ("type", text("ephemeral")),
            ("senderId", text("ann")),
            ("targetId", text("relay")),
            ("documentId", text(document)),
            ("count", number.clone()),
            ("sessionId", text("s")),
            ("data", bytes(&[0xf6])),
        ]),
        map(&[
            ("type", text("remote-heads-changed")),
            ("senderId", text("ann")),
            ("targetId", text("relay")),
            ("documentId", text(document)),
            (
                "newHeads",
                map(&[(
                    "one",
                    map(&[("heads", list(&["a", "b"])), ("timestamp", number)]),
                )]),
            ),
        ]),
    ]
}
