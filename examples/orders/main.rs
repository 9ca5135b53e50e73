//! Orders over HTTP, kept in a file and in sync with a relay.
//!
//! ```sh
//! cargo run --release -p reconverge-examples --bin orders -- \
//!     127.0.0.1:8080 'ws://127.0.0.1:3030/?space=shop' orders.redb
//! ```
//!
//! `tests.rs` shows how a service is tested against [`TestRelay`](reconverge::native::testing::TestRelay).

mod service;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::time::Duration;

use reconverge::native::Repo;
use tokio::net::TcpListener;

/// How long a request waits for the relay.
const SYNCED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, relay, file] = arguments.as_slice() else {
        return Err("usage: orders LISTEN RELAY FILE".into());
    };
    let repo = Repo::builder().relay(relay).file(file).build().await?;
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    let stop = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    service::run(listener, repo, SYNCED_WITHIN, stop).await
}
