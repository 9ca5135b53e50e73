//! Aim: a peer that does not read costs the relay a bounded amount, and misses nothing; one that
//! sends slowly is served, and one that is silent is not kept.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use futures::StreamExt;
use reconverge::id::{DocumentId, PeerId};
use reconverge::protocol::{self, Message};
use reconverge::storage::MemoryStorage;
use reconverge_server::access::Open;
use reconverge_server::config::{Config, MEMORY_BYTES_MIN};
use reconverge_tests::Random;
use reconverge_tests::forge::chunk_of_hash;
use reconverge_tests::light::{Change, Client, Document, Fault, PATIENCE};
use reconverge_tests::process::{Relay, relay_executable};
use reconverge_tests::socket::{Frame, Socket, address_of, binary, request_bytes, sync_frame};
use reconverge_tests::world::sync_message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How many readers are slow.
const SLOW: u64 = 20;

const EDITS: u32 = 2_000;
/// Large enough that the sockets' own buffers do not hold them all.
const EDIT_BYTES: usize = 16 * 1024;

/// What the relay may grow by: the document of 32 MB is compacted meanwhile, and its snapshot lies
/// in memory once, and again in part on its way to the disk. What the readers miss is 20 times as
/// much.
const GROWTH_MAX: u64 = 80 * 1024 * 1024;

fn change(doc: &mut AutoCommit, n: u32, len: usize) -> Change {
    // Bytes that do not compress, so that what is sent is as large as it looks.
    let value = Random::new(u64::from(n)).noise(len);
    doc.put(ROOT, "value", value).unwrap();
    doc.commit();
    Change::from(&doc.get_last_local_change().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_catches_up_without_loss() {
    let relay = Relay::start();
    let id = DocumentId::new(&[5; 16]).unwrap();
    let mut doc = AutoCommit::new();
    let mut writer = Client::connect(&relay.url(), "writer").await.unwrap();
    let at = writer.open(Document::created(id, [change(&mut doc, 0, EDIT_BYTES)]));
    writer.until_acked(at).await.unwrap();

    let mut quick = Client::connect(&relay.url(), "quick").await.unwrap();
    let mut slow = Vec::new();
    for n in 0..SLOW {
        slow.push(
            Client::connect(&relay.url(), &format!("slow-{n}"))
                .await
                .unwrap(),
        );
    }
    for reader in slow.iter_mut().chain([&mut quick]) {
        reader.open(Document::new(id).keeping());
        reader
            .until(|client| client.document(0).is_in_step())
            .await
            .unwrap();
    }
    let before = relay.usage().resident_bytes;

    // From here on, the slow readers read nothing until everything is written.
    let mut most = 0;
    for n in 1..=EDITS {
        writer.write(at, change(&mut doc, n, EDIT_BYTES));
        writer.until_acked(at).await.unwrap();
        if n % 100 == 0 {
            most = most.max(relay.usage().resident_bytes);
        }
    }
    let heads = writer.document(at).heads().to_vec();
    quick
        .until(|client| client.document(0).heads() == heads)
        .await
        .unwrap();
    let missed = SLOW * u64::from(EDITS) * EDIT_BYTES as u64;
    let grown = most.saturating_sub(before);
    println!("{missed} bytes missed by slow readers, the relay grew by {grown}");
    assert!(grown < GROWTH_MAX, "the relay grew by {grown} bytes");

    for reader in &mut slow {
        reader
            .until(|client| client.document(0).heads() == heads)
            .await
            .unwrap();
        let mut found = AutoCommit::load(reader.document(0).kept()).unwrap();
        assert_eq!(found.get_heads(), doc.get_heads());
        let messages = reader.traffic.messages_in;
        assert!(
            messages < u64::from(EDITS) / 2,
            "{messages} messages: nothing was coalesced"
        );
    }
}

/// A link on which what the client sends comes in small pieces with pauses, until it breaks off
/// without a word; what the relay sends passes at once.
struct Link {
    url: String,
    /// How many more bytes of the client pass.
    passes: Arc<AtomicUsize>,
}

const PIECE_BYTES: usize = 64 * 1024;
/// After a piece; after a smaller one, as much less.
const PAUSE: Duration = Duration::from_millis(50);

impl Link {
    async fn to(relay: &Relay) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let passes = Arc::new(AtomicUsize::new(usize::MAX));
        let (address, left) = (address_of(&relay.url()).to_owned(), passes.clone());
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let relay = TcpStream::connect(address).await.unwrap();
            let (from_client, mut to_client) = client.into_split();
            let (mut from_relay, to_relay) = relay.into_split();
            let up = tokio::spawn(pass_slowly(from_client, to_relay, left));
            let _ = tokio::io::copy(&mut from_relay, &mut to_client).await;
            up.abort();
        });
        Self { url, passes }
    }
}

