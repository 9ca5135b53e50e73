//! What a relay puts into a message besides what its history says: chunks from storage, and changes
//! of the snapshot for clients of an old core.

use std::ops::Range;

use bytes::Bytes;
use reconverge::contents;
use reconverge::history::{History, NeedGraph, Outgoing};
use reconverge::id::ConnectionId;
use reconverge::storage::Blob;

use super::store::Store;
use crate::world::message::push_chunks;

/// The changes of the snapshot that a client of an old core needs now.
pub(super) fn unfold(
    history: &mut History,
    store: &Store,
    client: ConnectionId,
) -> Option<(Range<u32>, Vec<Bytes>)> {
    let range = history.unfolds_for(client).unwrap_or_else(|NeedGraph| {
        load_graph(history, store);
        history
            .unfolds_for(client)
            .expect("the whole graph is resident")
    })?;
    let snapshot = store.blob(Blob::Snapshot(history.record().generation));
    let wanted = history.hashes_of(range.clone()).expect("it is resident");
    let changes = contents::unfold(&snapshot, &wanted).unwrap();
    Some((range, changes))
}

/// Reads the folded part of the graph from storage.
pub(super) fn load_graph(history: &mut History, store: &Store) {
    let segments = store.segments(history.record().segments);
    history
        .load_graph(&segments)
        .expect("the stored segments fit together");
}

/// A sync message as the relay puts it on the wire.
pub(super) fn encode(
    history: &History,
    store: &Store,
    outgoing: &Outgoing,
    (range, unfolded): &(Range<u32>, Vec<Bytes>),
) -> Vec<u8> {
    let indexes = outgoing.changes.iter().cloned().flatten();
    let recent = indexes.map(|index| history.recent(index).cloned());
    let chunks = match recent.collect::<Option<Vec<_>>>() {
        Some(recent) if !outgoing.snapshot => recent,
        _ => {
            let snapshot = Blob::Snapshot(history.record().generation);
            let snapshot = outgoing.snapshot.then(|| store.blob(snapshot));
            let indexes = outgoing.changes.iter().cloned().flatten();
            let changes = indexes.flat_map(|index| match range.contains(&index) {
                true => vec![unfolded[(index - range.start) as usize].clone()],
                false => store.changes(index..index + 1),
            });
            snapshot.into_iter().chain(changes).collect()
        }
    };
    let mut message = outgoing.encode_head(chunks.len());
    push_chunks(&mut message, &chunks);
    if let Some(flags) = outgoing.flags {
        message.extend_from_slice(&flags.encode());
    }
    message
}
