//! The WebSocket of one connection, read and written by one task without either waiting for the
//! other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Sink, Stream};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame as WireFrame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::PollSemaphore;

use super::charged_stream::ChargedStream;
use crate::limits::large_messages::{LARGE_BYTES, SendPermit};
use crate::limits::memory::{Charge, Holder};
use crate::peers::{Closing, Frame, Outbox, Wish};

/// Larger messages go as continuation frames of this size, so that no connection keeps a write
/// buffer as large as the largest document that it was ever sent.
const FRAME_BYTES: usize = LARGE_BYTES;

/// Answers to pings that may wait to be written, of at most 127 bytes each. The library queues one
/// for each ping without a bound; when there are as many, nothing more is read. A few are let pass,
/// because a peer that writes something large may not read until it is written.
const PONGS_MAX: usize = 64;

/// How long a peer may read nothing while something waits for it.
const STALLED: Duration = Duration::from_secs(60);

/// How long a peer may take to read what is left when the connection ends. As long is what it still
/// sends read and dropped: a socket that is closed with something unread resets the connection, and
/// the peer may lose the close frame with it.
const FINISH: Duration = Duration::from_secs(3);

/// How long a peer may take to say that it has read everything, before it is told that the
/// connection ends.
const SETTLE: Duration = Duration::from_millis(1500);

/// How long nothing is written before the close frame, where the peer cannot be asked.
const SILENCE: Duration = Duration::from_millis(250);

/// How often a peer that may send nothing more is pinged.
const HELD_UP_PING: Duration = Duration::from_secs(1);

/// What the ping carries that asks whether a peer has read everything.
const SETTLED: &[u8] = b"settled?";

/// What happens next on a connection.
pub(super) enum Next {
    Message(Message, OwnedSemaphorePermit, Charge),
    Closing(Closing),
    /// The peer ended the connection, and what it sent before cannot be read yet. It is said once.
    Gone,
    /// Somebody wants to know whether the peer still answers.
    Probe,
    /// What came is no WebSocket.
    Broken(Closing),
    /// A message has, as far as it came, more bytes than one may have.
    TooLarge {
        bytes: usize,
        max: usize,
    },
    Ended(String),
    Deadline,
}

/// What happens to a connection that is not read.
enum Unread {
    Gone,
    /// Nothing, for so long that it is to be pinged.
    Silent,
}

