//! Aim: a peer that does not read costs the relay a bounded amount, and misses nothing.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use reconverge::id::DocumentId;
use reconverge_tests::light::{Change, Client, Document};
use reconverge_tests::process::Relay;

const EDITS: u32 = 2_000;
/// Large enough that the sockets' own buffers do not hold them all.
const EDIT_BYTES: usize = 16 * 1024;

fn change(doc: &mut AutoCommit, n: u32) -> Change {
    // Bytes that do not compress, so that what is sent is as large as it looks.
    let mut word = u64::from(n) | 1;
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

    let mut slow = Client::connect(&relay.url(), "slow").await.unwrap();
    let mut quick = Client::connect(&relay.url(), "quick").await.unwrap();
    for reader in [&mut slow, &mut quick] {
        reader.open(Document::new(id).keeping());
        reader
            .until(|client| client.document(0).is_in_step())
            .await
            .unwrap();
    }
    let before = relay.usage().resident_bytes;

    // From here on, the slow reader reads nothing until everything is written.
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
    let missed = u64::from(EDITS) * EDIT_BYTES as u64;
    let grown = most.saturating_sub(before);
    println!("{missed} bytes missed by the slow reader, the relay grew by {grown}");
    assert!(grown < missed, "the relay grew by {grown} bytes");

    slow.until(|client| client.document(0).heads() == heads)
        .await
        .unwrap();
    let mut found = AutoCommit::load(slow.document(0).kept()).unwrap();
    assert_eq!(found.get_heads(), doc.get_heads());
    let messages = slow.traffic.messages_in;
    println!("the slow reader got {messages} messages for {EDITS} edits");
    assert!(
        messages < u64::from(EDITS) / 2,
        "{messages} messages: nothing was coalesced"
    );
}
