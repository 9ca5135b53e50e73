//! The part of a turn that brings the contents up to what was received: at once if it takes little, and
//! elsewhere if it may take long.

use super::Engine;
use super::document::{Document, Phase};
use super::interface::Output;
use crate::id::DocumentId;
use crate::replica::{ContentsError, Settled};

impl Engine {
    /// Brings the contents up to what was received where it may take long. The document's turn comes
    /// when that is done.
    pub(super) fn settle_elsewhere(&mut self, id: DocumentId, document: &mut Document) {
        let Some(opened) = document.opened.as_mut().filter(|_| !document.is_settling) else {
            return;
        };
        let replica = &mut opened.replica;
        if self.config.at_once() == usize::MAX {
            let settled = match replica.is_built() {
                true => replica.settle(),
                false => replica.build().map(|()| false),
            };
            self.note_settled(id, document, &settled);
            self.due.insert(id);
        } else {
            let settling = Box::new(replica.begin_settling());
            document.is_settling = true;
            self.outputs.push_back(Output::Settle(id, settling));
        }
    }

    pub(super) fn note_settled(
        &mut self,
        id: DocumentId,
        document: &mut Document,
        settled: &Result<bool, ContentsError>,
    ) {
        match settled {
            Ok(true) => self.outputs.push_back(Output::Changed(id)),
            Ok(false) => {}
            Err(_) if matches!(document.phase, Phase::Failed(_)) => {}
            Err(_) => {
                // Nobody reads or edits what Automerge left half done.
                document.phase = Phase::Loading;
                document.is_unsound = true;
            }
        }
    }

    /// Takes what came of [`Output::Settle`].
    pub fn settled(&mut self, id: DocumentId, settled: Settled<'_>) {
        let Some(mut document) = self.documents.remove(&id) else {
            return;
        };
        if let Some(opened) = document.opened.as_mut().filter(|_| document.is_settling) {
            document.is_settling = false;
            let (unpacked, settled) = opened.replica.settled(settled);
            document.unpacked = unpacked;
            self.note_settled(id, &mut document, &settled);
        }
        self.documents.insert(id, document);
        self.due.insert(id);
    }
}
