//! Taking in a whole document that a relay sent as one chunk, which may take a second: it is loaded,
//! and every change of it is looked at. That needs no replica, so it can be done without one: see
//! [`Replica::receive_at_once`].

use automerge::{Automerge, ChangeHash};
use bytes::Bytes;

use super::contents::Contents;
use super::{ContentsError, Replica};
use crate::contents;
use crate::history::chunk::{Chunk, ChunkKind, change_bytes};
use crate::history::{History, NeedGraph, Received, Record, Refusal};
use crate::id::{ConnectionId, Space};
use crate::protocol::SyncMessage;
use crate::storage::NewSnapshot;

use super::live::sign;

/// A document chunk of which something is unknown.
#[derive(Debug)]
pub(super) struct Packed {
    chunk: Bytes,
    /// The record of the replica, if it has nothing yet.
    adopts: Option<Record>,
}

/// What a document chunk has.
#[derive(Debug)]
pub struct Unpacked {
    chunk: Bytes,
    loaded: Result<Loaded, Refusal>,
}

#[derive(Debug)]
enum Loaded {
    /// For a replica that has nothing yet.
    Whole(Box<Adopted>),
    Changes(Vec<(ChangeHash, Bytes)>),
}

/// A document that becomes all that a replica has.
#[derive(Debug)]
pub(super) struct Adopted {
    document: Automerge,
    new: NewSnapshot,
}

impl Adopted {
    /// `chunk` is what `document` was loaded from, and `record` that of a replica that has nothing.
    pub(super) fn new(
        document: Automerge,
        chunk: Bytes,
        record: &Record,
    ) -> Result<Self, ContentsError> {
        let all = contents::history_of(&document.get_changes(&[])).map_err(ContentsError)?;
        let unpacked = all.unpacked(0).expect("everything is resident");
        drop(all);
        let new = NewSnapshot::unpacked(record, chunk, &unpacked);
        Ok(Self { document, new })
    }
}

impl Packed {
    pub(super) fn len(&self) -> usize {
        self.chunk.len()
    }

    pub(super) fn unpack(&self) -> Unpacked {
        // What a relay sent must not end the client.
        let loaded = contents::guard(|| Ok::<_, String>(self.load()));
        Unpacked {
            chunk: self.chunk.clone(),
            loaded: loaded.unwrap_or_else(|panicked| Err(Refusal::Automerge(panicked))),
        }
    }

    fn load(&self) -> Result<Loaded, Refusal> {
        let refused = |why: &dyn ToString| Refusal::Automerge(why.to_string());
        let (chunk, _) = Chunk::split(&self.chunk).map_err(|error| refused(&error))?;
        let document = contents::load_chunk(&chunk).map_err(|why| refused(&why))?;
        match &self.adopts {
            Some(record) if !document.get_heads().is_empty() => {
                let adopted = Adopted::new(document, self.chunk.clone(), record);
                let adopted = adopted.map_err(|error| refused(&error))?;
                Ok(Loaded::Whole(Box::new(adopted)))
            }
            _ => {
                let changes = document.get_changes(&[]);
                let named = |change| (automerge::Change::hash(change), change_bytes(change));
                Ok(Loaded::Changes(changes.iter().map(named).collect()))
            }
        }
    }
}

impl Replica {
    /// The first document chunk of a message of which something is unknown.
    pub(super) fn packed(&self, message: &SyncMessage<'_>) -> Result<Option<Packed>, NeedGraph> {
        for mut bytes in message.changes.iter().copied() {
            while let Ok((chunk, rest)) = Chunk::split(bytes) {
                bytes = rest;
                if chunk.kind != ChunkKind::Document || self.history.has_all_of(&chunk)? {
                    continue;
                }
                return Ok(Some(Packed {
                    chunk: Bytes::copy_from_slice(chunk.bytes),
                    adopts: self.is_empty().then(|| self.history.record().clone()),
                }));
            }
        }
        Ok(None)
    }

    /// Takes in what `packed` has; `unpacked` if that was done before.
    pub(super) fn take_unpacked(
        &mut self,
        from: ConnectionId,
        packed: &Packed,
        unpacked: Option<Unpacked>,
    ) -> Result<Result<Received, Refusal>, NeedGraph> {
        let fits = |unpacked: &Unpacked| {
            let adopts = matches!(unpacked.loaded, Ok(Loaded::Whole(_)));
            unpacked.chunk == packed.chunk && (!adopts || packed.adopts.is_some())
        };
        let unpacked = unpacked.filter(fits).unwrap_or_else(|| packed.unpack());
        let unknown = match unpacked.loaded {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(Loaded::Whole(adopted)) => {
                self.adopt(*adopted);
                return Ok(Ok(Received::default()));
            }
            Ok(Loaded::Changes(changes)) => {
                let mut unknown = Vec::new();
                for (hash, bytes) in changes {
                    if self.history.known(&hash)?.is_none() {
                        unknown.push(bytes);
                    }
                }
                unknown
            }
        };
        Ok(Ok(self.history.receive_unpacked(from, &unknown)?))
    }

    /// Makes a document all that this replica has. It has nothing yet.
    pub(super) fn adopt(&mut self, adopted: Adopted) {
        debug_assert!(self.is_empty(), "an adopted chunk would replace something");
        let Adopted { mut document, new } = adopted;
        let history = std::mem::replace(&mut self.history, History::new(Space::default()));
        let adopted = history.adopted(new.record.clone(), &new.outline);
        self.history = adopted.expect("the outline was just made");
        self.given = self.history.len();
        self.adopted = Some(new.into_writes());
        sign(&mut document, self.signed_author(), &self.actor);
        self.contents = Contents::built(document, self.is_observed());
    }
}
