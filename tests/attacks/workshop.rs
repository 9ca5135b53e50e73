//! The workshop: a queue in which everybody's uploads stand.

use automerge::AutoCommit;
use reconverge_tests::forge::{chunk, values};

use crate::attacker::Attacker;
use crate::made::{document, sync, unknown};
use crate::measure::Trial;

/// 256 document chunks of some bytes, each with one change of four million operations.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_that_are_dear_to_unpack() {
    let Some(trial) = Trial::new("dear-uploads").await else {
        return;
    };
    let (head, saved) = saved(4_000_000);
    println!("each chunk has {} bytes", saved.len());
    trial
        .run(async |target| {
            let Some(mut attacker) = Attacker::join(target, "attacker-0").await else {
                return;
            };
            for n in 0..256 {
                let message = sync("attacker-0", document(n), &[head], &[&saved]);
                if !attacker.send(message).await {
                    break;
                }
            }
            attacker.stay().await;
        })
        .await;
}

/// A document of one change with so many operations, as one chunk.
fn saved(operations: u64) -> (automerge::ChangeHash, Vec<u8>) {
    let change = chunk(1, &values(7, operations));
    let mut document = AutoCommit::load(&change).unwrap();
    let head = document.get_heads()[0];
    (head, document.save())
}

/// Changes of a hundred bytes and half a million operations each: each document is compacted at
/// once, in the workshop in which others' uploads are unpacked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_that_are_dear_to_compact() {
    let Some(trial) = Trial::new("dear-compactions").await else {
        return;
    };
    let change = chunk(1, &values(7, 500_000));
    trial
        .run(async |target| {
            let Some(mut attacker) = Attacker::join(target, "attacker-0").await else {
                return;
            };
            for n in 0..256 {
                let message = sync("attacker-0", document(n), &[unknown(1)], &[&change]);
                if !attacker.send(message).await {
                    break;
                }
            }
            attacker.stay().await;
        })
        .await;
}
