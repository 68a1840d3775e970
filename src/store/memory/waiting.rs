//! Waiting for a record to change, without polling.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, futures::OwnedNotified};

use super::{MemoryStore, Slot, shard::short, slab::Index};
use crate::{
    clock::Instant,
    rule::{RecordId, Version},
};

/// A place among those who wait for a record; given up when dropped.
pub(super) struct Waiting<'a> {
    slot: &'a Slot,
    index: Index,
    notify: Arc<Notify>,
    /// When the record reads otherwise though nobody writes it: its lease lapses, or it expires.
    pub(super) until: Option<Instant>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // A poisoned shard answers nobody any more; to panic here as well would abort.
        if let Ok(mut shard) = self.slot.shard.lock() {
            shard.leave(self.index, &self.notify);
        }
    }
}

impl MemoryStore {
    /// Begins to wait, unless the record differs already.
    pub(super) fn wait(&self, id: &RecordId, seen: Version) -> Option<(Waiting<'_>, OwnedNotified)> {
        let slot = self.slot(short(id));
        let mut shard = slot.lock();
        let now = self.now();
        let index = shard.get(id)?;
        let entry = shard.slab.get(index);
        if entry.version != seen || entry.is_expired(now) {
            return None;
        }
        let until = entry.lease_end().filter(|end| *end > now).map_or(entry.expires, |end| end.min(entry.expires));
        let notify = shard.wait(index);
        let until = self.start.checked_add(Duration::from_millis(until));
        // Made under the lock: it hears every `notify_waiters` from here on, polled or not.
        let woken = Arc::clone(&notify).notified_owned();
        Some((Waiting { slot, index, notify, until }, woken))
    }
}
