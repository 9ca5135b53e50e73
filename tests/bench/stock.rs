//! A client that is a whole Automerge document: it makes its edits in it and takes in what comes
//! with Automerge's own sync state, as automerge-repo does, and answers every message to which
//! that state has an answer.

use std::time::{Duration, Instant};

use automerge::sync::{Message as Sync, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{Automerge, ObjId, ROOT, ReadDoc};
use futures::{SinkExt, StreamExt};
use reconverge::id::DocumentId;
use reconverge::protocol::{self, Message, PeerMetadata, SyncEnvelope};
use reconverge_tests::light::{Fault, PATIENCE};
use reconverge_tests::socket::address_of;
use reconverge_tests::typist::TEXT;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// One connection with one document.
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    name: String,
    relay: String,
    document: String,
    pub(crate) automerge: Automerge,
    state: State,
    text: ObjId,
    length: usize,
}

impl Client {
    /// Connects with this document and waits until the relay has all of it.
    pub(crate) async fn open(
        url: &str,
        name: &str,
        id: DocumentId,
        automerge: Automerge,
    ) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address_of(url)).await?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(4 * 1024);
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
        let (_, text) = automerge.get(ROOT, TEXT).unwrap().expect("a text");
        let mut client = Self {
            socket,
            name: name.to_owned(),
            relay: String::new(),
            document: id.to_string(),
            length: automerge.length(&text),
            automerge,
            state: State::new(),
            text,
        };
        let join = Message::Join {
            sender: name,
            metadata: PeerMetadata {
                is_ephemeral: true,
                ..PeerMetadata::default()
            },
            speaks_v1: true,
        };
        client.send(protocol::encode(&join)).await?;
        while client.relay.is_empty() {
            client.next().await?;
        }
        client.say().await?;
        client.until_acked().await?;
        Ok(client)
    }

    async fn send(&mut self, frame: Vec<u8>) -> Result<(), Fault> {
        Ok(self.socket.send(Frame::Binary(frame.into())).await?)
    }

    /// Sends what the sync state has to say, if anything.
    async fn say(&mut self) -> Result<(), Fault> {
        let Some(message) = self.automerge.generate_sync_message(&mut self.state) else {
            return Ok(());
        };
        let data = message.encode();
        let frame = protocol::encode(&Message::Sync(SyncEnvelope {
            sender: &self.name,
            target: &self.relay,
            document: self.document.as_str().into(),
            data: &data,
            request: false,
        }));
        self.send(frame).await
    }

    /// Takes in the next message and answers it.
    async fn next(&mut self) -> Result<(), Fault> {
        let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
        let next = next.map_err(|_| Fault::Silence(PATIENCE, self.name.clone()))?;
        let frame = match next {
            Some(Ok(Frame::Binary(frame))) => frame,
            Some(Ok(Frame::Close(_))) | None => return Err(Fault::Closed),
            Some(other) => return other.map(drop).map_err(Fault::from),
        };
        match protocol::decode(&frame)? {
            Message::Peer { sender, .. } => sender.clone_into(&mut self.relay),
            Message::Error { message, .. } => return Err(Fault::Refused(message.to_owned())),
            Message::Sync(sync) => {
                let wrong = |error: &dyn std::fmt::Display| Fault::Relay(error.to_string());
                let message = Sync::decode(sync.data).map_err(|error| wrong(&error))?;
                let received = self
                    .automerge
                    .receive_sync_message(&mut self.state, message);
                received.map_err(|error| wrong(&error))?;
                self.say().await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits until the relay has named all heads of the document.
    async fn until_acked(&mut self) -> Result<(), Fault> {
        let mut heads = self.automerge.get_heads();
        heads.sort_unstable();
        loop {
            let mut named = self.state.their_heads.clone().unwrap_or_default();
            named.sort_unstable();
            if named == heads {
                return Ok(());
            }
            self.next().await?;
        }
    }

    /// Types a letter; how long it is until the relay has it.
    pub(crate) async fn edit(&mut self) -> Result<Duration, Fault> {
        let began = Instant::now();
        let mut transaction = self.automerge.transaction();
        let typed = transaction.splice_text(&self.text, self.length, 0, "x");
        typed.expect("the end of a text");
        transaction.commit();
        self.length += 1;
        self.say().await?;
        self.until_acked().await?;
        Ok(began.elapsed())
    }
}
