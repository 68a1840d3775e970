//! The desk: claim, wait, renew, settle. All of the concurrency around a record is here.
//!
//! A request boards ([`Desk::board`]): it claims its key, joins the owner, or learns why it may do neither. Who holds a
//! [`Claim`] works under [`Desk::tend`], which renews the lease, and ends with [`Desk::settle`].
//!
//! *Doing nothing is safe:* a dropped [`Claim`] leaves its record in flight, which lapses into unknown. There is no
//! clean-up path to get wrong; a key is freed by a settlement that proves it, and by nothing else.

mod booking;
mod claim;
mod drain;
mod limits;
mod presence;
mod trouble;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{sleep, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::presence::{Place, Presence};
pub use self::{
    booking::{BoardError, Boarding, Booking, Keep, Replay},
    claim::{Claim, Settled},
    limits::{Budget, Gauge, Held, Permit},
};
use crate::{
    clock::{self, Instant},
    rule::{self, Admission, Cell, Expect, Policy, Record, RecordId, Stored, Version, policy::OnInFlight},
    store::{Store, StoreError, Swap},
};

/// Everything that requests of this process share about records.
#[derive(Debug)]
pub struct Desk<S> {
    store: Arc<S>,
    lease: Duration,
    /// Guarded exchanges under way.
    in_flight: Arc<Gauge>,
    /// Requests that wait for an owner.
    waiters: Presence,
    waiting: Arc<Gauge>,
    /// A lease lapses, too, while the store cannot be told: it is away, or this process stood still. To others such a
    /// record reads as unknown (contract: R-18). Here it is known that its owner is at work, or holds an outcome that waits
    /// for the store: a retry waits for it, and nothing is run anew. So it is where a store lost the owner's record.
    owners: Presence,
    /// Bytes of answers waiting for the store to come back.
    backlog: Arc<Budget>,
    /// Settlements and withdrawn claims that go on without their request.
    background: TaskTracker,
    draining: CancellationToken,
    drained: CancellationToken,
    counters: Counters,
}

/// What the desk counts, for the metrics; totals since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Settlements of records whose lease had lapsed.
    pub settled_late: AtomicU64,
    /// Unknown records that were claimed anew.
    pub run_anew: AtomicU64,
    /// Claims of uncertain fate that were taken back.
    pub claims_abandoned_ok: AtomicU64,
    /// Claims of uncertain fate that turned out never to have been made, or to be somebody else's.
    pub claims_abandoned_refused: AtomicU64,
    /// Claims of uncertain fate that could not be taken back before the end.
    pub claims_abandoned_failed: AtomicU64,
}

/// How a desk is set up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long an owner may stay silent.
    pub lease: Duration,
    /// Guarded exchanges under way, at most.
    pub max_in_flight: usize,
    /// Bytes of answers waiting for the store, at most.
    pub settle_backlog: u64,
}

impl<S: Store> Desk<S> {
    /// A desk before this store.
    #[must_use]
    pub fn new(store: Arc<S>, limits: Limits) -> Self {
        Self {
            store,
            lease: limits.lease,
            in_flight: Arc::new(Gauge::new(limits.max_in_flight)),
            waiters: Presence::default(),
            waiting: Arc::new(Gauge::new(usize::MAX)),
            owners: Presence::default(),
            backlog: Arc::new(Budget::new(limits.settle_backlog)),
            background: TaskTracker::new(),
            draining: CancellationToken::new(),
            drained: CancellationToken::new(),
            counters: Counters::default(),
        }
    }

    /// The store behind the desk.
    #[must_use]
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// Guarded exchanges under way, and their bound.
    #[must_use]
    pub fn in_flight(&self) -> &Arc<Gauge> {
        &self.in_flight
    }

