//! The commit of what a turn took in. Whatever must be stored together with a change is written in
//! its batch.
//!
//! What could not be stored is kept and tried again, and until that is done the document takes no
//! changes: their senders are asked for them afterwards, once.

use std::sync::Arc;

use reconverge::native::NotCommitted;
use reconverge::storage::{Batch, StorageError, Write};
use tracing::info;

use super::{Document, Input, Recipients, Slot};
use crate::config::Verify;

impl Document {
    /// Commits what is new.
    pub(super) async fn save(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        let inline = slot.services.config.verify == Verify::Inline;
        if inline {
            Box::pin(self.verify_inline(slot)).await?;
        }
        let open = self.opened();
        let Some((last, row)) = open.history.take_unsaved() else {
            return Ok(());
        };
        let mut writes = vec![Write::Row { last, row }];
        if !open.stored {
            info!(document = %slot.name, space = open.history.record().space.as_str(), "created");
        }
        if inline || !open.stored {
            writes.push(Write::Record(open.history.record().clone()));
        }
        Box::pin(self.commit_or_keep(slot, writes)).await?;
        let open = self.opened();
        open.stored = true;
        open.history.committed();
        self.concerned = Recipients::All;
        Ok(())
    }

    pub(super) async fn commit(
        &mut self,
        slot: &Slot,
        writes: Vec<Write>,
    ) -> Result<(), StorageError> {
        if let Some(kept) = &mut self.unstored {
            // It was made for what was stored until now.
            kept.forget();
            self.asks_again = true;
        }
        self.try_commit(slot, writes).await?;
        Ok(())
    }

    pub(super) async fn try_commit(
        &mut self,
        slot: &Slot,
        writes: Vec<Write>,
    ) -> Result<(), NotCommitted> {
        let batch = Batch {
            document: slot.id,
            key: self.opened().key,
            writes,
        };
        slot.services.committer.commit(batch).await?;
        slot.services.storage_health.committed();
        Ok(())
    }

    /// Commits what peers sent. If that fails, it is kept and tried again.
    pub(super) async fn commit_or_keep(
        &mut self,
        slot: &Arc<Slot>,
        writes: Vec<Write>,
    ) -> Result<(), StorageError> {
        let Err(failed) = self.try_commit(slot, writes).await else {
            return Ok(());
        };
        let kept = failed.batch.map(|batch| slot.services.unsaved.keep(batch));
        self.asks_again |= kept.as_ref().is_none_or(|kept| kept.batch().is_none());
        if kept.is_some() {
            self.unstored = kept;
            slot.push_after(slot.services.config.storage_retry, Input::Store);
        }
        Err(failed.error)
    }

    /// Tries again to store what could not be stored.
    pub(super) async fn store_again(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        let Some(kept) = &self.unstored else {
            return Ok(());
        };
        let stored = match kept.batch() {
            None if kept.has_room() => Ok(()),
            None => Err(None),
            Some(batch) => {
                let stored = slot.services.committer.commit(batch.clone()).await;
                let stored = stored.map_err(|failed| Some(failed.error));
                if stored.is_ok() {
                    slot.services.storage_health.committed();
                }
                stored
            }
        };
        match stored {
            Ok(()) => {
                self.unstored = None;
                // What is open now is what was stored before.
                self.park();
                self.concerned = Recipients::All;
            }
            Err(Some(error @ StorageError::Damaged { .. })) => return Err(error),
            Err(error) => {
                if let Some(error) = error {
                    slot.storage_failed(&error);
                }
                slot.push_after(slot.services.config.storage_retry, Input::Store);
            }
        }
        Ok(())
    }
}
