//! What housekeeping reports, and the figures.

use std::time::Duration;

use oncegate::{
    rule::UnknownReason,
    store::{Event, Figures, Swap},
};

use crate::subject::{DAY, HOUR, LEASE, Steps, Subject, completed, id, in_flight, route, unknown, write};

/// A month, as `unknown_retention` is by default.
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

fn lapsed(key: u64) -> Event {
    Event::Lapsed { id: id(key), route: route() }
}

fn expired(key: u64, reason: UnknownReason) -> Event {
    Event::UnknownExpired { id: id(key), route: route(), reason }
}

fn is<S: Subject>(_subject: &S, time: Duration, expected: Duration) -> bool {
    S::is(time, expected)
}

fn knows_bytes<S: Subject>(_subject: &S) -> bool {
    S::KNOWS_BYTES
}

/// The end of the first record is announced, and nothing else is.
#[track_caller]
fn assert_announced(subject: &impl Subject, events: &[Event], expected: Duration) {
    match events {
        [Event::UnknownExpiring { id: of, route: by, left }] if *of == id(1) && *by == route() => {
            assert!(is(subject, *left, expected), "{left:?}");
        }
        other => panic!("{other:?}"),
    }
}

// contract: R-18
pub(crate) async fn a_lapse_is_reported_once_and_writes_nothing(subject: impl Subject) {
    let store = subject.store();
    store.put_for(MONTH, 1, 1, in_flight()).await;
    subject.advance(LEASE - SECOND).await;
    assert_eq!(store.events().await, []);
    assert_eq!((subject.figures().await.in_flight, subject.figures().await.unknown), (1, 0));
    subject.advance(2 * SECOND).await;
    assert_eq!(store.events().await, [lapsed(1)]);
    assert_eq!((subject.figures().await.in_flight, subject.figures().await.unknown), (0, 1));
    assert_eq!(store.cell(1).await.unwrap().record, in_flight());
    subject.advance(LEASE).await;
    assert_eq!(store.events().await, []);
}

pub(crate) async fn a_renewed_lease_does_not_lapse(subject: impl Subject) {
    let store = subject.store();
    store.put_for(MONTH, 1, 1, in_flight()).await;
    for named in 2..10 {
        subject.advance(LEASE / 3).await;
        assert_eq!(store.replace(1, named - 1, named, write(in_flight(), MONTH)).await, Swap::Done);
        assert_eq!(store.events().await, []);
    }
}

pub(crate) async fn a_lease_that_lapses_again_is_reported_again(subject: impl Subject) {
    let store = subject.store();
    store.put_for(MONTH, 1, 1, in_flight()).await;
    subject.advance(LEASE + SECOND).await;
    assert_eq!(store.events().await, [lapsed(1)]);
    assert_eq!(store.replace(1, 1, 2, write(in_flight(), MONTH)).await, Swap::Done);
    assert_eq!(store.events().await, []);
    subject.advance(LEASE + SECOND).await;
    assert_eq!(store.events().await, [lapsed(1)]);
}

pub(crate) async fn a_lapse_is_reported_though_its_owner_came_back_first(subject: impl Subject) {
    let store = subject.store();
    store.put_for(MONTH, 1, 1, in_flight()).await;
    subject.advance(LEASE + SECOND).await;
    assert_eq!(store.replace(1, 1, 2, write(completed("late"), HOUR)).await, Swap::Done);
    assert_eq!(store.events().await, [lapsed(1)]);
    assert_eq!(store.events().await, []);
}

// contract: P-5
pub(crate) async fn the_end_of_an_unknown_record_is_announced_a_day_before(subject: impl Subject) {
    let store = subject.store();
    store.put_for(MONTH, 1, 1, unknown()).await;
    subject.advance(MONTH - DAY - SECOND).await;
    assert_eq!(store.events().await, []);
    assert_eq!(subject.figures().await.unknown_expiring, 0);
    subject.advance(2 * SECOND).await;
    assert_announced(&subject, &store.events().await, DAY - SECOND);
    assert_eq!(subject.figures().await.unknown_expiring, 1);
    subject.advance(HOUR).await;
    assert_eq!(store.events().await, []);
    assert!(store.cell(1).await.is_some());
}

pub(crate) async fn an_unknown_record_of_a_few_hours_is_not_announced(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, unknown()).await;
    assert_eq!(subject.figures().await.unknown_expiring, 1, "it ends within a day all the same");
    subject.advance(HOUR / 2).await;
    assert_eq!(store.events().await, []);
}

