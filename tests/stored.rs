//! Aim: files of all versions open, and nothing that is damaged is ever passed on.
//!
//! Method: files that earlier versions made (`tests/data/stored`), new, folded and with quarantined
//! changes, of a relay and of a client, are read whole. A relay on a damaged file names the damage once,
//! serves everything else, and sends nobody what is not whole. Damage at random is in `damage.rs`.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ChangeHash, ROOT};
use futures::StreamExt;
use reconverge::id::DocumentId;
use reconverge::native::{DocHandle, RedbStorage, Repo};
use reconverge::storage::Storage;
use reconverge_tests::light::{Change, Client, Document};
use reconverge_tests::process::Relay;
use reconverge_tests::stored::{documents, stored, versions};
use reconverge_tests::typist::Typist;
use reconverge_tests::{Random, forge};
use redb::ReadableTable;

const CACHE_BYTES: usize = 1 << 20;

/// Writes the files of this version, into the folder that `RECONVERGE_STORED` names. To be run
/// before the format changes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes the files that the others read"]
async fn write_the_files_of_this_version() {
    let to = PathBuf::from(std::env::var("RECONVERGE_STORED").unwrap());
    let version = std::env::var("RECONVERGE_STORED_VERSION").unwrap();
    let mut random = Random::new(12);
    let mut lines = String::new();
    let mut relay = Relay::start_with(&["--verify-lag-s", "1"]);
    let mut editor = Client::connect(&relay.url(), "editor").await.unwrap();
    let mut note = |name: &str, id: &DocumentId, heads: &[ChangeHash]| {
        let heads = heads.iter().map(|head| format!(" {head}"));
        lines += &format!("{name} {id}{}\n", heads.collect::<String>());
    };
    for (name, keystrokes) in [("new", 20), ("folded", 700)] {
        let (mut typist, first) = Typist::new(random.number());
        let id = random.document_id();
        let at = editor.open(Document::created(id, [first]));
        for some in typist.keystrokes(keystrokes).chunks(70) {
            editor.write_all(at, some.to_vec());
            editor.until_acked(at).await.unwrap();
        }
        if name == "folded" {
            until_logged(&relay, &["compacted"]);
            editor.write_all(at, typist.keystrokes(30));
            editor.until_acked(at).await.unwrap();
        }
        note(name, &id, editor.document(at).heads());
    }
    let (first, unsound, honest) = forge::unsound([7; 16]);
    let id = random.document_id();
    let at = editor.open(Document::created(id, first.iter().map(Change::from)));
    editor.until_acked(at).await.unwrap();
    editor.write_all(at, [&unsound, &honest].map(Change::from));
    editor.until_acked(at).await.unwrap();
    until_logged(&relay, &["change taken out"]);
    note("quarantined", &id, &[honest.hash()]);

    let file = tempfile::tempdir().unwrap();
    let file = file.path().join("client.redb");
    let repo = Repo::builder()
        .relay(&relay.url())
        .file(&file)
        .build()
        .await
        .unwrap();
    for name in ["acknowledged", "outbox"] {
        let document = repo.create().unwrap();
        for n in 0..20 {
            document.change(|tx| tx.put(ROOT, "n", n)).unwrap();
        }
        if name == "acknowledged" {
            document.when_synced().await.unwrap();
            relay.kill();
        }
        let heads = document.read(automerge::Automerge::get_heads).unwrap();
        note(name, &document.url().parse().unwrap(), &heads);
    }
    repo.shutdown().await.unwrap();
    relay.start_again();
    assert!(relay.terminate().is_some_and(|status| status.success()));
    std::fs::create_dir_all(&to).unwrap();
    let pack = |file: &Path, of: &str| {
        let packed = std::fs::File::create(to.join(format!("{of}-{version}.redb.gz"))).unwrap();
        let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::best());
        packed.write_all(&std::fs::read(file).unwrap()).unwrap();
        packed.finish().unwrap();
    };
    pack(&relay.data().join("reconverge.redb"), "relay");
    pack(&file, "client");
    std::fs::write(to.join(format!("documents-{version}.txt")), lines).unwrap();
}

