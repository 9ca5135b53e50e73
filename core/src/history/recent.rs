//! The bytes of the newest changes, so that live edits are passed on without reading them back.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes of the newest changes that stay in memory while a document is open, so that live edits are
/// passed on without reading them back.
pub const RECENT_BYTES_MAX: usize = 256 * 1024;

/// The bytes of the newest changes.
#[derive(Debug, Default)]
pub(super) struct Recent {
    first: u32,
    changes: VecDeque<Bytes>,
    bytes: usize,
}

impl Recent {
    pub(super) fn push(&mut self, index: u32, change: Bytes) {
        if self.first + self.changes.len() as u32 != index {
            *self = Self {
                first: index,
                ..Self::default()
            };
        }
        self.bytes += change.len();
        self.changes.push_back(change);
        while self.bytes > RECENT_BYTES_MAX
            && let Some(oldest) = self.changes.pop_front()
        {
            self.bytes -= oldest.len();
            self.first += 1;
        }
    }

    /// Keeps bytes of their own: those that were read share the bytes of whole rows.
    pub(super) fn let_go_of_rows(&mut self) {
        for change in &mut self.changes {
            *change = Bytes::copy_from_slice(change);
        }
    }

    pub(super) fn get(&self, index: u32) -> Option<&Bytes> {
        self.changes.get(index.checked_sub(self.first)? as usize)
    }
}

#[cfg(feature = "native")]
impl Recent {
    /// Bytes of memory beside its own.
    pub(super) fn heap_bytes(&self) -> usize {
        // Each is shared with whoever is sent it, which takes some bytes more.
        let each = 2 * size_of::<Bytes>();
        self.changes.capacity() * each + self.bytes
    }
}

#[cfg(feature = "native")]
impl Recent {
    /// Bytes of the changes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
