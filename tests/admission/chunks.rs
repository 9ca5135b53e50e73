//! Chunks that are broken, deflated, or of another kind than a change.

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Change, ROOT, ReadDoc};
use bytes::Bytes;
use reconverge::history::chunk::ChunkError;
use reconverge::history::{ACTOR_BYTES_MAX, CHANGE_BYTES_MAX, History, Refusal};
use reconverge_tests::Random;
use reconverge_tests::forge::{chunk, chunk_of_hash};

use crate::alter::{document, edit};
use crate::columns::{data_of, deflated};
use crate::peer::{broken, check, commit, enters, history, history_of, send};

#[test]
fn broken_bytes_are_refused() {
    let mut doc = document();
    let good = edit(&mut doc, |doc| doc.put(ROOT, "n", 1).unwrap());
    let bytes = good.raw_bytes().to_vec();
    for at in [4, 7, 12, 30, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        check(&mut doc, &flipped, &broken(ChunkError::Checksum));
    }
    for cut in 1..bytes.len() {
        check(&mut doc, &bytes[..cut], &broken(ChunkError::Malformed));
    }
    let mut other_magic = bytes.clone();
    other_magic[0] = 0;
    check(&mut doc, &other_magic, &broken(ChunkError::Malformed));
    let mut other_kind = bytes;
    other_kind[8] = 9;
    check(&mut doc, &other_kind, &broken(ChunkError::Malformed));
}

/// Whatever lies in a chunk whose length and checksum are right, nothing panics, and what enters
/// is what Automerge can read.
#[test]
fn changes_cut_short_or_damaged_behind_a_right_checksum_do_no_harm() {
    let mut doc = document();
    let good = edit(&mut doc, |doc| {
        let list = doc.get(ROOT, "list").unwrap().unwrap().1;
        doc.put(&list, 1, "new").unwrap();
        doc.insert(&list, 1, "ü").unwrap();
        doc.increment(ROOT, "counter", 3).unwrap();
        doc.delete(ROOT, "map").unwrap();
    });
    let data = data_of(good.raw_bytes());
    for cut in 0..data.len() {
        let mut history = history_of(&mut doc);
        let received = send(&mut history, &[&chunk(1, &data[..cut])]);
        assert_eq!(
            (received.admitted, received.refused.len()),
            (0, 1),
            "cut at {cut}"
        );
    }
    let mut random = Random::new(1);
    let mut admitted = 0;
    for _ in 0..20_000 {
        let mut damaged = data.to_vec();
        for _ in 0..1 + random.below(3) {
            let at = random.below(damaged.len() as u64) as usize;
            damaged[at] = random.number() as u8;
        }
        let bytes = chunk(1, &damaged);
        let mut history = history_of(&mut doc);
        if send(&mut history, &[&bytes]).admitted == 1 {
            admitted += 1;
            Change::try_from(bytes.as_slice()).unwrap();
        }
    }
    println!("{admitted} of 20000 damaged changes are still changes");
}

/// A text that deflates to about half its size.
fn noisy_text(len: usize) -> String {
    let noise = Random::new(7).noise(len);
    noise
        .iter()
        .map(|byte| char::from(b'a' + byte % 16))
        .collect()
}

/// A change that puts a text, and its deflated form.
fn deflated_text(doc: &mut AutoCommit, text: &str) -> (Change, Vec<u8>) {
    let change = edit(doc, |doc| doc.put(ROOT, "n", text).unwrap());
    let data = data_of(change.raw_bytes());
    let packed = chunk_of_hash(2, &deflated(data), 1, data);
    (change, packed)
}

#[test]
fn a_deflated_change_enters_and_a_bomb_does_not() {
    let mut doc = document();
    let mut history = history_of(&mut doc);
    commit(&mut history);
    // What deflates to half its size is kept in the form that is of most use.
    let (good, packed) = deflated_text(&mut doc, &noisy_text(2_000));
    assert!(packed.len() < good.raw_bytes().len());
    let received = send(&mut history, &[&packed]);
    assert_eq!((received.admitted, received.refused), (1, vec![]));
    assert_eq!(
        commit(&mut history).unwrap().changes[0].bytes,
        good.raw_bytes()
    );

    let bomb = deflated(&vec![0; CHANGE_BYTES_MAX + 1]);
    assert!(bomb.len() < 100_000);
    let refusal = broken(ChunkError::Inflate);
    check(&mut doc, &chunk(2, &bomb), &refusal);
    check(&mut doc, &chunk(2, b"no deflate stream"), &refusal);
    // What lies behind the stream is in no hash.
    let (good, _) = deflated_text(&mut doc, "more");
    let data = data_of(good.raw_bytes());
    let followed = [deflated(data), vec![0; 1000]].concat();
    let followed = chunk_of_hash(2, &followed, 1, data);
    assert_eq!(send(&mut history, &[&followed]).refused, [(None, refusal)]);
}

