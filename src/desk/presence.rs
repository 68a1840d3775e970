//! Who of this process is at a record: its owners, and who waits for one.

use std::sync::Arc;

use dashmap::{DashMap, Entry};

use crate::rule::RecordId;

/// How many are at each record; a record has an entry only while somebody is.
#[derive(Debug, Clone, Default)]
pub(super) struct Presence(Arc<DashMap<RecordId, u32>>);

/// A place at a record, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    presence: Presence,
    id: RecordId,
}

impl Presence {
    /// Takes a place.
    pub(super) fn enter(&self, id: &RecordId) -> Place {
        *self.0.entry(*id).or_insert(0) += 1;
        Place { presence: self.clone(), id: *id }
    }

    /// Takes a place where fewer than `max` are taken.
    pub(super) fn enter_below(&self, max: u32, id: &RecordId) -> Option<Place> {
        match self.0.entry(*id) {
            Entry::Occupied(mut count) if *count.get() < max => *count.get_mut() += 1,
            Entry::Vacant(none) if max > 0 => drop(none.insert(1)),
            Entry::Occupied(_) | Entry::Vacant(_) => return None,
        }
        Some(Place { presence: self.clone(), id: *id })
    }

    /// Whether somebody is there.
    pub(super) fn has(&self, id: &RecordId) -> bool {
        self.0.contains_key(id)
    }

    /// Whether nobody is anywhere.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.presence.0.entry(self.id) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
