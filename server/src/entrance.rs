//! How a connection is let in: listening, HTTP, and the upgrade to WebSocket.

pub mod demo;
pub(crate) mod listener;
mod routes;
pub(crate) mod sockets;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;

use self::sockets::{Limits, Sockets};
use crate::connection::Hub;

#[derive(Debug)]
pub(crate) struct Entrance {
    hub: Arc<Hub>,
    sockets: Arc<Sockets>,
    routes: Router,
    /// Whether documents are being served.
    ready: Arc<AtomicBool>,
}

impl Entrance {
    pub(crate) fn new(hub: Arc<Hub>, limits: Limits) -> Self {
        let ready = Arc::new(AtomicBool::new(true));
        Self {
            routes: routes::routes(ready.clone(), hub.services.config.demo),
            sockets: Sockets::new(limits),
            hub,
            ready,
        }
    }

    /// The relay stops: probes are told.
    pub(crate) fn is_stopping(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }
}
