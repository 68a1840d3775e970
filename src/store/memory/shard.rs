//! One shard: some of the records, with everything that must change in step with them.
//!
//! The index, the deadlines, the order of settlement, the counts and the waiters change together or not at all, so one
//! lock covers them. Everything here takes constant time, or nearly so; there is no scan.

use std::{
    collections::{BTreeMap, HashMap, btree_map},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    cost,
    entry::{Entry, Millis},
    slab::{Chain, Index, List, Slab},
};
use crate::{
    rule::{RecordId, Stored},
    store::{Event, State},
};

/// Some of the records.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) slab: Slab,
    /// The first entry whose id begins with these 8 bytes; the others, should there ever be one, are chained to it.
    index: HashMap<u64, Index, BuildHasherDefault<IdHasher>>,
    /// Buckets of the index's table: its capacity reads lower while removed entries leave their marks in it.
    index_buckets: u64,
    /// Entries by the second in which housekeeping must look at them.
    due: BTreeMap<u32, List>,
    /// Completed ones, the longest settled first.
    settled: List,
    /// The longest settled one that still has its body; before it in `settled` there is none.
    oldest_body: Option<Index>,
    /// Unknown ones and noticed lapsed ones, in the order in which they became so.
    unknown: List,
    counts: Counts,
    entry_bytes: u64,
    body_bytes: u64,
    settled_bytes: u64,
    waiters: HashMap<Index, Waiters>,
    /// What is left to do once the lock is released.
    pub(super) after: After,
    /// What came to pass and was not yet reported.
    pub(super) events: Vec<Event>,
    /// What this shard has put on the store's account.
    pub(super) accounted: Account,
}

/// Bytes that a shard takes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    /// All of them.
    pub(super) bytes: u64,
    /// Those of answers whose bodies may be dropped.
    pub(super) bodies: u64,
    /// Those of completed records.
    pub(super) settled: u64,
}

/// Records by state, as housekeeping has noticed them.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) in_flight: u64,
    pub(super) completed: u64,
    pub(super) unknown: u64,
    pub(super) expiring: u64,
}

impl Counts {
    fn of(&mut self, state: State) -> &mut u64 {
        match state {
            State::InFlight => &mut self.in_flight,
            State::Completed => &mut self.completed,
            State::Unknown => &mut self.unknown,
        }
    }
}

/// Those who wait for one record to change.
struct Waiters {
    notify: Arc<Notify>,
    count: usize,
}

/// Work that needs no lock: waking and freeing.
#[derive(Default)]
pub(super) struct After {
    woken: Vec<Arc<Notify>>,
    #[expect(clippy::vec_box, reason = "they come boxed; to move them out would copy each under the lock")]
    dead: Vec<Box<Entry>>,
}

impl After {
    pub(super) fn run(self) {
        let Self { woken, dead } = self;
        woken.iter().for_each(|notify| notify.notify_waiters());
        drop(dead);
    }
}

/// Record ids are keyed hashes: their own bytes are as good as any hash of them.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, short: u64) {
        self.0 = short;
    }
}

/// The first 8 bytes of an id, as the index and the choice of the shard take them.
pub(super) fn short(id: &RecordId) -> u64 {
    u64::from_le_bytes(id.short().0)
}

impl Shard {
    pub(super) fn get(&self, id: &RecordId) -> Option<Index> {
        self.same_short(short(id)).find(|index| self.slab.get(*index).id == *id)
    }

    /// The record, unless it is there only because nobody has cleared it away yet (contract: R-20).
    pub(super) fn live(&self, id: &RecordId, now: Millis) -> Option<&Entry> {
        self.get(id).map(|index| self.slab.get(index)).filter(|entry| !entry.is_expired(now))
    }

    /// Every entry whose id begins so.
    pub(super) fn same_short(&self, short: u64) -> impl Iterator<Item = Index> {
        let first = self.index.get(&short).copied();
        std::iter::successors(first, |index| self.slab.get(*index).same_short)
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let short = short(&entry.id);
        let index = self.slab.insert(Box::new(entry));
        self.slab.get_mut(index).same_short = self.index.insert(short, index);
        self.index_buckets = self.index_buckets.max(cost::buckets(self.index.capacity()));
        self.file(index);
    }

    pub(super) fn replace(&mut self, index: Index, entry: Entry) {
        self.unfile(index);
        self.slab.get_mut(index).replace(entry);
        self.file(index);
        self.wake(index);
    }

    pub(super) fn remove(&mut self, index: Index) {
        self.unfile(index);
        self.wake(index);
        self.unindex(index);
        self.after.dead.push(self.slab.remove(index));
    }