/// What is stored and held of a change that deflates to little is what came of it, also while it
/// waits for another; and it is read again when the document is opened.
#[test]
fn what_is_kept_of_a_change_is_a_small_multiple_of_what_came() {
    let mut doc = document();
    let first = doc.get_changes(&[]);
    let (change, one) = deflated_text(&mut doc, &"long ".repeat(200_000));
    doc.apply_changes([change]).unwrap();
    let (change, two) = deflated_text(&mut doc, &"longer ".repeat(200_000));
    doc.apply_changes([change]).unwrap();
    let mut history = history();
    let received = send(&mut history, &[&two, &one]);
    assert_eq!((received.admitted, received.refused), (0, vec![]));
    let mut rows = Vec::new();
    for change in &first {
        send(&mut history, &[change.raw_bytes()]);
        rows.extend(commit(&mut history));
    }
    let stored: Vec<_> = rows.iter().flat_map(|row| &row.changes).collect();
    let kept = stored.iter().rev().take(2).map(|change| &change.bytes);
    assert!(kept.eq([&two, &one]), "kept as they came");
    assert_eq!(history.recent(history.len() - 1), Some(&Bytes::from(two)));

    let opened = History::open(history.record().clone(), None, &rows).unwrap();
    assert_eq!(opened.heads(), doc.get_heads());
    let mut read = AutoCommit::new();
    let chunks = stored.iter().map(|change| &change.bytes);
    let changes: Vec<_> = chunks
        .map(|bytes| Change::try_from(bytes.as_ref()).unwrap())
        .collect();
    read.apply_changes(changes).unwrap();
    assert_eq!(read.get_heads(), doc.get_heads());
    // Damage inside the deflated bytes that are read is seen.
    for at in 0..200 {
        let mut rows = rows.clone();
        let change = rows.last_mut().unwrap().changes.last_mut().unwrap();
        let mut bytes = change.bytes.to_vec();
        bytes[at] ^= 0xff;
        change.bytes = bytes.into();
        drop(History::open(history.record().clone(), None, &rows));
    }
}

#[test]
fn an_author_with_a_long_id_is_refused_by_a_short_reason() {
    let mut doc = document();
    let by = |doc: &mut AutoCommit, len: usize| {
        let author = ActorId::from(vec![7; len]);
        let mut other = doc.fork().with_actor(author);
        other.put(ROOT, "n", 1).unwrap();
        other.commit();
        other.get_last_local_change().unwrap()
    };
    let longest = by(&mut doc, ACTOR_BYTES_MAX);
    enters(&mut history_of(&mut doc), longest.raw_bytes());
    for len in [ACTOR_BYTES_MAX + 1, 10_000_000] {
        let long = by(&mut doc, len);
        let data = data_of(long.raw_bytes());
        let packed = chunk_of_hash(2, &deflated(data), 1, data);
        let received = send(&mut history_of(&mut doc), &[&packed]);
        let reason = received.refused[0].1.to_string();
        assert!(reason.contains("actor") && reason.len() < 1000, "{reason}");
        assert_eq!(received.admitted, 0);
    }
}

#[test]
fn a_bundle_is_refused_and_a_document_chunk_is_reported() {
    let mut doc = document();
    let hashes: Vec<_> = doc.get_changes(&[]).iter().map(Change::hash).collect();
    let bundle = doc.bundle(hashes).unwrap();
    check(&mut AutoCommit::new(), bundle.bytes(), &Refusal::Bundle);
    let saved = doc.save();
    let mut history = history();
    let received = send(&mut history, &[&saved]);
    assert!(received.unpack && received.refused.is_empty());
    assert!(history.is_empty());
    // One that has nothing new is not unpacked.
    let received = send(&mut history_of(&mut doc), &[&saved]);
    assert!(!received.unpack && received.refused.is_empty());
}
