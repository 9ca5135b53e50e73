//! Aim: whatever happens to the bytes of a file, what is read of it is what was written, or an error
//! that says what to do; nothing panics, aborts, hangs or asks for memory without bound.
//!
//! Method: files of all versions, grown ones of many pages, and files that a crash left, are damaged
//! anywhere, thousands of times: bits, lines, pages, the length, the fields of redb's header. Each is
//! opened, read, written to, closed, and read again. That runs in child processes with a limit of
//! memory and of time, so that an abort or a hang is seen and named. A sample of the same files goes
//! to the relay's executable and to the client.
//!
//! `RECONVERGE_DAMAGE_SEED` repeats one round, `RECONVERGE_DAMAGE_ROUNDS` says how many there are.

#![allow(clippy::unwrap_used, reason = "in a test, the panic is the report")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Automerge, ROOT};
use bytes::Bytes;
use reconverge::id::DocumentId;
use reconverge::native::{BuildError, Repo};
use reconverge::storage::{Batch, Blob, Storage, StorageError, Write};
use reconverge_tests::Random;
use reconverge_tests::faults::{Disk, Fault, Survivors};
use reconverge_tests::light::{Client, Document};
use reconverge_tests::process::relay_executable;
use reconverge_tests::stored::{Contents, documents, open, read, stored, versions};
use redb::StorageBackend;

const ROUNDS: u64 = 6_000;

/// How many rounds one child runs.
const BATCH: u64 = 1000;

/// Address space of a child, in KiB.
const MEMORY_KIB: u64 = 2 * 1024 * 1024;

/// Most time for one round; it takes milliseconds.
const ROUND_MAX: Duration = Duration::from_secs(120);

const PAGE: usize = 4096;

/// A file to be damaged.
struct File {
    name: String,
    /// The version that made it, if it is one of the files that are kept.
    version: Option<u32>,
    ids: Vec<DocumentId>,
    bytes: Vec<u8>,
    /// The same file some commits earlier.
    before: Vec<u8>,
    whole: Contents,
    /// Where in it values lie that are read.
    values: Vec<Range<usize>>,
    /// It was closed, and not left by a crash.
    closed: bool,
}

impl File {
    fn new(name: String, ids: Vec<DocumentId>, bytes: Vec<u8>, before: Vec<u8>) -> Self {
        let mut whole = Contents::new();
        let storage = open(&Disk::holding(bytes.clone())).unwrap();
        assert_eq!(read(&storage, &ids, &mut whole), 0, "{name}");
        assert!(whole.len() > 3, "{} values", whole.len());
        let values = whole.values().flatten().filter(|value| value.len() > 16);
        let step = values.clone().count().div_ceil(40);
        let values = values.step_by(step).filter_map(|value| {
            let at = bytes.windows(value.len()).position(|at| at == &value[..])?;
            Some(at..at + value.len())
        });
        Self {
            values: values.collect(),
            closed: bytes[9] & 2 == 0,
            version: None,
            name,
            ids,
            bytes,
            before,
            whole,
        }
    }
}

fn image(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.len().unwrap() as usize];
    disk.read(0, &mut bytes).unwrap();
    bytes
}

/// All files: those of each version as they were closed, as a crash leaves them after some commits,
/// and grown to many pages.
fn files() -> Vec<File> {
    let mut files = Vec::new();
    for version in versions() {
        let ids: Vec<_> = documents(version).into_values().map(|(id, _)| id).collect();
        for of in ["relay", "client"] {
            let name = format!("{of} of version {version}");
            let closed = stored(version, of);
            let disk = Disk::holding(closed.clone());
            let storage = open(&disk).unwrap();
            storage.commit(&[edit(&storage, DOCUMENT_NEW)]).unwrap();
            let crashed = image(&disk.crash(Survivors::All));
            drop(storage);
            let after_crash = format!("{name}, after a crash");
            for (name, bytes) in [(name, closed.clone()), (after_crash, crashed)] {
                files.push(File {
                    version: Some(version),
                    ..File::new(name, ids.clone(), bytes, closed.clone())
                });
            }
        }
    }
    let (ids, bytes) = torn();
    files.push(File::new(String::from("torn"), ids, bytes.clone(), bytes));
    let grown = grown();
    for (name, after) in [
        ("grown, after a crash", grown.crash(Survivors::All)),
        ("grown", {
            let disk = grown.crash(Survivors::All);
            drop(open(&disk).unwrap());
            disk
        }),
    ] {
        let ids = (0..COPIES).map(copy_id).collect();
        let before = image(&grown);
        files.push(File::new(name.to_owned(), ids, image(&after), before));
    }
    files
}

