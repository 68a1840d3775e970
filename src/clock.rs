//! The only place that asks what time it is.
//!
//! Durations come from tokio's clock, so that tests pause it; nothing compares two hosts' clocks (contract: R-22).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
