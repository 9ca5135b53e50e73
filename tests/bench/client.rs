//! The native client: what an edit, a remote edit and an acknowledgement cost in documents of
//! several sizes, what they take of memory, how long opening takes, and how long it is from
//! `change` to `saved`.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use automerge::sync::BloomFilter;
use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, ChangeHash, ObjId, ROOT, ReadDoc};
use reconverge::engine;
use reconverge::id::{ConnectionId, DocumentId};
use reconverge::leb::push_unsigned;
use reconverge::native::{CACHE_BYTES_DEFAULT, RedbStorage, Repo};
use reconverge::protocol::{SyncMessage, Version, encode_sync};
use reconverge::replica::{ChangeOptions, Replica};
use reconverge::storage::{Batch, MemoryStorage, Storage};
use reconverge_tests::Random;
use reconverge_tests::light::Fault;
use reconverge_tests::process::Relay;
use reconverge_tests::trace::{self, Trace};
use reconverge_tests::typist::TEXT;

use crate::Setting;
use crate::report::{Report, Row, ms};

const RELAY: ConnectionId = ConnectionId(0);

pub(crate) async fn run(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    let rounds = setting.scaled(200);
    memory(setting, report);
    let small = Trace::load(trace::PAPER).replay(10);
    costs("10", &small.saved, rounds, setting, report);
    let medium = Trace::load(trace::FRIENDS).replay(usize::MAX);
    costs("26,078", &medium.saved, rounds, setting, report);
    if !setting.small_only {
        let large = trace::paper();
        costs("259,778", &large.saved, rounds, setting, report);
    }
    let relay = setting.start_relay();
    until_saved(&relay, rounds, report).await;
    released(&relay, setting, report).await;
    Ok(())
}

fn text_of(document: &Automerge) -> ObjId {
    let (_, text) = document.get(ROOT, TEXT).unwrap().expect("a text");
    text
}

/// The middle of what was measured, and what only one in a hundred exceeds.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e3;
    format!("{:.3} / {:.3} ms", at(50), at(99))
}

