//! The folded part of a document's graph, which is read when something asks for it.

use bytes::Bytes;

use super::Engine;
use super::document::{Document, Phase};
use super::interface::{Output, Reason};
use super::open::READ_AGAIN_AFTER;
use crate::id::DocumentId;
use crate::storage::StorageError;

impl Engine {
    pub(super) fn ask_for_graph(&mut self, id: DocumentId, document: &mut Document) {
        let Some(opened) = &document.opened else {
            return;
        };
        // An adopted chunk brings a part of the graph, which is not there before it is stored; the
        // turn after that comes here again.
        if document.needs_graph || !opened.replica.is_sendable() {
            return;
        }
        document.needs_graph = true;
        self.outputs.push_back(Output::LoadGraph {
            document: id,
            key: opened.key,
            segments: opened.replica.record().segments,
        });
    }

    pub(super) fn graph_loaded(
        &mut self,
        id: DocumentId,
        segments: Result<Vec<Bytes>, StorageError>,
    ) {
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        let Some(opened) = &mut document.opened else {
            return;
        };
        self.due.insert(id);
        match segments {
            Ok(segments) if opened.replica.load_graph(&segments).is_some() => {}
            Ok(_) => {
                document.phase =
                    Phase::Failed(Reason::new("damaged", "its stored graph does not fit"))
            }
            Err(damage @ StorageError::Damaged { .. }) => {
                document.phase = Phase::Failed(Reason::new("damaged", damage.to_string()));
            }
            Err(_) => {
                let again_at = self.now + READ_AGAIN_AFTER;
                document.graph_again_at = Some(again_at);
                self.due.insert_at(again_at, id);
                return;
            }
        }
        document.needs_graph = false;
    }
}
