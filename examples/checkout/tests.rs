//! Aim: two services and a page agree on one order, through an outage too.
//! Method: all are in this process; the page writes plain Automerge, as one in JavaScript does.

use std::time::Duration;

use reconverge::automerge::transaction::Transactable;
use reconverge::automerge::{Automerge, ROOT, ReadDoc};
use reconverge::native::testing::TestRelay;
use reconverge::native::{DocHandle, Repo, Status};
use reconverge::typed;

use super::services::{self, Due, Order, Reserved, due, keep, reserved};

async fn client(relay: &TestRelay) -> Repo {
    Repo::builder().relay(&relay.url()).build().await.unwrap()
}

fn put(page: &DocHandle, thing: &str, count: i64) {
    let put = page.change(|tx| {
        let (_, items) = tx.get(ROOT, "items")?.expect("it was there from the start");
        tx.put(&items, thing, count)
    });
    put.unwrap();
}

/// What the page shows is due.
fn shown(page: &DocHandle) -> i64 {
    let due = page.read(|doc: &Automerge| doc.get(ROOT, "due_cents").unwrap().unwrap().0.as_i64());
    due.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn two_services_and_a_page_agree() {
    let relay = TestRelay::new();
    let stock = client(&relay).await;
    let payment = client(&relay).await;
    let browser = client(&relay).await;
    let in_stock = stock.create_with(services::begin).unwrap();
    in_stock.when_synced().await.unwrap();
    let in_payment = payment.find(&in_stock.url()).await.unwrap();
    let page = browser.find(&in_stock.url()).await.unwrap();
    let using = async {
        put(&page, "lamp", 3);
        until_due(&page, 6000).await;

        // While they are apart, each goes on with what it has.
        relay.cut();
        put(&page, "lamp", 2);
        put(&page, "bulb", 12);
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert_eq!(*page.status().borrow(), Status::Offline);
        assert_eq!(shown(&page), 6000);
        relay.restore();
        until_due(&page, 28_000).await;

        page.change(|tx| tx.put(ROOT, "confirmed", true)).unwrap();
        page.when_synced().await.unwrap();
    };
    let (kept_stock, kept_payment, ()) =
        tokio::join!(keep(&in_stock, reserved), keep(&in_payment, due), using);
    kept_stock.unwrap();
    kept_payment.unwrap();

    // What the relay has on its disk is what all of them have.
    let kept = relay.document(&page.url()).unwrap();
    let order: Order = typed::read(&kept, &ROOT).unwrap();
    assert_eq!(order.items["lamp"], 2);
    assert!(order.confirmed);
    assert_eq!(typed::read::<Due>(&kept, &ROOT).unwrap(), due(&order));
    let part: Reserved = typed::read(&kept, &ROOT).unwrap();
    assert_eq!(part, reserved(&order));
    assert_eq!(part.reserved["bulb"], 10);
    for repo in [stock, payment, browser] {
        repo.shutdown().await.unwrap();
    }
}

async fn until_due(page: &DocHandle, cents: i64) {
    use futures::StreamExt;
    let mut changes = page.changes();
    while shown(page) != cents {
        changes.next().await.unwrap();
    }
}
