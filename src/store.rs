//! What every store promises. A store knows no states: it keeps versioned cells and offers one atomic step.
//!
//! The rule that decides what is written is in [`crate::rule`]; a store compares versions, nothing else. See [`Store`]
//! for which errors are permissible in which direction. [`memory`] keeps the cells in this process, [`redis`] where all
//! replicas see them.

pub mod faulty;
pub mod measured;
pub mod memory;
pub mod redis;

use std::{future::Future, time::Duration};

use crate::rule::{Cell, Expect, Record, RecordId, RouteName, Stored, UnknownReason, Version, record::ShortId};

/// Keeps the records.
///
/// # Contract
///
/// * [`swap`](Store::swap) is one atomic step: it writes if, and only if, what `expect` describes is what the store
///   holds. Of many that expect the same, exactly one is done.
/// * An expired record is absent: never returned, never compared with.
/// * Ages are the store's own clock's. A store never looks at the caller's.
/// * [`StoreError::Refused`], [`StoreError::Damaged`] and [`StoreError::Full`] promise that nothing was written. [`StoreError::Unknown`] promises
///   nothing: the write may have happened, may still happen, or never will. False alarms are permissible in that
///   direction only: an error that might have written must be `Unknown`.
/// * A store may forget only what the contract lets it forget: expired records, and with `allow_eviction` completed
///   ones. It may at any time turn a completed record into one that is not kept, under the same version.
/// * [`changed`](Store::changed) may return for no reason; it must return soon after the cell differs from `seen`.
pub trait Store: Send + Sync + 'static {
    /// Whether records may be gone although nobody wrote: a server that was flushed, or came back without its data.
    const MAY_LOSE: bool;

    /// The answers it hands out are its own, within its own bound of memory; else each is a copy.
    const LENDS: bool;

    /// What is known of a key.
    ///
    /// # Errors
    ///
    /// Any error means that nothing is known; it never means that the record is absent.
    fn load(&self, id: &RecordId) -> impl Future<Output = Result<Option<Cell<Stored>>, StoreError>> + Send;

    /// Replaces what `expect` describes by `next`, named `version`; `None` frees the key.
    ///
    /// `version` is drawn anew for each write that is meant to be one; a step sent twice with the same version is one
    /// write. (Freeing leaves nothing to recognise: a free sent twice finds the key absent, [`Swap::Stale`] of `None`.)
    ///
    /// # Errors
    ///
    /// See the contract above for which of them promise that nothing was written. Only a claim (`next` is in flight) may
    /// be refused as [`StoreError::Full`]; completions and releases are always taken (S-5, R-21).
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the write in the same doubt as [`StoreError::Unknown`].
    fn swap(
        &self,
        id: &RecordId,
        expect: Expect,
        version: Version,
        next: Option<Write>,
    ) -> impl Future<Output = Result<Swap, StoreError>> + Send;

    /// Returns when the cell may differ from `seen`, read otherwise because its lease lapsed, or be gone; with what
    /// stands there, where the store has just looked. Spurious returns are permissible.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind.
    fn changed(&self, id: &RecordId, seen: Version) -> impl Future<Output = Option<Look>> + Send;

    /// Counts one more replay of a record, for the operator's eyes. May be lost; never waits.
    fn replayed(&self, id: &RecordId);

    /// Records, for operators: a page of at most `limit`, in an order of the store's own, `after` a cursor of the last
    /// page. A page may be empty and have a next one. Records that come or go meanwhile may be missed; a record that
    /// stays is seen, in memory exactly once, in Redis seldom twice.
    fn list(
        &self,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// The ids that begin with these 8 bytes: what a problem's `instance` quotes.
    fn find(&self, short: ShortId) -> impl Future<Output = Result<Vec<RecordId>, StoreError>> + Send;

    /// What an operator sees of a record beside its cell.
    fn details(&self, id: &RecordId) -> impl Future<Output = Result<Option<Details>, StoreError>> + Send;

    /// Throws away what is held for a record if that cannot be read (S-6), and says whether it did: what can be read is
    /// left alone. An operator's, and nobody else's.
    fn discard(&self, id: &RecordId) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Called every second or so by one task: does the store's own housekeeping and reports what came to pass since the
    /// last call. Each event is reported once. Lets others on the same runtime have their turn.
    fn upkeep(&self) -> impl Future<Output = Result<Vec<Event>, StoreError>> + Send;

    /// Figures for the metrics, cheap enough for every scrape.
    fn figures(&self) -> Figures;
}

/// What a look at a record finds.
pub type Look = Result<Option<Cell<Stored>>, StoreError>;

/// What a swap writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The record.
    pub record: Record<Stored>,
    /// How long, from this write, the store keeps it.
    pub keep: Duration,
    /// The route whose request writes it.
    pub route: RouteName,
}

