//! Aim: whatever a peer sends costs nobody but itself anything. It loses its connection, the log
//! names it and says why, the relay's memory stays within a bound, and an editor and a reader of
//! another document go on undisturbed.
//!
//! Method: the relay as a process, two light clients that share a document, and sockets that send
//! what no client sends.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use automerge::ChangeHash;
use reconverge::history::chunk::Chunk;
use reconverge::history::{CHANGE_BYTES_MAX, CHANGE_OPS_MAX};
use reconverge::id::DocumentId;
use reconverge::leb::push_unsigned;
use reconverge::protocol::{
    self, EPHEMERAL_BYTES_MAX, Ephemeral, MESSAGE_BYTES_MAX, Message, PeerMetadata,
};
use reconverge_tests::forge::{chunk, chunk_of_hash};
use reconverge_tests::fuzz::corpus::crashers;
use reconverge_tests::light::{Client, Document, PATIENCE};
use reconverge_tests::process::Relay;
use reconverge_tests::socket::{Frame, Socket, binary, control, part, sync_frame};
use reconverge_tests::typist::Typist;
use reconverge_tests::world::sync_message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

const MIB: u64 = 1024 * 1024;

/// What the relay may grow by while one message of the greatest size comes: the message, the
/// buffer that it grows in, which may be twice as large, and the one it grew from.
const GROWTH_MAX: u64 = 4 * MESSAGE_BYTES_MAX as u64;

/// What it may grow by for anything smaller: a change inflates to 64 MiB, in a buffer of twice the
/// size, and is copied.
const SMALL_GROWTH_MAX: u64 = 4 * CHANGE_BYTES_MAX as u64;

fn id(n: u8) -> DocumentId {
    DocumentId::new(&[n; 16]).unwrap()
}

/// A relay, and two who share a document there.
struct World {
    relay: Relay,
    typist: Typist,
    editor: Client,
    reader: Client,
}

impl World {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(arguments: &[&str]) -> Self {
        let relay = Relay::start_with(arguments);
        let (typist, first) = Typist::new(1);
        let mut editor = Client::connect(&relay.url(), "editor").await.unwrap();
        editor.open(Document::created(id(1), [first]));
        editor.until_acked(0).await.unwrap();
        let mut reader = Client::connect(&relay.url(), "reader").await.unwrap();
        reader.open(Document::new(id(1)));
        let mut world = Self {
            relay,
            typist,
            editor,
            reader,
        };
        world.go_on().await;
        world.relay.forget_peak();
        world
    }

    /// The editor types, and the reader sees it, both on the connections they have had from the
    /// beginning.
    async fn go_on(&mut self) {
        self.editor.write(0, self.typist.keystroke());
        self.editor.until_acked(0).await.unwrap();
        let heads = self.editor.document(0).heads().to_vec();
        let seen = |client: &Client| client.document(0).heads() == heads;
        self.reader.until(seen).await.unwrap();
        assert!(self.relay.is_running());
    }

    /// One peer sends this, and is closed with the code; the log says who and why.
    async fn refuses(&mut self, name: &str, frames: Vec<Frame>, code: u16, reason: &str) {
        let before = self.relay.usage().resident_bytes;
        let mut hostile = Socket::join(&self.relay.url(), name).await;
        hostile.send(frames).await;
        assert_eq!(hostile.closed().await, Some(code), "{name}");
        self.is_logged(name, reason);
        self.go_on().await;
        let grown = self.relay.usage().peak_bytes.saturating_sub(before);
        println!("{name}: grown by {} KiB", grown / 1024);
    }

    fn is_logged(&self, name: &str, reason: &str) {
        let log = self.relay.log();
        let found = |line: &str| line.contains(name) && line.contains(reason);
        assert!(log.lines().any(found), "{name}: {reason:?} in\n{log}");
    }

    fn stays_below(&self, growth_max: u64, base: u64) {
        let peak = self.relay.usage().peak_bytes;
        let grown = peak.saturating_sub(base);
        assert!(grown <= growth_max, "grown by {} MiB", grown / MIB);
    }
}

