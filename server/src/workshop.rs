//! Where documents are built: a child process of the same binary, with limits that hold.
//!
//! A thread's memory cannot be capped, and a document chunk of a few hundred bytes can declare a
//! billion rows; so whatever builds a document runs as `reconverge workshop`, under limits of
//! address space and CPU time that the kernel enforces, and is killed at its deadline. A panic, an
//! abort or a kill fails that one job. At most `workers` jobs run at a time, each in a process of its
//! own, and a short one beside them, in a process that is kept for the next; others wait. A worker is free again when its result was taken in, so that as many results are
//! in memory as there are workers.
//!
//! A job is bytes on the child's standard input, its result bytes on its standard output. Both are
//! trusted: the child is this binary.

mod child;
mod pipe;
mod worker;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reconverge::contents::{Brought, Reading, Verdict};
use reconverge::history::chunk::Chunk;
use reconverge::protocol::ChangeHash;
use reconverge::storage::{DocumentKey, Storage, StorageError};

pub use child::run as run_child;
use worker::Worker;

use crate::limits::fair::{Owner, Turn, Turns};

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
    /// How many short jobs a process runs before another one takes its place; the others have a
    /// process each. At least 1.
    pub jobs_per_worker: u32,
}

/// What one job may take.
struct Limits {
    memory_bytes: u64,
    cpu_s: u64,
    deadline: Duration,
    result_bytes: u64,
}

/// Why a job gave no result. The document goes on without it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum JobError {
    #[error("the workshop could not run: {0}")]
    Spawn(String),
    #[error("the job took longer than {0:?} and was killed")]
    Deadline(Duration),
    #[error("its result has {bytes} bytes, of at most {max}; more with a larger --memory-mib")]
    Large { bytes: u64, max: u64 },
    #[error("the job ended early, out of memory or CPU time or by a fault of its input: {0}")]
    Died(String),
    #[error("{0}")]
    Refused(String),
    /// What it works on could not be read.
    #[error(transparent)]
    Storage(StorageError),
}

impl JobError {
    /// What an operator can do about it, to be said behind it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Died(_) | Self::Deadline(_) => {
                "; if it goes on, raise --workshop-memory-mib or --workshop-cpu-s"
            }
            // The error of what is too large says it.
            Self::Large { .. } | Self::Spawn(_) | Self::Refused(_) | Self::Storage(_) => "",
        }
    }
}

/// What to build. What lies in storage is read when the job's turn has come, piece by piece, so
/// that neither a large document nor many that wait take memory.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    /// Unpack a document chunk.
    Unpack {
        chunk: Bytes,
        /// The hashes of all changes of the document, by index.
        known: Arc<[ChangeHash]>,
        /// From which index on the graph is wanted, if the chunk covers everything.
        segment_from: u32,
        /// Whether the bytes of the unknown changes are wanted in any case.
        changes: bool,
    },
    /// Unpack changes of a snapshot that is stored.
    Unfold {
        storage: Arc<dyn Storage>,
        key: DocumentKey,
        /// Generation and size of the snapshot.
        snapshot: (u32, u64),
        /// The hashes of the changes.
        wanted: Vec<ChangeHash>,
    },
    /// Check what only contents can tell, and fold all of it into a snapshot.
    Check {
        storage: Arc<dyn Storage>,
        key: DocumentKey,
        /// Generation and size of the snapshot before.
        snapshot: Option<(u32, u64)>,
        /// The changes after it that are stored.
        changes: Range<u32>,
        /// Those that are not stored yet.
        unsaved: Vec<Bytes>,
        /// About how many bytes all of them have.
        bytes: u64,
        /// About how many operations the document has, at least.
        operations: u64,
        /// The heads that must come out.
        heads: Vec<ChangeHash>,
        /// How much of the document is looked at.
        reading: Reading,
        /// Whether the new snapshot is wanted.
        wants_snapshot: bool,
    },
}

impl Job {
    /// The same check, but for what the document shows.
    pub(crate) fn of_saved_form(&self) -> Option<Self> {
        let mut job = self.clone();
        match &mut job {
            Self::Check { reading, .. } => *reading = Reading::SavedForm,
            Self::Unpack { .. } | Self::Unfold { .. } => return None,
        }
        Some(job)
    }

