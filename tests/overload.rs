//! Aim: a peer that does not read costs the relay a bounded amount, and misses nothing.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use reconverge::id::DocumentId;
use reconverge_tests::light::{Change, Client, Document};
use reconverge_tests::process::Relay;

/// How many readers are slow.
const SLOW: u64 = 20;

const EDITS: u32 = 2_000;
/// Large enough that the sockets' own buffers do not hold them all.
const EDIT_BYTES: usize = 16 * 1024;

fn change(doc: &mut AutoCommit, n: u32) -> Change {
    // Bytes that do not compress, so that what is sent is as large as it looks.
    let mut word = u64::from(n) << 1 | 1;
    let value = (0..EDIT_BYTES).map(|_| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word as u8
    });
    doc.put(ROOT, "value", value.collect::<Vec<u8>>()).unwrap();
    doc.commit();
    let change = doc.get_last_local_change().unwrap();
    Change {
        hash: change.hash(),
        bytes: change.raw_bytes().to_vec().into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_catches_up_without_loss() {
    let relay = Relay::start();
    let id = DocumentId::new(&[5; 16]).unwrap();
    let mut doc = AutoCommit::new();
    let mut writer = Client::connect(&relay.url(), "writer").await.unwrap();
    let at = writer.open(Document::created(id, [change(&mut doc, 0)]));
    writer.until_acked(at).await.unwrap();

    let mut quick = Client::connect(&relay.url(), "quick").await.unwrap();
    let mut slow = Vec::new();
    for n in 0..SLOW {
        slow.push(
            Client::connect(&relay.url(), &format!("slow-{n}"))
                .await
                .unwrap(),
        );
    }
    for reader in slow.iter_mut().chain([&mut quick]) {
        reader.open(Document::new(id).keeping());
        reader
            .until(|client| client.document(0).is_in_step())
            .await
            .unwrap();
    }
    let before = relay.usage().resident_bytes;

    // From here on, the slow readers read nothing until everything is written.
    let mut most = 0;
    for n in 1..=EDITS {
        writer.write(at, change(&mut doc, n));
        writer.until_acked(at).await.unwrap();
        if n % 100 == 0 {
            most = most.max(relay.usage().resident_bytes);
        }
    }
    let heads = writer.document(at).heads().to_vec();
    quick
        .until(|client| client.document(0).heads() == heads)
        .await
        .unwrap();
    let missed = SLOW * u64::from(EDITS) * EDIT_BYTES as u64;
    let grown = most.saturating_sub(before);
    println!("{missed} bytes missed by slow readers, the relay grew by {grown}");
    assert!(grown < missed / 2, "the relay grew by {grown} bytes");

    for reader in &mut slow {
        reader
            .until(|client| client.document(0).heads() == heads)
            .await
            .unwrap();
        let mut found = AutoCommit::load(reader.document(0).kept()).unwrap();
        assert_eq!(found.get_heads(), doc.get_heads());
        let messages = reader.traffic.messages_in;
        assert!(
            messages < u64::from(EDITS) / 2,
            "{messages} messages: nothing was coalesced"
        );
    }
}
