//! What the last relay on this machine may hold a moment longer than it lives.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

/// How long it may be held until that is an error.
const LET_GO: Duration = Duration::from_secs(3);

/// How often it is tried.
const AGAIN: Duration = Duration::from_millis(20);

/// Takes a file or a port, and waits up to three seconds while it `is_held`: a relay that is killed
/// while it starts a worker leaves its files and sockets to that process, which closes them when it
/// begins to run, and a relay that was told to stop may still be at it.
///
/// # Errors
/// That of the last attempt.
pub async fn until_let_go<T, E>(
    what: &str,
    mut take: impl AsyncFnMut() -> Result<T, E>,
    is_held: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let since = Instant::now();
    let mut said = false;
    loop {
        match take().await {
            Err(error) if is_held(&error) && since.elapsed() < LET_GO => {
                if !said {
                    info!("{what} is in use by another process; waiting for it");
                    said = true;
                }
                sleep(AGAIN).await;
            }
            taken => return taken,
        }
    }
}