/// What comes of it, or `None` when the task is woken by something else.
async fn or_woken<T>(mut future: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
    let mut woken = false;
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if std::mem::replace(&mut woken, true) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

pub(crate) struct Socket {
    stream: WebSocketStream<ChargedStream>,
    /// What is left of a message that goes in several frames, and its permit.
    rest: Option<(Bytes, Option<SendPermit>)>,
    /// Whether something was written since the last flush.
    unflushed: bool,
    stalled_since: Option<Instant>,
    /// Pings that were answered since all was flushed.
    pongs: usize,
    permit: Option<OwnedSemaphorePermit>,
    /// What comes from here on is not understood, or may not be held.
    deaf: bool,
    /// The peer ended the connection.
    gone: bool,
    pinged_at: Instant,
}

impl Socket {
    /// Takes over a connection after the HTTP upgrade; `read` is what the peer sent since.
    pub(crate) async fn new(
        io: TcpStream,
        read: Bytes,
        holder: Arc<Holder>,
        message_bytes_max: usize,
    ) -> Self {
        let io = ChargedStream::new(io, holder);
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = 2 * 1024;
        // Frames are added only while the last ones could be written, and pongs are counted, so the
        // buffer is bounded by this, one frame and the pongs. A limit of the library's would lose
        // the frame that meets it.
        config.write_buffer_size = 16 * 1024;
        config.max_message_size = Some(message_bytes_max);
        config.max_frame_size = Some(message_bytes_max);
        let stream =
            WebSocketStream::from_partially_read(io, read.to_vec(), Role::Server, Some(config));
        Self {
            stream: stream.await,
            rest: None,
            unflushed: false,
            stalled_since: None,
            pongs: 0,
            permit: None,
            deaf: false,
            gone: false,
            pinged_at: Instant::now(),
        }
    }

    /// Writes what waits and reads the next message, for which there must be a permit.
    pub(super) async fn next(
        &mut self,
        outbox: Option<&Arc<Outbox>>,
        permits: &mut PollSemaphore,
    ) -> Next {
        loop {
            let next = std::future::poll_fn(|cx| self.poll(cx, outbox, permits)).await;
            if let Some(next) = next {
                return next;
            }
            // Its end lies behind what cannot be read; behind what it could not send yet, nothing
            // shows it but that it does not take a ping.
            let ends = Box::pin(async {
                tokio::select! {
                    () = self.stream.get_ref().ends() => Unread::Gone,
                    () = sleep_until(self.pinged_at + HELD_UP_PING) => Unread::Silent,
                }
            });
            match or_woken(ends).await {
                Some(Unread::Gone) => {
                    self.gone = true;
                    return Next::Gone;
                }
                Some(Unread::Silent) => self.ping(),
                None => {}
            }
        }
    }

    /// What happens next; `None` while it may not read, and then its task is registered as if it were
    /// pending.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        outbox: Option<&Arc<Outbox>>,
        permits: &mut PollSemaphore,
    ) -> Poll<Option<Next>> {
        let next = self.poll_next(cx, outbox, permits);
        match next {
            Poll::Pending if !self.gone && self.may_not_read() => Poll::Ready(None),
            next => next.map(Some),
        }
    }

    /// Whether there is no permit for what it would read.
    fn may_not_read(&self) -> bool {
        self.permit.is_none() || self.pongs >= PONGS_MAX || self.stream.get_ref().is_held_up()
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        outbox: Option<&Arc<Outbox>>,
        permits: &mut PollSemaphore,
    ) -> Poll<Next> {
        if let Some(outbox) = outbox {
            outbox.register(cx);
        }
        let holder = self.stream.get_ref().holder();
        holder.register(cx);
        if holder.is_evicted() {
            self.deaf = true;
            return Poll::Ready(Next::Closing(Closing {
                code: 1013,
                reason: "holds too much of the relay's memory while others wait".into(),
            }));
        }
        if let Err(error) = self.poll_write(cx, outbox) {
            return Poll::Ready(Next::Ended(error.to_string()));
        }
        match outbox.and_then(|outbox| outbox.wish()) {
            Some(Wish::Close(closing)) => return Poll::Ready(Next::Closing(closing)),
            Some(Wish::Probe) => return Poll::Ready(Next::Probe),
            None => {}
        }
        let stalled =
            |since: Instant| since.max(self.stream.get_ref().written_at()).elapsed() > STALLED;
        if self.stalled_since.is_some_and(stalled) {
            return Poll::Ready(Next::Ended("the peer does not read".into()));
        }
        if self.permit.is_none() {
            let Poll::Ready(permit) = permits.poll_acquire(cx) else {
                return Poll::Pending;
            };
            self.permit = permit;
        }
        if self.pongs >= PONGS_MAX {
            // Writing them has the task woken.
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Next::Ended("closed by the peer".into())),
            Poll::Ready(Some(Err(error))) => Poll::Ready(self.failed(error)),
            Poll::Ready(Some(Ok(Message::Close(_)))) => {
                Poll::Ready(Next::Ended("closed by the peer".into()))
            }
            Poll::Ready(Some(Ok(message))) => {
                // Pings may come in the midst of a message that is sent in parts.
                let charge = match &message {
                    Message::Binary(_) | Message::Text(_) => {
                        self.stream.get_mut().message_ended(message.len())
                    }
                    Message::Ping(data) => {
                        self.stream.get_mut().control_ended(data.len());
                        self.pongs += 1;
                        self.unflushed = true;
                        self.stream.get_ref().holder().charge(0)
                    }
                    message => {
                        self.stream.get_mut().control_ended(message.len());
                        self.stream.get_ref().holder().charge(0)
                    }
                };
                let permit = self.permit.take().expect("acquired above");
                Poll::Ready(Next::Message(message, permit, charge))
            }
        }
    }

    fn failed(&mut self, error: Error) -> Next {
        self.deaf = true;
        match error {
            Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => Next::TooLarge {
                bytes: size,
                max: max_size,
            },
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Next::Ended("closed by the peer".into())
            }
            Error::Protocol(error) => Next::Broken(Closing {
                code: 1002,
                reason: error.to_string(),
            }),
            error => Next::Ended(error.to_string()),
        }
    }

    /// Writes frames while the socket takes them, then flushes.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        outbox: Option<&Arc<Outbox>>,
    ) -> Result<(), Error> {
        loop {
            if Pin::new(&mut self.stream).poll_ready(cx)?.is_pending() {
                self.stalled_since.get_or_insert_with(Instant::now);
                return Ok(());
            }
            let Some(message) = self.next_message(outbox) else {
                break;
            };
            Pin::new(&mut self.stream).start_send(message)?;
            self.unflushed = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx)? {
                Poll::Ready(()) => {
                    self.pongs = 0;
                    self.unflushed = false;
                    self.stalled_since = None;
                }
                Poll::Pending => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                }
            }
        }
        Ok(())
    }

    fn next_message(&mut self, outbox: Option<&Arc<Outbox>>) -> Option<Message> {
        if let Some((mut rest, permit)) = self.rest.take() {
            let part = rest.split_to(rest.len().min(FRAME_BYTES));
            let last = rest.is_empty();
            self.rest = (!last).then_some((rest, permit));
            let continued = OpCode::Data(Data::Continue);
            return Some(Message::Frame(WireFrame::message(part, continued, last)));
        }
        let Poll::Ready(frame) = outbox?.poll_frame() else {
            return None;
        };
        let Frame {
            head,
            payload,
            permit,
        } = frame;
        if payload.is_empty() {
            return Some(Message::Binary(head));
        }
        self.rest = Some((payload, permit));
        Some(Message::Frame(WireFrame::message(
            head,
            OpCode::Data(Data::Binary),
            false,
        )))
    }

    /// When something was last read. Also a peer in the midst of a large message, which cannot
    /// answer pings until its end, is alive.
    pub(super) fn read_at(&self) -> Instant {
        self.stream.get_ref().read_at()
    }

    /// Whether what the peer sends may lie unread for want of a permit or of memory, so that an
    /// answer to a ping would not be seen.
    pub(super) fn is_held_up(&self) -> bool {
        self.permit.is_none() || self.pongs >= PONGS_MAX || self.stream.get_ref().is_large()
    }

    /// Whether the peer has not read yet what was written; how long that may last is watched
    /// elsewhere, and pings would only wait behind it.
    pub(super) fn is_writing(&self) -> bool {
        self.rest.is_some() || self.stalled_since.is_some()
    }

    /// Pings the peer; the pong counts as a sign of life.
    pub(super) fn ping(&mut self) {
        self.pinged_at = Instant::now();
        if !self.is_writing() {
            let ping = Pin::new(&mut self.stream).start_send(Message::Ping(Bytes::new()));
            // A broken socket shows at the next read.
            self.unflushed |= ping.is_ok();
        }
    }

    async fn write_out(&mut self, outbox: Option<&Arc<Outbox>>) {
        std::future::poll_fn(|cx| match self.poll_write(cx, outbox) {
            Ok(()) if self.unflushed || self.rest.is_some() => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// Writes what waits, and whether the peer has read all of it, within a bounded time; nothing
    /// may be written afterwards but a close frame.
    ///
    /// A stock client (automerge-repo 2.5.6 on `ws`) takes in a sync message a moment after it was
    /// read. When a close frame came right behind it, the socket is closing by then, its answer
    /// throws in the midst of applying the change, and its copy of the document is unusable from
    /// then on. What was read before a pong was sent is taken in before what is sent after the pong
    /// is read.
    pub(super) async fn settle(&mut self, outbox: Option<&Arc<Outbox>>) -> bool {
        let settled = async {
            self.write_out(outbox).await;
            if self.deaf {
                // It cannot be asked. Who lags by less than this has read what was written.
                let io = self.stream.get_mut();
                let _ = tokio::time::timeout(SILENCE, io.discard()).await;
                return true;
            }
            let ping = Message::Ping(Bytes::from_static(SETTLED));
            let sent = Pin::new(&mut self.stream).start_send(ping);
            self.unflushed = true;
            if sent.is_err() {
                return false;
            }
            self.write_out(None).await;
            std::future::poll_fn(|cx| self.poll_settled(cx)).await
        };
        let settled = tokio::time::timeout(SETTLE, settled).await;
        settled.unwrap_or(false)
    }

    /// Drops what comes until the answer to the last ping.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        while self.pongs < PONGS_MAX {
            let message = match Pin::new(&mut self.stream).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(_) => break,
            };
            match message {
                Message::Pong(data) if data == SETTLED => return Poll::Ready(true),
                Message::Pong(data) => self.stream.get_mut().control_ended(data.len()),
                Message::Ping(data) => {
                    self.stream.get_mut().control_ended(data.len());
                    self.pongs += 1;
                }
                message => drop(self.stream.get_mut().message_ended(message.len())),
            }
        }
        Poll::Ready(false)
    }

    /// Writes what waits, says goodbye, if it may, and ends, within a bounded time.
    pub(super) async fn finish(mut self, outbox: Option<&Arc<Outbox>>, closing: Option<&Closing>) {
        let end = async {
            if let Some(closing) = closing {
                self.write_out(outbox).await;
                let code = CloseCode::from(closing.code);
                let reason: String = closing.reason.chars().take(100).collect();
                let reason = reason.into();
                let _ = self.stream.close(Some(CloseFrame { code, reason })).await;
            }
            // Not only when the peer has answered: until then it can send nothing, and stock clients
            // throw when they try. Nor is it reset: the answers of one that lags must not fail, which
            // does the same. What was held of messages is given back.
            self.stream.into_inner().end().await;
        };
        let _ = tokio::time::timeout(FINISH, end).await;
    }
}
