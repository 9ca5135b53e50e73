//! The check of what only contents can tell, in the workshop: that all changes together make a
//! document which clients can apply, read, save and load. What fails is taken out, with what
//! depends on it, and kept apart: *quarantined*. When the history outweighs its snapshot, the same
//! job folds it into a new one, so a snapshot holds only what was checked.
//!
//! Usually the check comes a while after changes were stored; `Verify::Inline` puts it before.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reconverge::contents::{Reading, Verdict};
use reconverge::history::{Fold, History, Received, Refusal};
use reconverge::storage::{NewSnapshot, StorageError, Write};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{info, warn};

use super::building::{BuildResult, Checked};
use super::quarantining::refusals;
use super::senders::Senders;
use super::{Document, Input, Slot};
use crate::limits::fair::{Owner, RELAY};
use crate::peers::Connection;
use crate::workshop::{Built, Done, Job, JobError};

/// After this many failures in a row, the time until the next check grows no more.
const FAILURES_MAX: u32 = 6;

/// What of a document is not checked.
#[derive(Default)]
pub(super) struct Verifying {
    pub(super) senders: Senders,
    /// Whose changes came last: who pays for the check.
    payer: Payer,
    /// A reminder is set.
    reminded: bool,
    /// It came.
    due: bool,
    /// Of those that are reminded at a time, until its check is done.
    place: Option<Arc<OwnedSemaphorePermit>>,
    /// A check runs.
    runs: bool,
    failures: u32,
    /// A new snapshot could not be stored; it is made again when a check is due.
    fold_waits: bool,
    /// After a check failed, the next one folds only when there is this much to fold.
    fold_from_len: u32,
    /// How often stored changes were taken out, which gives others new indexes.
    epoch: u32,
    /// With [`Verify::Inline`](crate::config::Verify::Inline), the stored changes below this index
    /// could not be checked, and are served until the document is opened again.
    served_unchecked: u32,
}

#[derive(Clone, Copy)]
struct Payer(Owner);

impl Default for Payer {
    fn default() -> Self {
        Self(RELAY)
    }
}

impl Verifying {
    /// Whether nothing is under way and nothing waits for its time.
    pub(super) fn is_idle(&self) -> bool {
        !self.runs && !self.reminded
    }

    /// Whether it will be reminded, and needs what is known of it then.
    pub(super) fn is_reminded(&self) -> bool {
        self.reminded
    }

    /// Whether nothing goes on until it is reminded.
    pub(super) fn may_rest(&self) -> bool {
        !self.runs && !self.due && self.failures == 0 && self.served_unchecked == 0
    }

    /// What is left of it when it rests.
    pub(super) fn rest(&mut self) -> Self {
        self.senders.shrink_to_fit();
        std::mem::take(self)
    }

    /// Changes were taken out: what was begun before was for other indexes.
    pub(super) fn indexes_changed(&mut self) {
        self.epoch += 1;
    }

    pub(super) fn runs(&self) -> bool {
        self.runs
    }

    /// The history was read from storage, with so many changes.
    pub(super) fn opened(&mut self, len: u32) {
        self.senders.stored(len);
        self.served_unchecked = 0;
    }

    /// The document begins anew, with other changes under the same indexes.
    pub(super) fn begun_anew(&mut self) {
        (self.senders, self.epoch) = (Senders::default(), self.epoch + 1);
    }

    /// Whether the history is being folded, or will be next, and there is no reason to think that it
    /// fails.
    pub(super) fn folds_soon(&self, history: &History) -> bool {
        self.failures == 0 && history.should_fold()
    }

    pub(super) fn remind(&mut self, place: &Arc<OwnedSemaphorePermit>) {
        (self.reminded, self.due) = (false, true);
        self.place = Some(place.clone());
    }

    /// Makes room for another that is due: this one cannot be checked now.
    pub(super) fn give_place_back(&mut self) {
        self.place = None;
    }
}

/// Runs a check. A document that cannot be read within the limits is checked in its saved form only:
/// whoever makes a check give up must not get through what nobody could load again.
async fn build_check(slot: &Slot, owner: Owner, job: Job, in_turn: bool) -> Done {
    let workshop = &slot.services.workshop;
    let run = async |job| match in_turn {
        true => workshop.run_in_turn(owner, job).await,
        false => workshop.run(owner, job).await,
    };
    let otherwise = job.of_saved_form();
    let built = run(job).await;
    match (&built.result, otherwise) {
        (Err(error @ (JobError::Died(_) | JobError::Deadline(_))), Some(otherwise)) => {
            warn!(document = %slot.name, %error,
                "its contents could not be read; only its saved form is checked{}", error.advice());
            drop(built);
            run(otherwise).await
        }
        _ => built,
    }
}