/// What a crash in the middle of making a file smaller leaves: redb then looks by itself which commit
/// is whole.
fn torn() -> (Vec<DocumentId>, Vec<u8>) {
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    let mut left = None;
    for strikes in 1.. {
        let fresh = disk.crash(Survivors::All);
        let storage = open(&fresh).unwrap();
        let mut large = edit(&storage, 1);
        large.writes[0] = Write::Blob(Blob::Snapshot(7), Bytes::from(vec![1; 5_000_000]));
        storage.commit(std::slice::from_ref(&large)).unwrap();
        storage.commit(&[edit(&storage, 2)]).unwrap();
        large.writes = vec![Write::RemoveBlob(Blob::Snapshot(7))];
        fresh.strike_at(strikes, Fault::Freezes);
        let _ = storage.commit(&[large]);
        let after = fresh.crash(Survivors::Some(strikes));
        let bytes = image(&after);
        if bytes[9] & 4 == 0 && open(&after).is_ok() {
            left = Some(bytes);
        } else if left.is_some() || !fresh.struck() {
            break;
        }
    }
    (vec![copy_id(2)], left.expect("a commit in one phase"))
}

const COPIES: u32 = 48;

fn copy_id(n: u32) -> DocumentId {
    let mut id = [7; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    DocumentId::new(&id).unwrap()
}

const DOCUMENT_NEW: u32 = 1_000_000;

/// Copies of a relay's documents, so that every table has several levels of pages.
fn grown() -> Disk {
    let last = versions().end - 1;
    let from = open(&Disk::holding(stored(last, "relay"))).unwrap();
    let names = documents(last);
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    let storage = open(&disk).unwrap();
    for n in 0..COPIES {
        let name = ["new", "folded", "new", "quarantined"][n as usize % 4];
        let (id, _) = &names[name];
        let stored = from.load(id).unwrap().unwrap();
        let record = stored.record;
        let mut writes = Vec::new();
        let rows = from.rows(stored.key, record.rows_from, usize::MAX).unwrap();
        for (last, row) in rows {
            writes.push(Write::Row { last, row });
        }
        let mut blobs: Vec<Blob> = (0..record.segments).map(Blob::Segment).collect();
        blobs.extend((0..record.quarantined).map(Blob::Quarantine));
        if record.generation > 0 {
            blobs.push(Blob::Snapshot(record.generation));
            blobs.push(Blob::Outline(record.generation));
        }
        for blob in blobs {
            writes.push(Write::Blob(blob, from.blob(stored.key, blob).unwrap()));
        }
        writes.push(Write::Record(record));
        let batch = Batch {
            document: copy_id(n),
            key: storage.new_key(),
            writes,
        };
        storage.commit(&[batch]).unwrap();
    }
    let left = disk.crash(Survivors::All);
    // Closed, so that pages are given back and used again by what comes after.
    drop(storage);
    left
}

/// A document with little in it.
fn edit(storage: &dyn Storage, n: u32) -> Batch {
    let from = DocumentId::new(&[3; 16]).unwrap();
    let mut record = reconverge::history::Record::new(reconverge::id::Space::default());
    record.generation = 1;
    Batch {
        document: if n == 0 { from } else { copy_id(n) },
        key: storage.new_key(),
        writes: vec![
            Write::Blob(Blob::Snapshot(1), Bytes::from(vec![n as u8; 9000])),
            Write::Record(record),
            Write::Outbox(true),
        ],
    }
}

/// Where the header has a field, and how many bytes it takes.
const FIELDS: [(usize, usize); 20] = [
    (0, 8),
    (9, 1),
    (12, 4),
    (16, 4),
    (20, 4),
    (24, 4),
    (28, 4),
    (64, 1),
    (65, 1),
    (66, 1),
    (72, 8),
    (80, 16),
    (96, 8),
    (104, 8),
    (112, 16),
    (168, 8),
    (176, 16),
    (192, 1),
    (200, 8),
    (304, 16),
];

/// What disks, memory and other programs do to a file; what was done, in words.
fn damage(bytes: &mut Vec<u8>, file: &File, random: &mut Random) -> String {
    let len = bytes.len();
    if len < 2 * PAGE {
        // Cut to this before; all of it is header.
        return String::from("nothing more");
    }
    let at = random.below(len as u64) as usize;
    let page = |random: &mut Random| {
        let pages = (len / PAGE) as u64;
        random.below(pages) as usize * PAGE
    };
    let end = |from: usize, by: usize| len.min(from + by);
    match random.below(16) {
        0 => {
            bytes[at] ^= 1 << random.below(8);
            format!("a bit at {at}")
        }
        1 => {
            for _ in 0..64 {
                bytes[random.below(len as u64) as usize] ^= 1 << random.below(8);
            }
            String::from("64 bits")
        }
        2 => {
            bytes[at..end(at, 64)].iter_mut().for_each(|b| *b = !*b);
            format!("64 bytes inverted at {at}")
        }
        3 => {
            let at = page(random);
            bytes[at..at + PAGE].fill(0);
            format!("the page at {at} zeroed")
        }
        4 => {
            let (one, other) = (page(random), page(random));
            for n in 0..PAGE {
                bytes.swap(one + n, other + n);
            }
            format!("the pages at {one} and {other} swapped")
        }
        5 => {
            let to = if random.below(2) == 0 {
                at
            } else {
                page(random)
            };
            bytes.truncate(to.max(1));
            format!("cut to {}", bytes.len())
        }
        6 => {
            let more = random.below(20_000) as usize;
            let more = if random.below(2) == 0 {
                more
            } else {
                more / PAGE * PAGE
            };
            bytes.extend(random.noise(more));
            format!("{more} bytes appended")
        }
        7 | 8 => {
            let (at, size) = FIELDS[random.below(FIELDS.len() as u64) as usize];
            let field = &mut bytes[at.min(len - 1)..end(at, size)];
            match random.below(5) {
                0 => field.fill(0),
                1 => field.fill(0xff),
                2 => field[0] ^= 1 << random.below(8),
                3 => field[0] = field[0].wrapping_add(1),
                _ => {
                    let noise = random.noise(field.len());
                    field.copy_from_slice(&noise);
                }
            }
            format!("the field of the header at {at}")
        }
        9 => {
            let to = end(at, 1 + random.below(512) as usize);
            let noise = random.noise(to - at);
            bytes[at..to].copy_from_slice(&noise);
            format!("noise from {at} to {to}")
        }
        10 => {
            let (from, to) = (page(random), page(random));
            bytes.copy_within(from..from + PAGE, to);
            format!("the page at {from} written to {to}")
        }
        11 => {
            let at = page(random);
            let to = end(at, PAGE << random.below(3));
            if let Some(old) = file.before.get(at..to) {
                bytes[at..to].copy_from_slice(old);
            }
            format!("bytes {at} to {to} as they were before")
        }
        12 | 13 => {
            // What redb reads first of a page: its kind, and where what is.
            let at = page(random) + random.below(64) as usize;
            match random.below(3) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = 0xff,
                _ => bytes[at] = random.below(4) as u8,
            }
            format!("a byte near the beginning of a page, at {at}")
        }
        _ => {
            let places = file.values.len() as u64;
            let value = &file.values[random.below(places) as usize];
            let at = value.start + random.below(value.len() as u64) as usize;
            if at >= len {
                return String::from("nothing");
            }
            bytes[at..end(at, 4)].fill(0xff);
            format!("a value at {at}")
        }
    }
}

