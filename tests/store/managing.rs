//! What operators ask of a store.

use std::{collections::HashMap, time::Duration};

use oncegate::{
    rule::{Record, RecordId, RouteName},
    store::{Filter, State, Store, StoreError, Swap, Write},
};

use crate::subject::{HOUR, LEASE, Steps, Subject, completed, id, in_flight, route, unknown, write};

/// How often each record was seen on the pages of `limit`.
async fn seen(store: &impl Store, filter: &Filter, limit: usize) -> HashMap<RecordId, u32> {
    let (mut seen, mut after) = (HashMap::new(), None);
    loop {
        let page = store.list(filter, after.as_deref(), limit).await.unwrap();
        assert!(page.records.len() <= limit);
        for (id, _) in page.records {
            *seen.entry(id).or_default() += 1;
        }
        let Some(next) = page.next else { return seen };
        after = Some(next);
    }
}

pub(crate) async fn pages_hold_every_record_once(subject: impl Subject) {
    let store = subject.store();
    assert_eq!(seen(&**store, &Filter::default(), 10).await, HashMap::new());
    for key in 0..1000 {
        store.put(key, 1, in_flight()).await;
    }
    let each_once: HashMap<_, _> = (0..1000).map(|key| (id(key), 1)).collect();
    for limit in [1, 7, 100, 999, 1000, 5000] {
        assert_eq!(seen(&**store, &Filter::default(), limit).await, each_once);
    }
}

pub(crate) async fn a_record_that_stays_is_seen_once_while_others_come_and_go(subject: impl Subject) {
    let store = subject.store();
    for key in 0..600 {
        store.put(key, 1, in_flight()).await;
    }
    let (mut seen, mut after, mut round) = (HashMap::<_, u32>::new(), None, 0);
    loop {
        let page = store.list(&Filter::default(), after.as_deref(), 20).await.unwrap();
        page.records.into_iter().for_each(|(id, _)| *seen.entry(id).or_default() += 1);
        // Of the first 600 the even ones stay, renewed and settled; the odd ones go, and others come.
        for step in 0..10 {
            let key = (round * 10 + step) % 600;
            if key % 2 == 1 {
                let _gone = store.replace(key, 1, 2, None).await;
            } else {
                let _stays = store.replace(key, 1, 2, write(completed("paid"), HOUR)).await;
            }
            let _come = store.claim_by(10_000 + round * 10 + step, 1, write(in_flight(), HOUR)).await;
        }
        round += 1;
        assert!(round < 1000, "it must come to an end");
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert!((0..600).step_by(2).all(|key| seen.get(&id(key)) == Some(&1)));
    assert!(seen.values().all(|times| *times == 1));
}

pub(crate) async fn a_page_holds_only_what_the_filter_asks_for(subject: impl Subject) {
    let store = subject.store();
    let other = RouteName("refund".into());
    for (key, record) in [in_flight(), completed("paid"), unknown()].into_iter().enumerate() {
        store.put(key as u64, 1, record.clone()).await;
        let next = Some(Write { record, keep: HOUR, route: other.clone() });
        assert_eq!(store.claim_by(10 + key as u64, 1, next).await, Swap::Done);
        subject.advance(Duration::from_secs(2)).await;
    }
    let keys = async |filter: Filter| {
        let seen = seen(&**store, &filter, 2).await;
        (0..20).filter(|key| seen.contains_key(&id(*key))).collect::<Vec<_>>()
    };
    assert_eq!(keys(Filter::default()).await, [0, 1, 2, 10, 11, 12]);
    for (key, state) in State::ALL.into_iter().enumerate() {
        let filter = Filter { state: Some(state), ..Filter::default() };
        assert_eq!(keys(filter.clone()).await, [key as u64, 10 + key as u64]);
        assert_eq!(keys(Filter { route: Some(other.clone()), ..filter }).await, [10 + key as u64]);
    }
    assert_eq!(keys(Filter { route: Some(route()), ..Filter::default() }).await, [0, 1, 2]);
    let older = |seconds| Filter { older: Some(Duration::from_secs(seconds)), ..Filter::default() };
    assert_eq!(keys(older(4)).await, [0, 1, 10, 11]);
    // Its owner had been at work for three seconds when it was written.
    assert_eq!(keys(older(7)).await, [0, 10]);
    assert!(keys(older(10)).await.is_empty());
}

// contract: R-18
pub(crate) async fn a_lapsed_record_is_listed_as_unknown(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, in_flight()).await;
    subject.advance(LEASE + Duration::from_secs(5)).await;
    let filter = |state, older| Filter { state: Some(state), older: Some(Duration::from_secs(older)), route: None };
    for _ in 0..2 {
        assert_eq!(seen(&**store, &filter(State::InFlight, 0), 9).await.len(), 0);
        assert_eq!(seen(&**store, &filter(State::Unknown, 5), 9).await.len(), 1);
        assert_eq!(seen(&**store, &filter(State::Unknown, 6), 9).await.len(), 0, "the state's age, not the record's");
        let _lapsed = store.events().await;
    }
}

pub(crate) async fn an_owner_is_as_old_as_its_claim_however_often_it_renews_its_lease(subject: impl Subject) {
    let Record::InFlight { fingerprint, lease, .. } = in_flight() else { panic!("an owner's record") };
    subject.store().put(1, 1, Record::InFlight { fingerprint, lease, running: Duration::from_secs(240) }).await;
    let older = |seconds| Filter { older: Some(Duration::from_secs(seconds)), ..Filter::default() };
    assert_eq!(seen(&**subject.store(), &older(240), 9).await.len(), 1);
    assert_eq!(seen(&**subject.store(), &older(300), 9).await.len(), 0);
}

// contract: R-20
pub(crate) async fn an_expired_record_is_not_listed(subject: impl Subject) {
    subject.store().put(1, 1, unknown()).await;
    subject.advance(HOUR).await;
    assert_eq!(seen(&**subject.store(), &Filter::default(), 10).await.len(), 0);
}

pub(crate) async fn a_cursor_of_elsewhere_is_refused(subject: impl Subject) {
    let page = subject.store().list(&Filter::default(), Some("no cursor"), 10).await;
    assert!(matches!(page, Err(StoreError::Refused(_))), "{page:?}");
}

pub(crate) async fn a_record_is_found_by_its_short_id(subject: impl Subject) {
    let store = subject.store();
    for key in 0..50 {
        store.put(key, 1, in_flight()).await;
    }
    for key in 0..50 {
        assert_eq!(store.find(id(key).short()).await.unwrap(), [id(key)]);
    }
    assert_eq!(store.find(id(99).short()).await.unwrap(), []);
}

pub(crate) async fn a_record_that_is_gone_is_not_found(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, unknown()).await;
    store.put(2, 1, unknown()).await;
    assert_eq!(store.replace(2, 1, 2, None).await, Swap::Done);
    subject.advance(HOUR).await;
    for key in [1, 2] {
        assert_eq!(store.find(id(key).short()).await.unwrap(), []);
    }
}

pub(crate) async fn replays_are_counted(subject: impl Subject) {
    let store = subject.store();
    store.put(1, 1, completed("paid")).await;
    for _ in 0..3 {
        store.replayed(&id(1));
    }
    store.replayed(&id(2));
    let details = store.details(&id(1)).await.unwrap().unwrap();
    assert_eq!((details.replays, details.cell.record), (3, completed("paid")));
}
