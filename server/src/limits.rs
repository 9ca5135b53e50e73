//! What is shared between those who use the relay, and how it is shared fairly: memory, time, and
//! what is on its way out. Each limit can be named and tested alone; none knows of documents or
//! connections.

pub(crate) mod fair;
pub(crate) mod large_messages;
pub(crate) mod memory;
pub(crate) mod wait_queue;
