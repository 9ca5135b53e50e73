//! A TCP stream that knows when something last passed, and how much of a message has come.
//!
//! A WebSocket library gives a message when it is whole; until then its bytes lie in buffers that
//! nobody else sees. Here they are counted, over all connections: when there are too many, those
//! in the midst of a large message are not read until others have ended theirs.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes of an unfinished message that every connection may hold uncounted.
const UNCOUNTED_BYTES: usize = 64 * 1024;

/// The bytes of unfinished messages of all connections.
#[derive(Debug)]
pub(crate) struct Unfinished {
    bytes: AtomicUsize,
    bytes_max: usize,
    waiting: Mutex<Vec<Waker>>,
}

impl Unfinished {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
            waiting: Mutex::default(),
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) >= self.bytes_max
    }

    /// Whether there is room; if not, the caller is woken when there is.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(cx.waker().clone());
        // Room that came before the waker stood there would wake nobody.
        if self.is_full() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[derive(Debug)]
pub(super) struct Metered {
    io: TcpStream,
    unfinished: Arc<Unfinished>,
    /// Bytes since the last whole message, and how many of them are counted.
    held: usize,
    counted: usize,
    read_at: Instant,
    written_at: Instant,
}

impl Metered {
    pub(super) fn new(io: TcpStream, unfinished: Arc<Unfinished>) -> Self {
        Self {
            io,
            unfinished,
            held: 0,
            counted: 0,
            read_at: Instant::now(),
            written_at: Instant::now(),
        }
    }

    /// When something was last read.
    pub(super) fn read_at(&self) -> Instant {
        self.read_at
    }

    /// When the operating system last took something to be written.
    pub(super) fn written_at(&self) -> Instant {
        self.written_at
    }

    /// Whether it is in the midst of a message of which bytes are counted.
    pub(super) fn is_large(&self) -> bool {
        self.counted > 0
    }

    /// A ping or a pong is whole, which may come in the midst of a message and stays nowhere.
    pub(super) fn control_ended(&mut self, payload_bytes: usize) {
        // A client's frame has two bytes and a mask of four before its payload.
        let bytes = payload_bytes + 6;
        self.held = self.held.saturating_sub(bytes);
        let counted = bytes.min(self.counted);
        self.counted -= counted;
        self.unfinished.give_back(counted);
    }

    /// A message is whole; from here on its bytes are counted elsewhere.
    pub(super) fn message_ended(&mut self) {
        self.held = 0;
        self.unfinished.give_back(std::mem::take(&mut self.counted));
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.message_ended();
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held > UNCOUNTED_BYTES {
            ready!(this.unfinished.poll_room(cx));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        this.held += read;
        if this.held > UNCOUNTED_BYTES {
            this.counted += read;
            this.unfinished.bytes.fetch_add(read, Ordering::SeqCst);
        }
        this.read_at = Instant::now();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
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
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn pair(unfinished: &Arc<Unfinished>) -> (Metered, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (
            Metered::new(accepted.unwrap().0, unfinished.clone()),
            client.unwrap(),
        )
    }

    #[tokio::test]
    async fn a_large_message_waits_until_others_ended_theirs() {
        let unfinished = Arc::new(Unfinished::new(100_000));
        let (mut first, mut sends_first) = pair(&unfinished).await;
        let (mut second, mut sends_second) = pair(&unfinished).await;
        let mut buffer = vec![0; 200_000];
        let sending = tokio::spawn(async move {
            sends_first.write_all(&vec![1; 200_000]).await.unwrap();
            sends_second.write_all(&vec![1; 200_000]).await.unwrap();
            (sends_first, sends_second)
        });
        // In small steps, so that something is left to be read afterwards.
        while !unfinished.is_full() {
            assert!(first.read(&mut buffer[..8 * 1024]).await.unwrap() > 0);
        }
        // From here on the second may read what goes uncounted only.
        let mut read = 0;
        while read <= UNCOUNTED_BYTES {
            read += second.read(&mut buffer[..8 * 1024]).await.unwrap();
        }
        let mut more = Box::pin(second.read(&mut buffer));
        assert!(futures::poll!(&mut more).is_pending());
        first.message_ended();
        assert!(more.await.unwrap() > 0);
        drop(first);
        drop(second);
        assert_eq!(unfinished.bytes.load(Ordering::SeqCst), 0);
        drop(sending.await);
    }

    #[tokio::test]
    async fn pings_do_not_add_up_to_a_message() {
        let unfinished = Arc::new(Unfinished::new(100_000));
        let (mut pinged, mut pings) = pair(&unfinished).await;
        let mut frame = [0; 131];
        for _ in 0..2_000 {
            pings.write_all(&frame).await.unwrap();
            pinged.read_exact(&mut frame).await.unwrap();
            pinged.control_ended(125);
        }
        assert!(!pinged.is_large());
        assert_eq!(unfinished.bytes.load(Ordering::SeqCst), 0);
    }
}
