//! Many threads at once, on the real clock: no step is lost, no waiter sleeps on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oncegate::{
    rule::{Expect, Record},
    store::{
        Store, StoreError, Swap,
        memory::{MemoryOptions, MemoryStore},
    },
};
use tokio::time::timeout;

use crate::subject::{HOUR, Steps, completed, id, in_flight, version, write};

/// Long enough for the slowest machine; a lost wake-up would sleep for the whole lease.
const PATIENCE: Duration = Duration::from_secs(30);

fn store(max_bytes: u64) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(MemoryOptions { max_bytes, allow_eviction: false }))
}

// contract: R-15
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_between_looking_and_waiting() {
    let store = store(64 << 20);
    for key in 0..1000 {
        store.put(key, 1, in_flight()).await;
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    loop {
                        let cell = store.cell(key).await.unwrap();
                        if matches!(cell.record, Record::Completed { .. }) {
                            return;
                        }
                        store.changed(&id(key), cell.version).await;
                    }
                })
            })
            .collect();
        assert_eq!(store.replace(key, 1, 2, write(in_flight(), HOUR)).await, Swap::Done);
        assert_eq!(store.replace(key, 2, 3, write(completed("paid"), HOUR)).await, Swap::Done);
        for waiter in waiters {
            timeout(PATIENCE, waiter).await.expect("no waiter sleeps on").unwrap();
        }
    }
}

/// Every task claims, settles and frees the same few keys; a claim won is a token that nobody else may hold.
// contract: P-1
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_has_one_owner_at_a_time() {
    let store = store(64 << 20);
    let owners: Arc<Vec<AtomicU64>> = Arc::new((0..8).map(|_| AtomicU64::new(0)).collect());
    let tasks: Vec<_> = (0..8_u128)
        .map(|task| {
            let (store, owners) = (Arc::clone(&store), Arc::clone(&owners));
            tokio::spawn(async move {
                for round in 0..2000_u128 {
                    let (key, named) = ((round % 8) as u64, (task << 64) + 2 * round);
                    if store.claim_by(key, named, write(in_flight(), HOUR)).await == Swap::Done {
                        let owner = &owners[key as usize];
                        assert_eq!(owner.fetch_add(1, Ordering::SeqCst), 0, "two owners");
                        tokio::task::yield_now().await;
                        assert_eq!(owner.fetch_sub(1, Ordering::SeqCst), 1, "two owners");
                        assert_eq!(store.replace(key, named, named + 1, None).await, Swap::Done);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.figures().in_flight, 0);
}

/// Claims, settlements, frees, housekeeping and pages in a store that is always full: the account holds throughout.
// contract: R-21
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_account_holds_while_all_happens_at_once() {
    const MAX_BYTES: u64 = 2 << 20;
    let store = store(MAX_BYTES);
    let tasks: Vec<_> = (0..4_u64)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut taken = Vec::new();
                for round in 0..2500 {
                    let key = (task << 32) + round;
                    match store.swap(&id(key), Expect::Absent, version(1), write(in_flight(), HOUR)).await {
                        Ok(swap) => assert_eq!(swap, Swap::Done),
                        Err(StoreError::Full) => continue,
                        Err(error) => panic!("{error}"),
                    }
                    match round % 4 {
                        0 => assert_eq!(store.replace(key, 1, 2, None).await, Swap::Done),
                        _ => {
                            let record = completed(&"x".repeat(2000));
                            let swap = store.replace(key, 1, 2, write(record, HOUR)).await;
                            assert!(matches!(swap, Swap::Done | Swap::DoneNotKept), "{swap:?}");
                            taken.push(key);
                        }
                    }
                    assert!(store.figures().bytes <= MAX_BYTES);
                }
                taken
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        for key in task.await.unwrap() {
            assert_eq!(store.cell(key).await.expect("no record is forgotten").version, version(2));
            count += 1;
        }
    }
    let figures = store.figures();
    assert_eq!((figures.completed, figures.in_flight), (count, 0));
    assert!(figures.bytes <= MAX_BYTES);
    assert!(figures.evicted_bodies > 0);
}
