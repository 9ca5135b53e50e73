//! The `reconverge` binary.

#![deny(unsafe_code)]

mod cli;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use reconverge_server::workshop;
use tracing::error;

use crate::cli::options::Serve;
use crate::cli::{allocator, quarantine, serve};

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
        Command::Serve(serve) => match serve::run(&serve) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                error!("{reason}");
                ExitCode::FAILURE
            }
        },
    }
}
