//! HTTP: the upgrade to WebSocket on any path, and a few pages for people and probes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use reconverge::id::Space;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{debug, warn};

use crate::connection::{self, Socket};
use crate::demo;
use crate::relay::Shared;
use crate::sockets::{self, Place, WAITING_SOCKETS_MAX};

/// How long a request's head may take to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when the operating system gives no more sockets.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Listens at an address, with as long a queue of connections to be accepted as the system allows:
/// it takes no more than its own limit of what is asked for.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of the last run that are still in TIME_WAIT do not hold the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(i32::MAX.unsigned_abs())
}

/// Accepts connections until the relay stops.
pub(crate) async fn accept(relay: Arc<Shared>, listener: TcpListener) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = relay.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                failing = false;
                // Messages are written whole; waiting for more only delays them.
                let _ = stream.set_nodelay(true);
                if relay.sockets.is_crowded() {
                    // Those that have said what they want get on before one must give way, and
                    // those that gave way close.
                    tokio::task::yield_now().await;
                }
                let place = relay.sockets.enter(from.ip());
                relay.tasks.spawn(serve(relay.clone(), stream, place));
            }
            // It ended before it was accepted, which is nobody else's trouble.
            Err(error) if is_of_one(&error) => debug!(%error, "not accepted"),
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "cannot accept connections; tried again until it works");
                }
                relay.sockets.make_room();
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Whether it is an error of the connection that was to be accepted.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Serves one TCP connection as HTTP, which mostly ends in an upgrade.
async fn serve(relay: Arc<Shared>, stream: TcpStream, place: Arc<Place>) {
    // Who has said something is looked at first.
    tokio::select! {
        biased;
        _ = stream.readable() => {}
        () = relay.stopping.cancelled() => return,
        () = place.gives_way() => return tell_refused(&relay, &place, sockets::Full::Waiting),
        () = tokio::time::sleep(HEADER_TIMEOUT) => return,
    }
    let gives_way = place.speaks();
    let service = {
        let (relay, place) = (relay.clone(), place.clone());
        service_fn(move |request| {
            let response = answer(&relay, &place, request);
            async move { Ok::<_, Infallible>(response) }
        })
    };
    // Boxed, because hyper's state is large and ends with the upgrade, while this task goes on.
    let http = Box::pin(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades(),
    );
    let ended = tokio::select! {
        () = relay.stopping.cancelled() => return,
        () = gives_way.cancelled() => return tell_refused(&relay, &place, sockets::Full::Waiting),
        ended = tokio::time::timeout(relay.config.upgrade_timeout, http) => ended,
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "http connection ended"),
        Err(_) => debug!("http connection ended: no upgrade in time"),
    }
}

fn answer(relay: &Arc<Shared>, place: &Place, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if is_upgrade(request.headers()) {
        return upgrade(relay, place, request);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return page(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is answered here\n",
        );
    }
    if relay.config.demo
        && let Some(file) = demo::answer(request.uri().path(), request.headers())
    {
        return file;
    }
    match request.uri().path() {
        "/" => page(
            StatusCode::OK,
            concat!(
                "Reconverge relay ",
                env!("CARGO_PKG_VERSION"),
                "\n\n",
                "This is a sync server for Automerge documents. Point an automerge-repo client's\n",
                "WebSocketClientAdapter at this address with ws:// (or wss://) instead of http://;\n",
                "any path works, and ?space=NAME chooses where new documents belong.\n\n",
                "/healthz answers while the process lives, /readyz while it serves documents.\n",
            ),
        ),
        "/healthz" => page(StatusCode::OK, "ok\n"),
        "/readyz" if relay.ready.load(Ordering::Relaxed) => page(StatusCode::OK, "ready\n"),
        "/readyz" => page(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        _ => page(StatusCode::NOT_FOUND, "nothing here; see /\n"),
    }
}

fn page(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// RFC 6455, section 4.2: checks the client's handshake and answers it.
fn upgrade(
    relay: &Arc<Shared>,
    place: &Place,
    mut request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let headers = request.headers();
    let version = headers.get(SEC_WEBSOCKET_VERSION);
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = key.filter(|_| version.is_some_and(|v| v.as_bytes() == b"13")) else {
        return page(
            StatusCode::BAD_REQUEST,
            "not a WebSocket handshake of version 13\n",
        );
    };
    let Some(space) = space(request.uri().query().unwrap_or_default()) else {
        return page(
            StatusCode::BAD_REQUEST,
            "space must have 1 to 128 bytes, none of control\n",
        );
    };
    let connected = match place.connect() {
        Ok(connected) => connected,
        Err(full) => return no_room(relay, place, full),
    };
    let (id, address) = (relay.new_connection(), place.origin());
    let upgrading = hyper::upgrade::on(&mut request);
    let relay = relay.clone();
    let tasks = relay.tasks.clone();
    tasks.spawn(async move {
        let _connected = connected;
        let upgraded = tokio::select! {
            () = relay.stopping.cancelled() => return,
            upgraded = upgrading => upgraded,
        };
        let stream = upgraded
            .ok()
            .and_then(|u| u.downcast::<TokioIo<TcpStream>>().ok());
        let Some(stream) = stream else { return };
        let holder = relay.memory.holder(id);
        let socket = Socket::new(
            stream.io.into_inner(),
            stream.read_buf,
            holder.clone(),
            relay.config.message_bytes_max(),
        )
        .await;
        connection::serve(relay, socket, holder, id, address, space).await;
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = accept.parse() {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Tells a client that it cannot be connected, and ends its socket.
fn no_room(relay: &Shared, place: &Place, full: sockets::Full) -> Response<Full<Bytes>> {
    tell_refused(relay, place, full);
    let text = match full {
        sockets::Full::All => "the relay has all the connections it takes\n",
        sockets::Full::Address => "the relay has all the connections it takes from one address\n",
        sockets::Full::Waiting => "too many wait to be connected\n",
    };
    let mut response = page(StatusCode::SERVICE_UNAVAILABLE, text);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Tells the operator that somebody is refused, and what helps.
fn tell_refused(relay: &Shared, place: &Place, full: sockets::Full) {
    let Some(others) = relay.sockets.refused(full, Instant::now()) else {
        return;
    };
    let address = place.origin();
    let option = match full {
        sockets::Full::All => "--connections-max",
        sockets::Full::Address => "--connections-per-address-max",
        sockets::Full::Waiting => {
            let waiting_max = relay.sockets.limits().waiting;
            warn!(
                %address, others, waiting_max,
                "sockets are ended before they became WebSockets, since more wait than may, or more \
                 than half of them from one address; clients try again by themselves. Fewer may \
                 wait than {WAITING_SOCKETS_MAX} if the process may not open more files (ulimit -n); \
                 a reverse proxy can let clients in more slowly"
            );
            return;
        }
    };
    warn!(%address, others, "connections are refused; see {option}");
}

/// The space that a url's query names; the default one if it names none.
fn space(query: &str) -> Option<Space> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    match pairs.into_iter().find(|(key, _)| key == "space") {
        Some((_, name)) => Space::new(&name),
        None => Some(Space::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_space() {
        assert_eq!(space(""), Some(Space::default()));
        assert_eq!(space("token=x"), Some(Space::default()));
        assert_eq!(space("a=b&space=my%20team"), Space::new("my team"));
        assert_eq!(space("space="), None);
        assert_eq!(space("space=%00"), None);
    }
}
