//! All keystrokes of the paper, one change each, through one client and the relay to others.

use std::time::{Duration, Instant};

use reconverge::id::DocumentId;
use reconverge_tests::Random;
use reconverge_tests::light::{Client, Document, Event, Fault};
use reconverge_tests::process::Relay;
use reconverge_tests::trace::{Replayed, paper};
use reconverge_tests::typist;

use crate::Setting;
use crate::contact::fetch_one;
use crate::report::{Report, Row, Stopwatch, mib, ms, per_second, thousands};

/// Changes that the author has in flight, in messages of up to 1 MiB.
const IN_FLIGHT: usize = 32 * 1024;

/// How long the data must lie still until the relay counts as having tidied up.
const QUIET: Duration = Duration::from_secs(3);

/// The longest wait for that.
const TIDYING: Duration = Duration::from_secs(90);

pub(crate) async fn run(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    let mut relay = setting.start_relay();
    let paper = paper();
    let count = paper.changes.len();
    let id = Random::new(setting.seed).document_id();
    let children = relay.watch_children();

    let mut author = Client::connect(&relay.url(), "author").await?;
    let mut changes = paper.changes.iter().cloned();
    author.open(Document::created(id, changes.by_ref().take(1)));
    author.until_acked(0).await?;
    let mut follower = Client::connect(&relay.url(), "follower").await?;
    follower.open(Document::new(id).keeping());
    follower
        .until(|follower| follower.document(0).is_in_step())
        .await?;

    let stopwatch = Stopwatch::start(&relay);
    let last = paper.changes[count - 1].hash;
    let following = tokio::spawn(async move {
        follower
            .until(|follower| follower.document(0).heads() == [last])
            .await?;
        Ok::<_, Fault>((follower, Instant::now()))
    });
    loop {
        let document = author.document(0);
        let in_flight = document.written() - document.acked();
        if document.acked() == count {
            break;
        }
        if in_flight <= IN_FLIGHT / 2 && document.written() < count {
            let more: Vec<_> = changes.by_ref().take(IN_FLIGHT - in_flight).collect();
            author.write_all(0, more);
        }
        let before = author.document(0).acked();
        author
            .until(|author| author.document(0).acked() > before)
            .await?;
    }
    let acked_in = stopwatch.elapsed();
    let (follower, followed) = following.await.unwrap()?;
    let followed_in = acked_in.max(stopwatch.elapsed().saturating_sub(followed.elapsed()));
    let usage = relay.usage();
    let following = follower.document(0);
    let right = following.heads() == [last] && following.received.gaps == 0;
    report.check(right, || format!("the follower: {:?}", following.received));
    report.row(Row {
        what: format!(
            "paper: {} keystrokes up, one change each",
            thousands(count as u64)
        ),
        rate: format!("{} changes/s acknowledged", per_second(count, acked_in)),
        latency: format!(
            "all acknowledged after {} ms, at a follower after {} ms",
            ms(acked_in),
            ms(followed_in)
        ),
        cpu: stopwatch.cpu(count, "change"),
        memory: format!(
            "{}, peak {}",
            mib(usage.resident_bytes),
            mib(usage.peak_bytes)
        ),
        checked: format!(
            "follower's heads and order; {} up, {} down, {} stored right after",
            mib(author.traffic.bytes_out),
            mib(follower.traffic.bytes_in),
            mib(relay.stored_bytes()),
        ),
    });
    drop((author, follower));

    let tidied_in = until_quiet(&relay).await;
    report.row(Row {
        what: "paper: data at rest".into(),
        rate: format!("{} stored", mib(relay.stored_bytes())),
        latency: format!("quiet {} ms later", ms(tidied_in)),
        cpu: stopwatch.cpu(count, "change"),
        memory: format!(
            "{}, of a child {}",
            mib(relay.usage().resident_bytes),
            mib(children.peak_bytes())
        ),
        checked: format!(
            "as one document chunk it is {}",
            mib(paper.saved.len() as u64)
        ),
    });
    drop(children);
    serve(&relay, id, &paper, "before a restart", report).await?;
    report.restart(&mut relay);
    serve(&relay, id, &paper, "after a restart", report).await?;
    report.row(Row {
        what: "paper: data at rest, after a restart".into(),
        rate: format!("{} stored", mib(relay.stored_bytes())),
        ..Row::default()
    });
    Ok(())
}

