//! Luck that can be had again: the same seed draws the same numbers.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{ops::Range, time::Duration};

/// A small generator ([SplitMix64](https://doi.org/10.1145/2714064.2660195)): good enough to choose by, and the same
/// everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Luck(u64);

impl Luck {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Luck of its own for each list of words below one seed.
    pub(crate) fn of(seed: u64, words: &[&str]) -> Self {
        let mut luck = Self(seed);
        for byte in words.iter().flat_map(|word| word.bytes().chain([0xff])) {
            luck.0 ^= u64::from(byte);
            luck.0 = luck.next();
        }
        luck
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number of that range, which is not empty.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// An index below `count`, which is not zero.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(count).expect("it fits")).expect("it is below a usize")
    }

    /// Whether something happens that does so many times in a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// A time of that range in milliseconds.
    pub(crate) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }
}
