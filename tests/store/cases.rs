//! Cells: one atomic step, retention, ages, waiting.

use std::{sync::Arc, time::Duration};

use oncegate::{
    rule::{Cell, Expect, Record, RecordId, Stored},
    store::{State, Store, Swap},
};
use tokio::{task::JoinHandle, time::timeout};

use crate::subject::{DAY, HOUR, LEASE, Steps, Subject, completed, id, in_flight, route, unknown, version, write};

pub(crate) async fn an_unseen_key_is_absent(subject: impl Subject) {
    assert_eq!(subject.store().cell(1).await, None);
}

pub(crate) async fn every_record_comes_back_as_it_was_written(subject: impl Subject) {
    let store = subject.store();
    for (key, record) in [in_flight(), completed("paid"), unknown()].into_iter().enumerate() {
        store.put(key as u64, 1, record.clone()).await;
        let cell = store.cell(key as u64).await.unwrap();
        let Cell { version: named, age, left, route: by, record: read } = cell;
        assert_eq!((named, by, read), (version(1), route(), record));
        assert!(is(&subject, age, Duration::ZERO) && is(&subject, left, HOUR), "{age:?} {left:?}");
    }
}

// contract: P-1, R-8
pub(crate) async fn exactly_one_of_many_claims_wins(subject: impl Subject) {
    let swaps = at_once(&subject, Expect::Absent).await;
    assert_eq!(swaps.iter().filter(|swap| **swap == Swap::Done).count(), 1);
}

pub(crate) async fn exactly_one_of_many_who_saw_the_same_version_wins(subject: impl Subject) {
    subject.store().put(1, 1000, unknown()).await;
    let swaps = at_once(&subject, Expect::Version(version(1000))).await;
    assert_eq!(swaps.iter().filter(|swap| **swap == Swap::Done).count(), 1);
}

fn is<S: Subject>(_subject: &S, time: Duration, expected: Duration) -> bool {
    S::is(time, expected)
}

fn tick<S: Subject>(_subject: &S) -> Duration {
    S::TICK
}

fn soon<S: Subject>(_subject: &S) -> Duration {
    S::SOON
}

/// Fifty claims of one key, each by a task of its own. All who lose see the winner's.
async fn at_once(subject: &impl Subject, expect: Expect) -> Vec<Swap> {
    let claims: Vec<_> = (0..50)
        .map(|named| {
            let store = Arc::clone(subject.store());
            tokio::spawn(
                async move { store.swap(&id(1), expect, version(named), write(in_flight(), HOUR)).await.unwrap() },
            )
        })
        .collect();
    let mut swaps = Vec::new();
    for claim in claims {
        swaps.push(claim.await.unwrap());
    }
    let winner = swaps.iter().position(|swap| *swap == Swap::Done).unwrap();
    for swap in &swaps {
        assert!(is_done(swap) || stale(swap).version == version(winner as u128));
    }
    swaps
}

fn is_done(swap: &Swap) -> bool {
    *swap == Swap::Done
}

fn stale(swap: &Swap) -> &Cell<Stored> {
    match swap {
        Swap::Stale(Some(cell)) => cell,
        Swap::Stale(None) | Swap::Done | Swap::DoneNotKept => panic!("expected a cell, not {swap:?}"),
    }
}

pub(crate) async fn a_stale_claim_brings_the_cell(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, completed("paid")).await;
    let swap = store.claim_by(1, 2, write(in_flight(), HOUR)).await;
    assert_eq!(stale(&swap).version, store.cell(1).await.unwrap().version);
    assert_eq!(stale(&swap).record, completed("paid"));
}

pub(crate) async fn a_stale_version_brings_the_cell_and_writes_nothing(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    let swap = store.replace(1, 9, 2, write(completed("paid"), HOUR)).await;
    assert_eq!(stale(&swap).version, version(1));
    assert_eq!(store.cell(1).await.unwrap().record, in_flight());
}

pub(crate) async fn a_claim_sent_twice_is_one_write(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    subject.advance(Duration::from_secs(5)).await;
    assert_eq!(store.claim_by(1, 1, write(in_flight(), HOUR)).await, Swap::Done);
    let age = store.cell(1).await.unwrap().age;
    assert!(is(&subject, age, Duration::from_secs(5)), "the second is not a write: {age:?}");
}

pub(crate) async fn a_settlement_sent_twice_is_one_write(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    for _ in 0..2 {
        assert_eq!(store.replace(1, 1, 2, write(completed("paid"), HOUR)).await, Swap::Done);
    }
    assert_eq!(subject.figures().await.completed, 1);
}

