//! Aim: no connection keeps another one out or ends it, whatever it calls itself, and however many
//! there are of its kind.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use reconverge::id::{DocumentId, PeerId};
use reconverge::protocol::PeerMetadata;
use reconverge::storage::MemoryStorage;
use reconverge_server::access::Open;
use reconverge_server::config::Config;
use reconverge_tests::Random;
use reconverge_tests::light::{Change, Client, Document, Event, Fault, PATIENCE};
use reconverge_tests::process::Relay;
use reconverge_tests::socket::{Socket, address_of};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;

fn change(doc: &mut AutoCommit, n: u32) -> Change {
    doc.put(ROOT, "n", u64::from(n)).unwrap();
    doc.commit();
    Change::from(&doc.get_last_local_change().unwrap())
}

fn address(relay: &Relay) -> String {
    address_of(&relay.url()).to_owned()
}

/// A socket that has joined under a name, and from here on reads only when it is told to: so it
/// answers no ping. It speaks our extensions: a stock client that is mute is sent no close frame.
async fn mute(url: &str, name: &str) -> WebSocketStream<TcpStream> {
    let metadata = PeerMetadata {
        reconverge: 1,
        ..PeerMetadata::default()
    };
    let joined = Socket::try_join(url, name, metadata).await;
    joined.unwrap().into_stream()
}

/// The code with which the relay closes a socket that is mute: what it sent is read from below, so
/// that no ping is answered.
async fn close_code(socket: WebSocketStream<TcpStream>) -> u16 {
    let mut stream = socket.into_inner();
    let mut sent = Vec::new();
    tokio::time::timeout(PATIENCE, async {
        loop {
            let mut frames = &sent[..];
            while let [kind, length @ 0..126, rest @ ..] = frames
                && let Some((payload, rest)) = rest.split_at_checked(usize::from(*length))
            {
                if kind & 0x0f == 8 {
                    return u16::from_be_bytes([payload[0], payload[1]]);
                }
                frames = rest;
            }
            let mut piece = [0; 1024];
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "ended without a close frame: {sent:?}");
            sent.extend_from_slice(&piece[..read]);
        }
    })
    .await
    .expect("closed in time")
}

/// Whoever knows a peer's id, which presence shows to all, may join under it as often as they like.
#[tokio::test(flavor = "multi_thread")]
async fn who_answers_is_not_cut_off_by_others_of_its_name() {
    let relay = Relay::start_with(&["--ping-interval-s", "1"]);
    let id = DocumentId::new(&[1; 16]).unwrap();
    let mut doc = AutoCommit::new();
    let mut victim = Client::connect(&relay.url(), "victim").await.unwrap();
    let at = victim.open(Document::created(id, [change(&mut doc, 0)]));
    victim.until_acked(at).await.unwrap();

    let url = relay.url();
    let attack = async {
        let mut held = Vec::new();
        for n in 0..200 {
            let socket = mute(&url, "victim").await;
            // Some stay, some go.
            if n % 2 == 0 {
                held.push(socket);
            }
        }
        // One that does not answer is closed, and so all of the name have been asked.
        close_code(held.remove(0)).await
    };
    let code = tokio::select! {
        ended = victim.until(|_| false) => panic!("the victim's connection: {ended:?}"),
        code = attack => code,
    };
    assert!(code == 4000 || code == 1001, "{code}");
    for n in 1..20 {
        victim.write(at, change(&mut doc, n));
        victim.until_acked(at).await.unwrap();
    }
}

/// A line to the relay on which from some moment on nothing of the client passes, and nobody is told
/// that it ended: as when a laptop went to sleep, or a phone from one network to another.
struct Line {
    url: String,
    dead: Arc<AtomicBool>,
}

