//! Documents and changes that are named, asked for or made in great numbers.

use automerge::ChangeHash;
use bytes::Bytes;
use reconverge_tests::socket::sync_bytes;
use reconverge_tests::world::sync_message;

use crate::attacker::{Attacker, sends_all};
use crate::made::{Empty, actor, document, request, sync, unknown};
use crate::measure::Trial;

/// As many hashes as one peer may be asked for of a document.
const ASKED: u64 = 64 * 1024;

/// In each of 100 documents, 65,536 heads are named that nobody knows. The relay asks for each and
/// remembers that it did.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn unknown_heads_in_many_documents() {
    let Some(trial) = Trial::new("unknown-heads").await else {
        return;
    };
    let heads: Vec<ChangeHash> = (0..ASKED).map(unknown).collect();
    let data = sync_message(&heads, &[], &[]);
    trial
        .run(async |target| {
            let names = |n| sync_bytes("attacker-0", document(n), &data).into();
            sends_all(target, (0..100).map(names)).await;
        })
        .await;
}

/// In each of very many documents, as many heads are named that nobody knows as one document holds
/// for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn some_unknown_heads_in_very_many_documents() {
    let Some(trial) = Trial::new("many-small-holdings").await else {
        return;
    };
    let heads: Vec<ChangeHash> = (0..24).map(unknown).collect();
    let data = sync_message(&heads, &[], &[]);
    trial
        .run(async |target| {
            target
                .by(3, |target, name| {
                    let data = data.clone();
                    async move {
                        let own = u32::from(name.as_bytes()[9] - b'0') << 20;
                        let Some(mut attacker) = Attacker::join(&target, &name).await else {
                            return;
                        };
                        for n in 0..100_000 {
                            let message = sync_bytes(&name, document(own + n), &data);
                            if !attacker.feed(message).await {
                                break;
                            }
                        }
                        attacker.stay().await;
                    }
                })
                .await;
        })
        .await;
}

/// Six peers ask for 60,000 documents each that nobody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_for_unknown_documents() {
    let Some(trial) = Trial::new("unknown-documents").await else {
        return;
    };
    trial
        .run(async |target| {
            target
                .by(6, |target, name| async move {
                    let own = u32::from(name.as_bytes()[9] - b'0') << 20;
                    while let Some(mut attacker) = Attacker::join(&target, &name).await {
                        let mut goes_on = true;
                        for n in 0..60_000 {
                            goes_on &= attacker.feed(request(&name, document(own + n))).await;
                            if !goes_on {
                                break;
                            }
                        }
                        if goes_on {
                            attacker.flush().await;
                            attacker.stay().await;
                        }
                    }
                })
                .await;
        })
        .await;
}

/// Asks for 30,000 documents that nobody has, then for one of them again and again, and reads no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_of_who_reads_no_answer() {
    let Some(trial) = Trial::new("unread-answers").await else {
        return;
    };
    trial
        .run(async |target| {
            let Some(mut deaf) = Attacker::join_deaf(target, "deaf").await else {
                return;
            };
            for n in 0.. {
                if !deaf.feed(request("deaf", document(n.min(30_000)))).await {
                    break;
                }
            }
            deaf.stay().await;
        })
        .await;
}

/// One announces changes of 20,000 documents and sends none, another one asks for these documents: the
/// answer waits for the upload.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_for_what_is_announced_and_never_comes() {
    let Some(trial) = Trial::new("announced").await else {
        return;
    };
    trial
        .run(async |target| {
            let (mut announces, mut asks) = tokio::join!(
                async { Attacker::join(target, "announces").await.unwrap() },
                async { Attacker::join(target, "asks").await.unwrap() },
            );
            for n in 0..20_000 {
                let announced = sync("announces", document(n), &[unknown(1)], &[]);
                if !announces.feed(announced).await
                    || !asks.feed(request("asks", document(n))).await
                {
                    break;
                }
            }
            tokio::join!(announces.stay(), asks.stay());
        })
        .await;
}

/// An honest importer creates small documents as fast as the relay takes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "up to 250 of 256 MiB at its peak, on a busy machine"]
async fn an_import_of_small_documents() {
    let Some(trial) = Trial::new("import").await else {
        return;
    };
    let name = "importer";
    let created = |n: u32| -> Bytes {
        let (head, change) = Empty {
            deps: &[],
            actor: &actor(u64::from(n)),
            seq: 1,
            time: 0,
        }
        .chunk();
        sync(name, document(n), &[head], &[&change])
    };
    trial
        .run(async |target| {
            let mut made = 0;
            while let Some(mut importer) = Attacker::join(target, name).await {
                // One after the other, of which the relay takes so many at a time as it can.
                while made < 4_000_000 && importer.feed(created(made)).await {
                    made += 1;
                }
            }
            target.note(format!("{made} documents were sent"));
        })
        .await;
}
