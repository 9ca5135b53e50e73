//! Clients that have nothing yet: one big document, or thousands of small ones.

use std::time::{Duration, Instant};

use reconverge_tests::Random;
use reconverge_tests::light::{Client, Document, Event, Fault};
use reconverge_tests::process::Relay;
use reconverge_tests::trace;
use reconverge_tests::typist::{self, Contents, Typist};

use crate::Setting;
use crate::report::{Report, Row, Stopwatch, mib, ms, p50_p99, per_second, thousands};

/// How many documents a client has asked for and not yet got.
const ASKED: usize = 256;

pub(crate) async fn first_contact(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    let mut relay = setting.start_relay();
    let paper = trace::paper();
    let id = Random::new(setting.seed).document_id();
    let mut author = Client::connect(&relay.url(), "author").await?;
    let children = relay.watch_children();
    let stopwatch = Stopwatch::start(&relay);
    author.open(Document::with_snapshot(
        id,
        paper.saved.clone(),
        paper.hashes(),
    ));
    author.until_acked(0).await?;
    report.row(Row {
        what: "upload of the 259,778-change document, as one chunk, until acknowledged".into(),
        rate: format!("{} ms", ms(stopwatch.elapsed())),
        cpu: stopwatch.cpu(1, "upload"),
        memory: format!(
            "peak {}, of a child {}",
            mib(relay.usage().peak_bytes),
            mib(children.peak_bytes())
        ),
        checked: "heads".into(),
        ..Row::default()
    });
    drop((author, children));
    for clients in [1, 20] {
        report.restart(&mut relay);
        let idle = relay.usage();
        let stopwatch = Stopwatch::start(&relay);
        let url = relay.url();
        let fetching: Vec<_> = (0..clients)
            .map(|n| {
                let url = url.clone();
                tokio::spawn(async move { Box::pin(fetch_one(&url, n, Document::new(id))).await })
            })
            .collect();
        let mut times = Vec::new();
        let mut bytes = 0;
        let mut distinct = std::collections::HashSet::new();
        for fetched in fetching {
            let (client, time) = fetched.await.unwrap()?;
            times.push(time);
            bytes = bytes.max(client.traffic.bytes_in);
            distinct.insert(client.document(0).kept().to_vec());
        }
        let usage = relay.usage();
        let cpu = stopwatch.cpu(clients, "client");
        for received in &distinct {
            let loaded = typist::load(received);
            let right = loaded
                .as_ref()
                .is_ok_and(|contents| contents.text == paper.text);
            report.check(right, || {
                format!("first contact: {:?}", loaded.map(|c| c.heads))
            });
        }
        report.row(Row {
            what: format!("first contact, 259,778 changes, after a restart, {clients} at once"),
            rate: format!("{} bytes to each", thousands(bytes)),
            latency: p50_p99(&mut times),
            cpu,
            memory: format!(
                "peak {} (idle {})",
                mib(usage.peak_bytes),
                mib(idle.resident_bytes)
            ),
            checked: format!("heads and text; {} distinct byte streams", distinct.len()),
        });
    }
    Ok(())
}

/// Connects and fetches one document; the time is from the connect to the last byte.
pub(crate) async fn fetch_one(
    url: &str,
    n: usize,
    document: Document,
) -> Result<(Client, Duration), Fault> {
    let since = Instant::now();
    let mut client = Client::connect(url, &format!("fresh-{n}-{:x}", Random::fresh_seed())).await?;
    client.open(document.keeping());
    client
        .until(|client| client.document(0).is_in_step())
        .await?;
    Ok((client, since.elapsed()))
}