async fn pass_slowly(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    left: Arc<AtomicUsize>,
) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let pass = read.min(left.load(Ordering::Relaxed));
        left.fetch_sub(pass, Ordering::Relaxed);
        if to.write_all(&piece[..pass]).await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE * read as u32 / PIECE_BYTES as u32).await;
    }
}

/// Five seconds of one message, at a relay that pings every second and hears no pong before its
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_large_message_slowly_is_not_cut_off() {
    const PIECES: usize = 100;
    let relay = Relay::start_with(&["--ping-interval-s", "1"]);
    let id = DocumentId::new(&[6; 16]).unwrap();
    let mut doc = AutoCommit::new();
    let link = Link::to(&relay).await;
    let mut writer = Client::connect(&link.url, "writer").await.unwrap();
    let at = writer.open(Document::created(id, [change(&mut doc, 0, 10)]));
    writer.until_acked(at).await.unwrap();
    // One that says nothing but its pongs stays, too.
    let mut reader = Client::connect(&relay.url(), "reader").await.unwrap();
    reader.open(Document::new(id));

    let large = change(&mut doc, 1, PIECES * PIECE_BYTES);
    let head = large.hash;
    writer.write(at, large);
    let (acked, read) = tokio::join!(
        writer.until_acked(at),
        reader.until(|client| client.document(0).heads() == [head]),
    );
    acked.unwrap();
    read.unwrap();
}

