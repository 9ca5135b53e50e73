//! The child's side: set the limits, then read a job, build, and answer, until there is none any more.

use std::io::BufReader;

use reconverge::contents::{self, Check};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::Built;
use super::pipe::{Task, encode_result, read_job, write_answer};

/// A worker that holds more after a job does not run another one.
const KEPT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Runs jobs from standard input to standard output. `memory_bytes` limits the process, and `cpu_s`
/// each job.
///
/// # Errors
/// When the limits cannot be set or the pipes break; a job that fails is a result.
pub fn run(memory_bytes: u64, cpu_s: u64) -> std::io::Result<()> {
    let limit = |n| Rlimit {
        current: Some(n),
        maximum: Some(n),
    };
    setrlimit(Resource::As, limit(memory_bytes))?;
    setrlimit(Resource::Core, limit(0))?;
    // Sockets come first; building can wait.
    let _ = rustix::process::nice(10);
    let mut input = BufReader::new(std::io::stdin().lock());
    let mut out = std::io::stdout().lock();
    limit_cpu(cpu_s)?;
    while let Some(job) = read_job(&mut input)? {
        let result = encode_result(&run_job(&job));
        drop(job);
        let goes_on = resident_bytes().is_some_and(|bytes| bytes <= KEPT_BYTES_MAX);
        write_answer(&mut out, &result, goes_on)?;
        if !goes_on {
            break;
        }
        limit_cpu(cpu_s)?;
    }
    Ok(())
}

/// Gives the next job so many seconds of CPU time beside what the process has used already, of which
/// the system counts whole ones.
fn limit_cpu(cpu_s: u64) -> std::io::Result<()> {
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let used = u64::try_from(used).unwrap_or(0);
    let maximum = getrlimit(Resource::Cpu).maximum;
    let current = (used + cpu_s).min(maximum.unwrap_or(u64::MAX));
    let limit = Rlimit {
        current: Some(current),
        maximum,
    };
    Ok(setrlimit(Resource::Cpu, limit)?)
}

/// Bytes of memory that the process holds; `None` where the system does not tell.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn run_job(job: &bytes::Bytes) -> Result<Built, String> {
    match Task::decode(job) {
        Some(Task::Unpack {
            chunk,
            known,
            segment_from,
            changes,
        }) => contents::unpack(&chunk, &known, segment_from, changes).map(Built::Unpacked),
        Some(Task::Unfold { snapshot, wanted }) => {
            contents::unfold(&snapshot, &wanted).map(Built::Unfolded)
        }
        Some(Task::Check {
            snapshot,
            changes,
            heads,
            len,
            reading,
            wants_snapshot,
        }) => {
            let check = Check {
                snapshot: snapshot.as_ref(),
                changes: &changes,
                heads: &heads,
                len,
                reading,
                wants_snapshot,
            };
            check.run().map(Built::Checked)
        }
        None => Err("the job makes no sense".into()),
    }
}