fn costs(changes: &str, saved: &[u8], rounds: usize, setting: &Setting, report: &mut Report) {
    let mut random = Random::new(setting.seed);
    let mut actor = || ActorId::from(random.bytes().to_vec());
    let id = DocumentId::new(&[1; 16]).unwrap();
    let storage = Arc::new(MemoryStorage::new("bench"));
    let started = Instant::now();
    let mut replica = Replica::import(saved, actor()).unwrap();
    let imported = started.elapsed();
    let key = storage.new_key();
    store(&mut replica, &*storage, id, key);
    drop(replica);
    let started = Instant::now();
    let _ = std::hint::black_box(
        engine::load(&*storage, &id, engine::Reading::History, actor()).unwrap(),
    );
    let without_contents = started.elapsed();
    let stored = storage.load(&id).unwrap().unwrap();
    let snapshot = storage
        .blob(key, reconverge::storage::Blob::Snapshot(1))
        .unwrap();
    let started = Instant::now();
    let mut replica = Replica::open(stored, Some(snapshot), actor()).unwrap();
    replica.build().unwrap();
    let opened = started.elapsed();
    let bare = Instant::now();
    let mut other = Automerge::load(saved).unwrap().with_actor(actor());
    let bare = bare.elapsed();
    let mut row = |what: &str, rate: String, latency: String| {
        report.row(Row {
            what: format!("client, {changes} changes: {what}"),
            rate,
            latency,
            ..Row::default()
        });
    };
    row("import", format!("{} ms", ms(imported)), String::new());
    let opening = format!(
        "{} ms; Automerge alone {} ms; without contents {} ms",
        ms(opened),
        ms(bare),
        ms(without_contents)
    );
    row("open", opening, String::new());

    let text = text_of(&replica.document().unwrap());
    let middle = replica.document().unwrap().length(&text) / 2;
    replica.join(RELAY);
    let heads = replica.heads();
    replica.greet(RELAY, &heads).unwrap();
    let acknowledge = |replica: &mut Replica| {
        let heads = replica.heads();
        let message = encode_sync(
            Version::V1,
            &heads,
            &[],
            Some((&heads, &BloomFilter::default())),
            0,
        );
        let started = Instant::now();
        let message = SyncMessage::decode(&message).unwrap();
        replica.receive(RELAY, &message).unwrap();
        started.elapsed()
    };
    acknowledge(&mut replica);
    let (mut edits, mut entries, mut acks, mut remote) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let started = Instant::now();
        let edit = |tx: &mut automerge::transaction::Transaction<'_>| {
            tx.splice_text(&text, middle + round, 0, "x")
        };
        replica.change(ChangeOptions::default(), edit).unwrap();
        edits.push(started.elapsed());
        let started = Instant::now();
        replica.enter_own().unwrap();
        let writes = replica.take_unsaved();
        assert!(writes.is_some());
        replica.committed();
        assert!(replica.poll_send(RELAY).is_some());
        entries.push(started.elapsed());
        acks.push(acknowledge(&mut replica));
    }
    // Whoever types at the same time makes the engine read the graph once.
    let started = Instant::now();
    let graph = engine::load_graph(&*storage, key, replica.record().segments).unwrap();
    replica.load_graph(&graph).unwrap();
    row(
        "reading its graph",
        format!("{} ms", ms(started.elapsed())),
        String::new(),
    );
    for round in 0..rounds {
        let message = typed(&mut other, &text, middle + round);
        let started = Instant::now();
        let message = SyncMessage::decode(&message).unwrap();
        let received = replica.receive(RELAY, &message).unwrap();
        assert!(replica.settle().unwrap());
        remote.push(started.elapsed());
        assert_eq!(received.admitted, 1);
        let _ = replica.take_unsaved();
        replica.committed();
        let _ = replica.poll_send(RELAY);
    }
    row("keystroke, in the document", String::new(), summary(edits));
    row(
        "keystroke, to be stored and sent",
        String::new(),
        summary(entries),
    );
    row("acknowledgement", String::new(), summary(acks));
    row("remote keystroke", String::new(), summary(remote));
    let (mut diffs, mut observed, mut observed_remote) = (vec![], vec![], vec![]);
    for round in 0..rounds {
        let before = replica.heads();
        if round == 0 {
            replica.observe(true);
        }
        let started = Instant::now();
        let edit = |tx: &mut automerge::transaction::Transaction<'_>| {
            tx.splice_text(&text, middle, 0, "x")
        };
        replica.change(ChangeOptions::default(), edit).unwrap();
        assert_eq!(replica.take_patches().list.len(), 1);
        observed.push(started.elapsed());
        replica.enter_own().unwrap();
        let message = typed(&mut other, &text, middle + rounds + round);
        let started = Instant::now();
        let message = SyncMessage::decode(&message).unwrap();
        replica.receive(RELAY, &message).unwrap();
        assert!(replica.settle().unwrap());
        assert_eq!(replica.take_patches().list.len(), 1);
        observed_remote.push(started.elapsed());
        let _ = replica.take_unsaved();
        replica.committed();
        let _ = replica.poll_send(RELAY);
        if round < 20 {
            let heads = replica.heads();
            let started = Instant::now();
            assert!(!replica.document().unwrap().diff(&before, &heads).is_empty());
            diffs.push(started.elapsed());
        }
    }
    replica.observe(false);
    row("keystroke and its patch", String::new(), summary(observed));
    row(
        "remote keystroke and its patch",
        String::new(),
        summary(observed_remote),
    );
    row("patches of both by a diff", String::new(), summary(diffs));
    let messages: Vec<_> = (0..100)
        .map(|n| typed(&mut other, &text, middle + 2 * rounds + n))
        .collect();
    let started = Instant::now();
    for message in &messages {
        let message = SyncMessage::decode(message).unwrap();
        replica.receive(RELAY, &message).unwrap();
    }
    replica.settle().unwrap();
    let together = started.elapsed();
    row(
        "100 remote keystrokes at once",
        format!("{} ms", ms(together)),
        String::new(),
    );
}

/// The first argument of a process that opens copies of a document and says what one takes.
pub(crate) const OPEN_COPIES: &str = "open-copies";

/// What an open document takes of memory: how much more of a process that does nothing else is
/// resident after several copies were opened, by the kernel's count.
fn memory(setting: &Setting, report: &mut Report) {
    let mut random = Random::new(setting.seed);
    let mut sizes = vec![
        ("10", Trace::load(trace::PAPER).replay(10), 2000),
        ("26,078", Trace::load(trace::FRIENDS).replay(usize::MAX), 16),
    ];
    if !setting.small_only {
        sizes.push(("259,778", trace::paper(), 4));
    }
    for (changes, replayed, copies) in sizes {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.redb");
        let storage = RedbStorage::open(&file, CACHE_BYTES_DEFAULT, "bench").unwrap();
        let actor = ActorId::from(random.bytes().to_vec());
        let mut replica = Replica::import(&replayed.saved, actor).unwrap();
        store(&mut replica, &storage, copied(), storage.new_key());
        drop(storage);
        let kib_of_one = |contents: bool| {
            let output = Command::new(std::env::current_exe().unwrap())
                .args([OPEN_COPIES, &copies.to_string(), &contents.to_string()])
                .arg(&file)
                .output();
            let output = String::from_utf8(output.unwrap().stdout).unwrap();
            output.trim().parse::<u64>().unwrap() / copies / 1024
        };
        let (with, without) = (kib_of_one(true), kib_of_one(false));
        report.row(Row {
            what: format!("client, {changes} changes: memory of an open document"),
            rate: format!("{with} KiB with contents, {without} without"),
            ..Row::default()
        });
    }
}