impl Line {
    async fn to(relay: &Relay) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let dead = Arc::new(AtomicBool::new(false));
        let (address, is_dead) = (address(relay), dead.clone());
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let relay = TcpStream::connect(address).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_relay, mut to_relay) = relay.into_split();
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = from_client.read(&mut piece).await {
                    if !is_dead.load(Ordering::Relaxed) {
                        to_relay.write_all(&piece[..read]).await.unwrap();
                    }
                }
                // Its end does not pass, either.
                std::future::pending::<()>().await;
            });
            let _ = tokio::io::copy(&mut from_relay, &mut to_client).await;
        });
        Self { url, dead }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_after_a_dead_line_is_let_in_at_once() {
    // An answer is waited for as long as the pings' interval, if that is shorter than 5 s; and
    // without the other connection it would be silent for twice that before it is closed.
    let relay = Relay::start_with(&["--ping-interval-s", "4"]);
    let id = DocumentId::new(&[2; 16]).unwrap();
    let mut doc = AutoCommit::new();
    let line = Line::to(&relay).await;
    let mut old = Client::connect(&line.url, "ann").await.unwrap();
    let at = old.open(Document::created(id, [change(&mut doc, 0)]));
    old.until_acked(at).await.unwrap();
    let mut bob = Client::connect(&relay.url(), "bob").await.unwrap();
    bob.open(Document::new(id));
    bob.until(|bob| bob.document(0).is_in_step()).await.unwrap();
    line.dead.store(true, Ordering::Relaxed);

    // The relay has not noticed anything, and will not for as long as pings take.
    let mut new = Client::connect(&relay.url(), "ann").await.unwrap();
    let again = new.open(Document::new(id));
    new.until(|new| new.document(again).is_in_step())
        .await
        .unwrap();
    let written = change(&mut doc, 1);
    let head = written.hash;
    new.write(again, written);
    new.until_acked(again).await.unwrap();
    bob.until(|bob| bob.document(0).heads() == [head])
        .await
        .unwrap();

    // The old one is asked, and closed since it does not answer. The others go on.
    let ended = tokio::select! {
        ended = new.until(|_| false) => panic!("the new connection: {ended:?}"),
        ended = old.until(|_| false) => ended,
    };
    assert!(ended.as_ref().is_err_and(Fault::is_end), "{ended:?}");
    assert!(relay.log().contains("replaced by a new connection"));
}

/// Stock clients pass on presence in the name of its author. Of two with one name, each would take
/// the other's for something to be passed on.
#[tokio::test(flavor = "multi_thread")]
async fn presence_goes_to_others_and_not_to_those_of_the_same_name() {
    let relay = Relay::start();
    let id = DocumentId::new(&[3; 16]).unwrap();
    let mut doc = AutoCommit::new();
    let mut first = Client::connect(&relay.url(), "ann").await.unwrap();
    let at = first.open(Document::created(id, [change(&mut doc, 0)]));
    first.until_acked(at).await.unwrap();
    let mut others = Vec::new();
    for name in ["ann", "bob"] {
        let mut client = Client::connect(&relay.url(), name).await.unwrap();
        client.open(Document::new(id));
        client
            .until(|client| client.document(0).is_in_step())
            .await
            .unwrap();
        others.push(client);
    }
    let [second, bob] = &mut others[..] else {
        panic!("two others");
    };
    for count in 1..=3 {
        first.broadcast(at, count, b"here");
    }
    first.flush().await.unwrap();
    for _ in 1..=3 {
        assert_eq!(bob.next_in_time().await.unwrap(), Event::Ephemeral(0));
    }
    // What comes next at the second is the edit, not presence, which was sent before.
    first.write(at, change(&mut doc, 1));
    first.until_acked(at).await.unwrap();
    assert_eq!(second.next_in_time().await.unwrap(), Event::Synced(0));
}

/// How many bytes of pings each sends: more than fit into the sockets' own buffers.
const PINGS_BYTES: usize = 32 * 1024 * 1024;
/// A client's frame of 125 bytes, and the answer to it.
const PING_BYTES: usize = 131;
const PONG_BYTES: usize = 127;

/// What the relay may grow by for three who ping and do not read.
const PINGED_GROWTH_MAX: u64 = 8 * 1024 * 1024;

fn pings() -> Vec<u8> {
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.resize(PING_BYTES, b'x');
    ping.repeat(500)
}

