//! The child's side: set the limits, read the job, build, answer.

use std::io::{Read, Write};

use reconverge::contents::{self, Check};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::Built;
use super::pipe::{Task, encode_result};

/// Runs one job from standard input to standard output. `memory_bytes` and `cpu_s` limit it.
///
/// # Errors
/// When the limits cannot be set or the pipes break; a job that fails is a result.
pub fn run(memory_bytes: u64, cpu_s: u64) -> std::io::Result<()> {
    let limit = |n| Rlimit {
        current: Some(n),
        maximum: Some(n),
    };
    setrlimit(Resource::As, limit(memory_bytes))?;
    setrlimit(Resource::Cpu, limit(cpu_s))?;
    setrlimit(Resource::Core, limit(0))?;
    // Sockets come first; building can wait.
    let _ = rustix::process::nice(10);
    let mut input = Vec::new();
    std::io::stdin().lock().read_to_end(&mut input)?;
    let result = match Task::decode(&input.into()) {
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
    };
    let result = encode_result(&result);
    let mut out = std::io::stdout().lock();
    out.write_all(&(result.len() as u64).to_le_bytes())?;
    out.write_all(&result)?;
    out.flush()
}
