//! The storage on thousands of damaged files, in child processes.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use reconverge::id::DocumentId;
use reconverge::storage::{Blob, Storage};
use reconverge_tests::faults::Disk;
use reconverge_tests::stored::{Contents, open, read};

use crate::damaging::damaged;
use crate::files::{File, edit, files};
use crate::judging::{number, says_what_to_do};

const ROUNDS: u64 = 6_000;

/// How many rounds one child runs.
const BATCH: u64 = 1000;

/// Address space of a child, in KiB.
const MEMORY_KIB: u64 = 2 * 1024 * 1024;

/// Most time for one round; it takes milliseconds.
const ROUND_MAX: Duration = Duration::from_secs(120);

/// What one round came to.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    refused: u64,
    failed: u64,
    untouched: u64,
    unwritable: u64,
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
        .args([
            "--exact",
            "rounds::rounds_of_a_child",
            "--ignored",
            "--nocapture",
        ])
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
