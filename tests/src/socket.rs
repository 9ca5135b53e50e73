//! A WebSocket that sends anything, also what no client sends.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use reconverge::id::DocumentId;
use reconverge::protocol::{self, Message, PeerMetadata, SyncEnvelope};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
pub use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as WireFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::light::{Fault, PATIENCE};
use crate::world::sync_message;

/// A connection that sends anything.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    name: String,
}

impl Socket {
    /// A connection that has said nothing.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn open(url: &str, name: &str) -> Self {
        Self::try_open(url, name).await.unwrap()
    }

    /// One that has joined.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn join(url: &str, name: &str) -> Self {
        Self::try_join(url, name, PeerMetadata::default())
            .await
            .unwrap()
    }

    /// A connection that has said nothing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn try_open(url: &str, name: &str) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address_of(url)).await?;
        let config = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        let (stream, _) =
            tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
        Ok(Self {
            stream,
            name: name.to_owned(),
        })
    }

    /// One that has joined and says this of itself.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn try_join(
        url: &str,
        name: &str,
        metadata: PeerMetadata<'_>,
    ) -> Result<Self, Fault> {
        let mut socket = Self::try_open(url, name).await?;
        let join = protocol::encode(&Message::Join {
            sender: name,
            metadata,
            speaks_v1: true,
        });
        socket.stream.send(binary(join)).await?;
        let answer = socket.stream.next().await.ok_or(Fault::Closed)??;
        match protocol::decode(&answer.into_data())? {
            Message::Peer { .. } => Ok(socket),
            other => Err(Fault::Refused(format!("{other:?}"))),
        }
    }

    /// A connection that was read from meanwhile.
    #[must_use]
    pub fn from_stream(stream: WebSocketStream<TcpStream>, name: &str) -> Self {
        let name = name.to_owned();
        Self { stream, name }
    }

    /// The WebSocket itself.
    #[must_use]
    pub fn into_stream(self) -> WebSocketStream<TcpStream> {
        self.stream
    }

    /// Sends as much as the relay takes: it may close before the end.
    pub async fn send(&mut self, frames: Vec<Frame>) {
        for frame in frames {
            if self.stream.feed(frame).await.is_err() {
                return;
            }
        }
        let _ = self.stream.flush().await;
    }

    /// Waits for the end; the code that the relay closes with, if it says one.
    ///
    /// # Panics
    /// When the end does not come.
    pub async fn closed(mut self) -> Option<u16> {
        let end = async {
            let mut code = None;
            while let Some(Ok(frame)) = self.stream.next().await {
                if let Frame::Close(Some(frame)) = frame {
                    code = Some(u16::from(frame.code));
                }
            }
            code
        };
        let ended = tokio::time::timeout(PATIENCE, end).await;
        ended.unwrap_or_else(|_| panic!("{} is not closed", self.name))
    }
}

/// The host and port of a relay's URL.
#[must_use]
pub fn address_of(url: &str) -> &str {
    let address = url.trim_start_matches("ws://");
    address.split(['/', '?']).next().unwrap()
}

/// A message of these bytes.
pub fn binary(bytes: impl Into<Bytes>) -> Frame {
    Frame::Binary(bytes.into())
}

/// A sync message of a document, as its frame's bytes.
#[must_use]
pub fn sync_bytes(name: &str, document: DocumentId, data: &[u8]) -> Vec<u8> {
    let envelope = SyncEnvelope {
        sender: name,
        target: "",
        document: document.to_string().into(),
        data,
        request: false,
    };
    protocol::encode(&Message::Sync(envelope))
}

/// Asks for a document as who has nothing of it, as a frame's bytes.
#[must_use]
pub fn request_bytes(name: &str, document: DocumentId) -> Vec<u8> {
    let envelope = SyncEnvelope {
        sender: name,
        target: "",
        document: document.to_string().into(),
        data: &sync_message(&[], &[], &[]),
        request: true,
    };
    protocol::encode(&Message::Sync(envelope))
}

/// A sync message of a document.
#[must_use]
pub fn sync_frame(name: &str, document: DocumentId, data: &[u8]) -> Frame {
    binary(sync_bytes(name, document, data))
}

/// A part of a message.
#[must_use]
pub fn part(bytes: &[u8], opcode: Data, last: bool) -> Frame {
    let bytes = Bytes::copy_from_slice(bytes);
    Frame::Frame(WireFrame::message(bytes, OpCode::Data(opcode), last))
}

/// A ping of so many bytes; `last`, unless it claims to be a part of one.
#[must_use]
pub fn control(bytes: usize, last: bool) -> Frame {
    let bytes = vec![0; bytes];
    Frame::Frame(WireFrame::message(
        bytes,
        OpCode::Control(Control::Ping),
        last,
    ))
}
