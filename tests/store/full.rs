//! What the memory store does when it is full.

use std::{collections::HashSet, time::Duration};

use oncegate::{
    rule::{Expect, Record},
    store::{
        Store, StoreError, Swap,
        memory::{MemoryOptions, MemoryStore},
    },
};

use crate::subject::{HOUR, Steps, answer, completed, fingerprint, id, in_flight, unknown, version, write};

const MILLISECOND: Duration = Duration::from_millis(1);

fn store(max_bytes: u64, allow_eviction: bool) -> MemoryStore {
    MemoryStore::new(MemoryOptions { max_bytes, allow_eviction })
}

/// Claims keys from `first` on until one is refused; how many were taken.
async fn claim_until_full(store: &MemoryStore, first: u64) -> u64 {
    for taken in 0..100_000 {
        match store.swap(&id(first + taken), Expect::Absent, version(1), write(in_flight(), HOUR)).await {
            Ok(swap) => assert_eq!(swap, Swap::Done),
            Err(StoreError::Full) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a store must be full at last")
}

async fn settle(store: &MemoryStore, key: u64, body_bytes: usize) {
    let record = completed(&"x".repeat(body_bytes));
    let told = store.replace(key, 1, 2, write(record.clone(), HOUR)).await;
    // A write says whether its answer was kept, and says it again.
    let kept = if is_kept(store, key).await { Swap::Done } else { Swap::DoneNotKept };
    assert_eq!(told, kept);
    assert_eq!(store.replace(key, 1, 2, write(record, HOUR)).await, kept);
}

async fn is_kept(store: &MemoryStore, key: u64) -> bool {
    match store.cell(key).await.expect("no record is forgotten").record {
        Record::Completed { response, .. } => response.is_kept(),
        Record::InFlight { .. } | Record::Unknown { .. } => panic!("expected a completed record"),
    }
}

// contract: R-21
#[tokio::test(start_paused = true)]
async fn the_bodies_of_the_longest_settled_go_first() {
    let store = store(4 << 20, false);
    // Settled in another order than claimed: what counts is the settlement.
    let order: Vec<u64> = (0..1500).map(|at| at * 7 % 1500).collect();
    for key in 0..1500 {
        store.put(key, 1, in_flight()).await;
    }
    for key in &order {
        settle(&store, *key, 4000).await;
        assert!(store.figures().bytes <= 4 << 20);
        tokio::time::advance(MILLISECOND).await;
    }
    let mut kept = Vec::new();
    for key in &order {
        kept.push(is_kept(&store, *key).await);
    }
    let dropped = kept.iter().take_while(|kept| !**kept).count();
    assert!((400..1000).contains(&dropped), "{dropped}");
    assert!(kept[dropped..].iter().all(|kept| *kept), "only the longest settled");
    assert_eq!(store.figures().evicted_bodies, dropped as u64);
    assert_eq!((store.figures().completed, store.figures().evicted_records), (1500, 0));
}

// contract
#[tokio::test(start_paused = true)]
async fn a_dropped_body_leaves_version_age_status_and_location() {
    let store = store(64 << 10, false);
    store.put(1, 1, in_flight()).await;
    settle(&store, 1, 20_000).await;
    tokio::time::advance(MILLISECOND).await;
    for key in 2..5 {
        store.put(key, 1, in_flight()).await;
        settle(&store, key, 20_000).await;
    }
    let cell = store.cell(1).await.unwrap();
    assert_eq!((cell.version, cell.age, cell.left), (version(2), MILLISECOND, HOUR - MILLISECOND));
    assert_eq!(cell.record, Record::Completed { fingerprint: fingerprint(), response: answer(b"").without_body() });
}

// contract: R-21
#[tokio::test(start_paused = true)]
async fn a_claim_makes_room_by_dropping_bodies() {
    let store = store(256 << 10, false);
    for key in 0..100 {
        store.put(key, 1, in_flight()).await;
        settle(&store, key, 2000).await;
    }
    assert_eq!(store.figures().evicted_bodies, 0);
    assert!(claim_until_full(&store, 1000).await > 100);
    assert_eq!(store.figures().evicted_bodies, 100);
    for key in 0..100 {
        assert!(!is_kept(&store, key).await);
    }
}

// contract: R-21
#[tokio::test(start_paused = true)]
async fn bodies_go_in_order_though_the_oldest_record_went_first() {
    let store = store(256 << 10, false);
    for key in 0..10 {
        store.put(key, 1, in_flight()).await;
        settle(&store, key, 10_000).await;
        tokio::time::advance(MILLISECOND).await;
    }
    for key in [0, 1, 5] {
        assert_eq!(store.replace(key, 2, 3, None).await, Swap::Done);
    }
    let mut claimed = 1000;
    for (dropped, key) in [2, 3, 4, 6, 7, 8, 9].into_iter().enumerate() {
        while is_kept(&store, key).await {
            assert_eq!(store.figures().evicted_bodies, dropped as u64, "{key} is next");
            assert!(claimed < 10_000, "its body must go");
            store.put(claimed, 1, in_flight()).await;
            claimed += 1;
        }
    }
}

// contract: R-21, S-5
#[tokio::test(start_paused = true)]
async fn when_only_records_are_left_claims_are_refused_and_all_else_is_taken() {
    let store = store(256 << 10, false);
    let claimed = claim_until_full(&store, 0).await;
    assert!(claimed > 500, "{claimed}");
    for key in (0..claimed).step_by(4) {
        settle(&store, key, 10_000).await;
        assert_eq!(store.replace(key + 1, 1, 2, write(in_flight(), HOUR)).await, Swap::Done);
        assert_eq!(store.replace(key + 2, 1, 2, write(unknown(), HOUR)).await, Swap::Done);
        assert!(store.figures().bytes <= 256 << 10);
        if key + 4 >= claimed {
            break;
        }
    }
    for key in 0..claimed {
        assert!(store.cell(key).await.is_some(), "no record is forgotten");
    }
    // What is freed may be claimed again; and no more.
    for key in (0..claimed).step_by(4).take(20) {
        assert_eq!(store.replace(key, 2, 3, None).await, Swap::Done);
    }
    assert!((1..=40).contains(&claim_until_full(&store, 10_000).await));
    assert_eq!(store.figures().evicted_records, 0);
}

// contract: R-21
#[tokio::test(start_paused = true)]
async fn an_answer_that_fits_nowhere_is_not_kept_and_costs_no_other_its_body() {
    let store = store(64 << 10, false);
    for key in 0..3 {
        store.put(key, 1, in_flight()).await;
    }
    settle(&store, 0, 1000).await;
    settle(&store, 1, 100_000).await;
    settle(&store, 2, 1000).await;
    assert!(is_kept(&store, 0).await && !is_kept(&store, 1).await && is_kept(&store, 2).await);
    assert_eq!(store.figures().evicted_bodies, 1);
}

// contract
#[tokio::test(start_paused = true)]
async fn what_expires_makes_room_again() {
    let store = store(256 << 10, false);
    let claimed = claim_until_full(&store, 0).await;
    tokio::time::advance(HOUR + Duration::from_secs(1)).await;
    let _ended = store.events().await;
    assert_eq!(claim_until_full(&store, 10_000).await, claimed);
}

// contract: R-21
#[tokio::test(start_paused = true)]
async fn eviction_forgets_the_longest_settled_and_never_what_is_open() {
    let store = store(256 << 10, true);
    for key in 0..300 {
        store.put(key, 1, in_flight()).await;
        match key % 3 {
            0 => settle(&store, key, 100).await,
            1 => assert_eq!(store.replace(key, 1, 2, write(unknown(), HOUR)).await, Swap::Done),
            _ => {}
        }
        tokio::time::advance(MILLISECOND).await;
    }
    let more = {
        let mut more = 1000;
        while store.figures().evicted_records < 50 {
            assert!(more < 10_000, "records must go");
            store.put(more, 1, in_flight()).await;
            more += 1;
        }
        more
    };
    let mut gone = HashSet::new();
    for key in (0..300).chain(1000..more) {
        if store.cell(key).await.is_none() {
            gone.insert(key);
        }
    }
    let evicted = store.figures().evicted_records;
    assert_eq!(gone, (0..evicted).map(|at| at * 3).collect(), "the longest settled, and no other");
    claim_until_full(&store, more).await;
    assert_eq!((store.figures().evicted_records, store.figures().completed), (100, 0));
    assert_eq!(store.figures().unknown, 100);
}

// contract: R-21, P-2
#[tokio::test(start_paused = true)]
async fn with_eviction_the_newest_answer_keeps_its_body_in_a_store_full_of_records() {
    for max_bytes in [64 << 10, 1 << 20] {
        let store = store(max_bytes, true);
        store.put(1_000_000, 1, in_flight()).await;
        store.put(1_000_001, 1, unknown()).await;
        for key in 0..max_bytes / 150 {
            store.put(key, 1, in_flight()).await;
            settle(&store, key, 1500).await;
            assert!(is_kept(&store, key).await, "{key} of {max_bytes}: {:?}", store.figures());
            assert!(store.figures().bytes <= max_bytes);
            tokio::time::advance(MILLISECOND).await;
        }
        assert!(store.figures().evicted_records > 0);
        assert_eq!((store.figures().in_flight, store.figures().unknown), (1, 1));
    }
}

// contract: R-21
#[tokio::test(start_paused = true)]
async fn with_eviction_no_record_goes_while_another_has_a_body() {
    let store = store(256 << 10, true);
    for key in 0..100 {
        store.put(key, 1, in_flight()).await;
        settle(&store, key, 10_000).await;
        tokio::time::advance(MILLISECOND).await;
    }
    for key in 0..100 {
        assert!(store.cell(key).await.is_some(), "{key}");
    }
    assert!(is_kept(&store, 99).await && !is_kept(&store, 0).await);
    assert_eq!(store.figures().evicted_records, 0);
}

// contract: R-21
#[tokio::test(start_paused = true)]
async fn with_eviction_an_answer_that_fits_nowhere_costs_no_other_its_record() {
    let store = store(64 << 10, true);
    for key in 0..3 {
        store.put(key, 1, in_flight()).await;
    }
    settle(&store, 0, 1000).await;
    settle(&store, 1, 100_000).await;
    settle(&store, 2, 1000).await;
    assert!(is_kept(&store, 0).await && !is_kept(&store, 1).await && is_kept(&store, 2).await);
    assert_eq!((store.figures().evicted_bodies, store.figures().evicted_records), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_given_back() {
    let store = store(4 << 20, false);
    let empty = store.figures().bytes;
    for key in 0..2000 {
        store.put(key, 1, in_flight()).await;
        settle(&store, key, 500).await;
    }
    let held = store.figures().bytes - empty;
    for key in 0..2000 {
        assert_eq!(store.replace(key, 2, 3, None).await, Swap::Done);
    }
    let left = store.figures().bytes - empty;
    assert!(left < held / 20, "{left} of {held} bytes are left");
}