pub(crate) async fn refetch(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    for documents in [2_000, 10_000] {
        let documents = setting.scaled(documents);
        let mut relay = setting.start_relay();
        let mut random = Random::new(setting.seed);
        let mut created = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..documents {
            let (mut typist, first) = Typist::new(random.number());
            let id = random.document_id();
            let changes = std::iter::once(first).chain(typist.keystrokes(9));
            created.push(Document::created(id, changes));
            expected.push((Document::new(id).keeping(), typist.contents()));
        }
        let stopwatch = Stopwatch::start(&relay);
        upload(&relay.url(), created).await?;
        report.row(Row {
            what: format!("{documents} small documents created over one connection, acknowledged"),
            rate: format!("{} documents/s", per_second(documents, stopwatch.elapsed())),
            cpu: stopwatch.cpu(documents, "document"),
            ..Row::default()
        });
        report.restart(&mut relay);
        let stopwatch = Stopwatch::start(&relay);
        let fetched = fetch_and_compare(&relay, expected, 1).await?;
        let cpu = stopwatch.cpu(documents, "document");
        report.check(fetched.wrong == 0, || {
            format!("refetch: {} documents wrong", fetched.wrong)
        });
        report.row(Row {
            what: format!("{documents} small documents fetched after a restart, one connection"),
            rate: format!("{} documents/s", per_second(documents, fetched.elapsed)),
            cpu,
            memory: format!("peak {}", mib(relay.usage().peak_bytes)),
            checked: "each document's heads and text".into(),
            ..Row::default()
        });
    }
    Ok(())
}

/// Creates documents over one connection, some at a time, until all are acknowledged.
pub(crate) async fn upload(url: &str, documents: Vec<Document>) -> Result<Client, Fault> {
    let mut client = Client::connect(url, "uploader").await?;
    let count = documents.len();
    let mut documents = documents.into_iter();
    let mut is_acked = vec![false; count];
    let mut acked = 0;
    while acked < count {
        while client.documents().len() - acked < ASKED
            && let Some(document) = documents.next()
        {
            client.open(document);
        }
        if let Event::Synced(at) = client.next_in_time().await? {
            let document = client.document(at);
            if document.acked() == document.written() && !is_acked[at] {
                is_acked[at] = true;
                acked += 1;
            }
        }
    }
    Ok(client)
}

/// What a fetch of many documents came to.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// How many documents are missing, lack something or do not load.
    pub(crate) wrong: usize,
    /// From the first connect to the last byte, checks not included.
    pub(crate) elapsed: Duration,
}

/// Fetches documents over so many connections, and compares each with what it must be.
pub(crate) async fn fetch_and_compare(
    relay: &Relay,
    expected: Vec<(Document, Contents)>,
    connections: usize,
) -> Result<Fetched, Fault> {
    let (documents, expected): (Vec<_>, Vec<_>) = expected.into_iter().unzip();
    let mut shares: Vec<Vec<Document>> = (0..connections).map(|_| Vec::new()).collect();
    for (at, document) in documents.into_iter().enumerate() {
        shares[at % connections].push(document);
    }
    let since = Instant::now();
    let fetching: Vec<_> = (shares.into_iter().enumerate())
        .map(|(n, documents)| {
            let url = relay.url();
            tokio::spawn(async move { Box::pin(fetch(&url, n, documents)).await })
        })
        .collect();
    let mut clients = Vec::new();
    for client in fetching {
        clients.push(client.await.unwrap()?);
    }
    let elapsed = since.elapsed();
    let mut wrong = 0;
    for (at, expected) in expected.iter().enumerate() {
        let document = clients[at % connections].document(at / connections);
        let is_whole = document.received.gaps == 0 && document.heads() == expected.heads;
        if !is_whole || typist::load(document.kept()).as_ref() != Ok(expected) {
            wrong += 1;
        }
    }
    Ok(Fetched { wrong, elapsed })
}

async fn fetch(url: &str, n: usize, documents: Vec<Document>) -> Result<Client, Fault> {
    let mut client = Client::connect(url, &format!("fetcher-{n}")).await?;
    let count = documents.len();
    let mut documents = documents.into_iter();
    let mut is_answered = vec![false; count];
    let mut answered = 0;
    while answered < count {
        while client.documents().len() - answered < ASKED
            && let Some(document) = documents.next()
        {
            client.open(document);
        }
        let (at, is_final) = match client.next_in_time().await? {
            Event::Synced(at) => (at, client.document(at).is_in_step()),
            Event::Unavailable(at) => (at, true),
            Event::Ephemeral(_) => continue,
        };
        if is_final && !is_answered[at] {
            is_answered[at] = true;
            answered += 1;
        }
    }
    Ok(client)
}
