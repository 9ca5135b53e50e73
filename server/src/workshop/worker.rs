//! One process of the workshop, which runs jobs one after the other.

use std::fs::File;
use std::process::Stdio;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdout};

use super::pipe::{Answer, JobNotSent, decode_result, read_answer};
use super::{Built, Job, JobError, Limits, SUBCOMMAND, WorkshopConfig};

/// Killed when it is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    stdin: Option<File>,
    stdout: ChildStdout,
    stderr: ChildStderr,
    /// How many jobs it has run.
    jobs: u32,
    /// Since when it has nothing to do.
    pub(super) idle_since: Instant,
}

fn spawn(error: std::io::Error) -> JobError {
    JobError::Spawn(error.to_string())
}

impl Worker {
    pub(super) fn start(config: &WorkshopConfig, limits: &Limits) -> Result<Self, JobError> {
        let mut child = tokio::process::Command::new(&config.program)
            .arg(SUBCOMMAND)
            .arg(limits.memory_bytes.to_string())
            .arg(limits.cpu_s.to_string())
            // The allocator must not reserve a gigabyte before the limit is set: what is
            // reserved before, the limit does not see.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(spawn)?;
        let stdin = child.stdin.take().expect("is piped");
        Ok(Self {
            stdin: Some(File::from(stdin.into_owned_fd().map_err(spawn)?)),
            stdout: child.stdout.take().expect("is piped"),
            stderr: child.stderr.take().expect("is piped"),
            child,
            jobs: 0,
            idle_since: Instant::now(),
        })
    }

    /// Runs a job. Gives the worker back if it can run another one and has run less than `jobs_max`;
    /// it gets no other job otherwise, and ends.
    ///
    /// # Cancel safety
    /// The worker is killed when the future is dropped.
    pub(super) async fn run(
        mut self,
        job: Job,
        result_bytes_max: u64,
        jobs_max: u32,
    ) -> (Result<Built, JobError>, Option<Self>) {
        self.jobs += 1;
        let stays = self.jobs < jobs_max;
        let result = self.try_run(job, result_bytes_max, stays).await;
        match result {
            Ok((result, true)) if stays => {
                self.idle_since = Instant::now();
                (result, Some(self))
            }
            Ok((result, _)) => (result, None),
            Err(error) => (Err(error), None),
        }
    }

    /// What came of it, and whether the worker goes on.
    async fn try_run(
        &mut self,
        job: Job,
        result_bytes_max: u64,
        stays: bool,
    ) -> Result<(Result<Built, JobError>, bool), JobError> {
        let mut stdin = self.stdin.take().expect("it is not run twice at a time");
        // Blocks while the child does not read, at most until the child is killed.
        let feed = tokio::task::spawn_blocking(move || {
            let fed = job.write(&mut stdin);
            // Without its standard input, the child knows that there is no further job.
            (fed, stays.then_some(stdin))
        });
        let (fed, answer) = tokio::join!(feed, read_answer(&mut self.stdout, result_bytes_max));
        let (fed, stdin) = fed.map_err(|e| JobError::Spawn(e.to_string()))?;
        if let Err(JobNotSent::Storage(error)) = fed {
            return Err(JobError::Storage(error));
        }
        let Some(Answer { result, goes_on }) = answer.map_err(spawn)?? else {
            return Err(self.died().await);
        };
        self.stdin = stdin;
        let nonsense = || JobError::Died("its result makes no sense".into());
        let result = decode_result(&result).ok_or_else(nonsense)?;
        Ok((result, goes_on))
    }

    /// Why it ended without an answer. What a fault says of itself goes into the log; a page of it is
    /// enough.
    async fn died(&mut self) -> JobError {
        let mut words = Vec::new();
        let mut last_words = (&mut self.stderr).take(4096);
        let _ = last_words.read_to_end(&mut words).await;
        let status = match self.child.wait().await {
            Ok(status) => status,
            Err(error) => return spawn(error),
        };
        let words = String::from_utf8_lossy(&words);
        let first = words.lines().take(2).collect::<Vec<_>>().join(" ");
        JobError::Died(format!("{status} {first}"))
    }
}
