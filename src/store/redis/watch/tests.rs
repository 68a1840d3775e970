use std::{
    cell::Cell as Shared,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::time::{sleep, timeout};

use super::*;
use crate::rule::{Cell, Fingerprint, RouteName};

const ID: RecordId = RecordId([1; 32]);
const FIRST: Version = Version([1; 16]);
const SECOND: Version = Version([2; 16]);
const LEASE: Duration = Duration::from_secs(15);

/// A record of that write, in flight.
fn in_flight(version: Version) -> Look {
    let record = Record::InFlight { fingerprint: Fingerprint([0; 32]), lease: LEASE, running: Duration::ZERO };
    let route = RouteName("r".into());
    Ok(Some(Cell { version, age: Duration::ZERO, left: LEASE, route, record }))
}

/// Waits for a record that is gone after so many glances.
async fn wait(watches: &Watches, glances: &AtomicU32, gone_after: u32) -> Option<Look> {
    let glance = || async {
        let glance = glances.fetch_add(1, Ordering::Relaxed);
        if glance < gone_after { Glance::Version(FIRST) } else { Glance::Other }
    };
    let look = || async { if glances.load(Ordering::Relaxed) > gone_after { Ok(None) } else { in_flight(FIRST) } };
    watches.changed(&ID, FIRST, glance, look).await
}

// contract: R-15
#[tokio::test(start_paused = true)]
async fn a_thousand_who_wait_cost_no_more_looks_than_one() {
    let (watches, glances) = (Watches::default(), AtomicU32::new(0));
    let all: Vec<_> = (0..1000).map(|_| timeout(Duration::from_secs(10), wait(&watches, &glances, u32::MAX))).collect();
    let ended = futures_join(all).await;
    assert!(ended.iter().all(Result::is_err), "nothing changed");
    let glances = glances.load(Ordering::Relaxed);
    assert!((40..100).contains(&glances), "{glances} in 10 s");
    assert!(watches.watched.is_empty(), "who leaves leaves nothing behind");
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_are_told_what_one_look_found() {
    let (watches, looks) = (Watches::default(), AtomicU32::new(0));
    let begun = clock::now();
    let glance = || async { if clock::now() < begun + LEASE { Glance::Version(FIRST) } else { Glance::Other } };
    let look = || async {
        looks.fetch_add(1, Ordering::Relaxed);
        in_flight(SECOND)
    };
    let all: Vec<_> = (0..1000).map(|_| watches.changed(&ID, FIRST, glance, look)).collect();
    let ended = futures_join(all).await;
    assert!(ended.into_iter().all(|told| told == Some(in_flight(SECOND))));
    assert_eq!(looks.load(Ordering::Relaxed), 1, "an owner's renewal costs one look");
}

#[tokio::test(start_paused = true)]
async fn what_this_process_writes_is_looked_at_at_once() {
    let (watches, begun, written) = (Watches::default(), clock::now(), Shared::new(false));
    let glance = || async { if written.get() { Glance::Other } else { Glance::Version(FIRST) } };
    let wait = || watches.changed(&ID, FIRST, glance, || async { Ok(None) });
    let write = async {
        sleep(Duration::from_millis(1003)).await;
        written.set(true);
        watches.wrote(&ID);
    };
    let (one, other, ()) = tokio::join!(wait(), wait(), write);
    assert_eq!((one, other), (Some(Ok(None)), Some(Ok(None))));
    assert_eq!(clock::now() - begun, Duration::from_millis(1003));
}

#[tokio::test(start_paused = true)]
async fn another_takes_the_pollers_place_when_it_leaves() {
    let (watches, glances) = (Watches::default(), AtomicU32::new(0));
    let leaves = timeout(Duration::from_millis(100), wait(&watches, &glances, 30));
    let stays = timeout(Duration::from_secs(10), wait(&watches, &glances, 30));
    let (left, stayed) = tokio::join!(leaves, stays);
    assert!(left.is_err() && stayed == Ok(Some(Ok(None))));
}

/// A look that began before a write of this process may end after it.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_writes_successor_is_not_woken_by_an_older_look() {
    let (watches, standing) = (Watches::default(), Shared::new(FIRST));
    let glance = || async {
        let seen = standing.get();
        sleep(Duration::from_millis(5)).await;
        Glance::Version(seen)
    };
    let look = || async { in_flight(standing.get()) };
    let first = watches.changed(&ID, FIRST, glance, look);
    let second = async {
        sleep(Duration::from_millis(2)).await;
        standing.set(SECOND);
        watches.wrote(&ID);
        timeout(Duration::from_secs(1), watches.changed(&ID, SECOND, glance, look)).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first, Some(in_flight(SECOND)));
    assert!(second.is_err(), "nothing changed after the write");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_asked_again_by_one_for_all() {
    let (watches, glances, begun) = (Watches::default(), AtomicU32::new(0), clock::now());
    let away = || clock::now() < begun + Duration::from_secs(5);
    let glance = || async {
        glances.fetch_add(1, Ordering::Relaxed);
        if away() { Glance::Nothing } else { Glance::Other }
    };
    let all: Vec<_> = (0..300).map(|_| watches.changed(&ID, FIRST, glance, || async { Ok(None) })).collect();
    assert!(futures_join(all).await.into_iter().all(|told| told == Some(Ok(None))));
    assert!(glances.load(Ordering::Relaxed) < 100);
}

// contract: S-6
#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_ends_the_waiting_with_one_look() {
    let (watches, looks) = (Watches::default(), AtomicU32::new(0));
    let damaged = || Err(StoreError::Damaged("its checksum does not fit".to_owned()));
    let look = || async {
        looks.fetch_add(1, Ordering::Relaxed);
        damaged()
    };
    let glance = || async {
        sleep(Duration::from_millis(1)).await;
        Glance::Other
    };
    let all: Vec<_> = (0..300).map(|_| watches.changed(&ID, FIRST, glance, look)).collect();
    assert!(futures_join(all).await.into_iter().all(|told| told == Some(damaged())));
    assert_eq!(looks.load(Ordering::Relaxed), 1);
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
