//! Which claims are held in this process.
//!
//! A lease lapses, too, while the store cannot be told: it is away, or this process stood still. To others such a record
//! reads as unknown (contract: R-18). Here it is known that its owner is at work, or holds an outcome that waits for the
//! store: a retry waits for it, and nothing is run anew. The same holds where a store lost the owner's record.

use std::sync::Arc;

use dashmap::{DashMap, Entry};

use crate::rule::RecordId;

/// The records whose owners are here; how many each has.
#[derive(Debug, Clone, Default)]
pub(super) struct Owners(Arc<DashMap<RecordId, u32>>);

/// A claim's place among them.
#[derive(Debug)]
pub(super) struct Owner {
    owners: Owners,
    id: RecordId,
}

impl Owners {
    /// Counts a claim, until it is dropped.
    pub(super) fn enter(&self, id: &RecordId) -> Owner {
        *self.0.entry(*id).or_insert(0) += 1;
        Owner { owners: self.clone(), id: *id }
    }

    /// Whether one of the record's owners is here.
    pub(super) fn has(&self, id: &RecordId) -> bool {
        self.0.contains_key(id)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Entry::Occupied(mut claims) = self.owners.0.entry(self.id) {
            *claims.get_mut() -= 1;
            if *claims.get() == 0 {
                claims.remove();
            }
        }
    }
}
