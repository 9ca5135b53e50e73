//! Aim: the check holds nothing against what Automerge makes by its own interface, whatever is in
//! it and however deep; a check that could not be run is no fault of a change, and lets nothing
//! through either.
//!
//! Method: thousands of random documents, whole and in pieces, from seeds; and a relay whose
//! workshop fails. `RECONVERGE_CHECK_SEED` repeats one seed, `RECONVERGE_CHECK_SEEDS` says how many
//! are run.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use automerge::{Automerge, Change, ChangeHash};
use bytes::Bytes;
use reconverge::contents::{Check, Reading, Verdict};
use reconverge::history::{DocumentChunks, History};
use reconverge::id::{Access, ConnectionId, DocumentId, PeerId, Space};
use reconverge::protocol::SyncMessage;
use reconverge::storage::MemoryStorage;
use reconverge_server::access::Open;
use reconverge_server::config::{Config, Verify};
use reconverge_server::workshop::WorkshopConfig;
use reconverge_tests::honest::{Honest, nested};
use reconverge_tests::light::{self, Client, Document};
use reconverge_tests::process::relay_executable;
use reconverge_tests::{Random, forge};

fn number(name: &str) -> Option<u64> {
    let number = std::env::var(name).ok()?;
    Some(number.parse().expect("a number"))
}

#[test]
fn nothing_that_automerge_makes_is_at_fault() {
    let seeds = match number("RECONVERGE_CHECK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RECONVERGE_CHECK_SEEDS").unwrap_or(2_000),
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut random = Random::new(seed);
            let edits = 4 + random.below(60);
            let mut honest = Honest::new(seed, edits);
            enters(&mut honest);
            is_sound(&mut honest, &mut random);
        });
        run.unwrap_or_else(|_| panic!("failed with RECONVERGE_CHECK_SEED={seed}"));
    }
}

#[test]
fn depth_is_no_fault() {
    for levels in [100, 1_500, 20_000] {
        is_sound(&mut nested(levels), &mut Random::new(0));
    }
}

/// Checks a document whole, and what came after each of some beginnings.
fn is_sound(honest: &mut Honest, random: &mut Random) {
    let heads = honest.heads();
    let changes: Vec<Bytes> = honest
        .changes
        .iter()
        .map(|change| Bytes::copy_from_slice(change.raw_bytes()))
        .collect();
    for reading in [Reading::Contents, Reading::SavedForm] {
        let beginning = random.below(changes.len() as u64) as usize;
        for beginning in [0, beginning] {
            let mut snapshot = Automerge::new();
            let first = honest.changes[..beginning].iter().cloned();
            snapshot.apply_changes(first).unwrap();
            let snapshot = Bytes::from(snapshot.save());
            let check = Check {
                snapshot: (beginning > 0).then_some(&snapshot),
                changes: &changes[beginning..],
                heads: &heads,
                len: changes.len() as u32,
                reading,
                wants_snapshot: true,
            };
            let verdict = check.run();
            let Ok(Verdict::Sound(Some(saved))) = verdict else {
                panic!(
                    "after {beginning} of {} changes: {verdict:?}",
                    changes.len()
                );
            };
            let loaded = Automerge::load(&saved).unwrap();
            assert_eq!(loaded.get_changes(&[]).len(), changes.len());
        }
    }
}

/// Structure lets all of it in, too.
fn enters(honest: &mut Honest) {
    let mut history = History::new(Space::default());
    let peer = ConnectionId(1);
    history.join(peer, Access::Write);
    let heads = honest.heads();
    let message = SyncMessage {
        changes: honest.changes.iter().map(Change::raw_bytes).collect(),
        heads: heads.clone(),
        need: Vec::new(),
        have: Vec::new(),
        flags: None,
    };
    let received = history
        .receive(peer, &message, DocumentChunks::Report)
        .unwrap();
    assert!(received.refused.is_empty(), "{:?}", received.refused);
    assert_eq!(history.heads(), heads);
}

/// What runs instead of the workshop: a shell script, which has the real one as `$REAL`.
struct Workshop {
    relay: reconverge_server::Relay,
    url: String,
    _folder: tempfile::TempDir,
}