/// What one round came to.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    refused: u64,
    failed: u64,
    untouched: u64,
    unwritable: u64,
}

/// What a file cannot be opened for says what to do.
fn says_what_to_do(error: &StorageError) {
    let text = error.to_string();
    match error {
        StorageError::Unusable { .. } => {
            assert!(text.contains("backup") || text.contains("remove"), "{text}");
        }
        other => panic!("does not say what to do: {other:?}"),
    }
}

fn check(file: &File, found: &Contents, when: &str) {
    for (place, value) in found {
        let whole = file.whole.get(place);
        let what = if value.is_empty() {
            "gone"
        } else {
            "other than written"
        };
        assert!(whole == Some(value), "{when}: {place} is {what}");
    }
}

fn damaged(seed: u64, file: &File) -> (Vec<u8>, String) {
    let mut random = Random::new(seed);
    let mut bytes = file.bytes.clone();
    let times = 1 + random.below(3) * random.below(2);
    let done = (0..times).map(|_| damage(&mut bytes, file, &mut random));
    let done = done.collect::<Vec<_>>().join(", ");
    if bytes.len() > 9 {
        keep_the_commit_that_counts(&mut bytes, file);
    }
    (bytes, done)
}

/// Which of its two commits counts, and whether only that one may, are bits in redb's header that no
/// checksum covers (`PRIMARY_BIT` and `TWO_PHASE_COMMIT`, redb 4.5.0,
/// `src/tree_store/page_store/header.rs:61` and 63; `select_primary_slot`, line 324). After a crash
/// both commits may be whole, and nobody can tell that a bit was not what it is now: the last commit
/// is gone. Nothing outside of redb can help, so these bits are left alone in files that were not
/// closed.
fn keep_the_commit_that_counts(bytes: &mut [u8], file: &File) {
    const BITS: u8 = 1 | 4;
    if !file.closed {
        bytes[9] = bytes[9] & !BITS | file.bytes[9] & BITS;
    }
}