impl Document {
    /// Remembers who sent what entered, from the index `len` on.
    pub(super) fn note_senders(&mut self, len: u32, from: &Connection, received: &Received) {
        if received.admitted == 0 {
            return;
        }
        self.verifying.payer = Payer(from.owner());
        let senders = &mut self.verifying.senders;
        senders.note(len, Some(&from.peer));
        for (index, other) in &received.waited {
            let other = self.connections.get(other).map(|other| &other.peer);
            senders.note(*index, other);
            senders.note(index + 1, Some(&from.peer));
        }
    }

    /// Starts a check when one is due, or sees to it that one will be.
    pub(super) fn check_if_due(&mut self, slot: &Arc<Slot>) {
        self.check_or_wait(slot);
        // A check that began took it.
        self.verifying.give_place_back();
    }

    fn check_or_wait(&mut self, slot: &Arc<Slot>) {
        let Some(open) = &self.history else { return };
        // What waits to be stored was made for what is stored now.
        if self.verifying.runs || self.unstored.is_some() {
            return;
        }
        let (config, history) = (&slot.services.config, &open.history);
        let len = history.len();
        let may_fold = len >= self.verifying.fold_from_len;
        let wants_fold = history.should_fold() && may_fold;
        let folds = wants_fold && (self.verifying.due || !self.verifying.fold_waits);
        let unverified = len - history.verified();
        let many = config.verify_lag_changes.max(len / 8);
        let due = unverified > 0 && (self.verifying.due || unverified >= many);
        if folds || (due && self.verifying.failures == 0) || self.verifying.due {
            let folds = folds || (may_fold && history.may_fold());
            self.verifying.due = false;
            if folds || unverified > 0 {
                self.check(slot, folds);
            }
        } else if (unverified > 0 || wants_fold) && !self.verifying.reminded {
            let lag = config.verify_lag * (1 << self.verifying.failures);
            let at = Instant::now() + lag;
            let payer = self.verifying.payer.0.id;
            self.verifying.reminded = slot.services.reminders.push(payer, at, slot.id);
        }
    }

    fn check(&mut self, slot: &Arc<Slot>, folds: bool) {
        self.verifying.runs = true;
        let history = &self.opened().history;
        let checked = Checked {
            from: history.record().folded,
            len: history.len(),
            generation: history.record().generation,
            fold: folds.then(|| history.begin_fold()),
            epoch: self.verifying.epoch,
        };
        let job = self.check_job(slot, folds);
        let payer = self.verifying.payer.0;
        let place = self.verifying.place.take();
        let slot = slot.clone();
        slot.services.clone().lifetime.spawn(async move {
            let built = tokio::select! {
                () = slot.services.lifetime.stopping() => return,
                built = build_check(&slot, payer, job, false) => built,
            };
            drop(place);
            let result = BuildResult::Checked { checked, built };
            slot.push(Input::Built(Box::new(result)));
        });
    }

    /// A check of everything, stored or not.
    fn check_job(&mut self, slot: &Slot, wants_snapshot: bool) -> Job {
        let open = self.opened();
        let (history, record) = (&open.history, open.history.record());
        let unsaved: Vec<Bytes> = history.unsaved().iter().map(|c| c.bytes.clone()).collect();
        Job::Check {
            storage: slot.services.storage.clone(),
            key: open.key,
            snapshot: (record.generation > 0).then_some((record.generation, record.snapshot_bytes)),
            changes: record.folded..history.len() - unsaved.len() as u32,
            unsaved,
            bytes: history.tail_bytes(),
            operations: history.operations_at_least(),
            heads: history.heads(),
            reading: Reading::Contents,
            wants_snapshot,
        }
    }

    /// Takes in the result of a check. If storage fails, it is dropped and made again later, less
    /// often each time: to build it again at once would cost much, and fail as long as the disk is full.
    pub(super) async fn checked(
        &mut self,
        slot: &Arc<Slot>,
        checked: &Checked,
        built: &Result<Built, JobError>,
    ) -> Result<(), StorageError> {
        let failures = self.verifying.failures;
        let taken_in = self.take_in_checked(slot, checked, built).await;
        if taken_in.is_err() {
            self.verifying.failures = FAILURES_MAX.min(failures + 1);
            (self.verifying.due, self.verifying.fold_waits) = (false, true);
        }
        taken_in
    }

