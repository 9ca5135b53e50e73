//! One WebSocket to a relay: connects, then reads and writes without either waiting for the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use tracing::{debug, trace};

use super::address::{Address, distrust};
use super::log::described;
use super::traffic::Traffic;
use crate::engine::{CONNECT_TIMEOUT, Closed, Fault, FaultKind, Frame, Input};
use crate::id::ConnectionId;
use crate::protocol::MESSAGE_BYTES_MAX;
use crate::storage::Storage;

/// How long a socket that is given up may take to say goodbye.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// What the driver tells a connection. When the driver drops its end, the connection closes.
pub(super) enum Order {
    Send(Frame),
    Ping,
}

/// A connection, and who hears of it.
pub(super) struct Line {
    /// The relay's url, without its token.
    pub(super) relay: Arc<str>,
    pub(super) connection: ConnectionId,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) traffic: Traffic,
}

/// Runs one connection until it ends, and says why.
pub(super) async fn run(
    line: Line,
    address: Address,
    storage: Arc<dyn Storage>,
    orders: mpsc::Receiver<Order>,
) {
    debug!(relay = %line.relay, connection = line.connection.0, "connecting");
    #[cfg(feature = "testing")]
    if let Some(stream) = super::testing::reach(address.host()) {
        let opening = Box::pin(open_over(&address, stream));
        return talk(line, opening, storage, orders).await;
    }
    // It is large, and over soon.
    let opening = Box::pin(open(&address));
    talk(line, opening, storage, orders).await;
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    line: Line,
    opening: impl Future<Output = Result<WebSocketStream<S>, tungstenite::Error>>,
    storage: Arc<dyn Storage>,
    orders: mpsc::Receiver<Order>,
) {
    let connection = line.connection;
    let opening = async { opening.await.map_err(unopened) };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, opening).await;
    let late = || Err(lost(FaultKind::Silence, "it did not answer in time"));
    let closed = match connected.unwrap_or_else(|_| late()) {
        Ok(socket) => {
            // The driver may be gone; then nobody listens any more, here and below.
            let _ = line.inputs.send(Input::Connected(connection)).await;
            let (sink, stream) = socket.split();
            let fault = tokio::select! {
                fault = read(&line, stream) => fault,
                fault = write(&line, sink, storage, orders) => fault,
            };
            Closed::Lost(fault)
        }
        Err(closed) => closed,
    };
    let (Closed::Lost(fault) | Closed::Refused(fault)) = &closed;
    let fault = described(fault);
    debug!(relay = %line.relay, connection = connection.0, fault, "no connection");
    let _ = line.inputs.send(Input::Closed(connection, closed)).await;
}

async fn open(
    address: &Address,
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, tungstenite::Error> {
    // Small messages must not wait for each other's acknowledgements.
    let without_delay = true;
    let (request, tls) = address.request();
    let config = Some(config());
    let opening = connect_async_tls_with_config(request, config, without_delay, Some(tls));
    Ok(opening.await?.0)
}

/// The same over a stream that is there.
#[cfg(feature = "testing")]
async fn open_over<S: AsyncRead + AsyncWrite + Unpin>(
    address: &Address,
    stream: io::Result<S>,
) -> Result<WebSocketStream<S>, tungstenite::Error> {
    let (request, _) = address.request();
    let opening = tokio_tungstenite::client_async_with_config(request, stream?, Some(config()));
    Ok(opening.await?.0)
}

fn config() -> WebSocketConfig {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_BYTES_MAX);
    config.max_frame_size = Some(MESSAGE_BYTES_MAX);
    config
}

fn unopened(error: tungstenite::Error) -> Closed {
    match error {
        tungstenite::Error::Http(response) => refusal(response.status()),
        tungstenite::Error::Io(error) => match distrust(&error) {
            Some(why) => Closed::Refused(Fault::new(FaultKind::Tls, why)),
            None => Closed::Lost(unconnected(&error)),
        },
        error => Closed::Lost(broken(&error)),
    }
}

fn lost(kind: FaultKind, message: &str) -> Closed {
    Closed::Lost(Fault::new(kind, message))
}

fn unconnected(error: &io::Error) -> Fault {
    let message = error.to_string();
    // The resolver's errors have no kind of their own.
    let kind = if message.starts_with("failed to lookup address") {
        FaultKind::Dns
    } else if error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
    {
        FaultKind::Tls
    } else {
        FaultKind::Network
    };
    Fault::new(kind, message)
}

fn broken(error: &tungstenite::Error) -> Fault {
    match error {
        tungstenite::Error::Io(error) => unconnected(error),
        tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Fault::lost()
        }
        tungstenite::Error::Tls(_) => Fault::new(FaultKind::Tls, error.to_string()),
        _ => Fault::new(FaultKind::Protocol, error.to_string()),
    }
}

/// What an answer other than the upgrade means.
fn refusal(status: StatusCode) -> Closed {
    let fault = Fault::new(
        FaultKind::Http(status.as_u16()),
        format!("the relay answered {status}"),
    );
    let passes = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    if status.is_client_error() && !passes {
        Closed::Refused(fault)
    } else {
        Closed::Lost(fault)
    }
}

async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    line: &Line,
    mut stream: SplitStream<WebSocketStream<S>>,
) -> Fault {
    let connection = line.connection;
    while let Some(message) = stream.next().await {
        let input = match message {
            Ok(Message::Binary(frame)) => {
                line.traffic.add_received(frame.len());
                trace!(relay = %line.relay, bytes = frame.len(), "received");
                Input::Frame(connection, frame)
            }
            Ok(Message::Pong(_)) => Input::Pong(connection),
            Ok(Message::Close(close)) => return closed(close),
            // A ping is answered by itself, and answers none of ours.
            Ok(Message::Ping(_) | Message::Text(_) | Message::Frame(_)) => continue,
            Err(error) => return broken(&error),
        };
        if line.inputs.send(input).await.is_err() {
            break;
        }
    }
    Fault::lost()
}

fn closed(close: Option<CloseFrame>) -> Fault {
    let Some(CloseFrame { code, reason }) = close else {
        return Fault::new(FaultKind::Closed(None), "the relay closed the connection");
    };
    let message = if reason.is_empty() {
        format!("the relay closed the connection with code {code}")
    } else {
        format!("the relay closed the connection with code {code}: {reason}")
    };
    Fault::new(FaultKind::Closed(Some(code.into())), message)
}

async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    line: &Line,
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    storage: Arc<dyn Storage>,
    mut orders: mpsc::Receiver<Order>,
) -> Fault {
    let unread = || Fault::new(FaultKind::Storage, "what was to be sent could not be read");
    while let Some(order) = orders.recv().await {
        let frame = match order {
            Order::Send(frame) => frame,
            Order::Ping => {
                if let Err(error) = sink.send(Message::Ping(Default::default())).await {
                    return broken(&error);
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
                Ok(Err(_)) | Err(_) => return unread(),
            }
        } else {
            match frame.encode(&*storage) {
                Ok(bytes) => bytes,
                Err(_) => return unread(),
            }
        };
        let len = bytes.len();
        if let Err(error) = sink.send(Message::Binary(bytes)).await {
            return broken(&error);
        }
        line.traffic.add_sent(len);
        trace!(relay = %line.relay, bytes = len, "sent");
        let sent = Input::Sent(line.connection, reads);
        if line.inputs.send(sent).await.is_err() {
            return Fault::lost();
        }
    }
    let _ = tokio::time::timeout(FAREWELL, sink.close()).await;
    Fault::lost()
}
