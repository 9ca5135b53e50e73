//! The connections to relays, as the application sees them.

use std::sync::Arc;

use tokio::sync::watch;

use crate::engine::{Engine, Fault, RelayId, RelayState};

/// How the connection to one relay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The relay's url, without its token.
    pub relay: Arc<str>,
    /// What is so now.
    pub state: RelayState,
    /// Why the last attempt failed or the last connection ended; `None` while it is connected, and
    /// before the first attempt failed.
    pub fault: Option<Fault>,
}

/// Tells of the connections whenever one of them changed.
#[derive(Debug)]
pub(super) struct Connections {
    names: Vec<Arc<str>>,
    /// What the engine counted when they were told last.
    told: Option<u64>,
    watchers: watch::Sender<Arc<[Connection]>>,
}

impl Connections {
    pub(super) fn new(names: Vec<Arc<str>>, engine: &Engine) -> Self {
        let mut connections = Self {
            names,
            told: None,
            watchers: watch::Sender::new(Arc::from([])),
        };
        connections.publish(engine);
        connections
    }

    /// The urls of the relays, without tokens.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.names.clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<[Connection]>> {
        self.watchers.subscribe()
    }

    pub(super) fn publish(&mut self, engine: &Engine) {
        let changes = Some(engine.relay_changes());
        if self.told == changes {
            return;
        }
        self.told = changes;
        let connection = |(at, relay): (usize, &Arc<str>)| {
            let (state, fault) = engine.connection(RelayId(at))?;
            Some(Connection {
                relay: relay.clone(),
                state,
                fault: fault.cloned(),
            })
        };
        let now: Arc<[_]> = self
            .names
            .iter()
            .enumerate()
            .filter_map(connection)
            .collect();
        self.watchers.send_replace(now);
    }

    /// The client has ended, and wants none of them any more.
    pub(super) fn end(&self) {
        let is_over = |one: &Connection| Connection {
            state: RelayState::Away,
            ..one.clone()
        };
        let now = self.watchers.borrow().iter().map(is_over).collect();
        self.watchers.send_replace(now);
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::native::Repo;
    use crate::native::testing::TestRelay;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_connected_when_the_client_has_ended() {
        let relay = TestRelay::new();
        let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
        let mut connections = repo.connections();
        let is = |state| move |all: &Arc<[Connection]>| all.iter().all(|one| one.state == state);
        let connected = connections.wait_for(is(RelayState::Connected)).await;
        drop(connected.unwrap());
        repo.shutdown().await.unwrap();
        assert!(connections.has_changed().unwrap());
        assert!(is(RelayState::Away)(&connections.borrow()));
        assert!(is(RelayState::Away)(&repo.connections().borrow()));
    }
}
