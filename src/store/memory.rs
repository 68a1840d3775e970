//! The memory store: records live in this process only.
//!
//! Records are spread over shards, each behind a lock of its own that is held for microseconds and never across an
//! `.await`. A plain mutex a shard, rather than a concurrent map: the table, the deadlines, the order of settlement, the
//! counts and the waiters of a record change together, in one critical section.
//!
//! * **Bytes** (contract: R-21). Every step puts what its shard takes on one account, tables and rounding included; a
//!   claim is taken only if it fits, with room set aside for its settlement. A settlement is always taken; older bodies
//!   make room for its own, and with `allow_eviction` older records.
//! * **Time** (contract: ). An expired record is absent at once, to everybody. Its memory comes back
//!   with the next [`upkeep`](Store::upkeep), which attends to deadlines in the order in which they pass, a few at a
//!   time, and never scans.
//! * **Waiting**. A waiter is entered under the same lock that compares the version, so no change is missed; nothing
//!   polls.
//!
//! A step frees a record only where the writer, its own expiry or `allow_eviction` says so.

mod cost;
mod entry;
mod pages;
mod room;
mod shard;
mod slab;
mod waiting;

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use self::{
    entry::{Entry, Millis, millis},
    pages::NotACursor,
    room::NoRoom,
    shard::{Counts, Shard, short},
};
use super::{Details, Event, Figures, Filter, Look, Page, Store, StoreError, Swap, Write};
use crate::{
    clock::{self, Instant},
    rule::{Cell, Expect, RecordId, Stored, Version, record::ShortId},
};

/// What a [`MemoryStore`] may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Bytes that records may take, everything counted.
    pub max_bytes: u64,
    /// When only records are left, forget the longest-settled completed ones rather than refuse new claims. At-most-once
    /// ends there (contract: P-1, R-21).
    pub allow_eviction: bool,
}

/// Keeps the records in this process.
pub struct MemoryStore {
    options: MemoryOptions,
    start: Instant,
    slots: Box<[Slot]>,
    bytes: AtomicU64,
    /// Those of `bytes` that dropping bodies would free.
    bodies: AtomicU64,
    /// Those of `bytes` that forgetting all completed records would free.
    settled: AtomicU64,
    evicted_bodies: AtomicU64,
    evicted_records: AtomicU64,
    /// Found, and not yet handed to the caller of `upkeep`: a caller that is dropped half-way loses none.
    events: Mutex<Vec<Event>>,
}

/// A shard, and what others want to know of it without its lock. On a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Slot {
    shard: Mutex<Shard>,
    oldest_body: AtomicU64,
    oldest_settled: AtomicU64,
}

/// There is no such record.
const NEVER: Millis = Millis::MAX;

/// Most shards there are; a power of two. Each then holds so few records that its table doubles within microseconds.
const SHARDS_MOST: u64 = 256;

/// Bytes for which one more shard is worth its while.
const SHARD_BYTES: u64 = 256 * 1024;

/// Records attended to, or bodies dropped, before others get their turn.
const BATCH: usize = 32;

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(options: MemoryOptions) -> Self {
        let shards = (options.max_bytes / SHARD_BYTES).clamp(1, SHARDS_MOST).next_power_of_two();
        let slot = || Slot { oldest_body: NEVER.into(), oldest_settled: NEVER.into(), ..Slot::default() };
        Self {
            options,
            start: clock::now(),
            slots: (0..shards).map(|_| slot()).collect(),
            bytes: AtomicU64::new(shards * size_of::<Slot>() as u64),
            bodies: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            evicted_bodies: AtomicU64::new(0),
            evicted_records: AtomicU64::new(0),
            events: Mutex::default(),
        }
    }

    fn now(&self) -> Millis {
        millis(clock::now().duration_since(self.start))
    }

    /// The shard of the ids that begin so. The index uses the lowest and the highest bits, this those between.
    fn slot(&self, short: u64) -> &Slot {
        &self.slots[(short >> 32) as usize & (self.slots.len() - 1)]
    }

    /// Changes a shard: puts what that costs on the account, then wakes and frees without the lock.
    fn change<T>(&self, slot: &Slot, work: impl FnOnce(&mut Shard) -> T) -> T {
        let mut shard = slot.lock();
        let done = work(&mut shard);
        let (before, after) = (shard.accounted, shard.account());
        if before != after {
            // Wrapping, the difference may be negative; the sums never are.
            self.bytes.fetch_add(after.bytes.wrapping_sub(before.bytes), Ordering::Relaxed);
            self.bodies.fetch_add(after.bodies.wrapping_sub(before.bodies), Ordering::Relaxed);
            self.settled.fetch_add(after.settled.wrapping_sub(before.settled), Ordering::Relaxed);
            shard.accounted = after;
        }
        slot.oldest_body.store(shard.oldest_body().unwrap_or(NEVER), Ordering::Relaxed);
        slot.oldest_settled.store(shard.oldest_settled().unwrap_or(NEVER), Ordering::Relaxed);
        let after = std::mem::take(&mut shard.after);
        drop(shard);
        after.run();
        done
    }

    /// One attempt at a swap. `next` is taken only if it is written; `given` says whether it came with an answer to keep.
    fn try_swap(
        &self,
        id: &RecordId,
        expect: Expect,
        version: Version,
        next: &mut Option<Write>,
        given: bool,
    ) -> Result<Swap, NoRoom> {
        self.change(self.slot(short(id)), |shard| {
            let now = self.now();
            let mut found = shard.get(id);
            if let Some(index) = found.filter(|index| shard.slab.get(*index).is_expired(now)) {
                shard.expire(index);
                found = None;
            }
            let seen = found.map(|index| shard.slab.get(index).version);
            if let Some(index) = found.filter(|_| seen == Some(version)) {
                return Ok(done(given, shard.slab.get(index).kept().is_some()));
            }
            let is_expected = match expect {
                Expect::Absent => seen.is_none(),
                Expect::Version(expected) => seen == Some(expected),
            };
            if !is_expected {
                return Ok(Swap::Stale(found.map(|index| shard.slab.get(index).cell(now))));
            }
            if let Some(write) = &next {
                self.reserve(shard, found, write)?;
            }
            if let Some(index) = found {
                shard.notice_lapse(index, now);
            }
            let next = next.take();
            let kept = next.as_ref().is_some_and(Write::keeps);
            let entry = next.map(|write| Entry::new(*id, version, write, now));
            match (found, entry) {
                (Some(index), Some(entry)) => shard.replace(index, entry),
                (None, Some(entry)) => shard.insert(entry),
                (Some(index), None) => shard.remove(index),
                (None, None) => {}
            }
            Ok(done(given, kept))
        })
    }

    fn lock_events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().expect("no step panics under the lock")
    }
}

