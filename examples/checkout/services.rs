//! The parts of an order, and who keeps them.

use std::collections::BTreeMap;
use std::error::Error;

use futures::StreamExt;
use reconverge::automerge::ROOT;
use reconverge::automerge::transaction::Transaction;
use reconverge::native::DocHandle;
use reconverge::typed::{self, TypedError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the page writes: how many of each thing, and whether that is all.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
pub(crate) struct Order {
    pub(crate) items: BTreeMap<String, i64>,
    pub(crate) confirmed: bool,
}

/// What stock writes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
pub(crate) struct Reserved {
    pub(crate) reserved: BTreeMap<String, i64>,
}

/// What payment writes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
pub(crate) struct Due {
    pub(crate) due_cents: i64,
}

/// An order that nothing is in, with all its parts: so that two who begin to write do not make a part
/// twice.
pub(crate) fn begin(tx: &mut Transaction<'_>) -> Result<(), TypedError> {
    typed::write(tx, &ROOT, &Order::default())?;
    typed::write(tx, &ROOT, &Reserved::default())?;
    typed::write(tx, &ROOT, &Due::default())
}

/// Stock has ten of everything.
pub(crate) fn reserved(order: &Order) -> Reserved {
    let items = order.items.iter();
    let reserved = items.map(|(thing, count)| (thing.clone(), (*count).clamp(0, 10)));
    Reserved {
        reserved: reserved.collect(),
    }
}

/// Everything costs twenty.
pub(crate) fn due(order: &Order) -> Due {
    Due {
        due_cents: 2000 * order.items.values().sum::<i64>(),
    }
}

/// Keeps a part as it follows from the order, until the order is confirmed and a relay has all of it.
pub(crate) async fn keep<T: DeserializeOwned + Serialize>(
    document: &DocHandle,
    follows: fn(&Order) -> T,
) -> Result<(), Box<dyn Error>> {
    let mut changes = document.changes();
    loop {
        let order: Order = document.get()?;
        // What is as it was makes no change, so this ends.
        document.update(|part: &mut T| *part = follows(&order))?;
        if order.confirmed {
            return Ok(document.when_synced().await?);
        }
        changes.next().await.ok_or("the order is gone")?;
    }
}
