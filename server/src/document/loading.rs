//! Reading a document from the disk: its record and what came after its snapshot when it is opened,
//! and the graph of the folded changes when that is needed.

use std::sync::Arc;

use bytes::Bytes;
use reconverge::history::{History, NeedGraph};
use reconverge::id::Space;
use reconverge::storage::{self, DocumentKey, StorageError};

use super::quarantining::recall_quarantined;
use super::{Document, Recipients, Slot};
use crate::config::Verify;

/// A document that is in memory.
pub(super) struct Loaded {
    pub(super) key: DocumentKey,
    pub(super) history: History,
    /// Whether the record is stored.
    pub(super) stored: bool,
}

impl Loaded {
    /// The graph of the folded changes, as it is stored.
    pub(super) fn segments(&self, slot: &Slot) -> Result<Vec<Bytes>, StorageError> {
        let count = self.history.record().segments;
        storage::segments(&*slot.services.storage, self.key, count)
    }

    /// Runs `step`, loading the folded part of the graph if it is needed.
    pub(super) fn with_graph<T>(
        &mut self,
        slot: &Slot,
        mut step: impl FnMut(&mut History) -> Result<T, NeedGraph>,
    ) -> Result<T, StorageError> {
        if let Ok(done) = step(&mut self.history) {
            return Ok(done);
        }
        tokio::task::block_in_place(|| {
            let segments = self.segments(slot)?;
            self.history
                .load_graph(&segments)
                .ok_or_else(|| slot.damaged("its graph"))?;
            step(&mut self.history).map_err(|NeedGraph| slot.damaged("its graph has a gap"))
        })
    }
}

impl Document {
    /// Reads the document, if it is not open.
    pub(super) async fn open(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        if self.history.is_some() {
            return Ok(());
        }
        let (relay, id) = (slot.services.clone(), slot.id);
        let load = move || -> Result<_, StorageError> {
            Ok((relay.storage.load(&id)?, relay.storage.aside(&id)?))
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        let (loaded, aside) = loaded.map_err(StorageError::failed)??;
        let mut open = match loaded {
            None => Loaded {
                key: slot.services.storage.new_key(),
                // The space of whoever stores first; set when that is known.
                history: History::new(Space::default()),
                stored: false,
            },
            Some(stored) => {
                let outline = stored.outline.as_deref();
                let history = History::open(stored.record, outline, &stored.rows);
                Loaded {
                    key: stored.key,
                    history: history
                        .ok_or_else(|| slot.damaged("its parts do not fit together"))?,
                    stored: true,
                }
            }
        };
        recall_quarantined(slot, &mut open)?;
        self.had_contents |= !open.history.is_empty();
        open.history.set_peers(std::mem::take(&mut self.parked));
        self.verifying.opened(open.history.len());
        self.history = Some(Box::new(open));
        self.building.history_changed();
        self.concerned = Recipients::All;
        if !aside.is_empty() {
            self.take_in_aside(slot, &aside)?;
        }
        if slot.services.config.verify == Verify::Inline {
            // What was stored before is not served unchecked either.
            Box::pin(self.verify_inline(slot)).await?;
        }
        Ok(())
    }

    pub(super) fn opened(&mut self) -> &mut Loaded {
        self.history
            .as_mut()
            .expect("open() ran at the start of the turn")
    }

    /// As [`Loaded::with_graph`].
    pub(super) fn with_graph<T>(
        &mut self,
        slot: &Slot,
        step: impl FnMut(&mut History) -> Result<T, NeedGraph>,
    ) -> Result<T, StorageError> {
        self.opened().with_graph(slot, step)
    }
}
