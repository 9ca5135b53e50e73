//! A relay in memory: `History` as the real one drives it.

use std::collections::BTreeMap;

use automerge::{Automerge, Change};

use super::*;
use crate::history::{DocumentChunks, History, Refusal, by_code};
use crate::id::{Access, Space};
use crate::leb::push_unsigned;
use crate::protocol::{Flags, SyncEnvelope, SyncMessage};

/// A relay that keeps everything in memory.
#[derive(Default)]
pub(super) struct TestRelay {
    pub(super) down: bool,
    /// Lets nobody in but this client.
    pub(super) only: Option<usize>,
    /// Takes in and does not commit, so names nothing new.
    pub(super) held: bool,
    pub(super) rejects: bool,
    /// Takes no change, and says so, for this reason.
    pub(super) refuses: Option<(&'static str, &'static str)>,
    /// Says that each change's actor was used by others, and takes none.
    pub(super) claims_reuse: bool,
    /// Keeps to itself what it refuses.
    pub(super) mute: bool,
    pub(super) documents: BTreeMap<DocumentId, Kept>,
    pub(super) sessions: HashMap<Line, Session>,
    /// Sync messages that came, by size.
    pub(super) received: Vec<usize>,
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) history: Option<History>,
    pub(super) changes: Vec<Bytes>,
}

pub(super) fn refused(
    document: DocumentId,
    hashes: Vec<ChangeHash>,
    code: &str,
    reason: &str,
) -> Vec<u8> {
    protocol::encode(&Message::Refused(protocol::Refused {
        sender: "relay",
        target: "",
        document: document.to_string().into(),
        hashes,
        code,
        reason,
    }))
}

impl TestRelay {
    pub(super) fn leave(&mut self, line: Line) {
        self.sessions.remove(&line);
        for kept in self.documents.values_mut() {
            if let Some(history) = &mut kept.history {
                history.leave(id_of(line));
            }
        }
    }

    pub(super) fn receive(
        &mut self,
        from: Line,
        document: DocumentId,
        data: &[u8],
    ) -> Vec<(Line, Vec<u8>)> {
        let message = SyncMessage::decode(data).unwrap();
        if let Some((code, reason)) = self.refuses
            && !message.changes.is_empty()
        {
            return vec![(from, refused(document, message.heads, code, reason))];
        }
        if self.claims_reuse && !message.changes.is_empty() {
            let answer = |chunk: &&[u8]| {
                let change = Change::try_from(*chunk).unwrap();
                let reused = Refusal::ActorReused {
                    actor: change.actor_id().to_hex_string(),
                    seq: change.seq(),
                };
                (
                    from,
                    refused(
                        document,
                        vec![change.hash()],
                        reused.code(),
                        &reused.to_string(),
                    ),
                )
            };
            return message.changes.iter().map(answer).collect();
        }
        let kept = self.documents.entry(document).or_default();
        let history = kept
            .history
            .get_or_insert_with(|| History::new(Space::default()));
        let peer = id_of(from);
        if !history.peers().any(|joined| joined == peer) {
            history.join(peer, Access::Write);
        }
        let mut received = history
            .receive(peer, &message, DocumentChunks::Report)
            .unwrap();
        if received.unpack {
            for chunk in &message.changes {
                if let Ok(document) = Automerge::load(chunk) {
                    for change in document.get_changes(&[]) {
                        let bytes = [Bytes::copy_from_slice(change.raw_bytes())];
                        let unpacked = history.receive_unpacked(peer, &bytes).unwrap();
                        received.refused.extend(unpacked.refused);
                    }
                }
            }
            history
                .receive(peer, &message, DocumentChunks::Unpacked)
                .unwrap();
        }
        let mut answers = Vec::new();
        for (refusal, hashes) in by_code(&received.refused) {
            assert!(
                matches!(
                    refusal,
                    Refusal::ActorReused { .. } | Refusal::DependsOnRefused(_)
                ),
                "an engine's change is refused: {refusal}"
            );
            let refused = refused(document, hashes, refusal.code(), &refusal.to_string());
            answers.extend((!self.mute).then_some((from, refused)));
        }
        if history.is_empty() && message.heads.is_empty() && history.poll_unavailable(peer) {
            let unavailable = protocol::encode(&Message::DocUnavailable {
                sender: "relay",
                target: "",
                document: document.to_string().into(),
            });
            return vec![(from, unavailable)];
        }
        answers.extend(self.turn(document));
        answers
    }

    pub(super) fn turn(&mut self, document: DocumentId) -> Vec<(Line, Vec<u8>)> {
        let mut frames = Vec::new();
        let kept = self.documents.get_mut(&document).unwrap();
        let history = kept.history.as_mut().unwrap();
        if self.held {
            return frames;
        }
        if let Some((_, row)) = history.take_unsaved() {
            kept.changes
                .extend(row.changes.into_iter().map(|c| c.bytes));
        }
        history.committed();
        for line in self.sessions.keys() {
            while let Some(outgoing) = history.poll_send(id_of(*line)) {
                let chunks: Vec<_> = outgoing.changes.iter().cloned().flatten().collect();
                let mut data = outgoing.encode_head(chunks.len());
                for index in chunks {
                    let bytes = &kept.changes[index as usize];
                    push_unsigned(&mut data, bytes.len() as u64);
                    data.extend_from_slice(bytes);
                }
                data.extend(outgoing.flags.map(Flags::encode).into_iter().flatten());
                let envelope = SyncEnvelope {
                    sender: "relay",
                    target: "",
                    document: document.to_string().into(),
                    data: &data,
                    request: false,
                };
                frames.push((*line, protocol::encode(&Message::Sync(envelope))));
            }
        }
        frames
    }

    pub(super) fn has(&self, document: DocumentId) -> Vec<ChangeHash> {
        let history = self
            .documents
            .get(&document)
            .and_then(|k| k.history.as_ref());
        history.map_or_else(Vec::new, |history| history.durable_heads().to_vec())
    }

    /// An older backup takes the place of what there is.
    pub(super) fn restore(&mut self, document: DocumentId, len: usize) {
        let kept = self.documents.get_mut(&document).unwrap();
        kept.changes.truncate(len);
        let mut history = History::new(Space::default());
        history
            .receive_unpacked(ConnectionId(u64::MAX), &kept.changes)
            .unwrap();
        let _ = history.take_unsaved();
        history.committed();
        kept.history = Some(history);
    }
}