/// One falls silent when it has joined, another in the midst of a large message.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_is_cut_off() {
    let relay = Relay::start_with(&["--ping-interval-s", "1"]);
    for (n, passes) in [0, 1024 * 1024].into_iter().enumerate() {
        let link = Link::to(&relay).await;
        let mut doc = AutoCommit::new();
        let mut client = Client::connect(&link.url, "silent").await.unwrap();
        let id = DocumentId::new(&[7; 16]).unwrap();
        let at = client.open(Document::created(id, [change(&mut doc, 0, 10)]));
        client.until_acked(at).await.unwrap();
        link.passes.store(passes, Ordering::Relaxed);
        client.write(at, change(&mut doc, 1, 2 * 1024 * 1024));
        let ended = client.until_acked(at).await;
        assert!(ended.as_ref().is_err_and(Fault::is_end), "{ended:?}");
        // It is said when the connection has ended, which the client may see a moment before.
        let told = || relay.log().matches("code=1001").count() == n + 1;
        while !told() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_large_message_slowly_does_not_keep_others_from_theirs() {
    // Larger than the sockets' own buffers, and more than large messages may have together.
    const LARGE: usize = 24 * 1024 * 1024;
    let relay = Relay::start_with(&["--sending-mib", "16"]);
    let [large, live] = [6, 7].map(|n| DocumentId::new(&[n; 16]).unwrap());
    let mut doc = AutoCommit::new();
    let mut writer = Client::connect(&relay.url(), "writer").await.unwrap();
    let at = writer.open(Document::created(large, [change(&mut doc, 0, LARGE)]));
    writer.until_acked(at).await.unwrap();
    let heads = writer.document(at).heads().to_vec();

    let mut slow = Client::connect(&relay.url(), "slow").await.unwrap();
    slow.open(Document::new(large));
    slow.flush().await.unwrap();
    // The relay is about to send it, or has begun to.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = relay.usage().resident_bytes;

    let mut quick = Vec::new();
    for n in 0..4 {
        let name = format!("quick-{n}");
        let mut reader = Client::connect(&relay.url(), &name).await.unwrap();
        reader.open(Document::new(large));
        reader.flush().await.unwrap();
        quick.push(reader);
    }
    // Meanwhile small messages pass.
    let mut doc = AutoCommit::new();
    let at = writer.open(Document::created(live, [change(&mut doc, 0, EDIT_BYTES)]));
    for n in 1..50 {
        writer.write(at, change(&mut doc, n, EDIT_BYTES));
        writer.until_acked(at).await.unwrap();
    }
    let grown = relay.usage().resident_bytes.saturating_sub(before);
    println!("the relay grew by {grown}");
    assert!(
        grown < 2 * LARGE as u64,
        "four more large messages were made: {grown}"
    );

    let reading: Vec<_> = quick
        .into_iter()
        .map(|mut reader| {
            let heads = heads.clone();
            tokio::spawn(async move {
                let arrived = |client: &Client| client.document(0).relay_heads() == Some(&heads);
                reader.until(arrived).await
            })
        })
        .collect();
    for reader in reading {
        reader.await.unwrap().unwrap();
    }
    assert!(relay.log().contains("reads a large message slowly"));
    slow.until(|_| false).await.unwrap_err();
}

/// Aim: a number that a relay cannot run with is refused when it starts, by flag and by environment
/// variable, with an error that names it.
#[test]
fn numbers_out_of_range_are_refused_at_the_start() {
    let huge = u64::MAX.to_string();
    let flags = [
        ("--cache-mib", "0"),
        ("--cache-mib", &huge),
        ("--connections-max", "0"),
        ("--connections-per-address-max", "0"),
        ("--log-kib-per-minute", "1"),
        ("--ping-interval-s", "0"),
        ("--ping-interval-s", &huge),
        ("--idle-timeout-s", "0"),
        ("--idle-timeout-s", &huge),
        ("--sending-mib", "0"),
        ("--sending-mib", &huge),
        ("--memory-mib", "0"),
        ("--memory-mib", "127"),
        ("--memory-mib", &huge),
        ("--verify-lag-s", "0"),
        ("--verify-lag-s", &huge),
        ("--verify-lag-changes", "0"),
        ("--workshop-workers", "0"),
        ("--workshop-workers", &huge),
        ("--workshop-memory-mib", "0"),
        ("--workshop-memory-mib", &huge),
        ("--workshop-cpu-s", "0"),
        ("--workshop-cpu-s", &huge),
        ("--cache-mib", "many"),
        ("--listen", "nowhere"),
        ("--verify", "never"),
        ("--log-format", "xml"),
        ("--log", "nonsense"),
        ("--log", "info,nonsense"),
        ("--log", "=="),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (flag, value) in flags {
        let variable = flag
            .trim_start_matches('-')
            .replace('-', "_")
            .to_uppercase();
        for by_flag in [true, false] {
            let mut command = std::process::Command::new(relay_executable());
            command
                .args(["serve", "--data"])
                .arg(folder.path().join("data"));
            if by_flag {
                command.args([flag, value]);
            } else {
                command.env(format!("RECONVERGE_{variable}"), value);
            }
            let output = command.output().unwrap();
            let words = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{flag} {value}: {words}");
            assert!(words.contains(flag) && words.contains(value), "{words}");
        }
    }
    assert!(!folder.path().join("data").exists(), "nothing was begun");
}

/// Aim: options that do not go together, and a system that gives too little, are refused before
/// anything is made, with an error that says what to change.
#[test]
fn what_does_not_go_together_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay_executable().display().to_string();
    let words = |limit: &str, arguments: &str| {
        let data = folder.path().join("data");
        let data = data.display();
        let line =
            format!("{limit} exec {relay} serve --listen 127.0.0.1:0 --data {data} {arguments}");
        let output = std::process::Command::new("sh")
            .args(["-c", &line])
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}");
        String::from_utf8(output.stderr).unwrap()
    };
    let few = "--connections-max 10 --connections-per-address-max 11";
    for (arguments, named) in [
        (
            "--memory-mib 128 --cache-mib 33",
            ["--cache-mib 33", "--memory-mib to 132"],
        ),
        (
            "--memory-mib 128 --sending-mib 64",
            ["--sending-mib 64", "--memory-mib to 256"],
        ),
        (
            few,
            ["--connections-per-address-max 11", "--connections-max 10"],
        ),
    ] {
        let words = words("", arguments);
        assert!(named.iter().all(|name| words.contains(name)), "{words}");
    }
    let words = words("ulimit -n 64;", "");
    let named = ["only 64 files", "the relay needs 1", "ulimit -n"];
    assert!(named.iter().all(|name| words.contains(name)), "{words}");
    assert!(!folder.path().join("data").exists(), "nothing was begun");
}

/// Aim: the log says at the start what the relay chose where nothing was given.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_was_chosen() {
    let relay = Relay::start_with(&["--memory-mib", "256"]);
    let log = relay.log();
    let chosen = "memory_mib=256 message_mib_max=64 sending_mib=32 cache_mib=16";
    assert!(log.contains(chosen), "{log}");
}