    /// Requests that wait for an owner.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.held()
    }

    /// Whether an owner of this record is at work in this process, or holds an outcome that waits for the store.
    #[must_use]
    pub fn has_owner(&self, id: &RecordId) -> bool {
        self.owners.has(id)
    }

    /// What the desk counts.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Brings a guarded request to its key.
    ///
    /// The common path is one trip to the store: the claim is tried at once, and what stood in its way comes back.
    ///
    /// # Errors
    ///
    /// See [`BoardError`]; nothing was sent, and nothing may be.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves no claim behind: one that may have been made is taken back in the background, which needs
    /// the runtime that the future was polled on.
    pub async fn board(self: &Arc<Self>, booking: Booking<'_>) -> Result<Boarding, BoardError> {
        let Booking { id, policy, .. } = booking;
        let mut known: Option<Cell<Stored>> = None;
        let mut looked = false;
        let mut waiter: Option<Waiter> = None;
        // The store cannot say when to look again.
        let mut blind = false;
        loop {
            match self.admit(&booking, known.as_ref(), looked) {
                // A store that lost the owner's record would let anybody claim: it is asked first.
                Admission::Claim { expect: Expect::Absent } if S::MAY_LOSE && !looked && self.owners.has(id) => {
                    known = self.load(id).await?;
                    looked = true;
                }
                Admission::Claim { expect } => {
                    let permit = if booking.observed { Some(Permit::none()) } else { self.in_flight.try_hold() };
                    let Some(permit) = permit else {
                        // Only what would be forwarded is refused: a replay costs no exchange.
                        if looked {
                            return Ok(Boarding::Overloaded);
                        }
                        known = self.load(id).await?;
                        looked = true;
                        continue;
                    };
                    match self.claim(&booking, expect, permit).await? {
                        Ok(claim) => {
                            if let Expect::Version(_) = expect {
                                Counters::count(&self.counters.run_anew);
                                tracing::warn!(
                                    record = %id.short(), route = %booking.route,
                                    "a request whose outcome is unknown is run anew: its route says so"
                                );
                            }
                            return Ok(Boarding::Claimed(claim));
                        }
                        Err(cell) => known = cell,
                    }
                    looked = true;
                }
                Admission::Replay(stored) => {
                    let cell = known.as_ref().expect("an answer is replayed from a cell");
                    let replay =
                        Replay { stored: stored.clone(), age: cell.age, left: cell.left, waited: waiter.is_some() };
                    self.store.replayed(id);
                    return Ok(Boarding::Replay(replay));
                }
                Admission::Mismatch => return Ok(Boarding::Mismatch),
                Admission::Unknown => return Ok(Boarding::Unknown),
                Admission::Busy { running, lease_left } => {
                    let seen = known.as_ref().map(|cell| cell.version).filter(|_| !blind && !lease_left.is_zero());
                    if policy.on_in_flight == OnInFlight::Reject || booking.observed {
                        return Ok(Boarding::InFlight { running });
                    }
                    if self.draining.is_cancelled() {
                        return Ok(Boarding::Draining);
                    }
                    let waiter = match &waiter {
                        Some(waiter) => waiter,
                        None => match self.wait(id, policy) {
                            Some(joined) => waiter.insert(joined),
                            None => return Ok(Boarding::InFlight { running }),
                        },
                    };
                    let joined = clock::now();
                    let changed = async {
                        match seen {
                            Some(version) => self.store.changed(id, version).await,
                            None => {
                                sleep(LOOK_AGAIN).await;
                                None
                            }
                        }
                    };
                    let look = tokio::select! {
                        biased;
                        look = changed => look,
                        () = self.draining.cancelled() => return Ok(Boarding::Draining),
                        () = sleep_until(waiter.until) => {
                            return Ok(Boarding::InFlight { running: running + (clock::now() - joined) });
                        }
                    };
                    let look = match look {
                        Some(look) => look,
                        None => self.store.load(id).await,
                    };
                    match look {
                        Ok(cell) => (known, blind) = (cell, false),
                        // S-6: nobody can read it, and waiting makes it no better.
                        Err(error @ StoreError::Damaged(_)) => return Err(BoardError::Unavailable(error)),
                        // The owner's answer may still come, and the store with it.
                        Err(error) => {
                            tracing::debug!(record = %id.short(), %error, "a waiter could not look");
                            blind = true;
                        }
                    }
                    looked = true;
                }
            }
        }
    }

    /// What the rule says, with what only this process can know: that a record's owner is here, though its lease has
    /// lapsed or the store has lost it. `looked`: the store was asked.
    fn admit<'a>(&self, booking: &Booking<'_>, known: Option<&'a Cell<Stored>>, looked: bool) -> Admission<'a, Stored> {
        let admission = rule::admit(booking.policy, known, booking.fingerprint);
        let running = match (&admission, known.map(|cell| (&cell.record, cell.age))) {
            (
                Admission::Unknown | Admission::Claim { expect: Expect::Version(_) },
                Some((Record::InFlight { running, .. }, age)),
            ) => *running + age,
            (Admission::Claim { expect: Expect::Absent }, None) if S::MAY_LOSE && looked => Duration::ZERO,
            _ => return admission,
        };
        if self.owners.has(booking.id) { Admission::Busy { lease_left: Duration::ZERO, running } } else { admission }
    }

    async fn load(&self, id: &RecordId) -> Result<Option<Cell<Stored>>, BoardError> {
        self.store.load(id).await.map_err(BoardError::Unavailable)
    }

    /// One atomic step; the cell comes back when somebody else was quicker.
    async fn claim(
        self: &Arc<Self>,
        booking: &Booking<'_>,
        expect: Expect,
        permit: Permit,
    ) -> Result<Result<Claim, Option<Cell<Stored>>>, BoardError> {
        let version = draw_version();
        let held = (permit, self.owners.enter(booking.id));
        let asked = Asked { desk: self, claim: Some(Claim::new(booking, version, self.lease, held)) };
        let write = asked.claim().in_flight();
        let step = || self.store.swap(booking.id, expect, version, Some(write.clone()));
        match step().await {
            Ok(Swap::Done | Swap::DoneNotKept) => Ok(Ok(asked.decided())),
            Ok(Swap::Stale(cell)) => Ok(Err(asked.never_made(cell))),
            Err(StoreError::Full) => Err(asked.never_made(BoardError::Full)),
            Err(error @ (StoreError::Refused(_) | StoreError::Damaged(_))) => {
                Err(asked.never_made(BoardError::Unavailable(error)))
            }
            // look again, and recognise one's own write by its version.
            Err(error @ StoreError::Unknown(_)) => {
                match self.store.load(booking.id).await {
                    // What a look finds may be on one server alone: the step once more says whether enough replicas have
                    // it. Never without the look: a first step that is only late would come back as a claim without an
                    // owner.
                    Ok(Some(cell)) if cell.version == version => {
                        if matches!(step().await, Ok(Swap::Done)) {
                            return Ok(Ok(asked.decided()));
                        }
                    }
                    // Somebody else's, over which the step does not write, however late it comes; the store is there, and
                    // says what became of the request. Should that record be gone by then, the claim is taken back.
                    Ok(Some(cell)) if expect != Expect::Version(cell.version) => {
                        self.withdraw(asked.decided());
                        return Ok(Err(Some(cell)));
                    }
                    Ok(_) | Err(_) => {}
                }
                Err(BoardError::Uncertain { error, claim: Box::new(asked.decided()) })
            }
        }
    }

    fn wait(&self, id: &RecordId, policy: &Policy) -> Option<Waiter> {
        Some(Waiter {
            _place: self.waiters.enter_below(policy.max_waiters, id)?,
            until: clock::now() + policy.wait_timeout,
            _permit: self.waiting.try_hold().expect("the gauge has no bound"),
        })
    }
}

/// Between two looks of a waiter whom the store cannot tell when to look.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A version of one's own, drawn at random.
#[must_use]
pub fn draw_version() -> Version {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system's random source answers");
    Version(bytes)
}

/// A claim that the store is being asked for. Whoever asked may go away meanwhile: it is taken back then, since
/// nobody else would ever do so, and its key would read as unknown though nothing was sent.
struct Asked<'a, S: Store> {
    desk: &'a Arc<Desk<S>>,
    claim: Option<Claim>,
}

impl<S: Store> Asked<'_, S> {
    fn claim(&self) -> &Claim {
        self.claim.as_ref().expect("it is taken only once the store has answered")
    }

    /// What becomes of it is the caller's to see to.
    fn decided(mut self) -> Claim {
        self.claim.take().expect("it is taken only once the store has answered")
    }

    /// The store says that it does not exist.
    fn never_made<T>(mut self, instead: T) -> T {
        self.claim = None;
        instead
    }
}

impl<S: Store> Drop for Asked<'_, S> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.desk.withdraw(claim);
        }
    }
}

/// A request that waits for an owner.
struct Waiter {
    _place: Place,
    until: Instant,
    _permit: Permit,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
