//! Recorded editing traces, replayed as Automerge changes: one transaction, one change.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ChangeHash, ObjId, ObjType, ROOT, ReadDoc};
use bytes::Bytes;
use serde_json::Value;

use crate::light::{Change, split_changes};
use crate::process::target_directory;
use crate::typist::TEXT;

/// The LaTeX source of a paper: one author, 259,778 keystrokes.
pub const PAPER: &str = "automerge-paper";

/// An essay by two authors at once, 26,078 transactions.
pub const FRIENDS: &str = "friendsforever";

/// A recording.
#[derive(Debug)]
pub struct Trace {
    /// What was done, each entry after those it builds upon.
    pub transactions: Vec<Transaction>,
    /// The text that must come out.
    pub end: String,
}

/// One transaction of a recording.
#[derive(Debug)]
pub struct Transaction {
    /// Its author's number.
    pub agent: usize,
    /// The transactions that it directly builds upon; none in a recording with one author, where
    /// each builds upon the one before.
    pub parents: Option<Vec<usize>>,
    /// Position, characters deleted there, text inserted there; in Unicode code points.
    pub patches: Vec<(usize, usize, String)>,
}

/// A replayed recording.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// One change per transaction, in the recording's order.
    pub changes: Vec<Change>,
    /// The author of each.
    pub agents: Vec<usize>,
    /// The document as Automerge saves it.
    pub saved: Bytes,
    /// The text in the end.
    pub text: String,
}

impl Trace {
    /// Reads a recording from this repository's `tests/data`.
    ///
    /// # Panics
    /// When it is not there or not in the expected form.
    #[must_use]
    pub fn load(name: &str) -> Self {
        let file = std::fs::File::open(path_of(name)).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(file)
            .read_to_string(&mut text)
            .unwrap();
        let trace: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            trace["startContent"].as_str().unwrap_or_default(),
            "",
            "traces begin empty"
        );
        let number = |value: &Value| value.as_u64().unwrap() as usize;
        let patch = |patch: &Value| {
            (
                number(&patch[0]),
                number(&patch[1]),
                patch[2].as_str().unwrap().to_owned(),
            )
        };
        let transaction = |transaction: &Value| Transaction {
            agent: transaction.get("agent").map_or(0, number),
            parents: transaction["parents"]
                .as_array()
                .map(|all| all.iter().map(number).collect()),
            patches: transaction["patches"]
                .as_array()
                .unwrap()
                .iter()
                .map(patch)
                .collect(),
        };
        Self {
            transactions: trace["txns"]
                .as_array()
                .unwrap()
                .iter()
                .map(transaction)
                .collect(),
            end: trace["endContent"].as_str().unwrap().to_owned(),
        }
    }

    /// Replays the first `count` transactions: one Automerge document per author, each receiving
    /// the other's changes where the recording says that its author had seen them.
    ///
    /// # Panics
    /// When the whole was replayed and the text is not the recorded one.
    #[must_use]
    pub fn replay(&self, count: usize) -> Replayed {
        let transactions = &self.transactions[..count.min(self.transactions.len())];
        let authors = transactions.iter().map(|t| t.agent).max().unwrap_or(0) + 1;
        let mut authors: Vec<Author> = (0..authors).map(Author::new).collect();
        let mut changes: Vec<automerge::Change> = Vec::with_capacity(transactions.len());
        for (at, transaction) in transactions.iter().enumerate() {
            let author = &mut authors[transaction.agent];
            if let Some(parents) = &transaction.parents {
                let unseen = self.unseen(author, parents);
                if !unseen.is_empty() {
                    author.receive(unseen.iter().map(|at| changes[*at].clone()).collect());
                }
                let mut saw: Vec<ChangeHash> =
                    parents.iter().map(|at| changes[*at].hash()).collect();
                saw.sort_unstable();
                assert_eq!(author.heads(), saw, "an author saw what the recording says");
            }
            changes.push(author.apply(&transaction.patches));
            author.has_seen.insert(at);
        }
        let mut whole = AutoCommit::new();
        for author in &mut authors {
            whole.merge(&mut author.doc).unwrap();
        }
        let text = match whole.get(ROOT, TEXT).unwrap() {
            Some((_, text)) => whole.text(&text).unwrap(),
            None => String::new(),
        };
        if transactions.len() == self.transactions.len() {
            assert!(
                text == self.end,
                "the replayed text is not the recorded one"
            );
        }
        Replayed {
            changes: changes.iter().map(Change::from).collect(),
            agents: transactions
                .iter()
                .map(|transaction| transaction.agent)
                .collect(),
            saved: whole.save().into(),
            text,
        }
    }

    /// What an author has to receive in order to have these transactions, oldest first.
    fn unseen(&self, author: &mut Author, parents: &[usize]) -> Vec<usize> {
        let mut unseen = Vec::new();
        let mut open = parents.to_vec();
        while let Some(at) = open.pop() {
            if author.has_seen.insert(at) {
                unseen.push(at);
                open.extend(self.transactions[at].parents.iter().flatten());
            }
        }
        unseen.sort_unstable();
        unseen
    }
}

