//! What every [`Storage`] must do, as assertions: run [`check`] on each backend.

use std::sync::Arc;

use automerge::transaction::Transactable;
use automerge::{Automerge, ChangeHash, ROOT};
use bytes::Bytes;

use super::{
    BLOB_PIECE_BYTES, Batch, Blob, DocumentKey, Refused, Storage, StorageError, Write, each_change,
    each_piece,
};
use crate::history::{ObjectKind, Objects, Record, Row, StoredChange};
use crate::id::{DocumentId, Space};

/// Runs all cases on storages that `empty` makes.
///
/// # Panics
/// When the backend breaks the contract.
pub fn check<S: Storage>(empty: impl Fn() -> Arc<S>) {
    what_is_committed_is_read(&*empty());
    documents_do_not_mix(&*empty());
    rows_and_blobs_are_removed_in_order(&*empty());
    large_values_survive(&*empty());
    parts_make_the_whole(&*empty());
    what_clients_keep_is_read(&*empty());
    a_removed_document_leaves_nothing(&*empty());
    documents_are_listed_in_order(&*empty());
    other_contents_take_the_place_of_those_before(&*empty());
    what_is_set_aside_goes_with_its_document(&*empty());
    a_new_relay_gets_every_document(&*empty());
    refusals_are_kept_until_they_are_taken_back(&*empty());
    readers_see_whole_commits(&empty());
}

fn id(n: u8) -> DocumentId {
    DocumentId::new(&[n; 16]).expect("16 bytes")
}

fn row(first: u32, len: u32, size: usize) -> Row {
    let change = |index: u32| StoredChange {
        hash: ChangeHash([index as u8; 32]),
        parents: index.checked_sub(1).into_iter().collect(),
        max_op: index + 1,
        objects: Objects::from_iter([(index + 1, ObjectKind::Text)]),
        bytes: Bytes::from(vec![index as u8; size]),
    };
    Row {
        changes: (first..first + len).map(change).collect(),
    }
}

fn batch(n: u8, key: DocumentKey, writes: Vec<Write>) -> Batch {
    Batch {
        document: id(n),
        key,
        writes,
    }
}

fn what_is_committed_is_read(storage: &impl Storage) {
    assert_eq!(storage.load(&id(1)).expect("load"), None);
    let (key, other) = (storage.new_key(), storage.new_key());
    assert_ne!(key, other);
    let record = Record::new(Space::default());
    let first = Write::Row {
        last: 2,
        row: row(0, 3, 10),
    };
    let create = batch(1, key, vec![Write::Record(record.clone()), first]);
    storage.commit(&[create]).expect("commit");
    let second = Write::Row {
        last: 3,
        row: row(3, 1, 10),
    };
    storage
        .commit(&[batch(1, key, vec![second])])
        .expect("commit");
    let stored = storage.load(&id(1)).expect("load").expect("is there");
    assert_eq!((stored.key, stored.record), (key, record));
    assert_eq!(stored.rows, [row(0, 3, 10), row(3, 1, 10)]);
    assert_eq!(stored.outline, None);
    let changes = storage.changes(key, &[1..2, 3..4]).expect("changes");
    assert_eq!(changes, [vec![1u8; 10], vec![3u8; 10]]);
    assert!(
        storage.changes(key, std::slice::from_ref(&(3..5))).is_err(),
        "a change that is not there"
    );
    assert!(
        storage.blob(key, Blob::Snapshot(1)).is_err(),
        "a blob that is not there"
    );
    assert_ne!(storage.new_key(), key);
}

fn documents_do_not_mix(storage: &impl Storage) {
    let keys = [storage.new_key(), storage.new_key()];
    let of = |n: u8| {
        let record = Write::Record(Record::new(Space::default()));
        let rows = Write::Row {
            last: 0,
            row: row(0, 1, 10 + usize::from(n)),
        };
        batch(n, keys[usize::from(n)], vec![record, rows])
    };
    storage.commit(&[of(0), of(1)]).expect("commit");
    for n in 0..2u8 {
        let stored = storage.load(&id(n)).expect("load").expect("is there");
        assert_eq!(stored.rows, [row(0, 1, 10 + usize::from(n))]);
    }
    let remove = batch(0, keys[0], vec![Write::RemoveRowsBelow(100)]);
    storage.commit(&[remove]).expect("commit");
    assert!(
        storage
            .load(&id(0))
            .expect("load")
            .expect("is there")
            .rows
            .is_empty()
    );
    assert_eq!(
        storage
            .load(&id(1))
            .expect("load")
            .expect("is there")
            .rows
            .len(),
        1
    );
}

