//! How one record lies in memory: one allocation of fixed size, and one of its answer.

use std::time::Duration;

use super::{
    cost,
    slab::{Index, Links},
};
use crate::{
    rule::{Cell, Fingerprint, Record, RecordId, RouteName, Stored, UnknownReason, Version},
    store::{Details, State, Write},
};

/// How long before its end an unknown record is announced (contract: P-5).
pub(super) const ANNOUNCED_BEFORE: u64 = 24 * 60 * 60 * 1000;

/// Whole milliseconds since the store's start. A record takes them by the million, so they are not `Instant`s.
pub(super) type Millis = u64;

/// A duration in whole milliseconds; one beyond 580 million years is as long.
pub(super) fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A record, its times, and its places in the shard's lists.
pub(super) struct Entry {
    pub(super) id: RecordId,
    pub(super) version: Version,
    pub(super) written: Millis,
    pub(super) expires: Millis,
    pub(super) replays: u32,
    /// The next entry whose id begins with the same 8 bytes.
    pub(super) same_short: Option<Index>,
    /// Its place in the bucket of its next deadline.
    pub(super) due: Links,
    /// Its place among the settled, or among the unknown.
    pub(super) order: Links,
    /// Housekeeping found its lease lapsed, and said so. The record itself stays as its owner wrote it: the owner may
    /// still renew it by its version (contract: R-18).
    pub(super) lapsed: bool,
    /// It is unknown and ends within a day, and that was said where it had to be.
    pub(super) expiring: bool,
    route: RouteName,
    fingerprint: Fingerprint,
    body: Body,
}

/// A [`Record`] less its fingerprint.
enum Body {
    InFlight { lease: Duration, running: Duration },
    Completed(Stored),
    Unknown { reason: UnknownReason, status: Option<u16> },
}

impl Entry {
    pub(super) fn new(id: RecordId, version: Version, write: Write, now: Millis) -> Self {
        let Write { record, keep, route } = write;
        let fingerprint = record.fingerprint();
        let body = match record {
            Record::InFlight { lease, running, .. } => Body::InFlight { lease, running },
            Record::Completed { response, .. } => Body::Completed(response),
            Record::Unknown { reason, status, .. } => Body::Unknown { reason, status },
        };
        let expires = now.saturating_add(millis(keep));
        Self {
            id,
            version,
            written: now,
            expires,
            replays: 0,
            same_short: None,
            due: Links::default(),
            order: Links::default(),
            lapsed: false,
            expiring: false,
            route,
            fingerprint,
            body,
        }
    }

    /// The record as callers see it.
    pub(super) fn cell(&self, now: Millis) -> Cell<Stored> {
        let fingerprint = self.fingerprint;
        let record = match &self.body {
            Body::InFlight { lease, running } => Record::InFlight { fingerprint, lease: *lease, running: *running },
            Body::Completed(response) => Record::Completed { fingerprint, response: response.clone() },
            Body::Unknown { reason, status } => Record::Unknown { fingerprint, reason: *reason, status: *status },
        };
        Cell {
            version: self.version,
            age: Duration::from_millis(now.saturating_sub(self.written)),
            left: Duration::from_millis(self.expires.saturating_sub(now)),
            route: self.route.clone(),
            record,
        }
    }

    /// The record as operators see it.
    pub(super) fn details(&self, now: Millis) -> Details {
        Details { cell: self.cell(now), replays: self.replays.into() }
    }

    pub(super) fn route(&self) -> &RouteName {
        &self.route
    }

    /// The state that housekeeping has come to: a lease that lapsed unnoticed still counts as in flight.
    pub(super) fn noticed(&self) -> State {
        match &self.body {
            Body::InFlight { .. } if self.lapsed => State::Unknown,
            Body::InFlight { .. } => State::InFlight,
            Body::Completed(_) => State::Completed,
            Body::Unknown { .. } => State::Unknown,
        }
    }

    /// The state it reads as now, and since when.
    pub(super) fn state(&self, now: Millis) -> (State, Millis) {
        match self.lease_end() {
            Some(end) if end > now => (State::InFlight, self.written),
            Some(end) => (State::Unknown, end),
            None => (self.noticed(), self.written),
        }
    }

    /// For how long it has read so: an owner that was at work when it was written, since it had claimed the record.
    pub(super) fn age(&self, now: Millis) -> Millis {
        let (state, since) = self.state(now);
        let before = match &self.body {
            Body::InFlight { running, .. } if state == State::InFlight => millis(*running),
            Body::InFlight { .. } | Body::Completed(_) | Body::Unknown { .. } => 0,
        };
        now.saturating_sub(since).saturating_add(before)
    }

    /// When its owner's silence makes it read as unknown.
    pub(super) fn lease_end(&self) -> Option<Millis> {
        match &self.body {
            Body::InFlight { lease, .. } => Some(self.written.saturating_add(millis(*lease))),
            Body::Completed(_) | Body::Unknown { .. } => None,
        }
    }

    /// Why it reads as unknown, for one that does.
    pub(super) fn reason(&self) -> Option<UnknownReason> {
        match &self.body {
            Body::InFlight { .. } => Some(UnknownReason::Lapsed),
            Body::Completed(_) => None,
            Body::Unknown { reason, .. } => Some(*reason),
        }
    }

    pub(super) fn is_expired(&self, now: Millis) -> bool {
        self.expires <= now
    }

    /// Whether it was written to live for more than a day; only then is its end announced.
    pub(super) fn is_announced(&self) -> bool {
        self.expires - self.written > ANNOUNCED_BEFORE
    }

    /// When housekeeping must look at it next.
    pub(super) fn due_at(&self) -> Millis {
        match (self.noticed(), self.lease_end()) {
            (State::InFlight, Some(end)) => end.min(self.expires),
            (State::Unknown, _) if !self.expiring => self.expires.saturating_sub(ANNOUNCED_BEFORE),
            (State::InFlight | State::Completed | State::Unknown, _) => self.expires,
        }
    }

    /// Takes the place of the record before it: what neither the writer nor the clock decides is carried over.
    pub(super) fn replace(&mut self, next: Self) {
        let same_short = self.same_short;
        *self = Self { same_short, ..next };
    }

    /// Its kept answer, if it has one.
    pub(super) fn kept(&self) -> Option<&Stored> {
        match &self.body {
            Body::Completed(response) if response.is_kept() => Some(response),
            Body::InFlight { .. } | Body::Completed(_) | Body::Unknown { .. } => None,
        }
    }

    /// Lets its answer go, but for what a not-kept record needs (contract: R-21); gives back what was let go.
    pub(super) fn drop_body(&mut self) -> Option<Stored> {
        let bare = self.kept()?.without_body();
        match std::mem::replace(&mut self.body, Body::Completed(bare)) {
            Body::Completed(response) => Some(response),
            Body::InFlight { .. } | Body::Unknown { .. } => None,
        }
    }

    /// Bytes it takes, its place in the tables aside.
    pub(super) fn bytes(&self) -> u64 {
        cost::ENTRY
            + match &self.body {
                // Room that its settlement will need: a completion is always taken, so a claim pays for it.
                Body::InFlight { .. } => cost::BARE_ANSWER,
                Body::Completed(response) => cost::answer(response),
                Body::Unknown { .. } => 0,
            }
    }
}
