//! The right to forward, kept alive and given up with a settlement.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Booking, Counters, Desk, Keep, Permit, draw_version, presence::Place};
use crate::{
    clock::{self, Instant},
    rule::{Expect, Fingerprint, Record, RecordId, RouteName, Stored, Version},
    store::{Store, StoreError, Swap, Write},
};

/// A failover brings back what was written moments ago; renewals are a third of a lease apart.
const OWN_VERSIONS: usize = 64;

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
    /// What this claim ever tried to write, the latest [`OWN_VERSIONS`]: a renewal of unknown fate may stand in the
    /// store, and after a failover one that later ones had replaced.
    own: VecDeque<Version>,
    pub(super) since: Instant,
    pub(super) renewed: Instant,
    pub(super) _permit: Permit,
    /// `None` once nothing is to be sent by this claim any more.
    owner: Option<Place>,
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Settled {
    /// Written.
    Done,
    /// Written, but the store had no room for the answer itself.
    NotKept,
    /// Somebody else had written; refused.
    Fenced,
    /// The store did not take it yet; it is retried in the background.
    Unsettled,
}

impl Settled {
    /// Whether the store has it.
    pub(super) fn is_written(self) -> bool {
        match self {
            Self::Done | Self::NotKept => true,
            Self::Fenced | Self::Unsettled => false,
        }
    }
}

impl Claim {
    pub(super) fn new(booking: &Booking<'_>, version: Version, lease: Duration, held: (Permit, Place)) -> Self {
        let now = clock::now();
        let (permit, owner) = held;
        Self {
            id: *booking.id,
            fingerprint: booking.fingerprint,
            route: booking.route.clone(),
            keep: booking.keep,
            lease,
            version,
            own: VecDeque::from([version]),
            since: now,
            renewed: now,
            _permit: permit,
            owner: Some(owner),
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

    /// Nothing was sent, and nothing will be: nobody need wait for this claim.
    pub(super) fn disown(&mut self) {
        self.owner = None;
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

    /// Notes a version before the store is asked to write it.
    fn note(&mut self, version: Version) {
        if self.own.len() == OWN_VERSIONS {
            self.own.pop_front();
        }
        self.own.push_back(version);
    }

    /// Whether nobody else has written since that version.
    fn owns(&self, version: Version) -> bool {
        self.own.contains(&version)
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
        // The work may end, and this future be dropped, before the store answers.
        claim.note(version);
        let asked = clock::now();
        match self.store.swap(&claim.id, expect, version, Some(claim.in_flight())).await {
            Ok(Swap::Done | Swap::DoneNotKept) => {
                claim.version = version;
                claim.renewed = asked;
            }
            // An earlier renewal whose reply was lost had happened after all, or a later one was lost with its server.
            Ok(Swap::Stale(Some(cell))) if claim.owns(cell.version) => claim.version = cell.version,
            // Somebody else has written: the settlement will say so.
            Ok(Swap::Stale(_)) => {}
            Err(error) => tracing::debug!(record = %claim.id.short(), %error, "a lease was not renewed"),
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
                if late && settled.is_written() {
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
        let mut expect = Expect::Version(claim.version);
        loop {
            match self.store.swap(&claim.id, expect, version, next.clone()).await? {
                Swap::Done => return Ok(Settled::Done),
                Swap::DoneNotKept => return Ok(Settled::NotKept),
                Swap::Stale(Some(cell)) if cell.version == version => return Ok(Settled::Done),
                // The version is still one's own: a renewal whose reply was lost had happened, or a failover brought back
                // what a renewal had replaced.
                Swap::Stale(Some(cell)) if claim.owns(cell.version) && expect != Expect::Version(cell.version) => {
                    expect = Expect::Version(cell.version);
                }
                // Nobody has written: the store lost the claim. Its outcome is known all the same, and must not be lost too.
                Swap::Stale(None) if S::MAY_LOSE && next.is_none() => return Ok(Settled::Done),
                Swap::Stale(None) if S::MAY_LOSE && expect != Expect::Absent => {
                    tracing::warn!(
                        record = %claim.id.short(), route = %claim.route,
                        "the store lost the record of a request under way; its outcome is written anew"
                    );
                    expect = Expect::Absent;
                }
                Swap::Stale(_) => return Ok(Settled::Fenced),
            }
        }
    }
}
