//! Room: what must fit before it is written, and what goes when something does not fit (contract: R-21).
//!
//! A claim must fit, and an answer that is kept. Room for an answer is made while its record is still in flight, so that
//! it is neither a body nor a record that could go: of all there is, what is being written goes last.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{BATCH, MemoryStore, NEVER, Slot, cost, shard::Shard, slab::Index};
use crate::{
    rule::{Record, Stored},
    store::Write,
};

/// A claim, or a settlement with its body, that does not fit.
pub(super) struct NoRoom {
    /// Bytes it would take.
    pub(super) bytes: u64,
}

impl MemoryStore {
    /// Puts a claim, or an answer that is kept, on the account, if it fits; everything else is taken anyway.
    pub(super) fn reserve(&self, shard: &mut Shard, found: Option<Index>, write: &Write) -> Result<(), NoRoom> {
        let answer = match &write.record {
            Record::InFlight { .. } if found.is_none() => cost::BARE_ANSWER,
            Record::Completed { response, .. } if response.is_kept() => cost::answer(response),
            Record::InFlight { .. } | Record::Completed { .. } | Record::Unknown { .. } => return Ok(()),
        };
        let bytes = match found {
            None => cost::ENTRY + answer + shard.growth(),
            Some(index) => (cost::ENTRY + answer + cost::BUCKET).saturating_sub(shard.slab.get(index).bytes()),
        };
        let fits = |before: u64| before.checked_add(bytes).filter(|after| *after <= self.options.max_bytes);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| NoRoom { bytes })?;
        shard.accounted.bytes += bytes;
        Ok(())
    }

    /// Makes room for what was found not to fit; `false` where it must do without, which a claim cannot.
    pub(super) async fn make_room_for(&self, next: Option<&mut Write>, bytes: u64) -> bool {
        let evict = self.options.allow_eviction;
        let Some(response) = next.and_then(kept) else { return self.make_room(bytes, evict).await };
        // An answer that would not fit even if it were the only one costs no other its body, or its record.
        let droppable = if evict { &self.settled } else { &self.bodies };
        let least = self.bytes.load(Ordering::Relaxed).saturating_sub(droppable.load(Ordering::Relaxed));
        if least + bytes > self.options.max_bytes || !self.make_room(bytes, evict).await {
            *response = response.without_body();
            self.evicted_bodies.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Drops the longest settled records' bodies until `bytes` more fit, then, with `evict`, such records; `false` if
    /// they still do not (contract: R-21).
    pub(super) async fn make_room(&self, bytes: u64, evict: bool) -> bool {
        for done in 1.. {
            if self.bytes.load(Ordering::Relaxed) + bytes <= self.options.max_bytes {
                break;
            }
            if !(self.drop_oldest_body() || evict && self.forget_oldest()) {
                return false;
            }
            if done % BATCH == 0 {
                tokio::task::yield_now().await;
            }
        }
        true
    }

    fn drop_oldest_body(&self) -> bool {
        let Some(slot) = self.oldest(|slot| &slot.oldest_body) else { return false };
        let body = self.change(slot, Shard::drop_oldest_body);
        self.evicted_bodies.fetch_add(u64::from(body.is_some()), Ordering::Relaxed);
        true
    }

    fn forget_oldest(&self) -> bool {
        let Some(slot) = self.oldest(|slot| &slot.oldest_settled) else { return false };
        let is_forgotten = self.change(slot, Shard::forget_oldest);
        self.evicted_records.fetch_add(u64::from(is_forgotten), Ordering::Relaxed);
        true
    }

    /// The shard whose time is the earliest, if any has one.
    fn oldest(&self, time: impl Fn(&Slot) -> &AtomicU64) -> Option<&Slot> {
        let times = self.slots.iter().map(|slot| (time(slot).load(Ordering::Relaxed), slot));
        times.min_by_key(|(time, _)| *time).filter(|(time, _)| *time != NEVER).map(|(_, slot)| slot)
    }
}

/// The answer that is to be kept, if there is one.
fn kept(write: &mut Write) -> Option<&mut Stored> {
    match &mut write.record {
        Record::Completed { response, .. } if response.is_kept() => Some(response),
        Record::InFlight { .. } | Record::Completed { .. } | Record::Unknown { .. } => None,
    }
}