fn copied() -> DocumentId {
    DocumentId::new(&[1; 16]).unwrap()
}

/// Opens so many copies of the document in a file, and prints how many bytes more are resident.
pub(crate) fn open_copies(mut arguments: impl Iterator<Item = String>) {
    let mut argument = || arguments.next().unwrap();
    let copies: u32 = argument().parse().unwrap();
    let contents = match argument().parse().unwrap() {
        true => engine::Reading::Contents,
        false => engine::Reading::History,
    };
    let file = argument();
    let storage = RedbStorage::open(file.as_ref(), CACHE_BYTES_DEFAULT, "bench").unwrap();
    let mut random = Random::new(1);
    let mut open = |contents| {
        let actor = ActorId::from(random.bytes().to_vec());
        engine::load(&storage, &copied(), contents, actor).unwrap()
    };
    // The file's cache is warm then, and the allocator keeps little.
    let _first = open(engine::Reading::History);
    let before = resident_bytes();
    let opened: Vec<_> = (0..copies).map(|_| open(contents)).collect();
    println!("{}", resident_bytes().saturating_sub(before));
    drop(opened);
}

fn resident_bytes() -> u64 {
    let counts = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = counts.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

fn store(
    replica: &mut Replica,
    storage: &dyn Storage,
    document: DocumentId,
    key: reconverge::storage::DocumentKey,
) {
    let writes = replica.take_unsaved().unwrap();
    let batch = Batch {
        document,
        key,
        writes,
    };
    storage.commit(&[batch]).unwrap();
    replica.committed();
}

/// Somebody else types; the message in which the relay passes it on.
fn typed(other: &mut Automerge, text: &ObjId, at: usize) -> Vec<u8> {
    let mut transaction = other.transaction();
    transaction.splice_text(text, at, 0, "y").unwrap();
    let (hash, _) = transaction.commit();
    let heads: [ChangeHash; 1] = [hash.unwrap()];
    let change = other.get_change_by_hash(&heads[0]).unwrap();
    let mut message = encode_sync(
        Version::V1,
        &heads,
        &[],
        Some((&heads, &BloomFilter::default())),
        1,
    );
    push_unsigned(&mut message, change.raw_bytes().len() as u64);
    message.extend_from_slice(change.raw_bytes());
    message
}

/// What is resident when a client has many documents, and when it has let go of all of them.
async fn released(relay: &Relay, setting: &Setting, report: &mut Report) {
    let count = setting.scaled(2000);
    let folder = tempfile::tempdir().unwrap();
    let builder = Repo::builder().relay(&relay.url());
    let builder = builder.file(folder.path().join("client.redb"));
    let builder = builder.release_after(Duration::from_millis(100));
    let repo = builder.build().await.unwrap();
    let before = resident_bytes();
    let mut documents = Vec::new();
    for _ in 0..count {
        let document = repo.create().unwrap();
        for n in 0..10 {
            document.change(|tx| tx.put(ROOT, "n", n)).unwrap();
        }
        documents.push(document);
    }
    for document in &documents {
        document.when_synced().await.unwrap();
    }
    let mib = |bytes: u64| bytes.saturating_sub(before) as f64 / 1024.0 / 1024.0;
    let open = mib(resident_bytes());
    drop(documents);
    while repo.documents_in_memory() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let released = mib(resident_bytes());
    repo.shutdown().await.unwrap();
    report.row(Row {
        what: format!("client: memory of {count} documents of 10 changes"),
        rate: format!("{open:.0} MiB more open, {released:.0} released"),
        ..Row::default()
    });
}

async fn until_saved(relay: &Relay, rounds: usize, report: &mut Report) {
    for file in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut builder = Repo::builder().relay(&relay.url());
        if file {
            builder = builder.file(folder.path().join("client.redb"));
        }
        let repo = builder.build().await.unwrap();
        let document = repo.create().unwrap();
        document.when_synced().await.unwrap();
        let mut times = Vec::new();
        for round in 0..rounds as i64 {
            let started = Instant::now();
            document.change(|tx| tx.put(ROOT, "n", round)).unwrap();
            document.when_synced().await.unwrap();
            times.push(started.elapsed());
        }
        repo.shutdown().await.unwrap();
        let storage = if file { "a file" } else { "memory" };
        report.row(Row {
            what: format!("client: from change to saved, local storage in {storage}"),
            latency: summary(times),
            ..Row::default()
        });
    }
}
