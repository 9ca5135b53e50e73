//! One connection to a test relay, over a pipe in the process or over TCP.

use std::pin::pin;
use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::line::{Line, Way};
use super::state::{Next, Shared};
use crate::id::ConnectionId;
use crate::protocol::MESSAGE_BYTES_MAX;

/// Accepts connections until the relay is dropped.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut way = shared.way();
    let gone = way.wait_for(|way| way.line == Line::Gone);
    let accepting = async {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(run(shared.clone(), stream));
        }
    };
    tokio::select! {
        biased;
        _ = gone => {}
        () = accepting => {}
    }
}

/// Serves one connection until it ends, as the line allows. While the line is silent, nothing of it goes
/// on.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(shared: Arc<Shared>, stream: S) {
    let mut way = shared.way();
    let Way { line, ends } = *way.borrow_and_update();
    if matches!(line, Line::Cut | Line::Gone) {
        return;
    }
    let mut serving = pin!(serve(&shared, stream, ends));
    let is_ended = |way: &Way| way.ends != ends;
    loop {
        let goes_on = way.wait_for(|way| is_ended(way) || way.line != Line::Silent);
        if goes_on.await.map_or(true, |way| is_ended(&way)) {
            return;
        }
        tokio::select! {
            biased;
            _ = way.wait_for(|way| is_ended(way) || way.line == Line::Silent) => {}
            () = &mut serving => return,
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(shared: &Shared, stream: S, ends: u64) {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_BYTES_MAX);
    config.max_frame_size = Some(MESSAGE_BYTES_MAX);
    let line = shared.way().borrow().line;
    #[expect(clippy::result_large_err, reason = "the library wants it so")]
    let answer = |_: &Request, response: Response| answer(line, response);
    let Ok(socket) = accept_hdr_async_with_config(stream, answer, Some(config)).await else {
        return;
    };
    let Some((id, wake)) = shared.enter(ends) else {
        return;
    };
    let _entered = Entered { shared, id };
    let (mut sink, mut stream) = socket.split();
    let reading = async {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Binary(frame) = message {
                shared.receive(id, &frame);
            }
        }
    };
    let writing = async {
        loop {
            let next = shared.state().next(id);
            match next {
                Next::Send(frame) => {
                    if sink.send(Message::Binary(frame.into())).await.is_err() {
                        return;
                    }
                }
                Next::Wait => wake.notified().await,
                Next::Close => {
                    let _ = sink.close().await;
                    return;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = reading => {}
        () = writing => {}
    }
}

#[expect(clippy::result_large_err, reason = "the library wants it so")]
fn answer(line: Line, response: Response) -> Result<Response, ErrorResponse> {
    let Line::Refused(status) = line else {
        return Ok(response);
    };
    let mut refusal = ErrorResponse::new(None);
    *refusal.status_mut() = StatusCode::from_u16(status).expect("checked when it was set");
    Err(refusal)
}

/// Whoever entered leaves, however the connection ends.
struct Entered<'a> {
    shared: &'a Shared,
    id: ConnectionId,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.id);
    }
}
