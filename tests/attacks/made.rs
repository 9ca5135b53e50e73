//! Changes and documents that are cheap to make and dear to take.

use std::io::Write as _;

use automerge::ChangeHash;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use reconverge::history::chunk::chunk_hash;
use reconverge::id::DocumentId;
use reconverge::leb::push_unsigned;
use reconverge::protocol::Flags;
use reconverge_tests::forge::{chunk, chunk_of_hash};
use reconverge_tests::socket::{request_bytes, sync_bytes};
use reconverge_tests::world::sync_message;

use crate::attacker::{Attacker, Target};

pub(crate) const MIB: usize = 1024 * 1024;

/// A document of the attacker's.
pub(crate) fn document(number: u32) -> DocumentId {
    let mut id = [1; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    DocumentId::new(&id).unwrap()
}

/// A hash that no change has.
pub(crate) fn unknown(number: u64) -> ChangeHash {
    let mut hash = [0xee; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    // Different in its beginning, too, as hashes are: that is what tables of them look at.
    hash[8..16].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    hash.rotate_right(8);
    ChangeHash(hash)
}

pub(crate) fn actor(number: u64) -> [u8; 16] {
    let mut actor = [3; 16];
    actor[..8].copy_from_slice(&number.to_be_bytes());
    actor
}

/// A change without operations.
pub(crate) struct Empty<'a> {
    pub(crate) deps: &'a [ChangeHash],
    pub(crate) actor: &'a [u8],
    pub(crate) seq: u64,
    /// Below 64. It tells changes apart that are otherwise the same.
    pub(crate) time: u8,
}

impl Empty<'_> {
    /// What is inside its chunk.
    pub(crate) fn data(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(64 + 32 * self.deps.len() + self.actor.len());
        push_unsigned(&mut data, self.deps.len() as u64);
        for dep in self.deps {
            data.extend_from_slice(&dep.0);
        }
        push_unsigned(&mut data, self.actor.len() as u64);
        data.extend_from_slice(self.actor);
        push_unsigned(&mut data, self.seq);
        // Its first operation would be the first there is; time; no message, other actors, columns.
        data.extend([1, self.time, 0, 0, 0]);
        data
    }

    pub(crate) fn chunk(&self) -> (ChangeHash, Vec<u8>) {
        let bytes = chunk(1, &self.data());
        (chunk_hash(&bytes).unwrap(), bytes)
    }
}

/// Deflates changes that end in very many zeros: what zeros deflate to is made once.
pub(crate) struct Zeros {
    len: usize,
    deflated: Vec<u8>,
}

impl Zeros {
    pub(crate) fn new(len: usize) -> Self {
        let mut out = DeflateEncoder::new(Vec::new(), Compression::best());
        let zeros = vec![0; MIB];
        for _ in 0..len / MIB {
            out.write_all(&zeros).unwrap();
        }
        out.write_all(&zeros[..len % MIB]).unwrap();
        let deflated = out.finish().unwrap();
        Self { len, deflated }
    }

    /// A deflated change of these data and zeros after them.
    pub(crate) fn after(&self, data: &[u8]) -> Vec<u8> {
        let (hash_of, deflated) = self.parts(data, &[]);
        chunk_of_hash(2, &deflated, 1, &hash_of)
    }

    /// The same with something after the zeros.
    pub(crate) fn within(&self, data: &[u8], end: &[u8]) -> Vec<u8> {
        let (hash_of, deflated) = self.parts(data, end);
        chunk_of_hash(2, &deflated, 1, &hash_of)
    }

    fn parts(&self, data: &[u8], end: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut inflated = Vec::with_capacity(data.len() + self.len + end.len());
        inflated.extend_from_slice(data);
        inflated.resize(data.len() + self.len, 0);
        inflated.extend_from_slice(end);
        if end.is_empty() {
            let deflated = [&stored(data, false), &self.deflated[..]].concat();
            return (inflated, deflated);
        }
        (inflated.clone(), deflate(&inflated))
    }
}

pub(crate) fn deflate(data: &[u8]) -> Vec<u8> {
    let mut out = DeflateEncoder::new(Vec::new(), Compression::best());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

/// A block of a deflated stream (RFC 1951, section 3.2.4) that holds bytes as they are.
fn stored(data: &[u8], last: bool) -> Vec<u8> {
    let len = u16::try_from(data.len()).expect("a small block");
    let mut block = vec![u8::from(last)];
    block.extend(len.to_le_bytes());
    block.extend((!len).to_le_bytes());
    block.extend_from_slice(data);
    block
}

/// A sync message with heads and chunks, in its envelope.
pub(crate) fn sync(
    name: &str,
    document: DocumentId,
    heads: &[ChangeHash],
    chunks: &[&[u8]],
) -> Bytes {
    sync_bytes(name, document, &sync_message(heads, &[], chunks)).into()
}

/// A sync message with heads and flags.
pub(crate) fn flagged(
    name: &str,
    document: DocumentId,
    heads: &[ChangeHash],
    flags: Flags,
) -> Bytes {
    let mut message = sync_message(heads, &[], &[]);
    message.extend(flags.encode());
    sync_bytes(name, document, &message).into()
}

/// Asks for a document, as who has nothing of it.
pub(crate) fn request(name: &str, document: DocumentId) -> Bytes {
    request_bytes(name, document).into()
}

/// A chain of so many changes without operations of one actor, the first on top of `deps`.
pub(crate) fn chain(
    deps: &[ChangeHash],
    actor: &[u8],
    changes: usize,
) -> Vec<(ChangeHash, Vec<u8>)> {
    let mut chain: Vec<(ChangeHash, Vec<u8>)> = Vec::with_capacity(changes);
    for seq in 1..=changes as u64 {
        let last = chain.last().map(|(hash, _)| [*hash]);
        let deps = last.as_ref().map_or(deps, |last| &last[..]);
        chain.push(
            Empty {
                deps,
                actor,
                seq,
                time: 0,
            }
            .chunk(),
        );
    }
    chain
}

/// Uploads changes in messages of about a MiB, and waits until the relay has them all.
pub(crate) async fn upload(
    target: &Target,
    document: DocumentId,
    changes: &[(ChangeHash, Vec<u8>)],
) {
    let mut uploader = Attacker::join(target, "preparing").await.unwrap();
    for part in changes.chunks(8 * 1024) {
        let chunks: Vec<&[u8]> = part.iter().map(|(_, bytes)| &bytes[..]).collect();
        let head = part.last().unwrap().0;
        assert!(
            uploader
                .send(sync("preparing", document, &[head], &chunks))
                .await
        );
    }
    let last = changes.last().unwrap().0;
    until_stored(target, document, last).await;
    drop(uploader);
}

/// Waits until the relay names this head.
pub(crate) async fn until_stored(target: &Target, document: DocumentId, head: ChangeHash) {
    use reconverge_tests::light::{Client, Document};
    let mut reader = Client::connect(&target.url, "looks").await.unwrap();
    reader.open(Document::resumed(document, vec![head]));
    let is_there = |client: &Client| {
        let heads = client.document(0).relay_heads();
        heads.is_some_and(|heads| heads.contains(&head))
    };
    reader.until(is_there).await.unwrap();
}
