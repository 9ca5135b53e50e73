//! Chunks that no client makes: length and checksum are right, whatever is in them.

use automerge::legacy::{ElementId, Key, OpId};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Change, ObjType, ROOT};
use reconverge::leb::push_unsigned;
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
/// panic, and one that an honest client makes beside it; by `author` and two others. Nothing
/// depends on the second.
///
/// # Panics
/// If Automerge took such a change after all.
#[must_use]
pub fn unsound(author: [u8; 16]) -> (Vec<Change>, Change, Change) {
    let by = |n: u8| {
        let mut author = author;
        author[0] = author[0].wrapping_add(n);
        ActorId::from(author)
    };
    let mut document = AutoCommit::new().with_actor(by(0));
    let list = document.put_object(ROOT, "list", ObjType::List);
    let list = list.expect("a map takes a list");
    let text = document.put_object(ROOT, "text", ObjType::Text);
    let text = text.expect("a map takes a text");
    document.insert(&list, 0, 1).expect("in the list");
    document.splice_text(&text, 0, 0, "x").expect("in the text");
    document.commit();
    let mut beside = document.fork().with_actor(by(1));
    beside.insert(&list, 1, 2).expect("in the list");
    let honest = beside.get_last_local_change().expect("just made");
    let mut forged = document.fork().with_actor(by(2));
    forged.insert(&list, 1, 3).expect("in the list");
    let forged = forged.get_last_local_change().expect("just made");
    let mut forged = forged.decode();
    // Behind the text's character, which is no element of the list.
    let character = OpId(4, by(0));
    forged.operations[0].key = Key::Seq(ElementId::Id(character));
    (document.get_changes(&[]), forged.into(), honest)
}

/// The data of an actor's first change, which makes this many objects, at least 64, in about 70
/// bytes: all under one name, counted from 100.
#[must_use]
pub fn objects(actor: u8, count: u64) -> Vec<u8> {
    operations(actor, count, 0)
}

/// The same with as many values instead.
#[must_use]
pub fn values(actor: u8, count: u64) -> Vec<u8> {
    operations(actor, count, 1)
}

fn operations(actor: u8, count: u64, action: u8) -> Vec<u8> {
    let mut len = Vec::new();
    push_unsigned(&mut len, count);
    if len.last().is_some_and(|byte| byte & 0x40 != 0) {
        // The count of a run is signed.
        *len.last_mut().expect("looked at above") |= 0x80;
        len.push(0);
    }
    let run = |value: &[u8]| [&len, value].concat();
    let columns = [
        (0x15, run(b"\x01a")),
        // None inserts; that count has no sign.
        (0x34, run(&[])),
        (0x42, run(&[action])),
        // No values, and nothing is replaced.
        (0x56, run(&[0])),
        (0x70, run(&[0])),
    ];
    let mut data = vec![0, 16];
    data.extend([actor; 16]);
    // From 100 on; no time, message or other actors.
    data.extend([1, 100, 0, 0, 0, columns.len() as u8]);
    for (spec, column) in &columns {
        data.extend([*spec, column.len() as u8]);
    }
    data.extend(columns.into_iter().flat_map(|(_, column)| column));
    data
}