impl Write {
    /// Whether it gives an answer to be kept.
    #[must_use]
    pub fn keeps(&self) -> bool {
        match &self.record {
            Record::Completed { response, .. } => response.is_kept(),
            Record::InFlight { .. } | Record::Unknown { .. } => false,
        }
    }
}

/// How a swap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Swap {
    /// Written (or written before, by the same version).
    Done,
    /// Written, but there was no room for the answer itself: the record is not kept.
    DoneNotKept,
    /// Not written; the store holds something else. The cell comes along: decide anew without another trip.
    Stale(Option<Cell<Stored>>),
}

/// Why a store could not do what it was asked. The difference between the variants is the product.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room for a new record. Nothing was written.
    #[error("the store is full")]
    Full,
    /// It did not happen. Nothing was written.
    #[error("the store refused: {0}")]
    Refused(String),
    /// What is held for the record is none that could be read (S-6). Nothing was written, and nothing will be until an
    /// operator has it thrown away.
    #[error("what the store holds for this record cannot be used: {0}")]
    Damaged(String),
    /// Nobody can tell whether it happened.
    #[error("the store did not answer: {0}")]
    Unknown(String),
}

/// Which records an operator asks for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this state. A record whose lease has lapsed reads as unknown.
    pub state: Option<State>,
    /// Only this route.
    pub route: Option<RouteName>,
    /// Only records whose state is at least this old.
    pub older: Option<Duration>,
}

/// A record's state, as operators name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// An owner is at work.
    InFlight,
    /// Executed.
    Completed,
    /// Nobody can say.
    Unknown,
}

impl State {
    /// Every state, in the order of the contract.
    pub const ALL: [Self; 3] = [Self::InFlight, Self::Completed, Self::Unknown];

    /// The word used in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Completed => "completed",
            Self::Unknown => "unknown",
        }
    }

    /// For how long a cell has read so: since it was claimed, its lease was over, or it was settled.
    #[must_use]
    pub fn age<R>(cell: &Cell<R>) -> Duration {
        match &cell.record {
            Record::InFlight { lease, running, .. } if cell.age < *lease => *running + cell.age,
            Record::InFlight { lease, .. } => cell.age - *lease,
            Record::Completed { .. } | Record::Unknown { .. } => cell.age,
        }
    }

    /// The state that a cell reads as: a lapsed lease is unknown (contract: R-18).
    #[must_use]
    pub fn of<R>(cell: &Cell<R>) -> Self {
        match &cell.record {
            Record::InFlight { lease, .. } if cell.age < *lease => Self::InFlight,
            Record::InFlight { .. } | Record::Unknown { .. } => Self::Unknown,
            Record::Completed { .. } => Self::Completed,
        }
    }
}

/// A page of records.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The records.
    pub records: Vec<(RecordId, Details)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// What an operator sees of a record.
#[derive(Debug, Clone)]
pub struct Details {
    /// The cell.
    pub cell: Cell<Stored>,
    /// How often its answer was given again.
    pub replays: u64,
}

/// What came to pass in the store unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A lease lapsed: the record reads as unknown from now on.
    Lapsed {
        /// Which record.
        id: RecordId,
        /// Its route.
        route: RouteName,
    },
    /// An unknown record will be forgotten within a day (P-5).
    UnknownExpiring {
        /// Which record.
        id: RecordId,
        /// Its route.
        route: RouteName,
        /// Until then.
        left: Duration,
    },
    /// An unknown record was forgotten, unresolved (P-5).
    UnknownExpired {
        /// Which record.
        id: RecordId,
        /// Its route.
        route: RouteName,
        /// Why it was unknown.
        reason: UnknownReason,
    },
    /// The store came back empty (S-4).
    Wiped,
    /// Another id key is in use in the same store: nothing may be claimed here.
    OtherIdKey,
}

/// Figures for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether the store answers, and guarded requests are not refused for what it is (S-3, R-5).
    pub up: bool,
    /// Records in flight.
    pub in_flight: u64,
    /// Records completed.
    pub completed: u64,
    /// Records unknown, lapsed ones too.
    pub unknown: u64,
    /// Unknown records that will be forgotten within a day.
    pub unknown_expiring: u64,
    /// Age of the oldest unknown record.
    pub unknown_oldest_age: Duration,
    /// Bytes the records take.
    pub bytes: u64,
    /// Bytes they may take; 0 where there is no bound.
    pub bytes_max: u64,
    /// Bodies dropped for want of room, since the start.
    pub evicted_bodies: u64,
    /// Records dropped for want of room (`allow_eviction`), since the start.
    pub evicted_records: u64,
    /// Keys the Redis server evicted, since its start.
    pub redis_evicted_keys: u64,
}
