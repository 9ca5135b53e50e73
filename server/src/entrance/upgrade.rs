//! The upgrade to WebSocket, on any path. Here it is decided who is let in: there must be room for one
//! connection more, and the url must name a space that can be.

use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use reconverge::id::Space;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Entrance;
use super::routes::page;
use super::sockets::{Full, PendingSocket};
use crate::connection::{self, Arrival, Socket};

pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// RFC 6455, section 4.2: checks the client's handshake and answers it.
pub(super) fn upgrade(
    entrance: &Entrance,
    socket: &PendingSocket,
    mut request: Request<Incoming>,
) -> Response {
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
    let connected = match socket.connect() {
        Ok(connected) => connected,
        Err(full) => return no_room(entrance, socket, full),
    };
    let (hub, address) = (entrance.hub.clone(), socket.origin());
    let upgrading = hyper::upgrade::on(&mut request);
    let services = hub.services.clone();
    services.lifetime.spawn(async move {
        let _connected = connected;
        let lifetime = &hub.services.lifetime;
        let Some(upgraded) = lifetime.unless_stopping(upgrading).await else {
            return;
        };
        let stream = upgraded
            .ok()
            .and_then(|u| u.downcast::<TokioIo<TcpStream>>().ok());
        let Some(stream) = stream else { return };
        let id = hub.new_connection();
        let holder = hub.memory.holder(id);
        let socket = Socket::new(
            stream.io.into_inner(),
            stream.read_buf,
            holder.clone(),
            hub.services.config.message_bytes_max(),
        );
        let socket = Box::new(Box::pin(socket).await);
        let arrival = Arrival {
            id,
            address,
            space,
            holder,
        };
        connection::serve(hub, socket, arrival).await;
    });
    let mut response = Response::new(Body::empty());
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
fn no_room(entrance: &Entrance, socket: &PendingSocket, full: Full) -> Response {
    entrance.sockets.tell_refused(socket, full);
    let text = match full {
        Full::All => "the relay has all the connections it takes\n",
        Full::Address => "the relay has all the connections it takes from one address\n",
        Full::Waiting => "too many wait to be connected\n",
    };
    let mut response = page(StatusCode::SERVICE_UNAVAILABLE, text);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
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
