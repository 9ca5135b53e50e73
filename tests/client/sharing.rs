//! Several clients have one document.

use std::time::Duration;

use automerge::transaction::{Transactable, Transaction};
use automerge::{Automerge, ChangeHash, ObjType, PatchAction, ROOT, ReadDoc};
use futures::StreamExt;
use reconverge::engine::FindError;
use reconverge::native::{CHANGES_MAX, Changed, DocHandle, Repo};
use reconverge_tests::patience::in_time;
use reconverge_tests::process::Relay;

use crate::editing::{client, get, has, put, synced};

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_write_one_document() {
    let relay = Relay::start();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let of_ann = ann.create().unwrap();
    let found = in_time("find", bob.find(&of_ann.url())).await;
    let of_bob = found.unwrap();
    for n in 0..200 {
        put(&of_ann, "ann", n);
        put(&of_bob, "bob", n);
    }
    has(&of_bob, "ann", 199).await;
    has(&of_ann, "bob", 199).await;
    synced(&of_ann).await;
    synced(&of_bob).await;
    assert_eq!(of_ann.heads().unwrap(), of_bob.heads().unwrap());

    let mut heard = of_bob.ephemeral();
    of_ann.broadcast(b"hello");
    let heard = in_time("presence", heard.next()).await.unwrap();
    assert_eq!(&*heard.data, b"hello");
    assert_eq!(&heard.sender, ann.peer_id());
    let mut changes = of_ann.changes();
    ann.shutdown().await.unwrap();
    bob.shutdown().await.unwrap();
    assert!(of_ann.change(|tx| tx.put(ROOT, "late", 1)).is_err());
    assert_eq!(get(&of_ann, "ann"), Some(199), "it can still be read");
    assert_eq!(in_time("the end", changes.next()).await, None);
    assert!(matches!(
        ann.find(&of_ann.url()).await,
        Err(FindError::Closed)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_joins_two_relays() {
    let (mut first, second) = (Relay::start(), Relay::start());
    let both = Repo::builder().relay(&first.url()).relay(&second.url());
    let both = both.build().await.unwrap();
    let (ann, bob) = (client(&first).await, client(&second).await);
    let of_ann = ann.create().unwrap();
    synced(&of_ann).await;
    let between = in_time("find", both.find(&of_ann.url())).await.unwrap();
    synced(&between).await;
    let found = async {
        loop {
            match bob.find(&of_ann.url()).await {
                Ok(found) => return found,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let of_bob = in_time("the document at the second relay", found).await;
    put(&of_ann, "ann", 1);
    has(&of_bob, "ann", 1).await;
    put(&of_bob, "bob", 2);
    has(&of_ann, "bob", 2).await;
    // With one relay away, the other is enough to be saved.
    first.kill();
    put(&between, "n", 3);
    synced(&between).await;
    has(&of_bob, "n", 3).await;
    first.start_again();
    has(&of_ann, "n", 3).await;
}

/// A text that follows patches, and knows nothing else.
#[derive(Default)]
struct Follower {
    text: String,
    heads: Vec<ChangeHash>,
    items: usize,
}

impl Follower {
    fn take(&mut self, changed: &Changed) {
        assert_eq!(changed.before, self.heads, "no gap");
        self.heads.clone_from(&changed.after);
        self.items += 1;
        for patch in &changed.patches {
            match &patch.action {
                PatchAction::SpliceText { index, value, .. } => {
                    self.text.insert_str(*index, &value.make_string());
                }
                PatchAction::DeleteSeq { index, length } => {
                    self.text.replace_range(*index..index + length, "");
                }
                action => panic!("{action:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_applies_the_patches_sees_what_the_document_shows() {
    let relay = Relay::start();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let of_ann = ann.create_with(|tx| tx.put_object(ROOT, "text", ObjType::Text));
    let of_ann = of_ann.unwrap();
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    let text = of_ann.read(|doc| doc.get(ROOT, "text").unwrap().unwrap().1);
    let text = text.unwrap();
    let shown = |document: &DocHandle| document.read(|doc| doc.text(&text).unwrap()).unwrap();
    let new = || Follower {
        heads: of_ann.heads().unwrap(),
        ..Follower::default()
    };
    let (mut awake, mut asleep) = (new(), new());
    let (mut changes, mut late) = (of_ann.changes(), of_ann.changes());
    for n in 0..3 * CHANGES_MAX {
        let type_at = |document: &DocHandle, at: usize, word: &str, deleted: isize| {
            let splice = |tx: &mut Transaction<'_>| tx.splice_text(&text, at, deleted, word);
            document.change(splice).unwrap();
        };
        let end = shown(&of_ann).len();
        type_at(&of_ann, end / 2, "abc", isize::from(end > 4));
        type_at(&of_bob, 0, "x", 0);
        if n % 3 == 0 {
            awake.take(&in_time("a change", changes.next()).await.unwrap());
        }
    }
    synced(&of_ann).await;
    synced(&of_bob).await;
    let agree = async {
        while of_ann.heads().unwrap() != of_bob.heads().unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("agreement", agree).await;
    let heads = of_ann.read(Automerge::get_heads).unwrap();
    for (follower, changes) in [(&mut awake, &mut changes), (&mut asleep, &mut late)] {
        while follower.heads != heads {
            follower.take(&in_time("a change", changes.next()).await.unwrap());
        }
        assert_eq!(follower.text, shown(&of_ann));
    }
    assert!(awake.items > asleep.items, "who is late gets it as one");
    assert_eq!(asleep.items, 1);
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Order {
    customer: String,
    items: Vec<String>,
    paid: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_edits_of_two_clients_are_merged() {
    let relay = Relay::start();
    let (ann, bob) = (client(&relay).await, client(&relay).await);
    let order = Order {
        customer: "eve".into(),
        items: vec!["lamp".into()],
        paid: false,
    };
    let of_ann = ann.create_from(&order).unwrap();
    let of_bob = in_time("find", bob.find(&of_ann.url())).await.unwrap();
    assert_eq!(of_bob.get::<Order>().unwrap(), order);
    of_ann
        .update(|order: &mut Order| order.items.push("shade".into()))
        .unwrap();
    of_bob
        .update(|order: &mut Order| order.paid = true)
        .unwrap();
    let merged = Order {
        items: vec!["lamp".into(), "shade".into()],
        paid: true,
        ..order
    };
    for document in [&of_ann, &of_bob] {
        let mut changes = document.changes();
        let seen = async {
            while document.get::<Order>().unwrap() != merged {
                changes.next().await.unwrap();
            }
        };
        in_time("the merged order", seen).await;
    }
    put(&of_ann, "items", 3);
    assert!(
        of_ann
            .update(|order: &mut Order| order.paid = false)
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_without_handles_leaves_memory_and_comes_back_as_it_is_by_then() {
    let relay = Relay::start();
    let ann = Repo::builder().relay(&relay.url());
    let ann = ann.release_after(Duration::from_millis(50)).build();
    let (ann, bob) = (ann.await.unwrap(), client(&relay).await);
    let of_ann = ann.create().unwrap();
    put(&of_ann, "n", 1);
    synced(&of_ann).await;
    let (url, changes) = (of_ann.url(), of_ann.changes());
    let of_bob = in_time("find", bob.find(&url)).await.unwrap();
    let leaves = async |count: usize| {
        while ann.documents_in_memory() != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    drop(of_ann);
    let kept = tokio::time::timeout(Duration::from_millis(300), leaves(0)).await;
    assert!(kept.is_err(), "its changes are listened to");
    drop(changes);
    in_time("released", leaves(0)).await;
    put(&of_bob, "n", 2);
    synced(&of_bob).await;
    in_time("released again", leaves(0)).await;
    let again = in_time("find", ann.find(&url)).await.unwrap();
    has(&again, "n", 2).await;
    put(&again, "n", 3);
    has(&of_bob, "n", 3).await;
    synced(&again).await;
    assert_eq!(ann.documents_in_memory(), 1);
}