// contract: P-5
pub(crate) async fn the_end_of_an_unknown_record_is_reported_with_its_reason(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, unknown()).await;
    assert_eq!(store.events().await, []);
    subject.advance(HOUR + SECOND).await;
    assert_eq!(store.events().await, [expired(1, UnknownReason::Answered)]);
    assert_eq!(store.events().await, []);
    assert_eq!((subject.figures().await.unknown, subject.figures().await.unknown_expiring), (0, 0));
}

pub(crate) async fn the_end_of_a_lapsed_record_is_reported(subject: impl Subject) {
    let store = subject.store();
    store.put_for(2 * DAY, 1, 1, in_flight()).await;
    store.put_for(2 * DAY, 2, 1, in_flight()).await;
    assert_eq!(store.replace(2, 1, 2, None).await, Swap::Done);
    subject.advance(HOUR).await;
    assert_eq!(store.events().await, [lapsed(1)]);
    subject.advance(DAY).await;
    assert_announced(&subject, &store.events().await, DAY - HOUR);
    subject.advance(DAY).await;
    assert_eq!(store.events().await, [expired(1, UnknownReason::Lapsed)]);
}

pub(crate) async fn an_unknown_record_resolved_in_time_is_not_reported(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, unknown()).await;
    store.put(2, 1, unknown()).await;
    assert_eq!(store.replace(1, 1, 2, write(completed("resolved"), DAY)).await, Swap::Done);
    assert_eq!(store.replace(2, 1, 2, None).await, Swap::Done);
    assert_eq!((subject.figures().await.unknown, subject.figures().await.unknown_expiring), (0, 0));
    subject.advance(HOUR + SECOND).await;
    assert_eq!(store.events().await, []);
}

pub(crate) async fn a_completed_record_ends_quietly(subject: impl Subject) {
    let store = subject.store();
    store.put_for(MONTH, 1, 1, completed("paid")).await;
    subject.advance(MONTH + SECOND).await;
    assert_eq!(store.events().await, []);
    assert_eq!(subject.figures().await.completed, 0);
}

pub(crate) async fn an_unknown_record_whose_key_is_claimed_anew_is_reported(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, unknown()).await;
    assert_eq!(store.events().await, []);
    subject.advance(HOUR).await;
    store.put(1, 2, in_flight()).await;
    assert_eq!(store.events().await, [expired(1, UnknownReason::Answered)]);
    assert_eq!(subject.figures().await.in_flight, 1);
}

pub(crate) async fn figures_follow_the_records(subject: impl Subject) {
    let store = subject.store();
    let empty = subject.figures().await;
    assert!(empty.up);
    store.put_for(MONTH, 1, 1, unknown()).await;
    subject.advance(10 * SECOND).await;
    for key in 2..5 {
        store.put_for(MONTH, key, 1, in_flight()).await;
    }
    assert_eq!(store.replace(2, 1, 2, write(completed("paid"), HOUR)).await, Swap::Done);
    assert_eq!(store.replace(3, 1, 2, write(unknown(), MONTH)).await, Swap::Done);
    let Figures { in_flight: flying, completed: done, unknown: lost, unknown_oldest_age, bytes, .. } =
        subject.figures().await;
    assert_eq!((flying, done, lost), (1, 1, 2));
    assert!(is(&subject, unknown_oldest_age, 10 * SECOND), "{unknown_oldest_age:?}");
    assert!(!knows_bytes(&subject) || bytes > empty.bytes);
    assert_eq!(store.replace(1, 1, 2, None).await, Swap::Done);
    assert!(is(&subject, subject.figures().await.unknown_oldest_age, Duration::ZERO));
    subject.advance(LEASE + 2 * SECOND).await;
    assert_eq!(store.events().await, [lapsed(4)]);
    assert_eq!((subject.figures().await.in_flight, subject.figures().await.unknown), (0, 2));
}

// contract: R-20
pub(crate) async fn figures_forget_what_expired(subject: impl Subject) {
    let store = subject.store();
    let empty = subject.figures().await.bytes;
    for key in 0..300 {
        store.put(key, 1, completed("paid")).await;
    }
    let before = subject.figures().await;
    assert_eq!(before.completed, 300);
    subject.advance(HOUR + SECOND).await;
    assert_eq!(store.events().await, []);
    let after = subject.figures().await;
    assert_eq!(after.completed, 0);
    let (held, left) = (before.bytes - empty, after.bytes - empty);
    assert!(left < held / 4, "{left} of {held} bytes are left");
}
