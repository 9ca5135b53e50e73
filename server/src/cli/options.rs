//! The options of `reconverge serve`, and what they mean.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use reconverge::id::{PEER_ID_BYTES_MAX, PeerId};
use reconverge_server::config::{Config, Verify, default_memory};
use reconverge_server::workshop;
use tracing_subscriber::EnvFilter;

pub(super) const MIB: usize = 1024 * 1024;

const DAY_S: u64 = 24 * 60 * 60;

const YEAR_S: u64 = 365 * DAY_S;

/// Run the relay.
///
/// Example: `reconverge serve --listen 127.0.0.1:3030 --data ./data`, then point an automerge-repo
/// client at ws://127.0.0.1:3030. Every option can also be given by the environment variable named
/// beside it. SIGTERM or ctrl-c stops the relay: it commits what it took in and closes connections
/// with code 1012, and clients come back to the next run. It takes up to 5 s; with `--verify inline`
/// an edit whose check takes longer is not committed. It was not acknowledged, and its writer sends
/// it again.
#[derive(Debug, Parser)]
pub(crate) struct Serve {
    /// Address and port to listen on. Port 0 picks a free one, which is printed.
    #[arg(long, env = "RECONVERGE_LISTEN", default_value = "127.0.0.1:3030")]
    pub(super) listen: SocketAddr,
    /// Folder for the relay's file, `reconverge.redb`; made if it is not there. One relay at a
    /// time may use it.
    #[arg(long, env = "RECONVERGE_DATA", default_value = "./data")]
    pub(super) data: PathBuf,
    /// Name by which the relay introduces itself to peers: 1 to 256 bytes, no control characters.
    /// Without it, `storage-server-` and the first eight digits of the id of its storage, which stay the same. Many apps
    /// share documents only with a peer whose id includes `storage-server`, as automerge-repo's
    /// own server names itself; with another name their edits stay where they are.
    #[arg(long, env = "RECONVERGE_PEER_ID", value_parser = peer_id)]
    pub(super) peer_id: Option<PeerId>,
    /// Memory for the cache of the file's pages, in MiB: at least 1, at most a quarter of the memory.
    #[arg(long, env = "RECONVERGE_CACHE_MIB", default_value_t = 16, value_parser = mib(1))]
    pub(super) cache_mib: usize,
    /// Most connections at a time; others are answered 503. Each takes a file descriptor, of which
    /// the relay takes as many as the system lets it (`ulimit -Hn`); the log says if they do not
    /// suffice. 1 to 10,000,000.
    #[arg(long, env = "RECONVERGE_CONNECTIONS_MAX", default_value_t = 100_000,
        value_parser = number(10_000_000))]
    pub(super) connections_max: usize,
    /// Most of them from one address (a /64 of IPv6); others are answered 503. Half of all, if it
    /// is not given. Behind a reverse proxy all come from the proxy's: give it as many as all.
    /// 1 to --connections-max.
    #[arg(long, env = "RECONVERGE_CONNECTIONS_PER_ADDRESS_MAX", value_parser = number(10_000_000))]
    pub(super) connections_per_address_max: Option<usize>,
    /// Seconds between pings. A connection that is silent for two of them is closed. 1 to
    /// 86,400.
    #[arg(long, env = "RECONVERGE_PING_INTERVAL_S", default_value_t = 20,
        value_parser = seconds(DAY_S))]
    pub(super) ping_interval_s: u64,
    /// Seconds after which a document that nobody uses is dropped from memory. 1 to 31,536,000.
    #[arg(long, env = "RECONVERGE_IDLE_TIMEOUT_S", default_value_t = 30,
        value_parser = seconds(YEAR_S))]
    pub(super) idle_timeout_s: u64,
    /// Memory of the relay's own process, in MiB: at least 128. Near it, connections that hold much are not read;
    /// if others wait for long, the one that held most is closed. Without it, half of what the
    /// machine has, or the control group. Messages above a quarter of it are not taken. The workshop
    /// has its own (see --workshop-memory-mib).
    #[arg(long, env = "RECONVERGE_MEMORY_MIB", value_parser = mib(128))]
    pub(super) memory_mib: Option<usize>,
    /// Memory for large messages that are being sent, in MiB; those who need more wait. Without it,
    /// an eighth of the memory; at least 1, at most a quarter.
    #[arg(long, env = "RECONVERGE_SENDING_MIB", value_parser = mib(1))]
    pub(super) sending_mib: Option<usize>,
    /// When to check what only a document's contents can tell: `later` than changes are stored and
    /// passed on, or `inline`, before; then every edit waits until its document was built.
    #[arg(long, env = "RECONVERGE_VERIFY", default_value = "later")]
    pub(super) verify: VerifyWhen,
    /// With `later`: seconds after which new changes are checked at the latest. 1 to 31,536,000.
    #[arg(long, env = "RECONVERGE_VERIFY_LAG_S", default_value_t = 60,
        value_parser = seconds(YEAR_S))]
    pub(super) verify_lag_s: u64,
    /// With `later`: new changes of a document (or an eighth of its history, if that is more) after
    /// which they are checked before. At least 1.
    #[arg(long, env = "RECONVERGE_VERIFY_LAG_CHANGES", default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) verify_lag_changes: u32,
    /// Documents that are unpacked, checked or compacted at a time, each in a process of its own.
    /// 1 to 1,024.
    #[arg(long, env = "RECONVERGE_WORKSHOP_WORKERS", default_value_t = 1,
        value_parser = number(1024))]
    pub(super) workshop_workers: usize,
    /// Memory of each such process, in MiB of address space: at least 24. About 1 KB for each
    /// operation of a document that is to be checked.
    #[arg(long, env = "RECONVERGE_WORKSHOP_MEMORY_MIB", default_value_t = 3072,
        value_parser = mib(24))]
    pub(super) workshop_memory_mib: usize,
    /// CPU seconds of each such process; it is killed after twice as long by the clock. 1
    /// to 86,400.
    #[arg(long, env = "RECONVERGE_WORKSHOP_CPU_S", default_value_t = 60,
        value_parser = seconds(DAY_S))]
    pub(super) workshop_cpu_s: u64,
    /// Serve a demo at http://ADDRESS/: a page that several people write, plan and draw on.
    #[arg(long, env = "RECONVERGE_DEMO")]
    pub(super) demo: bool,
    /// Form of the log on standard error.
    #[arg(long, env = "RECONVERGE_LOG_FORMAT", default_value = "human")]
    pub(super) log_format: LogFormat,
    /// Most that is logged in a minute, in KiB; what is more is left out, and counted in the log.
    /// Lines are cut at 4 KiB. 16 to 1,048,576.
    #[arg(long, env = "RECONVERGE_LOG_KIB_PER_MINUTE", default_value_t = 768,
        value_parser = kib(16))]
    pub(super) log_kib_per_minute: usize,
    /// What to log: off, error, warn, info, debug or trace, and after it for single modules, as in
    /// `info,reconverge_server::entrance=debug`.
    #[arg(long, env = "RECONVERGE_LOG", default_value = "info", value_parser = log_filter)]
    pub(super) log: String,
}

