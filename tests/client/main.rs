//! The native client against the running relay: what services rely on.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

mod disk;
mod documents;
mod editing;
mod faulty;
mod lifetime;
mod reaching;
mod refusals;
mod restarts;
mod sharing;
