//! Servers that do not speak our protocol, driven as the relay is: the [floor](crate::floor), and
//! servers of Yjs. One document is typed by one and read by many, or each types in a document of
//! its own. No contents are looked at, only how many edits came.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use reconverge::leb::{Reader, push_unsigned};
use reconverge_tests::light::Fault;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::fanout::Pace;
use crate::floor;
use crate::gather;
use crate::report::{Report, Row, Stopwatch, mib, p50_p99, per_second};

/// How long an edit may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// As large as what the relay sends for a keystroke, with its envelope, and as what a reader
/// answers.
const FLOOR_EDIT_BYTES: usize = 340;
const FLOOR_ANSWER_BYTES: usize = 220;

/// What is measured beside the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Floor,
    Hocuspocus,
    YWebsocket,
}

/// A server as a process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    child: Child,
    address: String,
}

/// The edits of one document, in the server's encoding.
#[derive(Debug, Clone)]
pub(crate) struct Edits {
    /// The document before the first of them; `None` if the server keeps nothing.
    pub(crate) base: Option<Bytes>,
    pub(crate) edits: Vec<Bytes>,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Hocuspocus => "Hocuspocus",
            Self::YWebsocket => "y-websocket",
        }
    }

    /// That many edits of a document that has ten changes, or all of the paper's.
    pub(crate) fn edits(self, count: usize, paper: bool) -> Edits {
        if self == Self::Floor {
            let mut frame = vec![0; FLOOR_EDIT_BYTES];
            frame[0] = floor::EDIT;
            let edits = vec![Bytes::from(frame); count];
            return Edits { base: None, edits };
        }
        let script = peers().join("updates.js");
        let what = if paper { "paper" } else { "small" };
        let output = Command::new("node")
            .arg(script)
            .args([what, &count.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let output = Bytes::from(output.stdout);
        let mut updates = Vec::new();
        let mut at = 0;
        while at < output.len() {
            let length: [u8; 4] = output[at..at + 4].try_into().unwrap();
            let length = u32::from_le_bytes(length) as usize;
            updates.push(output.slice(at + 4..at + 4 + length));
            at += 4 + length;
        }
        assert_eq!(
            updates.len(),
            count + 1,
            "`npm install` in tests/bench/peers"
        );
        let edits = updates.split_off(1);
        Edits {
            base: updates.pop(),
            edits,
        }
    }
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers")
}

impl Server {
    pub(crate) fn start(kind: Kind) -> Self {
        let mut command = match kind {
            Kind::Floor => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg(floor::SERVE);
                command
            }
            Kind::Hocuspocus | Kind::YWebsocket => {
                let mut command = Command::new("node");
                let script = match kind {
                    Kind::Hocuspocus => "hocuspocus.js",
                    _ => "y-websocket.js",
                };
                command.arg(peers().join(script));
                command
            }
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("listening on ")?;
            Some(address.to_owned())
        });
        // Read on, so that the server never blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            kind,
            child,
            address: address.expect("a server that becomes ready"),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Somebody with one document open.
struct Client {
    socket: WebSocketStream<TcpStream>,
    kind: Kind,
    document: String,
}

/// The messages of y-protocols.
const SYNC: u64 = 0;
const AUTH: u64 = 2;
const STEP_1: u64 = 0;
const STEP_2: u64 = 1;
const UPDATE: u64 = 2;

impl Client {
    /// Connects and waits until it has the document.
    async fn open(server: &Server, document: &str) -> Result<Self, Fault> {
        let stream = TcpStream::connect(&server.address).await?;
        stream.set_nodelay(true)?;
        let request = format!("ws://{}/{document}", server.address).into_client_request()?;
        let config = WebSocketConfig::default().read_buffer_size(4 * 1024);
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        let mut client = Self {
            socket,
            kind: server.kind,
            document: document.to_owned(),
        };
        match client.kind {
            Kind::Floor => drop(client.next().await?),
            Kind::Hocuspocus | Kind::YWebsocket => {
                if client.kind == Kind::Hocuspocus {
                    let mut frame = client.head(AUTH);
                    push_unsigned(&mut frame, 0);
                    push_bytes(&mut frame, b"token");
                    // The version of its client, which the server may ask for.
                    push_bytes(&mut frame, b"");
                    client.send(frame).await?;
                }
                let mut frame = client.head(SYNC);
                push_unsigned(&mut frame, STEP_1);
                // The state vector of one who has nothing.
                push_bytes(&mut frame, &[0]);
                client.send(frame).await?;
                loop {
                    let frame = client.next_in_time().await?;
                    if client.sync_step(&frame) == Some(STEP_2) {
                        break;
                    }
                }
            }
        }
        Ok(client)
    }

    fn head(&self, kind: u64) -> Vec<u8> {
        let mut frame = Vec::new();
        if self.kind == Kind::Hocuspocus {
            push_bytes(&mut frame, self.document.as_bytes());
        }
        push_unsigned(&mut frame, kind);
        frame
    }

    /// An edit as the server takes it.
    fn edit(&self, update: &Bytes) -> Bytes {
        if self.kind == Kind::Floor {
            return update.clone();
        }
        let mut frame = self.head(SYNC);
        push_unsigned(&mut frame, UPDATE);
        push_bytes(&mut frame, update);
        frame.into()
    }

    /// Which step of the sync protocol a frame is.
    fn sync_step(&self, frame: &[u8]) -> Option<u64> {
        let mut input = Reader(frame);
        if self.kind == Kind::Hocuspocus {
            input.prefixed()?;
        }
        (input.unsigned()? == SYNC).then(|| input.unsigned())?
    }

    fn is_edit(&self, frame: &[u8]) -> bool {
        match self.kind {
            Kind::Floor => frame.first() == Some(&floor::EDIT),
            Kind::Hocuspocus | Kind::YWebsocket => self.sync_step(frame) == Some(UPDATE),
        }
    }

    async fn send(&mut self, frame: impl Into<Bytes>) -> Result<(), Fault> {
        Ok(self.socket.send(Message::Binary(frame.into())).await?)
    }

    async fn next(&mut self) -> Result<Bytes, Fault> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(frame))) => return Ok(frame),
                Some(Ok(Message::Close(_))) | None => return Err(Fault::Closed),
                Some(message) => drop(message?),
            }
        }
    }

    async fn next_in_time(&mut self) -> Result<Bytes, Fault> {
        let next = tokio::time::timeout(PATIENCE, self.next()).await;
        next.unwrap_or_else(|_| Err(Fault::Silence(PATIENCE, self.document.clone())))
    }

    /// Waits for the next edit.
    async fn next_edit(&mut self) -> Result<(), Fault> {
        loop {
            let frame = self.next_in_time().await?;
            if self.is_edit(&frame) {
                return Ok(());
            }
        }
    }
}

