//! What peers tell each other through the relay: heads of others' storages, and presence.

use std::time::Duration;

use bytes::Bytes;
use reconverge::id::DocumentId;
use reconverge::protocol::limits::{REMOTE_HEADS_MAX, REMOTE_STORAGES_MAX};
use reconverge::protocol::{self, Ephemeral, HeadsOfStorage, Message, RemoteHeads};

use crate::attacker::{Attacker, Target, repeat, sends_all};
use crate::made::{Empty, MIB, Zeros, actor, document, request, sync, unknown};
use crate::measure::Trial;

fn heads(name: &str, document: DocumentId, storage: &str, head: &str, at: u64) -> Bytes {
    protocol::encode(&Message::RemoteHeadsChanged(RemoteHeads {
        sender: name,
        target: "",
        document: document.to_string().into(),
        heads: vec![HeadsOfStorage {
            storage,
            heads: vec![head.into()],
            timestamp_ms: at as f64,
        }],
    }))
    .into()
}

fn subscription(name: &str, add: &[&str], remove: &[&str]) -> Bytes {
    protocol::encode(&Message::RemoteSubscriptionChange {
        sender: name,
        target: "",
        add: add.to_vec(),
        remove: remove.to_vec(),
    })
    .into()
}

/// Tells of a storage whose only head is a string of this length, and other each time.
async fn gossips(target: &Target, document: DocumentId, head_bytes: usize) {
    let mut at = 1;
    while let Some(mut gossip) = Attacker::join(target, "gossip").await {
        let mut goes_on = gossip.send(request("gossip", document)).await;
        let long = "h".repeat(head_bytes);
        while goes_on {
            at += 1;
            let head = format!("{at}-{long}");
            goes_on = gossip
                .send(heads("gossip", document, "storage", &head, at))
                .await;
        }
    }
}

/// One says that a storage has heads of 512 KiB each; another one subscribed to it and reads nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn long_heads_for_who_does_not_read() {
    let Some(trial) = Trial::new("long-heads").await else {
        return;
    };
    trial
        .run(async |target| {
            let Some(mut deaf) = Attacker::join_deaf(target, "deaf").await else {
                return;
            };
            deaf.send(request("deaf", document(1))).await;
            deaf.send(subscription("deaf", &["storage"], &[])).await;
            gossips(target, document(1), 512 * 1024).await;
        })
        .await;
}

/// Tells of very many storages of hundreds of documents, with as many heads as may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn heads_of_many_storages_of_many_documents() {
    let Some(trial) = Trial::new("remembered-heads").await else {
        return;
    };
    let heads: Vec<String> = (0..REMOTE_HEADS_MAX as u64)
        .map(|n| format!("{n:050}"))
        .collect();
    let storages: Vec<String> = (0..REMOTE_STORAGES_MAX).map(|n| n.to_string()).collect();
    let gossip = |name: &str, document: DocumentId| -> Bytes {
        let heads = storages.iter().map(|storage| HeadsOfStorage {
            storage,
            heads: heads.iter().map(|head| head.as_str().into()).collect(),
            timestamp_ms: 1.0,
        });
        protocol::encode(&Message::RemoteHeadsChanged(RemoteHeads {
            sender: name,
            target: "",
            document: document.to_string().into(),
            heads: heads.collect(),
        }))
        .into()
    };
    trial
        .run(async |target| {
            let name = "attacker-0";
            let of_one = |n| [request(name, document(n)), gossip(name, document(n))];
            sends_all(target, (0..).flat_map(of_one)).await;
        })
        .await;
}

/// The same to a document that is busy with messages that take long: what is told meanwhile waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gossip_behind_a_turn_that_lasts() {
    let Some(trial) = Trial::new("gossip-behind-a-turn").await else {
        return;
    };
    let data = Empty {
        deps: &[],
        actor: &actor(1),
        seq: 2,
        time: 0,
    };
    let change = Zeros::new(62 * MIB).after(&data.data());
    let message = sync("attacker-0", document(1), &[unknown(1)], &[&change]);
    trial
        .run(async |target| {
            let holds = repeat(
                target.clone(),
                "attacker-0".into(),
                vec![message],
                Duration::ZERO,
            );
            tokio::join!(holds, gossips(target, document(1), 512 * 1024));
        })
        .await;
}

