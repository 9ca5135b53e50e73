//! The table of results, and the checks that failed.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use reconverge_tests::light::Fault;
use reconverge_tests::process::{Relay, Usage, usage_of};

/// One line of the table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Units of work per second, or how long the whole took.
    pub(crate) rate: String,
    /// p50 and p99 of what a user waits for.
    pub(crate) latency: String,
    /// The relay's CPU time per unit of work.
    pub(crate) cpu: String,
    /// The relay's memory.
    pub(crate) memory: String,
    /// What was verified.
    pub(crate) checked: String,
}

/// All results of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    failures: Vec<String>,
}

const HEADER: &str = "\
| measured | rate | p50 / p99 | relay CPU | relay memory | checked |\n\
|---|---|---|---|---|---|";

impl Report {
    /// Adds a line, and shows it at once for those who watch.
    pub(crate) fn row(&mut self, row: Row) {
        eprintln!("{row}");
        self.rows.push(row);
    }

    /// Notes a failure unless `is_right`.
    pub(crate) fn check(&mut self, is_right: bool, failure: impl FnOnce() -> String) {
        if !is_right {
            let failure = failure();
            eprintln!("FAILED: {failure}");
            self.failures.push(failure);
        }
    }

    /// Restarts the relay, and notes if it did not end as it should.
    pub(crate) fn restart(&mut self, relay: &mut Relay) {
        let is_clean = relay.restart();
        self.check(is_clean, || {
            "the relay did not end by itself, or without success".into()
        });
    }

    /// Notes how a scenario ended.
    pub(crate) fn finish(&mut self, scenario: &str, outcome: Result<(), Fault>) {
        if let Err(fault) = outcome {
            self.check(false, || format!("{scenario} was cut short: {fault}"));
        }
    }

    /// Prints the table and the failures, of which any makes the exit code 1.
    pub(crate) fn print(&self) -> ExitCode {
        println!("\n{HEADER}");
        for row in &self.rows {
            println!("{row}");
        }
        for failure in &self.failures {
            println!("\nFAILED: {failure}");
        }
        if self.failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            what,
            rate,
            latency,
            cpu,
            memory,
            checked,
        } = self;
        write!(
            f,
            "| {what} | {rate} | {latency} | {cpu} | {memory} | {checked} |"
        )
    }
}

/// From a point in time on: wall clock and a process's CPU.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    pid: u32,
    since: Instant,
    usage: Usage,
}

impl Stopwatch {
    /// Of the relay.
    pub(crate) fn start(relay: &Relay) -> Self {
        Self::of(relay.pid())
    }

    /// Of any process.
    pub(crate) fn of(pid: u32) -> Self {
        Self {
            pid,
            usage: usage_of(pid).unwrap_or_default(),
            since: Instant::now(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// What the process has used since it began.
    pub(crate) fn usage(&self) -> Usage {
        usage_of(self.pid).unwrap_or_default()
    }

    /// The process's CPU time since the start, divided among that many units of work; that of its
    /// children separately, if there was any. The operating system counts in steps of 10 ms.
    pub(crate) fn cpu(&self, units: usize, unit: &str) -> String {
        let now = self.usage();
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / units as f64;
        let cpu = now.cpu.saturating_sub(self.usage.cpu);
        let kernel = now.cpu_kernel.saturating_sub(self.usage.cpu_kernel);
        let percent = kernel.as_secs_f64() * 100.0 / cpu.as_secs_f64().max(1e-9);
        let mut text = format!("{:.1} µs per {unit} ({percent:.0} % kernel)", each(cpu));
        let children = now.cpu_children.saturating_sub(self.usage.cpu_children);
        if !children.is_zero() {
            write!(text, ", {:.1} in children", each(children)).unwrap();
        }
        text
    }
}

/// A percentile of these, which get sorted.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

/// "p50 / p99 ms".
pub(crate) fn p50_p99(times: &mut [Duration]) -> String {
    format!(
        "{} / {} ms",
        ms(percentile(times, 50)),
        ms(percentile(times, 99))
    )
}

pub(crate) fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 {
        format!("{ms:.2}")
    } else {
        format!("{ms:.0}")
    }
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

pub(crate) fn per_second(count: usize, time: Duration) -> String {
    thousands((count as f64 / time.as_secs_f64()) as u64)
}

/// 1234567 as 1,234,567.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
