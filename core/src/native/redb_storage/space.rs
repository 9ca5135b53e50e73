//! How much of the file is alive, and when the rest is given back to the file system.
//!
//! redb uses freed pages again but does not make the file smaller by itself, and its own count of
//! what is alive reads the whole file. So the bytes of keys and values are counted as they come and
//! go; the file keeps the sum, a little behind.

/// What a file may have beyond [`FILE_PER_LIVE`] times what is alive, in bytes.
const SLACK_BYTES: u64 = 4 * 1024 * 1024;

/// How many times what is alive a file may have.
const FILE_PER_LIVE: u64 = 3;

/// A file with more alive than this, in bytes, is made smaller only when it is opened: commits and
/// reads wait meanwhile, about 1.6 ms per MiB.
const COMPACTED_ONLINE_MAX: u64 = 64 * 1024 * 1024;

/// What one commit does to the space.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Change {
    added: u64,
    removed: u64,
}

impl Change {
    pub(super) fn add(&mut self, value: &[u8]) {
        self.added += entry_bytes(value);
    }

    /// That an entry is removed; `false`, for those who are asked whether it stays.
    pub(super) fn remove(&mut self, value: &[u8]) -> bool {
        self.removed += entry_bytes(value);
        false
    }

    pub(super) fn frees(&self) -> bool {
        self.removed > 0
    }
}

/// The bytes of an entry, about.
fn entry_bytes(value: &[u8]) -> u64 {
    const KEY: u64 = 24;
    KEY + value.len() as u64
}

#[derive(Debug, Default)]
pub(super) struct Space {
    live: u64,
    /// What the file says is alive.
    stored: u64,
    /// The size below which compacting the file was of no use the last time.
    useless_below: u64,
}

impl Space {
    /// As the file says.
    pub(super) fn stored(live: u64) -> Self {
        Self {
            live,
            stored: live,
            useless_below: 0,
        }
    }

    /// What is alive after `change`, and whether the file should say so in the same commit.
    pub(super) fn after(&self, change: Change) -> (u64, bool) {
        let live = (self.live + change.added).saturating_sub(change.removed);
        let far = live > self.stored + self.stored / 8 + SLACK_BYTES / 4;
        (live, change.removed > 0 || far)
    }

    pub(super) fn committed(&mut self, (live, stored): (u64, bool)) {
        self.live = live;
        if stored {
            self.stored = live;
        }
    }

    /// Whether a file of this size should be made smaller when it is opened.
    pub(super) fn is_sparse(&self, file: u64) -> bool {
        file > FILE_PER_LIVE * self.live + SLACK_BYTES
    }

    /// Whether it should be made smaller now, while it is used.
    pub(super) fn is_worth_a_pause(&self, file: u64) -> bool {
        self.live <= COMPACTED_ONLINE_MAX && self.is_sparse(file) && file >= self.useless_below
    }

    /// The file has this size after it was compacted.
    pub(super) fn compacted(&mut self, file: u64) {
        self.useless_below = file + SLACK_BYTES;
    }
}
