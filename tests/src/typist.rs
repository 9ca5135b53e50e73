//! Somebody who types: real Automerge changes, one keystroke each, and the check that what others
//! received is the same document.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ChangeHash, ObjId, ObjType, ROOT, ReadDoc};

use crate::Random;
use crate::light::Change;

/// The key under which every document of these tests has its text.
pub const TEXT: &str = "text";

/// An Automerge document with a text in it, and somebody typing there.
#[derive(Debug)]
pub struct Typist {
    doc: AutoCommit,
    text: ObjId,
    length: usize,
    cursor: usize,
    random: Random,
}

impl Typist {
    /// Starts a document. The first change creates the text and is returned.
    #[must_use]
    pub fn new(seed: u64) -> (Self, Change) {
        let mut random = Random::new(seed);
        let mut doc = AutoCommit::new().with_actor(random.bytes().as_slice().into());
        let text = doc.put_object(ROOT, TEXT, ObjType::Text).unwrap();
        doc.commit();
        let first = last_change(&mut doc);
        (
            Self {
                doc,
                text,
                length: 0,
                cursor: 0,
                random,
            },
            first,
        )
    }

    /// Goes on in a document that somebody else may have started, as an author of its own.
    ///
    /// # Panics
    /// When the bytes are not a document with a text.
    #[must_use]
    pub fn join(saved: &[u8], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let doc = AutoCommit::load(saved).unwrap();
        let doc = doc.with_actor(random.bytes().as_slice().into());
        let (_, text) = doc
            .get(ROOT, TEXT)
            .unwrap()
            .expect("the document has a text");
        let length = doc.length(&text);
        Self {
            doc,
            text,
            length,
            cursor: length,
            random,
        }
    }

    /// One key: mostly the next letter, now and then a deletion or a move to elsewhere.
    pub fn keystroke(&mut self) -> Change {
        let choice = self.random.below(100);
        if choice >= 98 {
            self.cursor = self.random.below(self.length as u64 + 1) as usize;
        }
        if choice < 8 && self.cursor > 0 {
            self.cursor -= 1;
            self.doc
                .splice_text(&self.text, self.cursor, 1, "")
                .unwrap();
            self.length -= 1;
        } else {
            let letter = char::from(b"etaoin shrdlu"[self.random.below(13) as usize]);
            self.doc
                .splice_text(&self.text, self.cursor, 0, letter.encode_utf8(&mut [0; 4]))
                .unwrap();
            self.length += 1;
            self.cursor += 1;
        }
        self.doc.commit();
        last_change(&mut self.doc)
    }

    /// That many keys.
    pub fn keystrokes(&mut self, count: usize) -> Vec<Change> {
        (0..count).map(|_| self.keystroke()).collect()
    }

    /// Takes in what others wrote.
    ///
    /// # Panics
    /// When the bytes are not chunks that Automerge takes.
    pub fn receive(&mut self, chunks: &[u8]) {
        self.doc.load_incremental(chunks).unwrap();
        self.length = self.doc.length(&self.text);
        self.cursor = self.cursor.min(self.length);
    }

    /// The document as it is now.
    pub fn contents(&mut self) -> Contents {
        contents(&mut self.doc)
    }

    /// Whether this document has a change.
    pub fn has(&mut self, hash: &ChangeHash) -> bool {
        self.doc.get_change_by_hash(hash).is_some()
    }

    /// The document as one document chunk.
    pub fn save(&mut self) -> Vec<u8> {
        self.doc.save()
    }
}

/// The part of a document by which these tests compare: its text and its heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The text.
    pub text: String,
    /// The heads, sorted.
    pub heads: Vec<ChangeHash>,
    /// How many changes the document is made of.
    pub changes: u64,
}

/// The contents of a document.
///
/// # Panics
/// When it has no text under [`TEXT`].
pub fn contents(doc: &mut AutoCommit) -> Contents {
    let (_, text) = doc
        .get(ROOT, TEXT)
        .unwrap()
        .expect("the document has a text");
    let text = doc.text(&text).unwrap();
    let mut heads = doc.get_heads();
    heads.sort_unstable();
    let changes = doc.stats().num_changes;
    Contents {
        text,
        heads,
        changes,
    }
}

/// Loads what a client received, every checksum and every hash checked.
///
/// # Errors
/// When Automerge does not take it, or a change is missing below another, or there is no text.
pub fn load(chunks: &[u8]) -> Result<Contents, String> {
    let mut doc = AutoCommit::load(chunks).map_err(|e| e.to_string())?;
    let missing = doc.get_missing_deps(&[]);
    if !missing.is_empty() {
        return Err(format!(
            "{} changes are missing below others",
            missing.len()
        ));
    }
    if !matches!(doc.get(ROOT, TEXT), Ok(Some(_))) {
        return Err("there is no text in it".into());
    }
    Ok(contents(&mut doc))
}

fn last_change(doc: &mut AutoCommit) -> Change {
    Change::from(&doc.get_last_local_change().expect("a change was just made"))
}