pub(crate) async fn a_claim_sent_again_after_its_settlement_is_stale(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    assert_eq!(store.replace(1, 1, 2, write(completed("paid"), HOUR)).await, Swap::Done);
    let swap = store.claim_by(1, 1, write(in_flight(), HOUR)).await;
    assert_eq!(stale(&swap).record, completed("paid"));
}

pub(crate) async fn a_version_expected_of_an_absent_key_is_stale(subject: impl Subject) {
    let swap = subject.store().replace(1, 1, 2, write(completed("paid"), HOUR)).await;
    assert_eq!(swap, Swap::Stale(None));
    assert_eq!(subject.store().cell(1).await, None);
}

// contract: R-12
pub(crate) async fn a_freed_key_is_new(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    assert_eq!(store.replace(1, 1, 2, None).await, Swap::Done);
    assert_eq!(store.cell(1).await, None);
    assert!(store.details(&id(1)).await.unwrap().is_none());
    assert_eq!(store.find(id(1).short()).await.unwrap(), Vec::<RecordId>::new());
    assert_eq!(subject.figures().await.in_flight, 0);
    store.put(1, 3, in_flight()).await;
}

pub(crate) async fn a_free_by_another_version_is_refused(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    assert_eq!(stale(&store.replace(1, 9, 2, None).await).version, version(1));
    assert_eq!(stale(&store.claim_by(1, 2, None).await).version, version(1));
    assert!(store.cell(1).await.is_some());
}

pub(crate) async fn freeing_an_absent_key_changes_nothing(subject: impl Subject) {
    assert_eq!(subject.store().claim_by(1, 1, None).await, Swap::Done);
    assert_eq!(subject.store().cell(1).await, None);
}

// contract: R-18
pub(crate) async fn a_late_owner_is_fenced_by_who_wrote_since(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    assert_eq!(store.replace(1, 1, 2, None).await, Swap::Done);
    store.put(1, 3, in_flight()).await;
    for next in [write(completed("late"), HOUR), write(in_flight(), HOUR), None] {
        assert_eq!(stale(&store.replace(1, 1, 4, next).await).version, version(3));
    }
}

// contract: R-20
pub(crate) async fn an_expired_record_is_absent(subject: impl Subject) {
    let store = subject.store();
    for (key, record) in [in_flight(), completed("paid"), unknown()].into_iter().enumerate() {
        store.put(key as u64, 1, record).await;
    }
    subject.advance(HOUR).await;
    for key in 0..3 {
        assert_eq!(store.cell(key).await, None);
        assert!(store.details(&id(key)).await.unwrap().is_none());
    }
}

// contract: R-20
pub(crate) async fn an_expired_record_is_never_compared_with(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, completed("paid")).await;
    subject.advance(HOUR).await;
    assert_eq!(store.replace(1, 1, 2, write(completed("other"), HOUR)).await, Swap::Stale(None));
    store.put(1, 1, in_flight()).await;
    assert_eq!(store.cell(1).await.unwrap().record, in_flight(), "its version is not recognised either");
}

pub(crate) async fn a_record_lives_until_its_time(subject: impl Subject) {
    let (store, tick) = (subject.store(), tick(&subject));
    store.put(1, 1, completed("paid")).await;
    subject.advance(HOUR - tick).await;
    assert_eq!(store.events().await, []);
    assert!(store.cell(1).await.unwrap().left <= tick);
    subject.advance(tick).await;
    assert_eq!(store.cell(1).await, None);
}

pub(crate) async fn a_record_kept_for_no_time_is_absent(subject: impl Subject) {
    let store = subject.store();
    store.put_for(Duration::ZERO, 1, 1, completed("paid")).await;
    assert_eq!(store.cell(1).await, None);
    store.put(1, 2, in_flight()).await;
}

pub(crate) async fn each_write_begins_a_new_retention(subject: impl Subject) {
    let store = subject.store();
    store.put_for(HOUR, 1, 1, in_flight()).await;
    subject.advance(HOUR / 2).await;
    assert_eq!(store.events().await.len(), 1, "the lease lapsed");
    assert_eq!(store.replace(1, 1, 2, write(completed("paid"), DAY)).await, Swap::Done);
    subject.advance(HOUR).await;
    assert!(is(&subject, store.cell(1).await.unwrap().left, DAY - HOUR));
}

