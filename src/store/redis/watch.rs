//! Waiting for a record to change, which another process may do (contract: R-15).
//!
//! All of this process who wait for one record share one poller: whichever of them is first asks Redis, ever more
//! slowly, and tells the others what it saw, the record and its answer included; when it leaves, another takes its place.
//! What this process itself writes is looked at at once. So a thousand who wait cost what one does, at an owner's every
//! renewal too, and while Redis is away.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use tokio::sync::{Mutex, watch};

use crate::{
    clock::{self, Instant},
    rule::{Record, RecordId, Version},
    store::{Look, StoreError},
};

#[cfg(test)]
mod tests;

/// Between two looks, at first.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks, at most: four looks a second from each process.
const PAUSE_MOST: Duration = Duration::from_millis(250);
/// The next look comes after this part of the time waited so far: an answer is late by an eighth of what it took.
const PART: u32 = 8;

/// What a look at the beginning of a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Glance {
    /// The record is this write's, and not lapsed.
    Version(Version),
    /// It is gone, lapsed, or cannot be read so.
    Other,
    /// The store did not answer.
    Nothing,
}

/// What is known of a record.
#[derive(Debug, Clone)]
enum Seen {
    /// Nobody has looked since.
    Nothing,
    /// This process wrote it.
    Written,
    /// It is this write's, and not lapsed.
    Version(Version),
    /// It has changed: how it stands now.
    Look(Arc<Look>),
}

/// All records that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Watches {
    watched: DashMap<RecordId, Arc<Watched>>,
}

#[derive(Debug)]
struct Watched {
    since: Instant,
    seen: watch::Sender<Seen>,
    poller: Mutex<()>,
}

/// One who waits; the last to leave takes the entry away.
struct Waiter<'a> {
    watches: &'a Watches,
    id: RecordId,
    watched: Option<Arc<Watched>>,
}

impl Watches {
    /// Tells who waits that this process wrote the record.
    pub(super) fn wrote(&self, id: &RecordId) {
        if let Some(watched) = self.watched.get(id) {
            watched.seen.send_replace(Seen::Written);
        }
    }

    /// Returns when the record is no more that of the write `version` with its lease: with how it stands then, of which
    /// one look tells all who wait. A store that does not answer is asked again.
    pub(super) async fn changed<G, L>(
        &self,
        id: &RecordId,
        version: Version,
        glance: impl Fn() -> G,
        look: impl Fn() -> L,
    ) -> Option<Look>
    where
        G: Future<Output = Glance>,
        L: Future<Output = Look>,
    {
        let waiter = self.join(id);
        let watched = waiter.watched();
        let mut told = watched.seen.subscribe();
        loop {
            tokio::select! {
                biased;
                heard = told.changed() => {
                    heard.ok()?;
                    match &*told.borrow_and_update() {
                        // Whoever polls looks at once.
                        Seen::Nothing | Seen::Written => {}
                        Seen::Version(seen) if *seen == version => {}
                        // What was seen before the wait began, or what somebody who came earlier waits for.
                        Seen::Version(_) => return None,
                        Seen::Look(look) if is_still(look, version) => {}
                        Seen::Look(look) => return Some((**look).clone()),
                    }
                }
                _polling = watched.poller.lock() => {
                    loop {
                        watched.looks();
                        let news = match glance().await {
                            Glance::Version(seen) if seen == version => Some(Seen::Version(version)),
                            Glance::Nothing => None,
                            Glance::Version(_) | Glance::Other => match look().await {
                                Err(StoreError::Full | StoreError::Refused(_) | StoreError::Unknown(_)) => None,
                                look @ (Ok(_) | Err(StoreError::Damaged(_))) => Some(Seen::Look(Arc::new(look))),
                            },
                        };
                        if let Some(news) = news {
                            let changed = match &news {
                                Seen::Look(look) if !is_still(look, version) => Some(Arc::clone(look)),
                                Seen::Look(_) | Seen::Version(_) | Seen::Written | Seen::Nothing => None,
                            };
                            if !watched.saw(news) {
                                continue;
                            }
                            if let Some(look) = changed {
                                return Some((*look).clone());
                            }
                        }
                        let waited = clock::now().saturating_duration_since(watched.since);
                        let pause = (waited / PART).clamp(PAUSE, PAUSE_MOST);
                        if !matches!(*told.borrow_and_update(), Seen::Written) {
                            // However that ends, it is looked at again.
                            _ = tokio::time::timeout(pause, told.changed()).await;
                        }
                    }
                }
            }
        }
    }

    fn join(&self, id: &RecordId) -> Waiter<'_> {
        let new = || {
            Arc::new(Watched { since: clock::now(), seen: watch::Sender::new(Seen::Nothing), poller: Mutex::default() })
        };
        let watched = Arc::clone(&self.watched.entry(*id).or_insert_with(new));
        Waiter { watches: self, id: *id, watched: Some(watched) }
    }
}

impl Watched {
    /// From here on it is told apart what this process writes during the look.
    fn looks(&self) {
        self.seen.send_if_modified(|before| {
            *before = Seen::Nothing;
            false
        });
    }

    /// Tells all what a look saw; `false` if this process wrote meanwhile, of which all have been told. What was seen may
    /// then be older than the write, and who waits for a change of the newer version must not take it for one.
    fn saw(&self, seen: Seen) -> bool {
        self.seen.send_if_modified(|before| {
            let written = matches!(before, Seen::Written);
            if !written {
                *before = seen;
            }
            !written
        })
    }
}

/// Whether a look found the same write, with its lease.
fn is_still(look: &Look, version: Version) -> bool {
    let Ok(Some(cell)) = look else { return false };
    let lapsed = matches!(cell.record, Record::InFlight { lease, .. } if cell.age >= lease);
    cell.version == version && !lapsed
}

impl Waiter<'_> {
    fn watched(&self) -> Arc<Watched> {
        Arc::clone(self.watched.as_ref().expect("held until the waiter leaves"))
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        drop(self.watched.take());
        // Under the entry's lock nobody joins: only the map's own reference is left when nobody waits.
        self.watches.watched.remove_if(&self.id, |_, watched| Arc::strong_count(watched) == 1);
    }
}
