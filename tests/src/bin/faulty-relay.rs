//! The relay with a disk that fails on command, and access that changes on command.
//!
//! Takes the flags of `reconverge serve` that tests need. Reads commands from standard input, one
//! per line, and answers each with `ok COMMAND`: `fail-sync [TIMES]`, `hold-syncs`,
//! `release-syncs`, `fill`, `empty` (the disk), `refused TIMES` (when so many more writes found no
//! room), `read-only`, `read-write`.

#![allow(clippy::unwrap_used, reason = "a test program says where it broke")]

use std::io::BufRead;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use reconverge::id::{Access, DocumentId, PeerId, Space};
use reconverge::native::{CACHE_BYTES_DEFAULT, RedbStorage};
use reconverge_server::access::{Asking, Authorize};
use reconverge_server::config::Config;
use reconverge_server::{Relay, workshop};
use reconverge_tests::faults::{FaultyFile, SyncFaults};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        data: PathBuf,
    },
    #[command(name = workshop::SUBCOMMAND)]
    Workshop { memory_bytes: u64, cpu_s: u64 },
}

#[derive(Debug, Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Authorize for Switch {
    fn access(&self, _: Asking<'_>, _: &DocumentId, _: &Space) -> Access {
        if self.0.load(Ordering::Relaxed) {
            Access::Read
        } else {
            Access::Write
        }
    }
}

fn main() {
    match Cli::parse().command {
        Command::Workshop {
            memory_bytes,
            cpu_s,
        } => {
            workshop::run_child(memory_bytes, cpu_s).unwrap();
        }
        Command::Serve { listen, data } => {
            let log = tracing_subscriber::EnvFilter::new("info");
            tracing_subscriber::fmt()
                .with_env_filter(log)
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .init();
            tokio::runtime::Runtime::new()
                .unwrap()
                .block_on(serve(listen, data));
        }
    }
}

async fn serve(listen: SocketAddr, data: PathBuf) {
    std::fs::create_dir_all(&data).unwrap();
    let (faults, read_only) = (SyncFaults::default(), Switch::default());
    let backend = {
        let (path, faults) = (data.join("reconverge.redb"), faults.clone());
        move || {
            let mut options = std::fs::File::options();
            let options = options.read(true).write(true).create(true).truncate(false);
            FaultyFile::new(options.open(&path).unwrap(), faults.clone())
        }
    };
    let path = data.join("reconverge.redb");
    let size = move || Ok(std::fs::metadata(&path)?.len());
    let storage = RedbStorage::with_backend(backend, size, CACHE_BYTES_DEFAULT, "faulty-storage");
    let config = Config {
        listen,
        storage_retry: Duration::from_millis(50),
        ..Config::default()
    };
    let name = PeerId::new(&format!("faulty-{}", std::process::id())).unwrap();
    let access = Arc::new(read_only.clone());
    let relay = Relay::start(config, name, Arc::new(storage.unwrap()), access)
        .await
        .unwrap();
    println!("listening on {}", relay.address());
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("fail-sync"), times) => faults.fail(times.map_or(1, |n| n.parse().unwrap())),
                (Some("hold-syncs"), _) => faults.hold(),
                (Some("release-syncs"), _) => faults.release(),
                (Some("fill"), _) => faults.fill(true),
                (Some("empty"), _) => faults.fill(false),
                (Some("refused"), times) => {
                    faults.wait_for_refused(times.map_or(1, |n| n.parse().unwrap()));
                }
                (Some("read-only"), _) => read_only.0.store(true, Ordering::Relaxed),
                (Some("read-write"), _) => read_only.0.store(false, Ordering::Relaxed),
                _ => panic!("unknown command {line:?}"),
            }
            println!("ok {line}");
        }
    });
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    terminate.recv().await;
    relay.stop().await;
}