fn rows_and_blobs_are_removed_in_order(storage: &impl Storage) {
    let key = storage.new_key();
    let mut record = Record::new(Space::default());
    let blob = |text: &'static str| Bytes::from_static(text.as_bytes());
    let writes = vec![
        Write::Record(record.clone()),
        Write::Row {
            last: 4,
            row: row(0, 5, 10),
        },
        Write::Row {
            last: 9,
            row: row(5, 5, 10),
        },
        Write::Blob(Blob::Segment(0), blob("segment")),
    ];
    storage.commit(&[batch(3, key, writes)]).expect("commit");
    record.folded = 8;
    record.rows_from = 5;
    record.generation = 1;
    let writes = vec![
        Write::Blob(Blob::Snapshot(1), blob("new")),
        Write::Blob(Blob::Outline(1), blob("outline")),
        Write::RemoveBlob(Blob::Snapshot(0)),
        Write::RemoveRowsBelow(5),
        Write::Record(record.clone()),
    ];
    storage.commit(&[batch(3, key, writes)]).expect("commit");
    let stored = storage.load(&id(3)).expect("load").expect("is there");
    assert_eq!(stored.record, record);
    assert_eq!(stored.outline, Some(blob("outline")));
    // The row that reaches over the fold is given whole.
    assert_eq!(stored.rows, [row(5, 5, 10)]);
    assert!(
        storage.changes(key, std::slice::from_ref(&(4..5))).is_err(),
        "removed"
    );
    assert_eq!(
        storage
            .changes(key, std::slice::from_ref(&(5..10)))
            .expect("kept")
            .len(),
        5
    );
    assert_eq!(
        storage.blob(key, Blob::Snapshot(1)).expect("kept"),
        blob("new")
    );
    assert_eq!(
        storage.blob(key, Blob::Segment(0)).expect("kept"),
        blob("segment")
    );
    let writes = vec![
        Write::Row {
            last: 12,
            row: row(10, 3, 10),
        },
        Write::RemoveRowsFrom(10),
        Write::Row {
            last: 11,
            row: row(10, 2, 10),
        },
        Write::Blob(Blob::Quarantine(0), blob("out")),
    ];
    storage.commit(&[batch(3, key, writes)]).expect("commit");
    let stored = storage.load(&id(3)).expect("load").expect("is there");
    assert_eq!(stored.rows, [row(5, 5, 10), row(10, 2, 10)]);
    assert_eq!(
        storage.blob(key, Blob::Quarantine(0)).expect("kept"),
        blob("out")
    );
}