    fn unindex(&mut self, index: Index) {
        let entry = self.slab.get(index);
        let (short, next) = (short(&entry.id), entry.same_short);
        let before = self.same_short(short).find(|other| self.slab.get(*other).same_short == Some(index));
        match (before, next) {
            (Some(before), next) => self.slab.get_mut(before).same_short = next,
            (None, Some(next)) => drop(self.index.insert(short, next)),
            (None, None) => drop(self.index.remove(&short)),
        }
        // Only what is left is moved, an eighth of the table at most.
        if self.index.capacity() > INDEX_LEAST && self.index.len() < self.index.capacity() / 8 {
            self.index.shrink_to(self.index.len() * 2);
            self.index_buckets = cost::buckets(self.index.capacity());
        }
    }

    /// Removes a record whose time is over, and says so where that must be said (contract: P-5).
    pub(super) fn expire(&mut self, index: Index) {
        let entry = self.slab.get(index);
        if let Some(reason) = entry.reason() {
            let (id, route) = (entry.id, entry.route().clone());
            if entry.noticed() == State::InFlight && entry.lease_end().is_some_and(|end| end <= entry.expires) {
                self.events.push(Event::Lapsed { id, route: route.clone() });
            }
            self.events.push(Event::UnknownExpired { id, route, reason });
        }
        self.remove(index);
    }

    /// Reports a lease that lapsed before housekeeping came by, of a record that is about to be replaced.
    pub(super) fn notice_lapse(&mut self, index: Index, now: Millis) {
        let entry = self.slab.get(index);
        if entry.noticed() == State::InFlight && entry.lease_end().is_some_and(|end| end <= now) {
            self.events.push(Event::Lapsed { id: entry.id, route: entry.route().clone() });
        }
    }

    /// Attends to at most `limit` records whose deadlines have passed; says to how many.
    pub(super) fn sweep(&mut self, now: Millis, limit: usize) -> usize {
        let until = second(now, u64::div_euclid);
        for attended in 0..limit {
            let Some(bucket) = self.due.first_entry().filter(|bucket| *bucket.key() <= until) else { return attended };
            let index = bucket.get().head().expect("an empty bucket is removed");
            self.attend(index, now);
        }
        limit
    }

    fn attend(&mut self, index: Index, now: Millis) {
        let entry = self.slab.get(index);
        if entry.is_expired(now) {
            return self.expire(index);
        }
        let (id, route, left) = (entry.id, entry.route().clone(), Duration::from_millis(entry.expires - now));
        let state = entry.noticed();
        self.unfile(index);
        let entry = self.slab.get_mut(index);
        match state {
            State::InFlight => {
                entry.lapsed = true;
                self.events.push(Event::Lapsed { id, route });
            }
            State::Unknown => {
                entry.expiring = true;
                self.events.push(Event::UnknownExpiring { id, route, left });
            }
            State::Completed => debug_assert!(false, "a completed record's only deadline is its end"),
        }
        self.file(index);
    }

    /// Enters a record into every list and count that it belongs to.
    fn file(&mut self, index: Index) {
        let entry = self.slab.get_mut(index);
        let state = entry.noticed();
        // One that never had more than a day is within its last from the start; there is nothing to announce.
        entry.expiring |= state == State::Unknown && !entry.is_announced();
        *self.counts.of(state) += 1;
        self.counts.expiring += u64::from(entry.expiring);
        self.entry_bytes += entry.bytes();
        let bucket = second(entry.due_at(), u64::div_ceil);
        let (bytes, body_bytes) = (entry.bytes(), entry.kept().map(cost::answer));
        self.slab.append(Chain::Due, self.due.entry(bucket).or_default(), index);
        match state {
            State::InFlight => {}
            State::Completed => {
                self.settled_bytes += bytes;
                self.slab.append(Chain::Order, &mut self.settled, index);
            }
            State::Unknown => self.slab.append(Chain::Order, &mut self.unknown, index),
        }
        if let Some(bytes) = body_bytes {
            self.body_bytes += bytes;
            self.oldest_body.get_or_insert(index);
        }
    }

