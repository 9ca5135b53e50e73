//! A client for services: documents, kept in a file, synced with relays.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use automerge::ROOT;
use automerge::transaction::Transaction;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::address::{Address, without_token};
use super::build_error::BuildError;
use super::connection::Connection;
use super::driver::{self, EndGuard, Shared, new_actor};
use super::handle::{ChangeError, DocHandle};
use super::news::Gone;
use super::search::{Patience, REACH_WITHIN, search};
use super::{Committer, files};
use crate::engine::{Config, Engine, FindError, Input, RELEASE_AFTER, RelayId, kept_aside};
use crate::history::Quarantined;
use crate::id::{DocumentId, PeerId};
use crate::replica::{ChangeOptions, ContentsError, EditError, Replica};
use crate::storage::{MemoryStorage, Storage, StorageError, damaged};
use crate::typed::{self, TypedError};

/// How long [`Repo::shutdown`] waits for what is not stored yet. What relays send without pause
/// may keep a document from ever being stored whole.
pub const FLUSH_MAX: Duration = Duration::from_secs(10);

/// What no relay has is remembered this long: whoever may ask for what is not there, many times and
/// under many names, must not fill the memory.
const MISS_KEPT: Duration = Duration::from_secs(2);

/// What takes longer than some bytes of changes is brought into contents on a thread that may block,
/// which costs about 30 µs.
const SETTLE_AT_ONCE: usize = 4096;

/// Documents of this process, in agreement with those of other peers.
///
/// Clones are the same client. It ends when it is shut down, or when the last clone and the last
/// [`DocHandle`] are gone; only [`Repo::shutdown`] waits for what is not stored yet.
///
/// ```no_run
/// use automerge::{ROOT, transaction::Transactable};
/// use reconverge::native::Repo;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let repo = Repo::builder()
///     .relay("ws://127.0.0.1:3030/sync?space=shop")
///     .file("orders.redb")
///     .build()
///     .await?;
/// let order = repo.create()?;
/// order.change(|tx| tx.put(ROOT, "state", "new"))?;
/// order.when_synced().await?;
/// println!("{} is on the relay's disk", order.url());
/// repo.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Repo {
    running: Arc<Running>,
}

struct Running {
    shared: Arc<Shared>,
    peer: PeerId,
    reach_within: Duration,
    /// Taken by whoever ends the client. Dropping the first ends the driver.
    tasks: Mutex<Option<Tasks>>,
    /// How that ended.
    ended: watch::Sender<Option<Result<(), StorageError>>>,
}

struct Tasks {
    stop: oneshot::Sender<()>,
    driver: JoinHandle<()>,
    writer: thread::JoinHandle<()>,
}

/// Makes a [`Repo`].
#[derive(Default)]
#[must_use]
pub struct RepoBuilder {
    relays: Vec<String>,
    storage: Option<Arc<dyn Storage>>,
    file: Option<PathBuf>,
    peer: Option<PeerId>,
    token: Option<Token>,
    /// In PEM.
    roots: Vec<Vec<u8>>,
    release_after: Option<Duration>,
    reach_within: Option<Duration>,
}

/// What a client shows to relays.
struct Token(String);

