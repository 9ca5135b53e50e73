//! The workshop: a queue in which everybody's uploads stand.

use automerge::AutoCommit;
use automerge::transaction::CommitOptions;
use reconverge_tests::forge::{chunk, values};

use crate::attacker::{sends_all, sends_all_as};
use crate::made::{document, sync, unknown};
use crate::measure::{MEMORY_MIB, Trial};

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
            let upload = |n| sync("attacker-0", document(n), &[head], &[&saved]);
            sends_all(target, (0..256).map(upload)).await;
        })
        .await;
}

/// A result of the workshop has a quarter of the memory at most.
const RESULT_BYTES_MAX: u64 = MEMORY_MIB * 1024 * 1024 / 4;

/// A document of one change with so many operations, as one chunk.
fn saved(operations: u64) -> (automerge::ChangeHash, Vec<u8>) {
    let change = chunk(1, &values(7, operations));
    let mut document = AutoCommit::load(&change).unwrap();
    let head = document.get_heads()[0];
    (head, document.save())
}

/// Document chunks of some hundred bytes, each with very many changes without operations: they unpack
/// to a graph of some 40 bytes for each. That is what such a document is, and services make some like
/// it; what is bounded is one of them, and how many are unpacked, which takes seconds. The peers are
/// gone by then, and most often none is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_of_very_many_changes() {
    let Some(trial) = Trial::new("uploaded-graphs").await else {
        return;
    };
    let mut made = AutoCommit::new().with_actor(automerge::ActorId::from([7; 16]));
    for time in 0..1_000_000 {
        made.empty_change(CommitOptions::default().with_time(time));
    }
    let (head, saved) = (made.get_heads()[0], made.save());
    println!("each chunk has {} bytes", saved.len());
    drop(made);
    trial
        .stores(4 * RESULT_BYTES_MAX)
        .run(async |target| {
            let attack = async |name: &str, first: u32| {
                let upload = |n| sync(name, document(n), &[head], &[&saved]);
                sends_all_as(target, name, (first..first + 64).map(upload)).await;
            };
            tokio::join!(attack("attacker-0", 0), attack("attacker-1", 1_000));
        })
        .await;
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
            let sends = |n| sync("attacker-0", document(n), &[unknown(1)], &[&change]);
            sends_all(target, (0..256).map(sends)).await;
        })
        .await;
}
