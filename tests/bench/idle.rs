//! What a connection costs that does nothing.

use std::time::Duration;

use reconverge_tests::Random;
use reconverge_tests::light::{Client, Document, Fault};
use reconverge_tests::process::Relay;
use reconverge_tests::typist::Typist;
use tokio::task::JoinSet;

use crate::report::{Report, Row, mib};
use crate::{Setting, connect};

const CONNECTIONS: usize = 2_000;

/// Until buffers that only the handshake needed are gone.
const SETTLING: Duration = Duration::from_secs(6);

/// Until a relay has put away what nobody uses.
const LONG_AFTER: Duration = Duration::from_secs(60);

pub(crate) async fn run(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    let mut relay = setting.start_relay();
    let mut random = Random::new(setting.seed);
    let alone = resident_alone(&relay).await?;

    let clients = connect(&relay.url(), "idle", CONNECTIONS).await?;
    let clients = settle(clients, SETTLING).await?;
    row(report, &relay, alone, "joined");

    let mut ids = Vec::new();
    let mut clients = clients;
    for client in &mut clients {
        let (_, first) = Typist::new(random.number());
        let id = random.document_id();
        client.open(Document::created(id, [first]));
        ids.push(id);
    }
    let clients = settle(clients, SETTLING).await?;
    row(
        report,
        &relay,
        alone,
        "joined, with one document each that it created",
    );
    let clients = settle(clients, LONG_AFTER).await?;
    row(report, &relay, alone, "the same a minute later");

    drop(clients);
    report.restart(&mut relay);
    let alone = resident_alone(&relay).await?;
    let mut clients = connect(&relay.url(), "again", CONNECTIONS).await?;
    for (client, id) in clients.iter_mut().zip(ids) {
        client.open(Document::new(id));
    }
    let clients = settle(clients, SETTLING).await?;
    row(
        report,
        &relay,
        alone,
        "joined, with one document each that it fetched after a restart",
    );
    drop(clients);
    Ok(())
}

/// The relay's memory with one connection: what does not grow with their number is loaded then.
async fn resident_alone(relay: &Relay) -> Result<u64, Fault> {
    let client = Client::connect(&relay.url(), "first").await?;
    let clients = settle(vec![client], SETTLING).await?;
    let resident = relay.usage().resident_bytes;
    drop(clients);
    Ok(resident)
}

/// Lets every client get in step with its documents, and then rest, answering pings.
async fn settle(clients: Vec<Client>, rest: Duration) -> Result<Vec<Client>, Fault> {
    let mut resting = JoinSet::new();
    for mut client in clients {
        resting.spawn(async move {
            client
                .until(|client| client.documents().iter().all(Document::is_in_step))
                .await?;
            let resting = async {
                loop {
                    client.next().await?;
                }
            };
            match tokio::time::timeout(rest, resting).await {
                Ok(Err(fault)) => Err::<Client, Fault>(fault),
                Ok(Ok(())) | Err(_) => Ok(client),
            }
        });
    }
    let mut rested = Vec::new();
    while let Some(client) = resting.join_next().await {
        rested.push(client.unwrap()?);
    }
    Ok(rested)
}

fn row(report: &mut Report, relay: &Relay, alone: u64, what: &str) {
    let usage = relay.usage();
    let each = usage.resident_bytes.saturating_sub(alone) as f64 / 1024.0 / CONNECTIONS as f64;
    report.row(Row {
        what: format!("{CONNECTIONS} idle connections, {what}"),
        rate: format!("{each:.1} KiB per connection"),
        memory: format!(
            "{}, peak {} ({} with one connection)",
            mib(usage.resident_bytes),
            mib(usage.peak_bytes),
            mib(alone)
        ),
        checked: "all still connected".into(),
        ..Row::default()
    });
}
