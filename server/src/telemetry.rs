//! What the operator is told, so that many events of a kind are one line of the log.

pub(crate) mod silent_peers;
pub(crate) mod storage_health;