/// Pings until enough is sent or the relay reads no more: how many bytes.
async fn ping_without_reading(stream: &mut TcpStream) -> usize {
    let (many, mut sent) = (pings(), 0);
    while sent < PINGS_BYTES {
        let writing = stream.write(&many[sent % many.len()..]);
        match tokio::time::timeout(Duration::from_secs(1), writing).await {
            Ok(written) => sent += written.unwrap(),
            Err(_) => break,
        }
    }
    sent
}

/// Reads all answers to what was sent, and sends the rest of the last ping.
async fn read_pongs(stream: &mut TcpStream, sent: usize) {
    let many = pings();
    let pinged = sent.div_ceil(PING_BYTES);
    let rest = &many[..pinged * PING_BYTES - sent];
    let rest = &many[many.len() - rest.len()..];
    let (mut reads, mut writes) = stream.split();
    let read = async {
        let (mut answers, mut answered) = (vec![0; 64 * 1024], 0);
        while answered < pinged * PONG_BYTES {
            let read = tokio::time::timeout(PATIENCE, reads.read(&mut answers)).await;
            let read = read.expect("an answer in time").unwrap();
            assert!(read > 0, "cut off after {answered} bytes");
            answered += read;
        }
        assert_eq!(answered, pinged * PONG_BYTES);
    };
    let (written, ()) = tokio::join!(writes.write_all(rest), read);
    written.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pings_and_does_not_read_is_not_read_either() {
    let relay = Relay::start();
    let mut streams = Vec::new();
    for n in 0..3 {
        let socket = mute(&relay.url(), &format!("pings-{n}")).await;
        streams.push(socket.into_inner());
    }
    let before = relay.usage().resident_bytes;
    let [first, second, third] = &mut streams[..] else {
        panic!("three");
    };
    let sent = tokio::join!(
        ping_without_reading(first),
        ping_without_reading(second),
        ping_without_reading(third),
    );
    let grown = relay.usage().resident_bytes.saturating_sub(before);
    println!("{sent:?} bytes of pings taken, the relay grew by {grown}");
    assert!(grown < PINGED_GROWTH_MAX, "the relay grew by {grown} bytes");
    // Who is slow, and honest, gets each answer when it reads.
    read_pongs(first, sent.0).await;
    read_pongs(second, sent.1).await;
    read_pongs(third, sent.2).await;
}

/// An idle socket from some address, opened again whenever the relay ends it.
async fn keep_idle(relay: String, from: &str, pause: Duration) {
    loop {
        if let Ok(mut stream) = connect(&relay, from).await {
            let _ = stream.read(&mut [0; 64]).await;
        }
        tokio::time::sleep(pause).await;
    }
}

async fn connect(relay: &str, from: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse().unwrap())?;
    socket.connect(relay.parse().unwrap()).await
}