// contract: R-22
pub(crate) async fn ages_begin_anew_with_each_write(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    subject.advance(Duration::from_secs(5)).await;
    assert!(is(&subject, store.cell(1).await.unwrap().age, Duration::from_secs(5)));
    assert_eq!(store.replace(1, 1, 2, write(in_flight(), HOUR)).await, Swap::Done);
    assert!(is(&subject, store.cell(1).await.unwrap().age, Duration::ZERO));
}

// contract: R-18
pub(crate) async fn a_lapsed_lease_never_frees_the_key(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    subject.advance(LEASE).await;
    let _lapsed = store.events().await;
    let cell = store.cell(1).await.unwrap();
    assert_eq!((State::of(&cell), &cell.record, cell.version), (State::Unknown, &in_flight(), version(1)));
    assert_eq!(stale(&store.claim_by(1, 2, write(in_flight(), HOUR)).await).version, version(1));
}

// contract: R-18
pub(crate) async fn the_owner_of_a_lapsed_lease_may_renew_it(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    subject.advance(LEASE * 2).await;
    let _lapsed = store.events().await;
    assert_eq!(store.replace(1, 1, 2, write(in_flight(), HOUR)).await, Swap::Done);
    assert_eq!(State::of(&store.cell(1).await.unwrap()), State::InFlight);
    assert_eq!((subject.figures().await.in_flight, subject.figures().await.unknown), (1, 0));
}

// contract: R-18
pub(crate) async fn the_owner_of_a_lapsed_lease_may_settle_it(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    subject.advance(LEASE * 2).await;
    let _lapsed = store.events().await;
    assert_eq!(store.replace(1, 1, 2, write(completed("late"), HOUR)).await, Swap::Done);
    assert_eq!(store.cell(1).await.unwrap().record, completed("late"));
    assert_eq!((subject.figures().await.completed, subject.figures().await.unknown), (1, 0));
}

pub(crate) async fn keys_that_begin_alike_are_two_keys(subject: impl Subject) {
    let store = subject.store();
    let alike = |last: u8| {
        let mut bytes = id(1).0;
        bytes[31] = last;
        RecordId(bytes)
    };
    for last in 0..4 {
        let swap = store.swap(&alike(last), Expect::Absent, version(last.into()), write(in_flight(), HOUR)).await;
        assert_eq!(swap.unwrap(), Swap::Done);
    }
    let mut left: Vec<_> = (0..4).collect();
    for gone in [1, 3, 0, 2] {
        for last in &left {
            assert_eq!(store.load(&alike(*last)).await.unwrap().unwrap().version, version((*last).into()));
        }
        let mut found = store.find(alike(0).short()).await.unwrap();
        found.sort_unstable();
        assert_eq!(found, left.iter().map(|last| alike(*last)).collect::<Vec<_>>());
        let seen = Expect::Version(version(gone.into()));
        assert_eq!(store.swap(&alike(gone), seen, version(9), None).await.unwrap(), Swap::Done);
        left.retain(|last| *last != gone);
        assert_eq!(store.load(&alike(gone)).await.unwrap(), None);
    }
}

