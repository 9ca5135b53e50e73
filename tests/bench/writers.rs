//! Many writers, each in a document of its own.

use std::time::Duration;

use reconverge_tests::Random;
use reconverge_tests::light::{Client, Document, Fault};
use reconverge_tests::typist::{Contents, Typist};

use crate::fanout::{Pace, write};
use crate::report::{Report, Row, Stopwatch, mib, p50_p99, per_second};
use crate::{Setting, connect_each, contact};

/// Edits of all writers together.
const EDITS: usize = 50_000;

pub(crate) async fn run(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    for writers in [50, 500] {
        measure(setting, writers, report).await?;
    }
    Ok(())
}

async fn measure(setting: &Setting, writers: usize, report: &mut Report) -> Result<(), Fault> {
    let mut relay = setting.start_relay();
    let mut random = Random::new(setting.seed);
    let each = setting.scaled(EDITS / writers);
    let mut expected: Vec<(Document, Contents)> = Vec::new();
    let (mut created, mut edits) = (Vec::new(), Vec::new());
    for _ in 0..writers {
        let (mut typist, first) = Typist::new(random.number());
        let id = random.document_id();
        created.push(Document::created(id, [first]));
        edits.push(typist.keystrokes(each));
        expected.push((Document::new(id).keeping(), typist.contents()));
    }
    let clients = connect_each(&relay.url(), "writer", created).await?;

    let stopwatch = Stopwatch::start(&relay);
    let writing: Vec<_> = (clients.into_iter().zip(edits))
        .map(|(mut client, edits)| {
            tokio::spawn(async move {
                let acks = Box::pin(write(&mut client, edits, Pace::FullSpeed, |_| {})).await?;
                // The connection stays until the others are done: closing it is no part of this.
                Ok::<(Client, Vec<Duration>), Fault>((client, acks))
            })
        })
        .collect();
    let mut acks = Vec::new();
    let mut clients = Vec::new();
    for writer in writing {
        let (client, of_one) = writer.await.unwrap()?;
        acks.extend(of_one);
        clients.push(client);
    }
    let elapsed = stopwatch.elapsed();
    let cpu = stopwatch.cpu(&relay, writers * each, "edit");
    let memory = relay.usage();

    drop(clients);
    relay.kill();
    relay.start_again();
    let wrong = contact::fetch_and_compare(&relay, expected, 1).await?.wrong;
    report.check(wrong == 0, || {
        format!("{writers} writers: {wrong} documents are wrong")
    });
    report.row(Row {
        what: format!("{writers} writers at full speed: edit to durable ack"),
        rate: format!("{} edits/s", per_second(writers * each, elapsed)),
        latency: p50_p99(&mut acks),
        cpu,
        memory: format!(
            "{}, peak {}",
            mib(memory.resident_bytes),
            mib(memory.peak_bytes)
        ),
        checked: format!(
            "after kill -9: {writers} documents' heads and text; {each} edits each, made beforehand"
        ),
    });
    Ok(())
}
