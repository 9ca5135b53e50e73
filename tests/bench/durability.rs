//! kill -9 right after many documents were acknowledged.

use reconverge_tests::Random;
use reconverge_tests::light::{Client, Document, Fault};
use reconverge_tests::typist::Typist;

use crate::report::{Report, Row, Stopwatch, ms};
use crate::{Setting, connect, contact};

const CLIENTS: usize = 500;

pub(crate) async fn run(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    let mut relay = setting.start_relay();
    let mut random = Random::new(setting.seed);
    let (mut created, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        let (mut typist, first) = Typist::new(random.number());
        let id = random.document_id();
        created.push(Document::created(
            id,
            std::iter::once(first).chain(typist.keystrokes(3)),
        ));
        expected.push((Document::new(id).keeping(), typist.contents()));
    }
    let clients = connect(&relay.url(), "client", CLIENTS).await?;
    let stopwatch = Stopwatch::start(&relay);
    let creating: Vec<_> = (clients.into_iter().zip(created))
        .map(|(mut client, document)| {
            tokio::spawn(async move {
                client.open(document);
                Box::pin(client.until_acked(0)).await?;
                Ok::<Client, Fault>(client)
            })
        })
        .collect();
    let mut clients = Vec::new();
    for client in creating {
        clients.push(client.await.unwrap()?);
    }
    let elapsed = stopwatch.elapsed();
    relay.kill();
    drop(clients);
    relay.start_again();
    let fetched = contact::fetch_and_compare(&relay, expected, 1).await?;
    report.check(fetched.wrong == 0, || {
        format!("kill -9: {} documents lost", fetched.wrong)
    });
    report.row(Row {
        what: format!("kill -9 right after {CLIENTS} documents were acknowledged"),
        rate: format!("{} lost", fetched.wrong),
        latency: format!("all acknowledged in {} ms", ms(elapsed)),
        checked: "each document's heads and text".into(),
        ..Row::default()
    });
    Ok(())
}
