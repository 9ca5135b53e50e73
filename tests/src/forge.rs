//! Chunks that no client makes: length and checksum are right, whatever is in them.

use automerge::legacy::{ElementId, Key, OpId};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ObjType, ROOT};
use reconverge::history::leb::push_unsigned;
use sha2::{Digest, Sha256};

/// A chunk around data.
#[must_use]
pub fn chunk(kind: u8, data: &[u8]) -> Vec<u8> {
    chunk_of_hash(kind, data, kind, data)
}

/// A chunk around `data` with the checksum of another form of it.
#[must_use]
pub fn chunk_of_hash(kind: u8, data: &[u8], hashed_kind: u8, hashed: &[u8]) -> Vec<u8> {
    let mut header = vec![hashed_kind];
    push_unsigned(&mut header, hashed.len() as u64);
    let hash = Sha256::new()
        .chain_update(&header)
        .chain_update(hashed)
        .finalize();
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83];
    bytes.extend_from_slice(&hash[..4]);
    bytes.push(kind);
    push_unsigned(&mut bytes, data.len() as u64);
    bytes.extend_from_slice(data);
    bytes
}

/// A document, a change on top of it whose structure is right and whose contents make Automerge
/// panic, and one that an honest client makes beside it. Nothing depends on the second.
///
/// # Panics
/// If Automerge took such a change after all.
#[must_use]
pub fn unsound() -> (Vec<Change>, Change, Change) {
    let mut document = AutoCommit::new().with_actor([1; 16].as_slice().into());
    let list = document.put_object(ROOT, "list", ObjType::List);
    let list = list.expect("a map takes a list");
    let text = document.put_object(ROOT, "text", ObjType::Text);
    let text = text.expect("a map takes a text");
    document.insert(&list, 0, 1).expect("in the list");
    document.splice_text(&text, 0, 0, "x").expect("in the text");
    document.commit();
    let mut beside = document.fork().with_actor([2; 16].as_slice().into());
    beside.insert(&list, 1, 2).expect("in the list");
    let honest = beside.get_last_local_change().expect("just made");
    let mut forged = document.fork().with_actor([3; 16].as_slice().into());
    forged.insert(&list, 1, 3).expect("in the list");
    let forged = forged.get_last_local_change().expect("just made");
    let mut forged = forged.decode();
    // Behind the text's character, which is no element of the list.
    let character = OpId(4, [1; 16].as_slice().into());
    forged.operations[0].key = Key::Seq(ElementId::Id(character));
    (document.get_changes(&[]), forged.into(), honest)
}