/// Neither documents nor tokens, which the urls of relays may have, too.
impl fmt::Debug for RepoBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relays: Vec<_> = self.relays.iter().map(|url| without_token(url)).collect();
        f.debug_struct("RepoBuilder")
            .field("relays", &relays)
            .field("file", &self.file)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl RepoBuilder {
    /// Syncs with the relay at this WebSocket url (`ws://` or `wss://`). May be called several
    /// times: every document then goes to every relay, and from one to the other.
    pub fn relay(mut self, url: &str) -> Self {
        self.relays.push(url.to_owned());
        self
    }

    /// Keeps documents here. Without this or [`Self::file`], they live as long as the process.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Keeps documents in this redb file, which is made if it is not there. One process at a time
    /// may use it.
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.file = Some(path.as_ref().to_owned());
        self
    }

    /// The client's name among peers; a random one if it is not set. No two clients may have the
    /// same at a time.
    pub fn peer_id(mut self, peer: PeerId) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Shows this token to every relay, as `Authorization: Bearer`. Without TLS, whoever is on the
    /// way can read it.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(Token(token.to_owned()));
        self
    }

    /// Trusts these certificates, in PEM, for `wss://` relays, beside those of the system. May be
    /// called several times.
    pub fn root_certificates(mut self, pem: &[u8]) -> Self {
        self.roots.push(pem.to_owned());
        self
    }

    /// Documents of which all handles are dropped, and of which relays have everything, leave
    /// memory after this long; [`RELEASE_AFTER`] unless set.
    pub fn release_after(mut self, idle: Duration) -> Self {
        self.release_after = Some(idle);
        self
    }

    /// How long [`Repo::find`] waits for relays that cannot be reached; [`REACH_WITHIN`] unless set.
    pub fn reach_within(mut self, time: Duration) -> Self {
        self.reach_within = Some(time);
        self
    }

    /// Opens the storage and starts to sync, in tasks of the tokio runtime that this runs in.
    /// Relays need not be there.
    ///
    /// # Errors
    /// When the urls, the token or the certificates are of no use; when the storage cannot be
    /// opened or read; outside a tokio runtime.
    pub async fn build(self) -> Result<Repo, BuildError> {
        tokio::runtime::Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        let (storage, file) = (self.storage, self.file);
        let names: Vec<Arc<str>> = self
            .relays
            .iter()
            .map(|url| without_token(url).into())
            .collect();
        let named = names.clone();
        let keeps = storage.is_some() || file.is_some();
        let open = move || -> Result<_, BuildError> {
            let storage = match (storage, file) {
                (Some(storage), _) => storage,
                (None, Some(path)) => files::open(path)?,
                (None, None) => {
                    let id = uuid::Uuid::new_v4().to_string();
                    Arc::new(MemoryStorage::new(&id))
                }
            };
            storage.name_relays(&named)?;
            let outbox = storage.outbox()?;
            Ok((storage, outbox))
        };
        let (relays, token, roots) = (self.relays, self.token, self.roots);
        let prepare = move || -> Result<_, BuildError> {
            let token = token.as_ref().map(|token| token.0.as_str());
            // The system's certificates are read, which may block.
            let addresses = Address::all(&relays, token, &roots)?;
            Ok((addresses, open()?))
        };
        let prepared = tokio::task::spawn_blocking(prepare).await;
        let (addresses, (storage, outbox)) = prepared.map_err(StorageError::failed)??;
        let (committer, writer) =
            Committer::start(storage.clone()).map_err(StorageError::failed)?;
        let random = uuid::Uuid::new_v4();
        let peer = self.peer.unwrap_or_else(|| {
            PeerId::new(&format!("reconverge-{random}")).expect("shorter than a peer id may be")
        });
        let mut engine = Engine::new(Config {
            peer: peer.clone(),
            storage_id: if keeps {
                storage.storage_id()
            } else {
                "".into()
            },
            session: uuid::Uuid::new_v4().to_string(),
            relays: names.clone(),
            seed: random.as_u64_pair().1,
            settle_at_once: SETTLE_AT_ONCE,
        });
        let release_after = self.release_after.unwrap_or(RELEASE_AFTER);
        engine.release_after(release_after);
        engine.forget_after(release_after.min(MISS_KEPT));
        engine.handle(Duration::ZERO, Input::Outbox(outbox));
        let shared = Arc::new(Shared::new(engine, storage.clone(), names));
        let (stop, stopped) = oneshot::channel();
        let driver = driver::drive(
            EndGuard::of(&shared),
            storage,
            addresses,
            committer,
            stopped,
        );
        let driver = tokio::spawn(driver);
        let tasks = Mutex::new(Some(Tasks {
            stop,
            driver,
            writer,
        }));
        Ok(Repo {
            running: Arc::new(Running {
                shared,
                peer,
                tasks,
                ended: watch::Sender::new(None),
                reach_within: self.reach_within.unwrap_or(REACH_WITHIN),
            }),
        })
    }
}

