//! kill -9 under clients that try to connect again all the time, as fast as they are refused: how
//! long until all are in sync again.

use std::time::{Duration, Instant};

use reconverge_tests::Random;
use reconverge_tests::light::{Client, Document, Fault, PATIENCE};
use reconverge_tests::typist::Typist;

use crate::report::{Report, Row, Stopwatch, mib, ms, percentile};
use crate::{Setting, connect_each};

/// Between the attempts of one client.
const RETRY: Duration = Duration::from_millis(20);

/// How often the relay is killed.
const ROUNDS: usize = 5;

pub(crate) async fn run(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    for clients in [500, 5_000] {
        measure(setting, clients, report).await?;
    }
    Ok(())
}

async fn measure(setting: &Setting, count: usize, report: &mut Report) -> Result<(), Fault> {
    // All come from one address, of which half as many are taken as in all.
    let places = (2 * count).to_string();
    let mut setting = setting.clone();
    let per_address = [
        "--connections-max",
        &places,
        "--connections-per-address-max",
        &places,
    ];
    let more = per_address.map(str::to_owned);
    setting.relay_argument.extend(more);
    let mut relay = setting.start_relay();
    let mut random = Random::new(setting.seed);
    let documents = (0..count).map(|_| {
        let (mut typist, first) = Typist::new(random.number());
        let changes = std::iter::once(first).chain(typist.keystrokes(9));
        Document::created(random.document_id(), changes)
    });
    let mut clients = connect_each(&relay.url(), "client", documents.collect()).await?;
    let (mut since_killed, mut since_listening) = (Vec::new(), Vec::new());
    let (mut failed, mut cpu) = (0, String::new());
    for round in 0..ROUNDS {
        let killed = Instant::now();
        relay.kill();
        let url = relay.url();
        let coming_back: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(n, client)| {
                let (url, name) = (url.clone(), format!("client-{n}"));
                tokio::spawn(async move { Box::pin(come_back(&url, &name, client)).await })
            })
            .collect();
        // Starting waits in this thread, in which the clients run, too.
        let starting = tokio::task::spawn_blocking(move || {
            relay.start_again();
            (relay, Instant::now())
        });
        let (started, listening) = starting.await.unwrap();
        relay = started;
        let stopwatch = Stopwatch::start(&relay);
        let mut back = Vec::new();
        for client in coming_back {
            let (client, attempts_failed) = client.await.unwrap()?;
            failed += attempts_failed;
            back.push(client);
        }
        since_killed.push(killed.elapsed());
        since_listening.push(listening.elapsed());
        if round == 0 {
            cpu = stopwatch.cpu(count, "client");
        }
        report.check(back.len() == count, || {
            format!("{} clients came back", back.len())
        });
        clients = back;
    }
    let longest = since_listening.iter().max().copied().unwrap_or_default();
    report.row(Row {
        what: format!("kill -9 under {count} clients, {ROUNDS} times: from listening until all are in sync again"),
        rate: format!("{failed} connections broken while they were made"),
        latency: format!(
            "p50 {} ms, longest {} ms; since the kill p50 {} ms",
            ms(percentile(&mut since_listening, 50)),
            ms(longest),
            ms(percentile(&mut since_killed, 50))
        ),
        cpu,
        memory: format!("peak {}", mib(relay.usage().peak_bytes)),
        checked: "all clients in step".into(),
    });
    Ok(())
}

/// Notices the end of the connection, and connects until it is in step; and how many connections
/// that a relay had accepted came to nothing.
async fn come_back(url: &str, name: &str, mut client: Client) -> Result<(Client, usize), Fault> {
    while client.next().await.is_ok() {}
    let mut documents = client.into_documents();
    let mut failed = 0;
    let began = Instant::now();
    loop {
        match Client::connect(url, name).await {
            Ok(mut client) => {
                for document in documents.drain(..) {
                    client.open(document);
                }
                match client.until(|client| client.document(0).is_in_step()).await {
                    Ok(()) => return Ok((client, failed)),
                    Err(fault) if began.elapsed() > PATIENCE => return Err(fault),
                    Err(_) => documents = client.into_documents(),
                }
                failed += 1;
            }
            Err(fault) if began.elapsed() > PATIENCE => return Err(fault),
            Err(fault) => {
                failed += usize::from(!is_refused(&fault));
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Whether there was nobody to connect to.
fn is_refused(fault: &Fault) -> bool {
    use tokio_tungstenite::tungstenite::Error;
    let Fault::Socket(error) = fault else {
        return false;
    };
    matches!(&**error, Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}