/// Subscribes to four storages whose ids have 90 MiB each, and stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscriptions_to_huge_ids() {
    let Some(trial) = Trial::new("huge-subscriptions").await else {
        return;
    };
    let messages: Vec<Bytes> = ["a", "b", "c", "d"]
        .map(|letter| subscription("attacker-0", &[&letter.repeat(90 * MIB)], &[]))
        .into();
    trial
        .run(async |target| sends_all(target, messages).await)
        .await;
}

/// Three messages of presence whose session has an id of 20 MiB, for 50 who read nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn presence_with_huge_sessions() {
    let Some(trial) = Trial::new("huge-sessions").await else {
        return;
    };
    let session = "s".repeat(20 * MIB);
    let message = |count| -> Bytes {
        protocol::encode(&Message::Ephemeral(Ephemeral {
            sender: "attacker-0",
            target: "",
            document: document(1).to_string().into(),
            count,
            session: &session,
            data: b"x",
        }))
        .into()
    };
    let messages: Vec<Bytes> = (1..=3).map(message).collect();
    trial
        .run(async |target| {
            let mut audience = Vec::new();
            for n in 0..50 {
                let name = format!("deaf-{n}");
                let Some(mut deaf) = Attacker::join_deaf(target, &name).await else {
                    break;
                };
                deaf.send(request(&name, document(1))).await;
                audience.push(deaf);
            }
            let Some(mut attacker) = Attacker::join(target, "attacker-0").await else {
                return;
            };
            attacker.send(request("attacker-0", document(1))).await;
            for message in messages {
                if !attacker.send(message).await {
                    break;
                }
            }
            attacker.stay().await;
            drop(audience);
        })
        .await;
}

/// Small presence as fast as it goes, in a document that 50 others have open and read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_of_presence() {
    let Some(trial) = Trial::new("presence-flood").await else {
        return;
    };
    trial
        .run(async |target| {
            let mut audience = Vec::new();
            for n in 0..50 {
                let name = format!("hears-{n}");
                let Some(mut hears) = Attacker::join(target, &name).await else {
                    break;
                };
                hears.send(request(&name, document(1))).await;
                audience.push(hears);
            }
            let name = "attacker-0";
            while let Some(mut attacker) = Attacker::join(target, name).await {
                let mut goes_on = attacker.send(request(name, document(1))).await;
                let mut count = 0;
                while goes_on {
                    count += 1;
                    let presence = protocol::encode(&Message::Ephemeral(Ephemeral {
                        sender: name,
                        target: "",
                        document: document(1).to_string().into(),
                        count,
                        session: "s",
                        data: b"x",
                    }));
                    goes_on = attacker.feed(presence).await;
                }
            }
            drop(audience);
        })
        .await;
}

/// Speaks of that many documents, so that each has a mailbox that knows it.
async fn opens(attacker: &mut Attacker, name: &str, documents: u32) -> bool {
    for n in 0..documents {
        if !attacker.feed(request(name, document(n))).await {
            return false;
        }
    }
    attacker.flush().await
}

/// 13,500 subscriptions that change, on a connection that speaks of 20,000 documents: each change is
/// told to each document.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscriptions_that_change_over_many_documents() {
    let Some(trial) = Trial::new("changing-subscriptions").await else {
        return;
    };
    trial
        .run(async |target| {
            let Some(mut attacker) = Attacker::join(target, "attacker-0").await else {
                return;
            };
            opens(&mut attacker, "attacker-0", 20_000).await;
            for n in 1..=13_500 {
                let (add, remove) = (format!("s{n}"), format!("s{}", n - 1));
                if !attacker
                    .feed(subscription("attacker-0", &[&add], &[&remove]))
                    .await
                {
                    break;
                }
            }
            attacker.flush().await;
            attacker.stay().await;
        })
        .await;
}

/// One message subscribes to 1,024 storages, on a connection that speaks of 20,000 documents: each
/// document is told all their ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_subscriptions_over_many_documents() {
    let Some(trial) = Trial::new("many-subscriptions").await else {
        return;
    };
    trial
        .run(async |target| {
            let Some(mut attacker) = Attacker::join(target, "attacker-0").await else {
                return;
            };
            opens(&mut attacker, "attacker-0", 20_000).await;
            // The ids are those of a stock client in length.
            let ids: Vec<String> = (0..1024).map(|n| format!("{n:0>36}")).collect();
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            attacker.send(subscription("attacker-0", &ids, &[])).await;
            attacker.stay().await;
        })
        .await;
}
