//! What taking in a message may cost: in all, and in each of the parts in which that is done.

use super::limits::{
    CHANGE_BYTES_MAX, CHANGE_OPS_MAX, LIGHT_STEPS_MAX, MESSAGE_INFLATED_BYTES_MAX,
    MESSAGE_INFLATED_RATIO, SLICE_STEPS_MAX,
};
use super::steps;

/// How much work is to be done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// What is short: up to [`LIGHT_STEPS_MAX`].
    Light,
    /// About [`SLICE_STEPS_MAX`], and at least one change, whatever it takes.
    Slice,
    /// All of it.
    All,
}

/// What a message may still have, and how much more of it may be done now.
#[derive(Debug, Default)]
pub(super) struct Budget {
    begun: bool,
    /// What the message may still have.
    operations_left: u64,
    inflated_left: u64,
    /// Where this part began, and how many steps it may take.
    steps_from: u64,
    steps_max: u64,
    work: Option<Work>,
    /// Something was done in this part.
    worked: bool,
}

impl Budget {
    /// A part begins of a message whose changes have so many bytes, after so many steps.
    pub(super) fn begin(&mut self, bytes: u64, taken: u64, work: Work) {
        if !std::mem::replace(&mut self.begun, true) {
            self.operations_left = CHANGE_OPS_MAX.saturating_add(bytes);
            let ratio = bytes.saturating_mul(MESSAGE_INFLATED_RATIO);
            self.inflated_left = MESSAGE_INFLATED_BYTES_MAX.saturating_add(ratio);
        }
        self.steps_from = taken;
        self.steps_max = match work {
            Work::Light => LIGHT_STEPS_MAX,
            Work::Slice => SLICE_STEPS_MAX,
            Work::All => u64::MAX,
        };
        (self.work, self.worked) = (Some(work), false);
    }

    /// Something was done.
    pub(super) fn worked(&mut self) {
        self.worked = true;
    }

    pub(super) fn is_light(&self) -> bool {
        self.work == Some(Work::Light)
    }

    fn steps_left(&self, taken: u64) -> u64 {
        self.steps_max.saturating_sub(taken - self.steps_from)
    }

    /// Whether this part may do one thing more.
    pub(super) fn may_go_on(&self, taken: u64) -> bool {
        self.steps_left(taken) > 0 || (!self.worked && !self.is_light())
    }

    /// Whether a walk of so many steps, of which the whole is done at once, may be done.
    pub(super) fn may_walk(&self, walk: u64, taken: u64) -> bool {
        !self.is_light() || walk <= self.steps_left(taken)
    }

    /// To how many bytes the next change may inflate.
    pub(super) fn inflated_max(&self, taken: u64) -> usize {
        let left = self.inflated_left.min(CHANGE_BYTES_MAX as u64);
        let max = match self.is_light() {
            true => left.min(self.steps_left(taken) / steps::BYTE),
            false => left,
        };
        max as usize
    }

    /// A change inflated to so many bytes, of which as many came.
    pub(super) fn inflated(&mut self, bytes: u64, came: u64) {
        if bytes > came {
            self.inflated_left = self.inflated_left.saturating_sub(bytes);
        }
    }

    /// The same as [`Self::inflated_max`] for one that waited, which was taken for another message.
    pub(super) fn orphan_max(&self, taken: u64) -> usize {
        match self.is_light() {
            true => (self.steps_left(taken) / steps::BYTE) as usize,
            false => CHANGE_BYTES_MAX,
        }
    }

    /// Whether so many operations may be taken in.
    pub(super) fn has_room_for(&self, operations: u64, is_orphan: bool, taken: u64) -> bool {
        let steps = operations.saturating_mul(steps::OPERATION);
        let is_short = !self.is_light() || steps <= self.steps_left(taken);
        is_short && (is_orphan || operations <= self.operations_left)
    }

    /// So many operations are taken in.
    pub(super) fn take(&mut self, operations: u64) {
        self.operations_left -= operations;
    }
}
