//! The Reconverge relay: stock automerge-repo clients sync through it, and redb keeps what they
//! wrote.
//!
//! One task per connection (`connection`) feeds frames to the protocol and writes what waits in
//! its outbox. One task per busy document (`document`) runs turns: take in what came, commit,
//! then ask the history what each peer should be sent. Tasks own their state and talk through
//! bounded mailboxes; nothing is shared but the registry of documents, the registry of peers, and
//! each connection's outbox.

#![forbid(unsafe_code)]

pub mod access;
pub mod config;
mod connection;
pub mod demo;
mod document;
mod documents;
mod fair;
mod held;
mod http;
mod large;
mod line;
mod memory;
mod open;
mod outbox;
mod relay;
mod remote_heads;
mod sockets;
mod trouble;
mod unfolded;
mod unheard;
mod unstored;
pub mod workshop;

pub use held::until_let_go;
pub use relay::{Relay, RelayError};