impl Workshop {
    async fn running(script: &str, verify: Verify) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("workshop");
        let real = relay_executable();
        let script = format!("#!/bin/sh\nREAL={}\n{script}\n", real.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = Config {
            verify,
            // At once, as often as there is something.
            verify_lag: Duration::from_millis(10),
            workshop: WorkshopConfig {
                program,
                // So that the script sees each job.
                jobs_per_worker: 1,
                ..Config::default().workshop
            },
            ..Config::default()
        };
        let storage = Arc::new(MemoryStorage::new("check-test"));
        let name = PeerId::new("relay").unwrap();
        let relay = reconverge_server::Relay::start(config, name, storage, Arc::new(Open)).await;
        let relay = relay.unwrap();
        let url = format!("ws://{}/", relay.address());
        Self {
            relay,
            url,
            _folder: folder,
        }
    }

    /// Somebody whose document is acknowledged, and then an edit of it; the document's place.
    async fn editor(&self, first: &[Change], edit: &Change) -> (Client, usize) {
        let mut editor = self.client("editor").await;
        let changes = first.iter().map(light_change);
        let at = editor.open(Document::created(document(), changes));
        editor.until_acked(at).await.unwrap();
        editor.write(at, light_change(edit));
        editor.until_acked(at).await.unwrap();
        (editor, at)
    }

    async fn client(&self, name: &str) -> Client {
        Client::connect(&self.url, name).await.unwrap()
    }
}

fn document() -> DocumentId {
    DocumentId::new(&[9; 16]).unwrap()
}

fn light_change(change: &Change) -> light::Change {
    light::Change {
        hash: change.hash(),
        bytes: Bytes::copy_from_slice(change.raw_bytes()),
    }
}

/// What a fresh client is sent.
async fn served(workshop: &Workshop, heads: &[ChangeHash]) -> Automerge {
    let mut fresh = workshop.client("fresh").await;
    let at = fresh.open(Document::new(document()).keeping());
    fresh
        .until(|client| client.document(at).heads() == heads)
        .await
        .unwrap();
    Automerge::load(fresh.document(at).kept()).unwrap()
}

/// Dies of every check that reads contents. A job begins with the length of its first piece.
const CANNOT_READ: &str = r#"
cp /dev/stdin "$0.job"
case $(head -c 5 "$0.job" | tail -c 1) in V | F) exit 134 ;; esac
exec "$REAL" "$@" < "$0.job""#;

/// Whoever makes the check give up does not get through what nobody could load again.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_cannot_be_read_is_checked_in_its_saved_form() {
    let (first, unsound, honest) = forge::unsound([1; 16]);
    for verify in [Verify::Later, Verify::Inline] {
        let workshop = Workshop::running(CANNOT_READ, verify).await;
        let (mut editor, at) = workshop.editor(&first, &honest).await;
        let mut mallory = workshop.client("mallory").await;
        let changes = first.iter().chain([&unsound]).map(light_change);
        mallory.open(Document::created(document(), changes));
        mallory.flush().await.unwrap();
        // It is there when the relay names what mallory has beside it, and gone when it does not.
        mallory
            .until(|mallory| mallory.document(0).has(&honest.hash()))
            .await
            .unwrap();
        editor
            .until(|editor| editor.document(at).relay_heads() == Some(&[honest.hash()]))
            .await
            .unwrap();
        let kept = served(&workshop, &[honest.hash()]).await;
        assert!(kept.get_change_meta_by_hash(&unsound.hash()).is_none());
        workshop.relay.stop().await;
    }
}

/// It says nothing about a change: what was acknowledged stays, whatever becomes of the check.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_cannot_be_run_costs_no_acknowledged_edit() {
    let (first, _, honest) = forge::unsound([1; 16]);
    for script in [
        "exit 101",
        "kill -ABRT $$",
        "echo nonsense",
        "kill -KILL $$",
    ] {
        let workshop = Workshop::running(script, Verify::Later).await;
        let _stays = workshop.editor(&first, &honest).await;
        let kept = served(&workshop, &[honest.hash()]).await;
        assert_eq!(kept.get_changes(&[]).len(), first.len() + 1);
        workshop.relay.stop().await;
    }
}
