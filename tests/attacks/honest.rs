//! Those whom an attack must not hurt, and what they see of it.
//!
//! All of them do what they do at a steady pace, however long the relay takes, so that a relay that
//! stands still for a second shows as many slow answers as there would have been quick ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ChangeHash, ROOT};
use bytes::Bytes;
use reconverge::id::DocumentId;
use reconverge_tests::Random;
use reconverge_tests::light::{Change, Client, Document, Fault, PATIENCE};
use reconverge_tests::typist::Typist;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

const EDITORS: u64 = 3;
const KEYSTROKE_EVERY: Duration = Duration::from_millis(50);

const UPLOADERS: u64 = 2;
const UPLOAD_EVERY: Duration = Duration::from_millis(200);
/// Enough that the workshop unpacks them when they come as one chunk.
const PACKED_CHANGES: usize = 100;
/// Above 64 KiB, where the relay takes another way.
const LARGE_BYTES: usize = 100 * 1024;

const NEWCOMER_EVERY: Duration = Duration::from_millis(500);

/// When something was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody attacks yet.
    Before,
    /// The attack lasts.
    During,
    /// Nothing more is begun.
    Over,
}

/// Who was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Edit,
    Upload,
    Newcomer,
}

/// How long the relay took over one thing, or has taken until it was given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    pub(crate) took: Duration,
}

impl Sample {
    fn new(kind: Kind, phase: Phase, since: Instant) -> Self {
        Self {
            kind,
            phase,
            took: since.elapsed(),
        }
    }
}

/// What one of them saw.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) samples: Vec<Sample>,
    /// Documents that were acknowledged, with the heads that they must have.
    pub(crate) acknowledged: Vec<(DocumentId, Vec<ChangeHash>)>,
    /// What should not have been.
    pub(crate) faults: Vec<String>,
    /// How often a connection was cut.
    pub(crate) cuts: u32,
    /// Bytes sent.
    pub(crate) sent: u64,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.acknowledged.extend(other.acknowledged);
        self.faults.extend(other.faults);
        self.cuts += other.cuts;
        self.sent += other.sent;
    }
}

/// All honest people of one relay.
#[derive(Debug)]
pub(crate) struct Honest {
    url: String,
    phase: Arc<AtomicU8>,
    people: JoinSet<Report>,
}

/// The name of the editor with this number: presence shows it to everybody.
pub(crate) fn editor_name(number: u64) -> String {
    format!("editor-{number}")
}

fn editor_document(number: u64) -> DocumentId {
    DocumentId::new(&[200 + number as u8; 16]).unwrap()
}

impl Honest {
    /// Connects them; they begin at once.
    pub(crate) async fn begin(url: &str) -> Self {
        let mut honest = Self {
            url: url.to_owned(),
            phase: Arc::default(),
            people: JoinSet::new(),
        };
        for number in 0..EDITORS {
            let editor = Editor::begin(&honest, number).await;
            honest.people.spawn(editor.run());
        }
        let samples = Uploads::new();
        for number in 0..UPLOADERS {
            let uploader = Uploader::begin(&honest, number, samples.clone()).await;
            honest.people.spawn(uploader.run());
        }
        honest.people.spawn(welcome(honest.person()));
        honest
    }

    fn person(&self) -> Person {
        Person {
            url: self.url.clone(),
            phase: self.phase.clone(),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    /// Waits until all that they began is done, or was given up after [`PATIENCE`].
    pub(crate) async fn end(mut self) -> Report {
        self.enter(Phase::Over);
        let mut report = Report::default();
        while let Some(ended) = self.people.join_next().await {
            report.add(ended.unwrap());
        }
        report
    }
}

/// Where somebody finds the relay, and what time it is.
#[derive(Debug, Clone)]
struct Person {
    url: String,
    phase: Arc<AtomicU8>,
}

impl Person {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Before,
            1 => Phase::During,
            _ => Phase::Over,
        }
    }

    async fn connect(&self, name: &str) -> Client {
        Client::connect(&self.url, name).await.unwrap()
    }

    /// Comes back with all documents, as a client does whose connection was cut.
    async fn come_back(&self, name: &str, client: &mut Client, report: &mut Report) -> bool {
        report.cuts += 1;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            sleep(Duration::from_millis(200)).await;
            if let Ok(next) = Client::connect(&self.url, name).await {
                let old = std::mem::replace(client, next);
                report.sent += old.traffic.bytes_out;
                for document in old.into_documents() {
                    client.open(document);
                }
                return true;
            }
        }
        report.faults.push(format!("{name} did not get in again"));
        false
    }
}