/// Asks for so many documents that nobody has, and waits for the answer about the last.
async fn asks_for(url: &str, name: &str, first: u64, documents: u64) -> Socket {
    let mut socket = Socket::join(url, name).await;
    let id = |n: u64| {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&(first + n).to_le_bytes());
        DocumentId::new(&id).unwrap()
    };
    let request = |n: u64| binary(request_bytes(name, id(n)));
    socket.send((0..documents).map(request).collect()).await;
    let last = id(documents - 1).to_string();
    let mut stream = socket.into_stream();
    let answered = async {
        loop {
            let frame = stream.next().await.unwrap().unwrap();
            let is_it = matches!(&frame, Frame::Binary(frame) if matches!(
                protocol::decode(frame),
                Ok(Message::DocUnavailable { document, .. }) if document == last
            ));
            if is_it {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap();
    Socket::from_stream(stream, name)
}

/// A peer whose documents were too many is not left without them when others are gone.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_refused_documents_is_sent_for_them_when_there_is_room() {
    let config = Config {
        memory_bytes_max: MEMORY_BYTES_MIN,
        ping_interval: Duration::from_millis(500),
        ..Config::default()
    };
    let relay = reconverge_server::Relay::start(
        config,
        PeerId::new("relay").unwrap(),
        Arc::new(MemoryStorage::new("documents")),
        Arc::new(Open),
    );
    let relay = relay.await.unwrap();
    let url = format!("ws://{}/", relay.address());
    // Room for 47,662 in all.
    let hog = asks_for(&url, "hog", 0, 36_000).await;
    let hog = tokio::spawn(hog.closed());
    let refused = asks_for(&url, "refused", 1 << 32, 10_000).await;
    let refused = tokio::spawn(refused.closed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!hog.is_finished() && !refused.is_finished());
    hog.abort();
    assert_eq!(refused.await.unwrap(), Some(1013));
    drop(asks_for(&url, "refused", 1 << 32, 10_000).await);
    relay.stop().await;
}

/// Changes that are dear to take in, and in vain: each is its author's second, and the first never
/// was.
fn in_vain(changes: u32) -> impl Iterator<Item = Vec<u8>> {
    const ZEROS: usize = 8 * 1024 * 1024;
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::best());
    deflate.write_all(&vec![0; ZEROS]).unwrap();
    let zeros = deflate.finish().unwrap();
    (0..changes).map(move |n| {
        let mut data = vec![0, 16];
        data.extend(n.to_be_bytes().repeat(4));
        // Its number among its author's, its first operation; time, message, other actors, columns.
        data.extend([2, 1, 0, 0, 0, 0]);
        // A block that is not deflated (RFC 1951, section 3.2.4), before those of the zeros.
        let len = u16::try_from(data.len()).unwrap();
        let mut deflated = vec![0];
        deflated.extend([len.to_le_bytes(), (!len).to_le_bytes()].as_flattened());
        deflated.extend_from_slice(&data);
        deflated.extend_from_slice(&zeros);
        data.resize(data.len() + ZEROS, 0);
        chunk_of_hash(2, &deflated, 1, &data)
    })
}

/// What a peer sent is taken in also when it is gone, but not on and on if nothing comes of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_that_is_gone_sent_in_vain_is_dropped() {
    /// As many are read at once, and they take seconds.
    const MESSAGES: u32 = 250;
    let relay = Relay::start();
    let id = DocumentId::new(&[6; 16]).unwrap();
    let message = |change: Vec<u8>| sync_frame("vain", id, &sync_message(&[], &[], &[&change]));
    let messages = in_vain(MESSAGES).map(message).collect();
    let mut vain = Socket::join(&relay.url(), "vain").await;
    vain.send(messages).await;
    drop(vain);
    let log = || std::fs::read_to_string(relay.log_path()).unwrap();
    let is_closed = |line: &str| line.contains("closed") && line.contains("peer=vain");
    let count = |log: &str| log.matches("change refused").count() as u32;
    let quiet = async {
        while !log().lines().any(is_closed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Nothing tells when the last one is dropped.
        let mut refused = 0;
        while refused == 0 || count(&log()) > refused {
            refused = count(&log());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        refused
    };
    let refused = tokio::time::timeout(PATIENCE, quiet).await.unwrap();
    assert!((1..MESSAGES / 2).contains(&refused), "{refused}");
}
