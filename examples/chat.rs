//! A chat in the terminal: one document, a list of messages.
//!
//! ```sh
//! cargo run --release -p reconverge-examples --bin chat -- ws://127.0.0.1:3030 ann
//! cargo run --release -p reconverge-examples --bin chat -- ws://127.0.0.1:3030 bob automerge:...
//! ```
//!
//! Lines that are typed while the relay is away are sent when it is back. At the end the chat waits
//! for it no longer than [`PATIENCE`], because it keeps nothing itself.

use std::collections::HashSet;
use std::error::Error;
use std::time::Duration;

use automerge::transaction::{Transactable, Transaction};
use automerge::{Automerge, AutomergeError, ObjType, ROOT, ReadDoc, Value};
use futures::StreamExt;
use reconverge::native::{DocHandle, Repo};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

/// How long the end waits for the relay.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(relay), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: chat RELAY NAME [DOCUMENT]".into());
    };
    let repo = Repo::builder().relay(&relay).build().await?;
    let chat = match arguments.next() {
        Some(url) => repo.find(&url).await?,
        None => repo.create_with(|tx| tx.put_object(ROOT, "messages", ObjType::List))?,
    };
    println!("{}", chat.url());
    let mut shown = HashSet::new();
    show_new(&chat, &mut shown)?;

    let mut typed = BufReader::new(stdin()).lines();
    let mut changes = chat.changes();
    let mut status = chat.status();
    loop {
        tokio::select! {
            line = typed.next_line() => match line? {
                Some(text) => chat.change(|tx| say(tx, &name, &text))?,
                None => break,
            },
            Some(_) = changes.next() => show_new(&chat, &mut shown)?,
            Ok(()) = status.changed() => eprintln!("[{}]", *status.borrow_and_update()),
        }
    }
    // Nothing that was said is lost when the terminal closes, if the relay takes it in time.
    let synced = tokio::time::timeout(PATIENCE, chat.when_synced()).await;
    synced.map_err(|_| "the relay is away: what was said last is lost")??;
    show_new(&chat, &mut shown)?;
    repo.shutdown().await?;
    Ok(())
}

fn say(tx: &mut Transaction<'_>, name: &str, text: &str) -> Result<(), AutomergeError> {
    let Some((_, messages)) = tx.get(ROOT, "messages")? else {
        return Ok(());
    };
    let end = tx.length(&messages);
    let message = tx.insert_object(&messages, end, ObjType::Map)?;
    // Strings are texts, as automerge-repo's JavaScript makes them.
    for (key, value) in [("from", name), ("text", text)] {
        let field = tx.put_object(&message, key, ObjType::Text)?;
        tx.splice_text(&field, 0, 0, value)?;
    }
    Ok(())
}

/// Prints the messages that were not printed yet; others' may have come in between.
fn show_new(chat: &DocHandle, shown: &mut HashSet<String>) -> Result<(), Box<dyn Error>> {
    let lines = chat.read(|doc| -> Result<Vec<String>, AutomergeError> {
        let Some((_, messages)) = doc.get(ROOT, "messages")? else {
            return Ok(Vec::new());
        };
        let mut lines = Vec::new();
        for at in 0..doc.length(&messages) {
            if let Some((_, message)) = doc.get(&messages, at)?
                && shown.insert(message.to_string())
            {
                let (from, text) = (field(doc, &message, "from"), field(doc, &message, "text"));
                lines.push(format!("{from}: {text}"));
            }
        }
        Ok(lines)
    })??;
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

fn field(doc: &Automerge, message: &automerge::ObjId, key: &str) -> String {
    match doc.get(message, key) {
        Ok(Some((Value::Object(ObjType::Text), text))) => doc.text(&text).unwrap_or_default(),
        _ => String::new(),
    }
}
