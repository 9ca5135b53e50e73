//! A client asks for a document that nobody has: how long until it is told so.

use std::time::{Duration, Instant};

use reconverge_tests::Random;
use reconverge_tests::light::{Client, Document, Event, Fault};

use crate::report::{Report, Row, p50_p99};
use crate::{Setting, connect};

/// How many such documents are asked for, one after the other.
const ASKED: usize = 50;

pub(crate) async fn run(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    for others in [0, 10] {
        let relay = setting.start_relay();
        let mut random = Random::new(setting.seed);
        // Connected, and as stock clients are: they may have documents of which they did not speak.
        let others = connect(&relay.url(), "other", others).await?;
        let mut client = Client::connect(&relay.url(), "asking").await?;
        let mut times = Vec::new();
        for _ in 0..setting.scaled(ASKED) {
            times.push(until_unavailable(&mut client, Document::new(random.document_id())).await?);
        }
        report.row(Row {
            what: format!(
                "a document that nobody has, {} other clients connected: from request to unavailable",
                others.len()
            ),
            latency: p50_p99(&mut times),
            checked: format!("{} documents, all unavailable", times.len()),
            ..Row::default()
        });
    }
    Ok(())
}

async fn until_unavailable(client: &mut Client, document: Document) -> Result<Duration, Fault> {
    let began = Instant::now();
    let at = client.open(document);
    client.flush().await?;
    while client.next_in_time().await? != Event::Unavailable(at) {}
    Ok(began.elapsed())
}
