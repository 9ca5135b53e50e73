//! Aim: whatever happens to the bytes of a file, what is read of it is what was written, or an error
//! that says what to do; nothing panics, aborts, hangs or asks for memory without bound.
//!
//! Method: files of all versions, grown ones of many pages, and files that a crash left, are damaged
//! anywhere, thousands of times: bits, lines, pages, the length, the fields of redb's header. Each is
//! opened, read, written to, closed, and read again. That runs in child processes with a limit of
//! memory and of time, so that an abort or a hang is seen and named. A sample of the same files goes
//! to the relay's executable and to the client.
//!
//! `RECONVERGE_DAMAGE_SEED` repeats one round, `RECONVERGE_DAMAGE_ROUNDS` says how many there are.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

mod client;
mod damaging;
mod files;
mod judging;
mod relay;
mod rounds;
