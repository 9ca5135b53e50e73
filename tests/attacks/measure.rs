//! One attack from its beginning to its end: what it cost the relay, and what must hold.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use reconverge_tests::light::PATIENCE;
use reconverge_tests::process::{Relay, Usage, relay_executable, usage_of};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;

use crate::attacker::Target;
use crate::honest::{Honest, Kind, Phase, Report, Sample, lost};

const MIB: u64 = 1024 * 1024;

/// What the relay may use: `--memory-mib`.
pub(crate) const MEMORY_MIB: u64 = 256;

/// How much more the relay may hold a minute after the attack than before it.
const LEFT_BYTES_MAX: u64 = 32 * MIB;
const LEFT_PATIENCE: Duration = Duration::from_secs(60);

/// How long honest people go on at most when the attackers have left and the relay is still busy.
const AFTERMATH_MAX: Duration = Duration::from_secs(20);

/// What the log may grow by in a minute, and in less.
const LOG_BYTES_MAX: u64 = MIB;

/// What the disk may grow by for each byte that was received; and for what a file grows by anyway.
const DISK_FACTOR: u64 = 4;
const DISK_FLOOR: u64 = 16 * MIB;

/// At this the relay is ended, so that a fault does not take the machine down.
const RUNAWAY_BYTES: u64 = 8 * 1024 * MIB;

/// How long honest people are watched before anybody attacks.
const QUIET: Duration = Duration::from_secs(3);

/// Two attacks at a time: what must hold does so on a busy machine, too. For its figures, one is asked
/// for by itself.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A relay that is about to be attacked.
pub(crate) struct Trial {
    name: &'static str,
    relay: Relay,
    killed: bool,
    /// What may be stored besides what is received.
    stores: u64,
    _turn: SemaphorePermit<'static>,
}

/// How long an attack lasts.
fn lasts() -> Duration {
    let seconds = std::env::var("RECONVERGE_ATTACK_S");
    let seconds = seconds.map_or(5, |text| {
        text.parse().expect("RECONVERGE_ATTACK_S: seconds")
    });
    Duration::from_secs(seconds)
}