fn round(file: &File, bytes: Vec<u8>) -> Outcome {
    let mut outcome = Outcome::default();
    let disk = Disk::holding(bytes);
    let storage = match open(&disk) {
        Ok(storage) => storage,
        Err(error) => {
            says_what_to_do(&error);
            outcome.refused = 1;
            return outcome;
        }
    };
    let mut found = Contents::new();
    outcome.failed = read(&storage, &file.ids, &mut found) as u64;
    check(file, &found, "at first");
    let written = storage.commit(&[edit(&storage, 0)]).is_ok();
    outcome.unwritable = u64::from(!written);
    let new = DocumentId::new(&[3; 16]).unwrap();
    let check_written = |storage: &dyn Storage, when: &str| {
        if written && let Ok(stored) = storage.load(&new) {
            let key = stored.unwrap_or_else(|| panic!("{when}: gone")).key;
            if let Ok(snapshot) = storage.blob(key, Blob::Snapshot(1)) {
                assert!(snapshot[..] == [0; 9000], "{when}");
            }
        }
    };
    check_written(&storage, "what was just written");
    let mut found = Contents::new();
    read(&storage, &file.ids, &mut found);
    check(file, &found, "after a commit");
    drop(storage);
    match open(&disk) {
        Ok(storage) => {
            let mut found = Contents::new();
            read(&storage, &file.ids, &mut found);
            check(file, &found, "after it was closed");
            check_written(&storage, "what was written before it was closed");
        }
        Err(error) => says_what_to_do(&error),
    }
    if outcome.failed == 0 {
        outcome.untouched = 1;
    }
    outcome
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}

