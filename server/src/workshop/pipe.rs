//! Jobs and results as bytes: what goes through the pipes between the relay and a child.

use std::io::{BufWriter, ErrorKind, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use reconverge::contents::{Brought, Reading, Unsound, Verdict};
use reconverge::history::Unpacked;
use reconverge::leb::{Reader, push_unsigned};
use reconverge::protocol::ChangeHash;
use reconverge::storage::{BLOB_PIECE_BYTES, Blob, StorageError, each_change, each_piece};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;

use super::{Built, Job, JobError};

/// A job as the child reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
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
    /// Unpack these changes of a snapshot.
    Unfold {
        snapshot: Bytes,
        wanted: Vec<ChangeHash>,
    },
    /// Check changes, and fold them into a snapshot.
    Check {
        snapshot: Option<Bytes>,
        changes: Vec<Bytes>,
        /// The heads and the number of changes that must come out.
        heads: Vec<ChangeHash>,
        len: u32,
        reading: Reading,
        wants_snapshot: bool,
    },
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

/// What a child answers to one job.
pub(super) struct Answer {
    pub(super) result: Bytes,
    /// Whether it can run another job.
    pub(super) goes_on: bool,
}

/// Reads a result behind its length, so that the room for it is made once; `None` if the child ended
/// without one.
pub(super) async fn read_answer(
    from: &mut ChildStdout,
    max: u64,
) -> std::io::Result<Result<Option<Answer>, JobError>> {
    let Ok(bytes) = from.read_u64_le().await else {
        return Ok(Ok(None));
    };
    if bytes > max {
        // The child ends when nobody reads what it writes.
        return Ok(Err(JobError::Large { bytes, max }));
    }
    let mut result = Vec::with_capacity(bytes as usize);
    from.take(bytes).read_to_end(&mut result).await?;
    Ok(Ok(match from.read_u8().await {
        Ok(goes_on) => Some(Answer {
            result: result.into(),
            goes_on: goes_on == 1,
        }),
        Err(_) => None,
    }))
}

/// Writes an answer as [`read_answer`] reads it.
pub(super) fn write_answer(
    out: &mut impl Write,
    result: &[u8],
    goes_on: bool,
) -> std::io::Result<()> {
    out.write_all(&(result.len() as u64).to_le_bytes())?;
    out.write_all(result)?;
    out.write_all(&[u8::from(goes_on)])?;
    out.flush()
}

/// A job on its way: pieces behind their lengths, and a piece without bytes as its end. How long all
/// of it is is not known when it begins.
struct Pieces<W>(W);

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES_MAX)];
        if !piece.is_empty() {
            self.0.write_all(&(piece.len() as u32).to_le_bytes())?;
            self.0.write_all(piece)?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

const PIECE_BYTES_MAX: usize = 1 << 30;

/// Reads one job; `None` if there is none any more.
pub(super) fn read_job(from: &mut impl Read) -> std::io::Result<Option<Bytes>> {
    let mut job = Vec::new();
    loop {
        let mut length = [0; 4];
        match from.read_exact(&mut length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && job.is_empty() => {
                return Ok(None);
            }
            read => read?,
        }
        match u32::from_le_bytes(length) {
            0 => return Ok(Some(job.into())),
            bytes => {
                let read = from.take(bytes.into()).read_to_end(&mut job)?;
                if read < bytes as usize {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

/// Why a child did not get its job.
#[derive(Debug)]
pub(super) enum JobNotSent {
    Storage(StorageError),
    Pipe,
}

impl From<StorageError> for JobNotSent {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<std::io::Error> for JobNotSent {
    fn from(_: std::io::Error) -> Self {
        Self::Pipe
    }
}

impl Job {
    /// Writes the job for the child, as it is read from storage.
    pub(super) fn write(self, to: impl Write) -> Result<(), JobNotSent> {
        let mut to = BufWriter::with_capacity(BLOB_PIECE_BYTES, Pieces(to));
        let mut head = Vec::new();
        match self {
            Self::Unpack {
                chunk,
                known,
                segment_from,
                changes,
            } => {
                head.push(if changes { b'C' } else { b'U' });
                push_unsigned(&mut head, u64::from(segment_from));
                push_hashes(&mut head, &known);
                push_unsigned(&mut head, 1);
                push_unsigned(&mut head, chunk.len() as u64);
                to.write_all(&head)?;
                to.write_all(&chunk)?;
            }
            Self::Unfold {
                storage,
                key,
                snapshot: (generation, bytes),
                wanted,
            } => {
                head.push(b'A');
                push_unsigned(&mut head, 0);
                push_hashes(&mut head, &wanted);
                push_unsigned(&mut head, 1);
                push_unsigned(&mut head, bytes);
                to.write_all(&head)?;
                each_piece(&*storage, key, Blob::Snapshot(generation), |piece| {
                    to.write_all(piece).map_err(JobNotSent::from)
                })?;
            }
            Self::Check {
                storage,
                key,
                snapshot,
                changes,
                unsaved,
                heads,
                reading,
                wants_snapshot,
                ..
            } => {
                head.push(match (wants_snapshot, reading) {
                    (true, Reading::Contents) => b'F',
                    (true, Reading::SavedForm) => b'f',
                    (false, Reading::Contents) => b'V',
                    (false, Reading::SavedForm) => b'v',
                });
                let len = u64::from(changes.end) + unsaved.len() as u64;
                push_unsigned(&mut head, len);
                push_hashes(&mut head, &heads);
                push_unsigned(&mut head, u64::from(snapshot.is_some()));
                if let Some((generation, bytes)) = snapshot {
                    push_unsigned(&mut head, bytes);
                    to.write_all(&head)?;
                    head.clear();
                    each_piece(&*storage, key, Blob::Snapshot(generation), |piece| {
                        to.write_all(piece).map_err(JobNotSent::from)
                    })?;
                }
                push_unsigned(&mut head, (changes.len() + unsaved.len()) as u64);
                to.write_all(&head)?;
                let mut change = |bytes: &[u8]| {
                    head.clear();
                    push_unsigned(&mut head, bytes.len() as u64);
                    to.write_all(&head)?;
                    to.write_all(bytes).map_err(JobNotSent::from)
                };
                each_change(&*storage, key, changes, &mut change)?;
                unsaved.iter().try_for_each(|bytes| change(bytes))?;
            }
        }
        let Pieces(mut to) = to.into_inner().map_err(|_| JobNotSent::Pipe)?;
        to.write_all(&0u32.to_le_bytes())?;
        Ok(to.flush()?)
    }
}

impl Task {
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut input = Reader(bytes);
        let kind = input.take(1)?[0];
        let number = input.number()?;
        let hashes = read_hashes(&mut input)?;
        let first = read_list(&mut input, bytes)?;
        Some(match kind {
            b'F' | b'f' | b'V' | b'v' => Self::Check {
                snapshot: first.into_iter().next(),
                changes: read_list(&mut input, bytes)?,
                heads: hashes,
                len: number,
                reading: match kind {
                    b'F' | b'V' => Reading::Contents,
                    _ => Reading::SavedForm,
                },
                wants_snapshot: matches!(kind, b'F' | b'f'),
            },
            b'A' => Self::Unfold {
                snapshot: first.into_iter().next()?,
                wanted: hashes,
            },
            _ => Self::Unpack {
                chunk: first.into_iter().next()?,
                known: hashes.into(),
                segment_from: number,
                changes: kind == b'C',
            },
        })
    }
}

/// A result as bytes.
pub(super) fn encode_result(result: &Result<Built, String>) -> Vec<u8> {
    let mut out = Vec::new();
    match result {
        Ok(Built::Unpacked(Brought::All(unpacked))) => {
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
        Ok(Built::Unpacked(Brought::Changes(changes))) => {
            out.push(b'C');
            push_list(&mut out, changes);
        }
        Ok(Built::Unfolded(changes)) => {
            out.push(b'A');
            push_list(&mut out, changes);
        }
        Ok(Built::Checked(Verdict::Sound(None))) => out.push(b'V'),
        Ok(Built::Checked(Verdict::Sound(Some(snapshot)))) => {
            out.push(b'S');
            out.extend_from_slice(snapshot);
        }
        Ok(Built::Checked(Verdict::Unsound(changes))) => {
            out.push(b'X');
            push_unsigned(&mut out, changes.len() as u64);
            for Unsound { at, reason } in changes {
                push_unsigned(&mut out, u64::from(*at));
                push_unsigned(&mut out, reason.len() as u64);
                out.extend_from_slice(reason.as_bytes());
            }
        }
        Err(reason) => {
            out.push(b'E');
            out.extend_from_slice(reason.as_bytes());
        }
    }
    out
}

pub(super) fn decode_result(bytes: &Bytes) -> Option<Result<Built, JobError>> {
    let mut input = Reader(bytes);
    Some(match input.take(1)?[0] {
        b'U' => {
            let len = input.number()?;
            let heads = 0..input.unsigned()?;
            let head = |_| Some((input.number()?, input.hash()?, input.number()?));
            let heads = heads.map(head).collect::<Option<_>>()?;
            let segment = bytes.slice_ref(input.prefixed()?);
            let outline = bytes.slice_ref(input.prefixed()?);
            Ok(Built::Unpacked(Brought::All(Unpacked {
                len,
                segment,
                outline,
                heads,
            })))
        }
        b'C' => {
            let changes = read_list(&mut input, bytes)?;
            Ok(Built::Unpacked(Brought::Changes(changes)))
        }
        b'A' => Ok(Built::Unfolded(read_list(&mut input, bytes)?)),
        b'V' => Ok(Built::Checked(Verdict::Sound(None))),
        b'S' => Ok(Built::Checked(Verdict::Sound(Some(bytes.slice(1..))))),
        b'X' => {
            let changes = 0..input.unsigned()?;
            let unsound = |_| {
                let at = input.number()?;
                let reason = String::from_utf8_lossy(input.prefixed()?).into_owned();
                Some(Unsound { at, reason })
            };
            let changes = changes.map(unsound).collect::<Option<_>>()?;
            Ok(Built::Checked(Verdict::Unsound(changes)))
        }
        b'E' => Err(JobError::Refused(
            String::from_utf8_lossy(input.0).into_owned(),
        )),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use reconverge::history::{Objects, Record, Row, StoredChange};
    use reconverge::id::{DocumentId, Space};
    use reconverge::storage::{Batch, DocumentKey, MemoryStorage, Storage, Write as Stored};

    use super::*;

    const HASH: ChangeHash = ChangeHash([9; 32]);

    fn written(job: Job) -> Result<Option<Task>, JobNotSent> {
        let mut pipe = Vec::new();
        job.write(&mut pipe)?;
        let job = read_job(&mut &pipe[..]).unwrap().unwrap();
        Ok(Task::decode(&job))
    }

    #[test]
    fn an_uploaded_chunk_survives_the_pipe() {
        let chunk = Bytes::from_static(b"chunk");
        for changes in [false, true] {
            let job = Job::Unpack {
                chunk: chunk.clone(),
                known: [HASH].into(),
                segment_from: 3,
                changes,
            };
            let task = Task::Unpack {
                chunk: chunk.clone(),
                known: [HASH].into(),
                segment_from: 3,
                changes,
            };
            assert_eq!(written(job).unwrap(), Some(task));
        }
    }

    #[test]
    fn a_stored_history_survives_the_pipe() {
        let storage = Arc::new(MemoryStorage::new("memory"));
        let (key, document) = (DocumentKey(1), DocumentId::new(&[1; 16]).unwrap());
        let snapshot = Bytes::from(vec![7; 3 * BLOB_PIECE_BYTES + 1]);
        let changes: Vec<_> = (0..4).map(|n| Bytes::from(vec![n; 10])).collect();
        let stored = |bytes: &Bytes| StoredChange {
            hash: HASH,
            parents: Vec::new(),
            max_op: 1,
            objects: Objects::default(),
            bytes: bytes.clone(),
        };
        let row = Row {
            changes: changes.iter().map(stored).collect(),
        };
        let writes = vec![
            Stored::Record(Record::new(Space::default())),
            Stored::Blob(Blob::Snapshot(5), snapshot.clone()),
            Stored::Row { last: 3, row },
        ];
        let batch = Batch {
            document,
            key,
            writes,
        };
        storage.commit(&[batch]).unwrap();
        let unsaved = Bytes::from_static(b"not stored yet");
        let fold = |snapshot: Option<_>, end, reading| Job::Check {
            storage: storage.clone(),
            key,
            changes: 1..end,
            bytes: 0,
            operations: 0,
            unsaved: vec![unsaved.clone()],
            heads: vec![HASH],
            reading,
            wants_snapshot: snapshot.is_some(),
            snapshot,
        };
        let task = |snapshot: Option<_>, reading| Task::Check {
            changes: [&changes[1..], std::slice::from_ref(&unsaved)].concat(),
            heads: vec![HASH],
            len: 5,
            reading,
            wants_snapshot: snapshot.is_some(),
            snapshot,
        };
        let bytes = snapshot.len() as u64;
        let contents = Reading::Contents;
        for reading in [contents, Reading::SavedForm] {
            let whole = written(fold(Some((5, bytes)), 4, reading)).unwrap();
            assert_eq!(whole, Some(task(Some(snapshot.clone()), reading)));
            let changes = written(fold(None, 4, reading)).unwrap();
            assert_eq!(changes, Some(task(None, reading)));
        }
        for missing in [fold(Some((6, bytes)), 4, contents), fold(None, 5, contents)] {
            assert!(matches!(written(missing), Err(JobNotSent::Storage(_))));
        }
        let unfold = |generation| Job::Unfold {
            storage: storage.clone(),
            key,
            snapshot: (generation, bytes),
            wanted: vec![HASH],
        };
        let task = Task::Unfold {
            snapshot: Bytes::from(vec![7; 3 * BLOB_PIECE_BYTES + 1]),
            wanted: vec![HASH],
        };
        assert_eq!(written(unfold(5)).unwrap(), Some(task));
        assert!(matches!(written(unfold(6)), Err(JobNotSent::Storage(_))));
        // A size that is not the snapshot's is no job.
        assert_eq!(
            written(fold(Some((5, bytes + 60)), 4, contents)).unwrap(),
            None
        );
    }

    #[test]
    fn results_survive_the_pipe() {
        let unpacked = Unpacked {
            len: 5,
            segment: Bytes::from_static(&[1, 2]),
            outline: Bytes::from_static(&[3]),
            heads: vec![(4, HASH, 700)],
        };
        let bytes = Bytes::from_static(b"bytes");
        let unsound = Unsound {
            at: 7,
            reason: "Automerge panicked".into(),
        };
        for built in [
            Built::Unpacked(Brought::All(unpacked)),
            Built::Unpacked(Brought::Changes(vec![bytes.clone()])),
            Built::Unfolded(vec![bytes.clone(), Bytes::new()]),
            Built::Checked(Verdict::Sound(None)),
            Built::Checked(Verdict::Sound(Some(bytes))),
            Built::Checked(Verdict::Unsound(vec![unsound])),
        ] {
            let sent = encode_result(&Ok(built.clone()));
            assert_eq!(decode_result(&sent.into()).unwrap().unwrap(), built);
        }
    }
}
