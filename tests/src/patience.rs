//! Waiting with an end: a test that would hang says instead what it waits for.

use std::time::Duration;

/// How long something that is to come may take, where a test does not say otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a future comes to.
///
/// # Panics
/// If that takes longer than [`PATIENCE`].
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(PATIENCE, what, future).await
}

/// What a future comes to.
///
/// # Panics
/// If that takes longer than this.
pub async fn within<T>(patience: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(patience, future).await;
    result.unwrap_or_else(|_| panic!("{what}: nothing for {patience:?}"))
}
