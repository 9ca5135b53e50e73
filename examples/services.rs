//! Three services keep one order in agreement, through a partition between them.
//!
//! ```sh
//! cargo run --release -p reconverge-examples --bin services -- 127.0.0.1:3030
//! ```
//!
//! Orders, stock and payments each write their own part of a shared document. Each reaches the
//! relay by a cable of its own. While stock's cable is cut, all three go on; when it is mended,
//! all three show the same order.

use std::error::Error;

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc};
use futures::StreamExt;
use reconverge::engine::Status;
use reconverge::native::{DocHandle, Repo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The parts of an order, each written by one service.
const PARTS: [&str; 4] = ["order", "delivery", "stock", "payment"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let relay = std::env::args().nth(1).ok_or("usage: services HOST:PORT")?;
    let mut cables = JoinSet::new();
    let mut service = async |name: &'static str| -> Result<Service, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("ws://{}/?space=shop", listener.local_addr()?);
        let (cable, whole) = watch::channel(true);
        cables.spawn(carry(listener, relay.clone(), whole));
        let repo = Repo::builder().relay(&url).build().await?;
        Ok(Service { name, repo, cable })
    };
    let orders = service("orders").await?;
    let stock = service("stock").await?;
    let payments = service("payments").await?;

    let of_orders = orders
        .repo
        .create_with(|tx| tx.put(ROOT, "order", "3 lamps"))?;
    of_orders.when_synced().await?;
    let of_stock = stock.repo.find(&of_orders.url()).await?;
    let of_payments = payments.repo.find(&of_orders.url()).await?;
    let all = [
        (&orders, &of_orders),
        (&stock, &of_stock),
        (&payments, &of_payments),
    ];
    show("all connected", &all)?;

    stock.cable.send(false)?;
    // Until it notices, it would not call itself offline.
    of_stock.change(|tx| tx.put(ROOT, "stock", "3 lamps reserved"))?;
    of_stock
        .status()
        .wait_for(|now| *now == Status::Offline)
        .await?;
    of_orders.change(|tx| tx.put(ROOT, "delivery", "to the back door"))?;
    of_payments.change(|tx| tx.put(ROOT, "payment", "60.00 received"))?;
    has(&of_orders, "payment").await;
    has(&of_payments, "delivery").await;
    show("stock is cut off", &all)?;

    stock.cable.send(true)?;
    for (_, document) in all {
        for part in PARTS {
            has(document, part).await;
        }
        document.when_synced().await?;
    }
    show("the cable is mended", &all)?;
    let heads = of_orders.heads()?;
    if of_stock.heads()? != heads || of_payments.heads()? != heads {
        return Err("they do not agree".into());
    }
    println!("all three agree");
    for (service, _) in all {
        service.repo.shutdown().await?;
    }
    cables.shutdown().await;
    Ok(())
}

struct Service {
    name: &'static str,
    repo: Repo,
    /// Whether its cable is whole.
    cable: watch::Sender<bool>,
}

fn get(document: &DocHandle, part: &str) -> Option<String> {
    let value = document.read(|doc| {
        doc.get(ROOT, part)
            .ok()
            .flatten()
            .map(|(v, _)| v.into_owned())
    });
    value.ok().flatten()?.into_string().ok()
}

/// Waits until the document has this part.
async fn has(document: &DocHandle, part: &str) {
    let mut changes = document.changes();
    while get(document, part).is_none() && changes.next().await.is_some() {}
}

fn show(when: &str, all: &[(&Service, &DocHandle)]) -> Result<(), Box<dyn Error>> {
    println!("{when}:");
    for (service, document) in all {
        let parts = PARTS.iter().filter_map(|part| get(document, part));
        let seen = parts.collect::<Vec<_>>().join(", ");
        println!(
            "  {:8} ({}) sees: {seen}",
            service.name,
            *document.status().borrow()
        );
    }
    Ok(())
}

/// Passes connections on to the relay while the cable is whole.
async fn carry(listener: TcpListener, relay: String, whole: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let (relay, mut whole) = (relay.clone(), whole.clone());
        connections.spawn(async move {
            if !*whole.borrow_and_update() {
                return;
            }
            let Ok(mut far) = TcpStream::connect(relay).await else {
                return;
            };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = whole.wait_for(|whole| !whole) => {}
            }
        });
    }
}
