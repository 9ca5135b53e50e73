//! One writer, many readers of the same document.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use automerge::ChangeHash;
use reconverge_tests::Random;
use reconverge_tests::light::{Change, Client, Document, Fault};
use reconverge_tests::process::Relay;
use reconverge_tests::trace;
use reconverge_tests::typist::{self, Typist};

use crate::foreign::{self, Kind, Server};
use crate::report::{Report, Row, Stopwatch, mib, p50_p99, per_second};
use crate::{Setting, connect_each, connect_each_of_ours};

/// How many edits a writer has in flight before it waits for an acknowledgement.
pub(crate) const WINDOW: usize = 64;

/// How fast a writer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As soon as there is room in a [`WINDOW`]; a relay may pass on several edits as one message.
    FullSpeed,
    /// Each as soon as the one before is acknowledged, so that each is passed on alone.
    OneByOne,
    /// So many in a second: ten are somebody who types fast.
    PerSecond(u32),
}

impl Pace {
    pub(crate) fn interval(self) -> Option<Duration> {
        match self {
            Self::FullSpeed | Self::OneByOne => None,
            Self::PerSecond(edits) => Some(Duration::from_secs(1) / edits),
        }
    }

    pub(crate) fn in_flight_max(self) -> usize {
        match self {
            Self::FullSpeed => WINDOW,
            Self::OneByOne => 1,
            Self::PerSecond(_) => 0,
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::FullSpeed => "full speed".into(),
            Self::OneByOne => "one edit at a time".into(),
            Self::PerSecond(edits) => format!("{edits} edits/s"),
        }
    }
}

#[derive(Clone, Copy)]
struct Case {
    readers: usize,
    edits: usize,
    pace: Pace,
    /// The readers join as clients of ours.
    ours: bool,
}

/// A document, and who types in it.
struct Typed {
    name: &'static str,
    document: Document,
    typist: Typist,
    /// How many changes of this author it begins with.
    before: u64,
}

impl Typed {
    /// One that has ten changes.
    fn small(random: &mut Random) -> Self {
        let (mut typist, first) = Typist::new(random.number());
        let changes = std::iter::once(first).chain(typist.keystrokes(9));
        Self {
            name: "small document",
            document: Document::created(random.document_id(), changes),
            typist,
            before: 10,
        }
    }
}

pub(crate) async fn run(setting: &Setting, report: &mut Report) -> Result<(), Fault> {
    let case = |readers, pace, edits| Case {
        readers,
        edits: setting.scaled(edits),
        pace,
        ours: false,
    };
    let of_hundred = [
        case(100, Pace::FullSpeed, 4_000),
        case(100, Pace::OneByOne, 2_000),
        case(100, Pace::PerSecond(10), 100),
    ];
    let small = [
        Case {
            ours: true,
            ..of_hundred[2]
        },
        case(500, Pace::FullSpeed, 4_000),
        case(500, Pace::PerSecond(10), 100),
    ];
    let small = of_hundred.into_iter().chain(small);
    let paper = of_hundred.into_iter().chain([
        case(10, Pace::FullSpeed, 4_000),
        case(10, Pace::OneByOne, 2_000),
        case(10, Pace::PerSecond(10), 100),
        case(10, Pace::PerSecond(55), 550),
    ]);
    let mut random = Random::new(setting.seed);
    for case in small {
        let relay = setting.start_relay();
        measure(&relay, Typed::small(&mut random), case, report).await?;
    }
    if !setting.small_only {
        let replayed = trace::paper();
        for case in paper {
            let relay = setting.start_relay();
            let typed = Typed {
                name: "259,778-change document",
                typist: Typist::join(&replayed.saved, random.number()),
                document: Document::with_snapshot(
                    random.document_id(),
                    replayed.saved.clone(),
                    replayed.hashes(),
                ),
                before: 0,
            };
            measure(&relay, typed, case, report).await?;
        }
    }
    foreign(setting, Kind::Floor, report).await
}

