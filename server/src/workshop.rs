//! Where documents are built: a child process of the same binary, with limits that hold.
//!
//! A thread's memory cannot be capped, and a document chunk of a few hundred bytes can declare a
//! billion rows; so whatever builds a document runs as `reconverge workshop`, under limits of
//! address space and CPU time that the kernel enforces, and is killed at its deadline. A panic, an
//! abort or a kill fails that one job. At most `workers` jobs run at a time; others wait.
//!
//! A job is bytes on the child's standard input, its result bytes on its standard output. Both are
//! trusted: the child is this binary.

mod child;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use reconverge::history::Unpacked;
use reconverge::history::leb::{Reader, push_unsigned};
use reconverge::protocol::ChangeHash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

pub use child::run as run_child;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "workshop";

/// Limits of the workshop.
#[derive(Debug, Clone)]
pub struct WorkshopConfig {
    /// The binary to run, which understands the hidden subcommand.
    pub program: PathBuf,
    /// How many jobs run at a time.
    pub workers: usize,
    /// Address space of a job in bytes.
    pub memory_bytes_max: u64,
    /// CPU time of a job in seconds.
    pub cpu_s_max: u64,
    /// How long a job may take in all.
    pub deadline: Duration,
}

/// Why a job gave no result. The document goes on without it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum JobError {
    #[error("the workshop could not run: {0}")]
    Spawn(String),
    #[error("the job took longer than {0:?} and was killed")]
    Deadline(Duration),
    #[error("the job ended early, out of memory or CPU time or by a fault of its input: {0}")]
    Died(String),
    #[error("{0}")]
    Refused(String),
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Job {
    /// Unpack a document chunk.
    Unpack {
        chunk: Bytes,
        /// The hashes of all changes of the document, by index.
        known: Vec<ChangeHash>,
        /// From which index on the graph is wanted, if the chunk covers everything.
        segment_from: u32,
        /// Whether the bytes of the unknown changes are wanted in any case.
        changes: bool,
    },
    /// Fold changes into a snapshot.
    Fold {
        snapshot: Option<Bytes>,
        changes: Vec<Bytes>,
        /// The heads and the number of changes that must come out.
        heads: Vec<ChangeHash>,
        len: u32,
    },
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Built {
    /// The chunk covers everything that is known.
    Covers(Unpacked),
    /// The changes that were not known, each after its deps.
    Changes(Vec<Bytes>),
    /// The new snapshot, checked against what went in.
    Snapshot(Bytes),
}

#[derive(Debug)]
pub(crate) struct Workshop {
    config: WorkshopConfig,
    workers: Semaphore,
}

impl Workshop {
    pub(crate) fn new(config: WorkshopConfig) -> Self {
        Self {
            workers: Semaphore::new(config.workers),
            config,
        }
    }

    /// Runs a job when there is a free worker.
    ///
    /// # Cancel safety
    /// The child is killed when the future is dropped.
    pub(crate) async fn run(&self, job: Job) -> Result<Built, JobError> {
        let _worker = self
            .workers
            .acquire()
            .await
            .map_err(|e| JobError::Spawn(e.to_string()))?;
        let input = job.encode();
        drop(job);
        match tokio::time::timeout(self.config.deadline, self.run_now(input)).await {
            Ok(result) => result,
            Err(_) => Err(JobError::Deadline(self.config.deadline)),
        }
    }

    async fn run_now(&self, input: Vec<u8>) -> Result<Built, JobError> {
        let spawn = |e: std::io::Error| JobError::Spawn(e.to_string());
        let mut child = tokio::process::Command::new(&self.config.program)
            .arg(SUBCOMMAND)
            .arg(self.config.memory_bytes_max.to_string())
            .arg(self.config.cpu_s_max.to_string())
            // The allocator must not reserve a gigabyte before the limit is set: what is
            // reserved before, the limit does not see.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(spawn)?;
        let mut stdin = child.stdin.take().expect("is piped");
        let mut stdout = child.stdout.take().expect("is piped");
        let stderr = child.stderr.take().expect("is piped");
        let feed = async move {
            // A child that dies before it read everything is seen by its status.
            let _ = stdin.write_all(&input).await;
        };
        let (mut output, mut words) = (Vec::new(), Vec::new());
        // What a fault says of itself goes into the log; a page of it is enough.
        let mut last_words = stderr.take(4096);
        let ((), read, _) = tokio::join!(
            feed,
            stdout.read_to_end(&mut output),
            last_words.read_to_end(&mut words)
        );
        read.map_err(spawn)?;
        let status = child.wait().await.map_err(spawn)?;
        if !status.success() {
            let words = String::from_utf8_lossy(&words);
            let first = words.lines().take(2).collect::<Vec<_>>().join(" ");
            return Err(JobError::Died(format!("{status} {first}")));
        }
        let died = || JobError::Died("its result makes no sense".into());
        decode_result(&output.into()).ok_or_else(died)?
    }
}

fn push_list(out: &mut Vec<u8>, list: &[Bytes]) {
    push_unsigned(out, list.len() as u64);
    for bytes in list {
        push_unsigned(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn read_list(input: &mut Reader<'_>, whole: &Bytes) -> Option<Vec<Bytes>> {
    (0..input.unsigned()?)
        .map(|_| Some(whole.slice_ref(input.prefixed()?)))
        .collect()
}

fn push_hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    push_unsigned(out, hashes.len() as u64);
    hashes
        .iter()
        .for_each(|hash| out.extend_from_slice(&hash.0));
}

fn read_hashes(input: &mut Reader<'_>) -> Option<Vec<ChangeHash>> {
    (0..input.unsigned()?).map(|_| input.hash()).collect()
}

impl Job {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Unpack {
                chunk,
                known,
                segment_from,
                changes,
            } => {
                out.push(if *changes { b'C' } else { b'U' });
                push_unsigned(&mut out, u64::from(*segment_from));
                push_hashes(&mut out, known);
                push_list(&mut out, std::slice::from_ref(chunk));
            }
            Self::Fold {
                snapshot,
                changes,
                heads,
                len,
            } => {
                out.push(b'F');
                push_unsigned(&mut out, u64::from(*len));
                push_hashes(&mut out, heads);
                push_list(&mut out, snapshot.as_slice());
                push_list(&mut out, changes);
            }
        }
        out
    }

    fn decode(bytes: &Bytes) -> Option<Self> {
        let mut input = Reader(bytes);
        let kind = input.take(1)?[0];
        let number = input.number()?;
        let hashes = read_hashes(&mut input)?;
        let first = read_list(&mut input, bytes)?;
        Some(match kind {
            b'F' => Self::Fold {
                snapshot: first.into_iter().next(),
                changes: read_list(&mut input, bytes)?,
                heads: hashes,
                len: number,
            },
            _ => Self::Unpack {
                chunk: first.into_iter().next()?,
                known: hashes,
                segment_from: number,
                changes: kind == b'C',
            },
        })
    }
}

fn encode_result(result: &Result<Built, String>) -> Vec<u8> {
    let mut out = Vec::new();
    match result {
        Ok(Built::Covers(unpacked)) => {
            out.push(b'U');
            push_unsigned(&mut out, u64::from(unpacked.len));
            push_unsigned(&mut out, unpacked.heads.len() as u64);
            for (index, hash, max_op) in &unpacked.heads {
                push_unsigned(&mut out, u64::from(*index));
                out.extend_from_slice(&hash.0);
                push_unsigned(&mut out, u64::from(*max_op));
            }
            for part in [&unpacked.segment, &unpacked.outline] {
                push_unsigned(&mut out, part.len() as u64);
                out.extend_from_slice(part);
            }
        }
        Ok(Built::Changes(changes)) => {
            out.push(b'C');
            push_list(&mut out, changes);
        }
        Ok(Built::Snapshot(snapshot)) => {
            out.push(b'S');
            out.extend_from_slice(snapshot);
        }
        Err(reason) => {
            out.push(b'E');
            out.extend_from_slice(reason.as_bytes());
        }
    }
    out
}

fn decode_result(bytes: &Bytes) -> Option<Result<Built, JobError>> {
    let mut input = Reader(bytes);
    Some(match input.take(1)?[0] {
        b'U' => {
            let len = input.number()?;
            let heads = 0..input.unsigned()?;
            let head = |_| Some((input.number()?, input.hash()?, input.number()?));
            let heads = heads.map(head).collect::<Option<_>>()?;
            let segment = input.prefixed()?.to_vec();
            let outline = input.prefixed()?.to_vec();
            Ok(Built::Covers(Unpacked {
                len,
                segment,
                outline,
                heads,
            }))
        }
        b'C' => Ok(Built::Changes(read_list(&mut input, bytes)?)),
        b'S' => Ok(Built::Snapshot(bytes.slice(1..))),
        b'E' => Err(JobError::Refused(
            String::from_utf8_lossy(input.0).into_owned(),
        )),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_results_survive_the_pipe() {
        let bytes = Bytes::from_static(b"chunk");
        let hash = ChangeHash([9; 32]);
        for job in [
            Job::Unpack {
                chunk: bytes.clone(),
                known: vec![hash],
                segment_from: 3,
                changes: true,
            },
            Job::Fold {
                snapshot: None,
                changes: vec![bytes.clone(), bytes.clone()],
                heads: vec![hash],
                len: 7,
            },
        ] {
            assert_eq!(Job::decode(&job.encode().into()), Some(job));
        }
        let unpacked = Unpacked {
            len: 5,
            segment: vec![1, 2],
            outline: vec![3],
            heads: vec![(4, hash, 700)],
        };
        for built in [
            Built::Covers(unpacked),
            Built::Changes(vec![bytes.clone()]),
            Built::Snapshot(bytes),
        ] {
            let sent = encode_result(&Ok(built.clone()));
            assert_eq!(decode_result(&sent.into()).unwrap().unwrap(), built);
        }
    }
}
