//! What may enter a history, and what is refused for which reason.
//!
//! Bad changes are made from good ones: decoded, altered and encoded again by Automerge, or with
//! their columns replaced byte by byte.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

mod alter;
mod chunks;
mod columns;
mod full;
mod harm;
mod limits;
mod numbers;
mod operations;
mod peer;
mod references;
mod waiting;
