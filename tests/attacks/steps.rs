//! Messages that make the relay walk far: their cost grows faster than they do.

use std::time::Duration;

use automerge::ChangeHash;
use automerge::sync::BloomFilter;
use bytes::Bytes;
use reconverge::id::DocumentId;
use reconverge::protocol::{Flags, Version, encode_sync};
use reconverge_tests::socket::sync_bytes;
use reconverge_tests::world::sync_message;

use crate::attacker::{Attacker, Target, repeat, sends_all};
use crate::made::{
    Empty, actor, chain, deflate, document, flagged, request, sync, unknown, upload,
};
use crate::measure::Trial;
use reconverge_tests::forge::chunk_of_hash;

/// A document of two chains that do not know each other. The heads of both, and all changes.
struct Branches {
    first: ChangeHash,
    second: ChangeHash,
}

async fn branches(target: &Target, document: DocumentId, changes: usize) -> Branches {
    let first = chain(&[], &actor(1), changes / 2);
    let second = chain(&[], &actor(2), changes - changes / 2);
    let heads = Branches {
        first: first.last().unwrap().0,
        second: second.last().unwrap().0,
    };
    upload(target, document, &[first, second].concat()).await;
    heads
}

const LARGE: usize = 200_000;

const READ_ONLY: Flags = Flags {
    sync_reset: false,
    read_only: true,
    supports_sync_reset: true,
};
const RESET: Flags = Flags {
    sync_reset: true,
    read_only: true,
    supports_sync_reset: true,
};

/// Three connections, each with a document of 200,000 changes in two branches. A peer that takes no
/// changes claims to have nothing, then names the tip of the second branch, then that of the first:
/// each change of the first is noted before all those of the second. Then it names both tips, of which
/// everything is above what it is known to have, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tips_named_again_and_again_over_long_histories() {
    let Some(trial) = Trial::new("tips-again").await else {
        return;
    };
    let mut documents = Vec::new();
    for n in 0..3 {
        documents.push(branches(&trial.prepare(), document(n), LARGE).await);
    }
    trial
        .run(async |target| {
            target
                .by(3, |target, name| {
                    let n = u32::from(name.as_bytes()[9] - b'0');
                    let Branches { first, second } = documents[n as usize];
                    names_tips(target, name, document(n), [first, second])
                })
                .await;
        })
        .await;
}

async fn names_tips(target: Target, name: String, document: DocumentId, tips: [ChangeHash; 2]) {
    let says = |heads: &[ChangeHash], flags| flagged(&name, document, heads, flags);
    while let Some(mut attacker) = Attacker::join(&target, &name).await {
        let mut messages = vec![says(&[], READ_ONLY)];
        // What it lacks is computed anew so often at most.
        for _ in 0..4 {
            messages.extend([
                says(&[], READ_ONLY),
                says(&tips[1..], READ_ONLY),
                says(&tips[..1], READ_ONLY),
            ]);
            messages.extend((0..6).map(|n| says(&tips[n % 2..][..1], READ_ONLY)));
            messages.push(says(&[], RESET));
        }
        for message in messages {
            if !attacker.send(message).await {
                break;
            }
        }
        // They are all under way: when the relay answers a ping is not known here, so wait a bit.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Four connections leave a chain of 4,096 changes whose beginning is unknown, and name its tip 1,900
/// times in each of four messages a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deep_chains_of_orphans_named_often() {
    let Some(trial) = Trial::new("deep-orphans").await else {
        return;
    };
    trial
        .run(async |target| {
            target
                .by(4, |target, name| async move {
                    let n = u32::from(name.as_bytes()[9]);
                    let orphans = chain(&[unknown(1)], &actor(u64::from(n)), 4096);
                    let tip = orphans.last().unwrap().0;
                    let chunks: Vec<&[u8]> = orphans.iter().map(|(_, bytes)| &bytes[..]).collect();
                    let named = sync(&name, document(n), &[tip; 1900], &[]);
                    // In small messages: large ones are looked at apart from the threads that serve
                    // sockets, and so is all that waits behind them.
                    let sent = chunks.chunks(256);
                    let sent: Vec<_> = sent
                        .map(|chunks| sync(&name, document(n), &[tip], chunks))
                        .collect();
                    while let Some(mut attacker) = Attacker::join(&target, &name).await {
                        let mut goes_on = true;
                        for message in &sent {
                            goes_on &= attacker.send(message.clone()).await;
                        }
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        while goes_on {
                            goes_on = attacker.send(named.clone()).await;
                            tokio::time::sleep(Duration::from_millis(250)).await;
                        }
                    }
                })
                .await;
        })
        .await;
}

/// A change of this author, its first.
fn first_of(author: u64, deps: &[ChangeHash]) -> Empty<'_> {
    static ACTORS: std::sync::OnceLock<Vec<[u8; 16]>> = std::sync::OnceLock::new();
    let actors = ACTORS.get_or_init(|| (0..16 * 1024).map(actor).collect());
    Empty {
        deps,
        actor: &actors[author as usize],
        seq: 1,
        time: 0,
    }
}

