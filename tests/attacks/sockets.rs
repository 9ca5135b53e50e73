//! Below the messages: sockets, frames, pings, names and coming back.

use std::time::{Duration, Instant};

use futures::SinkExt;
use reconverge::protocol::{self, Message};
use reconverge_tests::Random;
use reconverge_tests::light::{Client, Document};
use reconverge_tests::socket::{Socket, part};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::attacker::{Attacker, Target};
use crate::honest::editor_name;
use crate::made::{MIB, actor, document, request, upload};
use crate::measure::Trial;

/// Bytes on the socket of who joined, whatever they are.
async fn writes(target: &Target, name: &str, bytes: &[u8], times: usize) -> Option<TcpStream> {
    let joining = Socket::try_join(&target.url, name, protocol::PeerMetadata::default());
    let socket = timeout_at(target.deadline, Box::pin(joining))
        .await
        .ok()?
        .ok()?;
    let mut stream = socket.into_stream().into_inner();
    for _ in 0..times {
        let written = timeout_at(target.deadline, stream.write_all(bytes)).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
        target.count(bytes.len());
    }
    Some(stream)
}

/// A frame of a client (RFC 6455, section 5.2), masked by zeros.
fn frame(opcode: u8, payload: usize, announced: usize) -> Vec<u8> {
    let mut frame = vec![opcode];
    match announced {
        0..=125 => frame.push(0x80 | announced as u8),
        126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((announced as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((announced as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.resize(frame.len() + payload, 0);
    frame
}

/// Four connections begin a message of 100 MiB each, send 64 of it and never end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_messages_left_unfinished() {
    let Some(trial) = Trial::new("unfinished").await else {
        return;
    };
    trial
        .run(async |target| {
            target
                .by(4, |target, name| async move {
                    while !target.is_over() {
                        let begun = frame(0x82, 0, 100 * MIB);
                        let Some(mut stream) = writes(&target, &name, &begun, 1).await else {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        };
                        let (some, mut sent) = (vec![0; 64 * 1024], 0);
                        while sent < 65 * MIB {
                            let written =
                                timeout_at(target.deadline, stream.write_all(&some)).await;
                            if !matches!(written, Ok(Ok(()))) {
                                break;
                            }
                            target.count(some.len());
                            sent += some.len();
                        }
                        // It stays; a byte now and then shows that it lives.
                        while !target.is_over() {
                            tokio::time::sleep(Duration::from_millis(500)).await;
                            let written = timeout_at(target.deadline, stream.write_all(&[0])).await;
                            if !matches!(written, Ok(Ok(()))) {
                                break;
                            }
                        }
                    }
                })
                .await;
        })
        .await;
}

/// Somebody joins under an editor's name, which presence shows to all, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joins_under_anothers_name() {
    let Some(trial) = Trial::new("anothers-name").await else {
        return;
    };
    trial
        .run(async |target| {
            let name = editor_name(0);
            while !target.is_over() {
                let joining =
                    Socket::try_join(&target.url, &name, protocol::PeerMetadata::default());
                let joined = timeout_at(target.deadline, Box::pin(joining)).await;
                target.count(200);
                tokio::time::sleep(Duration::from_millis(400)).await;
                drop(joined);
            }
        })
        .await;
}

/// Three connections send pings and read nothing: each is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pings_without_reading() {
    let Some(trial) = Trial::new("pings").await else {
        return;
    };
    let pings = frame(0x89, 125, 125).repeat(500);
    trial
        .run(async |target| {
            target
                .by(3, |target, name| {
                    let pings = pings.clone();
                    async move {
                        while !target.is_over() {
                            let held = writes(&target, &name, &pings, usize::MAX).await;
                            // Who was sent away comes back.
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            drop(held);
                        }
                    }
                })
                .await;
        })
        .await;
}

/// 1,100 sockets that say nothing, against a relay that may have 1,024 files open.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn idle_sockets_take_all_descriptors() {
    let Some(trial) = Trial::with("idle-sockets", &[], Some(1024)).await else {
        return;
    };
    trial
        .run(async |target| {
            let mut sockets = Vec::new();
            while !target.is_over() {
                // Those that were closed are opened again.
                sockets.retain(|socket: &TcpStream| {
                    let closed = matches!(socket.try_read(&mut [0; 1]), Ok(0));
                    !closed
                });
                while sockets.len() < 1100 {
                    let opened = TcpStream::connect(target.address());
                    match timeout_at(target.deadline, opened).await {
                        Ok(Ok(socket)) => sockets.push(socket),
                        _ => break,
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            target.note(format!("{} sockets at the end", sockets.len()));
        })
        .await;
}

/// 500 honest clients come back at the same time, each with a document; and again when they were
/// served.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_come_back_at_once() {
    let Some(trial) = Trial::new("come-back-at-once").await else {
        return;
    };
    let changes = chain_of_some();
    upload(&trial.prepare(), document(1), &changes).await;
    trial
        .run(async |target| {
            let mut took = Vec::new();
            while !target.is_over() {
                let since = Instant::now();
                let mut coming = JoinSet::new();
                for n in 0..500 {
                    let url = target.url.clone();
                    coming.spawn(async move {
                        let name = format!("back-{n}");
                        let mut client = Client::connect(&url, &name).await.unwrap();
                        client.open(Document::new(document(1)));
                        let has_it = |client: &Client| !client.document(0).heads().is_empty();
                        client.until(has_it).await.unwrap();
                        client.traffic.bytes_out
                    });
                }
                while let Some(sent) = coming.join_next().await {
                    target.count(sent.unwrap() as usize);
                }
                took.push(since.elapsed());
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            took.sort_unstable();
            let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
            target.note(format!(
                "all 500 were back after {median:.2?}, at worst {worst:.2?}"
            ));
        })
        .await;
}

fn chain_of_some() -> Vec<(automerge::ChangeHash, Vec<u8>)> {
    crate::made::chain(&[], &actor(1), 10)
}

/// A message in parts of no bytes that never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn endless_empty_frames() {
    let Some(trial) = Trial::new("empty-frames").await else {
        return;
    };
    let parts = frame(0x00, 0, 0).repeat(10_000);
    trial
        .run(async |target| {
            target
                .by(4, |target, name| {
                    let parts = parts.clone();
                    async move {
                        while !target.is_over() {
                            let joining = Socket::try_join(
                                &target.url,
                                &name,
                                protocol::PeerMetadata::default(),
                            );
                            let joined = timeout_at(target.deadline, Box::pin(joining)).await;
                            let Ok(Ok(socket)) = joined else { continue };
                            let mut stream = socket.into_stream();
                            let begun = part(b"", Data::Binary, false);
                            let _ = stream.send(begun).await;
                            let mut stream = stream.into_inner();
                            loop {
                                let written =
                                    timeout_at(target.deadline, stream.write_all(&parts)).await;
                                if !matches!(written, Ok(Ok(()))) {
                                    break;
                                }
                                target.count(parts.len());
                            }
                        }
                    }
                })
                .await;
        })
        .await;
}

/// Eight who join, say goodbye and come again, as fast as they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joins_and_leaves() {
    let Some(trial) = Trial::new("joins-and-leaves").await else {
        return;
    };
    trial
        .run(async |target| {
            target
                .by(8, |target, name| async move {
                    while let Some(mut attacker) = Attacker::join(&target, &name).await {
                        target.count(200);
                        let leave = protocol::encode(&Message::Leave { sender: &name });
                        attacker.send(leave).await;
                        attacker.stay().await;
                    }
                })
                .await;
        })
        .await;
}

/// 100 ask for a document of 50 MiB and read nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn first_contact_with_a_large_document_that_nobody_reads() {
    let Some(trial) = Trial::new("unread-first-contact").await else {
        return;
    };
    // Nothing that deflates, in changes of a MiB.
    let mut random = Random::new(1);
    let changes: Vec<_> = (0..50)
        .map(|n| {
            let mut data = crate::made::Empty {
                deps: &[],
                actor: &actor(n),
                seq: 1,
                time: 0,
            }
            .data();
            data.extend(random.noise(MIB));
            let bytes = reconverge_tests::forge::chunk(1, &data);
            (
                reconverge::history::chunk::chunk_hash(&bytes).unwrap(),
                bytes,
            )
        })
        .collect();
    upload(&trial.prepare(), document(1), &changes).await;
    trial
        .run(async |target| {
            let mut deaf = Vec::new();
            for n in 0..100 {
                let name = format!("deaf-{n}");
                let Some(mut reader) = Attacker::join_deaf(target, &name).await else {
                    break;
                };
                reader.send(request(&name, document(1))).await;
                deaf.push(reader);
            }
            target.rest().await;
        })
        .await;
}