/// The same with a server of another kind.
pub(crate) async fn foreign(
    setting: &Setting,
    kind: Kind,
    report: &mut Report,
) -> Result<(), Fault> {
    let cases = [
        (100, Pace::FullSpeed, 4_000),
        (100, Pace::PerSecond(10), 100),
        (500, Pace::FullSpeed, 2_000),
        (500, Pace::PerSecond(10), 100),
        (10, Pace::PerSecond(55), 550),
    ];
    for (readers, pace, edits) in cases {
        let is_paper = readers == 10 && kind != Kind::Floor;
        if is_paper && setting.small_only {
            continue;
        }
        let what = match kind {
            Kind::Floor => "bytes",
            _ if is_paper => "259,778-change document",
            _ => "small document",
        };
        let server = Server::start(kind);
        let edits = kind.edits(setting.scaled(edits), is_paper);
        foreign::fan_out(&server, edits, readers, pace, what, report).await?;
    }
    Ok(())
}

/// When each edit was sent, and how far it got.
struct Progress {
    began: Instant,
    /// Of the first measured edit.
    first_seq: u64,
    sent_ns: Vec<AtomicU64>,
    readers_reached: Vec<AtomicU32>,
    last_reached_ns: Vec<AtomicU64>,
}

impl Progress {
    fn new(edits: usize, first_seq: u64) -> Self {
        Self {
            began: Instant::now(),
            first_seq,
            sent_ns: (0..edits).map(|_| AtomicU64::new(0)).collect(),
            readers_reached: (0..edits).map(|_| AtomicU32::new(0)).collect(),
            last_reached_ns: (0..edits).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn sent(&self, edit: usize) {
        self.sent_ns[edit].store(self.now_ns(), Ordering::Relaxed);
    }

    fn reached(&self, seqs: &[u64], readers: u32) {
        for seq in seqs {
            let edit = (seq - self.first_seq) as usize;
            if self.readers_reached[edit].fetch_add(1, Ordering::Relaxed) + 1 == readers {
                self.last_reached_ns[edit].store(self.now_ns(), Ordering::Relaxed);
            }
        }
    }

    /// Only of edits that reached each reader as a change: a relay may fold them into a snapshot.
    fn to_last_reader(&self) -> Vec<Duration> {
        let both = self.sent_ns.iter().zip(&self.last_reached_ns);
        both.filter_map(|(sent, reached)| {
            let (sent, reached) = (
                sent.load(Ordering::Relaxed),
                reached.load(Ordering::Relaxed),
            );
            reached.checked_sub(sent).map(Duration::from_nanos)
        })
        .collect()
    }
}

async fn measure(
    relay: &Relay,
    typed: Typed,
    case: Case,
    report: &mut Report,
) -> Result<(), Fault> {
    let Typed {
        name,
        document,
        mut typist,
        before,
    } = typed;
    let url = relay.url();
    let id = document.name().parse().unwrap();

    let edits = typist.keystrokes(case.edits);
    let mut writer = Client::connect(&url, "writer").await?;
    writer.open(document);
    writer.until_acked(0).await?;
    let documents = (0..case.readers)
        .map(|_| Document::new(id).keeping())
        .collect();
    let readers = match case.ours {
        true => connect_each_of_ours(&url, "reader", documents).await?,
        false => connect_each(&url, "reader", documents).await?,
    };
    let progress = Arc::new(Progress::new(case.edits, before + 1));

    let last = edits.last().expect("there are edits").hash;
    let deliveries = case.edits * case.readers;
    let stopwatch = Stopwatch::start(relay);
    let reading: Vec<_> = (readers.into_iter())
        .map(|reader| {
            let progress = Arc::clone(&progress);
            tokio::spawn(read(reader, case.readers, last, progress))
        })
        .collect();
    let mut acks = write(&mut writer, edits, case.pace, |edit| progress.sent(edit)).await?;
    let written_in = stopwatch.elapsed();
    let mut readers = Vec::new();
    for reader in reading {
        readers.push(reader.await.unwrap()?);
    }
    let delivered_in = stopwatch.elapsed();
    let cpu = stopwatch.cpu(deliveries, "delivery");
    let memory = relay.usage();

    let expected = typist.contents();
    let mut distinct = HashSet::new();
    let mut messages = 0;
    for reader in &readers {
        let document = reader.document(0);
        messages += document.received.messages_with_chunks;
        let right = document.heads() == expected.heads && document.received.gaps == 0;
        report.check(right, || {
            format!("{name}: a reader's heads or order: {:?}", document.received)
        });
        report.check(document.received.duplicates == 0, || {
            format!(
                "{name}: a reader got changes twice: {:?}",
                document.received
            )
        });
        distinct.insert(document.kept());
    }
    for received in &distinct {
        let loaded = typist::load(received);
        report.check(loaded.as_ref() == Ok(&expected), || {
            format!(
                "{name}: a reader's document: {:?}",
                loaded.map(|contents| contents.heads)
            )
        });
    }

    let pace = case.pace.name();
    let whose = if case.ours { " clients of ours" } else { "" };
    let what = format!("fan-out to {}{whose}, {name}, {pace}", case.readers);
    report.row(Row {
        what: format!("{what}: edit to last reader"),
        rate: format!("{} deliveries/s", per_second(deliveries, delivered_in)),
        latency: p50_p99(&mut progress.to_last_reader()),
        cpu,
        memory: format!("{}, peak {}", mib(memory.resident_bytes), mib(memory.peak_bytes)),
        checked: format!(
            "{} readers: heads, order, text ({} distinct byte streams loaded); {:.2} edits per message",
            case.readers,
            distinct.len(),
            deliveries as f64 / messages.saturating_sub(case.readers as u64).max(1) as f64,
        ),
    });
    report.row(Row {
        what: format!("{what}: edit to durable ack"),
        rate: format!("{} edits/s", per_second(case.edits, written_in)),
        latency: p50_p99(&mut acks),
        checked: "edits made beforehand, each one sync message".into(),
        ..Row::default()
    });
    Ok(())
}

/// Reads until the last edit is there.
async fn read(
    mut reader: Client,
    readers: usize,
    last: ChangeHash,
    progress: Arc<Progress>,
) -> Result<Client, Fault> {
    while reader.document(0).heads() != [last] {
        reader.next_in_time().await?;
        progress.reached(reader.applied(), readers as u32);
    }
    Ok(reader)
}

/// Writes these changes to the client's first document, each as a message, until all are acknowledged. How long each took to be acknowledged is returned.
pub(crate) async fn write(
    writer: &mut Client,
    edits: Vec<Change>,
    pace: Pace,
    mut sent: impl FnMut(usize),
) -> Result<Vec<Duration>, Fault> {
    let before = writer.document(0).written();
    let count = edits.len();
    let mut edits = edits.into_iter().enumerate();
    let mut sent_at = Vec::with_capacity(count);
    let mut acks = Vec::with_capacity(count);
    let interval = pace.interval();
    let mut ticks = tokio::time::interval(interval.unwrap_or(Duration::from_secs(1)));
    while acks.len() < count {
        let room = pace
            .in_flight_max()
            .saturating_sub(sent_at.len() - acks.len());
        for (edit, change) in edits.by_ref().take(room) {
            sent(edit);
            sent_at.push(Instant::now());
            writer.write(0, change);
        }
        let is_typing = interval.is_some() && sent_at.len() < count;
        let is_tick = tokio::select! {
            event = writer.next_in_time() => {
                event?;
                false
            }
            _ = ticks.tick(), if is_typing => true,
        };
        if is_tick && let Some((edit, change)) = edits.next() {
            sent(edit);
            sent_at.push(Instant::now());
            writer.write(0, change);
        }
        let acked = writer.document(0).acked().saturating_sub(before);
        for at in sent_at.iter().take(acked).skip(acks.len()) {
            acks.push(at.elapsed());
        }
    }
    Ok(acks)
}