/// A message with one change that has these dependencies, deflated.
fn depends(author: u64, deps: &[ChangeHash]) -> Bytes {
    let data = first_of(author, deps).data();
    let change = chunk_of_hash(2, &deflate(&data), 1, &data);
    sync("attacker-0", document(1), &[unknown(1)], &[&change])
}

/// A document has 8,000 heads; each of 31 changes depends on one of them 16,384 times, which deflates
/// to nearly nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn equal_dependencies_of_a_document_with_many_heads() {
    let Some(trial) = Trial::new("equal-dependencies").await else {
        return;
    };
    let mut heads: Vec<_> = (0..8_000).map(|n| first_of(n, &[]).chunk()).collect();
    upload(&trial.prepare(), document(1), &heads).await;
    heads.sort_unstable_by_key(|(hash, _)| *hash);
    let deps = vec![heads[7_999].0; 16_384];
    let messages: Vec<Bytes> = (0..31).map(|n| depends(10_000 + n, &deps)).collect();
    trial
        .run(async |target| sends_all(target, messages).await)
        .await;
}

/// A document has 1,000 authors; each of 31 changes depends on the newest change as often as a change
/// may depend on anything. What each author did before it is gone through for each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "54 MiB more than before, a minute later"]
async fn equal_dependencies_of_a_document_with_many_authors() {
    let Some(trial) = Trial::new("dependencies-by-authors").await else {
        return;
    };
    let heads: Vec<_> = (0..1_000).map(|n| first_of(n, &[]).chunk()).collect();
    upload(&trial.prepare(), document(1), &heads).await;
    // Its author's is the last that fits, and changes that came last are remembered.
    let (newest, first) = first_of(9_999, &[heads[0].0]).chunk();
    let mut messages = vec![sync("attacker-0", document(1), &[newest], &[&first])];
    let deps = vec![newest; reconverge::history::CHANGE_DEPS_MAX];
    messages.extend((0..31).map(|n| depends(10_000 + n, &deps)));
    trial
        .run(async |target| sends_all(target, messages).await)
        .await;
}

/// Who says in turn that it takes no changes and that it does makes the relay compute what it lacks of
/// 200,000 changes, each time in a hundred bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn flags_that_alternate_over_a_long_history() {
    let Some(trial) = Trial::new("alternating-flags").await else {
        return;
    };
    let Branches { first, .. } = branches(&trial.prepare(), document(1), LARGE).await;
    let flags = |read_only, sync_reset| Flags {
        sync_reset,
        read_only,
        supports_sync_reset: true,
    };
    trial
        .run(async |target| {
            target
                .by(2, |target, name| {
                    let says = |flags| flagged(&name, document(1), &[first], flags);
                    let messages = vec![
                        says(flags(true, false)),
                        says(flags(false, false)),
                        says(flags(true, true)),
                    ];
                    repeat(target, name, messages, Duration::ZERO)
                })
                .await;
        })
        .await;
}

/// A filter whose bits are all set seems to contain everything. So what its sender lacks is never
/// known for sure, and each answer to a head that is unknown carries a filter over 200,000 changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn filters_that_contain_everything() {
    let Some(trial) = Trial::new("full-filters").await else {
        return;
    };
    branches(&trial.prepare(), document(1), LARGE).await;
    trial
        .run(async |target| {
            target.by(2, claims_everything).await;
        })
        .await;
}

async fn claims_everything(target: Target, name: String) {
    // One entry of 8 bits, 7 probes.
    let filter = BloomFilter::try_from(&[1, 8, 7, 0xff][..]).expect("a filter");
    let mut number = u64::from(name.as_bytes()[9]) << 32;
    while let Some(mut attacker) = Attacker::join(&target, &name).await {
        loop {
            number += 1;
            let heads = [unknown(number)];
            let mut message = encode_sync(Version::V1, &heads, &[], Some((&[], &filter)), 0);
            message.extend(Flags::default().encode());
            if !attacker
                .send(sync_bytes(&name, document(1), &message))
                .await
            {
                break;
            }
        }
    }
}

/// Changes that it has are asked for by name, 65,536 in one message: every other one, from the last to
/// the first, so that each is a range of its own and comes before all that were there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn long_lists_of_needs() {
    let Some(trial) = Trial::new("long-needs").await else {
        return;
    };
    let changes = chain(&[], &actor(1), 2 * reconverge::protocol::NEED_MAX);
    upload(&trial.prepare(), document(1), &changes).await;
    let tip = changes.last().unwrap().0;
    let needs: Vec<ChangeHash> = changes
        .iter()
        .rev()
        .step_by(2)
        .map(|(hash, _)| *hash)
        .collect();
    let data = sync_message(&[tip], &needs, &[]);
    trial
        .run(async |target| {
            target
                .by(4, |target, name| {
                    let message: Bytes = sync_bytes(&name, document(1), &data).into();
                    comes_anew(target, name, message)
                })
                .await;
        })
        .await;
}

async fn comes_anew(target: Target, name: String, message: Bytes) {
    let asks = request(&name, document(1));
    while let Some(mut attacker) = Attacker::join(&target, &name).await {
        // Once to be known, and once more each for what counts once.
        let all = [
            asks.clone(),
            message.clone(),
            message.clone(),
            message.clone(),
        ];
        for message in all {
            if !attacker.send(message).await {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