/// The rounds of one child, each announced.
#[test]
#[ignore = "what the children of the next test run"]
fn rounds_of_a_child() {
    let (Some(from), Some(to)) = (
        number("RECONVERGE_DAMAGE_FROM"),
        number("RECONVERGE_DAMAGE_TO"),
    ) else {
        return;
    };
    #[cfg(feature = "planted")]
    if number("RECONVERGE_DAMAGE_PLANTED").is_some() {
        reconverge::planted::plant(Some(reconverge::planted::Bug::DamagePassedOn));
    }
    let files = files();
    for seed in from..to {
        let file = &files[seed as usize % files.len()];
        say(&format!("round {seed}: damaging {}", file.name));
        let (bytes, done) = damaged(seed, file);
        say(&format!("round {seed}: {}, {done}", file.name));
        let Outcome {
            refused,
            failed,
            untouched,
            unwritable,
        } = round(file, bytes);
        say(&format!("was {refused} {failed} {untouched} {unwritable}"));
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

/// Runs rounds in a child process; the sums, or what went wrong.
fn run_child(from: u64, to: u64) -> Result<Outcome, String> {
    run_child_with(from, to, false)
}

/// The same, with a mistake built in.
fn run_child_with(from: u64, to: u64, planted: bool) -> Result<Outcome, String> {
    let mut command = Command::new("sh");
    if planted {
        command.env("RECONVERGE_DAMAGE_PLANTED", "1");
    }
    let mut child = command
        .arg("-c")
        .arg(format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "rounds_of_a_child", "--ignored", "--nocapture"])
        .env("RUST_BACKTRACE", "0")
        .env("RECONVERGE_DAMAGE_FROM", from.to_string())
        .env("RECONVERGE_DAMAGE_TO", to.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (told, lines) = channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    let reading = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let _ = told.send(line);
        }
    });
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let (mut round, mut sum, mut hangs) =
        (String::from("before the first"), Outcome::default(), false);
    loop {
        match lines.recv_timeout(ROUND_MAX) {
            Ok(line) => {
                if let Some(of) = line.strip_prefix("round ") {
                    of.clone_into(&mut round);
                } else if let Some(was) = line.strip_prefix("was ") {
                    let was: Vec<u64> = was.split(' ').map(|n| n.parse().unwrap()).collect();
                    sum.refused += was[0];
                    sum.failed += was[1];
                    sum.untouched += was[2];
                    sum.unwritable += was[3];
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                hangs = true;
                child.kill().unwrap();
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().unwrap();
    reading.join().unwrap();
    let errors = errors.join().unwrap();
    if status.success() {
        return Ok(sum);
    }
    let how = if hangs {
        String::from("hangs")
    } else {
        status.to_string()
    };
    let seed = round.split(':').next().unwrap();
    Err(format!(
        "RECONVERGE_DAMAGE_SEED={seed} {how} in round {round}\n{errors}"
    ))
}

#[test]
fn a_file_damaged_anywhere_gives_what_was_written_or_an_error() {
    if let Some(seed) = number("RECONVERGE_DAMAGE_SEED") {
        let files = files();
        let file = &files[seed as usize % files.len()];
        let (bytes, done) = damaged(seed, file);
        println!("{}: {done}", file.name);
        println!("{:?}", round(file, bytes));
        return;
    }
    let rounds = number("RECONVERGE_DAMAGE_ROUNDS").unwrap_or(ROUNDS);
    let next = AtomicU64::new(0);
    let work = || {
        let (mut sum, mut wrong) = (Outcome::default(), Vec::new());
        loop {
            let from = next.fetch_add(BATCH, Ordering::Relaxed);
            if from >= rounds {
                return (sum, wrong);
            }
            let mut from = from;
            let to = rounds.min(from + BATCH);
            while from < to && wrong.len() < 5 {
                match run_child(from, to) {
                    Ok(of_child) => {
                        sum.refused += of_child.refused;
                        sum.failed += of_child.failed;
                        sum.untouched += of_child.untouched;
                        sum.unwritable += of_child.unwritable;
                        from = to;
                    }
                    Err(why) => {
                        let seed = why.split(['=', ' ']).nth(1).and_then(|n| n.parse().ok());
                        from = seed.map_or(to, |seed: u64| seed + 1);
                        wrong.push(why);
                    }
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect::<Vec<_>>()
    });
    let wrong: Vec<_> = results
        .iter()
        .flat_map(|(_, wrong)| wrong.clone())
        .collect();
    let total = |of: fn(&Outcome) -> u64| results.iter().map(|(sum, _)| of(sum)).sum::<u64>();
    let (refused, failed) = (total(|sum| sum.refused), total(|sum| sum.failed));
    let (untouched, unwritable) = (total(|sum| sum.untouched), total(|sum| sum.unwritable));
    println!(
        "of {rounds} files {refused} were not opened, {untouched} read whole and {unwritable} not \
         written to; {failed} reads failed"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if rounds >= ROUNDS {
        assert!(refused > rounds / 50 && untouched > rounds / 50 && failed > rounds / 2);
    }
}

/// With this mistake built in, the rounds above find it.
#[cfg(feature = "planted")]
#[test]
fn a_planted_damage_that_is_passed_on_is_caught() {
    let from = (0..ROUNDS).step_by(BATCH as usize);
    let mut wrong = from.filter_map(|from| run_child_with(from, from + BATCH, true).err());
    let passed_on = |why: &String| why.contains("other than written");
    println!(
        "{}",
        wrong.find(passed_on).expect("a value that was passed on")
    );
}

/// How many files go to the relay, and to the client.
const SAMPLE: u64 = 60;

/// The seeds of the sample, those of files of a relay or of a client.
fn sample(files: &[File], of: &str) -> Vec<u64> {
    if let Some(seed) = number("RECONVERGE_DAMAGE_SEED") {
        return vec![seed];
    }
    let fits = |seed: &u64| files[*seed as usize % files.len()].name.contains(of);
    (0_u64..).filter(fits).take(SAMPLE as usize).collect()
}

/// The changes of each document of each version's relay.
type Rightful = HashMap<(u32, DocumentId), Vec<automerge::ChangeHash>>;

/// What the relay's executable says and does on this file.
struct Running {
    child: Child,
    address: Option<String>,
    log: Arc<Mutex<String>>,
    reading: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Starts it, and waits until it serves or has ended.
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(relay_executable())
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let errors = BufReader::new(child.stderr.take().unwrap());
        let words = log.clone();
        let reading = std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                *words.lock().unwrap() += &(line + "\n");
            }
        });
        let mut first = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut first).unwrap();
        let address = first.trim().strip_prefix("listening on ");
        Self {
            child,
            address: address.map(str::to_owned),
            log,
            reading: Some(reading),
        }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Tells it to end; its exit code and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        if self.address.is_some() {
            let process = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        }
        let status = self.child.wait().unwrap();
        self.reading.take().unwrap().join().unwrap();
        (status.code(), self.log())
    }
}

/// Aim: the relay on a damaged file says which and what to do, and ends with 1; or it serves what is
/// whole, takes edits or says why not, and ends with 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_on_a_damaged_file_serves_or_says_what_to_do() {
    let files = files();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reconverge.redb");
    let mut rightful = Rightful::new();
    for version in versions() {
        std::fs::write(&path, stored(version, "relay")).unwrap();
        let relay = Running::start(folder.path());
        for (id, _) in documents(version).into_values() {
            if let Some(mut document) = fetched(&relay, id).await {
                let all = document.get_changes(&[]);
                rightful.insert(
                    (version, id),
                    all.iter().map(automerge::Change::hash).collect(),
                );
            }
        }
        relay.end();
    }
    assert!(rightful.len() >= 6);
    let (mut refused, mut whole, mut part) = (0, 0, 0);
    for seed in sample(&files, "relay of") {
        let file = &files[seed as usize % files.len()];
        let version = file.version.unwrap();
        let (bytes, done) = damaged(seed, file);
        let what = format!("RECONVERGE_DAMAGE_SEED={seed}: {}, {done}", file.name);
        std::fs::write(&path, bytes).unwrap();
        let relay = Running::start(folder.path());
        if relay.address.is_none() {
            let (code, log) = relay.end();
            assert_eq!(code, Some(1), "{what}: {log}");
            assert!(!log.contains("panicked"), "{what}: {log}");
            assert!(
                log.contains("reconverge.redb") && log.contains("backup"),
                "{what}: {log}"
            );
            refused += 1;
            continue;
        }
        for (id, right) in file
            .ids
            .iter()
            .filter_map(|id| Some((id, rightful.get(&(version, *id))?)))
        {
            let Some(mut document) = fetched(&relay, *id).await else {
                part += 1;
                continue;
            };
            let changes = document.get_changes(&[]);
            assert!(changes.iter().all(|c| right.contains(&c.hash())), "{what}");
            if changes.len() == right.len() {
                whole += 1;
            } else {
                part += 1;
            }
        }
        let (code, log) = relay.end();
        assert_eq!(code, Some(0), "{what}: {log}");
        assert!(!log.contains("panicked"), "{what}: {log}");
    }
    println!(
        "{refused} files refused; of the others {whole} documents whole, {part} in part or not"
    );
    assert!(number("RECONVERGE_DAMAGE_SEED").is_some() || (refused > 5 && whole > 20));
}

