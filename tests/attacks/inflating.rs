//! Little that becomes much: changes that deflate a thousand to one.

use std::time::Duration;

use bytes::Bytes;
use reconverge_tests::forge::chunk;

use crate::attacker::{Attacker, repeat, sends_all};
use crate::made::{Empty, MIB, Zeros, actor, document, sync, unknown};
use crate::measure::Trial;

/// What a change inflates to here: below what one change may have.
const INFLATED_BYTES: usize = 62 * MIB;

/// A change of 62 MiB in 62 KiB, which is valid, and says nothing: what comes after its columns is
/// kept and has no meaning.
fn empty_change(zeros: &Zeros, number: u64) -> Vec<u8> {
    let data = Empty {
        deps: &[],
        actor: &actor(number),
        seq: 1,
        time: 0,
    };
    zeros.after(&data.data())
}

/// One message of 2.4 MiB is 40 changes of 62 MiB each, which wait in memory until all of them are
/// stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn empty_changes_that_inflate_in_one_message() {
    let Some(trial) = Trial::new("empty-changes-inflate").await else {
        return;
    };
    let zeros = Zeros::new(INFLATED_BYTES);
    let changes: Vec<Vec<u8>> = (0..40).map(|n| empty_change(&zeros, n)).collect();
    let chunks: Vec<&[u8]> = changes.iter().map(Vec::as_slice).collect();
    let message = sync("attacker-0", document(1), &[unknown(1)], &chunks);
    let trial = trial.killed();
    trial
        .run(async |target| {
            sends_all(target, [message]).await;
        })
        .await;
}

/// A change of 62 MiB on a connection of its own, every 150 ms: who comes anew has used nothing yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_that_inflate_each_on_a_new_connection() {
    let Some(trial) = Trial::new("fresh-connections").await else {
        return;
    };
    let zeros = Zeros::new(INFLATED_BYTES);
    let change = empty_change(&zeros, 1);
    trial
        .run(async |target| {
            let mut stay = Vec::new();
            for n in 0.. {
                let name = format!("attacker-{n}");
                let Some(mut attacker) = Attacker::join(target, &name).await else {
                    break;
                };
                let message = sync(&name, document(n), &[unknown(1)], &[&change]);
                attacker.send(message).await;
                stay.push(attacker);
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        })
        .await;
}

/// One change of 16 MiB whose dependency is unknown, in 16 KiB, sent to each of 150 documents: each
/// keeps as much as one document may.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn orphans_that_inflate_in_many_documents() {
    let Some(trial) = Trial::new("orphans-inflate").await else {
        return;
    };
    let data = Empty {
        deps: &[unknown(7)],
        actor: &actor(1),
        seq: 2,
        time: 0,
    };
    let orphan = Zeros::new(16 * MIB - 4096).after(&data.data());
    trial
        .killed()
        .run(async |target| {
            let message = |n| sync("attacker-0", document(n), &[unknown(1)], &[&orphan]);
            sends_all(target, (0..150).map(message)).await;
        })
        .await;
}

/// The author of each of 20 changes has an id of 62 MiB, and its first change is its second: it is
/// refused, and both the log and the memory of refused changes say by whom it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn huge_actor_ids_that_inflate() {
    let Some(trial) = Trial::new("huge-actors").await else {
        return;
    };
    let zeros = Zeros::new(INFLATED_BYTES);
    let message = |number: u64| {
        // No dependencies; then the id's length, and it ends in the zeros.
        let mut start = vec![0];
        let id = number.to_be_bytes();
        reconverge::leb::push_unsigned(&mut start, (id.len() + INFLATED_BYTES) as u64);
        start.extend(id);
        // Its second change; its first operation; time, message, other actors and columns.
        let end = [2, 1, 0, 0, 0, 0];
        let change = zeros.within(&start, &end);
        sync("attacker-0", document(1), &[unknown(1)], &[&change])
    };
    let messages: Vec<Bytes> = (0..20).map(message).collect();
    trial
        .run(async |target| sends_all(target, messages).await)
        .await;
}

/// Four connections send the same change of 62 MiB again and again, in 63 KiB: below what is looked
/// at apart from the threads that serve sockets. It skips a change of its author, so nothing of it is
/// kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn small_messages_that_are_dear_to_inflate() {
    let Some(trial) = Trial::new("small-but-dear").await else {
        return;
    };
    let data = Empty {
        deps: &[],
        actor: &actor(1),
        seq: 2,
        time: 0,
    };
    let change = Zeros::new(INFLATED_BYTES).after(&data.data());
    trial
        .run(async |target| {
            target
                .by(4, |target, name| {
                    let number = 10 + u32::from(name.as_bytes()[9]);
                    let message = sync(&name, document(number), &[unknown(1)], &[&change]);
                    repeat(target, name, vec![message], Duration::ZERO)
                })
                .await;
        })
        .await;
}

/// 34 documents get one change of 62 MiB each, of 62 KiB on the wire: a thousand times as much is on
/// disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_that_inflate_on_disk() {
    let Some(trial) = Trial::new("inflate-on-disk").await else {
        return;
    };
    let zeros = Zeros::new(INFLATED_BYTES);
    let change = empty_change(&zeros, 1);
    trial
        .killed()
        .run(async |target| {
            let message = |n| sync("attacker-0", document(n), &[unknown(1)], &[&change]);
            sends_all(target, (0..34).map(message)).await;
        })
        .await;
}

/// A chunk of one byte is no chunk. A message of 8 MiB has four million of them, and each is refused
/// with a reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn millions_of_chunks_that_are_none() {
    let Some(trial) = Trial::new("millions-of-chunks").await else {
        return;
    };
    let chunks: Vec<&[u8]> = vec![b"x"; reconverge::protocol::CHUNKS_MAX];
    trial
        .run(async |target| {
            target
                .by(2, |target, name| {
                    let message = sync(&name, document(1), &[unknown(1)], &chunks);
                    repeat(target, name, vec![message], Duration::ZERO)
                })
                .await;
        })
        .await;
}

/// Changes of a hundred bytes that have sixteen million operations each, as runs of equal ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn few_bytes_of_many_operations() {
    let Some(trial) = Trial::new("many-operations").await else {
        return;
    };
    let change = chunk(
        1,
        &reconverge_tests::forge::values(7, reconverge::history::CHANGE_OPS_MAX),
    );
    trial
        .run(async |target| {
            let message = |n| sync("attacker-0", document(n), &[unknown(1)], &[&change]);
            sends_all(target, (0..32).map(message)).await;
        })
        .await;
}
