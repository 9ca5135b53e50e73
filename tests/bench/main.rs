//! The load driver: many light automerge-repo clients in one process, against a relay in another.
//!
//! Every scenario checks that what arrived is right, and a failed check makes the exit code 1.
//! CPU and memory are the relay's, as the operating system counts them; what the driver spends is
//! not in the figures, though it shares the machine's cores. All clients run in one thread.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a driver that panics has failed, and says where"
)]

mod bytes;
mod client;
mod contact;
mod durability;
mod fanout;
mod floor;
mod foreign;
mod idle;
mod reconnect;
mod report;
mod stock;
mod threads;
mod trace;
mod typed;
mod unavailable;
mod writers;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use foreign::Kind;
use futures::{StreamExt, TryStreamExt};
use reconverge_tests::light::{Client, Document, Fault};
use reconverge_tests::process::{Relay, relay_executable};
use report::Report;
use tokio::task::JoinHandle;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures a Reconverge relay from outside and checks that it is right.
#[derive(Debug, Parser)]
#[command(after_help = "The relay is target/release/reconverge, or what RECONVERGE_BIN names.")]
struct Arguments {
    /// What to measure.
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    setting: Setting,
}

#[derive(Debug, Clone, clap::Args)]
struct Setting {
    /// Multiplies the number of edits and documents (not of clients), for a quick look.
    #[arg(long, global = true, default_value_t = 1.0)]
    scale: f64,
    /// Leaves out everything with the 259,778-change document.
    #[arg(long, global = true)]
    small_only: bool,
    /// Seed of the typed text and of the document ids.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// One more argument for the relay; may be repeated.
    #[arg(long, global = true, allow_hyphen_values = true)]
    relay_argument: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Scenario {
    /// Everything below that needs nothing else, one after the other.
    All,
    /// One writer; 10 and 100 readers; a small and a big document; full speed and 10 edits/s.
    Fanout,
    /// 50 and 500 writers, each in a document of its own, at full speed.
    Writers,
    /// The big document after a restart, by 1 client and by 20 at once.
    FirstContact,
    /// 2,000 and 10,000 small documents after a restart.
    Refetch,
    /// Memory of 2,000 idle connections.
    Idle,
    /// A document that nobody has: how long until a client is told.
    Unavailable,
    /// 500 documents acknowledged, then kill -9: how many are lost.
    Kill9,
    /// 500 and 5,000 clients after kill -9: how long until all are in sync again.
    Reconnect,
    /// What a stock client sends and receives for 30 documents; needs Node.js and `npm install
    /// --no-save` in tests/interop. Not among `all`.
    Bytes,
    /// Servers of Yjs; needs Node.js and `npm install` in tests/bench/peers. Not among `all`.
    Peers,
    /// All keystrokes of the paper through one client and the relay to a fresh client.
    Trace,
    /// What edits cost in the native client, and how long until they are saved.
    Client,
    /// The native client on several threads, and beside documents that are busy.
    Threads,
    /// What it costs to read and to update a typed document of 20,000 elements.
    Typed,
}

impl Setting {
    fn scaled(&self, count: usize) -> usize {
        ((count as f64 * self.scale) as usize).max(10)
    }

