//! Aim: threads that use one client at a time wait for each other only where they use one document,
//! lose nothing, and never wait for themselves.

#![allow(clippy::unwrap_used, reason = "a test says where it broke")]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, PatchAction, ROOT, ReadDoc, ScalarValue};
use futures::StreamExt;
use reconverge::native::testing::TestRelay;
use reconverge::native::{ChangeError, DocHandle, Repo};
use reconverge_tests::Random;
use reconverge_tests::patience::within;
use reconverge_tests::process::Relay;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(60);

fn counted(document: &DocHandle) -> i64 {
    let read = document.read(|doc| {
        let (value, _) = doc.get(ROOT, "n").unwrap().unwrap();
        match value.into_scalar().unwrap() {
            ScalarValue::Counter(n) => i64::from(&n),
            other => panic!("{other} is no counter"),
        }
    });
    read.unwrap()
}

async fn create(repo: &Repo) -> DocHandle {
    let counter = repo.create_with(|tx| tx.put(ROOT, "n", ScalarValue::counter(0)));
    let counter = counter.unwrap();
    within(PATIENCE, "stored", counter.when_stored())
        .await
        .unwrap();
    counter
}

fn count(document: &DocHandle) {
    document.change(|tx| tx.increment(ROOT, "n", 1)).unwrap();
}

/// Runs something on a thread of its own, and fails if it does not end.
fn must_end(what: &str, work: impl FnOnce() + Send + 'static) {
    let (ended, end) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        ended.send(()).unwrap();
    });
    match end.recv_timeout(PATIENCE) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => worker.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: nothing for {PATIENCE:?}"),
    }
}

