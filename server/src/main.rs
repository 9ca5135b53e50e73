//! The `reconverge` binary.

#![deny(unsafe_code)]

mod allocator;
mod log;
mod quarantine;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand, ValueEnum};
use reconverge::id::{PEER_ID_BYTES_MAX, PeerId};
use reconverge::native::RedbStorage;
use reconverge::storage::{Storage, StorageError};
use reconverge_server::access::Open;
use reconverge_server::config::{Config, Verify, default_memory};
use reconverge_server::{Relay, demo, until_let_go, workshop};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::SignalKind;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::log::{Form, Log};

/// Threads that may wait for the disk at a time. More would not make it faster, and each keeps
/// some memory of its own.
const BLOCKING_THREADS_MAX: usize = 16;

/// A sync server for Automerge documents: stock automerge-repo clients connect to it by WebSocket,
/// and what they write is on disk before they are told that the relay has it.
#[derive(Debug, Parser)]
#[command(name = "reconverge", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<Serve>),
    /// Show, export or drop the changes that were taken out of documents because their contents
    /// made no document. Stop the relay first.
    Quarantine {
        /// Folder of the relay's file.
        #[arg(long, env = "RECONVERGE_DATA", default_value = "./data")]
        data: PathBuf,
        #[command(subcommand)]
        action: quarantine::Action,
    },
    /// Builds one document under limits; started by the relay itself.
    #[command(name = workshop::SUBCOMMAND, hide = true)]
    Workshop {
        memory_bytes: u64,
        cpu_s: u64,
    },
}

