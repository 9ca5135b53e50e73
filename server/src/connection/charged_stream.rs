//! A TCP stream that knows when something last passed, and how much of a message has come.
//!
//! A WebSocket library gives a message when it is whole; until then its bytes lie in buffers that
//! nobody else sees. Here they are charged to the connection, which is not read while it holds more
//! than it may.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
#[cfg(any(target_os = "linux", target_os = "android"))]
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::limits::memory::{Charge, Holder, SMALL_BYTES};

#[derive(Debug)]
pub(super) struct ChargedStream {
    io: TcpStream,
    holder: Arc<Holder>,
    /// Bytes since the last whole message; what exceeds a little is charged.
    held: usize,
    /// It waits for room to read more.
    held_up: bool,
    charge: Charge,
    read_at: Instant,
    written_at: Instant,
}

impl ChargedStream {
    pub(super) fn new(io: TcpStream, holder: Arc<Holder>) -> Self {
        Self {
            io,
            charge: holder.charge(0),
            holder,
            held: 0,
            held_up: false,
            read_at: Instant::now(),
            written_at: Instant::now(),
        }
    }

    pub(super) fn holder(&self) -> &Arc<Holder> {
        &self.holder
    }

    /// When something was last read.
    pub(super) fn read_at(&self) -> Instant {
        self.read_at
    }

    /// When the operating system last took something to be written.
    pub(super) fn written_at(&self) -> Instant {
        self.written_at
    }

    /// Whether it was not read when it was last tried, because there is no room.
    pub(super) fn is_held_up(&self) -> bool {
        self.held_up
    }

    /// Waits until the peer has ended the connection, read or not.
    pub(super) async fn ends(&self) {
        // Elsewhere it shows when all that came before is read.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            // Nobody sends urgent data here: what is left is the end. What makes it readable or
            // writable would be there all the time.
            let ready = self.io.ready(Interest::PRIORITY).await;
            if ready.is_err() || ready.is_ok_and(Ready::is_read_closed) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Whether it is in the midst of a message of which bytes are charged.
    pub(super) fn is_large(&self) -> bool {
        self.charge.bytes() > 0
    }

    /// A ping or a pong is whole, which may come in the midst of a message and stays nowhere.
    pub(super) fn control_ended(&mut self, payload_bytes: usize) {
        // A client's frame has two bytes and a mask of four before its payload.
        self.held = self.held.saturating_sub(payload_bytes + 6);
        let charged = match self.held > SMALL_BYTES {
            true => self.held,
            false => 0,
        };
        self.charge.resize(charged);
    }

    /// A message of so many bytes is whole; who takes it holds them from here on.
    pub(super) fn message_ended(&mut self, bytes: usize) -> Charge {
        self.held = 0;
        self.holder.goes_on();
        let mut charge = self.charge.take();
        charge.resize(bytes);
        charge
    }

    /// Reads and drops what comes, until the peer ends. Nothing of it is held, so it is read also
    /// from who may hold nothing.
    pub(super) async fn discard(&mut self) {
        let mut buffer = [0; 2 * 1024];
        while matches!(self.io.read(&mut buffer).await, Ok(1..)) {}
    }

    /// Says that nothing more will be written, and waits until the peer ends too.
    pub(super) async fn end(mut self) {
        self.charge.resize(0);
        if self.io.shutdown().await.is_ok() {
            self.discard().await;
        }
    }
}

impl AsyncRead for ChargedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Its task is registered, and woken when there is room.
        this.held_up = !this.holder.may_read();
        if this.held_up {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        this.held += read;
        if this.held > SMALL_BYTES {
            this.charge.resize(this.held);
        }
        this.read_at = Instant::now();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChargedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.written_at = Instant::now();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use reconverge::id::ConnectionId;

    use super::*;
    use crate::limits::memory::Memory;

    async fn pair(memory: &Arc<Memory>, n: u64) -> (ChargedStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let holder = memory.holder(ConnectionId(n));
        (
            ChargedStream::new(accepted.unwrap().0, holder),
            client.unwrap(),
        )
    }

    #[tokio::test]
    async fn who_holds_more_than_is_free_is_not_read_until_others_ended_their_messages() {
        let memory = Arc::new(Memory::new(100_000));
        let (mut first, mut sends_first) = pair(&memory, 1).await;
        let (mut second, mut sends_second) = pair(&memory, 2).await;
        let mut buffer = vec![0; 8 * 1024];
        let sending = tokio::spawn(async move {
            sends_first.write_all(&vec![1; 200_000]).await.unwrap();
            sends_second.write_all(&vec![1; 200_000]).await.unwrap();
            (sends_first, sends_second)
        });
        // In small steps, so that something is left to be read afterwards.
        let mut both = [&mut first, &mut second];
        let mut waits = [false; 2];
        while waits != [true; 2] {
            for (charged_stream, waits) in both.iter_mut().zip(&mut waits) {
                charged_stream
                    .holder
                    .clone()
                    .register(&Context::from_waker(Waker::noop()));
                let mut read = Box::pin(charged_stream.read(&mut buffer));
                // What comes later is waited for, what may not be read is not.
                *waits = futures::poll!(&mut read).is_pending() && {
                    tokio::task::yield_now().await;
                    drop(read);
                    !charged_stream.holder.may_read()
                };
            }
        }
        assert!(first.held.abs_diff(second.held) <= 16 * 1024);
        drop(first.message_ended(0));
        assert!(second.read(&mut buffer).await.unwrap() > 0);
        drop((first, second));
        drop(sending.await);
    }

    #[tokio::test]
    async fn pings_do_not_add_up_to_a_message() {
        let memory = Arc::new(Memory::new(100_000));
        let (mut pinged, mut pings) = pair(&memory, 1).await;
        let mut frame = [0; 131];
        for _ in 0..2_000 {
            pings.write_all(&frame).await.unwrap();
            pinged.read_exact(&mut frame).await.unwrap();
            pinged.control_ended(125);
        }
        assert!(!pinged.is_large());
        assert_eq!(pinged.holder.bytes(), 0);
    }
}