    /// The reverse of [`Shard::file`]: nothing of the record may have changed since.
    fn unfile(&mut self, index: Index) {
        let entry = self.slab.get(index);
        let state = entry.noticed();
        *self.counts.of(state) -= 1;
        self.counts.expiring -= u64::from(entry.expiring);
        self.entry_bytes -= entry.bytes();
        self.body_bytes -= entry.kept().map_or(0, cost::answer);
        let bytes = entry.bytes();
        let bucket = second(entry.due_at(), u64::div_ceil);
        if self.oldest_body == Some(index) {
            self.oldest_body = self.next_body(index);
        }
        if let btree_map::Entry::Occupied(mut list) = self.due.entry(bucket) {
            self.slab.unlink(Chain::Due, list.get_mut(), index);
            if list.get().head().is_none() {
                list.remove();
            }
        }
        match state {
            State::InFlight => {}
            State::Completed => {
                self.settled_bytes -= bytes;
                self.slab.unlink(Chain::Order, &mut self.settled, index);
            }
            State::Unknown => self.slab.unlink(Chain::Order, &mut self.unknown, index),
        }
    }

    fn next_body(&self, index: Index) -> Option<Index> {
        let later = |index: &Index| self.slab.next(Chain::Order, *index);
        std::iter::successors(later(&index), later).find(|index| self.slab.get(*index).kept().is_some())
    }

    /// When the longest settled record that still has its body was settled.
    pub(super) fn oldest_body(&self) -> Option<Millis> {
        self.oldest_body.map(|index| self.slab.get(index).written)
    }

    /// When the longest settled record was settled.
    pub(super) fn oldest_settled(&self) -> Option<Millis> {
        self.settled.head().map(|index| self.slab.get(index).written)
    }

    /// Since when the oldest unknown record is unknown, to within a round of housekeeping.
    pub(super) fn oldest_unknown(&self, now: Millis) -> Option<Millis> {
        self.unknown.head().map(|index| self.slab.get(index).state(now).1)
    }

    /// Drops the body of the longest settled record that has one; gives it back, to be freed without the lock.
    pub(super) fn drop_oldest_body(&mut self) -> Option<Stored> {
        let index = self.oldest_body?;
        self.oldest_body = self.next_body(index);
        let entry = self.slab.get_mut(index);
        let before = entry.bytes();
        let body = entry.drop_body()?;
        self.entry_bytes = self.entry_bytes - before + entry.bytes();
        self.settled_bytes = self.settled_bytes - before + entry.bytes();
        self.body_bytes -= cost::answer(&body);
        Some(body)
    }

    /// Forgets the longest settled record; says whether there was one.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let oldest = self.settled.head();
        oldest.into_iter().for_each(|index| self.remove(index));
        oldest.is_some()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes that this shard takes now.
    pub(super) fn account(&self) -> Account {
        let buckets = self.due.len() as u64 * cost::BUCKET;
        let bytes = self.entry_bytes + cost::table(self.index_buckets) + self.slab.bytes() + buckets;
        Account { bytes, bodies: self.body_bytes, settled: self.settled_bytes }
    }

    /// Bytes that one more record adds beside its own: tables double when they are full.
    pub(super) fn growth(&self) -> u64 {
        let is_full = self.index.len() == self.index.capacity();
        let table = if is_full { cost::table(self.index_buckets.max(4)) } else { 0 };
        table + self.slab.growth() + cost::BUCKET
    }

    /// Joins those who wait for this record.
    pub(super) fn wait(&mut self, index: Index) -> Arc<Notify> {
        let waiters = self.waiters.entry(index).or_insert_with(|| Waiters { notify: Arc::default(), count: 0 });
        waiters.count += 1;
        Arc::clone(&waiters.notify)
    }

    /// Leaves them again; whoever was woken has left already.
    pub(super) fn leave(&mut self, index: Index, notify: &Arc<Notify>) {
        let Some(waiters) = self.waiters.get_mut(&index).filter(|waiters| Arc::ptr_eq(&waiters.notify, notify)) else {
            return;
        };
        waiters.count -= 1;
        if waiters.count == 0 {
            self.waiters.remove(&index);
            self.shrink_waiters();
        }
    }

    fn wake(&mut self, index: Index) {
        if let Some(waiters) = self.waiters.remove(&index) {
            self.after.woken.push(waiters.notify);
            self.shrink_waiters();
        }
    }

    /// The map of waiters exists only while somebody waits.
    fn shrink_waiters(&mut self) {
        if self.waiters.is_empty() && self.waiters.capacity() > WAITERS_LEAST {
            self.waiters.shrink_to_fit();
        }
    }
}

/// Below this many, a table is not worth shrinking.
const INDEX_LEAST: usize = 56;
const WAITERS_LEAST: usize = 28;

/// The second that a deadline is filed under (rounded up), or that has passed (rounded down): what is filed under a
/// second that has passed is truly due.
fn second(at: Millis, round: fn(Millis, Millis) -> u64) -> u32 {
    u32::try_from(round(at, 1000)).unwrap_or(u32::MAX)
}
