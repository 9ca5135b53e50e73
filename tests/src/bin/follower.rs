//! A worker that follows a document and does something for each thing that is written into it, until
//! it is killed.
//!
//! `follower RELAY DOCUMENT FOLDER` appends a line to `FOLDER/effects` for each item: the heads after
//! it, and the keys that were set. It begins after the last line that is whole. For each key that
//! begins with `n` it sets one in the document itself.

#![allow(clippy::unwrap_used, reason = "a test program says where it broke")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use automerge::transaction::Transactable;
use automerge::{ChangeHash, PatchAction, ROOT};
use futures::StreamExt;
use reconverge::native::Repo;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let relay = arguments.next().unwrap();
    let url = arguments.next().unwrap();
    let folder = arguments.next().unwrap();
    let folder = Path::new(&folder);
    let builder = Repo::builder()
        .relay(&relay)
        .file(folder.join("worker.redb"));
    let repo = builder.build().await.unwrap();
    let document = repo.find(&url).await.unwrap();
    let path = folder.join("effects");
    let done = std::fs::read_to_string(&path).unwrap_or_default();
    let whole = done.rfind('\n').map_or(0, |end| end + 1);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let mut file = file.unwrap();
    file.set_len(whole as u64).unwrap();
    let last = done[..whole].lines().last().unwrap_or_default();
    let heads = last.split(' ').next().unwrap_or_default().split(',');
    let cursor: Vec<ChangeHash> = heads
        .filter(|head| !head.is_empty())
        .map(|head| head.parse().unwrap())
        .collect();
    let mut changes = document.follow(&cursor);
    while let Some(change) = changes.next().await {
        let change = change.unwrap();
        let set = change
            .patches
            .iter()
            .filter_map(|patch| match &patch.action {
                PatchAction::PutMap { key, .. } => Some(key.clone()),
                _ => None,
            });
        let set: Vec<String> = set.collect();
        let heads: Vec<String> = change.after.iter().map(ToString::to_string).collect();
        file.write_all(format!("{} {}\n", heads.join(","), set.join(",")).as_bytes())
            .unwrap();
        for key in set.iter().filter(|key| key.starts_with('n')) {
            let own = format!("done {}", &key[1..]);
            document.change(|tx| tx.put(ROOT, own, 1)).unwrap();
        }
    }
}