/// A task that waits for version 1 of key 1 to change, and has begun to.
async fn waiter(subject: &impl Subject) -> JoinHandle<()> {
    let store = Arc::clone(subject.store());
    let waiter = tokio::spawn(async move { _ = store.changed(&id(1), version(1)).await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    waiter
}

/// It returns with hardly any time going by.
async fn assert_woken<S: Subject>(_subject: &S, waiter: JoinHandle<()>) {
    timeout(S::SOON, waiter).await.expect("it must be woken").unwrap();
}

// contract: R-15
pub(crate) async fn waiting_ends_with_the_settlement(subject: impl Subject) {
    subject.store().put(1, 1, in_flight()).await;
    let waiter = waiter(&subject).await;
    assert!(!waiter.is_finished());
    assert_eq!(subject.store().replace(1, 1, 2, write(completed("paid"), HOUR)).await, Swap::Done);
    assert_woken(&subject, waiter).await;
}

// contract: R-15
pub(crate) async fn waiting_ends_when_the_key_is_freed(subject: impl Subject) {
    subject.store().put(1, 1, in_flight()).await;
    let waiter = waiter(&subject).await;
    assert_eq!(subject.store().replace(1, 1, 2, None).await, Swap::Done);
    assert_woken(&subject, waiter).await;
}

pub(crate) async fn waiting_ends_with_a_renewal(subject: impl Subject) {
    subject.store().put(1, 1, in_flight()).await;
    let waiter = waiter(&subject).await;
    assert_eq!(subject.store().replace(1, 1, 2, write(in_flight(), HOUR)).await, Swap::Done);
    assert_woken(&subject, waiter).await;
}

pub(crate) async fn waiting_ends_at_once_where_another_has_written(subject: impl Subject) {
    subject.store().put(1, 2, in_flight()).await;
    assert_woken(&subject, waiter(&subject).await).await;
}

pub(crate) async fn waiting_ends_at_once_for_an_absent_key(subject: impl Subject) {
    assert_woken(&subject, waiter(&subject).await).await;
}

// contract: R-18
pub(crate) async fn waiting_ends_when_the_lease_lapses(subject: impl Subject) {
    subject.store().put(1, 1, in_flight()).await;
    subject.advance(LEASE / 2).await;
    let waiter = waiter(&subject).await;
    subject.advance(LEASE / 2 - tick(&subject)).await;
    assert!(!waiter.is_finished());
    subject.advance(2 * tick(&subject)).await;
    assert_woken(&subject, waiter).await;
    assert_eq!(State::of(&subject.store().cell(1).await.unwrap()), State::Unknown);
}

pub(crate) async fn waiting_ends_when_the_record_expires(subject: impl Subject) {
    subject.store().put(1, 1, unknown()).await;
    let waiter = waiter(&subject).await;
    subject.advance(HOUR - tick(&subject)).await;
    assert!(!waiter.is_finished());
    subject.advance(2 * tick(&subject)).await;
    assert_woken(&subject, waiter).await;
    assert_eq!(subject.store().cell(1).await, None);
}

pub(crate) async fn waiting_lasts_while_nothing_changes(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    let waiter = waiter(&subject).await;
    assert_eq!(stale(&store.replace(1, 9, 2, None).await).version, version(1));
    store.put(2, 1, in_flight()).await;
    assert_eq!(store.replace(2, 1, 2, None).await, Swap::Done);
    assert!(timeout(LEASE / 2, waiter).await.is_err(), "neither a refused step nor another key's wakes it");
}

pub(crate) async fn all_who_wait_are_woken(subject: impl Subject) {
    subject.store().put(1, 1, in_flight()).await;
    let mut waiters = Vec::new();
    for _ in 0..20 {
        waiters.push(waiter(&subject).await);
    }
    assert_eq!(subject.store().replace(1, 1, 2, write(completed("paid"), HOUR)).await, Swap::Done);
    for waiter in waiters {
        assert_woken(&subject, waiter).await;
    }
}

pub(crate) async fn a_waiter_that_leaves_harms_nobody(subject: impl Subject) {
    subject.store().put(1, 1, in_flight()).await;
    let (leaves, stays) = (waiter(&subject).await, waiter(&subject).await);
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    let joins = waiter(&subject).await;
    assert_eq!(subject.store().replace(1, 1, 2, None).await, Swap::Done);
    assert_woken(&subject, stays).await;
    assert_woken(&subject, joins).await;
}

/// It was woken, but had no turn yet when another began to wait for the next change.
pub(crate) async fn who_was_woken_takes_no_other_waiters_place(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    let woken = waiter(&subject).await;
    assert_eq!(store.replace(1, 1, 2, write(in_flight(), HOUR)).await, Swap::Done);
    let key = id(1);
    let next = store.changed(&key, version(2));
    tokio::pin!(next);
    assert!(timeout(Duration::ZERO, &mut next).await.is_err());
    assert_woken(&subject, woken).await;
    assert_eq!(store.replace(1, 2, 3, write(completed("paid"), HOUR)).await, Swap::Done);
    timeout(soon(&subject), next).await.expect("it must be woken");
}

/// The change comes before, between or after the look and the wait.
pub(crate) async fn no_change_is_missed_however_it_falls(subject: impl Subject) {
    for (round, turns) in (0..40).enumerate() {
        let (key, store) = (round as u64, Arc::clone(subject.store()));
        store.put(key, 1, in_flight()).await;
        let waiter = tokio::spawn(async move {
            while let Some(cell) = store.load(&id(key)).await.unwrap() {
                if matches!(cell.record, Record::Completed { .. }) {
                    return;
                }
                tokio::task::yield_now().await;
                store.changed(&id(key), cell.version).await;
            }
        });
        for _ in 0..turns % 8 {
            tokio::task::yield_now().await;
        }
        assert_eq!(subject.store().replace(key, 1, 2, write(completed("paid"), HOUR)).await, Swap::Done);
        assert_woken(&subject, waiter).await;
    }
}