    /// What is declared costs a look at the chunk.
    fn size(&self) -> Size {
        let (bytes, rows) = match self {
            Self::Unpack { chunk, known, .. } => {
                let declared = || {
                    let (chunk, _) = Chunk::split(chunk).ok()?;
                    chunk.declared_rows_within(QUICK_BYTES_MAX as usize)
                };
                let bytes = chunk.len() as u64;
                let declared = (bytes <= QUICK_BYTES_MAX).then(declared).flatten();
                (bytes, declared.map(|rows| rows + known.len() as u64))
            }
            Self::Check {
                snapshot,
                changes,
                unsaved,
                bytes,
                operations,
                ..
            } => {
                let snapshot = snapshot.map_or(0, |(_, bytes)| bytes);
                let rows = u64::from(changes.end) + unsaved.len() as u64 + operations;
                (snapshot + bytes, Some(rows))
            }
            Self::Unfold {
                snapshot, wanted, ..
            } => (snapshot.1, Some(wanted.len() as u64)),
        };
        Size { bytes, rows }
    }
}

/// How much a job looks at.
#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    /// How many changes and operations they have; `None` if that is not to be found out cheaply.
    rows: Option<u64>,
}

impl Size {
    /// Whether it will probably be short. Whoever lies is found out by a tighter limit.
    fn is_quick(self) -> bool {
        self.bytes <= QUICK_BYTES_MAX && self.rows.is_some_and(|rows| rows <= QUICK_ROWS_MAX)
    }

    /// How long it will probably take; measured: about a microsecond for each row.
    fn cost(self) -> Duration {
        Duration::from_micros(self.rows.unwrap_or(self.bytes))
    }
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Built {
    Unpacked(Brought),
    /// The changes that were asked for, in that order.
    Unfolded(Vec<Bytes>),
    Checked(Verdict),
}

/// Runs jobs, a few at a time, in turn by who causes them. Those that are probably short do not wait
/// behind those that may take a minute: they have a worker of their own, with limits that end what
/// turns out to be longer; it is run again among the others then.
#[derive(Debug)]
pub(crate) struct Workshop {
    config: WorkshopConfig,
    result_bytes_max: u64,
    workers: Turns,
    quick: Turns,
    /// The workers of those who [wait in a document's turn](Self::run_in_turn).
    in_turn: Turns,
    /// A process for quick jobs that has nothing to do: to start one takes longer than most of them.
    idle: Mutex<Option<Worker>>,
}

/// A result, which keeps its worker until it is taken in.
pub(crate) struct Done {
    pub(crate) result: Result<Built, JobError>,
    turn: Option<Turn>,
}

impl Done {
    /// About how many bytes the result holds.
    pub(crate) fn bytes(&self) -> usize {
        match &self.result {
            Ok(Built::Unpacked(Brought::All(unpacked))) => {
                unpacked.segment.len()
                    + unpacked.outline.len()
                    + size_of_val(unpacked.heads.as_slice())
            }
            Ok(Built::Unpacked(Brought::Changes(changes)) | Built::Unfolded(changes)) => changes
                .iter()
                .map(|change| size_of::<Bytes>() + change.len())
                .sum(),
            Ok(Built::Checked(Verdict::Sound(Some(snapshot)))) => snapshot.len(),
            Ok(Built::Checked(_)) | Err(_) => 0,
        }
    }

    /// Lets the worker go on before.
    pub(crate) fn free_worker(&mut self) {
        self.turn = None;
    }
}

const QUICK_AT_A_TIME: usize = 1;

/// What a job looks at that is probably short.
const QUICK_BYTES_MAX: u64 = 1024 * 1024;
const QUICK_ROWS_MAX: u64 = 256 * 1024;

/// The limits of a job that is probably short.
const QUICK_MEMORY_BYTES_MAX: u64 = 768 * 1024 * 1024;
const QUICK_CPU_S_MAX: u64 = 2;
const QUICK_RESULT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long a process without a job is kept.
const IDLE_MAX: Duration = Duration::from_secs(10);

impl Workshop {
    /// No result has more than `result_bytes_max` bytes.
    pub(crate) fn new(config: WorkshopConfig, result_bytes_max: usize) -> Self {
        Self {
            workers: Turns::new(config.workers),
            quick: Turns::new(QUICK_AT_A_TIME),
            in_turn: Turns::new(config.workers),
            idle: Mutex::default(),
            result_bytes_max: result_bytes_max as u64,
            config,
        }
    }

