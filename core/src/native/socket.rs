//! One WebSocket to a relay: connects, then reads and writes without either waiting for the other.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use super::address::{Address, distrust};
use crate::engine::{CONNECT_TIMEOUT, Closed, Frame, Input};
use crate::id::ConnectionId;
use crate::protocol::MESSAGE_BYTES_MAX;
use crate::storage::Storage;

/// How long a socket that is given up may take to say goodbye.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What the driver tells a connection. When the driver drops its end, the connection closes.
pub(super) enum Order {
    Send(Frame),
    Ping,
}

/// Runs one connection until it ends, and says why.
pub(super) async fn run(
    address: Address,
    connection: ConnectionId,
    storage: Arc<dyn Storage>,
    orders: mpsc::Receiver<Order>,
    inputs: mpsc::Sender<Input>,
) {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(&address)).await;
    let closed = match connected.unwrap_or(Err(Closed::Lost)) {
        Ok(socket) => {
            // The driver may be gone; then nobody listens any more, here and below.
            let _ = inputs.send(Input::Connected(connection)).await;
            let (sink, stream) = socket.split();
            tokio::select! {
                () = read(connection, stream, &inputs) => {}
                () = write(connection, sink, storage, orders, &inputs) => {}
            }
            Closed::Lost
        }
        Err(closed) => closed,
    };
    let _ = inputs.send(Input::Closed(connection, closed)).await;
}

async fn connect(address: &Address) -> Result<Socket, Closed> {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_BYTES_MAX);
    config.max_frame_size = Some(MESSAGE_BYTES_MAX);
    // Small messages must not wait for each other's acknowledgements.
    let without_delay = true;
    let (request, tls) = address.request();
    let connecting = connect_async_tls_with_config(request, Some(config), without_delay, Some(tls));
    match connecting.await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(refusal(response.status())),
        Err(tungstenite::Error::Io(error)) => {
            Err(distrust(&error).map_or(Closed::Lost, Closed::Refused))
        }
        Err(_) => Err(Closed::Lost),
    }
}

/// What an answer other than the upgrade means.
fn refusal(status: StatusCode) -> Closed {
    let passes = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    if status.is_client_error() && !passes {
        Closed::Refused(format!("the relay answered {status}"))
    } else {
        Closed::Lost
    }
}

async fn read(
    connection: ConnectionId,
    mut stream: SplitStream<Socket>,
    inputs: &mpsc::Sender<Input>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let input = match message {
            Message::Binary(frame) => Input::Frame(connection, frame),
            Message::Ping(_) | Message::Pong(_) => Input::Pong(connection),
            Message::Close(_) => return,
            Message::Text(_) | Message::Frame(_) => continue,
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

async fn write(
    connection: ConnectionId,
    mut sink: SplitSink<Socket, Message>,
    storage: Arc<dyn Storage>,
    mut orders: mpsc::Receiver<Order>,
    inputs: &mpsc::Sender<Input>,
) {
    while let Some(order) = orders.recv().await {
        let frame = match order {
            Order::Send(frame) => frame,
            Order::Ping => {
                if sink.send(Message::Ping(Default::default())).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let reads = frame.reads();
        let bytes = if reads.is_some() {
            let storage = storage.clone();
            let read = tokio::task::spawn_blocking(move || frame.encode(&*storage));
            match read.await {
                Ok(Ok(bytes)) => bytes,
                // The engine counts it as sent, so the connection must end.
                Ok(Err(_)) | Err(_) => return,
            }
        } else {
            match frame.encode(&*storage) {
                Ok(bytes) => bytes,
                Err(_) => return,
            }
        };
        if sink.send(Message::Binary(bytes)).await.is_err() {
            return;
        }
        if inputs.send(Input::Sent(connection, reads)).await.is_err() {
            return;
        }
    }
    let _ = tokio::time::timeout(FAREWELL, sink.close()).await;
}
