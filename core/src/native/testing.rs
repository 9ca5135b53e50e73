//! A relay for tests, in the process of the test: [`TestRelay`].
//!
//! It speaks the real protocol over real WebSockets, and decides with the code of the real relay what
//! enters a document and what a peer is sent. What it has not got is the relay's world: it is in
//! memory, has no process of its own and starts none, and opens no socket unless it is told to
//! [listen](TestRelay::listen). So it works where time is virtual (`#[tokio::test(start_paused = true)]`):
//! an outage of a minute takes a millisecond, and nothing that is under way is overtaken by a timer.
//! Time stands still while a client reads from its storage or writes to it. It does not while another
//! process, a thread of the test's own or a socket is waited for.
//!
//! What it does when is up to the test: see [`TestRelay`].
//!
//! Absent: spaces and tokens, which are not looked at; limits of memory; compaction, and the check that
//! takes out changes which make no document; `remote-heads`. A relay waits for 300 ms before it says
//! that it has not got a document, since somebody may be about to send it; this one says so at once.

mod clock;
mod connection;
mod document;
mod line;
mod names;
mod state;

use std::io;
use std::sync::Arc;

use automerge::Automerge;
use tokio::net::TcpListener;

use super::news::Broadcast;
use crate::id::{DocumentId, PeerId};
use line::Line;
use state::Shared;

pub(super) use clock::Clock;
pub(super) use names::reach;

/// A relay in the process of a test.
///
/// Clones are the same relay. When the last one is dropped, all connections end, and nothing answers
/// at its urls any more. Whoever connects does so in the tokio runtime that it runs in; one relay may
/// serve several.
///
/// ```
/// use std::time::Duration;
/// use reconverge::automerge::{ROOT, ReadDoc, transaction::Transactable};
/// use reconverge::native::testing::TestRelay;
/// use reconverge::native::{FindError, Repo, Status};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In a test: #[tokio::test(start_paused = true)], with tokio's feature "test-util".
/// # tokio::time::pause();
/// let relay = TestRelay::new();
/// let repo = Repo::builder().relay(&relay.url()).build().await?;
/// let order = repo.create_with(|tx| tx.put(ROOT, "state", "new"))?;
/// order.when_synced().await?;
/// assert!(relay.document(&order.url()).is_some());
///
/// // The network is down for a while.
/// relay.cut();
/// order.change(|tx| tx.put(ROOT, "state", "paid"))?;
/// let late = tokio::time::timeout(Duration::from_secs(25), order.when_synced()).await;
/// assert!(late.is_err());
/// assert_eq!(*order.status().borrow(), Status::Offline);
/// let missing = "automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu";
/// assert!(matches!(repo.find(missing).await, Err(FindError::Unreachable(_))));
///
/// // It is back.
/// relay.restore();
/// order.when_synced().await?;
/// assert!(matches!(repo.find(missing).await, Err(FindError::Unavailable)));
///
/// // The relay's disk is slow, and then the relay is killed: it never had the change on disk.
/// relay.hold_acknowledgements();
/// order.change(|tx| tx.put(ROOT, "state", "shipped"))?;
/// relay.until(|relay| !relay.waiting().is_empty()).await;
/// relay.crash();
/// let kept = relay.document(&order.url()).expect("what was acknowledged stays");
/// assert_eq!(kept.get(ROOT, "state")?.expect("a state").0.as_str(), Some("paid"));
/// relay.acknowledge();
/// // The client sends it again.
/// order.when_synced().await?;
/// repo.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TestRelay {
    alive: Arc<Alive>,
}

#[derive(Debug)]
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.end_connections(|_, line| *line = Line::Gone);
    }
}

impl Default for TestRelay {
    fn default() -> Self {
        Self::new()
    }
}

impl TestRelay {
    /// A relay that has no documents.
    #[must_use]
    pub fn new() -> Self {
        Self {
            alive: Arc::new(Alive(names::give())),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.alive.0
    }

    /// Where clients of this process reach it, for [`RepoBuilder::relay`](super::RepoBuilder::relay).
    /// No socket is opened. Its name is none that a network knows.
    #[must_use]
    pub fn url(&self) -> String {
        self.shared().url()
    }

    /// Listens on the loopback interface too, at a free port, and gives the url: for pages, stock
    /// clients and other processes. Ends with the relay. While time is virtual, none of them is waited
    /// for.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn listen(&self) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("ws://{}/", listener.local_addr()?);
        tokio::spawn(connection::accept(self.shared().clone(), listener));
        Ok(url)
    }
}

/// The connections.
impl TestRelay {
    /// Ends all connections without a word, and lets nobody connect until [`Self::restore`]. Nothing is
    /// taken in or acknowledged any more when this returns.
    ///
    /// A search then ends with [`FindError::Unreachable`](super::FindError), its fault being
    /// [`FaultKind::Network`](super::FaultKind), and edits are [`Status::Offline`](super::Status).
    ///
    /// All its clients are cut off. For one alone to be offline, give it a file, shut it down, and edit by
    /// a client on the same file that has no relay.
    pub fn cut(&self) {
        self.shared().end_connections(|_, line| *line = Line::Cut);
    }

