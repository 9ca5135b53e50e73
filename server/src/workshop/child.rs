//! The child's side: set the limits, read the job, build, answer.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};

use automerge::{Automerge, Change, ChangeHash};
use bytes::Bytes;
use reconverge::history::chunk::Chunk;
use reconverge::history::{DOCUMENT_OPS_MAX, History};
use reconverge::id::{Access, ConnectionId, Space};
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
        }) => unpack(&chunk, &known, segment_from, changes),
        Some(Task::Fold {
            snapshot,
            changes,
            heads,
            len,
        }) => fold(snapshot.as_ref(), &changes, &heads, len),
        None => Err("the job makes no sense".into()),
    };
    let result = encode_result(&result);
    let mut out = std::io::stdout().lock();
    out.write_all(&(result.len() as u64).to_le_bytes())?;
    out.write_all(&result)?;
    out.flush()
}

fn unpack(
    bytes: &Bytes,
    known: &[ChangeHash],
    segment_from: u32,
    want_changes: bool,
) -> Result<Built, String> {
    let (chunk, rest) = Chunk::split(bytes).map_err(|e| e.to_string())?;
    if !rest.is_empty() {
        return Err("bytes after the document chunk".into());
    }
    chunk.verified_hash().map_err(|e| e.to_string())?;
    let declared = chunk
        .declared_operations()
        .ok_or("its columns are malformed")?;
    if declared > DOCUMENT_OPS_MAX {
        return Err(format!(
            "declares {declared} rows, above the limit of {DOCUMENT_OPS_MAX}"
        ));
    }
    let document = Automerge::load(bytes).map_err(|e| e.to_string())?;
    let changes = document.get_changes(&[]);
    drop(document);
    let by_hash: HashMap<ChangeHash, usize> = changes
        .iter()
        .enumerate()
        .map(|(at, change)| (change.hash(), at))
        .collect();
    let covers = known.iter().all(|hash| by_hash.contains_key(hash));
    let is_known: HashSet<ChangeHash> = known.iter().copied().collect();
    let unknown = changes
        .iter()
        .filter(|change| !is_known.contains(&change.hash()));
    if want_changes || !covers {
        let bytes = |change: &Change| Bytes::copy_from_slice(change.raw_bytes());
        return Ok(Built::Changes(unknown.map(bytes).collect()));
    }
    // What is known keeps its place; the rest follows in the document's order, which puts every
    // change after its deps.
    let order = known
        .iter()
        .map(|hash| &changes[by_hash[hash]])
        .chain(unknown);
    let mut history = History::new(Space::default());
    let author = ConnectionId(0);
    history.join(author, Access::Write);
    for change in order {
        let bytes = [Bytes::copy_from_slice(change.raw_bytes())];
        let received = history
            .receive_unpacked(author, &bytes)
            .expect("everything is resident");
        if let Some((_, refusal)) = received.refused.first() {
            return Err(format!("change {}: {refusal}", change.hash()));
        }
        // Its bytes are not needed any more.
        drop(history.take_unsaved());
        history.committed();
    }
    if history.len() as usize != changes.len() {
        return Err("a change lacks its deps".into());
    }
    history
        .unpacked(segment_from)
        .map(Built::Covers)
        .ok_or_else(|| "no such segment".into())
}

fn fold(
    snapshot: Option<&Bytes>,
    changes: &[Bytes],
    heads: &[ChangeHash],
    len: u32,
) -> Result<Built, String> {
    let mut document = match snapshot {
        Some(bytes) => Automerge::load(bytes).map_err(|e| e.to_string())?,
        None => Automerge::new(),
    };
    let parsed: Result<Vec<Change>, _> = changes
        .iter()
        .map(|bytes| Change::try_from(bytes.as_ref()))
        .collect();
    let parsed = parsed.map_err(|e| e.to_string())?;
    document.apply_changes(parsed).map_err(|e| e.to_string())?;
    let snapshot = document.save();
    let again = Automerge::load(&snapshot).map_err(|e| e.to_string())?;
    check_equal(&document, &again, heads, len)?;
    Ok(Built::Snapshot(snapshot.into()))
}

/// Heads, graph and contents, before and after; the old pieces are removed only if all agree.
fn check_equal(
    before: &Automerge,
    after: &Automerge,
    heads: &[ChangeHash],
    len: u32,
) -> Result<(), String> {
    let mut found = after.get_heads();
    found.sort_unstable();
    if found != heads {
        return Err("the snapshot has other heads than the history".into());
    }
    let graph = |document: &Automerge| -> HashSet<(ChangeHash, Vec<ChangeHash>)> {
        let changes = document.get_changes_meta(&[]);
        changes
            .into_iter()
            .map(|change| (change.hash, change.deps.to_vec()))
            .collect()
    };
    let graph_after = graph(after);
    if graph_after.len() != len as usize || graph_after != graph(before) {
        return Err("the snapshot has another graph than the history".into());
    }
    if before.hydrate(None) != after.hydrate(None) {
        return Err("the snapshot has other contents than the history".into());
    }
    Ok(())
}