fn push_bytes(frame: &mut Vec<u8>, bytes: &[u8]) {
    push_unsigned(frame, bytes.len() as u64);
    frame.extend_from_slice(bytes);
}

/// One types and all read, the one who types too: what comes back to it is its acknowledgement.
pub(crate) async fn fan_out(
    server: &Server,
    edits: Edits,
    readers: usize,
    pace: Pace,
    what: &str,
    report: &mut Report,
) -> Result<(), Fault> {
    let name = server.kind.name();
    let mut writer = Client::open(server, "document").await?;
    if let Some(base) = &edits.base {
        let base = writer.edit(base);
        writer.send(base).await?;
    }
    let count = edits.edits.len();
    let frames: Vec<Bytes> = edits.edits.iter().map(|edit| writer.edit(edit)).collect();
    let mut reading = Vec::new();
    for _ in 0..readers {
        reading.push(Client::open(server, "document").await?);
    }
    if edits.base.is_some() {
        writer.next_edit().await?;
    }
    let stopwatch = Stopwatch::of(server.pid());
    let reading: Vec<_> = (reading.into_iter())
        .map(|mut reader| tokio::spawn(async move { Box::pin(read(&mut reader, count)).await }))
        .collect();
    let mut sent_at = Vec::with_capacity(count);
    let mut ticks = pace.interval().map(tokio::time::interval);
    let mut back = 0;
    for frame in frames {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        while sent_at.len() - back >= pace.in_flight_max().max(1) && ticks.is_none() {
            writer.next_edit().await?;
            back += 1;
        }
        sent_at.push(Instant::now());
        writer.send(frame).await?;
    }
    while back < count {
        writer.next_edit().await?;
        back += 1;
    }
    let mut last_at = sent_at.clone();
    for reader in reading {
        let reached_at: Vec<Instant> = reader.await.unwrap()?;
        for (last, reached) in last_at.iter_mut().zip(reached_at) {
            *last = (*last).max(reached);
        }
    }
    let elapsed = stopwatch.elapsed();
    let cpu = stopwatch.cpu(count * readers, "delivery");
    let waits = sent_at.iter().zip(&last_at);
    let mut waits: Vec<Duration> = waits.map(|(sent, last)| *last - *sent).collect();
    report.row(Row {
        what: format!(
            "{name}: fan-out to {readers}, {what}, {}: edit to last reader",
            pace.name()
        ),
        rate: format!("{} deliveries/s", per_second(count * readers, elapsed)),
        latency: p50_p99(&mut waits),
        cpu,
        memory: mib(stopwatch.usage().resident_bytes),
        checked: format!("{readers} readers: number of edits"),
    });
    Ok(())
}