fn pace(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// Types in one document, and has it open in a second place, too.
struct Editor {
    person: Person,
    number: u64,
    typist: Typist,
    client: Client,
    reader: Client,
    /// Keystrokes that are not acknowledged, with when they were made.
    waiting: VecDeque<(Phase, Instant)>,
    report: Report,
}

impl Editor {
    async fn begin(honest: &Honest, number: u64) -> Self {
        let person = honest.person();
        let (typist, first) = Typist::new(number);
        let id = editor_document(number);
        let mut client = person.connect(&editor_name(number)).await;
        client.open(Document::created(id, [first]));
        client.until_acked(0).await.unwrap();
        let mut reader = person.connect(&format!("reader-{number}")).await;
        reader.open(Document::new(id));
        let in_step = |client: &Client| client.document(0).is_in_step();
        reader.until(in_step).await.unwrap();
        Self {
            person,
            number,
            typist,
            client,
            reader,
            waiting: VecDeque::new(),
            report: Report::default(),
        }
    }

    async fn run(mut self) -> Report {
        let name = editor_name(self.number);
        let mut ticks = pace(KEYSTROKE_EVERY);
        while self.person.phase() != Phase::Over || !self.waiting.is_empty() {
            tokio::select! {
                _ = ticks.tick() => self.tick(),
                event = self.client.next() => if event.is_err() {
                    let person = self.person.clone();
                    if !person.come_back(&name, &mut self.client, &mut self.report).await {
                        return self.report;
                    }
                },
                event = self.reader.next() => if event.is_err() {
                    let name = format!("reader-{}", self.number);
                    let person = self.person.clone();
                    if !person.come_back(&name, &mut self.reader, &mut self.report).await {
                        return self.report;
                    }
                },
            }
            self.count_acknowledged();
            let oldest = self.waiting.front();
            if let Some((_, since)) = oldest.filter(|(_, since)| since.elapsed() > PATIENCE) {
                let fault = format!("{name}: a keystroke waits for {:?}", since.elapsed());
                self.report.faults.push(fault);
                let waiting = self.waiting.iter();
                let waited = waiting.map(|(phase, since)| Sample::new(Kind::Edit, *phase, *since));
                self.report.samples.extend(waited);
                break;
            }
        }
        self.finish().await
    }

    fn tick(&mut self) {
        let phase = self.person.phase();
        if phase != Phase::Over {
            self.client.write(0, self.typist.keystroke());
            self.waiting.push_back((phase, Instant::now()));
        }
    }

    fn count_acknowledged(&mut self) {
        let document = self.client.document(0);
        let left = document.written() - document.acked();
        while self.waiting.len() > left {
            let (phase, since) = self.waiting.pop_front().unwrap();
            let sample = Sample::new(Kind::Edit, phase, since);
            self.report.samples.push(sample);
        }
    }

    async fn finish(mut self) -> Report {
        let heads = self.client.document(0).heads().to_vec();
        if self.waiting.is_empty() {
            let id = editor_document(self.number);
            self.report.acknowledged.push((id, heads.clone()));
            let seen = |client: &Client| client.document(0).heads() == heads;
            if let Err(fault) = self.reader.until(seen).await {
                let fault = format!("reader-{}: {fault}", self.number);
                self.report.faults.push(fault);
            }
        }
        self.report.sent += self.client.traffic.bytes_out + self.reader.traffic.bytes_out;
        self.report
    }
}

/// The contents that are uploaded, each time as a document of its own.
#[derive(Debug, Clone)]
struct Uploads {
    small: Vec<Change>,
    packed: (Bytes, Arc<[ChangeHash]>),
    large: Change,
}

impl Uploads {
    fn new() -> Self {
        let (mut typist, first) = Typist::new(77);
        let mut small = vec![first];
        small.extend(typist.keystrokes(3));
        let mut hashes: Vec<ChangeHash> = small.iter().map(|change| change.hash).collect();
        let more = typist.keystrokes(PACKED_CHANGES);
        hashes.extend(more.iter().map(|change| change.hash));
        let packed = (typist.save().into(), hashes.into());
        let mut doc = AutoCommit::new().with_actor([9; 16].as_slice().into());
        let value = Random::new(5).noise(LARGE_BYTES);
        doc.put(ROOT, "value", value).unwrap();
        doc.commit();
        let large = Change::from(&doc.get_last_local_change().unwrap());
        Self {
            small,
            packed,
            large,
        }
    }

    /// The upload with this number.
    fn document(&self, number: usize, id: DocumentId) -> Document {
        match kind(number) {
            "small" => Document::created(id, self.small.clone()),
            "packed" => Document::with_snapshot(id, self.packed.0.clone(), self.packed.1.clone()),
            _ => Document::created(id, [self.large.clone()]),
        }
    }
}

/// What kind of upload has this number; large ones are compacted at once, so they are rarer.
fn kind(number: usize) -> &'static str {
    ["small", "packed", "small", "packed", "small", "large"][number % 6]
}

/// Creates one document after the other.
struct Uploader {
    person: Person,
    name: String,
    client: Client,
    uploads: Uploads,
    random: Random,
    ids: Vec<DocumentId>,
    /// Places of documents that are not acknowledged, with when they were begun.
    waiting: VecDeque<(usize, Phase, Instant)>,
    report: Report,
}

