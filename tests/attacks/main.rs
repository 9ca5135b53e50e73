//! Aim: no peer hurts another. Each test here is one attack that a peer without any rights can make
//! with little; while it lasts, the relay's memory, disk and log stay within bounds, honest people's
//! connections stay open, all that they write is acknowledged, and nothing of it is lost. A while
//! after the attackers left, the relay holds what it held before.
//!
//! Method: the relay as a process. Editors type at a steady pace, whether their last keystroke was
//! acknowledged or not; uploaders create documents as small changes, as one document chunk (which
//! the relay must unpack in its workshop) and as a large change; newcomers connect and ask for a
//! document. Their latency without the attack and during it is printed, with what the attack cost
//! the relay; it is not asserted, but for a minute that nothing may exceed.
//!
//! `RECONVERGE_ATTACK=name` runs one of them (those that are ignored need `--include-ignored`, too),
//! `RECONVERGE_ATTACK_S` is how many seconds each lasts, 5 without it. Otherwise two run at a time.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

mod asking;
mod attacker;
mod gossip;
mod honest;
mod inflating;
mod logs;
mod made;
mod measure;
mod sockets;
mod steps;
mod workshop;