/// Reads so many edits, answering each as clients of ours do if the server is the floor.
async fn read(reader: &mut Client, edits: usize) -> Result<Vec<Instant>, Fault> {
    let mut reached_at = Vec::with_capacity(edits);
    let mut answer = vec![0; FLOOR_ANSWER_BYTES];
    answer[0] = floor::ANSWER;
    let answer = Bytes::from(answer);
    while reached_at.len() < edits {
        reader.next_edit().await?;
        reached_at.push(Instant::now());
        if reader.kind == Kind::Floor {
            reader.send(answer.clone()).await?;
        }
    }
    Ok(reached_at)
}

/// Each types in a document of its own, one edit at a time.
pub(crate) async fn writers(
    server: &Server,
    edits: Edits,
    writers: usize,
    report: &mut Report,
) -> Result<(), Fault> {
    let each = edits.edits.len();
    let mut clients = Vec::new();
    for n in 0..writers {
        let mut client = Client::open(server, &format!("document-{n}")).await?;
        if let Some(base) = &edits.base {
            let base = client.edit(base);
            client.send(base).await?;
            client.next_edit().await?;
        }
        clients.push(client);
    }
    let stopwatch = Stopwatch::of(server.pid());
    let writing: Vec<_> = (clients.into_iter())
        .map(|mut client| {
            let edits = edits.edits.clone();
            tokio::spawn(async move {
                let mut acks = Vec::with_capacity(edits.len());
                for edit in edits {
                    let frame = client.edit(&edit);
                    let sent_at = Instant::now();
                    client.send(frame).await?;
                    client.next_edit().await?;
                    acks.push(sent_at.elapsed());
                }
                Ok::<_, Fault>((client, acks))
            })
        })
        .collect();
    let (clients, mut acks) = gather(writing).await?;
    let elapsed = stopwatch.elapsed();
    let cpu = stopwatch.cpu(writers * each, "edit");
    drop(clients);
    report.row(Row {
        what: format!(
            "{}: {writers} writers, one edit at a time each: edit until it comes back",
            server.kind.name()
        ),
        rate: format!("{} edits/s", per_second(writers * each, elapsed)),
        latency: p50_p99(&mut acks),
        cpu,
        memory: mib(stopwatch.usage().resident_bytes),
        checked: "number of edits".into(),
    });
    Ok(())
}