impl Uploader {
    async fn begin(honest: &Honest, number: u64, uploads: Uploads) -> Self {
        let person = honest.person();
        let name = format!("uploader-{number}");
        let client = person.connect(&name).await;
        Self {
            person,
            name,
            client,
            uploads,
            random: Random::new(1000 + number),
            ids: Vec::new(),
            waiting: VecDeque::new(),
            report: Report::default(),
        }
    }

    async fn run(mut self) -> Report {
        let mut ticks = pace(UPLOAD_EVERY);
        while self.person.phase() != Phase::Over || !self.waiting.is_empty() {
            tokio::select! {
                _ = ticks.tick() => self.tick(),
                event = self.client.next() => if event.is_err() {
                    let (person, name) = (self.person.clone(), self.name.clone());
                    if !person.come_back(&name, &mut self.client, &mut self.report).await {
                        return self.report;
                    }
                },
            }
            self.count_acknowledged();
            let late = |(_, _, since): &&(usize, Phase, Instant)| since.elapsed() > PATIENCE;
            let late: Vec<_> = self.waiting.iter().filter(late).collect();
            if let Some((at, ..)) = late.first() {
                let kind = kind(*at);
                let waiting = self.waiting.len();
                let fault = format!(
                    "{}: a {kind} upload waits for a minute, of {waiting}",
                    self.name
                );
                self.report.faults.push(fault);
                let waiting = self.waiting.iter();
                let waited =
                    waiting.map(|(_, phase, since)| Sample::new(Kind::Upload, *phase, *since));
                self.report.samples.extend(waited);
                break;
            }
        }
        self.report.sent += self.client.traffic.bytes_out;
        self.report
    }

    fn tick(&mut self) {
        let phase = self.person.phase();
        if phase != Phase::Over {
            let id = self.random.document_id();
            let document = self.uploads.document(self.ids.len(), id);
            let at = self.client.open(document);
            self.ids.push(id);
            self.waiting.push_back((at, phase, Instant::now()));
        }
    }

    fn count_acknowledged(&mut self) {
        let (client, report, ids) = (&self.client, &mut self.report, &self.ids);
        self.waiting.retain(|(at, phase, since)| {
            let document = client.document(*at);
            let acknowledged = document.acked() == document.written();
            if acknowledged {
                let sample = Sample::new(Kind::Upload, *phase, *since);
                report.samples.push(sample);
                let heads = document.heads().to_vec();
                report.acknowledged.push((ids[*at], heads));
            }
            !acknowledged
        });
    }
}

/// Somebody new comes again and again, and asks for an editor's document.
async fn welcome(person: Person) -> Report {
    let mut ticks = pace(NEWCOMER_EVERY);
    let mut coming = JoinSet::new();
    let mut count = 0;
    loop {
        ticks.tick().await;
        let phase = person.phase();
        if phase == Phase::Over {
            break;
        }
        count += 1;
        let (person, name) = (person.clone(), format!("newcomer-{count}"));
        coming.spawn(async move {
            let since = Instant::now();
            let came = timeout(PATIENCE, come(&person, &name)).await;
            match came {
                Ok(Ok(())) => Ok(Sample::new(Kind::Newcomer, phase, since)),
                Ok(Err(fault)) => Err(format!("{name}: {fault}")),
                Err(_) => Err(format!("{name} does not get in")),
            }
        });
    }
    let mut report = Report::default();
    while let Some(came) = coming.join_next().await {
        match came.unwrap() {
            Ok(sample) => report.samples.push(sample),
            Err(fault) => report.faults.push(fault),
        }
    }
    report
}

async fn come(person: &Person, name: &str) -> Result<(), Fault> {
    let mut client = Client::connect(&person.url, name).await?;
    client.open(Document::new(editor_document(0)));
    let has_it = |client: &Client| !client.document(0).heads().is_empty();
    client.until(has_it).await
}

/// What of this the relay no longer has.
pub(crate) async fn lost(url: &str, acknowledged: &[(DocumentId, Vec<ChangeHash>)]) -> Vec<String> {
    let mut client = Client::connect(url, "auditor").await.unwrap();
    for (id, _) in acknowledged {
        client.open(Document::new(*id));
    }
    let is_whole =
        |client: &Client, at: usize| client.document(at).heads() == acknowledged[at].1.as_slice();
    let all = 0..acknowledged.len();
    let mut next = 0;
    let found = client.until(|client| {
        while next < acknowledged.len() && is_whole(client, next) {
            next += 1;
        }
        next == acknowledged.len()
    });
    match found.await {
        Ok(()) => Vec::new(),
        Err(fault) => {
            let fault: String = fault.to_string().chars().take(80).collect();
            let gone: Vec<usize> = all.filter(|at| !is_whole(&client, *at)).collect();
            let first = acknowledged[gone[0]].0;
            let gone = gone.len();
            vec![format!(
                "{gone} documents are not what was acknowledged, such as {first}: {fault}"
            )]
        }
    }
}