    /// How many jobs run at a time.
    pub(crate) fn jobs_at_a_time(&self) -> usize {
        self.config.workers + QUICK_AT_A_TIME
    }

    /// Runs a job of this owner when it has a turn.
    ///
    /// # Cancel safety
    /// The child is killed when the future is dropped.
    pub(crate) async fn run(&self, owner: Owner, job: Job) -> Done {
        // To look at a chunk takes milliseconds.
        let size = tokio::task::block_in_place(|| job.size());
        let cost = size.cost();
        if size.is_quick() {
            let turn = Some(self.quick.take(owner, cost).await);
            let result = self.run_quick(job.clone()).await;
            let was_dear = matches!(
                result,
                Err(JobError::Died(_) | JobError::Deadline(_) | JobError::Large { .. })
            );
            if !was_dear {
                return Done { result, turn };
            }
        }
        let turn = Some(self.workers.take(owner, cost).await);
        let limits = Limits {
            result_bytes: self.result_bytes_max,
            ..self.limits()
        };
        let result = self.run_alone(&limits, job).await;
        Done { result, turn }
    }

    /// The same for who keeps a document waiting meanwhile: another result for the same document may
    /// wait behind it, and keep a worker. Its own result is not bounded: only the relay itself asks
    /// for it, of what is stored.
    ///
    /// # Cancel safety
    /// As [`Self::run`].
    pub(crate) async fn run_in_turn(&self, owner: Owner, job: Job) -> Done {
        let turn = Some(self.in_turn.take(owner, job.size().cost()).await);
        let result = self.run_alone(&self.limits(), job).await;
        Done { result, turn }
    }

    fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.config.memory_bytes_max,
            cpu_s: self.config.cpu_s_max,
            deadline: self.config.deadline,
            result_bytes: self.config.memory_bytes_max,
        }
    }

    fn quick_limits(&self) -> Limits {
        let all = self.limits();
        // A busy machine gives it less than it takes.
        let deadline = Duration::from_secs(4 * QUICK_CPU_S_MAX);
        Limits {
            memory_bytes: all.memory_bytes.min(QUICK_MEMORY_BYTES_MAX),
            cpu_s: all.cpu_s.min(QUICK_CPU_S_MAX),
            deadline: all.deadline.min(deadline),
            result_bytes: self.result_bytes_max.min(QUICK_RESULT_BYTES_MAX),
        }
    }

    async fn run_within(
        &self,
        limits: &Limits,
        worker: Worker,
        job: Job,
        jobs_max: u32,
    ) -> (Result<Built, JobError>, Option<Worker>) {
        let run = worker.run(job, limits.result_bytes, jobs_max);
        match tokio::time::timeout(limits.deadline, run).await {
            Ok(done) => done,
            Err(_) => (Err(JobError::Deadline(limits.deadline)), None),
        }
    }

    /// Runs a job in a process of its own.
    async fn run_alone(&self, limits: &Limits, job: Job) -> Result<Built, JobError> {
        let worker = Worker::start(&self.config, limits)?;
        self.run_within(limits, worker, job, 1).await.0
    }

    /// Runs a job that is probably short in a process that has run such jobs before, if there is one.
    async fn run_quick(&self, job: Job) -> Result<Built, JobError> {
        let limits = self.quick_limits();
        let idle = self.idle().take();
        let worker = match idle {
            Some(worker) => worker,
            None => Worker::start(&self.config, &limits)?,
        };
        let jobs_max = self.config.jobs_per_worker;
        let (result, worker) = self.run_within(&limits, worker, job, jobs_max).await;
        *self.idle() = worker;
        result
    }

    fn idle(&self) -> MutexGuard<'_, Option<Worker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a worker that had nothing to do for a while. Called every second or so.
    pub(crate) fn end_idle(&self, now: Instant) {
        let mut idle = self.idle();
        let is_over = |worker: &mut Worker| now.duration_since(worker.idle_since) > IDLE_MAX;
        drop(idle.take_if(is_over));
    }
}
