//! The commands of the binary.

pub(crate) mod allocator;
mod log;
pub(crate) mod options;
pub(crate) mod quarantine;
pub(crate) mod serve;