/// The paper, replayed in whole. The first time takes a while; the result is kept in the target
/// directory and checked when it is read again.
///
/// # Panics
/// When the text is not the recorded one.
#[must_use]
pub fn paper() -> Replayed {
    let trace = Trace::load(PAPER);
    let count = trace.transactions.len();
    let directory = target_directory().join("traces");
    // A change of either crate or recording must not find the old result.
    let version = std::fs::metadata(path_of(PAPER)).unwrap().len();
    let changes_path = directory.join(format!("{PAPER}-{count}-{version}.changes"));
    let saved_path = directory.join(format!("{PAPER}-{count}-{version}.automerge"));
    if let (Ok(changes), Ok(saved)) = (std::fs::read(&changes_path), std::fs::read(&saved_path)) {
        let changes = split_changes(&changes.into());
        assert_eq!(changes.len(), count, "a cache that was written in whole");
        let text = trace.end;
        return Replayed {
            changes,
            agents: vec![0; count],
            saved: saved.into(),
            text,
        };
    }
    let replayed = trace.replay(count);
    std::fs::create_dir_all(&directory).unwrap();
    write_in_whole(&saved_path, &replayed.saved);
    let changes: Vec<u8> = replayed
        .changes
        .iter()
        .flat_map(|c| c.bytes.iter().copied())
        .collect();
    write_in_whole(&changes_path, &changes);
    replayed
}

impl Replayed {
    /// The hashes of all changes, in order.
    #[must_use]
    pub fn hashes(&self) -> Arc<[ChangeHash]> {
        self.changes.iter().map(|change| change.hash).collect()
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(format!("{name}.json.gz"))
}

fn write_in_whole(path: &Path, bytes: &[u8]) {
    let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
    std::fs::write(&unfinished, bytes).unwrap();
    std::fs::rename(unfinished, path).unwrap();
}

#[derive(Debug)]
struct Author {
    doc: AutoCommit,
    text: Option<ObjId>,
    has_seen: HashSet<usize>,
}

impl Author {
    fn new(agent: usize) -> Self {
        let actor = ActorId::from([agent as u8 + 1; 16]);
        Self {
            doc: AutoCommit::new().with_actor(actor),
            text: None,
            has_seen: HashSet::new(),
        }
    }

    fn heads(&mut self) -> Vec<ChangeHash> {
        let mut heads = self.doc.get_heads();
        heads.sort_unstable();
        heads
    }

    fn receive(&mut self, changes: Vec<automerge::Change>) {
        self.doc.apply_changes(changes).unwrap();
        if self.text.is_none() {
            self.text = self.doc.get(ROOT, TEXT).unwrap().map(|(_, text)| text);
        }
    }

    fn apply(&mut self, patches: &[(usize, usize, String)]) -> automerge::Change {
        let doc = &mut self.doc;
        let text = self.text.get_or_insert_with(|| {
            doc.put_object(ROOT, TEXT, ObjType::Text)
                .expect("an empty document takes a text")
        });
        for (at, deleted, inserted) in patches {
            doc.splice_text(&*text, *at, isize::try_from(*deleted).unwrap(), inserted)
                .unwrap();
        }
        doc.commit().expect("a transaction changes something");
        doc.get_last_local_change().expect("a change was just made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_authors_at_once_end_in_the_recorded_text() {
        let trace = Trace::load(FRIENDS);
        let replayed = trace.replay(trace.transactions.len());
        assert_eq!(replayed.changes.len(), 26_078);
        assert_eq!(replayed.text.chars().count(), 21_362);
    }

    #[test]
    fn the_first_keystrokes_of_the_paper_are_one_change_each() {
        let replayed = Trace::load(PAPER).replay(1_000);
        assert_eq!(replayed.changes.len(), 1_000);
        assert_eq!(
            crate::typist::load(&replayed.saved).unwrap().text,
            replayed.text
        );
    }
}
