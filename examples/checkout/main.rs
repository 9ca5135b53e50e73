//! Two services and a page write one order.
//!
//! ```sh
//! cargo run --release -p reconverge-examples --bin checkout -- 'ws://127.0.0.1:3030/?space=shop'
//! cd wasm && npm install && npm run build
//! node examples/checkout/page.mjs 'ws://127.0.0.1:3030/?space=shop' automerge:...
//! ```
//!
//! The page puts things into the order and confirms it. Stock reserves them, payment says what they
//! cost; each writes its own part, as a type of its own, and leaves the rest alone.

mod services;
#[cfg(test)]
mod tests;

use std::error::Error;

use reconverge::native::Repo;
use services::{Due, Order, Reserved, due, keep, reserved};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let relay = std::env::args().nth(1).ok_or("usage: checkout RELAY")?;
    let stock = Repo::builder().relay(&relay).build().await?;
    let payment = Repo::builder().relay(&relay).build().await?;
    let order = stock.create_with(services::begin)?;
    order.when_synced().await?;
    println!("{}", order.url());
    let same = payment.find(&order.url()).await?;
    tokio::try_join!(keep(&order, reserved), keep(&same, due))?;
    let Order { items, .. } = same.get()?;
    let Due { due_cents } = same.get()?;
    let Reserved { reserved } = order.get()?;
    println!("ordered {items:?}, reserved {reserved:?}, {due_cents} cents due");
    stock.shutdown().await?;
    payment.shutdown().await?;
    Ok(())
}
