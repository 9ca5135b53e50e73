//! Many writers, each in a document of its own: prepared edits at full speed, and Automerge
//! documents beside the relay, one edit at a time.

use std::time::Duration;

use automerge::{ActorId, Automerge};
use reconverge_tests::Random;
use reconverge_tests::light::{Client, Document, Fault};
use reconverge_tests::typist::{self, Contents, Typist};

use crate::fanout::{Pace, write};
use crate::foreign::{self, Kind, Server};
use crate::report::{Report, Row, Stopwatch, mib, p50_p99, per_second};
use crate::{Setting, connect_each, contact, gather, stock};

/// Edits of all writers together.
const EDITS: usize = 50_000;

/// Writers with Automerge documents, and edits of each.
const WRITERS_WITH_DOCUMENTS: usize = 50;
const EDITS_ONE_BY_ONE: usize = 500;

pub(crate) async fn run(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    for writers in [50, 500] {
        measure(setting, writers, report).await?;
    }
    Box::pin(with_documents(setting, report)).await?;
    foreign(setting, Kind::Floor, report).await
}

/// The same number of edits with a server of another kind.
pub(crate) async fn foreign(
    setting: &Setting,
    kind: Kind,
    report: &mut Report,
) -> Result<(), Fault> {
    let server = Server::start(kind);
    let edits = kind.edits(setting.scaled(EDITS_ONE_BY_ONE), false);
    foreign::writers(&server, edits, WRITERS_WITH_DOCUMENTS, report).await
}

/// Each has an Automerge document and types in it when the edit before is acknowledged.
async fn with_documents(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    let mut relay = setting.start_relay();
    let mut random = Random::new(setting.seed);
    let each = setting.scaled(EDITS_ONE_BY_ONE);
    let (mut clients, mut ids) = (Vec::new(), Vec::new());
    for n in 0..WRITERS_WITH_DOCUMENTS {
        let (mut typist, _) = Typist::new(random.number());
        typist.keystrokes(9);
        let automerge = Automerge::load(&typist.save()).unwrap();
        let actor = ActorId::from(random.bytes().to_vec());
        let (id, name) = (random.document_id(), format!("writer-{n}"));
        let automerge = automerge.with_actor(actor);
        clients.push(stock::Client::open(&relay.url(), &name, id, automerge).await?);
        ids.push(id);
    }
    let stopwatch = Stopwatch::start(&relay);
    let writing: Vec<_> = (clients.into_iter())
        .map(|mut client| {
            tokio::spawn(async move {
                let mut acks = Vec::with_capacity(each);
                for _ in 0..each {
                    acks.push(Box::pin(client.edit()).await?);
                }
                Ok::<_, Fault>((client, acks))
            })
        })
        .collect();
    let (clients, mut acks) = gather(writing).await?;
    let elapsed = stopwatch.elapsed();
    let cpu = stopwatch.cpu(WRITERS_WITH_DOCUMENTS * each, "edit");
    let memory = stopwatch.usage();
    let expected = clients.into_iter().zip(ids).map(|(client, id)| {
        let contents = typist::load(&client.automerge.save()).unwrap();
        (Document::new(id).keeping(), contents)
    });
    let expected = expected.collect();
    relay.kill();
    relay.start_again();
    let wrong = contact::fetch_and_compare(&relay, expected, 1).await?.wrong;
    report.check(wrong == 0, || format!("{wrong} documents are wrong"));
    report.row(Row {
        what: format!(
            "{WRITERS_WITH_DOCUMENTS} writers with Automerge documents, one edit at a time each: edit to durable ack"
        ),
        rate: format!("{} edits/s", per_second(WRITERS_WITH_DOCUMENTS * each, elapsed)),
        latency: p50_p99(&mut acks),
        cpu,
        memory: format!("{}, peak {}", mib(memory.resident_bytes), mib(memory.peak_bytes)),
        checked: "after kill -9: each document's heads and text".into(),
    });
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
    let cpu = stopwatch.cpu(writers * each, "edit");
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