/// How a write ended that was `given` an answer to keep.
fn done(given: bool, kept: bool) -> Swap {
    if given && !kept { Swap::DoneNotKept } else { Swap::Done }
}

impl Slot {
    /// # Panics
    ///
    /// After a panic under the lock: a shard that may be half-written must not answer.
    fn lock(&self) -> MutexGuard<'_, Shard> {
        self.shard.lock().expect("no step panics under the lock")
    }
}

impl Store for MemoryStore {
    const MAY_LOSE: bool = false;
    const LENDS: bool = true;

    async fn load(&self, id: &RecordId) -> Result<Option<Cell<Stored>>, StoreError> {
        let shard = self.slot(short(id)).lock();
        let now = self.now();
        Ok(shard.live(id, now).map(|entry| entry.cell(now)))
    }

    async fn swap(
        &self,
        id: &RecordId,
        expect: Expect,
        version: Version,
        mut next: Option<Write>,
    ) -> Result<Swap, StoreError> {
        let given = next.as_ref().is_some_and(Write::keeps);
        loop {
            match self.try_swap(id, expect, version, &mut next, given) {
                Ok(swap) => {
                    self.make_room(0, false).await;
                    return Ok(swap);
                }
                Err(NoRoom { bytes }) => {
                    if !self.make_room_for(next.as_mut(), bytes).await {
                        return Err(StoreError::Full);
                    }
                }
            }
        }
    }

    async fn changed(&self, id: &RecordId, seen: Version) -> Option<Look> {
        let (waiting, woken) = self.wait(id, seen)?;
        match waiting.until {
            Some(until) => tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(until) => {}
            },
            None => woken.await,
        }
        None
    }

    fn replayed(&self, id: &RecordId) {
        let mut shard = self.slot(short(id)).lock();
        if let Some(index) = shard.get(id) {
            let replays = &mut shard.slab.get_mut(index).replays;
            *replays = replays.saturating_add(1);
        }
    }

    async fn list(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let from =
            after.map(str::parse).transpose().map_err(|error: NotACursor| StoreError::Refused(error.to_string()))?;
        Ok(self.page(filter, from.unwrap_or_default(), limit).await)
    }

    async fn find(&self, short: ShortId) -> Result<Vec<RecordId>, StoreError> {
        let short = u64::from_le_bytes(short.0);
        let shard = self.slot(short).lock();
        let now = self.now();
        let entries = shard.same_short(short).map(|index| shard.slab.get(index));
        Ok(entries.filter(|entry| !entry.is_expired(now)).map(|entry| entry.id).collect())
    }

    async fn details(&self, id: &RecordId) -> Result<Option<Details>, StoreError> {
        let shard = self.slot(short(id)).lock();
        let now = self.now();
        Ok(shard.live(id, now).map(|entry| entry.details(now)))
    }

    /// Nobody else lays hands on records here: each can be read.
    async fn discard(&self, _: &RecordId) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn upkeep(&self) -> Result<Vec<Event>, StoreError> {
        for slot in &self.slots {
            loop {
                let (attended, found) = self.change(slot, |shard| {
                    let attended = shard.sweep(self.now(), BATCH);
                    (attended, std::mem::take(&mut shard.events))
                });
                self.lock_events().extend(found);
                if attended == 0 {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // A record whose lease lapsed waits for its end instead, which may take a place of its own.
        self.make_room(0, false).await;
        Ok(std::mem::take(&mut *self.lock_events()))
    }

    fn figures(&self) -> Figures {
        let now = self.now();
        let mut figures = Figures {
            up: true,
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_max: self.options.max_bytes,
            evicted_bodies: self.evicted_bodies.load(Ordering::Relaxed),
            evicted_records: self.evicted_records.load(Ordering::Relaxed),
            ..Figures::default()
        };
        for slot in &self.slots {
            let (Counts { in_flight, completed, unknown, expiring }, since) = {
                let shard = slot.lock();
                (shard.counts(), shard.oldest_unknown(now))
            };
            figures.in_flight += in_flight;
            figures.completed += completed;
            figures.unknown += unknown;
            figures.unknown_expiring += expiring;
            let age = Duration::from_millis(since.map_or(0, |since| now.saturating_sub(since)));
            figures.unknown_oldest_age = figures.unknown_oldest_age.max(age);
        }
        figures
    }
}