/// Whether the relay knows a bound of its memory.
fn knows_memory() -> bool {
    static KNOWS: OnceLock<bool> = OnceLock::new();
    *KNOWS.get_or_init(|| {
        let help = std::process::Command::new(relay_executable())
            .args(["serve", "--help"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&help.stdout).contains("--memory-mib")
    })
}

impl Trial {
    /// Starts a relay; `None` if another attack was asked for.
    pub(crate) async fn new(name: &'static str) -> Option<Self> {
        Self::with(name, &[], None).await
    }

    pub(crate) async fn with(
        name: &'static str,
        flags: &[&str],
        files_max: Option<u32>,
    ) -> Option<Self> {
        if std::env::var("RECONVERGE_ATTACK").is_ok_and(|wanted| wanted != name) {
            println!("{name}: another attack was asked for");
            return None;
        }
        let turn = TURNS.acquire().await.unwrap();
        let memory = MEMORY_MIB.to_string();
        // What is idle is let go of early, so that no test waits for half a minute.
        let mut arguments = vec!["--idle-timeout-s", "2"];
        if knows_memory() {
            arguments.extend(["--memory-mib", &memory]);
        }
        arguments.extend_from_slice(flags);
        Some(Self {
            name,
            relay: Relay::start_limited(&arguments, files_max),
            killed: false,
            stores: 0,
            _turn: turn,
        })
    }

    /// Kills the relay when the attack is over; what it acknowledged must be on disk.
    pub(crate) fn killed(mut self) -> Self {
        self.killed = true;
        self
    }

    /// What is stored of the attack may have so many more bytes than are received.
    pub(crate) fn stores(mut self, bytes: u64) -> Self {
        self.stores = bytes;
        self
    }

    /// The relay, without any attack and with time to prepare one.
    pub(crate) fn prepare(&self) -> Target {
        Target::new(&self.relay.url(), 10 * PATIENCE)
    }

    /// Attacks the relay beside honest people.
    pub(crate) async fn run(mut self, attack: impl AsyncFnOnce(&Target)) {
        // What was prepared may have left work for a while.
        self.quiet(PATIENCE).await;
        let honest = Honest::begin(&self.relay.url()).await;
        sleep(QUIET).await;
        let lasts = lasts();
        let before = self.state();
        self.relay.forget_peak();
        let children = self.relay.watch_children();
        let guard = Guard::start(self.relay.pid(), &self.relay);
        honest.enter(Phase::During);
        let target = Target::new(&self.relay.url(), lasts);
        let began = Instant::now();
        attack(&target).await;
        target.rest().await;
        // What the attackers left behind hurts, too.
        let aftermath = self.quiet(AFTERMATH_MAX).await;
        let seen = honest.end().await;
        let (left, left_after) = self.left(before.usage.resident_bytes).await;
        let peak = self.relay.usage().peak_bytes.max(guard.peak());
        let took = began.elapsed();
        let after = self.state();
        let disk = after.disk.max(guard.disk()).saturating_sub(before.disk);
        let log = after.log - before.log;
        let cpu = after.usage.cpu.saturating_sub(before.usage.cpu);
        let cpu_children = after
            .usage
            .cpu_children
            .saturating_sub(before.usage.cpu_children);
        let of = |kind, phase| percentiles(&seen.samples, kind, phase);
        let line = format!(
            "attack {}: editors {} then {} ms, uploaders {} then {} ms, newcomers {} then {} ms \
             (p50/p99/max of n), memory {} then {} at its peak then {} MiB after {:.0} s (children \
             {}), CPU {:.1} s (children {:.1}), busy {:.0} s more, disk {} MiB, log {} KiB, sent {} KiB (honest {}), \
             cut {} times{}",
            self.name,
            of(Kind::Edit, Phase::Before),
            of(Kind::Edit, Phase::During),
            of(Kind::Upload, Phase::Before),
            of(Kind::Upload, Phase::During),
            of(Kind::Newcomer, Phase::Before),
            of(Kind::Newcomer, Phase::During),
            before.usage.resident_bytes / MIB,
            peak / MIB,
            left / MIB,
            left_after.as_secs_f64(),
            children.peak_bytes() / MIB,
            cpu.as_secs_f64(),
            cpu_children.as_secs_f64(),
            aftermath.as_secs_f64(),
            disk / MIB,
            log / 1024,
            target.sent() / 1024,
            seen.sent / 1024,
            seen.cuts,
            target
                .notes()
                .iter()
                .map(|note| format!(", {note}"))
                .collect::<String>(),
        );
        println!("{line}");
        let mut faults = seen.faults.clone();
        let mut holds = |is: bool, fault: String| {
            if !is {
                faults.push(fault);
            }
        };
        let lives = self.relay.is_running() && !guard.ended_it();
        holds(lives, "the relay does not live".into());
        holds(
            seen.cuts == 0,
            format!("honest connections were cut {} times", seen.cuts),
        );
        let memory_max = MEMORY_MIB * MIB;
        holds(peak <= memory_max, format!("it held {} MiB", peak / MIB));
        let grown = left.saturating_sub(before.usage.resident_bytes);
        holds(
            grown <= LEFT_BYTES_MAX,
            format!("{} MiB more stay", grown / MIB),
        );
        let minutes = took.as_secs().div_ceil(60).max(1);
        holds(
            log <= LOG_BYTES_MAX * minutes,
            format!("the log grew by {} KiB", log / 1024),
        );
        let received = target.sent() + seen.sent;
        let disk_max = received * DISK_FACTOR + DISK_FLOOR + self.stores;
        holds(
            disk <= disk_max,
            format!("the disk grew by {} MiB", disk / MIB),
        );
        drop((children, guard));
        if lives {
            faults.extend(self.audit(&seen).await);
        }
        assert!(faults.is_empty(), "{}:\n{}", self.name, faults.join("\n"));
    }

    /// What was acknowledged and is not there, also after the relay was killed.
    async fn audit(&mut self, seen: &Report) -> Vec<String> {
        if self.killed {
            self.relay.kill();
            self.relay.start_again();
        }
        lost(&self.relay.url(), &seen.acknowledged).await
    }

    fn state(&self) -> State {
        State {
            usage: self.relay.usage(),
            disk: self.relay.stored_bytes(),
            log: self.relay.log_path().metadata().map_or(0, |log| log.len()),
        }
    }

    /// Waits until the relay is no longer busy, or as long as that; how long that took.
    async fn quiet(&self, patience: Duration) -> Duration {
        const LOOK_EVERY: Duration = Duration::from_millis(500);
        /// Between two jobs of the workshop there is a moment without any.
        const QUIET_LOOKS: u32 = 3;
        let since = Instant::now();
        let mut quiet = 0;
        while quiet < QUIET_LOOKS && since.elapsed() < patience {
            let before = self.relay.usage().cpu;
            sleep(LOOK_EVERY).await;
            let used = self.relay.usage().cpu.saturating_sub(before);
            let is_busy = used > LOOK_EVERY / 2 || self.relay.is_building();
            quiet = if is_busy { 0 } else { quiet + 1 };
        }
        since.elapsed()
    }

    /// What the relay holds when it has let go of what it may, and how long that took.
    async fn left(&self, before: u64) -> (u64, Duration) {
        let since = Instant::now();
        loop {
            let resident = self.relay.usage().resident_bytes;
            let is_enough = resident <= before + LEFT_BYTES_MAX;
            if is_enough || since.elapsed() > LEFT_PATIENCE {
                return (resident, since.elapsed());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

struct State {
    usage: Usage,
    disk: u64,
    log: u64,
}

/// Median, 99th percentile and greatest of how long these took, in milliseconds, and how many.
fn percentiles(samples: &[Sample], kind: Kind, phase: Phase) -> String {
    let is_one = |sample: &&Sample| sample.kind == kind && sample.phase == phase;
    let mut took: Vec<Duration> = samples.iter().filter(is_one).map(|s| s.took).collect();
    took.sort_unstable();
    let at = |share: usize| {
        let last = took.len().checked_sub(1);
        last.map_or(f64::NAN, |last| {
            took[last * share / 100].as_secs_f64() * 1000.0
        })
    };
    format!(
        "{:.0}/{:.0}/{:.0} of {}",
        at(50),
        at(99),
        at(100),
        took.len()
    )
}

/// Watches what the relay holds in memory and on disk, and ends one that runs away.
struct Guard {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    disk: Arc<AtomicU64>,
    ended_it: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Guard {
    fn start(pid: u32, relay: &Relay) -> Self {
        let (stop, ended_it) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (peak, disk) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (stops, ends) = (stop.clone(), ended_it.clone());
        let (seen, stored) = (peak.clone(), disk.clone());
        let data = relay.data().to_owned();
        let thread = std::thread::spawn(move || {
            while !stops.load(Ordering::Relaxed) {
                // What a process that ended held can no longer be asked for.
                let usage = usage_of(pid).unwrap_or_default();
                seen.fetch_max(usage.peak_bytes, Ordering::Relaxed);
                let files = std::fs::read_dir(&data).into_iter().flatten().flatten();
                let bytes = files
                    .filter_map(|file| Some(file.metadata().ok()?.len()))
                    .sum();
                stored.fetch_max(bytes, Ordering::Relaxed);
                if usage.resident_bytes > RUNAWAY_BYTES {
                    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
                    let _ = kill_process(pid, Signal::KILL);
                    ends.store(true, Ordering::Relaxed);
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self {
            stop,
            peak,
            disk,
            ended_it,
            thread: Some(thread),
        }
    }

    fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    fn disk(&self) -> u64 {
        self.disk.load(Ordering::Relaxed)
    }

    fn ended_it(&self) -> bool {
        self.ended_it.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
