//! One process of the workshop, which runs jobs one after the other.

use std::fs::File;
use std::process::Stdio;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdout};

use super::pipe::{Answer, JobNotSent, decode_result, read_answer};
use super::{Built, Job, JobError, Limits, SUBCOMMAND, WorkshopConfig};

/// How much is kept of what a worker says of its own accord while it runs a job.
const WORDS_BYTES_MAX: usize = 4096;

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
            Ok((result, true)) => {
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
            // Without its standard input, the child knows that there is no further job, and nothing
            // more of this one.
            let keeps = stays && fed.is_ok();
            (fed, keeps.then_some(stdin))
        });
        let mut words = Vec::new();
        let done = async { tokio::join!(feed, read_answer(&mut self.stdout, result_bytes_max)) };
        let (fed, answer) = tokio::select! {
            done = done => done,
            // A panic that was caught writes some words, and nobody goes on when the pipe is full.
            never = listen(&mut self.stderr, &mut words) => match never {},
        };
        let (fed, stdin) = fed.map_err(|e| JobError::Spawn(e.to_string()))?;
        if let Err(JobNotSent::Storage(error)) = fed {
            return Err(JobError::Storage(error));
        }
        let Some(Answer { result, goes_on }) = answer.map_err(spawn)?? else {
            return Err(self.died(words).await);
        };
        self.stdin = stdin;
        let nonsense = || JobError::Died("its result makes no sense".into());
        let result = decode_result(&result).ok_or_else(nonsense)?;
        Ok((result, goes_on && self.stdin.is_some()))
    }

    /// Why it ended without an answer, behind these words. What a fault says of itself goes into the log;
    /// a page of it is enough.
    async fn died(&mut self, mut words: Vec<u8>) -> JobError {
        let mut last_words = (&mut self.stderr).take(WORDS_BYTES_MAX as u64);
        let _ = last_words.read_to_end(&mut words).await;
        let status = match self.child.wait().await {
            Ok(status) => status,
            Err(error) => return spawn(error),
        };
        let words = &words[words.len().saturating_sub(WORDS_BYTES_MAX)..];
        let words = String::from_utf8_lossy(words);
        let first = words.lines().take(2).collect::<Vec<_>>().join(" ");
        JobError::Died(format!("{status} {first}"))
    }
}

/// Reads what a worker says, as long as it is polled, and keeps the last of it.
async fn listen(stderr: &mut ChildStderr, words: &mut Vec<u8>) -> std::convert::Infallible {
    let mut more = [0; 1024];
    while let Ok(len @ 1..) = stderr.read(&mut more).await {
        words.extend_from_slice(&more[..len]);
        let old = words.len().saturating_sub(WORDS_BYTES_MAX);
        words.drain(..old);
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use std::time::Duration;

    use reconverge::contents::Reading;
    use reconverge::storage::{DocumentKey, MemoryStorage};

    use super::*;

    struct Script(std::path::PathBuf);

    impl Drop for Script {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// A worker that is this shell script.
    fn worker(name: &str, script: &str) -> (Worker, Script) {
        let program = std::env::temp_dir().join(format!("worker-{}-{name}", std::process::id()));
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = WorkshopConfig {
            program: program.clone(),
            ..crate::config::Config::default().workshop
        };
        let limits = Limits {
            memory_bytes: 0,
            cpu_s: 0,
            deadline: Duration::from_secs(8),
            result_bytes: 1024,
        };
        (Worker::start(&config, &limits).unwrap(), Script(program))
    }

    fn job(snapshot: Option<(u32, u64)>) -> Job {
        Job::Check {
            storage: Arc::new(MemoryStorage::new("worker-test")),
            key: DocumentKey(1),
            snapshot,
            changes: 0..0,
            unsaved: Vec::new(),
            bytes: 0,
            operations: 0,
            heads: Vec::new(),
            reading: Reading::Contents,
            wants_snapshot: false,
        }
    }

    async fn soon<T>(what: impl Future<Output = T>) -> T {
        let done = tokio::time::timeout(Duration::from_secs(4), what).await;
        done.expect("nobody waits for the deadline")
    }

    /// Another snapshot took the place of this one meanwhile, as it happens without any fault.
    #[tokio::test]
    async fn a_job_that_cannot_be_read_from_storage_ends_at_once() {
        let (worker, _script) = worker("storage", "cat > /dev/null");
        let (result, worker) = soon(worker.run(job(Some((1, 100))), 1024, 1024)).await;
        assert!(matches!(result, Err(JobError::Storage(_))), "{result:?}");
        assert!(worker.is_none());
    }

    /// What is left of a job that it did not read would be in the way of the next one.
    #[tokio::test]
    async fn a_worker_that_did_not_read_its_job_gets_no_other_one() {
        let script = "exec <&-
            printf '\\001\\000\\000\\000\\000\\000\\000\\000V\\001'; exec sleep 60";
        let (worker, _script) = worker("unread", script);
        let mut job = job(None);
        if let Job::Check { unsaved, .. } = &mut job {
            // More than a pipe holds.
            unsaved.push(vec![0; 1 << 20].into());
        }
        let (result, worker) = soon(worker.run(job, 1024, 1024)).await;
        assert!(result.is_ok(), "{result:?}");
        assert!(worker.is_none());
    }

    /// As many panics as it takes to fill a pipe, and then an answer: sound, and that it goes on.
    #[tokio::test]
    async fn what_a_worker_says_of_its_own_accord_does_not_hold_it_up() {
        let script = "head -c 300000 /dev/zero >&2
            printf '\\001\\000\\000\\000\\000\\000\\000\\000V\\001'; cat > /dev/null";
        let (worker, _script) = worker("words", script);
        let (result, worker) = soon(worker.run(job(None), 1024, 1024)).await;
        assert!(result.is_ok(), "{result:?}");
        assert!(worker.is_some());
    }
}