    /// Nothing arrives any more, in either direction, until [`Self::restore`]; then what was under way
    /// does. Connections stay until the client gives them up, after two times 20 s
    /// ([`FaultKind::Silence`](super::FaultKind)), and those that are being made for 10 s.
    pub fn silence(&self) {
        self.shared().set_line(Line::Silent);
    }

    /// Ends all connections, and answers who connects with this status of HTTP instead of a WebSocket,
    /// until [`Self::restore`]. A client takes 401 and most others of 4xx as a refusal, and does not try
    /// again by itself ([`RelayState::Refused`](super::RelayState)).
    ///
    /// # Panics
    /// When `status` is none of HTTP, or one of 1xx to 3xx.
    pub fn refuse_connections(&self, status: u16) {
        assert!(
            (400..600).contains(&status),
            "a refusal has a status of 400 to 599"
        );
        self.shared()
            .end_connections(|_, line| *line = Line::Refused(status));
    }

    /// All is well again after [`Self::cut`], [`Self::silence`] or [`Self::refuse_connections`]. Clients
    /// come back when they try the next time: after up to 30 s, within a second while somebody searches
    /// or waits for [`DocHandle::when_synced`](super::DocHandle::when_synced), and at once after
    /// [`Repo::reconnect`](super::Repo::reconnect).
    pub fn restore(&self) {
        self.shared().set_line(Line::Open);
    }

    /// Ends all connections without a word; who comes back is let in.
    pub fn disconnect(&self) {
        self.shared().end_connections(|_, _| {});
    }

    /// The relay is killed, and starts again at once: all connections end, and what was not acknowledged
    /// is gone.
    pub fn crash(&self) {
        self.shared()
            .end_connections(|state, _| state.forget_unstored());
    }

    /// Those that joined and are connected, by the names that they gave themselves.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerId> {
        self.shared().state().joined()
    }
}

/// What is acknowledged.
impl TestRelay {
    /// From now on, what comes is not on the relay's disk, until [`Self::acknowledge`]. It is neither
    /// acknowledged nor sent to others meanwhile, just as if the disk were slow: `when_synced` waits,
    /// the status is [`Status::Saving`](super::Status), and who searches for a new document waits as
    /// well.
    pub fn hold_acknowledgements(&self) {
        self.shared().state().holds = true;
    }

    /// All that waits is on disk now, and what comes is at once.
    pub fn acknowledge(&self) {
        self.shared().state().acknowledge();
        self.shared().tell();
    }

    /// The documents, by their urls, of which something came and waits to be acknowledged.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        self.shared().state().waiting()
    }

    /// Takes no changes from now on, for this reason, until [`Self::accept_changes`]; documents are still
    /// sent. `when_synced` ends with [`SyncError::Refused`](super::SyncError), and the status is
    /// [`Status::Refused`](super::Status) with the same words. Stock clients are not told.
    pub fn refuse_changes(&self, reason: &str) {
        self.shared().state().refuses = Some(reason.to_owned());
    }

    /// Takes changes again, and asks those that are connected for what was refused.
    pub fn accept_changes(&self) {
        self.shared().state().accept_changes();
        self.shared().tell();
    }
}

/// What is there.
impl TestRelay {
    /// The urls of the documents of which something was acknowledged.
    #[must_use]
    pub fn documents(&self) -> Vec<String> {
        self.shared().state().stored()
    }

    /// What was acknowledged of a document, as a copy with its history. `None` if that is nothing, and if
    /// this is no document's url.
    ///
    /// # Panics
    /// When a peer sent changes that make no document, which a relay finds out later.
    #[must_use]
    pub fn document(&self, url: &str) -> Option<Automerge> {
        let id: DocumentId = url.parse().ok()?;
        let changes = self.shared().state().changes(&id)?;
        let mut document = Automerge::new();
        let changes = changes.iter().map(|bytes| {
            let change = automerge::Change::try_from(bytes.as_ref());
            change.expect("it was checked when it came")
        });
        let applied = document.apply_changes(changes);
        applied.expect("the changes that peers sent make a document");
        Some(document)
    }

    /// All that was broadcast on a document so far, by whomever, in the order in which it came.
    #[must_use]
    pub fn presence(&self, url: &str) -> Vec<Broadcast> {
        let id = url.parse::<DocumentId>();
        id.map_or_else(|_| Vec::new(), |id| self.shared().state().presence(&id))
    }

    /// Waits until this is so. It is looked at now, and whenever something came or somebody connected or
    /// went.
    pub async fn until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        let mut news = self.shared().news();
        loop {
            news.mark_unchanged();
            if is_so(self) {
                return;
            }
            let changed = news.changed().await;
            changed.expect("this relay has the sender");
        }
    }
}
