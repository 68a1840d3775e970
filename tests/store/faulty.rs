//! Each fault does what it says: what is refused was not written, and what is unknown may have been.

use std::{sync::Arc, time::Duration};

use oncegate::{
    rule::Expect,
    store::{
        Store, StoreError, Swap,
        faulty::{Fault, FaultyStore, Step},
        memory::{MemoryOptions, MemoryStore},
    },
};
use tokio::time::timeout;

use crate::subject::{HOUR, Steps, completed, id, in_flight, version, write};

const SECOND: Duration = Duration::from_secs(1);

fn faulty() -> FaultyStore<MemoryStore> {
    FaultyStore::new(Arc::new(MemoryStore::new(MemoryOptions { max_bytes: 1 << 20, allow_eviction: false })))
}

async fn claim(store: &FaultyStore<MemoryStore>) -> Result<Swap, StoreError> {
    store.swap(&id(1), Expect::Absent, version(1), write(in_flight(), HOUR)).await
}

#[tokio::test(start_paused = true)]
async fn a_refused_step_writes_nothing() {
    for (fault, is_full) in [(Fault::Refuse, false), (Fault::Full, true)] {
        let store = faulty();
        store.script(Step::Claim, fault);
        let error = claim(&store).await.unwrap_err();
        assert_eq!(matches!(error, StoreError::Full), is_full);
        assert!(is_full || matches!(error, StoreError::Refused(_)));
        assert_eq!(store.cell(1).await, None);
        assert_eq!(claim(&store).await.unwrap(), Swap::Done, "only the next step was scripted");
        assert_eq!(store.met(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_leaves_ones_own_version_in_the_store() {
    let store = faulty();
    store.script(Step::Claim, Fault::LoseReply);
    assert!(matches!(claim(&store).await, Err(StoreError::Unknown(_))));
    assert_eq!(store.cell(1).await.unwrap().version, version(1));
    assert_eq!(claim(&store).await.unwrap(), Swap::Done, "sent again, it is the same write");
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_leaves_the_same_doubt_and_no_record() {
    let store = faulty();
    store.script(Step::Claim, Fault::LoseRequest);
    assert!(matches!(claim(&store).await, Err(StoreError::Unknown(_))));
    assert_eq!(store.cell(1).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_late_write_arrives_after_its_writer_gave_up() {
    let store = faulty();
    store.script(Step::Claim, Fault::Late(5 * SECOND));
    assert!(matches!(claim(&store).await, Err(StoreError::Unknown(_))));
    assert_eq!(store.cell(1).await, None);
    tokio::time::sleep(6 * SECOND).await;
    assert_eq!(store.cell(1).await.unwrap().version, version(1));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_step_takes_its_time() {
    let store = faulty();
    store.script(Step::Claim, Fault::Delay(5 * SECOND));
    assert!(timeout(4 * SECOND, claim(&store)).await.is_err());
    assert_eq!(store.cell(1).await, None);
    store.script(Step::Claim, Fault::Delay(5 * SECOND));
    assert_eq!(claim(&store).await.unwrap(), Swap::Done);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_step_goes_on_when_released() {
    let store = faulty();
    store.script(Step::Claim, Fault::Hang);
    let hanging = tokio::spawn({
        let store = store.clone();
        async move { claim(&store).await.unwrap() }
    });
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!((store.hanging(), hanging.is_finished()), (1, false));
    store.release();
    assert_eq!(hanging.await.unwrap(), Swap::Done);
    assert_eq!(store.hanging(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_refuses_everything_and_forgets_nothing() {
    let store = faulty();
    assert_eq!(claim(&store).await.unwrap(), Swap::Done);
    store.set_down(true);
    assert!(!store.figures().up);
    assert!(matches!(store.load(&id(1)).await, Err(StoreError::Refused(_))));
    let settled = store.swap(&id(1), Expect::Version(version(1)), version(2), write(completed("paid"), HOUR)).await;
    assert!(matches!(settled, Err(StoreError::Refused(_))));
    store.set_down(false);
    assert_eq!(store.cell(1).await.unwrap().version, version(1));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_brings_the_same_faults() {
    let run = async |seed| {
        let store = faulty();
        store.seed(seed, &[(Fault::Refuse, 300), (Fault::LoseReply, 200)]);
        let mut ends = Vec::new();
        for _ in 0..200 {
            ends.push(store.load(&id(1)).await.is_ok());
        }
        ends
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
    let calm = run(1).await.iter().filter(|is_ok| **is_ok).count();
    assert!((70..130).contains(&calm), "{calm} of 200, where half are expected");
}
