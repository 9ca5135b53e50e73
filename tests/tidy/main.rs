//! Rules of the workspace that the compiler does not check: who depends on whom, which module
//! imports which, and what the core must not touch.
//!
//! The rules read the sources as text. They see what is written plainly, which is enough against
//! mistakes; nobody is expected to hide from them.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

mod arrows;
mod imports;
mod manifests;
mod sources;
mod words;
