//! How our handling of a request ended: one value that yields the metric label, the log word and the response field.

use std::{fmt::Write as _, time::Duration};

use http::HeaderValue;

/// How our handling of a request ended (contract: sections 7 and 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Forwarded; the answer is stored.
    Executed {
        /// Retention of the record.
        ttl: Duration,
    },
    /// Answered from the record.
    Replayed {
        /// Since settlement.
        age: Duration,
        /// Until the record is forgotten.
        ttl: Duration,
        /// The request joined the owner and waited for it.
        waited: bool,
        /// The key was the content (`content:WINDOW`).
        content: bool,
    },
    /// Forwarded, or not even sent; nothing was executed and the key is free.
    Released,
    /// Nobody can say whether it was executed.
    Unknown,
    /// An owner is still at work.
    InFlight,
    /// Refused before anything was sent.
    Rejected,
    /// Executed; the answer was not kept.
    NotKept,
    /// Forwarded; somebody else had written the record meanwhile.
    Fenced,
    /// Forwarded; the store did not take the outcome yet.
    Unsettled,
    /// Forwarded without a guard, though the route guards.
    Unguarded,
    /// Passed: never meant to be guarded.
    Passed,
    /// Passed, and the upstream failed.
    Failed,
}

impl Outcome {
    /// Every label, in the order of [`Outcome::index`].
    pub const LABELS: [&'static str; 12] = [
        "executed",
        "replayed",
        "released",
        "unknown",
        "in-flight",
        "rejected",
        "not-kept",
        "fenced",
        "unsettled",
        "unguarded",
        "passed",
        "failed",
    ];

    /// Where [`Outcome::label`] stands in [`Outcome::LABELS`]; metric handles are kept in arrays by it.
    #[must_use]
    pub const fn index(&self) -> usize {
        match self {
            Self::Executed { .. } => 0,
            Self::Replayed { .. } => 1,
            Self::Released => 2,
            Self::Unknown => 3,
            Self::InFlight => 4,
            Self::Rejected => 5,
            Self::NotKept => 6,
            Self::Fenced => 7,
            Self::Unsettled => 8,
            Self::Unguarded => 9,
            Self::Passed => 10,
            Self::Failed => 11,
        }
    }

    /// The token of `Idempotency-Status`, and the `outcome` label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// The value of `Idempotency-Status` (RFC 9651 Token with parameters); `None` for requests that were passed.
    #[must_use]
    pub fn field(&self, upstream_replayed: bool) -> Option<HeaderValue> {
        let seconds = |duration: Duration| duration.as_secs();
        let mut text = match *self {
            Self::Passed | Self::Failed => return None,
            Self::Executed { ttl } => format!("executed;ttl={}", seconds(ttl)),
            Self::Replayed { age, ttl, waited, content } => {
                let mut text = String::with_capacity(64);
                // Rounded so that the two add up to the retention.
                write!(text, "replayed;age={};ttl={}", seconds(age), seconds(ttl) + u64::from(ttl.subsec_nanos() > 0))
                    .expect("a String takes every write");
                if waited {
                    text.push_str(";waited");
                }
                if content {
                    text.push_str(";key=content");
                }
                text
            }
            Self::Released
            | Self::Unknown
            | Self::InFlight
            | Self::Rejected
            | Self::NotKept
            | Self::Fenced
            | Self::Unsettled
            | Self::Unguarded => {
                if !upstream_replayed {
                    return Some(HeaderValue::from_static(self.label()));
                }
                self.label().to_owned()
            }
        };
        if upstream_replayed {
            text.push_str(";upstream=replayed");
        }
        Some(HeaderValue::try_from(text).expect("tokens and digits are a field value"))
    }
}
