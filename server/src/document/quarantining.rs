//! Taking changes out of a document in which the check found a fault, with what depends on them. They
//! are kept apart: *quarantined*.

use std::collections::HashMap;
use std::sync::Arc;

use reconverge::contents::Unsound;
use reconverge::history::{Quarantined, Refusal, Removal};
use reconverge::protocol::ChangeHash;
use reconverge::storage::{Blob, StorageError, Write};
use tracing::warn;

use super::{Document, Loaded, Slot};

/// Has a history that was opened refuse what was quarantined.
pub(super) fn recall_quarantined(slot: &Slot, open: &mut Loaded) -> Result<(), StorageError> {
    for number in 0..open.history.record().quarantined {
        let blob = Blob::Quarantine(number);
        let lot = tokio::task::block_in_place(|| slot.services.storage.blob(open.key, blob))?;
        let lot = Quarantined::decode(&lot).ok_or_else(|| slot.damaged("a quarantined lot"))?;
        open.history.quarantine(&lot);
    }
    Ok(())
}

/// What becomes of changes at fault, counted from the index `from`.
pub(super) fn refusals(from: u32, unsound: Vec<Unsound>) -> HashMap<u32, Refusal> {
    let unsound = unsound.into_iter();
    unsound
        .map(|change| (from + change.at, Refusal::Unsound(change.reason)))
        .collect()
}

impl Document {
    /// Takes out changes, by their indexes, and what depends on them. What of them was stored is
    /// quarantined.
    pub(super) async fn take_out(
        &mut self,
        slot: &Arc<Slot>,
        mut refused: HashMap<u32, Refusal>,
    ) -> Result<(), StorageError> {
        let folded = self.opened().history.record().folded;
        // An uploaded chunk that was loaded has it meanwhile.
        refused.retain(|index, _| *index >= folded);
        if refused.is_empty() {
            return Ok(());
        }
        let open = self.opened();
        let stored_len = open.history.len() - open.history.unsaved().len() as u32;
        let removal = tokio::task::block_in_place(|| {
            let segments = open.segments(slot)?;
            let stored = slot.services.storage.load(&slot.id)?;
            let (outline, rows) =
                stored.map_or_else(Default::default, |stored| (stored.outline, stored.rows));
            let removal = open
                .history
                .remove(&refused, outline.as_deref(), &segments, &rows);
            removal.ok_or_else(|| slot.damaged("its parts do not fit together"))
        })?;
        self.report_taken_out(slot, &removal, &refused);
        let gone: Vec<u32> = removal.removed.iter().map(|change| change.index).collect();
        let lot: Vec<Quarantined> = removal
            .removed
            .into_iter()
            .filter(|change| change.index < stored_len)
            .map(|change| {
                let sender = self.verifying.senders.of(change.index).to_owned();
                change.into_quarantined(sender)
            })
            .collect();
        self.verifying.senders.taken_out(&gone);
        if lot.is_empty() {
            return Ok(());
        }
        self.verifying.indexes_changed();
        self.building.history_changed();
        let record = self.opened().history.record().clone();
        let blob = Blob::Quarantine(record.quarantined - 1);
        let mut writes = vec![Write::RemoveRowsFrom(removal.rows_from)];
        let rows = removal.rows.into_iter();
        writes.extend(rows.map(|(last, row)| Write::Row { last, row }));
        writes.push(Write::Blob(blob, Quarantined::encode(&lot).into()));
        writes.push(Write::Record(record));
        let committed = self.commit(slot, writes).await;
        if committed.is_err() {
            // What is known of them counts with the new indexes, and the old ones may be stored.
            for connection in self.connections.values() {
                connection.outbox.close(1011, "storage failed");
            }
        }
        committed?;
        self.opened().history.committed();
        self.concerned = super::Recipients::All;
        Ok(())
    }

    fn report_taken_out(&self, slot: &Slot, removal: &Removal, at_fault: &HashMap<u32, Refusal>) {
        let mut refused: Vec<(Option<ChangeHash>, Refusal)> = Vec::new();
        for removed in &removal.removed {
            if at_fault.contains_key(&removed.index) {
                let sender = self.verifying.senders.of(removed.index);
                warn!(document = %slot.name, peer = sender, change = %removed.change.hash,
                    reason = %removed.refusal, "change taken out");
            }
            refused.push((Some(removed.change.hash), removed.refusal.clone()));
        }
        let depend = removal.removed.len().saturating_sub(at_fault.len());
        if depend > 0 {
            warn!(document = %slot.name, changes = depend, "taken out with them, since they depend on them");
        }
        for connection in self.connections.values() {
            connection.refused(&slot.name, &refused);
        }
    }
}