    fn start_relay(&self) -> Relay {
        let arguments: Vec<&str> = self.relay_argument.iter().map(String::as_str).collect();
        Relay::start_with(&arguments)
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some(client::OPEN_COPIES) => {
            client::open_copies(words);
            return ExitCode::SUCCESS;
        }
        Some(floor::SERVE) => {
            floor::serve();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let arguments = Arguments::parse();
    println!("Relay: {}. {}.", relay_executable().display(), machine());
    println!("The driver runs beside it, in one thread; what it writes was made beforehand.");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut report = Report::default();
    runtime.block_on(run(arguments.scenario, &arguments.setting, &mut report));
    report.print()
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |text| text.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} cores of {model}")
}

async fn run(scenario: Scenario, setting: &Setting, report: &mut Report) {
    let wants = |one: Scenario| scenario == Scenario::All || scenario == one;
    // A broken connection ends its scenario, not the others.
    if wants(Scenario::Fanout) {
        let outcome = Box::pin(fanout::run(setting, report)).await;
        report.finish("fanout", outcome);
    }
    if wants(Scenario::Writers) {
        let outcome = Box::pin(writers::run(setting, report)).await;
        report.finish("writers", outcome);
    }
    if wants(Scenario::FirstContact) && !setting.small_only {
        let outcome = Box::pin(contact::first_contact(setting, report)).await;
        report.finish("first-contact", outcome);
    }
    if wants(Scenario::Refetch) {
        let outcome = Box::pin(contact::refetch(setting, report)).await;
        report.finish("refetch", outcome);
    }
    if wants(Scenario::Idle) {
        let outcome = Box::pin(idle::run(setting, report)).await;
        report.finish("idle", outcome);
    }
    if wants(Scenario::Unavailable) {
        let outcome = Box::pin(unavailable::run(setting, report)).await;
        report.finish("unavailable", outcome);
    }
    if wants(Scenario::Kill9) {
        let outcome = Box::pin(durability::run(setting, report)).await;
        report.finish("kill9", outcome);
    }
    if wants(Scenario::Reconnect) {
        let outcome = Box::pin(reconnect::run(setting, report)).await;
        report.finish("reconnect", outcome);
    }
    if scenario == Scenario::Bytes {
        bytes::run(setting, report);
    }
    if scenario == Scenario::Peers {
        for kind in [Kind::Hocuspocus, Kind::YWebsocket] {
            let outcome = Box::pin(fanout::foreign(setting, kind, report)).await;
            report.finish(kind.name(), outcome);
            let outcome = Box::pin(writers::foreign(setting, kind, report)).await;
            report.finish(kind.name(), outcome);
        }
    }
    if wants(Scenario::Trace) && !setting.small_only {
        let outcome = Box::pin(trace::run(setting, report)).await;
        report.finish("trace", outcome);
    }
    if wants(Scenario::Client) {
        let outcome = Box::pin(client::run(setting, report)).await;
        report.finish("client", outcome);
    }
    if wants(Scenario::Threads) {
        let outcome = threads::run(setting, report);
        report.finish("threads", outcome);
    }
    if wants(Scenario::Typed) {
        typed::run(setting, report);
    }
}

/// Connects that many clients, some at a time.
async fn connect(url: &str, name: &str, count: usize) -> Result<Vec<Client>, Fault> {
    let joining =
        (0..count).map(|n| async move { Client::connect(url, &format!("{name}-{n}")).await });
    futures::stream::iter(joining)
        .buffered(32)
        .try_collect()
        .await
}

/// Connects one client per document, which it opens and waits for: until it has what the relay
/// has, and the relay what it has.
async fn connect_each(
    url: &str,
    name: &str,
    documents: Vec<Document>,
) -> Result<Vec<Client>, Fault> {
    let connecting = |n| async move { Client::connect(url, &format!("{name}-{n}")).await };
    open_each(connecting, documents).await
}

/// The same with clients that join as ours do.
async fn connect_each_of_ours(
    url: &str,
    name: &str,
    documents: Vec<Document>,
) -> Result<Vec<Client>, Fault> {
    let connecting = |n| async move { Client::connect_ours(url, &format!("{name}-{n}")).await };
    open_each(connecting, documents).await
}

async fn open_each<F: Future<Output = Result<Client, Fault>>>(
    connect: impl Fn(usize) -> F,
    documents: Vec<Document>,
) -> Result<Vec<Client>, Fault> {
    let opening = documents.into_iter().enumerate().map(|(n, document)| {
        let connecting = connect(n);
        async move {
            let mut client = connecting.await?;
            client.open(document);
            client
                .until(|client| client.document(0).is_in_step())
                .await?;
            Ok(client)
        }
    });
    futures::stream::iter(opening)
        .buffered(32)
        .try_collect()
        .await
}

/// A writer that is done, and how long each of its edits took.
type Written<C> = Result<(C, Vec<Duration>), Fault>;

/// Waits for writers; they, and how long each of their edits took.
async fn gather<C>(writing: Vec<JoinHandle<Written<C>>>) -> Result<(Vec<C>, Vec<Duration>), Fault> {
    let (mut clients, mut acks) = (Vec::new(), Vec::new());
    for writer in writing {
        let (client, of_one) = writer.await.unwrap()?;
        clients.push(client);
        acks.extend(of_one);
    }
    Ok((clients, acks))
}
