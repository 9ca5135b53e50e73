//! What a client knows of one document: its heads and the relay's, and its own changes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::Arc;

use automerge::ChangeHash;
use automerge::sync::BloomFilter;
use bytes::Bytes;
use reconverge::history::chunk::ChunkKind;
use reconverge::id::DocumentId;
use reconverge::leb::push_unsigned;
use reconverge::protocol::{Flags, SyncMessage, Version, encode_sync};

use super::change::{Change, deps_and_seq, hashes, read_chunk};
use super::fault::Fault;

/// Most bytes of changes that go into one message.
pub const UPLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Hashes are random already: their first eight bytes are the hash.
#[derive(Debug, Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are used");
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

fn key(hash: &ChangeHash) -> u64 {
    u64::from_le_bytes(hash.0[..8].try_into().unwrap())
}

/// What a client knows of one document.
#[derive(Debug)]
pub struct Document {
    pub(super) name: Arc<str>,
    heads: Vec<ChangeHash>,
    relay_heads: Option<Vec<ChangeHash>>,
    /// Heads that both sides certainly have.
    shared: Vec<ChangeHash>,
    /// Received since `shared`, and not below the relay's heads as far as we know.
    beyond_shared: Vec<ChangeHash>,
    /// Every change seen one by one, with how many of our own are among it and its ancestors.
    seen: HashMap<u64, u32, BuildHasherDefault<FirstBytes>>,
    /// Changes came inside a document chunk, so `seen` is not everything.
    has_snapshot: bool,
    own: Vec<Change>,
    /// The changes inside `own[0]`, if that is a document chunk.
    own_snapshot: Arc<[ChangeHash]>,
    sent: usize,
    acked: usize,
    kept: Option<Vec<u8>>,
    unavailable: bool,
    /// What came for this document.
    pub received: Received,
}

/// Counters of what came for one document, over all connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Sync messages.
    pub messages: u64,
    /// Sync messages that carried chunks.
    pub messages_with_chunks: u64,
    /// Changes that were new.
    pub changes: u64,
    /// Changes that were had already.
    pub duplicates: u64,
    /// Changes that came before one they depend on: a relay must not do that.
    pub gaps: u64,
    /// Document chunks.
    pub snapshots: u64,
    /// Bytes of chunks.
    pub chunk_bytes: u64,
}

impl Document {
    /// A document of which nothing is had yet.
    #[must_use]
    pub fn new(id: DocumentId) -> Self {
        Self {
            name: id.to_string().into(),
            heads: Vec::new(),
            relay_heads: None,
            shared: Vec::new(),
            beyond_shared: Vec::new(),
            seen: HashMap::default(),
            has_snapshot: false,
            own: Vec::new(),
            own_snapshot: Arc::new([]),
            sent: 0,
            acked: 0,
            kept: None,
            unavailable: false,
            received: Received::default(),
        }
    }