/// What a new client gets of a document; `None` if that is nothing, which the log then explains.
async fn fetched(relay: &Running, id: DocumentId) -> Option<AutoCommit> {
    let url = format!("ws://{}/", relay.address.as_ref().unwrap());
    let mut fresh = Client::connect(&url, "fresh").await.unwrap();
    let at = fresh.open(Document::new(id).keeping());
    let answered = |client: &Client| {
        let document = client.document(at);
        document.is_unavailable() || document.is_in_step()
    };
    // While its storage fails, the relay has no answer, and tells the operator.
    let fails = async {
        loop {
            let log = relay.log();
            if log.contains("storage fails") || log.contains("could not be stored anew") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        biased;
        done = fresh.until(answered) => done.unwrap(),
        () = fails => {}
    }
    let kept = fresh.document(at).kept();
    (!kept.is_empty()).then(|| AutoCommit::load(kept).unwrap())
}

/// Aim: a client on a damaged file is an error that says what to do, or goes on with what is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_on_a_damaged_file_goes_on_or_says_what_to_do() {
    let panics = Arc::new(Mutex::new(Vec::new()));
    let seen = panics.clone();
    std::panic::set_hook(Box::new(move |panic| {
        seen.lock().unwrap().push(panic.to_string())
    }));
    let files = files();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client.redb");
    let open = async || Repo::builder().file(&path).build().await;
    let mut heads = HashMap::new();
    for version in versions() {
        for (name, (id, of)) in documents(version) {
            if matches!(&*name, "acknowledged" | "outbox") {
                heads.insert((version, id), of);
            }
        }
    }
    let (mut refused, mut whole, mut lost) = (0, 0, 0);
    for seed in sample(&files, "client of") {
        let file = &files[seed as usize % files.len()];
        let version = file.version.unwrap();
        let (bytes, done) = damaged(seed, file);
        let what = format!("RECONVERGE_DAMAGE_SEED={seed}: {}, {done}", file.name);
        std::fs::write(&path, bytes).unwrap();
        match open().await {
            Err(error) => {
                let said = error.to_string();
                match error {
                    BuildError::Storage(error) | BuildError::File { error, .. } => {
                        says_what_to_do(&error);
                    }
                    _ => panic!("{what}: {said}"),
                }
                assert!(said.contains("client.redb"), "{what}: {said}");
                refused += 1;
            }
            Ok(repo) => {
                for (id, heads) in file
                    .ids
                    .iter()
                    .filter_map(|id| Some((id, heads.get(&(version, *id))?)))
                {
                    match repo.find(&format!("automerge:{id}")).await {
                        Ok(document) => {
                            let has = document.read(Automerge::get_heads).unwrap();
                            assert_eq!(has, *heads, "{what}");
                            let edit = document.change(|tx| tx.put(ROOT, "n", 1));
                            edit.unwrap();
                            whole += 1;
                        }
                        Err(error) => {
                            let text = error.to_string();
                            assert!(
                                !text.is_empty() && !text.contains("panicked"),
                                "{what}: {text}"
                            );
                            lost += 1;
                        }
                    }
                }
                let new = repo.create().unwrap();
                new.change(|tx| tx.put(ROOT, "new", true)).unwrap();
                if let Err(error) = repo.shutdown().await {
                    assert!(!error.to_string().contains("panicked"), "{what}: {error}");
                }
            }
        }
        let panics = panics.lock().unwrap();
        assert!(panics.is_empty(), "{what}: {panics:?}");
    }
    let _ = std::panic::take_hook();
    println!("{refused} files refused; of the others {whole} documents whole, {lost} not readable");
    assert!(number("RECONVERGE_DAMAGE_SEED").is_some() || (refused > 5 && whole > 20));
}
