//! Waiting for a record to change, which another process may do (contract: R-15).
//!
//! All of this process who wait for one record share one poller: whichever of them is first asks Redis, ever more
//! slowly, and tells the others what it saw; when it leaves, another takes its place. What this process itself writes is
//! told at once.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use tokio::sync::{Mutex, watch};

use crate::{
    clock::{self, Instant},
    rule::{RecordId, Version},
};

/// Between two looks, at first.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks, at most: four looks a second from each process.
const PAUSE_MOST: Duration = Duration::from_millis(250);
/// The next look comes after this part of the time waited so far: an answer is late by an eighth of what it took.
const PART: u32 = 8;

/// What was seen of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody has looked yet.
    Nothing,
    /// There is no record.
    Absent,
    /// This write's; `lapsed` when its lease is over.
    Version { version: Version, lapsed: bool },
    /// It may have changed.
    Changed,
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
            watched.seen.send_replace(Seen::Changed);
        }
    }

    /// Returns when `look` sees something else than the write `version` with its lease, or fails.
    pub(super) async fn changed<L, F>(&self, id: &RecordId, version: Version, look: L)
    where
        L: Fn() -> F,
        F: Future<Output = Option<Seen>>,
    {
        let waiter = self.join(id);
        let watched = waiter.watched();
        let mut told = watched.seen.subscribe();
        let same = Seen::Version { version, lapsed: false };
        loop {
            tokio::select! {
                biased;
                heard = told.changed() => {
                    if heard.is_err() || *told.borrow_and_update() != same {
                        return;
                    }
                }
                _polling = watched.poller.lock() => {
                    loop {
                        watched.looks();
                        // A record that could not be looked at may have changed: whoever waits asks the store itself.
                        let seen = look().await.unwrap_or(Seen::Changed);
                        if !watched.saw(seen) || seen != same {
                            return;
                        }
                        let waited = clock::now().saturating_duration_since(watched.since);
                        let pause = (waited / PART).clamp(PAUSE, PAUSE_MOST);
                        if *told.borrow_and_update() != same {
                            return;
                        }
                        if let Ok(Ok(())) = tokio::time::timeout(pause, told.changed()).await {
                            return;
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
            let written = *before == Seen::Changed;
            if !written {
                *before = seen;
            }
            !written
        })
    }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::{sleep, timeout};

    use super::*;

    const ID: RecordId = RecordId([1; 32]);
    const FIRST: Version = Version([1; 16]);
    const SAME: Seen = Seen::Version { version: FIRST, lapsed: false };

    async fn wait(watches: &Watches, looks: &AtomicU32, change_after: u32) {
        let look = || async {
            let look = looks.fetch_add(1, Ordering::Relaxed);
            Some(if look < change_after { SAME } else { Seen::Absent })
        };
        watches.changed(&ID, FIRST, look).await;
    }

    // contract: R-15
    #[tokio::test(start_paused = true)]
    async fn a_thousand_who_wait_cost_no_more_looks_than_one() {
        let (watches, looks) = (Watches::default(), AtomicU32::new(0));
        let all: Vec<_> =
            (0..1000).map(|_| timeout(Duration::from_secs(10), wait(&watches, &looks, u32::MAX))).collect();
        let ended = futures_join(all).await;
        assert!(ended.iter().all(Result::is_err), "nothing changed");
        let looks = looks.load(Ordering::Relaxed);
        assert!((40..100).contains(&looks), "{looks} looks in 10 s");
        assert!(watches.watched.is_empty(), "who leaves leaves nothing behind");
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_hear_of_what_one_of_them_sees() {
        let (watches, looks) = (Watches::default(), AtomicU32::new(0));
        let all: Vec<_> = (0..10).map(|_| timeout(Duration::from_secs(10), wait(&watches, &looks, 5))).collect();
        assert!(futures_join(all).await.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn what_this_process_writes_is_heard_at_once() {
        let (watches, looks) = (Watches::default(), AtomicU32::new(0));
        let begun = clock::now();
        let write = async {
            sleep(Duration::from_millis(1003)).await;
            watches.wrote(&ID);
        };
        tokio::join!(wait(&watches, &looks, u32::MAX), wait(&watches, &looks, u32::MAX), write);
        assert_eq!(clock::now() - begun, Duration::from_millis(1003));
    }

    #[tokio::test(start_paused = true)]
    async fn another_takes_the_pollers_place_when_it_leaves() {
        let (watches, looks) = (Watches::default(), AtomicU32::new(0));
        let leaves = timeout(Duration::from_millis(100), wait(&watches, &looks, 30));
        let stays = timeout(Duration::from_secs(10), wait(&watches, &looks, 30));
        let (left, stayed) = tokio::join!(leaves, stays);
        assert!(left.is_err() && stayed.is_ok());
    }

    /// A look that began before a write of this process may end after it.
    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_writes_successor_is_not_woken_by_an_older_look() {
        const SECOND: Version = Version([2; 16]);
        let watches = Watches::default();
        let slow = |version| async move {
            sleep(Duration::from_millis(5)).await;
            Some(Seen::Version { version, lapsed: false })
        };
        let first = watches.changed(&ID, FIRST, || slow(FIRST));
        let second = async {
            sleep(Duration::from_millis(2)).await;
            watches.wrote(&ID);
            let wait = watches.changed(&ID, SECOND, || slow(SECOND));
            timeout(Duration::from_secs(1), wait).await
        };
        let ((), second) = tokio::join!(first, second);
        assert!(second.is_err(), "nothing changed after the write");
    }

    async fn futures_join<F: Future>(all: Vec<F>) -> Vec<F::Output> {
        let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
        let mut ended: Vec<_> = all.iter().map(|_| None).collect();
        std::future::poll_fn(|context| {
            let mut left = 0;
            for (future, ended) in all.iter_mut().zip(&mut ended).filter(|(_, ended)| ended.is_none()) {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(output) => *ended = Some(output),
                    std::task::Poll::Pending => left += 1,
                }
            }
            if left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        ended.into_iter().map(|output| output.expect("all have ended")).collect()
    }
}