    async fn take_in_checked(
        &mut self,
        slot: &Arc<Slot>,
        checked: &Checked,
        built: &Result<Built, JobError>,
    ) -> Result<(), StorageError> {
        self.verifying.runs = false;
        if checked.epoch != self.verifying.epoch {
            return Ok(());
        }
        if self.unstored.is_some() {
            self.verifying.due = true;
            return Ok(());
        }
        let verdict = match built {
            Ok(Built::Checked(verdict)) => verdict,
            Ok(Built::Unpacked(_) | Built::Unfolded(_)) => return Ok(()),
            // What a new snapshot replaced meanwhile is not there any more, which is no damage.
            Err(JobError::Storage(error @ StorageError::Damaged { .. }))
                if checked.generation == self.opened().history.record().generation =>
            {
                return Err(error.clone());
            }
            Err(JobError::Storage(error)) if !matches!(error, StorageError::Damaged { .. }) => {
                return Err(error.clone());
            }
            Err(error) => {
                let len = self.opened().history.len();
                self.verifying.failures = FAILURES_MAX.min(self.verifying.failures + 1);
                self.verifying.fold_from_len = len.saturating_mul(2);
                warn!(document = %slot.name, %error, failures = self.verifying.failures,
                    "could not be checked, which is no fault of a change: all stays as it is, and \
                     the check is tried again later{}", error.advice());
                return Ok(());
            }
        };
        (self.verifying.failures, self.verifying.fold_waits) = (0, false);
        // What arrived in this turn is newer than the check, and stored before what it found.
        self.save(slot).await?;
        match (verdict, &checked.fold) {
            (Verdict::Sound(Some(snapshot)), Some(fold)) => {
                self.folded(slot, fold, snapshot.clone()).await
            }
            (Verdict::Sound(_), _) => self.verified(slot, checked.len).await,
            (Verdict::Unsound(unsound), _) => {
                self.verifying.due = true;
                let refused = refusals(checked.from, unsound.clone());
                self.take_out(slot, refused).await
            }
        }
    }

    async fn folded(
        &mut self,
        slot: &Arc<Slot>,
        fold: &Fold,
        snapshot: Bytes,
    ) -> Result<(), StorageError> {
        if fold.record.generation != self.opened().history.record().generation + 1 {
            // An uploaded chunk became the snapshot meanwhile.
            return Ok(());
        }
        let new = NewSnapshot::folded(fold, snapshot);
        let mut record = new.record.clone();
        self.commit(slot, new.into_writes()).await?;
        info!(document = %slot.name, changes = record.folded, bytes = record.snapshot_bytes,
            "compacted");
        let history = &mut self.opened().history;
        record.verified = record.verified.max(history.verified());
        let len = history.len();
        self.verifying.senders.verified(record.verified, len);
        self.opened().history.folded(record);
        self.building.history_changed();
        Ok(())
    }

    async fn verified(&mut self, slot: &Arc<Slot>, upto: u32) -> Result<(), StorageError> {
        let history = &mut self.opened().history;
        if upto <= history.verified() {
            return Ok(());
        }
        history.set_verified(upto);
        let record = Write::Record(history.record().clone());
        let len = history.len();
        self.verifying.senders.verified(upto, len);
        self.commit(slot, vec![record]).await
    }

    /// Checks what is not checked yet, before it is stored or served.
    pub(super) async fn verify_inline(&mut self, slot: &Arc<Slot>) -> Result<(), StorageError> {
        loop {
            let served_unchecked = self.verifying.served_unchecked;
            let history = &self.opened().history;
            if history.verified().max(served_unchecked) >= history.len() {
                return Ok(());
            }
            let job = self.check_job(slot, false);
            // Also when the relay stops: what was taken in is committed, if the check ends before
            // all tasks must have.
            let payer = self.verifying.payer.0;
            let built = build_check(slot, payer, job, true).await.result;
            let history = &mut self.opened().history;
            let (from, len) = (history.record().folded, history.len());
            let unsaved = history.unsaved().len() as u32;
            match built {
                Ok(Built::Checked(Verdict::Unsound(unsound))) => {
                    self.take_out(slot, refusals(from, unsound)).await?;
                }
                Ok(_) => {
                    history.set_verified(len);
                    self.verifying.senders.verified(len, len);
                }
                // That says nothing of the changes.
                Err(JobError::Storage(error)) => return Err(error),
                Err(error @ JobError::Spawn(_)) => return Err(StorageError::failed(error)),
                Err(error) if unsaved == 0 => {
                    warn!(document = %slot.name, %error,
                        "what was stored before could not be checked, and is served unchecked until \
                         it is opened again{}", error.advice());
                    self.verifying.served_unchecked = len;
                }
                // In this mode nothing is stored that is not checked. Nobody was told of it yet.
                Err(error) => {
                    warn!(document = %slot.name, %error, changes = unsaved,
                        "changes could not be checked, and are not stored{}", error.advice());
                    let refusal = Refusal::Unchecked(error.to_string());
                    let new = len - unsaved..len;
                    self.take_out(slot, new.map(|index| (index, refusal.clone())).collect())
                        .await?;
                }
            }
        }
    }
}