fn until_logged(relay: &Relay, any: &[&str]) {
    let since = std::time::Instant::now();
    while !any.iter().any(|words| relay.log().contains(words)) {
        assert!(since.elapsed().as_secs() < 60, "{}", relay.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a relay on these bytes.
fn relay_on(bytes: &[u8]) -> Relay {
    let mut relay = Relay::start();
    relay.kill();
    std::fs::write(relay.data().join("reconverge.redb"), bytes).unwrap();
    relay.start_again();
    relay
}

async fn fetched(relay: &Relay, id: DocumentId) -> AutoCommit {
    let mut fresh = Client::connect(&relay.url(), "fresh").await.unwrap();
    let at = fresh.open(Document::new(id).keeping());
    let done = |client: &Client| client.document(at).is_in_step();
    fresh.until(done).await.unwrap();
    AutoCommit::load(fresh.document(at).kept()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_every_version_open() {
    for version in versions() {
        let documents = documents(version);
        let relay = relay_on(&stored(version, "relay"));
        // An old one is written to as well, and opened again.
        for round in 0..2 {
            for name in ["new", "folded", "quarantined"] {
                let (id, heads) = &documents[name];
                let mut document = fetched(&relay, *id).await;
                if round == 0 {
                    assert_eq!(document.get_heads(), *heads, "{name} of version {version}");
                }
                document.put(ROOT, "round", round).unwrap();
                let edit = Change::from(&document.get_last_local_change().unwrap());
                let mut editor = Client::connect(&relay.url(), "editor").await.unwrap();
                let at = editor.open(Document::resumed(*id, document.get_heads()));
                editor.write(at, edit);
                editor.until_acked(at).await.unwrap();
            }
        }
        assert!(!relay.log().contains("ERROR"), "{}", relay.log());

        let file = tempfile::tempdir().unwrap();
        let file = file.path().join("client.redb");
        std::fs::write(&file, stored(version, "client")).unwrap();
        let repo = Repo::builder()
            .relay(&relay.url())
            .file(&file)
            .build()
            .await
            .unwrap();
        for name in ["acknowledged", "outbox"] {
            let (id, heads) = &documents[name];
            let document = repo.find(&format!("automerge:{id}")).await.unwrap();
            assert_eq!(
                document.read(automerge::Automerge::get_heads).unwrap(),
                *heads
            );
            document.when_synced().await.unwrap();
        }
        repo.shutdown().await.unwrap();
    }
}

/// The values of a document of which one is damaged, by table and kind of blob.
const PARTS: [(&str, u8); 8] = [
    ("records", 0),
    ("rows", 0),
    ("blobs", 1),
    ("blobs", 2),
    ("blobs", 3),
    ("first row", 0),
    ("last row", 0),
    ("a row", 0),
];

/// Changes one bit in values of every document, as redb itself would store them.
fn damage_values(file: &Path, table: &str, kind: u8) -> usize {
    let database = redb::Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut changed = 0;
    let flipped = |value: &[u8]| {
        let mut value = value.to_vec();
        let at = value.len() * 3 / 4;
        value[at] ^= 4;
        value
    };
    if table == "records" {
        let mut records = transaction
            .open_table(redb::TableDefinition::<u64, &[u8]>::new(table))
            .unwrap();
        let all: Vec<_> = records
            .iter()
            .unwrap()
            .map(|entry| entry.unwrap().0.value())
            .collect();
        for key in all {
            let value = flipped(records.get(key).unwrap().unwrap().value());
            records.insert(key, value.as_slice()).unwrap();
            changed += 1;
        }
    } else if table.ends_with("row") || table == "rows" {
        let definition = redb::TableDefinition::<(u64, u32, u32), &[u8]>::new("rows");
        let mut rows = transaction.open_table(definition).unwrap();
        let all: Vec<_> = rows
            .iter()
            .unwrap()
            .map(|entry| entry.unwrap().0.value())
            .collect();
        let all = match table {
            "first row" => all[..1].to_vec(),
            "last row" => all[all.len() - 1..].to_vec(),
            "a row" => all[all.len() - 4..all.len() - 3].to_vec(),
            _ => all,
        };
        for key in all {
            let value = flipped(rows.get(key).unwrap().unwrap().value());
            rows.insert(key, value.as_slice()).unwrap();
            changed += 1;
        }
    } else {
        let definition = redb::TableDefinition::<(u64, u8, u32, u32), &[u8]>::new("blobs");
        let mut blobs = transaction.open_table(definition).unwrap();
        let all: Vec<_> = blobs
            .iter()
            .unwrap()
            .map(|entry| entry.unwrap().0.value())
            .collect();
        for key in all.into_iter().filter(|key| key.1 == kind) {
            let value = flipped(blobs.get(key).unwrap().unwrap().value());
            blobs.insert(key, value.as_slice()).unwrap();
            changed += 1;
        }
    }
    transaction.commit().unwrap();
    changed
}

async fn client(relay: &Relay, file: &Path) -> Repo {
    Repo::builder()
        .relay(&relay.url())
        .file(file)
        .build()
        .await
        .unwrap()
}

/// A document of a hundred changes that is large enough to be folded, as a relay has it.
async fn large_document(repo: &Repo) -> DocHandle {
    let document = repo.create().unwrap();
    let mut random = Random::new(5);
    for n in 0..100 {
        let noise = random.noise(1024);
        document
            .change(|tx| tx.put(ROOT, format!("{}", n % 7), noise))
            .unwrap();
    }
    document.when_synced().await.unwrap();
    document
}

/// Ten more changes, each when the relay has the one before.
async fn write_tail(document: &DocHandle) {
    for n in 0..10 {
        document.change(|tx| tx.put(ROOT, "tail", n)).unwrap();
        document.when_synced().await.unwrap();
    }
}

/// Aim: of a damaged document, what is whole is served, nothing else is, and a client that has the
/// rest heals the relay. Method: a bit of one part is changed; a fresh client comes before and after
/// the one that has the document.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_a_damaged_document_heals_the_relay() {
    for (table, kind) in PARTS {
        println!("{table} {kind}");
        let mut relay = Relay::start();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ann.redb");
        let repo = client(&relay, &file).await;
        let document = large_document(&repo).await;
        // As a document chunk, which becomes the snapshot, or one by one, which are folded into one.
        until_logged(&relay, &["uploaded", "compacted"]);
        write_tail(&document).await;
        let id: DocumentId = document.url().parse().unwrap();
        let heads = document.read(automerge::Automerge::get_heads).unwrap();
        let has: HashSet<ChangeHash> = {
            let saved = document.read(automerge::Automerge::save).unwrap();
            let all = AutoCommit::load(&saved).unwrap().get_changes(&[]);
            all.iter().map(automerge::Change::hash).collect()
        };
        repo.shutdown().await.unwrap();
        relay.kill();
        assert!(damage_values(&relay.data().join("reconverge.redb"), table, kind) > 0);
        relay.start_again();

        let mut fresh = Client::connect(&relay.url(), "before").await.unwrap();
        let at = fresh.open(Document::new(id).keeping());
        let answered = |client: &Client| {
            let document = client.document(at);
            document.is_unavailable() || !document.heads().is_empty()
        };
        fresh.until(answered).await.unwrap();
        let before = fresh.document(at).kept();
        if !before.is_empty() {
            let mut before = AutoCommit::load(before).unwrap();
            assert!(before.get_missing_deps(&[]).is_empty());
            let changes = before.get_changes(&[]);
            assert!(changes.iter().all(|change| has.contains(&change.hash())));
        }

        let repo = client(&relay, &file).await;
        let document = repo.find(&format!("automerge:{id}")).await.unwrap();
        document.change(|tx| tx.put(ROOT, "healed", true)).unwrap();
        document.when_synced().await.unwrap();
        let after = document.read(automerge::Automerge::get_heads).unwrap();
        assert_ne!(after, heads);
        for round in 0..2 {
            let mut whole = fetched(&relay, id).await;
            assert_eq!(whole.get_heads(), after, "{table} {kind}, round {round}");
            assert_eq!(whole.get_changes(&[]).len(), has.len() + 1);
            relay.kill();
            relay.start_again();
        }
        repo.shutdown().await.unwrap();
        let log = std::fs::read_to_string(relay.log_path()).unwrap();
        let named = log.matches("stored bytes are not what was written").count();
        // Rows that a snapshot covers, too, are not read for those who lack all of it.
        assert!(
            named == 1 || table == "first row" || kind == 3,
            "named {named} times in {log}"
        );
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Aim: what only the check reads and finds damaged is begun anew as well. Method: a bit of the
/// snapshot is changed, and an edit comes from a client that needs nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_meets_damage_has_the_document_begun_anew() {
    let mut relay = Relay::start_with(&["--verify-lag-s", "1"]);
    let mut editor = Client::connect(&relay.url(), "editor").await.unwrap();
    let mut random = Random::new(9);
    let (mut typist, first) = Typist::new(random.number());
    let id = random.document_id();
    let at = editor.open(Document::created(id, [first]));
    for some in typist.keystrokes(700).chunks(70) {
        editor.write_all(at, some.to_vec());
        editor.until_acked(at).await.unwrap();
    }
    until_logged(&relay, &["compacted"]);
    // Behind the new snapshot.
    editor.write_all(at, typist.keystrokes(1));
    editor.until_acked(at).await.unwrap();
    let heads = editor.document(at).heads().to_vec();
    relay.kill();
    assert!(damage_values(&relay.data().join("reconverge.redb"), "blobs", 1) > 0);
    relay.start_again();

    let mut editor = Client::connect(&relay.url(), "editor").await.unwrap();
    let at = editor.open(Document::resumed(id, heads));
    editor.write_all(at, typist.keystrokes(1));
    editor.until_acked(at).await.unwrap();
    until_logged(&relay, &["what is whole is served"]);
    let log = std::fs::read_to_string(relay.log_path()).unwrap();
    let named = log.matches("stored bytes are not what was written").count();
    assert_eq!(named, 1, "{log}");
    assert!(!log.contains("could not be checked"), "{log}");
}

/// Aim: who asks for a document of which nothing is whole is told so, though there seemed to be
/// something when it asked. Method: a bit of a snapshot that has all of it is changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_meets_damage_is_answered() {
    let mut relay = Relay::start();
    let mut random = Random::new(5);
    let id = random.document_id();
    let (mut typist, first) = Typist::new(random.number());
    let head = typist
        .keystrokes(50)
        .last()
        .map_or(first.hash, |change| change.hash);
    // All of it is uploaded at once, and stored as one snapshot.
    let mut owner = Client::connect(&relay.url(), "owner").await.unwrap();
    let whole = Change {
        bytes: typist.save().into(),
        hash: head,
    };
    let at = owner.open(Document::created(id, [whole]));
    owner.until_acked(at).await.unwrap();
    assert!(relay.log().contains("uploaded"), "{}", relay.log());
    relay.kill();
    assert!(damage_values(&relay.data().join("reconverge.redb"), "blobs", 1) > 0);
    relay.start_again();

    let mut fresh = Client::connect(&relay.url(), "fresh").await.unwrap();
    let at = fresh.open(Document::new(id));
    let is_told = |client: &Client| client.document(at).is_unavailable();
    fresh.until(is_told).await.unwrap();
}

/// Aim: a client whose own file is damaged goes on with what is whole and asks relays for the rest;
/// what it had not sent yet is not lost with what it depends on. Method: a bit of one part of its
/// file is changed, and it opens the document twice: the second time, all is here that the unsent
/// change hangs on.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_file_is_damaged_is_healed_by_a_relay() {
    for (table, kind) in PARTS {
        println!("{table} {kind}");
        let relay = Relay::start();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ann.redb");
        let repo = client(&relay, &file).await;
        let document = large_document(&repo).await;
        let url = document.url();
        drop(document);
        repo.shutdown().await.unwrap();

        // Read again, it is folded, and what follows lies behind the snapshot.
        let repo = client(&relay, &file).await;
        let document = repo.find(&url).await.unwrap();
        write_tail(&document).await;
        let sent = document.read(automerge::Automerge::get_heads).unwrap();
        drop(document);
        repo.shutdown().await.unwrap();
        let alone = Repo::builder().file(&file).build().await.unwrap();
        let document = alone.find(&url).await.unwrap();
        document.change(|tx| tx.put(ROOT, "unsent", 1)).unwrap();
        let all = document.read(automerge::Automerge::get_heads).unwrap();
        drop(document);
        alone.shutdown().await.unwrap();
        assert!(damage_values(&file, table, kind) > 0);

        let mut last = Vec::new();
        for round in 0..2 {
            let repo = client(&relay, &file).await;
            let document = repo.find(&url).await.unwrap();
            let is_damaged = document.damage().is_some();
            let mut changes = document.changes();
            let arrived = async {
                loop {
                    let found = document.read(|found| found.clone()).unwrap();
                    let has = |head| found.get_change_meta_by_hash(head).is_some();
                    if sent.iter().all(has) {
                        return;
                    }
                    changes.next().await.unwrap();
                }
            };
            let in_time = tokio::time::timeout(Duration::from_secs(60), arrived).await;
            in_time.unwrap_or_else(|_| panic!("{table} {kind}, round {round}: not all came"));
            document.when_synced().await.unwrap();
            last = document.read(automerge::Automerge::get_heads).unwrap();
            println!("round {round}: damaged {is_damaged}, all {}", last == all);
            assert!(!is_damaged || round == 0, "{table} {kind} is healed");
            assert!(is_damaged || round == 1 || last == all, "{table} {kind}");
            drop(document);
            repo.shutdown().await.unwrap();
        }
        // The unsent change is in the last row.
        let is_lost = ["rows", "last row"].contains(&table);
        assert_eq!(last == all, !is_lost, "{table} {kind}");
        let id: DocumentId = url.parse().unwrap();
        let mut whole = fetched(&relay, id).await;
        assert_eq!(whole.get_heads(), last, "{table} {kind}");
    }
}

/// Aim: a file that redb cannot open is an error that says what to do.
#[test]
fn a_relay_on_a_file_that_is_none_any_more_says_what_to_do() {
    let whole = stored(versions().end - 1, "relay");
    let mut refused = 0;
    for at in [0, 16, 64, 4096, 8192] {
        let mut bytes = whole.clone();
        bytes[at..at + 64]
            .iter_mut()
            .for_each(|byte| *byte = !*byte);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("reconverge.redb");
        std::fs::write(&file, &bytes).unwrap();
        let command = std::process::Command::new(reconverge_tests::process::relay_executable())
            .args(["quarantine", "--data"])
            .arg(folder.path())
            .arg("list")
            .output()
            .unwrap();
        let words = String::from_utf8(command.stderr).unwrap();
        assert!(!words.contains("panicked"), "{words}");
        if !command.status.success() {
            refused += 1;
            assert_eq!(command.status.code(), Some(1), "{words}");
            assert!(words.contains("backup"), "{words}");
        }
    }
    assert!(refused > 1, "{refused} files were refused");
}

/// Aim: nothing is written to a file that has no name any more, or into one that is not ours.
#[test]
fn a_file_that_is_removed_or_replaced_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reconverge.redb");
    let storage = RedbStorage::open(&file, CACHE_BYTES, "ours").unwrap();
    let key = storage.new_key();
    let commit = |n: u8| {
        let document = DocumentId::new(&[n; 16]).unwrap();
        let writes = vec![reconverge::storage::Write::Outbox(true)];
        storage.commit(&[reconverge::storage::Batch {
            document,
            key,
            writes,
        }])
    };
    commit(1).unwrap();
    let away = folder.path().join("away.redb");
    std::fs::rename(&file, &away).unwrap();
    let error = commit(2).unwrap_err().to_string();
    assert!(error.contains("was removed"), "{error}");
    drop(RedbStorage::open(&file, CACHE_BYTES, "another").unwrap());
    let until = |words: &str| {
        let since = std::time::Instant::now();
        loop {
            let found = commit(3)
                .err()
                .map_or_else(String::new, |error| error.to_string());
            if found.contains(words) && (found.is_empty() == words.is_empty()) {
                return;
            }
            assert!(since.elapsed().as_secs() < 60, "{found}");
            std::thread::yield_now();
        }
    };
    until("another file was put in its place");
    std::fs::rename(&away, &file).unwrap();
    until("");
    assert_eq!(storage.outbox().unwrap().len(), 2);
}