/// Joins, and tries again as clients do; but not for as long as idle sockets are let live anyway,
/// which is 10 s.
async fn joins(url: &str) -> Client {
    let joining = async {
        loop {
            if let Ok(client) = Client::connect(url, "honest").await {
                return client;
            }
        }
    };
    let joined = tokio::time::timeout(Duration::from_secs(5), joining);
    joined.await.expect("let in while others are idle")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_something_to_say_gets_in_beside_more_idle_sockets_than_may_be_open() {
    let relay = Relay::start_limited(&[], Some(256));
    let url = relay.url();
    let mut idle = tokio::task::JoinSet::new();
    for n in 0..1_100 {
        // From elsewhere they come again at once; those of the same address, some time later.
        let (from, pause) = match n % 4 {
            0 => ("127.0.0.1", Duration::from_secs(1)),
            _ => ("127.0.0.2", Duration::ZERO),
        };
        idle.spawn(keep_idle(address(&relay), from, pause));
    }
    let mut random = Random::new(1);
    for n in 0..20 {
        let mut client = joins(&url).await;
        let id = DocumentId::new(&random.noise(16)).unwrap();
        let mut doc = AutoCommit::new();
        let at = client.open(Document::created(id, [change(&mut doc, n)]));
        client.until_acked(at).await.unwrap();
    }
    // A worker of the workshop has its pipes.
    let mut typed = AutoCommit::new();
    for n in 0..100 {
        typed.put(ROOT, "n", n).unwrap();
        typed.commit();
    }
    let heads = typed.get_heads();
    let mut client = joins(&url).await;
    let id = DocumentId::new(&random.noise(16)).unwrap();
    let hashes = typed
        .get_changes(&[])
        .iter()
        .map(|change| change.hash())
        .collect();
    let at = client.open(Document::with_snapshot(id, typed.save().into(), hashes));
    let uploaded = client.until(|client| client.document(at).relay_heads() == Some(&heads));
    uploaded.await.unwrap();
    let log = relay.log();
    assert!(!log.contains("cannot accept"), "{log}");
    let told = log.matches("sockets are ended before they became WebSockets");
    assert!((1..=2).contains(&told.count()), "once a minute: {log}");
}

async fn refused(url: &str, name: &str) -> u16 {
    match Client::connect(url, name).await {
        Err(Fault::Socket(error)) => match *error {
            Error::Http(response) => response.status().as_u16(),
            error => panic!("{error}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Whether a WebSocket can be had from this address.
async fn gets_in(relay: &Relay, from: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = connect(&address(relay), from).await;
    let upgraded = tokio_tungstenite::client_async(relay.url(), stream.unwrap()).await;
    upgraded.map(|(socket, _)| socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_take_all_connections() {
    let options = [
        "--connections-max",
        "4",
        "--connections-per-address-max",
        "3",
    ];
    let relay = Relay::start_with(&options);
    let mut held = Vec::new();
    for n in 0..3 {
        let client = Client::connect(&relay.url(), &format!("here-{n}")).await;
        held.push(client.unwrap());
    }
    assert_eq!(refused(&relay.url(), "here-3").await, 503);
    assert!(relay.log().contains("see --connections-per-address-max"));
    // Who asks for pages, or leaves before it is answered, takes no place of a connection.
    for n in 0..20 {
        let mut stream = connect(&address(&relay), "127.0.0.2").await.unwrap();
        let request = match n % 2 {
            0 => "GET / HTTP/1.1\r\nhost: relay\r\n\r\n",
            _ => {
                "GET / HTTP/1.1\r\nhost: relay\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: x\r\n\r\n"
            }
        };
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    let elsewhere = loop {
        if let Ok(socket) = gets_in(&relay, "127.0.0.2").await {
            break socket;
        }
        tokio::task::yield_now().await;
    };
    // Now there are as many as may be of all.
    assert!(gets_in(&relay, "127.0.0.3").await.is_err());
    drop(elsewhere);
    while gets_in(&relay, "127.0.0.3").await.is_err() {
        // The relay has not seen yet that one is gone.
        tokio::task::yield_now().await;
    }
    // Those who are connected noticed nothing.
    let id = DocumentId::new(&[4; 16]).unwrap();
    let mut doc = AutoCommit::new();
    let at = held[0].open(Document::created(id, [change(&mut doc, 0)]));
    held[0].until_acked(at).await.unwrap();
}

/// As when a relay comes back, or is busy for a moment, and all clients with it.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_may_wait_to_be_accepted_as_the_system_lets() {
    let system = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let clients = system.trim().parse::<usize>().unwrap().min(1_000);
    let relay = Relay::start();
    // So it accepts nobody, whatever comes.
    relay.signal(Signal::STOP);
    let mut connecting = tokio::task::JoinSet::new();
    for _ in 0..clients {
        connecting.spawn(TcpStream::connect(address(&relay)));
    }
    let all = tokio::time::timeout(PATIENCE, connecting.join_all()).await;
    let all = all.expect("none is turned away");
    relay.signal(Signal::CONT);
    for stream in all {
        let mut stream = stream.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
}

/// As when the whole system has no more to give: accepting fails for a reason that is nobody's who
/// connects, and works again later.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_can_accept_nobody_says_so_once_and_goes_on_when_it_can() {
    let relay = Relay::start();
    let mut early = Client::connect(&relay.url(), "early").await.unwrap();
    let pid = Pid::from_raw(relay.pid().cast_signed()).unwrap();
    // The next one would have the lowest free number; the limit is one for numbers.
    let free = (0..).find(|fd| !Path::new(&format!("/proc/{}/fd/{fd}", relay.pid())).is_symlink());
    let none_left = Rlimit {
        current: free,
        ..getrlimit(Resource::Nofile)
    };
    let before = prlimit(Some(pid), Resource::Nofile, none_left).unwrap();
    let cpu = relay.usage().cpu;
    let url = relay.url();
    let late = tokio::spawn(async move { Client::connect(&url, "late").await });
    let complaints = || relay.log().matches("cannot accept").count();
    while complaints() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Who is connected goes on meanwhile, for as long as some tries take.
    let id = DocumentId::new(&[5; 16]).unwrap();
    let mut doc = AutoCommit::new();
    let at = early.open(Document::created(id, [change(&mut doc, 0)]));
    for n in 1..100 {
        early.write(at, change(&mut doc, n));
        early.until_acked(at).await.unwrap();
    }
    assert!(!late.is_finished());
    assert_eq!(complaints(), 1);
    let spent = relay.usage().cpu - cpu;
    println!("{spent:?} of processor time for 100 edits and no socket");
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    late.await.unwrap().unwrap();
    assert_eq!(complaints(), 1);
}

/// Whoever asks for pages again and again holds a socket, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_does_not_become_a_websocket_ends() {
    let storage = MemoryStorage::new("5e1f");
    let config = Config {
        upgrade_timeout: Duration::from_millis(500),
        ..Config::default()
    };
    let name = PeerId::new("storage-server-test").unwrap();
    let relay = reconverge_server::Relay::start(config, name, Arc::new(storage), Arc::new(Open));
    let relay = relay.await.unwrap();
    let mut stream = TcpStream::connect(relay.address()).await.unwrap();
    let mut client = Client::connect(&format!("ws://{}/", relay.address()), "stays")
        .await
        .unwrap();
    let mut answers = 0;
    let asks = async {
        let mut answer = [0; 4096];
        loop {
            let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: relay\r\n\r\n");
            let Ok(()) = asked.await else { return };
            let Ok(1..) = stream.read(&mut answer).await else {
                return;
            };
            answers += 1;
        }
    };
    tokio::time::timeout(PATIENCE, asks).await.expect("it ends");
    assert!(answers > 0);
    let id = DocumentId::new(&[6; 16]).unwrap();
    let mut doc = AutoCommit::new();
    let at = client.open(Document::created(id, [change(&mut doc, 0)]));
    client.until_acked(at).await.unwrap();
    relay.stop().await;
}

/// Nobody could upload what the only client asks for, so there is nothing to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_alone_is_told_at_once_what_nobody_has() {
    let config = Config {
        // Longer than any test waits.
        unavailable_grace: Duration::from_secs(3600),
        ..Config::default()
    };
    let storage = Arc::new(MemoryStorage::new("storage"));
    let name = PeerId::new("storage-server").unwrap();
    let relay = reconverge_server::Relay::start(config, name, storage, Arc::new(Open));
    let relay = relay.await.unwrap();
    let url = format!("ws://{}", relay.address());
    let mut alone = Client::connect(&url, "alone").await.unwrap();
    let at = alone.open(Document::new(DocumentId::new(&[1; 16]).unwrap()));
    let told = |client: &Client| client.document(at).is_unavailable();
    alone.until(told).await.unwrap();
    // What turns up later is sent all the same.
    let mut other = Client::connect(&url, "other").await.unwrap();
    let mut doc = AutoCommit::new();
    let id = DocumentId::new(&[1; 16]).unwrap();
    let made = other.open(Document::created(id, [change(&mut doc, 0)]));
    other.until_acked(made).await.unwrap();
    alone
        .until(|client| client.document(at).is_in_step())
        .await
        .unwrap();
    relay.stop().await;
}
