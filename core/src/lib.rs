//! The engine of Reconverge: copies of the same Automerge documents, kept in agreement.
//!
//! Everything here is a machine without IO. No function in this crate (without the `native`
//! feature) reads a clock, draws randomness, starts a thread, or opens a file or a socket: time,
//! identities and bytes come in as arguments, and what should happen comes out as values. So the
//! same code runs in a relay, in a service and in a browser, and a test can replay any history
//! from a seed.
//!
//! The machines:
//!
//! * [`session::Session`] speaks one connection's side of the automerge-repo protocol as a server,
//!   [`session::ClientSession`] as a client: the handshake, and the rules of what a peer may say
//!   when. Its words are [`protocol::Message`]s.
//! * [`history::History`] is one document *without its contents*: the graph of its changes, what
//!   each connected peer knows of it, and the rules for which changes may enter. It answers "what
//!   should this peer be sent now?" and never builds a document to do so.
//! * [`replica::Replica`] is one document *with* its contents: a history beside an Automerge
//!   document, for those who read and edit.
//! * [`contents`] has what else must build a document: unpacking what was uploaded, and checking
//!   what only contents can tell.
//! * [`difference`] tells what changed in a document between two of its states.
//! * `typed`, by a feature of this name, reads and edits documents as values of one's own types.
//! * [`engine::Engine`] is a whole client: many replicas, one session per relay, local storage,
//!   status.
//!
//! A relay uses the first two, a client all but the server's session. What is kept, and in which
//! order it becomes durable, is the contract of [`storage`].
//!
//! The feature `native` adds the shells that touch the operating system: redb, the writer that
//! groups commits, and the client for services,
//! `native::Repo`. The feature `testing` adds a relay for the tests of services,
//! `native::testing::TestRelay`.
//!
//! Absent on purpose: what an access token means, TLS of a server.

#![forbid(unsafe_code)]

pub mod contents;
pub mod cursor;
pub mod difference;
pub mod engine;
pub mod history;
pub mod id;
pub mod leb;
#[cfg(feature = "native")]
pub mod native;

pub use automerge;
#[cfg(feature = "planted")]
pub mod planted;
pub mod protocol;
pub mod replica;
pub mod session;
pub mod storage;
#[cfg(feature = "typed")]
pub mod typed;
