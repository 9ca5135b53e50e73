//! How many bytes of memory lists and tables hold: with the room that they have, not with what is in
//! them.

use std::mem::size_of;

/// Bytes of a hash table with room for so many entries of a size: one byte more for each, and
/// an eighth stays free.
pub(super) fn table(capacity: usize, entry: usize) -> usize {
    match capacity {
        0 => 0,
        room => (room * 8 / 7).next_power_of_two().max(4) * (entry + 1) + 16,
    }
}

pub(super) fn list<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}
