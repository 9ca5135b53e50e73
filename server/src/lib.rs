//! The Reconverge relay: stock automerge-repo clients sync through it, and redb keeps what they
//! wrote.
//!
//! `entrance` lets connections in. One task per connection (`connection`) feeds frames to the
//! protocol and writes what waits in its outbox (`peers`). One task per busy document (`document`)
//! runs turns: take in what came, commit, then ask the history what each peer should be sent. Tasks
//! own their state and talk through bounded mailboxes; `limits` shares memory and time between them,
//! `workshop` builds documents in processes of their own, and `telemetry` is what the operator is
//! told.

#![forbid(unsafe_code)]

pub mod access;
pub mod config;
mod connection;
mod document;
mod entrance;
mod lifetime;
mod limits;
mod peers;
mod relay;
mod remote_heads;
mod takeover;
mod telemetry;
pub mod workshop;

pub use entrance::demo;
pub use relay::{Relay, RelayError};
pub use takeover::until_let_go;
