//! The test relays of this process, by the hosts in their urls.
//!
//! They are a global on purpose: a service is given a url, in a test as elsewhere.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::io::DuplexStream;

use super::connection;
use super::state::Shared;

/// No network has such a host: RFC 2606.
const DOMAIN: &str = ".test-relay.invalid";

/// What is under way in each direction, as between sockets.
const PIPE_BYTES: usize = 64 * 1024;

static NEXT: AtomicU64 = AtomicU64::new(1);
static RELAYS: Mutex<Option<HashMap<String, Weak<Shared>>>> = Mutex::new(None);

fn relays() -> MutexGuard<'static, Option<HashMap<String, Weak<Shared>>>> {
    RELAYS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a relay and gives it a name that none had before.
pub(super) fn give() -> Arc<Shared> {
    let host = format!("{}{DOMAIN}", NEXT.fetch_add(1, Ordering::Relaxed));
    let shared = Arc::new(Shared::new(&host));
    let mut relays = relays();
    let relays = relays.get_or_insert_default();
    relays.retain(|_, relay| relay.strong_count() > 0);
    relays.insert(host, Arc::downgrade(&shared));
    shared
}

/// A connection to the test relay with this host. `None` if it is no test relay's.
pub(in super::super) fn reach(host: &str) -> Option<io::Result<DuplexStream>> {
    if !host.ends_with(DOMAIN) {
        return None;
    }
    let relay = relays()
        .as_ref()
        .and_then(|relays| relays.get(host)?.upgrade());
    let Some(relay) = relay.filter(|relay| relay.is_there()) else {
        let refused = "the test relay is cut off, or gone";
        return Some(Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            refused,
        )));
    };
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    tokio::spawn(connection::run(relay, far));
    Some(Ok(near))
}
