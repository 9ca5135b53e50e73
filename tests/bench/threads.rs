//! The native client on several threads: how many changes and reads per second, and how long a read
//! of one document waits while another one is busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{ObjType, ROOT, ReadDoc};
use reconverge::native::{DocHandle, Repo};
use reconverge_tests::light::Fault;
use reconverge_tests::trace;

use crate::Setting;
use crate::report::{Report, Row, ms};

const DOCUMENTS: usize = 1000;

/// In a runtime with threads of its own, as services have.
pub(crate) fn run(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    let measure = || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(measure(setting, report))
    };
    thread::scope(|scope| scope.spawn(measure).join()).unwrap();
    Ok(())
}

async fn measure(setting: &Setting, report: &mut Report) {
    let time = Duration::from_secs_f64(2.0 * setting.scale.max(0.1));
    for documents in [1, DOCUMENTS] {
        let file = tempfile::tempdir().unwrap();
        let repo = repo(&file.path().join("client.redb")).await;
        let handles: Vec<DocHandle> = (0..documents)
            .map(|_| repo.create_with(|tx| tx.put(ROOT, "n", 0)).unwrap())
            .collect();
        repo.flush().await.unwrap();
        for threads in [1, 2, 8] {
            let read = |handle: &DocHandle| {
                let read = handle.read(|document| document.get(ROOT, "n").unwrap().is_some());
                assert!(read.unwrap());
            };
            row(
                report,
                "reads",
                documents,
                threads,
                per_second(&handles, threads, time, read),
            );
            let next = AtomicI64::new(1);
            let change = |handle: &DocHandle| {
                let n = next.fetch_add(1, Ordering::Relaxed);
                handle.change(|tx| tx.put(ROOT, "n", n)).unwrap();
            };
            let changes = per_second(&handles, threads, time, change);
            let whole = Instant::now();
            repo.flush().await.unwrap();
            let flushed = format!("; then stored in {} ms", ms(whole.elapsed()));
            report.row(Row {
                what: format!("client: changes of {documents} documents on {threads} threads"),
                rate: format!("{changes:.0}/s{flushed}"),
                ..Row::default()
            });
        }
        repo.shutdown().await.unwrap();
    }
    while_busy(setting, report).await;
}

async fn repo(file: &std::path::Path) -> Repo {
    Repo::builder().file(file).build().await.unwrap()
}

fn row(report: &mut Report, what: &str, documents: usize, threads: usize, rate: f64) {
    report.row(Row {
        what: format!("client: {what} of {documents} documents on {threads} threads"),
        rate: format!("{rate:.0}/s"),
        ..Row::default()
    });
}

/// How often all threads together did something in a second, each with its share of the documents.
fn per_second(
    handles: &[DocHandle],
    threads: usize,
    time: Duration,
    work: impl Fn(&DocHandle) + Sync,
) -> f64 {
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let (over, count, work) = (&over, &count, &work);
            scope.spawn(move || {
                let mine: Vec<_> = handles.iter().skip(thread).step_by(threads).collect();
                let mine = if mine.is_empty() {
                    vec![&handles[0]]
                } else {
                    mine
                };
                let mut done = 0;
                for handle in mine.iter().cycle() {
                    work(handle);
                    done += 1;
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                }
                count.fetch_add(done, Ordering::Relaxed);
            });
        }
        thread::sleep(time);
        over.store(true, Ordering::Relaxed);
    });
    count.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}

/// The longest wait of a read, and of a change, of a small document while something long is done to
/// another.
async fn while_busy(setting: &Setting, report: &mut Report) {
    let relay = setting.start_relay();
    let repo_of = || Repo::builder().relay(&relay.url()).build();
    let small = repo_of().await.unwrap();
    let handle = small.create_with(|tx| tx.put(ROOT, "n", 0)).unwrap();

    let long = small
        .create_with(|tx| {
            let items = tx.put_object(ROOT, "items", ObjType::List)?;
            for at in 0..20_000 {
                let item = tx.insert_object(&items, at, ObjType::Map)?;
                tx.put(&item, "name", format!("item {at}"))?;
                tx.put(&item, "count", at as i64)?;
            }
            Ok::<_, automerge::AutomergeError>(())
        })
        .unwrap();
    long.when_synced().await.unwrap();
    let busy = tokio::task::spawn_blocking(move || {
        long.change(|tx| {
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(1) {
                tx.put(ROOT, "busy", 1)?;
            }
            Ok::<_, automerge::AutomergeError>(())
        })
        .unwrap();
    });
    longest(report, "an edit of one second of another", &handle, busy).await;

    if !setting.small_only {
        let writer = repo_of().await.unwrap();
        let paper = writer.import(trace::paper().saved.to_vec()).await.unwrap();
        paper.when_synced().await.unwrap();
        let (url, reader) = (paper.url(), small.clone());
        let busy = tokio::spawn(async move {
            reader.find(&url).await.unwrap();
        });
        longest(
            report,
            "the first download of 259,778 changes",
            &handle,
            busy,
        )
        .await;
        writer.shutdown().await.unwrap();
    }
    small.shutdown().await.unwrap();
}

async fn longest(
    report: &mut Report,
    what: &str,
    handle: &DocHandle,
    busy: tokio::task::JoinHandle<()>,
) {
    let over = Arc::new(AtomicBool::new(false));
    let longest = |work: fn(&DocHandle, i64)| {
        let (over, handle) = (over.clone(), handle.clone());
        thread::spawn(move || {
            let mut longest = Duration::ZERO;
            for n in 1.. {
                let started = Instant::now();
                work(&handle, n);
                longest = longest.max(started.elapsed());
                if over.load(Ordering::Relaxed) {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
            longest
        })
    };
    let read = longest(|handle, _| {
        handle
            .read(|document| document.get(ROOT, "n").unwrap().is_some())
            .unwrap();
    });
    let change = longest(|handle, n| handle.change(|tx| tx.put(ROOT, "n", n)).unwrap());
    let started = Instant::now();
    busy.await.unwrap();
    let took = started.elapsed();
    over.store(true, Ordering::Relaxed);
    let (read, changed) = (read.join().unwrap(), change.join().unwrap());
    report.row(Row {
        what: format!("client: during {what}, which took {} ms", ms(took)),
        latency: format!("longest read {} ms, change {} ms", ms(read), ms(changed)),
        ..Row::default()
    });
}