/// Run the relay.
///
/// Example: `reconverge serve --listen 127.0.0.1:3030 --data ./data`, then point an automerge-repo
/// client at ws://127.0.0.1:3030. Every option can also be given by the environment variable named
/// beside it. SIGTERM or ctrl-c stops the relay: it commits what it took in and closes connections
/// with code 1012, and clients come back to the next run. It takes up to 5 s; with `--verify inline`
/// an edit whose check takes longer is not committed. It was not acknowledged, and its writer sends
/// it again.
#[derive(Debug, Parser)]
struct Serve {
    /// Address and port to listen on. Port 0 picks a free one, which is printed.
    #[arg(long, env = "RECONVERGE_LISTEN", default_value = "127.0.0.1:3030")]
    listen: SocketAddr,
    /// Folder for the relay's file, `reconverge.redb`; made if it is not there. One relay at a
    /// time may use it.
    #[arg(long, env = "RECONVERGE_DATA", default_value = "./data")]
    data: PathBuf,
    /// Name by which the relay introduces itself to peers: 1 to 256 bytes, no control characters.
    /// Without it, `storage-server-` and the id of its storage, which stays the same. Many apps
    /// share documents only with a peer whose id includes `storage-server`, as automerge-repo's
    /// own server names itself; with another name their edits stay where they are.
    #[arg(long, env = "RECONVERGE_PEER_ID", value_parser = peer_id)]
    peer_id: Option<PeerId>,
    /// Memory for the cache of the file's pages, in MiB: at least 1, at most a quarter of the memory.
    #[arg(long, env = "RECONVERGE_CACHE_MIB", default_value_t = 16, value_parser = mib(1))]
    cache_mib: usize,
    /// Most connections at a time; others are answered 503. Each takes a file descriptor, of which
    /// the relay takes as many as the system lets it (`ulimit -Hn`); the log says if they do not
    /// suffice. 1 to 10,000,000.
    #[arg(long, env = "RECONVERGE_CONNECTIONS_MAX", default_value_t = 100_000,
        value_parser = number(10_000_000))]
    connections_max: usize,
    /// Most of them from one address (a /64 of IPv6); others are answered 503. Half of all, if it
    /// is not given. Behind a reverse proxy all come from the proxy's: give it as many as all.
    /// 1 to --connections-max.
    #[arg(long, env = "RECONVERGE_CONNECTIONS_PER_ADDRESS_MAX", value_parser = number(10_000_000))]
    connections_per_address_max: Option<usize>,
    /// Seconds between pings. A connection that is silent for two of them is closed. 1 to
    /// 86,400.
    #[arg(long, env = "RECONVERGE_PING_INTERVAL_S", default_value_t = 20,
        value_parser = seconds(DAY_S))]
    ping_interval_s: u64,
    /// Seconds after which a document that nobody uses is dropped from memory. 1 to 31,536,000.
    #[arg(long, env = "RECONVERGE_IDLE_TIMEOUT_S", default_value_t = 30,
        value_parser = seconds(YEAR_S))]
    idle_timeout_s: u64,
    /// Memory of the relay's own process, in MiB: at least 128. Near it, connections that hold much are not read;
    /// if others wait for long, the one that held most is closed. Without it, half of what the
    /// machine has, or the control group. Messages above a quarter of it are not taken. The workshop
    /// has its own (see --workshop-memory-mib).
    #[arg(long, env = "RECONVERGE_MEMORY_MIB", value_parser = mib(128))]
    memory_mib: Option<usize>,
    /// Memory for large messages that are being sent, in MiB; those who need more wait. Without it,
    /// an eighth of the memory; at least 1, at most a quarter.
    #[arg(long, env = "RECONVERGE_SENDING_MIB", value_parser = mib(1))]
    sending_mib: Option<usize>,
    /// When to check what only a document's contents can tell: `later` than changes are stored and
    /// passed on, or `inline`, before; then every edit waits until its document was built.
    #[arg(long, env = "RECONVERGE_VERIFY", default_value = "later")]
    verify: VerifyWhen,
    /// With `later`: seconds after which new changes are checked at the latest. 1 to 31,536,000.
    #[arg(long, env = "RECONVERGE_VERIFY_LAG_S", default_value_t = 60,
        value_parser = seconds(YEAR_S))]
    verify_lag_s: u64,
    /// With `later`: new changes of a document (or an eighth of its history, if that is more) after
    /// which they are checked before. At least 1.
    #[arg(long, env = "RECONVERGE_VERIFY_LAG_CHANGES", default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..))]
    verify_lag_changes: u32,
    /// Documents that are unpacked, checked or compacted at a time, each in a process of its own.
    /// 1 to 1,024.
    #[arg(long, env = "RECONVERGE_WORKSHOP_WORKERS", default_value_t = 1,
        value_parser = number(1024))]
    workshop_workers: usize,
    /// Memory of each such process, in MiB of address space: at least 16. About 1 KB for each
    /// operation of a document that is to be checked.
    #[arg(long, env = "RECONVERGE_WORKSHOP_MEMORY_MIB", default_value_t = 3072,
        value_parser = mib(16))]
    workshop_memory_mib: usize,
    /// CPU seconds of each such process; it is killed after twice as long by the clock. 1
    /// to 86,400.
    #[arg(long, env = "RECONVERGE_WORKSHOP_CPU_S", default_value_t = 60,
        value_parser = seconds(DAY_S))]
    workshop_cpu_s: u64,
    /// Serve a demo at http://ADDRESS/: a page that several people write, plan and draw on.
    #[arg(long, env = "RECONVERGE_DEMO")]
    demo: bool,
    /// Form of the log on standard error.
    #[arg(long, env = "RECONVERGE_LOG_FORMAT", default_value = "human")]
    log_format: LogFormat,
    /// Most that is logged in a minute, in KiB; what is more is left out, and counted in the log.
    /// Lines are cut at 4 KiB. 16 to 1,048,576.
    #[arg(long, env = "RECONVERGE_LOG_KIB_PER_MINUTE", default_value_t = 768,
        value_parser = kib(16))]
    log_kib_per_minute: usize,
    /// What to log: off, error, warn, info, debug or trace, and after it for single modules, as in
    /// `info,reconverge_server::http=debug`.
    #[arg(long, env = "RECONVERGE_LOG", default_value = "info", value_parser = log_filter)]
    log: String,
}