/// A fresh client, then two that come back, one after a short and one after a long absence.
async fn serve(
    relay: &Relay,
    id: DocumentId,
    paper: &Replayed,
    when: &str,
    report: &mut Report,
) -> Result<(), Fault> {
    let count = paper.changes.len();
    relay.forget_peak();
    let idle = relay.usage().resident_bytes;
    let (client, time) = fetch_one(&relay.url(), 0, Document::new(id)).await?;
    let peak = relay.usage().peak_bytes;
    let loaded = typist::load(client.document(0).kept());
    let right = loaded
        .as_ref()
        .is_ok_and(|contents| contents.text == paper.text && contents.changes == count as u64);
    report.check(right, || {
        format!("paper, fresh client {when}: {:?}", loaded.map(|c| c.heads))
    });
    report.row(Row {
        what: format!("paper: fresh client {when}"),
        rate: format!("{} bytes down", thousands(client.traffic.bytes_in)),
        latency: format!("{} ms", ms(time)),
        memory: format!("peak {} (idle {})", mib(peak), mib(idle)),
        checked: format!("text, heads, {} changes", thousands(count as u64)),
        ..Row::default()
    });
    for missing in [0, 100, count / 2] {
        let heads = vec![paper.changes[count - missing - 1].hash];
        let (client, time) = if missing == 0 {
            resume_unchanged(relay, Document::resumed(id, heads)).await?
        } else {
            fetch_one(&relay.url(), missing, Document::resumed(id, heads)).await?
        };
        let document = client.document(0);
        let last = paper.changes[count - 1].hash;
        let mut right = document.heads() == [last];
        let form = if document.received.snapshots > 0 {
            let loaded = typist::load(document.kept());
            right &= loaded.is_ok_and(|contents| contents.text == paper.text);
            "snapshot and what followed"
        } else {
            right &= document.received.gaps == 0 && document.received.changes == missing as u64;
            "exactly what was missing"
        };
        report.check(right, || {
            format!("paper, {missing} missing {when}: {:?}", document.received)
        });
        report.row(Row {
            what: format!(
                "paper: reconnect {when}, {} changes missing",
                thousands(missing as u64)
            ),
            rate: format!(
                "{} bytes down, {} up",
                thousands(client.traffic.bytes_in),
                thousands(client.traffic.bytes_out)
            ),
            latency: format!("{} ms", ms(time)),
            checked: format!("heads; {form}"),
            ..Row::default()
        });
    }
    Ok(())
}

/// A client that misses nothing is in step with the relay's first message.
async fn resume_unchanged(relay: &Relay, document: Document) -> Result<(Client, Duration), Fault> {
    let since = Instant::now();
    let mut client = Client::connect(&relay.url(), "unchanged").await?;
    client.open(document);
    client.flush().await?;
    let mut time = Duration::ZERO;
    // Whatever else is said counts as well.
    let talk = async {
        while let Ok(Event::Synced(_) | Event::Unavailable(_)) = client.next().await {
            if time.is_zero() {
                time = since.elapsed();
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), talk).await;
    Ok((client, time))
}

/// Waits until nothing in the data directory changes and no child is at work.
async fn until_quiet(relay: &Relay) -> Duration {
    let began = Instant::now();
    let state = || (relay.stored_bytes(), relay.usage().cpu_children);
    let (mut last, mut since) = (state(), began);
    while since.elapsed() < QUIET && began.elapsed() < TIDYING {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = state();
        if now != last || relay.is_building() {
            (last, since) = (now, Instant::now());
        }
    }
    since.duration_since(began)
}
