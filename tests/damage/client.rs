//! The native client on a sample of the damaged files.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use automerge::transaction::Transactable;
use automerge::{Automerge, ROOT};
use reconverge::native::{BuildError, Repo};
use reconverge_tests::stored::{documents, versions};

use crate::damaging::damaged;
use crate::files::files;
use crate::judging::{number, sample, says_what_to_do};

/// Aim: a client on a damaged file is an error that says what to do, or goes on with what is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_on_a_damaged_file_goes_on_or_says_what_to_do() {
    let panics = Arc::new(Mutex::new(Vec::new()));
    let seen = panics.clone();
    std::panic::set_hook(Box::new(move |panic| {
        seen.lock().unwrap().push(panic.to_string())
    }));
    let files = files();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client.redb");
    let open = async || Repo::builder().file(&path).build().await;
    let mut heads = HashMap::new();
    for version in versions() {
        for (name, (id, of)) in documents(version) {
            if matches!(&*name, "acknowledged" | "outbox") {
                heads.insert((version, id), of);
            }
        }
    }
    let (mut refused, mut whole, mut lost) = (0, 0, 0);
    for seed in sample(&files, "client of") {
        let file = &files[seed as usize % files.len()];
        let version = file.version.unwrap();
        let (bytes, done) = damaged(seed, file);
        let what = format!("RECONVERGE_DAMAGE_SEED={seed}: {}, {done}", file.name);
        std::fs::write(&path, bytes).unwrap();
        match open().await {
            Err(error) => {
                let said = error.to_string();
                match error {
                    BuildError::Storage(error) | BuildError::File { error, .. } => {
                        says_what_to_do(&error);
                    }
                    _ => panic!("{what}: {said}"),
                }
                assert!(said.contains("client.redb"), "{what}: {said}");
                refused += 1;
            }
            Ok(repo) => {
                for (id, heads) in file
                    .ids
                    .iter()
                    .filter_map(|id| Some((id, heads.get(&(version, *id))?)))
                {
                    match repo.find(&format!("automerge:{id}")).await {
                        Ok(document) => {
                            let has = document.read(Automerge::get_heads).unwrap();
                            assert_eq!(has, *heads, "{what}");
                            let edit = document.change(|tx| tx.put(ROOT, "n", 1));
                            edit.unwrap();
                            whole += 1;
                        }
                        Err(error) => {
                            let text = error.to_string();
                            assert!(
                                !text.is_empty() && !text.contains("panicked"),
                                "{what}: {text}"
                            );
                            lost += 1;
                        }
                    }
                }
                let new = repo.create().unwrap();
                new.change(|tx| tx.put(ROOT, "new", true)).unwrap();
                if let Err(error) = repo.shutdown().await {
                    assert!(!error.to_string().contains("panicked"), "{what}: {error}");
                }
            }
        }
        let panics = panics.lock().unwrap();
        assert!(panics.is_empty(), "{what}: {panics:?}");
    }
    let _ = std::panic::take_hook();
    println!("{refused} files refused; of the others {whole} documents whole, {lost} not readable");
    assert!(number("RECONVERGE_DAMAGE_SEED").is_some() || (refused > 5 && whole > 20));
}
