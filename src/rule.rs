//! The rule: what may happen to a request, as value-in, value-out functions.
//!
//! [`admit`] decides what a request may do, given what the store knows of its key; [`settle`] decides what the store is
//! told once the attempt has ended. Neither knows a clock, randomness, `async` or a store, so the memory store, the
//! Redis store, the model checker and the property tests all run these two and nothing else.
//!
//! *Architecture invariant:* this module imports nothing else of the crate.

mod digest;
pub mod fingerprint;
pub mod head;
pub mod identity;
mod json;
pub mod keep;
pub mod key;
mod media;
pub mod method;
pub mod outcome;
pub mod policy;
pub mod problem;
pub mod record;

use std::time::Duration;

pub use self::{
    head::Head,
    keep::Stored,
    outcome::Outcome,
    policy::{OnUnknown, Policy},
    record::{Cell, Expect, Fingerprint, Record, RecordId, RouteName, UnknownReason, Version},
};

/// What a request may do, given what is known of its key.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission<'a, R> {
    /// Nobody holds the key, or policy lets an unknown one be run anew: swap `expect` for a claim of one's own.
    Claim {
        /// What the claim's swap must find.
        expect: Expect,
    },
    /// The request was executed; this is its answer.
    Replay(&'a R),
    /// An owner is at work.
    Busy {
        /// Time until the owner must have renewed, else the record reads as unknown.
        lease_left: Duration,
        /// How long the owner has been at work.
        running: Duration,
    },
    /// The key was used for another request. Says nothing of what is stored.
    Mismatch,
    /// The owner was lost, or its answer told nothing; the upstream may have acted.
    Unknown,
}

/// Decides what a request may do. The fingerprint is compared before anything else is looked at.
///
/// Contract: R-6 (mismatch in every state), R-15 (in flight), R-16 (completed), R-17 (unknown), R-18 (a lapsed lease
/// reads as unknown and never frees the key).
pub fn admit<'a, R>(policy: &Policy, cell: Option<&'a Cell<R>>, fingerprint: Fingerprint) -> Admission<'a, R> {
    let Some(cell) = cell else { return Admission::Claim { expect: Expect::Absent } };
    if cell.record.fingerprint() != fingerprint {
        return Admission::Mismatch;
    }
    match &cell.record {
        Record::Completed { response, .. } => Admission::Replay(response),
        Record::InFlight { lease, running, .. } => match lease.checked_sub(cell.age) {
            Some(lease_left) if !lease_left.is_zero() => Admission::Busy { lease_left, running: *running + cell.age },
            _ => unknown(policy, cell.version),
        },
        Record::Unknown { .. } => unknown(policy, cell.version),
    }
}

fn unknown<'a, R>(policy: &Policy, version: Version) -> Admission<'a, R> {
    match policy.on_unknown {
        OnUnknown::Hold => Admission::Unknown,
        OnUnknown::Retry => Admission::Claim { expect: Expect::Version(version) },
    }
}

/// How one forwarding ended. In doubt it is [`Attempt::Lost`] (contract: R-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt<R> {
    /// A final answer came: whole, or a head that is let go at once.
    Answered(Answer<R>),
    /// Proven: no byte of the request was handed to a connection, or HTTP/2 said that the stream was not processed.
    NeverSent,
    /// Sent, or perhaps sent, and no whole answer came.
    Lost(Loss),
}

/// A final answer of the upstream, as far as the rule needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<R> {
    /// The status code.
    pub status: u16,
    /// Whether the answer has a `Retry-After` field.
    pub retry_after: bool,
    /// What is kept of it.
    pub response: R,
}

/// Why no whole answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The connection broke, or the answer was not valid HTTP.
    Broken,
    /// `outcome_timeout` passed.
    TimedOut,
    /// The drain ended first.
    Drained,
}

/// What an answer says about the request (contract: R-12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The application acted, or refused for good: the answer is the outcome.
    Executed,
    /// The answer says that nothing was done: the key is freed.
    NotExecuted,
    /// A hop spoke, not the application: nobody can tell.
    Unknown,
}

/// Reads an answer's status. `release_on` wins over `unknown_on` (contract: R-12).
#[must_use]
pub fn verdict(policy: &Policy, status: u16, retry_after: bool) -> Verdict {
    if policy.release_on.holds(status, retry_after) {
        Verdict::NotExecuted
    } else if policy.unknown_on.holds(status, retry_after) {
        Verdict::Unknown
    } else {
        Verdict::Executed
    }
}

/// Decides what the store is told when an attempt has ended; `None` frees the key (contract: R-12).
#[must_use]
pub fn settle<R>(policy: &Policy, fingerprint: Fingerprint, attempt: Attempt<R>) -> Option<Record<R>> {
    let unknown = |reason, status| Some(Record::Unknown { fingerprint, reason, status });
    match attempt {
        Attempt::NeverSent => None,
        Attempt::Lost(Loss::Broken) => unknown(UnknownReason::Lost, None),
        Attempt::Lost(Loss::TimedOut) => unknown(UnknownReason::TimedOut, None),
        Attempt::Lost(Loss::Drained) => unknown(UnknownReason::Drained, None),
        Attempt::Answered(Answer { status, retry_after, response }) => match verdict(policy, status, retry_after) {
            Verdict::Executed => Some(Record::Completed { fingerprint, response }),
            Verdict::NotExecuted => None,
            Verdict::Unknown => unknown(UnknownReason::Answered, Some(status)),
        },
    }
}
