//! The only place that asks what time it is.
//!
//! Durations come from tokio's clock, so that tests pause it; nothing compares two hosts' clocks (contract: R-22).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use tokio::time::Instant;

/// Now, on the monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn now() -> Instant {
    Instant::now()
}

/// Now, by the calendar: for log lines, `Date` fields and metrics, never for decisions.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970.
#[must_use]
pub fn unix_seconds() -> f64 {
    wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// Between two turns of a [`Sparing`].
const SPARED: Duration = Duration::from_secs(1);

/// Lets something through once a second, and counts the rest: what clients can bring about faster than log lines are of
/// use.
#[derive(Debug, Default)]
pub struct Sparing(Mutex<Spared>);

#[derive(Debug, Default)]
struct Spared {
    last: Option<Instant>,
    held_back: u64,
}

impl Sparing {
    /// One that has let nothing through yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Spared { last: None, held_back: 0 }))
    }

    /// How many were held back since the last turn, when it is time for another.
    pub fn turn(&self) -> Option<u64> {
        let now = now();
        let mut spared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spared.last.is_some_and(|last| now - last < SPARED) {
            spared.held_back += 1;
            return None;
        }
        spared.last = Some(now);
        Some(std::mem::take(&mut spared.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_within_a_second_are_one_turn() {
        let sparing = Sparing::new();
        assert_eq!(sparing.turn(), Some(0));
        assert_eq!(sparing.turn(), None);
        assert_eq!(sparing.turn(), None);
        tokio::time::advance(SPARED).await;
        assert_eq!(sparing.turn(), Some(2));
        assert_eq!(sparing.turn(), None);
    }
}
