//! What is done with one document: found, edited, imported, looked back at, exported and deleted.

use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, AutomergeError, ObjType, ROOT, ReadDoc};
use reconverge::engine::FindError;
use reconverge::id::DocumentId;
use reconverge::native::{Gone, PastError, Repo};
use reconverge_tests::light;
use reconverge_tests::patience::in_time;
use reconverge_tests::process::Relay;

use crate::editing::{client, get, put, synced};

#[tokio::test(flavor = "multi_thread")]
async fn edits_have_messages_and_results_and_any_error() -> Result<(), Box<dyn std::error::Error>> {
    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    struct Stock {
        lamps: u64,
    }
    let repo = Repo::builder().build().await?;
    let document = repo.create_with(|tx| tx.put(ROOT, "lamps", 3_u64))?;
    let left = document.update(|stock: &mut Stock| {
        stock.lamps -= 1;
        stock.lamps
    })?;
    assert_eq!(left, 2);
    document.change_with_message("a gift", |tx| tx.put(ROOT, "lamps", 1_u64))?;
    let history = document.history()?;
    assert_eq!(history.last().unwrap().message.as_deref(), Some("a gift"));
    document.when_stored().await?;
    // What is no error itself goes on by `?` all the same.
    let refused = || -> Result<(), Box<dyn std::error::Error>> {
        document
            .change(|_| Err::<(), Box<dyn std::error::Error + Send + Sync>>("no lamps".into()))?;
        Ok(())
    };
    assert_eq!(refused().unwrap_err().to_string(), "no lamps");
    repo.shutdown().await?;
    Ok(())
}

/// A cursor that leads to changes which nobody stored, or which did not come yet, is no cursor.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_not_known_are_an_error() {
    let repo = Repo::builder().build().await.unwrap();
    let (document, other) = (repo.create().unwrap(), repo.create().unwrap());
    put(&document, "n", 1);
    put(&other, "n", 1);
    let (known, unknown) = (document.heads().unwrap(), other.heads().unwrap());
    let told = PastError::Unknown(unknown[0]);
    let both = [known.as_slice(), &unknown].concat();
    assert_eq!(document.diff(&unknown, &known), Err(told));
    assert_eq!(document.diff(&known, &both), Err(told));
    assert_eq!(document.view(&both).err(), Some(told));
    assert_eq!(document.diff(&[], &known).unwrap().len(), 1);
    assert_eq!(document.diff(&known, &[]).unwrap().len(), 1);
    assert_eq!(document.view(&known).unwrap().get_heads(), known);
    repo.delete(&document.url()).await.unwrap();
    let gone = PastError::Gone(Gone::Deleted);
    assert_eq!(document.diff(&known, &known), Err(gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_imported_looked_back_at_exported_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("client.redb");
    let relay = Relay::start();
    let repo = Repo::builder()
        .relay(&relay.url())
        .file(&file)
        .build()
        .await
        .unwrap();
    let mut saved = Automerge::new();
    let text = saved
        .transact::<_, _, AutomergeError>(|tx| {
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, &"word ".repeat(2000))?;
            Ok(text)
        })
        .unwrap()
        .result;
    let document = repo.import(saved.save()).await.unwrap();
    let before = document.heads().unwrap();
    document
        .change(|tx| tx.splice_text(&text, 0, 5, "first "))
        .unwrap();
    synced(&document).await;
    let after = document.heads().unwrap();
    assert_eq!(document.history().unwrap().len(), 2);
    assert_eq!(document.diff(&before, &after).unwrap().len(), 2);
    let past = document.view(&before).unwrap();
    assert_eq!(past.text(&text).unwrap().len(), 10_000);

    let other = client(&relay).await;
    let exported = in_time("export", other.export(&document.url()))
        .await
        .unwrap();
    let exported = Automerge::load(&exported).unwrap();
    assert_eq!(exported.text(&text).unwrap()[..11], *"first word ");

    let url = document.url();
    repo.delete(&url).await.unwrap();
    assert!(document.heads().is_err());
    repo.shutdown().await.unwrap();
    drop((document, repo));
    let alone = Repo::builder().file(&file).build().await.unwrap();
    assert!(matches!(
        alone.find(&url).await,
        Err(FindError::Unavailable)
    ));
    // The relay keeps it.
    let third = client(&relay).await;
    let kept = in_time("find", third.find(&url)).await.unwrap();
    assert_eq!(kept.heads().unwrap(), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_unavailable() {
    let relay = Relay::start();
    let repo = Repo::builder().relay(&relay.url());
    let repo = repo.release_after(Duration::from_millis(20));
    let repo = repo.build().await.unwrap();
    let id = DocumentId::new(&[9; 16]).unwrap();
    let missing = format!("automerge:{id}");
    for _ in 0..2 {
        let found = in_time("an answer", repo.find(&missing)).await;
        assert!(matches!(found, Err(FindError::Unavailable)));
        let forgotten = async {
            while repo.documents_in_memory() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time("nothing is remembered of it", forgotten).await;
    }
    // It may appear, and then it is found on the same connection.
    let mut made = Automerge::new();
    made.transact::<_, _, AutomergeError>(|tx| tx.put(ROOT, "n", 1))
        .unwrap();
    let mut maker = light::Client::connect(&relay.url(), "maker").await.unwrap();
    let change = made.get_last_local_change().unwrap();
    let at = maker.open(light::Document::created(id, [(&change).into()]));
    in_time("the change", maker.until_acked(at)).await.unwrap();
    let found = in_time("find", repo.find(&missing)).await.unwrap();
    assert_eq!(get(&found, "n"), Some(1));
    assert!(matches!(
        repo.find("automerge:no").await,
        Err(FindError::Url(_))
    ));
}
