//! The relay's executable on a sample of the damaged files.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use automerge::AutoCommit;
use reconverge::id::DocumentId;
use reconverge_tests::light::{Client, Document};
use reconverge_tests::process::relay_executable;
use reconverge_tests::stored::{documents, stored, versions};

use crate::damaging::damaged;
use crate::files::files;
use crate::judging::{number, sample};

/// The changes of each document of each version's relay.
type Rightful = HashMap<(u32, DocumentId), Vec<automerge::ChangeHash>>;

/// What the relay's executable says and does on this file.
struct Running {
    child: Child,
    address: Option<String>,
    log: Arc<Mutex<String>>,
    reading: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Starts it, and waits until it serves or has ended.
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(relay_executable())
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let errors = BufReader::new(child.stderr.take().unwrap());
        let words = log.clone();
        let reading = std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                *words.lock().unwrap() += &(line + "\n");
            }
        });
        let mut first = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut first).unwrap();
        let address = first.trim().strip_prefix("listening on ");
        Self {
            child,
            address: address.map(str::to_owned),
            log,
            reading: Some(reading),
        }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Tells it to end; its exit code and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        if self.address.is_some() {
            let process = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        }
        let status = self.child.wait().unwrap();
        self.reading.take().unwrap().join().unwrap();
        (status.code(), self.log())
    }
}

/// Aim: the relay on a damaged file says which and what to do, and ends with 1; or it serves what is
/// whole, takes edits or says why not, and ends with 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_on_a_damaged_file_serves_or_says_what_to_do() {
    let files = files();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reconverge.redb");
    let mut rightful = Rightful::new();
    for version in versions() {
        std::fs::write(&path, stored(version, "relay")).unwrap();
        let relay = Running::start(folder.path());
        for (id, _) in documents(version).into_values() {
            if let Some(mut document) = fetched(&relay, id).await {
                let all = document.get_changes(&[]);
                rightful.insert(
                    (version, id),
                    all.iter().map(automerge::Change::hash).collect(),
                );
            }
        }
        relay.end();
    }
    assert!(rightful.len() >= 6);
    let (mut refused, mut whole, mut part) = (0, 0, 0);
    for seed in sample(&files, "relay of") {
        let file = &files[seed as usize % files.len()];
        let version = file.version.unwrap();
        let (bytes, done) = damaged(seed, file);
        let what = format!("RECONVERGE_DAMAGE_SEED={seed}: {}, {done}", file.name);
        std::fs::write(&path, bytes).unwrap();
        let relay = Running::start(folder.path());
        if relay.address.is_none() {
            let (code, log) = relay.end();
            assert_eq!(code, Some(1), "{what}: {log}");
            assert!(!log.contains("panicked"), "{what}: {log}");
            assert!(
                log.contains("reconverge.redb") && log.contains("backup"),
                "{what}: {log}"
            );
            refused += 1;
            continue;
        }
        for (id, right) in file
            .ids
            .iter()
            .filter_map(|id| Some((id, rightful.get(&(version, *id))?)))
        {
            let Some(mut document) = fetched(&relay, *id).await else {
                part += 1;
                continue;
            };
            let changes = document.get_changes(&[]);
            assert!(changes.iter().all(|c| right.contains(&c.hash())), "{what}");
            if changes.len() == right.len() {
                whole += 1;
            } else {
                part += 1;
            }
        }
        let (code, log) = relay.end();
        assert_eq!(code, Some(0), "{what}: {log}");
        assert!(!log.contains("panicked"), "{what}: {log}");
    }
    println!(
        "{refused} files refused; of the others {whole} documents whole, {part} in part or not"
    );
    assert!(number("RECONVERGE_DAMAGE_SEED").is_some() || (refused > 5 && whole > 20));
}

/// What a new client gets of a document; `None` if that is nothing, which the log then explains.
async fn fetched(relay: &Running, id: DocumentId) -> Option<AutoCommit> {
    let url = format!("ws://{}/", relay.address.as_ref().unwrap());
    let mut fresh = Client::connect(&url, "fresh").await.unwrap();
    let at = fresh.open(Document::new(id).keeping());
    let answered = |client: &Client| {
        let document = client.document(at);
        document.is_unavailable() || document.is_in_step()
    };
    // While its storage fails, the relay has no answer, and tells the operator.
    let fails = async {
        loop {
            let log = relay.log();
            if log.contains("storage fails") || log.contains("could not be stored anew") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        biased;
        done = fresh.until(answered) => done.unwrap(),
        () = fails => {}
    }
    let kept = fresh.document(at).kept();
    (!kept.is_empty()).then(|| AutoCommit::load(kept).unwrap())
}
