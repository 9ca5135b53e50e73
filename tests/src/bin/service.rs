//! One service in a process of its own, which shares a document through a relay.
//!
//! `service RELAY [DOCUMENT]` prints the document's url, and then, whenever they change, its
//! status (`is saved`) and all that it sees (`sees orders=3 stock=5`). Each line `PART VALUE` on
//! standard input is written into the document; when that ends, so does the service.

#![allow(clippy::unwrap_used, reason = "a test program says where it broke")]

use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT, ReadDoc};
use futures::StreamExt;
use reconverge::engine::FindError;
use reconverge::native::{DocHandle, Repo};
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let relay = arguments.next().unwrap();
    let repo = Repo::builder().relay(&relay).build().await.unwrap();
    let document = match arguments.next() {
        Some(url) => find(&repo, &url).await,
        None => repo.create().unwrap(),
    };
    println!("{}", document.url());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let (mut changes, mut status) = (document.changes(), document.status());
    println!("is {}", *status.borrow_and_update());
    show(&document);
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line.unwrap() else { break };
                let (part, value) = line.split_once(' ').unwrap();
                document.change(|tx| tx.put(ROOT, part, value)).unwrap();
                show(&document);
            }
            Some(_) = changes.next() => show(&document),
            Ok(()) = status.changed() => println!("is {}", *status.borrow_and_update()),
        }
    }
    repo.shutdown().await.unwrap();
}

/// The document, as soon as the relay can be reached: on a network that loses packets, every thirtieth
/// connection is not made within its ten seconds, and until the next one is, nobody has the document.
async fn find(repo: &Repo, url: &str) -> DocHandle {
    const AGAIN: Duration = Duration::from_millis(100);
    loop {
        match repo.find(url).await {
            Err(FindError::Unavailable | FindError::Unreachable(_)) => {
                tokio::time::sleep(AGAIN).await
            }
            found => return found.unwrap(),
        }
    }
}

fn show(document: &DocHandle) {
    let seen = document.read(|doc: &Automerge| {
        let part = |key: String| {
            let (value, _) = doc.get(ROOT, &key).unwrap().unwrap();
            format!(" {key}={}", value.as_str().unwrap())
        };
        doc.keys(ROOT).map(part).collect::<String>()
    });
    println!("sees{}", seen.unwrap());
}
