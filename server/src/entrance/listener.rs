//! Accepting TCP connections, and serving each as HTTP until it is upgraded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tower_service::Service as _;
use tracing::{debug, warn};

use super::Entrance;
use super::sockets::{Full, PendingSocket};
use super::upgrade::{is_upgrade, upgrade};
use crate::document::Services;

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
pub(crate) async fn accept(entrance: Arc<Entrance>, listener: TcpListener) {
    let lifetime = &entrance.hub.services.lifetime;
    let mut failing = false;
    loop {
        let Some(accepted) = lifetime.unless_stopping(listener.accept()).await else {
            return;
        };
        match accepted {
            Ok((stream, from)) => {
                failing = false;
                // Messages are written whole; waiting for more only delays them.
                let _ = stream.set_nodelay(true);
                entrance.sockets.let_some_get_on().await;
                let socket = entrance.sockets.enter(from.ip());
                lifetime.spawn(serve(entrance.clone(), stream, socket));
            }
            // It ended before it was accepted, which is nobody else's trouble.
            Err(error) if is_of_one(&error) => debug!(%error, "not accepted"),
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "cannot accept connections; tried again until it works");
                }
                entrance.sockets.make_room();
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
async fn serve(entrance: Arc<Entrance>, stream: TcpStream, socket: Arc<PendingSocket>) {
    let Services {
        config, lifetime, ..
    } = &*entrance.hub.services;
    let gave_way = || entrance.sockets.tell_refused(&socket, Full::Waiting);
    // Who has said something is looked at first.
    tokio::select! {
        biased;
        _ = stream.readable() => {}
        () = lifetime.stopping() => return,
        () = socket.gives_way() => return gave_way(),
        () = tokio::time::sleep(HEADER_TIMEOUT) => return,
    }
    let gives_way = socket.speaks();
    let service = {
        let (entrance, socket) = (entrance.clone(), socket.clone());
        service_fn(move |request: Request<Incoming>| {
            // Upgrades pass the router by: they are answered on any path, and they are the way on
            // which most come.
            let answered = match is_upgrade(request.headers()) {
                true => Ok(upgrade(&entrance, &socket, request)),
                false => Err(entrance.routes.clone().call(request)),
            };
            async move {
                match answered {
                    Ok(response) => Ok(response),
                    Err(routed) => routed.await,
                }
            }
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
        () = lifetime.stopping() => return,
        () = gives_way.cancelled() => return gave_way(),
        ended = tokio::time::timeout(config.upgrade_timeout, http) => ended,
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "http connection ended"),
        Err(_) => debug!("http connection ended: no upgrade in time"),
    }
}
