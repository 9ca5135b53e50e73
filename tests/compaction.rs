//! Aim: the file stays in proportion to what lives in it. Method: as many edits as ten people make
//! in ten minutes (ten keystrokes per second each), through clients and the relay process; then the
//! file is measured as it lies there, and opened to see how much of it is alive.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use reconverge::id::DocumentId;
use reconverge::native::RedbStorage;
use reconverge_tests::light::{Client, Document};
use reconverge_tests::process::Relay;
use reconverge_tests::typist::{Typist, load};

const WRITERS: u8 = 10;
const EDITS_EACH: usize = 6_000;
const WINDOW: usize = 40;

fn id(n: u8) -> DocumentId {
    DocumentId::new(&[n + 1; 16]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ten_minutes_of_edits_the_file_is_in_proportion() {
    let mut relay = Relay::start();
    let url = relay.url();
    let writers = (0..WRITERS).map(|n| {
        let url = url.clone();
        tokio::spawn(async move {
            let (mut typist, first) = Typist::new(u64::from(n));
            let mut client = Client::connect(&url, &format!("writer-{n}")).await.unwrap();
            let at = client.open(Document::created(id(n), [first]));
            for change in typist.keystrokes(EDITS_EACH) {
                client.write(at, change);
                let far = move |client: &Client| {
                    let document = client.document(at);
                    document.written() - document.acked() < WINDOW
                };
                client.until(far).await.unwrap();
            }
            client.until_acked(at).await.unwrap();
            typist
        })
    });
    let mut typists = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        typists.push(writer.await.unwrap());
    }
    assert!(
        relay.log().contains("compacted"),
        "no document was compacted"
    );
    relay.terminate();
    let file = relay.stored_bytes();
    let path = relay.data().join("reconverge.redb");
    let live = RedbStorage::open(&path, 1 << 20, "unused")
        .unwrap()
        .live_bytes()
        .unwrap();
    println!("file {file} bytes, alive {live} bytes, {WRITERS} x {EDITS_EACH} edits");
    assert!(
        file <= 3 * live + 4 * 1024 * 1024,
        "file {file}, alive {live}"
    );

    relay.start_again();
    let mut fresh = Client::connect(&relay.url(), "fresh").await.unwrap();
    for (n, typist) in (0..WRITERS).zip(&mut typists) {
        let at = fresh.open(Document::new(id(n)).keeping());
        let contents = typist.contents();
        fresh
            .until(|client| client.document(at).is_in_step())
            .await
            .unwrap();
        assert_eq!(load(fresh.document(at).kept()).unwrap(), contents);
    }
}