/// While `busy` has a document, which it tells by its argument, `other` works.
fn meanwhile(busy: impl FnOnce(&dyn Fn()) + Send + 'static, other: impl FnOnce() + Send + 'static) {
    let (begun, begins) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let busy = thread::spawn(move || {
        busy(&|| {
            begun.send(()).unwrap();
            goes_on.recv().unwrap();
        });
    });
    begins.recv_timeout(PATIENCE).unwrap();
    must_end("beside a document that is in use", other);
    go_on.send(()).unwrap();
    busy.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_holds_up_no_other_document() {
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let (long, other) = (create(&repo).await, create(&repo).await);
    let (edited, runtime) = (long.clone(), tokio::runtime::Handle::current());
    let busy = move |wait: &dyn Fn()| {
        let changed = edited.change(|tx| {
            wait();
            tx.increment(ROOT, "n", 1)
        });
        changed.unwrap();
    };
    let (in_repo, of_long) = (repo.clone(), long.clone());
    let beside = move || {
        assert_eq!(counted(&other), 0);
        count(&other);
        runtime.block_on(async {
            other.when_synced().await.unwrap();
            let new = create(&in_repo).await;
            in_repo.find(&new.url()).await.unwrap();
            // What needs no contents is there even of the one that is edited.
            let _ = of_long.status().borrow().clone();
            let _ = of_long.changes();
            of_long.broadcast(b"\x01");
            of_long.when_synced().await.unwrap();
        });
    };
    tokio::task::spawn_blocking(|| meanwhile(busy, beside))
        .await
        .unwrap();
    assert_eq!(counted(&long), 1);
    repo.shutdown().await.unwrap();
}

/// A document of a relay in two clients.
async fn shared(relay: &TestRelay) -> ([Repo; 2], [DocHandle; 2]) {
    let build = || Repo::builder().relay(&relay.url()).build();
    let repos = [build().await.unwrap(), build().await.unwrap()];
    let one = create(&repos[0]).await;
    within(PATIENCE, "synced", one.when_synced()).await.unwrap();
    let other = within(PATIENCE, "found", repos[1].find(&one.url()))
        .await
        .unwrap();
    (repos, [one, other])
}

/// Something came to a document that waits for those who read it.
async fn until_it_came(read: &DocHandle) {
    while futures::poll!(pin!(read.when_stored())).is_ready() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_ends_while_somebody_reads() {
    let relay = TestRelay::new();
    let ([elsewhere, here], [remote, read]) = shared(&relay).await;
    let reader = read.clone();
    let busy = move |wait: &dyn Fn()| reader.read(|_| wait()).unwrap();
    let runtime = tokio::runtime::Handle::current();
    let beside = move || {
        count(&remote);
        runtime.block_on(async {
            until_it_came(&read).await;
            let _ = here.shutdown().await;
        });
    };
    tokio::task::spawn_blocking(|| meanwhile(busy, beside))
        .await
        .unwrap();
    elsewhere.shutdown().await.unwrap();
}

/// What came is brought into the contents on another thread, and shows before anybody is told.
#[tokio::test]
async fn who_begins_to_listen_is_told_all_that_comes_next() {
    let relay = TestRelay::new();
    let (_repos, [writer, read]) = shared(&relay).await;
    // Somebody wants to hear of the document already, but not of its changes.
    let _status = read.status();
    let keys = |doc: &Automerge| doc.keys(ROOT).collect::<BTreeSet<_>>();
    let put = |key: String| writer.change(|tx| tx.put(ROOT, key, 1)).unwrap();
    for round in 0..5 {
        let before = read.heads().unwrap();
        let (begun, begins) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let reader = read.clone();
        let reader = thread::spawn(move || {
            let wait = |_: &Automerge| {
                begun.send(()).unwrap();
                goes_on.recv().unwrap();
            };
            reader.read(wait).unwrap();
        });
        begins.recv().unwrap();
        put(format!("{round} before"));
        until_it_came(&read).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        go_on.send(()).unwrap();
        reader.join().unwrap();
        // Until the next await, the client has no turn to tell it. If it is not on its way yet, this
        // round looks at nothing.
        let end = std::time::Instant::now() + Duration::from_secs(1);
        while read.heads().unwrap() == before && std::time::Instant::now() < end {
            thread::yield_now();
        }
        let mut changes = read.changes();
        put(format!("{round} after"));
        let change = within(PATIENCE, "told", changes.next()).await.unwrap();
        let mut told = keys(&read.view(&change.before).unwrap());
        for patch in &change.patches {
            match &patch.action {
                PatchAction::PutMap { key, .. } => told.insert(key.clone()),
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(told, keys(&read.view(&change.after).unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_holds_up_neither_other_readers_nor_the_rest() {
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let elsewhere = Repo::builder().relay(&relay.url()).build().await.unwrap();
    let (read, other) = (create(&repo).await, create(&repo).await);
    within(PATIENCE, "synced", read.when_synced())
        .await
        .unwrap();
    let remote = within(PATIENCE, "found", elsewhere.find(&read.url()))
        .await
        .unwrap();
    let mut changes = read.changes();
    let (reader, runtime) = (read.clone(), tokio::runtime::Handle::current());
    let busy = move |wait: &dyn Fn()| {
        let before = reader.read(|document| {
            let before = document.get_heads();
            wait();
            assert_eq!(document.get_heads(), before, "it stands still");
        });
        before.unwrap();
    };
    let (again, writer) = (read.clone(), remote.clone());
    let beside = move || {
        assert_eq!(counted(&again), 0);
        // It comes to the one that is read, too, but shows later.
        count(&writer);
        count(&other);
        runtime.block_on(async {
            writer.when_synced().await.unwrap();
            other.when_synced().await.unwrap();
        });
    };
    tokio::task::spawn_blocking(|| meanwhile(busy, beside))
        .await
        .unwrap();
    within(PATIENCE, "a change", changes.next()).await.unwrap();
    assert_eq!(counted(&read), 1);
    repo.shutdown().await.unwrap();
    elsewhere.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_only_reads_may_be_called_while_one_reads() {
    let repo = Repo::builder().build().await.unwrap();
    let (one, other) = (create(&repo).await, create(&repo).await);
    // Somebody waits to edit it, and who reads it may go on to read.
    let (in_thread, inner, beside) = (one.clone(), one.clone(), other);
    must_end("reads in a read", move || {
        let (waits, waited) = mpsc::channel();
        let writer = in_thread
            .read(|document| {
                let writer = {
                    let edited = inner.clone();
                    thread::spawn(move || {
                        waits.send(()).unwrap();
                        count(&edited);
                    })
                };
                waited.recv().unwrap();
                for _ in 0..100 {
                    assert_eq!(inner.heads().unwrap(), document.get_heads());
                    assert_eq!(counted(&inner), 0);
                    assert_eq!(counted(&beside), 0);
                    inner.history().unwrap();
                    inner.diff(&[], &document.get_heads()).unwrap();
                    inner.view(&document.get_heads()).unwrap();
                    let _ = inner.status().borrow().clone();
                    let _ = inner.changes();
                    let _ = inner.follow(&[]);
                    thread::yield_now();
                }
                writer
            })
            .unwrap();
        writer.join().unwrap();
    });
    assert_eq!(counted(&one), 1);
}

#[tokio::test]
async fn what_would_wait_for_itself_panics_and_says_why() {
    let repo = Repo::builder().build().await.unwrap();
    let (one, other) = (create(&repo).await, create(&repo).await);
    let why = |work: &dyn Fn()| {
        let panic = catch_unwind(AssertUnwindSafe(work)).unwrap_err();
        let words = panic.downcast_ref::<String>().cloned();
        words.unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).to_owned())
    };
    for inner in [&one, &other] {
        let in_read = why(&|| one.read(|_| count(inner)).unwrap());
        assert!(in_read.contains("edited within a read"), "{in_read}");
        let in_edit = why(&|| {
            one.change(|_| {
                count(inner);
                Ok::<_, ()>(())
            })
            .unwrap()
        });
        assert!(
            in_edit.contains("edited within a read or an edit"),
            "{in_edit}"
        );
        let read = why(&|| {
            one.change(|_| Ok::<_, ()>(counted(inner))).unwrap();
        });
        assert!(read.contains("read within an edit"), "{read}");
    }
    // Nothing of that happened, and nobody is locked out.
    count(&one);
    assert_eq!((counted(&one), counted(&other)), (1, 0));
}

/// What threads do at random, in documents that they share, with a second client behind a relay.
struct World {
    runtime: Runtime,
    repo: Repo,
    urls: Vec<String>,
    counts: Vec<AtomicI64>,
}

const THREADS: u64 = 6;
const DOCUMENTS: usize = 5;
const STEPS: u64 = 200;

fn play(world: &World, thread: u64, seed: u64) {
    let mut random = Random::new(seed * THREADS + thread);
    let found = |at: usize| {
        let found = within(PATIENCE, "found", world.repo.find(&world.urls[at]));
        world.runtime.block_on(found).unwrap()
    };
    let mut handles: Vec<DocHandle> = (0..DOCUMENTS).map(found).collect();
    let mut seen = [0; DOCUMENTS];
    for step in 0..STEPS {
        let at = random.below(DOCUMENTS as u64) as usize;
        let document = &handles[at];
        match random.below(12) {
            0..5 => {
                let key = format!("{thread}-{step}");
                let changed = document.change(|tx| {
                    tx.put(ROOT, key, 1)?;
                    tx.increment(ROOT, "n", 1)
                });
                changed.unwrap();
                world.counts[at].fetch_add(1, Ordering::Relaxed);
            }
            5 | 6 => {
                let other = &handles[(at + 1) % DOCUMENTS];
                let (n, keys) = document
                    .read(|doc| {
                        let _ = counted(other);
                        (counted(document), doc.length(ROOT) as i64 - 1)
                    })
                    .unwrap();
                // A change shows as a whole, and what showed stays.
                assert_eq!(n, keys, "seed {seed}");
                assert!(n >= seen[at], "seed {seed}");
                seen[at] = n;
            }
            7 => {
                let failed = document.change(|tx| {
                    tx.put(ROOT, "never", 1).unwrap();
                    Err::<(), _>("no")
                });
                assert_eq!(failed, Err(ChangeError::Edit("no")));
            }
            8 => {
                let panicked = catch_unwind(AssertUnwindSafe(|| {
                    document.change(|tx| -> Result<(), ()> {
                        tx.put(ROOT, "never", 1).unwrap();
                        std::panic::resume_unwind(Box::new("no"))
                    })
                }));
                assert!(panicked.is_err());
            }
            9 => {
                let stored = within(PATIENCE, "stored", document.when_stored());
                world.runtime.block_on(stored).unwrap();
            }
            10 => {
                // It may leave memory in between.
                drop(handles.remove(at));
                handles.insert(at, found(at));
            }
            _ => {
                let synced = within(PATIENCE, "synced", document.when_synced());
                world.runtime.block_on(synced).unwrap();
            }
        }
    }
}

/// Counts what the changes of a document tell.
async fn listen(document: DocHandle, until: i64) {
    let mut changes = document.changes();
    let mut before = None;
    while counted(&document) < until {
        let changed = changes.next().await.unwrap();
        if let Some(before) = before {
            assert_eq!(
                changed.before, before,
                "each begins where the one before ended"
            );
        }
        before = Some(changed.after.clone());
    }
}

#[test]
fn whatever_threads_do_every_edit_is_there_once() {
    for seed in [1, Random::fresh_seed() >> 8] {
        println!("seed {seed}");
        let runtime = Runtime::new().unwrap();
        let relay = Relay::start();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.redb");
        let build = || {
            let builder = Repo::builder().relay(&relay.url()).file(&file);
            builder.release_after(Duration::from_millis(20)).build()
        };
        let repo = runtime.block_on(build()).unwrap();
        let elsewhere = Repo::builder().relay(&relay.url()).build();
        let elsewhere = runtime.block_on(elsewhere).unwrap();
        let create = || {
            let document = runtime.block_on(create(&repo));
            runtime
                .block_on(within(PATIENCE, "synced", document.when_synced()))
                .unwrap();
            document.url()
        };
        let urls: Vec<_> = (0..DOCUMENTS).map(|_| create()).collect();
        let world = World {
            counts: urls.iter().map(|_| AtomicI64::new(0)).collect(),
            runtime,
            repo,
            urls,
        };
        let other = World {
            runtime: Runtime::new().unwrap(),
            repo: elsewhere,
            urls: world.urls.clone(),
            counts: world.urls.iter().map(|_| AtomicI64::new(0)).collect(),
        };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let in_world = if thread == 0 { &other } else { &world };
                scope.spawn(move || play(in_world, thread, seed));
            }
        });
        let mine = world
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let theirs = other
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let all: Vec<_> = mine
            .zip(theirs)
            .map(|(mine, theirs)| mine + theirs)
            .collect();
        let end = async |repo: &Repo| {
            for (url, all) in world.urls.iter().zip(&all) {
                let document = within(PATIENCE, "found", repo.find(url)).await.unwrap();
                within(PATIENCE, "all edits", listen(document.clone(), *all)).await;
                assert_eq!(counted(&document), *all, "seed {seed}");
                let keys: BTreeSet<_> = document.read(|doc| doc.keys(ROOT).collect()).unwrap();
                assert_eq!(keys.len() as i64, all + 1, "seed {seed}");
                assert!(!keys.contains("never"), "seed {seed}");
            }
            within(PATIENCE, "shut down", repo.shutdown())
                .await
                .unwrap();
        };
        world.runtime.block_on(end(&world.repo));
        other.runtime.block_on(end(&other.repo));
        // So it is in the file.
        world.runtime.block_on(async {
            let repo = build().await.unwrap();
            end(&repo).await;
        });
    }
}