/// Why bytes were not imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// They are no document that a relay would take.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// The client was shut down.
    #[error("the client is shut down")]
    Closed,
}

impl Repo {
    /// Begins to make a client.
    pub fn builder() -> RepoBuilder {
        RepoBuilder::default()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.running.shared
    }

    pub(super) fn reach_within(&self) -> Duration {
        self.running.reach_within
    }

    /// How many documents are in memory.
    #[must_use]
    pub fn documents_in_memory(&self) -> usize {
        let state = self.shared().state();
        let in_memory = |id: &&DocumentId| !state.engine.is_released(id);
        state.engine.documents().filter(in_memory).count()
    }

    /// The client's name among peers.
    #[must_use]
    pub fn peer_id(&self) -> &PeerId {
        &self.running.peer
    }

    /// Makes a document. It has nothing in it, and exists at once.
    ///
    /// # Errors
    /// [`FindError::Closed`] after [`Self::shutdown`].
    pub fn create(&self) -> Result<DocHandle, FindError> {
        let mut replica = Replica::new(new_actor());
        replica.begin(unix_seconds());
        self.insert(replica).ok_or(FindError::Closed)
    }

    /// Makes a document that begins with this change.
    ///
    /// # Errors
    /// What `edit` returns, or when the client was shut down; then there is no document.
    pub fn create_with<T, E>(
        &self,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<DocHandle, ChangeError<E>> {
        let replica = begun_with(edit)?;
        self.insert(replica).ok_or(ChangeError::Gone(Gone::Closed))
    }

    /// Makes a document of a value, as [`typed`] writes it.
    ///
    /// # Errors
    /// When a document cannot hold the value, which must be a map or a struct; when the client was shut
    /// down. Then there is no document.
    pub fn create_from(
        &self,
        value: &(impl Serialize + ?Sized),
    ) -> Result<DocHandle, ChangeError<TypedError>> {
        self.create_with(|tx| typed::write(tx, &ROOT, value))
    }

    /// Finds a document by its url (or its bare id): in local storage, or else at the relays.
    /// Waits until what some relay has of it is here.
    ///
    /// # Errors
    /// [`FindError::Unavailable`] when all relays were asked, and none has it: to a service's client
    /// that is 404. It may appear later: ask again. [`FindError::Unreachable`] when a relay could not
    /// be asked for as long as [`RepoBuilder::reach_within`] says, or refuses us: 503.
    ///
    /// # Cancel safety
    /// Nothing is lost. When nobody waits any more, the search ends.
    pub async fn find(&self, url: &str) -> Result<DocHandle, FindError> {
        self.search(url, Patience::ToReach(self.running.reach_within))
            .await
    }

    /// The same, within this time in all.
    ///
    /// # Errors
    /// As for [`Self::find`]; and [`FindError::Late`] if the document was on its way when the time was
    /// over.
    pub async fn find_within(&self, url: &str, time: Duration) -> Result<DocHandle, FindError> {
        self.search(url, Patience::InAll(time)).await
    }

    async fn search(&self, url: &str, patience: Patience) -> Result<DocHandle, FindError> {
        let id: DocumentId = url.parse()?;
        let _used = search(self.shared(), id, patience).await?;
        Ok(DocHandle::new(self.clone(), id))
    }

    /// The connections to the relays, in the order in which they were given, now and whenever one of
    /// them changes.
    /// After [`Self::shutdown`], all are [`RelayState::Away`](super::RelayState). What is borrowed of
    /// it, as [`wait_for`](watch::Receiver::wait_for) gives it, too, is dropped before the next `await`:
    /// see [`DocHandle::status`].
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<Arc<[Connection]>> {
        self.shared().state().connections.watch()
    }

    /// Tries all relays at once that are not connected, also those that refused us: when the network
    /// is back, or somebody gave us access.
    pub fn reconnect(&self) {
        let now = self.shared().now();
        {
            let mut state = self.shared().state();
            for relay in 0..state.connections.watch().borrow().len() {
                state.engine.retry(now, RelayId(relay));
            }
        }
        self.shared().wake.notify_one();
    }

    /// Makes a new document out of a saved one, with its history. Large documents take a while,
    /// on a thread that may block.
    ///
    /// # Errors
    /// When these bytes are no document.
    pub async fn import(&self, saved: Vec<u8>) -> Result<DocHandle, ImportError> {
        let import = move || Replica::import(&saved, new_actor());
        let imported = tokio::task::spawn_blocking(import).await;
        let mut replica = imported.map_err(|_| ImportError::Closed)??;
        if replica.is_empty() {
            replica.begin(unix_seconds());
        }
        self.insert(replica).ok_or(ImportError::Closed)
    }

    /// The whole document with its history, in the form that Automerge saves.
    ///
    /// # Errors
    /// As for [`Self::find`].
    pub async fn export(&self, url: &str) -> Result<Vec<u8>, FindError> {
        let handle = self.find(url).await?;
        // A copy, so that nobody waits while it is written.
        let copy = handle.read(automerge::Automerge::fork);
        let copy = copy.map_err(|_| FindError::Deleted)?;
        let save = tokio::task::spawn_blocking(move || copy.save()).await;
        save.map_err(|_| FindError::Closed)
    }

    /// The changes that were taken out of a document, with their bytes and the reason, in the order
    /// in which they were: for [`Change::try_from`](automerge::Change), or to be looked at.
    /// [`DocHandle::quarantined`] tells when there are some; this waits until they are stored. They
    /// go when the document is deleted.
    ///
    /// # Errors
    /// When it is no document's url, when reading fails, and after [`Self::shutdown`].
    pub async fn quarantined(&self, url: &str) -> Result<Vec<Quarantined>, FindError> {
        let id: DocumentId = url.parse()?;
        // What was told a moment ago may be on its way to storage.
        self.stored(id).await?;
        let storage = self.shared().state().storage.clone();
        let storage = storage.ok_or(FindError::Closed)?;
        let read = tokio::task::spawn_blocking(move || kept_aside(&*storage, &id)).await;
        Ok(read.map_err(|_| FindError::Closed)??)
    }

    /// Removes a document from local storage. Relays and other peers keep it. Its handles are of
    /// no further use.
    ///
    /// # Errors
    /// When that could not be stored; it is tried again all the same.
    pub async fn delete(&self, url: &str) -> Result<(), FindError> {
        let id: DocumentId = url.parse()?;
        // It may be stored and not open.
        match search(self.shared(), id, Patience::None).await {
            Ok(_) | Err(FindError::Damaged(_)) => {}
            Err(FindError::Unavailable | FindError::Unreachable(_) | FindError::Deleted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let (deleter, deleted) = oneshot::channel();
        {
            let mut state = self.shared().state();
            state.deleters.entry(id).or_default().push(deleter);
            state.engine.delete(&id);
        }
        self.shared().wake.notify_one();
        deleted.await.unwrap_or(Err(StorageError::Closed))?;
        Ok(())
    }

    /// Waits until everything that was changed and received so far is in local storage.
    ///
    /// # Errors
    /// When storage fails, for whatever document. The client tries again by itself.
    pub async fn flush(&self) -> Result<(), StorageError> {
        let documents: Vec<DocumentId> = {
            let mut state = self.shared().state();
            state.engine.flush();
            state.engine.documents().copied().collect()
        };
        self.shared().wake.notify_one();
        let mut result = Ok(());
        for id in documents {
            if let Err(error) = self.until(id, Engine::is_flushed).await {
                result = Err(error);
            }
        }
        result
    }

    /// What relays acknowledged is stored a while later, and not waited for.
    pub(super) async fn stored(&self, id: DocumentId) -> Result<(), StorageError> {
        self.until(id, Engine::is_stored).await
    }

    async fn until(
        &self,
        id: DocumentId,
        is_stored: fn(&Engine, &DocumentId) -> bool,
    ) -> Result<(), StorageError> {
        loop {
            let mut stored = {
                let mut state = self.shared().state();
                if is_stored(&state.engine, &id) {
                    return Ok(());
                }
                if state.engine.failure(&id).is_some() {
                    return Err(damaged(id, "it cannot be used, and is not stored further"));
                }
                if state.ended {
                    return Err(StorageError::Closed);
                }
                state.watch(id, |watchers| watchers.stored.subscribe())
            };
            if let Some(error) = &stored.borrow().1 {
                return Err(error.clone());
            }
            // The sender goes with a document that is deleted, and then it is stored.
            let _ = stored.changed().await;
        }
    }

    /// Takes no more changes, stores what is not stored yet, closes all connections and ends the
    /// client; its file is free then. What relays did not acknowledge is sent by the next run on
    /// the same storage. Waits for no relay, and at most [`FLUSH_MAX`] for what is not stored.
    ///
    /// Whoever else calls it waits for the same end, and is told the same.
    ///
    /// # Errors
    /// When storage fails or takes too long; the client is ended all the same.
    ///
    /// # Cancel safety
    /// It goes on when nobody waits for it.
    pub async fn shutdown(&self) -> Result<(), StorageError> {
        let mut ended = self.running.ended.subscribe();
        let tasks = self
            .running
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(tasks) = tasks {
            let ending = Ending(self.clone());
            tokio::spawn(async move { ending.tell(ending.0.end(tasks).await) });
        }
        let ended = ended.wait_for(Option::is_some).await;
        let ended = ended.map_or(None, |ended| ended.clone());
        ended.unwrap_or(Err(StorageError::Closed))
    }

    async fn end(&self, tasks: Tasks) -> Result<(), StorageError> {
        {
            let mut state = self.shared().state();
            state.storage = None;
            state.finders.clear();
            state.askers.clear();
        }
        let flushed = tokio::time::timeout(FLUSH_MAX, self.flush()).await;
        let flushed = flushed.unwrap_or_else(|late| Err(StorageError::failed(late)));
        drop(tasks.stop);
        // If the driver panicked, its tasks are gone too.
        let _ = tasks.driver.await;
        let writer = tokio::task::spawn_blocking(move || tasks.writer.join());
        let _ = writer.await;
        flushed
    }

    fn insert(&self, replica: Replica) -> Option<DocHandle> {
        let id = uuid::Uuid::new_v4().into_bytes();
        let id = DocumentId::new(&id).expect("16 bytes");
        {
            let mut state = self.shared().state();
            let key = state.storage.as_ref()?.new_key();
            state.engine.create(id, key, replica);
        }
        self.shared().wake.notify_one();
        Some(DocHandle::new(self.clone(), id))
    }
}

/// Tells how a client ended; also if the runtime in which that is done ends before.
struct Ending(Repo);

impl Ending {
    fn tell(&self, flushed: Result<(), StorageError>) {
        self.0.running.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert(flushed);
            is_first
        });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell(Err(StorageError::Closed));
    }
}

/// A document that begins with this change, or with an empty one if there is nothing to change.
pub(super) fn begun_with<T, E>(
    edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
) -> Result<Replica, EditError<E>> {
    let mut replica = Replica::new(new_actor());
    let (_, change) = replica.change(ChangeOptions::made_at(unix_seconds()), edit)?;
    if change.is_none() {
        replica.begin(unix_seconds());
    }
    Ok(replica)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell: it reads the clock for the engine"
)]
pub(super) fn unix_seconds() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs().cast_signed())
}