fn large_values_survive(storage: &impl Storage) {
    let key = storage.new_key();
    let blob: Bytes = (0..5_000_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let writes = vec![
        Write::Record(Record::new(Space::default())),
        Write::Row {
            last: 0,
            row: row(0, 1, 3_000_000),
        },
        Write::Blob(Blob::Snapshot(7), blob.clone()),
        Write::Blob(Blob::Snapshot(8), Bytes::new()),
    ];
    storage.commit(&[batch(4, key, writes)]).expect("commit");
    assert_eq!(storage.blob(key, Blob::Snapshot(7)).expect("blob"), blob);
    assert_eq!(
        storage.blob(key, Blob::Snapshot(8)).expect("blob"),
        Bytes::new()
    );
    assert_eq!(
        storage
            .changes(key, std::slice::from_ref(&(0..1)))
            .expect("change")[0]
            .len(),
        3_000_000
    );
    let remove = batch(4, key, vec![Write::RemoveBlob(Blob::Snapshot(7))]);
    storage.commit(&[remove]).expect("commit");
    assert!(storage.blob(key, Blob::Snapshot(7)).is_err());
}

fn parts_make_the_whole(storage: &impl Storage) {
    let key = storage.new_key();
    let sizes = [
        0,
        1,
        BLOB_PIECE_BYTES - 1,
        BLOB_PIECE_BYTES,
        BLOB_PIECE_BYTES + 1,
        3 * BLOB_PIECE_BYTES,
    ];
    let mut writes = vec![Write::Record(Record::new(Space::default()))];
    for (number, size) in (0..).zip(sizes) {
        let bytes = (0..size).map(|n| (n % 251) as u8).collect();
        writes.push(Write::Blob(Blob::Segment(number), bytes));
    }
    // Rows of one change and of many, small ones and one above what is read at a time.
    for (first, len, size) in [(0, 1, 10), (1, 50, 100), (51, 1, 3_000_000), (52, 8, 10)] {
        writes.push(Write::Row {
            last: first + len - 1,
            row: row(first, len, size),
        });
    }
    storage.commit(&[batch(7, key, writes)]).expect("commit");
    for (number, size) in (0..).zip(sizes) {
        let blob = Blob::Segment(number);
        let mut whole = Vec::new();
        let read = each_piece(storage, key, blob, |piece| {
            whole.extend_from_slice(piece);
            Ok::<_, StorageError>(())
        });
        read.expect("it is there");
        assert_eq!(
            whole,
            storage.blob(key, blob).expect("blob"),
            "{size} bytes"
        );
    }
    let gone = Blob::Segment(sizes.len() as u32);
    assert!(each_piece(storage, key, gone, |_| Ok::<_, StorageError>(())).is_err());
    for range in [0..60, 0..1, 1..51, 7..9, 40..56, 59..60, 5..5] {
        let mut found = Vec::new();
        let read = each_change(storage, key, range.clone(), |bytes| {
            found.push(Bytes::copy_from_slice(bytes));
            Ok::<_, StorageError>(())
        });
        read.expect("they are there");
        let at_once = storage.changes(key, std::slice::from_ref(&range));
        assert_eq!(found, at_once.expect("changes"), "{range:?}");
    }
    let past_the_end = each_change(storage, key, 50..61, |_| Ok::<_, StorageError>(()));
    assert!(past_the_end.is_err());
    let rows = storage.rows(key, 1, 1).expect("rows");
    assert_eq!(
        rows,
        [(50, row(1, 50, 100))],
        "one at least, and no more than enough"
    );
    assert_eq!(storage.rows(key, 60, 1).expect("rows"), []);
}

fn acknowledged(relay: &str, heads: &[u8]) -> Write {
    Write::Acknowledged {
        relay: relay.into(),
        heads: heads.iter().map(|n| ChangeHash([*n; 32])).collect(),
    }
}

fn refusal(reason: &str) -> Refused {
    Refused {
        // Older ones have none.
        code: if reason.is_empty() { "" } else { "unsound" }.into(),
        reason: reason.into(),
        changes: vec![ChangeHash([7; 32])],
    }
}

fn refused(relay: &str, reason: Option<&str>) -> Write {
    Write::Refused {
        relay: relay.into(),
        refused: reason.map(refusal),
    }
}

fn refusals_are_kept_until_they_are_taken_back(storage: &impl Storage) {
    let keys = [storage.new_key(), storage.new_key()];
    assert_eq!(storage.refused(keys[0]).expect("read"), []);
    for (n, key) in (1..).zip(keys) {
        let record = Write::Record(Record::new(Space::default()));
        let writes = vec![record, refused("b", Some("ü")), refused("a", Some(""))];
        storage.commit(&[batch(n, key, writes)]).expect("commit");
    }
    let again = vec![
        refused("b", Some("anew")),
        refused("a", None),
        refused("c", None),
    ];
    storage.commit(&[batch(1, keys[0], again)]).expect("commit");
    let kept = storage.refused(keys[0]).expect("read");
    assert_eq!(kept, [("b".into(), refusal("anew"))]);
    let other = storage.refused(keys[1]).expect("read");
    assert_eq!(
        other,
        [("a".into(), refusal("")), ("b".into(), refusal("ü"))]
    );
    let remove = batch(2, keys[1], vec![Write::RemoveDocument]);
    storage.commit(&[remove]).expect("commit");
    assert_eq!(storage.refused(keys[1]).expect("read"), []);
}

fn what_clients_keep_is_read(storage: &impl Storage) {
    let keys = [storage.new_key(), storage.new_key()];
    assert_eq!(storage.acknowledged(keys[0]).expect("read"), []);
    assert_eq!(storage.outbox().expect("read"), []);
    let record = || Write::Record(Record::new(Space::default()));
    let one = vec![
        record(),
        Write::Outbox(true),
        acknowledged("b", &[1]),
        acknowledged("a", &[]),
    ];
    let two = vec![record(), Write::Outbox(true), acknowledged("a", &[3])];
    let batches = [batch(2, keys[0], one), batch(1, keys[1], two)];
    storage.commit(&batches).expect("commit");
    assert_eq!(storage.outbox().expect("read"), [id(1), id(2)]);
    let again = vec![acknowledged("b", &[1, 2]), Write::Outbox(false)];
    storage.commit(&[batch(2, keys[0], again)]).expect("commit");
    assert_eq!(storage.outbox().expect("read"), [id(1)]);
    let heads = |of: &[u8]| of.iter().map(|n| ChangeHash([*n; 32])).collect::<Vec<_>>();
    assert_eq!(
        storage.acknowledged(keys[0]).expect("read"),
        [("a".into(), heads(&[])), ("b".into(), heads(&[1, 2]))]
    );
    assert_eq!(
        storage.acknowledged(keys[1]).expect("read"),
        [("a".into(), heads(&[3]))]
    );
}

fn documents_are_listed_in_order(storage: &impl Storage) {
    assert_eq!(storage.documents(None, 9).expect("read"), []);
    let keys: Vec<_> = (0..5).map(|_| storage.new_key()).collect();
    let make = |n: u8, write| batch(n, keys[usize::from(n)], vec![write]);
    let record = || Write::Record(Record::new(Space::default()));
    let all = [3, 0, 4, 1].map(|n| make(n, record()));
    storage.commit(&all).expect("commit");
    let short = DocumentId::new(&[1]).expect("a byte");
    let key = storage.new_key();
    let writes = vec![record(), Write::Outbox(true)];
    let other = Batch {
        document: short,
        key,
        writes,
    };
    storage.commit(&[other]).expect("commit");
    let in_order = [id(0), short, id(1), id(3), id(4)];
    assert_eq!(storage.documents(None, 9).expect("read"), in_order);
    assert_eq!(storage.documents(None, 2).expect("read"), in_order[..2]);
    let after = |id: DocumentId| storage.documents(Some(&id), 2).expect("read");
    assert_eq!(after(short), in_order[2..4]);
    assert_eq!(after(id(2)), in_order[3..], "it need not be there");
    assert_eq!(after(id(4)), []);
    storage
        .commit(&[make(3, Write::RemoveDocument)])
        .expect("commit");
    assert_eq!(after(id(1)), in_order[4..]);
}

fn a_removed_document_leaves_nothing(storage: &impl Storage) {
    let keys = [storage.new_key(), storage.new_key()];
    let all = |n: u8| {
        let writes = vec![
            Write::Record(Record::new(Space::default())),
            Write::Row {
                last: 0,
                row: row(0, 1, 10),
            },
            Write::Blob(Blob::Snapshot(1), Bytes::from_static(b"snapshot")),
            acknowledged("a", &[n]),
            Write::Outbox(true),
        ];
        batch(n, keys[usize::from(n)], writes)
    };
    storage.commit(&[all(0), all(1)]).expect("commit");
    let remove = batch(0, keys[0], vec![Write::RemoveDocument]);
    storage.commit(&[remove]).expect("commit");
    assert_eq!(storage.load(&id(0)).expect("load"), None);
    assert!(storage.blob(keys[0], Blob::Snapshot(1)).is_err());
    assert!(
        storage
            .changes(keys[0], std::slice::from_ref(&(0..1)))
            .is_err()
    );
    assert_eq!(storage.acknowledged(keys[0]).expect("read"), []);
    assert_eq!(storage.outbox().expect("read"), [id(1)]);
    let other = storage.load(&id(1)).expect("load").expect("is there");
    assert_eq!(other.rows, [row(0, 1, 10)]);
    assert_eq!(storage.acknowledged(keys[1]).expect("read").len(), 1);
    assert!(storage.blob(keys[1], Blob::Snapshot(1)).is_ok());
}

fn other_contents_take_the_place_of_those_before(storage: &impl Storage) {
    let key = storage.new_key();
    let mut record = Record::new(Space::default());
    let quarantined = || Write::Blob(Blob::Quarantine(0), Bytes::from_static(b"lot"));
    let first = vec![
        Write::Record(record.clone()),
        Write::Row {
            last: 0,
            row: row(0, 1, 10),
        },
        Write::Blob(Blob::Snapshot(1), Bytes::from_static(b"snapshot")),
        quarantined(),
        acknowledged("a", &[1]),
        refused("b", Some("why")),
        Write::Outbox(true),
    ];
    storage.commit(&[batch(1, key, first)]).expect("commit");
    record.quarantined = 1;
    let second = vec![
        Write::RemoveContents,
        Write::Row {
            last: 4,
            row: row(0, 5, 10),
        },
        Write::Record(record.clone()),
    ];
    storage.commit(&[batch(1, key, second)]).expect("commit");
    let replaced = storage.load(&id(1)).expect("load").expect("is there");
    assert_eq!(replaced.key, key);
    assert_eq!(replaced.record, record);
    assert_eq!(replaced.rows, [row(0, 5, 10)]);
    assert!(storage.blob(key, Blob::Snapshot(1)).is_err());
    let lot = storage.blob(key, Blob::Quarantine(0)).expect("read");
    assert_eq!(lot, b"lot"[..]);
    assert_eq!(storage.acknowledged(key).expect("read"), []);
    assert_eq!(storage.refused(key).expect("read"), []);
    assert_eq!(storage.outbox().expect("read"), []);
}

fn what_is_set_aside_goes_with_its_document(storage: &impl Storage) {
    let chunk = a_change();
    let key = storage.new_key();
    let mut row = row(0, 1, 0);
    row.changes[0].bytes = chunk.clone();
    let begin = |n: u8, key: DocumentKey, mut writes: Vec<Write>| {
        writes.push(Write::Record(Record::new(Space::default())));
        storage.commit(&[batch(n, key, writes)]).expect("commit");
    };
    for n in [1, 2] {
        let key = storage.new_key();
        let row = row.clone();
        begin(n, key, vec![Write::Row { last: 0, row }]);
    }
    assert_eq!(storage.aside(&id(1)).expect("read"), [] as [Bytes; 0]);
    begin(1, key, vec![Write::SetAside]);
    begin(2, storage.new_key(), vec![Write::SetAside]);
    assert_eq!(
        storage.aside(&id(1)).expect("read"),
        std::slice::from_ref(&chunk)
    );
    begin(1, key, vec![Write::RemoveContents]);
    assert_eq!(
        storage.aside(&id(1)).expect("read"),
        std::slice::from_ref(&chunk)
    );
    let remove = batch(1, key, vec![Write::RemoveDocument]);
    storage.commit(&[remove]).expect("commit");
    assert_eq!(storage.aside(&id(1)).expect("read"), [] as [Bytes; 0]);
    begin(1, storage.new_key(), Vec::new());
    assert_eq!(storage.aside(&id(1)).expect("read"), [] as [Bytes; 0]);
    assert_eq!(storage.aside(&id(2)).expect("read"), [chunk]);
}

fn a_change() -> Bytes {
    let mut document = Automerge::new();
    let mut tx = document.transaction();
    tx.put(ROOT, "a", 1).expect("a map takes it");
    tx.commit();
    let change = document.get_last_local_change().expect("just made");
    change.raw_bytes().to_vec().into()
}

fn a_new_relay_gets_every_document(storage: &impl Storage) {
    let name = |relays: &[&str]| {
        let relays: Vec<Arc<str>> = relays.iter().map(|relay| (*relay).into()).collect();
        storage.name_relays(&relays).expect("commit");
    };
    let empty_outbox = || {
        for n in [1, 2] {
            let stored = storage.load(&id(n)).expect("load").expect("is there");
            let taken_out = vec![Write::Outbox(false)];
            let taken_out = batch(n, stored.key, taken_out);
            storage.commit(&[taken_out]).expect("commit");
        }
    };
    name(&["a"]);
    let record = || vec![Write::Record(Record::new(Space::default()))];
    let batches = [1, 2].map(|n| batch(n, storage.new_key(), record()));
    storage.commit(&batches).expect("commit");
    name(&["a"]);
    assert_eq!(storage.outbox().expect("read"), []);
    name(&["b", "a"]);
    assert_eq!(storage.outbox().expect("read"), [id(1), id(2)]);
    empty_outbox();
    name(&["a", "b"]);
    name(&["b"]);
    assert_eq!(storage.outbox().expect("read"), [], "none is new");
    name(&["a", "b"]);
    assert_eq!(
        storage.outbox().expect("read"),
        [id(1), id(2)],
        "it was away"
    );
}

/// One thread writes the same number of rows into two documents; whoever reads finds them equal
/// when read in the order of the commits.
fn readers_see_whole_commits<S: Storage>(storage: &Arc<S>) {
    let keys = [storage.new_key(), storage.new_key()];
    let commit = |index: u32| {
        let of = |n: u8| {
            let mut writes = vec![Write::Row {
                last: index,
                row: row(index, 1, 10),
            }];
            if index == 0 {
                writes.push(Write::Record(Record::new(Space::default())));
            }
            batch(5 + n, keys[usize::from(n)], writes)
        };
        storage.commit(&[of(0), of(1)]).expect("commit");
    };
    commit(0);
    std::thread::scope(|threads| {
        let reader = threads.spawn(|| {
            for _ in 0..50 {
                let rows = |n| {
                    storage
                        .load(&id(n))
                        .expect("load")
                        .expect("is there")
                        .rows
                        .len()
                };
                let (before, after) = (rows(5), rows(6));
                assert!(before <= after, "half a commit was seen");
            }
        });
        (1..20).for_each(commit);
        reader.join().expect("the reader's assertions hold");
    });
}
