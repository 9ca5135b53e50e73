//! Documents as values of types, both ways.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

mod documents;
mod errors;
mod kinds;
mod lists;
mod random;
mod texts;
mod untouched;
