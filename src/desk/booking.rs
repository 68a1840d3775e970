//! What is brought to the desk, and what becomes of it.

use std::time::Duration;

use super::claim::Claim;
use crate::{
    rule::{Fingerprint, Policy, RecordId, RouteName, Stored},
    store::StoreError,
};

/// A guarded request at the desk.
#[derive(Debug, Clone, Copy)]
pub struct Booking<'a> {
    /// Its record.
    pub id: &'a RecordId,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Its route's policy.
    pub policy: &'a Policy,
    /// Its route's name.
    pub route: &'a RouteName,
    /// How long the records of its key are kept.
    pub keep: Keep,
    /// Only observed: it waits for nobody, and does not count against `max_in_flight`.
    pub observed: bool,
}

/// How long records are kept, from each write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// An in-flight record.
    pub in_flight: Duration,
    /// A completed record.
    pub completed: Duration,
    /// An unknown record (P-5).
    pub unknown: Duration,
}

impl Keep {
    /// A route's retentions; a content key's records live for its window from settlement.
    #[must_use]
    pub fn of(policy: &Policy, content: Option<Duration>) -> Self {
        Self {
            in_flight: policy.outcome_timeout + policy.unknown_retention,
            completed: content.unwrap_or(policy.retention),
            unknown: content.unwrap_or(policy.unknown_retention),
        }
    }
}

/// What became of a request at the desk.
#[derive(Debug)]
#[must_use]
pub enum Boarding {
    /// The key is this request's: forward it.
    Claimed(Claim),
    /// The request was executed before.
    Replay(Replay),
    /// An owner is at work, and this request may not wait, or waited long enough.
    InFlight {
        /// How long the owner has been at work.
        running: Duration,
    },
    /// The key belongs to another request.
    Mismatch,
    /// Nobody can say whether the request was executed.
    Unknown,
    /// `max_in_flight` is reached.
    Overloaded,
    /// Oncegate is shutting down; this request waited for an owner.
    Draining,
}

/// A stored answer.
#[derive(Debug, Clone)]
pub struct Replay {
    /// What was kept.
    pub stored: Stored,
    /// Since settlement.
    pub age: Duration,
    /// Until it is forgotten.
    pub left: Duration,
    /// The request joined the owner.
    pub waited: bool,
}

/// Why a request could not board. Nothing was sent upstream.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The store has no room for a new record.
    #[error("the store is full")]
    Full,
    /// The store could not be asked; no claim of this request exists.
    #[error("{0}")]
    Unavailable(#[source] StoreError),
    /// The store did not answer in time; this claim may exist. It is withdrawn unless somebody settles it.
    #[error("{error}")]
    Uncertain {
        /// What the store said.
        #[source]
        error: StoreError,
        /// What may exist: hand it to [`Desk::withdraw`](super::Desk::withdraw), or settle it with
        /// [`Desk::settle_uncertain`](super::Desk::settle_uncertain).
        claim: Box<Claim>,
    },
}
