//! What is sent to a relay: most frames are whole, some name changes that are read from storage.

use bytes::Bytes;

use crate::history::Outgoing;
use crate::id::{DocumentId, PeerId};
use crate::leb::push_unsigned;
use crate::protocol::{Flags, SyncEnvelope};
use crate::replica::Piece;
use crate::storage::{Blob, DocumentKey, Storage, StorageError};

/// One WebSocket message for a relay.
#[derive(Debug, Clone)]
pub struct Frame(Content);

#[derive(Debug, Clone)]
enum Content {
    Whole(Bytes),
    Sync(Box<SyncFrame>),
}

/// A sync message and what must be read for it.
#[derive(Debug, Clone)]
pub(super) struct SyncFrame {
    pub(super) sender: PeerId,
    pub(super) target: PeerId,
    pub(super) document: DocumentId,
    pub(super) key: DocumentKey,
    pub(super) outgoing: Outgoing,
    pub(super) pieces: Vec<Piece>,
}

impl Frame {
    pub(super) fn whole(bytes: Vec<u8>) -> Self {
        Self(Content::Whole(bytes.into()))
    }

    pub(super) fn sync(sync: SyncFrame) -> Self {
        let in_memory = |piece: &Piece| matches!(piece, Piece::Change(_));
        if sync.pieces.iter().all(in_memory) {
            let chunks: Vec<_> = sync.pieces.iter().filter_map(change).collect();
            return Self::whole(sync.encode(&chunks));
        }
        Self(Content::Sync(Box::new(sync)))
    }

    /// The document whose stored changes the frame names, if it does. They stay where they are
    /// until the frame is reported as sent.
    #[must_use]
    pub fn reads(&self) -> Option<DocumentId> {
        match &self.0 {
            Content::Whole(_) => None,
            Content::Sync(sync) => Some(sync.document),
        }
    }

    /// The message's bytes. Reads from storage, which may block, if [`Self::reads`] says so.
    ///
    /// # Errors
    /// When reading fails: close the connection, because the engine counts the message as sent.
    pub fn encode(self, storage: &dyn Storage) -> Result<Bytes, StorageError> {
        let sync = match self.0 {
            Content::Whole(bytes) => return Ok(bytes),
            Content::Sync(sync) => sync,
        };
        let mut chunks = Vec::new();
        for piece in &sync.pieces {
            match piece {
                Piece::Snapshot(generation) => {
                    chunks.push(storage.blob(sync.key, Blob::Snapshot(*generation))?);
                }
                Piece::Change(bytes) => chunks.push(bytes.clone()),
                Piece::Changes(range) => {
                    chunks.extend(storage.changes(sync.key, std::slice::from_ref(range))?);
                }
            }
        }
        Ok(sync.encode(&chunks).into())
    }
}

fn change(piece: &Piece) -> Option<Bytes> {
    match piece {
        Piece::Change(bytes) => Some(bytes.clone()),
        Piece::Snapshot(_) | Piece::Changes(_) => None,
    }
}

impl SyncFrame {
    fn encode(&self, chunks: &[Bytes]) -> Vec<u8> {
        let mut data = self.outgoing.encode_head(chunks.len());
        for chunk in chunks {
            push_unsigned(&mut data, chunk.len() as u64);
            data.extend_from_slice(chunk);
        }
        data.extend(self.outgoing.flags.map(Flags::encode).into_iter().flatten());
        let envelope = SyncEnvelope {
            sender: self.sender.as_str(),
            target: self.target.as_str(),
            document: self.document.to_string().into(),
            data: &[],
            // Who has nothing asks for it.
            request: self.outgoing.heads.is_empty(),
        };
        let mut frame = envelope.encode_prefix(data.len(), data.len());
        frame.append(&mut data);
        frame
    }
}