    /// Keeps the bytes that come, for [`kept`](Self::kept).
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.kept = Some(Vec::new());
        self
    }

    /// A document of which everything up to these heads is had, and known to be at the relay: a
    /// client with stored sync state. What lies below the heads is not known one by one, so what
    /// comes again of it counts among [`Received::gaps`].
    #[must_use]
    pub fn resumed(id: DocumentId, heads: Vec<ChangeHash>) -> Self {
        let mut document = Self::new(id);
        document
            .seen
            .extend(heads.iter().map(|head| (key(head), 0)));
        document.shared.clone_from(&heads);
        document.heads = heads;
        document
    }

    /// A document that this client has whole, as one document chunk and the hashes of all changes
    /// in it, the last of them its only head; uploaded in that form.
    #[must_use]
    pub fn with_snapshot(id: DocumentId, saved: Bytes, hashes: Arc<[ChangeHash]>) -> Self {
        let mut document = Self::new(id);
        let head = *hashes.last().expect("a document has changes");
        document.own_snapshot = hashes;
        document.has_snapshot = true;
        document.write(Change {
            hash: head,
            bytes: saved,
        });
        document
    }

    /// A new document, begun with these changes.
    #[must_use]
    pub fn created(id: DocumentId, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut document = Self::new(id);
        for change in changes {
            document.write(change);
        }
        document
    }

    /// The document's id as text.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its heads, sorted.
    #[must_use]
    pub fn heads(&self) -> &[ChangeHash] {
        &self.heads
    }

    /// Whether this change was written here or came by itself, not inside a snapshot.
    #[must_use]
    pub fn has(&self, hash: &ChangeHash) -> bool {
        self.seen.contains_key(&key(hash))
    }

    /// What the relay last named as its heads, on this connection.
    #[must_use]
    pub fn relay_heads(&self) -> Option<&[ChangeHash]> {
        self.relay_heads.as_deref()
    }

    /// How many own changes were made.
    #[must_use]
    pub fn written(&self) -> usize {
        self.own.len()
    }

    /// How many own changes, from the first, the relay has acknowledged as durable.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.acked
    }

    /// The own changes.
    #[must_use]
    pub fn own(&self) -> &[Change] {
        &self.own
    }

    /// Whether the relay and we have the same, and something.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        !self.heads.is_empty() && self.relay_heads.as_deref() == Some(&self.heads)
    }

    /// Whether the relay last said that nobody has this document.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.unavailable
    }

    /// The chunks received, back to back.
    ///
    /// # Panics
    /// Unless the document is [`keeping`](Self::keeping).
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        self.kept
            .as_deref()
            .expect("a document that keeps what comes")
    }

    /// Adds a change of our own.
    pub(super) fn write(&mut self, change: Change) {
        self.own.push(change);
        let change = self.own.last().unwrap();
        let hash = change.hash;
        if self.own.len() == 1 && !self.own_snapshot.is_empty() {
            self.heads = vec![hash];
        } else {
            let (chunk, _) = read_chunk(&change.bytes).expect("an own change is a chunk");
            let (deps, _) = deps_and_seq(chunk.data).expect("an own change is well-formed");
            let bytes = deps;
            self.heads
                .retain(|head| !hashes(bytes).any(|dep| dep == *head));
            let at = self.heads.partition_point(|head| *head < hash);
            self.heads.insert(at, hash);
        }
        self.seen.insert(key(&hash), self.own.len() as u32);
    }

    /// Begins a connection. Whether there is nothing to announce, so that it must be asked for.
    pub(super) fn begin(&mut self) -> bool {
        self.relay_heads = None;
        self.unavailable = false;
        self.sent = self.acked;
        self.heads.is_empty() && self.shared.is_empty()
    }

    /// As many of our own changes as go into one message, from the first that was not sent; from now
    /// on they count as sent.
    pub(super) fn next_unsent(&mut self) -> Option<Range<usize>> {
        let (from, mut to, mut bytes) = (self.sent, self.sent, 0);
        while let Some(change) = self.own.get(to) {
            bytes += change.bytes.len();
            if bytes > UPLOAD_BYTES_MAX && to > from {
                break;
            }
            to += 1;
        }
        self.sent = to;
        (from < to).then_some(from..to)
    }

    /// Whether own changes were not sent yet.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.own.len()
    }

    /// Takes in that nobody has it.
    pub(super) fn take_unavailable(&mut self) {
        self.unavailable = true;
    }

    /// Takes in a sync message; `applied` gets the sequence number of each change that was new.
    /// Whether anything was.
    pub(super) fn receive(
        &mut self,
        message: &SyncMessage<'_>,
        applied: &mut Vec<u64>,
    ) -> Result<bool, Fault> {
        let before = self.received;
        for mut chunks in message.changes.iter().copied() {
            self.received.chunk_bytes += chunks.len() as u64;
            while !chunks.is_empty() {
                let taken = self.take(chunks, applied)?;
                if let Some(kept) = &mut self.kept {
                    kept.extend_from_slice(&chunks[..taken]);
                }
                chunks = &chunks[taken..];
            }
        }
        self.received.messages += 1;
        let now = self.received;
        if now.chunk_bytes > before.chunk_bytes {
            self.received.messages_with_chunks += 1;
        }
        if !self.heads.is_empty() {
            self.unavailable = false;
        }
        self.take_relay_heads(&message.heads);
        Ok(now.changes > before.changes || now.snapshots > before.snapshots)
    }

    /// Its state, for a person to read.
    pub(super) fn state(&self) -> String {
        format!(
            "{}: heads {:?}, of the relay {:?}, {} written, {} sent, {} acked, {:?}",
            self.name,
            self.heads,
            self.relay_heads,
            self.own.len(),
            self.sent,
            self.acked,
            self.received,
        )
    }

    /// Takes in one chunk and gives its length; `applied` gets the sequence number of each change
    /// that was new.
    fn take(&mut self, bytes: &[u8], applied: &mut Vec<u64>) -> Result<usize, Fault> {
        let malformed = || Fault::Relay("a malformed chunk".into());
        let (chunk, hash) = read_chunk(bytes).ok_or_else(malformed)?;
        match chunk.kind {
            ChunkKind::Change => {
                let (deps, seq) = deps_and_seq(chunk.data).ok_or_else(malformed)?;
                self.take_change(hash, deps, seq, applied);
            }
            ChunkKind::DeflatedChange => {
                let change = automerge::Change::try_from(chunk.bytes)
                    .map_err(|e| Fault::Relay(format!("a malformed change: {e}")))?;
                let deps: Vec<u8> = change.deps().iter().flat_map(|dep| dep.0).collect();
                self.take_change(change.hash(), &deps, change.seq(), applied);
            }
            ChunkKind::Document => {
                let heads = chunk.document_heads().ok_or_else(malformed)?;
                self.take_snapshot(&heads);
            }
            ChunkKind::Bundle => return Err(Fault::Relay("a bundle chunk".into())),
        }
        Ok(chunk.bytes.len())
    }

    fn take_change(&mut self, hash: ChangeHash, deps: &[u8], seq: u64, applied: &mut Vec<u64>) {
        if self.seen.contains_key(&key(&hash)) {
            self.received.duplicates += 1;
            return;
        }
        let mut own = 0;
        for dep in hashes(deps) {
            match self.seen.get(&key(&dep)) {
                Some(below) => own = own.max(*below),
                None if self.has_snapshot => {}
                None => self.received.gaps += 1,
            }
            self.heads.retain(|head| *head != dep);
        }
        self.seen.insert(key(&hash), own);
        let at = self.heads.partition_point(|head| *head < hash);
        self.heads.insert(at, hash);
        self.beyond_shared.push(hash);
        self.received.changes += 1;
        applied.push(seq);
    }

    /// A document chunk covers everything we have but our own changes that the relay lacks, or
    /// brings nothing.
    fn take_snapshot(&mut self, heads: &[ChangeHash]) {
        self.received.snapshots += 1;
        if heads.iter().all(|head| self.seen.contains_key(&key(head))) {
            return;
        }
        self.has_snapshot = true;
        let (acked, seen) = (self.acked as u32, &self.seen);
        self.heads
            .retain(|head| seen.get(&key(head)).is_some_and(|own| *own > acked));
        for head in heads {
            if self.seen.insert(key(head), 0).is_none() {
                self.heads.push(*head);
            }
        }
        self.heads.sort_unstable();
        // True whatever the relay knows: we have everything below these.
        self.shared = heads.to_vec();
        self.shared.sort_unstable();
        self.beyond_shared.clear();
    }

    fn take_relay_heads(&mut self, heads: &[ChangeHash]) {
        if heads.is_empty() {
            // A relay that has nothing was not sent anything that it kept.
            self.sent = 0;
        }
        let own = |head: &ChangeHash| self.seen.get(&key(head)).copied();
        let acked = heads.iter().filter_map(own).max().unwrap_or(0) as usize;
        self.acked = self.acked.max(acked);
        self.sent = self.sent.max(acked);
        if !heads.is_empty() && heads.iter().all(|head| own(head).is_some()) {
            self.shared.clear();
            self.shared.extend_from_slice(heads);
            self.beyond_shared.clear();
            if self.has_snapshot && self.heads.len() > 1 {
                // A change that came twice, the first time inside a snapshot, was taken for a
                // head. Everything but our own news lies below the relay's heads.
                let (acked, seen) = (self.acked as u32, &self.seen);
                self.heads.retain(|head| {
                    heads.contains(head) || seen.get(&key(head)).is_some_and(|own| *own > acked)
                });
            }
        }
        let relay_heads = self.relay_heads.get_or_insert_default();
        relay_heads.clear();
        relay_heads.extend_from_slice(heads);
    }

    /// A sync message with those of our changes.
    pub(super) fn sync_message(&self, changes: Range<usize>) -> Vec<u8> {
        let own = self.own[self.acked.min(self.own.len())..]
            .iter()
            .map(|change| &change.hash);
        let in_snapshot: &[ChangeHash] = match self.own_snapshot.split_last() {
            // The last is own[0] itself.
            Some((_, rest)) if self.acked == 0 => rest,
            _ => &[],
        };
        let beyond = in_snapshot.iter().chain(&self.beyond_shared).chain(own);
        let bloom = if self.beyond_shared.is_empty() && self.acked == self.own.len() {
            BloomFilter::default()
        } else {
            let beyond: Vec<&ChangeHash> = beyond.collect();
            BloomFilter::from_hashes(beyond.into_iter())
        };
        let have = Some((self.shared.as_slice(), &bloom));
        let changes = &self.own[changes];
        let mut data = encode_sync(Version::V1, &self.heads, &[], have, changes.len());
        data.reserve(
            changes
                .iter()
                .map(|change| change.bytes.len() + 4)
                .sum::<usize>()
                + 3,
        );
        for change in changes {
            push_unsigned(&mut data, change.bytes.len() as u64);
            data.extend_from_slice(&change.bytes);
        }
        data.extend(
            Flags {
                supports_sync_reset: true,
                ..Flags::default()
            }
            .encode(),
        );
        data
    }
}