impl Serve {
    /// Whether the options go together.
    pub(super) fn check(&self) -> Result<(), String> {
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

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_mib.map_or_else(default_memory, |mib| mib * MIB)
    }

    pub(super) fn config(&self) -> Config {
        let defaults = Config::default();
        Config {
            listen: self.listen,
            connections_max: self.connections_max,
            connections_per_address_max: self.connections_per_address_max,
            ping_interval: Duration::from_secs(self.ping_interval_s),
            idle_timeout: Duration::from_secs(self.idle_timeout_s),
            memory_bytes_max: self.memory_bytes(),
            sending_bytes_max: self.sending_mib.map(|mib| mib * MIB),
            verify: match self.verify {
                VerifyWhen::Later => Verify::Later,
                VerifyWhen::Inline => Verify::Inline,
            },
            verify_lag: Duration::from_secs(self.verify_lag_s),
            verify_lag_changes: self.verify_lag_changes,
            workshop: workshop::WorkshopConfig {
                workers: self.workshop_workers,
                memory_bytes_max: self.workshop_memory_mib as u64 * 1024 * 1024,
                cpu_s_max: self.workshop_cpu_s,
                deadline: Duration::from_secs(self.workshop_cpu_s * 2),
                ..defaults.workshop
            },
            demo: self.demo,
            ..defaults
        }
    }
}

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
pub(super) enum VerifyWhen {
    Later,
    Inline,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum LogFormat {
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

pub(super) fn peer_id(text: &str) -> Result<PeerId, String> {
    let rule =
        || format!("a peer id has 1 to {PEER_ID_BYTES_MAX} bytes, and no control characters");
    PeerId::new(text).ok_or_else(rule)
}
