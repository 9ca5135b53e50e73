//! `reconverge serve`: runs a relay until the process is told to stop.

use std::sync::Arc;

use reconverge::native::RedbStorage;
use reconverge::storage::{Storage, StorageError};
use reconverge_server::access::Open;
use reconverge_server::{Relay, demo, until_let_go};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::SignalKind;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::allocator;
use super::log::{self, Form, Log};
use super::options::{LogFormat, MIB, Serve, peer_id};

/// Threads that may wait for the disk at a time. More would not make it faster, and each keeps
/// some memory of its own.
const BLOCKING_THREADS_MAX: usize = 16;

pub(crate) fn run(serve: &Serve) -> Result<(), String> {
    // The allocator asks for huge pages; with small objects of many lifetimes they only keep
    // memory that nobody uses: 15 MiB instead of 11 for the first connection, and 2 KiB more for
    // each after it. Where the kernel does not know the setting, that is the price.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let filter = EnvFilter::try_new(&serve.log).map_err(|e| e.to_string())?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let form = match serve.log_format {
        LogFormat::Human => Form::Human { colours },
        LogFormat::Json => Form::Json,
    };
    let log = Log::new(form, serve.log_kib_per_minute * 1024);
    tracing_subscriber::registry()
        .with(filter)
        .with(log.clone())
        .init();
    serve.check()?;
    if serve.demo && !demo::is_built() {
        return Err(String::from(
            "--demo: this binary was built without the demo. Run `npm install && npm run build` in \
             wasm/ and then in examples/demo/, and build the relay again",
        ));
    }
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .on_thread_park(allocator::collect)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let telling = log.clone();
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(log::TELL_EVERY).await;
            telling.tell_left_out(false);
        }
    });
    let ended = runtime.block_on(serve_until_told(serve));
    log.tell_left_out(true);
    ended
}

/// Has the process open as many files as the system lets it: the usual limit is for programs that
/// wait with `select`, which takes none above 1,024.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "cannot raise the number of files that may be open");
    }
}

async fn serve_until_told(serve: &Serve) -> Result<(), String> {
    // Before anybody can know that the relay is there: until then they end the process at once.
    let told = |kind| tokio::signal::unix::signal(kind).map_err(|e| e.to_string());
    let mut terminate = told(SignalKind::terminate())?;
    let mut interrupt = told(SignalKind::interrupt())?;
    let config = serve.config();
    // Before anything is made.
    Relay::check(&config).map_err(|e| e.to_string())?;
    std::fs::create_dir_all(&serve.data)
        .map_err(|e| format!("cannot make the folder {}: {e}", serve.data.display()))?;
    let file = serve.data.join("reconverge.redb");
    let name = file.display().to_string();
    let storage_id = uuid::Uuid::new_v4().to_string();
    let cache = serve.cache_mib * MIB;
    let open = async || RedbStorage::open(&file, cache, &storage_id);
    let storage = until_let_go(&name, open, |e| matches!(e, StorageError::InUse)).await;
    let storage = storage.map_err(|e| format!("cannot open {name}: {e}"))?;
    if storage.is_new() {
        warn!(file = %name, "there was no such file: a new store was made, with nothing in it");
    }
    let peer_id = match &serve.peer_id {
        Some(peer_id) => peer_id.clone(),
        None => peer_id(&named_after(&storage.storage_id()))?,
    };
    let storage_id = storage.storage_id();
    let chosen = [
        config.memory_bytes_max,
        config.message_bytes_max(),
        config.sending_bytes_max(),
    ];
    let relay = Relay::start(config, peer_id.clone(), Arc::new(storage), Arc::new(Open));
    let relay = relay.await.map_err(|e| e.to_string())?;
    let address = relay.address();
    // Apps that ask what a certain storage has must be told its id.
    let [memory_mib, message_mib_max, sending_mib] = chosen.map(|bytes| bytes / MIB);
    let cache_mib = serve.cache_mib;
    info!(%address, data = %serve.data.display(), %peer_id, %storage_id, memory_mib,
        message_mib_max, sending_mib, cache_mib, "serving");
    // For people and for scripts that asked for port 0. The log goes to standard error, and says what it
    // says of the start by now.
    println!("listening on {address}");
    if serve.demo {
        info!("the demo is at http://{address}/");
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    relay.stop().await;
    info!("stopped");
    Ok(())
}

/// The name of a relay that was given none. It is in every message, so it has only as much of the
/// storage's id as tells the relays from each other that one client knows.
fn named_after(storage_id: &str) -> String {
    let (beginning, _) = storage_id.split_once('-').unwrap_or((storage_id, ""));
    format!("storage-server-{beginning}")
}
