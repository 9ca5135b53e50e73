//! The least that a relay can cost: a process that passes bytes on and does nothing else.
//!
//! It uses the relay's WebSocket library and the same kind of runtime. Whoever connects to the
//! same path hears each other: a frame that begins with [`EDIT`] goes to all of them, its sender
//! too, who takes it for the acknowledgement. Any other frame is an answer, which is read and
//! dropped. Nothing is decoded, kept or stored.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

/// Told to this program, it becomes the floor and serves until it is killed.
pub(crate) const SERVE: &str = "serve-floor";

/// The first byte of a frame that is passed on.
pub(crate) const EDIT: u8 = 1;

/// The first byte of an answer.
pub(crate) const ANSWER: u8 = 0;

/// What every newcomer is sent when it has its place.
const WELCOME: &[u8] = &[ANSWER];

/// Frames that may wait for one connection; then whoever sends waits.
const WAITING_MAX: usize = 256;

/// Those who hear each other. Replaced when somebody comes, so nobody holds a lock to send.
type Room = Arc<Mutex<Arc<[mpsc::Sender<Bytes>]>>>;

pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("listening on {}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        let rooms = Arc::new(Mutex::new(HashMap::<String, Room>::new()));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let rooms = Arc::clone(&rooms);
            // Who goes without a goodbye is nobody's trouble.
            tokio::spawn(async move { drop(connection(stream, &rooms).await) });
        }
    });
}

async fn connection(
    stream: TcpStream,
    rooms: &Mutex<HashMap<String, Room>>,
) -> Result<(), tungstenite::Error> {
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "as the library asks for it")]
    let note_path = |request: &Request, response: Response| {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(2 * 1024)
        .write_buffer_size(16 * 1024);
    let mut socket =
        tokio_tungstenite::accept_hdr_async_with_config(stream, note_path, Some(config)).await?;
    let (sender, mut waiting) = mpsc::channel(WAITING_MAX);
    let room = rooms.lock().unwrap().entry(path).or_default().clone();
    {
        let mut members = room.lock().unwrap();
        *members = members.iter().cloned().chain([sender]).collect();
    }
    socket.send(Message::Binary(WELCOME.into())).await?;
    loop {
        tokio::select! {
            Some(frame) = waiting.recv() => {
                socket.feed(Message::Binary(frame)).await?;
                while let Ok(frame) = waiting.try_recv() {
                    socket.feed(Message::Binary(frame)).await?;
                }
                socket.flush().await?;
            }
            message = socket.next() => match message {
                Some(Ok(Message::Binary(frame))) if frame.first() == Some(&EDIT) => {
                    let members = room.lock().unwrap().clone();
                    for member in members.iter() {
                        // Who is gone hears nothing.
                        let _ = member.send(frame.clone()).await;
                    }
                }
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(message) => drop(message?),
            },
        }
    }
}