impl Serve {
    /// Whether the options go together.
    fn check(&self) -> Result<(), String> {
        let memory = self.memory_bytes() / MIB;
        let quarter = memory / 4;
        let parts = [
            ("--cache-mib", Some(self.cache_mib)),
            ("--sending-mib", self.sending_mib),
        ];
        for (option, mib) in parts {
            if let Some(mib) = mib.filter(|mib| *mib > quarter) {
                return Err(format!(
                    "{option} {mib} is more than a quarter of the memory, which has {memory} MiB: \
                     raise --memory-mib to {} or more, or lower {option} to {quarter} or less",
                    4 * mib
                ));
            }
        }
        let (all, each) = (self.connections_max, self.connections_per_address_max);
        if let Some(each) = each.filter(|each| *each > all) {
            return Err(format!(
                "--connections-per-address-max {each} is more than --connections-max {all}"
            ));
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.memory_mib.map_or_else(default_memory, |mib| mib * MIB)
    }
}

const MIB: usize = 1024 * 1024;

const DAY_S: u64 = 24 * 60 * 60;
const YEAR_S: u64 = 365 * DAY_S;

/// At least `from` MiB, at most a TiB.
fn mib(from: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(from..=1024 * 1024)
}

/// At least `from` KiB, at most a GiB.
fn kib(from: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(from..=1024 * 1024)
}

fn number(to: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=to)
}

fn seconds(to: u64) -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(1..=to)
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum VerifyWhen {
    Later,
    Inline,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

/// A word alone is a level: as a module, which it could be, too, it would silence all others.
fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    EnvFilter::try_new(text).map_err(|e| e.to_string())?;
    let words = text.split(',').map(str::trim);
    let mut alone = words.filter(|word| !word.contains(['=', '[', ']', '{', '}']));
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    match alone.find(|word| !is_level(word)) {
        Some(word) => Err(format!(
            "{word:?} is no level ({}); a module has one behind it, as in {word}=debug",
            LEVELS.join(", ")
        )),
        None => Ok(text.to_owned()),
    }
}

fn peer_id(text: &str) -> Result<PeerId, String> {
    let rule =
        || format!("a peer id has 1 to {PEER_ID_BYTES_MAX} bytes, and no control characters");
    PeerId::new(text).ok_or_else(rule)
}

fn main() -> ExitCode {
    allocator::keep_no_large_objects();
    match Cli::parse().command {
        Command::Workshop {
            memory_bytes,
            cpu_s,
        } => match workshop::run_child(memory_bytes, cpu_s) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("workshop: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Quarantine { data, action } => match quarantine::run(&data, &action) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                eprintln!("quarantine: {reason}");
                ExitCode::FAILURE
            }
        },
        Command::Serve(serve) => match run(&serve) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                error!("{reason}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run(serve: &Serve) -> Result<(), String> {
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
    let defaults = Config::default();
    let config = Config {
        listen: serve.listen,
        connections_max: serve.connections_max,
        connections_per_address_max: serve.connections_per_address_max,
        ping_interval: Duration::from_secs(serve.ping_interval_s),
        idle_timeout: Duration::from_secs(serve.idle_timeout_s),
        memory_bytes_max: serve.memory_bytes(),
        sending_bytes_max: serve.sending_mib.map(|mib| mib * MIB),
        verify: match serve.verify {
            VerifyWhen::Later => Verify::Later,
            VerifyWhen::Inline => Verify::Inline,
        },
        verify_lag: Duration::from_secs(serve.verify_lag_s),
        verify_lag_changes: serve.verify_lag_changes,
        workshop: workshop::WorkshopConfig {
            workers: serve.workshop_workers,
            memory_bytes_max: serve.workshop_memory_mib as u64 * 1024 * 1024,
            cpu_s_max: serve.workshop_cpu_s,
            deadline: Duration::from_secs(serve.workshop_cpu_s * 2),
            ..defaults.workshop
        },
        demo: serve.demo,
        ..defaults
    };
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
        None => peer_id(&format!("storage-server-{}", storage.storage_id()))?,
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
