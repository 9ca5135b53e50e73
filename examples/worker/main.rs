//! A worker that writes one invoice for each order in a document: none twice, and none is missing,
//! however often it is killed.
//!
//! ```sh
//! cargo run --release -p reconverge-examples --bin worker -- \
//!     'ws://127.0.0.1:3030/?space=shop' automerge:... folder
//! ```
//!
//! It follows the document from a cursor, which it keeps in its own database: what a change makes it do,
//! and the cursor after that change, are one transaction. What the world outside is to be told, like an
//! e-mail, is sent from that database afterwards, under the number of the invoice, so that it can be
//! recognized when it is sent a second time.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

use futures::StreamExt;
use reconverge::automerge::{ChangeHash, PatchAction, Prop};
use reconverge::native::{Changed, Repo};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// The invoices by their numbers: the key of the order.
const INVOICES: TableDefinition<'_, u64, &str> = TableDefinition::new("invoices");

/// By the document's url: the heads up to which all is done, one after the other.
const CURSORS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cursors");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [relay, url, folder] = arguments.as_slice() else {
        return Err("usage: worker RELAY DOCUMENT FOLDER".into());
    };
    let folder = Path::new(folder);
    let database = Database::create(folder.join("invoices.redb"))?;
    let file = folder.join("documents.redb");
    let repo = Repo::builder().relay(relay).file(file).build().await?;
    let orders = repo.find(url).await?;
    let mut changes = orders.follow(&cursor(&database, url)?);
    let stop = tokio::signal::ctrl_c();
    let work = async {
        while let Some(change) = changes.next().await {
            for (number, order) in invoice(&database, url, &*change?)? {
                println!("{number} {order}");
            }
        }
        Ok::<_, Box<dyn Error>>(())
    };
    tokio::select! {
        worked = work => worked?,
        stopped = stop => stopped?,
    }
    repo.shutdown().await?;
    Ok(())
}

/// Where to go on.
fn cursor(database: &Database, url: &str) -> Result<Vec<ChangeHash>, Box<dyn Error>> {
    let begun = database.begin_write()?;
    begun.open_table(CURSORS)?;
    begun.commit()?;
    let cursors = database.begin_read()?.open_table(CURSORS)?;
    let Some(heads) = cursors.get(url)? else {
        return Ok(Vec::new());
    };
    let heads = heads.value().chunks(size_of::<ChangeHash>());
    let heads = heads.map(|bytes| Ok(ChangeHash(bytes.try_into()?)));
    heads.collect()
}

/// Writes invoices for the orders that are new, and the cursor, in one transaction.
fn invoice(
    database: &Database,
    url: &str,
    change: &Changed,
) -> Result<Vec<(u64, String)>, Box<dyn Error>> {
    let begun = database.begin_write()?;
    let mut written = Vec::new();
    {
        let mut invoices = begun.open_table(INVOICES)?;
        let last = invoices.last()?.map_or(0, |(number, _)| number.value());
        for (number, order) in (last + 1..).zip(orders(change)) {
            invoices.insert(number, order.as_str())?;
            written.push((number, order));
        }
        let heads: Vec<u8> = change.after.iter().flat_map(|head| head.0).collect();
        begun.open_table(CURSORS)?.insert(url, heads.as_slice())?;
    }
    begun.commit()?;
    Ok(written)
}

/// The keys of the orders that a change brings: those of the map `orders`. What is edited in an order
/// later lies deeper.
fn orders(change: &Changed) -> BTreeSet<String> {
    let orders = change.patches.iter().filter_map(|patch| {
        let is_one = matches!(&*patch.path, [(_, Prop::Map(key))] if key == "orders");
        match &patch.action {
            PatchAction::PutMap { key, .. } if is_one => Some(key.clone()),
            _ => None,
        }
    });
    orders.collect()
}
