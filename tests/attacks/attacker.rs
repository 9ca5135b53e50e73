//! The attacker's connections.
//!
//! An attacker has a deadline, counts what it sends, and comes back when it is sent away.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use reconverge::protocol::PeerMetadata;
use reconverge_tests::socket::{Frame, Socket};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_tungstenite::WebSocketStream;

/// Before somebody who was sent away comes back.
const COME_BACK: Duration = Duration::from_millis(20);

/// The relay under attack.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: Arc<str>,
    pub(crate) deadline: Instant,
    sent: Arc<AtomicU64>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Target {
    pub(crate) fn new(url: &str, lasts: Duration) -> Self {
        Self {
            url: url.into(),
            deadline: Instant::now() + lasts,
            sent: Arc::default(),
            notes: Arc::default(),
        }
    }

    /// Whether the attack is over.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    /// Something that belongs into this attack's line.
    pub(crate) fn note(&self, note: String) {
        self.notes.lock().unwrap().push(note);
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap().clone()
    }

    /// The address without the scheme.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("ws://").trim_end_matches('/')
    }

    /// Waits until the attack is over.
    pub(crate) async fn rest(&self) {
        sleep_until(self.deadline).await;
    }

    /// Has so many attackers at work until the attack is over, each in a task of its own.
    pub(crate) async fn by<F>(&self, attackers: usize, attack: impl Fn(Self, String) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for number in 0..attackers {
            tasks.spawn(attack(self.clone(), format!("attacker-{number}")));
        }
        // What is not over by itself is cut off, as a process that ends cuts its connections.
        let all = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout_at(self.deadline + COME_BACK, all).await;
    }
}

/// One attacker sends these, as long as it is let in, and stays.
pub(crate) async fn sends_all(target: &Target, messages: impl IntoIterator<Item = Bytes>) {
    sends_all_as(target, "attacker-0", messages).await;
}

/// The same of an attacker of this name.
pub(crate) async fn sends_all_as(
    target: &Target,
    name: &str,
    messages: impl IntoIterator<Item = Bytes>,
) {
    let Some(mut attacker) = Attacker::join(target, name).await else {
        return;
    };
    for message in messages {
        if !attacker.send(message).await {
            break;
        }
    }
    attacker.stay().await;
}

/// One connection of an attacker that joined.
pub(crate) struct Attacker {
    target: Target,
    sink: SplitSink<WebSocketStream<TcpStream>, Frame>,
    /// Reads what the relay says, and holds what is never read.
    reader: JoinHandle<()>,
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Attacker {
    /// One that reads what the relay says; `None` if it does not get in before the attack is over.
    pub(crate) async fn join(target: &Target, name: &str) -> Option<Self> {
        Self::join_with(target, name, PeerMetadata::default(), true).await
    }

    /// One that reads nothing.
    pub(crate) async fn join_deaf(target: &Target, name: &str) -> Option<Self> {
        Self::join_with(target, name, PeerMetadata::default(), false).await
    }

    pub(crate) async fn join_with(
        target: &Target,
        name: &str,
        metadata: PeerMetadata<'_>,
        reads: bool,
    ) -> Option<Self> {
        while !target.is_over() {
            let joining = Socket::try_join(&target.url, name, metadata.clone());
            if let Ok(Ok(socket)) = timeout_at(target.deadline, Box::pin(joining)).await {
                let (sink, mut stream) = socket.into_stream().split();
                let reader = tokio::spawn(async move {
                    if !reads {
                        // The stream is held, so that the socket stays open.
                        std::future::pending::<()>().await;
                    }
                    while let Some(Ok(_)) = stream.next().await {}
                });
                return Some(Self {
                    target: target.clone(),
                    sink,
                    reader,
                });
            }
            tokio::time::sleep(COME_BACK).await;
        }
        None
    }

    /// Sends a message, at the latest when much of them waits; `false` if it was sent away or the
    /// attack is over.
    pub(crate) async fn feed(&mut self, bytes: impl Into<Bytes>) -> bool {
        self.feed_frame(Frame::Binary(bytes.into())).await
    }

    pub(crate) async fn feed_frame(&mut self, frame: Frame) -> bool {
        let len = frame.len();
        if self.target.is_over() {
            return false;
        }
        let fed = timeout_at(self.target.deadline, self.sink.feed(frame)).await;
        let is_fed = matches!(fed, Ok(Ok(())));
        if is_fed {
            self.target.count(len);
        }
        is_fed
    }

    /// Sends a message at once.
    pub(crate) async fn send(&mut self, bytes: impl Into<Bytes>) -> bool {
        self.feed(bytes).await && self.flush().await
    }

    pub(crate) async fn flush(&mut self) -> bool {
        let flushed = timeout_at(self.target.deadline, self.sink.flush()).await;
        matches!(flushed, Ok(Ok(())))
    }

    /// Waits until the attack is over, or the relay ended the connection: then `false`.
    pub(crate) async fn stay(&mut self) -> bool {
        let reader = &mut self.reader;
        timeout_at(self.target.deadline, reader).await.is_err()
    }
}

/// Says the messages that `messages` makes for its name, again and again; comes back when it is sent
/// away.
pub(crate) async fn repeat(target: Target, name: String, messages: Vec<Bytes>, pause: Duration) {
    while let Some(mut attacker) = Attacker::join(&target, &name).await {
        'connected: loop {
            for message in &messages {
                if !attacker.send(message.clone()).await {
                    break 'connected;
                }
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
        }
        tokio::time::sleep(COME_BACK).await;
    }
}
