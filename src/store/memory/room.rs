//! Room: what a claim must fit into, and what goes when something does not fit (contract: R-21).

use std::sync::atomic::{AtomicU64, Ordering};

use super::{BATCH, MemoryStore, NEVER, Slot, cost, shard::Shard};
use crate::{rule::Record, store::Write};

/// A claim that does not fit.
pub(super) struct NoRoom {
    /// Bytes it would take.
    pub(super) bytes: u64,
}

impl MemoryStore {
    /// Puts one more claim on the account, if it fits.
    pub(super) fn reserve(&self, shard: &mut Shard) -> Result<(), NoRoom> {
        let bytes = cost::ENTRY + cost::BARE_ANSWER + shard.growth();
        let fits = |before: u64| before.checked_add(bytes).filter(|after| *after <= self.options.max_bytes);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| NoRoom { bytes })?;
        shard.accounted.bytes += bytes;
        Ok(())
    }

    /// An answer that would not fit even if it were the only one is not kept: no other body need go for it.
    pub(super) fn fitted(&self, mut write: Write) -> Write {
        if let Record::Completed { response, .. } = &mut write.record
            && response.is_kept()
        {
            let records = self.bytes.load(Ordering::Relaxed).saturating_sub(self.bodies.load(Ordering::Relaxed));
            if records + cost::answer(response) > self.options.max_bytes {
                *response = response.without_body();
                self.evicted_bodies.fetch_add(1, Ordering::Relaxed);
            }
        }
        write
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
