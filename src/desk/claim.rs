//! The right to forward, kept alive and given up with a settlement.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Booking, Counters, Desk, Keep, Permit, draw_version};
use crate::{
    clock::{self, Instant},
    rule::{Expect, Fingerprint, Record, RecordId, RouteName, Stored, Version},
    store::{Store, StoreError, Swap, Write},
};

/// The right to forward a request. Dropped without a settlement, its record lapses into unknown.
#[derive(Debug)]
#[must_use]
pub struct Claim {
    pub(super) id: RecordId,
    pub(super) fingerprint: Fingerprint,
    pub(super) route: RouteName,
    pub(super) keep: Keep,
    pub(super) lease: Duration,
    /// The last write known to have happened.
    pub(super) version: Version,
    /// A renewal of unknown fate.
    pub(super) pending: Option<Version>,
    pub(super) since: Instant,
    pub(super) renewed: Instant,
    pub(super) _permit: Permit,
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Settled {
    /// Written.
    Done,
    /// Somebody else had written; refused.
    Fenced,
    /// The store did not take it yet; it is retried in the background.
    Unsettled,
}

impl Claim {
    pub(super) fn new(booking: &Booking<'_>, version: Version, lease: Duration, permit: Permit) -> Self {
        let now = clock::now();
        Self {
            id: *booking.id,
            fingerprint: booking.fingerprint,
            route: booking.route.clone(),
            keep: booking.keep,
            lease,
            version,
            pending: None,
            since: now,
            renewed: now,
            _permit: permit,
        }
    }

    /// The record this claim is on.
    #[must_use]
    pub fn id(&self) -> &RecordId {
        &self.id
    }

    /// Of the request that holds the claim.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// How long records of this key are kept.
    #[must_use]
    pub fn keep(&self) -> Keep {
        self.keep
    }

    pub(super) fn in_flight(&self) -> Write {
        let running = clock::now() - self.since;
        let record = Record::InFlight { fingerprint: self.fingerprint, lease: self.lease, running };
        Write { record, keep: self.keep.in_flight, route: self.route.clone() }
    }

    pub(super) fn settlement(&self, record: Option<Record<Stored>>) -> Option<Write> {
        let record = record?;
        let keep = match &record {
            Record::InFlight { .. } => self.keep.in_flight,
            Record::Completed { .. } => self.keep.completed,
            Record::Unknown { .. } => self.keep.unknown,
        };
        Some(Write { record, keep, route: self.route.clone() })
    }

    /// Whether the lease had lapsed by now, as far as this process can tell.
    pub(super) fn has_lapsed(&self) -> bool {
        clock::now().saturating_duration_since(self.renewed) > self.lease
    }
}

impl<S: Store> Desk<S> {
    /// Runs `work` and renews the lease every third of it meanwhile. A renewal never holds the work up, and one
    /// that fails is tried again: fencing a store cannot fence the upstream.
    pub async fn tend<T>(&self, claim: &mut Claim, work: impl Future<Output = T>) -> T {
        let third = claim.lease / 3;
        let renewals = async {
            loop {
                sleep(third).await;
                self.renew(claim).await;
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            () = renewals => unreachable!("renewals go on until the work is done"),
        }
    }

    async fn renew(&self, claim: &mut Claim) {
        let version = draw_version();
        let expect = Expect::Version(claim.version);
        // Noted before the store is asked: the work may end, and this future be dropped, before it answers.
        let doubtful = claim.pending.replace(version);
        let asked = clock::now();
        match self.store.swap(&claim.id, expect, version, Some(claim.in_flight())).await {
            Ok(Swap::Done) => {
                claim.version = version;
                claim.pending = None;
                claim.renewed = asked;
            }
            // An earlier renewal whose reply was lost had happened after all.
            Ok(Swap::Stale(Some(cell))) if Some(cell.version) == doubtful => {
                claim.version = cell.version;
                claim.pending = None;
            }
            // Somebody else has written: the settlement will say so.
            Ok(Swap::Stale(_)) => claim.pending = None,
            Err(error) => {
                if doubtful.is_some() && !matches!(error, StoreError::Unknown(_)) {
                    claim.pending = doubtful;
                }
                tracing::debug!(record = %claim.id.short(), %error, "a lease was not renewed");
            }
        }
    }

    /// Ends a claim: writes what [`crate::rule::settle`] decided.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: a dropped future leaves the record to lapse into unknown. It is run by the detached task.
    pub async fn settle(self: &Arc<Self>, claim: Claim, record: Option<Record<Stored>>) -> Settled {
        let next = claim.settlement(record);
        let version = draw_version();
        let late = claim.has_lapsed();
        match self.write(&claim, version, &next).await {
            Ok(settled) => {
                if late && settled == Settled::Done {
                    Counters::count(&self.counters().settled_late);
                }
                settled
            }
            Err(error) => {
                tracing::warn!(
                    record = %claim.id.short(), route = %claim.route, %error,
                    "the store did not take an outcome; it is retried in the background"
                );
                self.settle_later(claim, version, next);
                Settled::Unsettled
            }
        }
    }

    /// One round of writing a settlement, always by the same version, so that it is recognised as one's own.
    pub(super) async fn write(
        &self,
        claim: &Claim,
        version: Version,
        next: &Option<Write>,
    ) -> Result<Settled, StoreError> {
        let mut expect = claim.version;
        loop {
            match self.store.swap(&claim.id, Expect::Version(expect), version, next.clone()).await? {
                Swap::Done => return Ok(Settled::Done),
                Swap::Stale(Some(cell)) if cell.version == version => return Ok(Settled::Done),
                // A renewal whose reply was lost had happened: the version is still one's own.
                Swap::Stale(Some(cell)) if claim.pending == Some(cell.version) && expect != cell.version => {
                    expect = cell.version;
                }
                Swap::Stale(_) => return Ok(Settled::Fenced),
            }
        }
    }
}
