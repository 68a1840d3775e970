//! What a record costs in bytes, said honestly: the allocator's rounding and the tables' slack included.
//!
//! The figures are those of a 64-bit glibc and of the standard library's tables. They need not be exact elsewhere; a test
//! compares the sum with the process's growth.

use super::entry::Entry;
use crate::rule::Stored;

/// One record without its answer.
pub(super) const ENTRY: u64 = allocated(size_of::<Entry>());

/// The least an answer takes: what every claim sets aside for its settlement.
pub(super) const BARE_ANSWER: u64 = allocated(1) + SHARED;

/// A bucket of the timer: its share of a B-tree filled in ascending order, hence half empty.
pub(super) const BUCKET: u64 = 32;

/// What `Bytes` allocates to count its holders once there are two.
const SHARED: u64 = allocated(24);

/// Bytes that the allocator takes to serve a request for so many.
const fn allocated(bytes: usize) -> u64 {
    let chunk = (bytes as u64 + 8).next_multiple_of(16);
    if chunk < 32 {
        32
    } else if chunk < MAPPED {
        chunk
    } else {
        chunk.next_multiple_of(4096)
    }
}

/// From here on, the allocator asks the system for whole pages.
const MAPPED: u64 = 128 * 1024;

/// An answer as [`Stored`] keeps it.
pub(super) fn answer(response: &Stored) -> u64 {
    allocated(response.as_bytes().len()) + SHARED
}

/// Buckets of a hash table with room for so many: a power of two, filled to 7/8.
pub(super) const fn buckets(capacity: usize) -> u64 {
    match capacity {
        0 => 0,
        1..4 => 4,
        4..8 => 8,
        _ => (capacity as u64 * 8 / 7).next_power_of_two(),
    }
}

/// A hash table of `u64` to `u32` with so many buckets, one control byte each.
pub(super) const fn table(buckets: u64) -> u64 {
    buckets * 17
}