/// A map of a type and one more field, whose value follows.
fn with_field(value: &[u8]) -> Vec<u8> {
    let mut frame = b"\xa2\x64type\x65leave\x61x".to_vec();
    frame.extend_from_slice(value);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_join_nothing_but_a_join_is_heard() {
    let mut world = World::new().await;
    let leave = protocol::encode(&Message::Leave { sender: "early" });
    for (frame, reason) in [
        (binary(&b"\xf6"[..]), "malformed frame"),
        (binary(&b""[..]), "malformed frame"),
        (Frame::Text("hello".into()), "a text message"),
        (binary(leave), "the first message must be a join"),
        (binary(vec![0x9f; 10_000]), "malformed frame"),
    ] {
        let mut hostile = Socket::open(&world.relay.url(), "early").await;
        hostile.send(vec![frame]).await;
        assert_eq!(hostile.closed().await, Some(1002), "{reason}");
        // It has no name yet, but its connection has a number.
        world.is_logged("connection=", reason);
        world.go_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_frame_costs_its_sender_the_connection() {
    let mut world = World::new().await;
    let base = world.relay.usage().resident_bytes;
    let sync = |name: &str, data: &[u8]| vec![sync_frame(name, id(1), data)];
    let claims = |head: &[u8]| [&b"\xa2\x64type\x65leave\x63add"[..], head].concat();
    let million = {
        let mut empty = claims(b"\x9a\x00\x10\x00\x00");
        empty.extend(vec![0x60; 1 << 20]);
        empty
    };
    let large_presence = protocol::encode(&Message::Ephemeral(Ephemeral {
        sender: "loud",
        target: "",
        document: id(1).to_string().into(),
        count: 1,
        session: "s",
        data: &vec![0; EPHEMERAL_BYTES_MAX + 1],
    }));
    let join = protocol::encode(&Message::Join {
        sender: "twice",
        metadata: PeerMetadata::default(),
        speaks_v1: true,
    });
    let huge = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    let count = |head: &[u8]| [head, huge].concat();
    // Entries, bits of each, probes.
    let bloom = |entries: &[u8], bits: u8, probes: &[u8]| {
        let filter = [entries, &[bits], probes].concat();
        [
            &b"\x42\x00\x00\x01\x00"[..],
            &[filter.len() as u8],
            &filter,
            &[0],
        ]
        .concat()
    };
    let gibi = b"\xff\xff\xff\xff\x0f";
    let cases: Vec<(&str, Vec<Frame>, &str)> = vec![
        ("null", vec![binary(&b"\xf6"[..])], "malformed frame"),
        ("text", vec![Frame::Text("hello".into())], "a text message"),
        ("twice", vec![binary(join)], "a second join"),
        (
            "arrays",
            vec![binary(with_field(&vec![0x81; 1 << 20]))],
            "malformed",
        ),
        (
            "endless",
            vec![binary(with_field(&[0x82, 0x9f].repeat(1 << 20)))],
            "malformed",
        ),
        (
            "maps",
            vec![binary(with_field(&b"\xbf\x61a".repeat(1 << 20)))],
            "malformed",
        ),
        (
            "tags",
            vec![binary(with_field(&vec![0xc1; 1 << 20]))],
            "malformed",
        ),
        (
            "claims",
            vec![binary(claims(b"\x9b\x10\x00\x00\x00\x00\x00\x00\x00"))],
            "malformed",
        ),
        ("million", vec![binary(million)], "above the limit"),
        (
            "loud",
            vec![binary(large_presence)],
            "bytes in an ephemeral message",
        ),
        ("empty", sync("empty", b""), "malformed sync message"),
        ("heads", sync("heads", &count(b"\x42")), "cut short"),
        ("need", sync("need", &count(b"\x42\x00")), "cut short"),
        ("have", sync("have", &count(b"\x42\x00\x00")), "cut short"),
        (
            "chunks",
            sync("chunks", &count(b"\x42\x00\x00\x00")),
            "cut short",
        ),
        (
            "entries",
            sync("entries", &bloom(gibi, 10, &[7])),
            "Bloom filter",
        ),
        (
            "bits",
            sync("bits", &bloom(&[1], 127, &[7])),
            "Bloom filter",
        ),
        (
            "probes",
            sync("probes", &bloom(&[0], 10, gibi)),
            "Bloom filter",
        ),
    ];
    for (name, frames, reason) in cases {
        world.refuses(name, frames, 1002, reason).await;
    }
    world.stays_below(SMALL_GROWTH_MAX, base);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_is_closed_and_logged() {
    let mut world = World::new().await;
    for (name, frames) in [
        ("long-ping", vec![control(126, true)]),
        ("torn-ping", vec![control(1, false)]),
        ("continues", vec![part(b"x", Data::Continue, true)]),
        (
            "interrupts",
            vec![
                part(b"x", Data::Binary, false),
                part(b"x", Data::Binary, true),
            ],
        ),
    ] {
        world.refuses(name, frames, 1002, "bad frame").await;
    }
}

/// What it sends under its own name passes; what is dropped is said once.
#[tokio::test(flavor = "multi_thread")]
async fn sync_messages_in_another_name_are_dropped_and_logged_once() {
    let mut world = World::new().await;
    let mut peer = Socket::join(&world.relay.url(), "borrows").await;
    let foreign = || sync_frame("editor", id(1), b"anything");
    let leave = protocol::encode(&Message::Leave { sender: "borrows" });
    peer.send(vec![foreign(), foreign(), binary(leave)]).await;
    assert_eq!(peer.closed().await, Some(1000));
    world.is_logged("borrows", "sender=\"editor\"");
    let log = world.relay.log();
    assert_eq!(log.matches("in another peer's name").count(), 1, "{log}");
    world.go_on().await;
}

/// Frames of any size and pings between them are a message like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_many_parts_is_read() {
    let mut world = World::new().await;
    let leave = protocol::encode(&Message::Leave { sender: "parts" });
    let mut frames = vec![part(b"", Data::Binary, false)];
    for byte in &leave {
        frames.extend([part(&[*byte], Data::Continue, false), control(125, true)]);
    }
    frames.extend((0..10_000).map(|_| part(b"", Data::Continue, false)));
    frames.push(part(b"", Data::Continue, true));
    let mut peer = Socket::join(&world.relay.url(), "parts").await;
    peer.send(frames).await;
    assert_eq!(peer.closed().await, Some(1000));
    world.go_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_greatest_message_is_read_and_a_greater_one_is_not() {
    let mut world = World::new().await;
    let base = world.relay.usage().resident_bytes;
    let nested = [0x82, 0x9f].repeat(MESSAGE_BYTES_MAX / 2);
    let mut frame = with_field(&nested);
    frame.truncate(MESSAGE_BYTES_MAX);
    let nested = vec![binary(frame.clone())];
    world.refuses("nested", nested, 1002, "nested deeper").await;
    frame.push(0);
    world
        .refuses(
            "too-large",
            vec![binary(frame)],
            1009,
            "larger than any may be",
        )
        .await;
    let half = vec![0; MESSAGE_BYTES_MAX / 2];
    let parts = vec![
        part(&half, Data::Binary, false),
        part(&half, Data::Continue, false),
        part(b"x", Data::Continue, true),
    ];
    world
        .refuses("too-many-parts", parts, 1009, "larger than any may be")
        .await;
    world.stays_below(GROWTH_MAX, base);
}

/// Whoever sends it still writes when it is closed, and must be told why all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_memory_has_no_room_for_is_told_and_logged() {
    let mut world = World::with(&["--memory-mib", "128"]).await;
    let frame = vec![0; 40 << 20];
    let reason = "see --memory-mib";
    world
        .refuses("large", vec![binary(frame)], 1009, reason)
        .await;
    world.is_logged("large", "bytes=41943040 max=33554432");
    assert!(!world.relay.log().contains("bad frame"));
}

/// A change that says nothing but how many operations it has.
fn change_of(columns: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut data = vec![0, 16];
    data.extend([3; 16]);
    // Seq, start_op, time, message, other actors.
    data.extend([1, 1, 0, 0, 0, columns.len() as u8]);
    for (spec, column) in columns {
        data.extend([*spec, column.len() as u8]);
    }
    for (_, column) in columns {
        data.extend_from_slice(column);
    }
    data
}

/// A run: that many times the same. The count is signed.
fn run(count: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_unsigned(&mut out, count);
    if out.last().is_some_and(|last| last & 0x40 != 0) {
        *out.last_mut().unwrap() |= 0x80;
        out.push(0);
    }
    out.extend_from_slice(value);
    out
}

/// Changes that are small, and large when somebody reads them.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_in_changes_are_refused() {
    let mut world = World::new().await;
    let base = world.relay.usage().resident_bytes;
    let zeros = {
        use std::io::Write;
        let mut out = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..=CHANGE_BYTES_MAX / MIB as usize {
            out.write_all(&[0; MIB as usize]).unwrap();
        }
        chunk_of_hash(2, &out.finish().unwrap(), 1, b"")
    };
    let put = |count| {
        vec![
            (0x15, run(count, b"\x01a")),
            (0x42, run(count, &[1])),
            (0x56, run(count, &[0])),
        ]
    };
    let operations = chunk(1, &change_of(&put(CHANGE_OPS_MAX + 1)));
    let mut many_preds = put(2);
    many_preds.push((0x70, run(2, b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f")));
    let preds = chunk(1, &change_of(&many_preds));
    for (name, bytes, reason) in [
        ("inflates", &zeros, "does not inflate"),
        ("operations", &operations, "number of operations"),
        ("preds", &preds, "above the limit"),
    ] {
        stays_with_its_document(&mut world, name, &[bytes], 1).await;
        world.is_logged(name, reason);
    }
    world.stays_below(SMALL_GROWTH_MAX, base);
}

/// Somebody sends these chunks, each in a message of its own, and then an honest document to the
/// same place: it is taken, on the same connection, and nothing else is.
async fn stays_with_its_document(world: &mut World, name: &str, chunks: &[&[u8]], n: u8) {
    let document = DocumentId::new(&[&[n; 3], name.as_bytes()].concat()[..name.len().min(29) + 3]);
    let document = document.unwrap();
    let mut hostile = Socket::join(&world.relay.url(), name).await;
    let mut frames = Vec::new();
    for bytes in chunks {
        let message = sync_message(&[ChangeHash([9; 32])], &[], &[bytes]);
        frames.push(sync_frame(name, document, &message));
    }
    let (_, honest) = Typist::new(5);
    let message = sync_message(&[honest.hash], &[], &[&honest.bytes]);
    frames.push(sync_frame(name, document, &message));
    hostile.send(frames).await;
    world.go_on().await;

    let mut fresh = Client::connect(&world.relay.url(), "fresh").await.unwrap();
    let at = fresh.open(Document::new(document).keeping());
    let whole = |client: &Client| client.document(at).heads() == [honest.hash];
    let asked = tokio::time::timeout(PATIENCE, async {
        while !whole(&fresh) {
            if fresh.document(at).is_unavailable() {
                fresh = Client::connect(&world.relay.url(), "fresh").await.unwrap();
                fresh.open(Document::new(document).keeping());
            }
            fresh.flush().await.unwrap();
            fresh.next_in_time().await.unwrap();
        }
    });
    asked.await.unwrap();
    assert_eq!(fresh.document(at).kept(), &honest.bytes[..]);
    // Its connection lives: a bad change is refused, and costs nothing else.
    let leave = protocol::encode(&Message::Leave { sender: name });
    hostile.send(vec![binary(leave)]).await;
    assert_eq!(hostile.closed().await, Some(1000), "{name}");
}

/// Each of them as it is, as a change and as a document, under right checksums.
#[tokio::test(flavor = "multi_thread")]
async fn automerges_crashers_are_refused() {
    let mut world = World::with(&["--workshop-memory-mib", "256"]).await;
    let base = world.relay.usage().resident_bytes;
    let children = world.relay.watch_children();
    for (n, (_, bytes)) in (0..).zip(crashers()) {
        let mut forms = vec![bytes.clone()];
        if let Ok((found, _)) = Chunk::split(&bytes) {
            forms.extend([chunk(0, found.data), chunk(1, found.data)]);
            forms.push(chunk_of_hash(2, found.data, 1, found.data));
        }
        let forms: Vec<&[u8]> = forms.iter().map(Vec::as_slice).collect();
        let name = format!("crasher-{n}");
        stays_with_its_document(&mut world, &name, &forms, n).await;
        world.is_logged(&name, "refused");
    }
    world.stays_below(64 * MIB, base);
    assert!(children.peak_bytes() <= 256 * MIB);
}

/// Who chooses its own name does not choose lines of the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_writes_no_line_of_the_log() {
    let mut world = World::new().await;
    let mut hostile = Socket::open(&world.relay.url(), "forger").await;
    let join = protocol::encode(&Message::Join {
        sender: "x\n2026-01-01 ERROR forged",
        metadata: PeerMetadata::default(),
        speaks_v1: true,
    });
    hostile.send(vec![binary(join)]).await;
    assert_eq!(hostile.closed().await, Some(1002));
    let log = world.relay.log();
    assert!(
        !log.lines().any(|line| line.starts_with("2026-01-01 ERROR")),
        "{log}"
    );
    world.go_on().await;
}
