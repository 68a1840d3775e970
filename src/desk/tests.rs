//! The desk over the real memory store, and over one that fails; time is paused.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;

use super::*;
use crate::{
    rule::{Attempt, Fingerprint, Record, RouteName, UnknownReason, policy::OnUnknown},
    store::{
        faulty::{Fault, FaultyStore, Step},
        memory::{MemoryOptions, MemoryStore},
    },
};

type TestDesk = Arc<Desk<FaultyStore<MemoryStore>>>;

const ID: RecordId = RecordId([7; 32]);
const SECOND: Duration = Duration::from_secs(1);

fn desk() -> (TestDesk, FaultyStore<MemoryStore>) {
    let store =
        FaultyStore::new(Arc::new(MemoryStore::new(MemoryOptions { max_bytes: 1 << 20, allow_eviction: false })));
    (another(&store), store)
}

/// Another process before the same store.
fn another(store: &FaultyStore<MemoryStore>) -> TestDesk {
    let limits = Limits { lease: 15 * SECOND, max_in_flight: 2, settle_backlog: 4096 };
    Arc::new(Desk::new(Arc::new(store.clone()), limits))
}

fn fingerprint(of: u8) -> Fingerprint {
    Fingerprint([of; 32])
}

fn route() -> RouteName {
    RouteName("charges".into())
}

fn answer() -> Stored {
    Stored::keep(&Policy::default(), 201, &HeaderMap::new(), &[Bytes::from_static(b"charged")])
}

fn completed() -> Option<Record<Stored>> {
    Some(Record::Completed { fingerprint: fingerprint(1), response: answer() })
}

async fn board_as(desk: &TestDesk, policy: &Policy, of: u8) -> Result<Boarding, BoardError> {
    let route = route();
    let keep = Keep::of(policy, None);
    let booking = Booking { id: &ID, fingerprint: fingerprint(of), policy, route: &route, keep, observed: false };
    desk.board(booking).await
}

async fn board(desk: &TestDesk) -> Result<Boarding, BoardError> {
    board_as(desk, &Policy::default(), 1).await
}

async fn claimed(desk: &TestDesk) -> Claim {
    let boarding = board(desk).await.unwrap();
    let Boarding::Claimed(claim) = boarding else { panic!("expected a claim, got {boarding:?}") };
    claim
}

async fn held(store: &FaultyStore<MemoryStore>) -> Option<Record<Stored>> {
    store.load(&ID).await.unwrap().map(|cell| cell.record)
}

// contract: R-8
#[tokio::test(start_paused = true)]
async fn claims_once_and_replays_what_was_settled() {
    let (desk, _) = desk();
    let claim = claimed(&desk).await;
    assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
    assert!(
        matches!(board(&desk).await.unwrap(), Boarding::Replay(replay) if replay.stored == answer() && !replay.waited)
    );
}

// contract: R-8
#[tokio::test(start_paused = true)]
async fn recognises_its_claim_when_only_the_reply_was_lost() {
    let (desk, store) = desk();
    store.script(Step::Claim, Fault::LoseReply);
    let claim = claimed(&desk).await;
    assert_eq!(desk.settle(claim, None).await, Settled::Done);
    assert_eq!(held(&store).await, None);
}

// contract: R-8, P-1
#[tokio::test(start_paused = true)]
async fn what_a_look_finds_after_a_lost_reply_is_what_became_of_the_request() {
    for fault in [Fault::LoseReply, Fault::Late(3 * SECOND)] {
        let (desk, store) = desk();
        let claim = claimed(&desk).await;
        assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
        store.script(Step::Claim, fault);
        let boarding = board(&desk).await;
        assert!(matches!(boarding, Ok(Boarding::Replay(_))), "{fault:?}: {boarding:?}");
        tokio::time::sleep(20 * SECOND).await;
        assert_eq!(held(&store).await, completed(), "{fault:?}");
        assert_eq!(desk.in_flight().held(), 0, "{fault:?}");
    }
}

// contract: R-8, S-2
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_there_and_never_vouched_for_is_taken_back() {
    let (desk, store) = desk();
    // As a server answers that has the claim, while its replicas do not.
    store.script(Step::Claim, Fault::LoseReply);
    store.script(Step::Claim, Fault::LoseReply);
    let Err(BoardError::Uncertain { claim, .. }) = board(&desk).await else { panic!("nobody vouched for it") };
    assert!(matches!(held(&store).await, Some(Record::InFlight { .. })));
    desk.withdraw(*claim);
    tokio::time::sleep(SECOND).await;
    assert_eq!(held(&store).await, None);
}

// contract: R-8, P-4
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_its_claim_is_asked_for_leaves_no_claim_behind() {
    for fault in [Fault::DelayReply(SECOND), Fault::Delay(SECOND), Fault::LoseReply] {
        let (desk, store) = desk();
        store.script(Step::Claim, fault);
        // The look that follows a lost reply takes its time, too.
        store.script(Step::Load, Fault::DelayReply(SECOND));
        let left = tokio::time::timeout(SECOND / 2, board(&desk)).await;
        assert!(left.is_err(), "{fault:?}: the client did not wait");
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(held(&store).await, None, "{fault:?}");
        assert_eq!(desk.in_flight().held(), 0, "{fault:?}");
    }
}

// contract: R-8
#[tokio::test(start_paused = true)]
async fn takes_back_a_claim_that_arrives_after_it_was_given_up() {
    let (desk, store) = desk();
    store.script(Step::Claim, Fault::Late(3 * SECOND));
    let Err(BoardError::Uncertain { claim, .. }) = board(&desk).await else { panic!("its fate is not known") };
    desk.withdraw(*claim);
    tokio::time::sleep(4 * SECOND).await;
    assert_eq!(held(&store).await, None, "the late claim was taken back");
    assert_eq!(desk.counters().claims_abandoned_ok.load(Ordering::Relaxed), 1);
}

// contract: R-8
#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_leaves_nothing_to_take_back() {
    let (desk, store) = desk();
    store.script(Step::Claim, Fault::Refuse);
    assert!(matches!(board(&desk).await, Err(BoardError::Unavailable(_))));
    store.script(Step::Claim, Fault::Full);
    assert!(matches!(board(&desk).await, Err(BoardError::Full)));
    assert_eq!(held(&store).await, None);
}

// contract: R-15
#[tokio::test(start_paused = true)]
async fn a_waiter_gets_the_owners_answer() {
    let (desk, _) = desk();
    let claim = claimed(&desk).await;
    let waiter = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move { board(&desk).await }
    });
    tokio::time::sleep(SECOND).await;
    assert_eq!(desk.waiting(), 1);
    assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
    assert!(matches!(waiter.await.unwrap().unwrap(), Boarding::Replay(replay) if replay.waited));
    assert!(desk.waiting() == 0 && desk.waiters.is_empty(), "nothing of the waiter is left");
}

// contract: R-15
#[tokio::test(start_paused = true)]
async fn of_the_waiters_on_a_freed_key_exactly_one_claims() {
    let (desk, _) = desk();
    let claim = claimed(&desk).await;
    let waiters: Vec<_> = (0..10)
        .map(|_| {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move {
                let boarding = board(&desk).await.unwrap();
                let Boarding::Claimed(claim) = boarding else {
                    assert!(matches!(boarding, Boarding::Replay(_)), "{boarding:?}");
                    return 0;
                };
                tokio::time::sleep(SECOND).await;
                assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
                1
            })
        })
        .collect();
    tokio::time::sleep(SECOND).await;
    assert_eq!(desk.settle(claim, None).await, Settled::Done);
    let mut claims = 0;
    for waiter in waiters {
        claims += waiter.await.unwrap();
    }
    assert_eq!(claims, 1);
}

// contract: R-15
#[tokio::test(start_paused = true)]
async fn waits_no_longer_than_it_may_and_no_more_than_may() {
    let (desk, _) = desk();
    let mut claim = claimed(&desk).await;
    let impatient = Policy { wait_timeout: 2 * SECOND, max_waiters: 1, ..Policy::default() };
    let work = async {
        let first = board_as(&desk, &impatient, 1);
        let second = async {
            tokio::time::sleep(SECOND).await;
            board_as(&desk, &impatient, 1).await
        };
        tokio::join!(first, second)
    };
    let (first, second) = Box::pin(desk.tend(&mut claim, work)).await;
    assert!(
        matches!(first.unwrap(), Boarding::InFlight { running } if running >= 2 * SECOND - Duration::from_millis(5))
    );
    assert!(matches!(second.unwrap(), Boarding::InFlight { .. }));
}

// contract: R-6
#[tokio::test(start_paused = true)]
async fn another_request_under_the_same_key_is_told_apart_in_every_state() {
    let (desk, _) = desk();
    let claim = claimed(&desk).await;
    assert!(matches!(board_as(&desk, &Policy::default(), 2).await.unwrap(), Boarding::Mismatch));
    assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
    assert!(matches!(board_as(&desk, &Policy::default(), 2).await.unwrap(), Boarding::Mismatch));
}

// contract: R-18
#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_while_the_owner_works() {
    let (desk, _) = desk();
    let mut claim = claimed(&desk).await;
    desk.tend(&mut claim, tokio::time::sleep(60 * SECOND)).await;
    let policy = Policy { wait_timeout: Duration::ZERO, ..Policy::default() };
    let boarding = board_as(&desk, &policy, 1).await.unwrap();
    assert!(matches!(boarding, Boarding::InFlight { running } if running >= 60 * SECOND), "{boarding:?}");
    assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
}

// contract: R-18
#[tokio::test(start_paused = true)]
async fn an_owner_that_fell_silent_reads_as_unknown_and_may_still_settle() {
    let (desk, store) = desk();
    let claim = claimed(&desk).await;
    tokio::time::sleep(16 * SECOND).await;
    assert!(matches!(board(&another(&store)).await.unwrap(), Boarding::Unknown), "never free");
    assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
    assert_eq!(desk.counters().settled_late.load(Ordering::Relaxed), 1);
    assert!(matches!(board(&desk).await.unwrap(), Boarding::Replay(_)));
}

// contract: R-18
#[tokio::test(start_paused = true)]
async fn an_owner_is_fenced_once_somebody_else_has_written() {
    let (desk, store) = desk();
    let claim = claimed(&desk).await;
    tokio::time::sleep(16 * SECOND).await;
    let anew = Policy { on_unknown: OnUnknown::Retry, ..Policy::default() };
    let other = another(&store);
    let Boarding::Claimed(second) = board_as(&other, &anew, 1).await.unwrap() else { panic!("claimed anew") };
    assert_eq!(desk.settle(claim, completed()).await, Settled::Fenced);
    assert!(matches!(held(&store).await, Some(Record::InFlight { .. })), "the second owner's record is untouched");
    assert_eq!(other.settle(second, completed()).await, Settled::Done);
}

// contract: R-18, P-1
#[tokio::test(start_paused = true)]
async fn where_the_owner_is_a_lapsed_lease_is_waited_for_and_nothing_runs_anew() {
    for on_unknown in [OnUnknown::Hold, OnUnknown::Retry] {
        let (desk, _) = desk();
        let claim = claimed(&desk).await;
        tokio::time::sleep(16 * SECOND).await;
        let retry = tokio::spawn({
            let (desk, policy) = (Arc::clone(&desk), Policy { on_unknown, ..Policy::default() });
            async move { board_as(&desk, &policy, 1).await }
        });
        tokio::time::sleep(SECOND).await;
        assert!(!retry.is_finished(), "{on_unknown:?}");
        assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
        assert!(matches!(retry.await.unwrap().unwrap(), Boarding::Replay(_)), "{on_unknown:?}");
    }
}

// contract: R-14
#[tokio::test(start_paused = true)]
async fn an_outcome_that_waits_for_the_store_is_waited_for_and_not_run_anew() {
    let (desk, store) = desk();
    let claim = claimed(&desk).await;
    store.set_down(true);
    assert_eq!(desk.settle(claim, completed()).await, Settled::Unsettled);
    tokio::time::sleep(20 * SECOND).await;
    // The store is back, and has not been told yet.
    store.script(Step::Settle, Fault::Delay(2 * SECOND));
    store.set_down(false);
    let anew = Policy { on_unknown: OnUnknown::Retry, ..Policy::default() };
    assert!(matches!(board_as(&desk, &anew, 1).await.unwrap(), Boarding::Replay(_)));
}

// contract: R-15
#[tokio::test(start_paused = true)]
async fn a_waiter_outlasts_a_store_that_is_away_for_a_while() {
    let (desk, store) = desk();
    let claim = claimed(&desk).await;
    let waiter = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move { board(&desk).await }
    });
    tokio::time::sleep(SECOND).await;
    store.script(Step::Load, Fault::Refuse);
    store.script(Step::Load, Fault::LoseReply);
    store.script(Step::Load, Fault::LoseReply);
    assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
    assert!(matches!(waiter.await.unwrap().unwrap(), Boarding::Replay(replay) if replay.waited));
}

// contract: R-14
#[tokio::test(start_paused = true)]
async fn an_outcome_the_store_does_not_take_is_written_later_and_never_frees_the_key() {
    let (desk, store) = desk();
    let claim = claimed(&desk).await;
    store.set_down(true);
    assert_eq!(desk.settle(claim, completed()).await, Settled::Unsettled);
    tokio::time::sleep(10 * SECOND).await;
    store.set_down(false);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(held(&store).await, completed());
}

// contract: R-14
#[tokio::test(start_paused = true)]
async fn a_settlement_whose_reply_was_lost_is_recognised() {
    let (desk, store) = desk();
    let claim = claimed(&desk).await;
    store.script(Step::Settle, Fault::LoseReply);
    assert_eq!(desk.settle(claim, completed()).await, Settled::Unsettled);
    tokio::time::sleep(SECOND).await;
    assert_eq!(held(&store).await, completed());
}

// contract: R-18
#[tokio::test(start_paused = true)]
async fn a_renewal_whose_reply_was_lost_does_not_fence_its_owner() {
    let (desk, store) = desk();
    let mut claim = claimed(&desk).await;
    store.script(Step::Renew, Fault::LoseReply);
    desk.tend(&mut claim, tokio::time::sleep(6 * SECOND)).await;
    assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
}

// contract: R-18
#[tokio::test(start_paused = true)]
async fn renewals_of_unknown_fate_do_not_fence_their_owner_however_many() {
    let (desk, store) = desk();
    let mut claim = claimed(&desk).await;
    store.script(Step::Renew, Fault::LoseReply);
    store.script(Step::Renew, Fault::LoseRequest);
    store.script(Step::Renew, Fault::LoseRequest);
    desk.tend(&mut claim, tokio::time::sleep(16 * SECOND)).await;
    assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
}

// contract: R-18
#[tokio::test(start_paused = true)]
async fn a_failover_that_lost_a_renewal_does_not_fence_its_owner() {
    let (desk, store) = desk();
    let mut claim = claimed(&desk).await;
    let (first, write) = (claim.version, claim.in_flight());
    desk.tend(&mut claim, tokio::time::sleep(11 * SECOND)).await;
    // The server that takes over has the claim, and neither of its renewals.
    let renewed = Expect::Version(claim.version);
    assert!(matches!(store.swap(&ID, renewed, first, Some(write)).await, Ok(Swap::Done)));
    desk.tend(&mut claim, tokio::time::sleep(6 * SECOND)).await;
    assert_eq!(claim.version, first, "the renewal found it");
    assert_eq!(desk.settle(claim, completed()).await, Settled::Done);
    assert_eq!(held(&store).await, completed());
}

#[tokio::test(start_paused = true)]
async fn only_what_would_be_forwarded_is_refused_at_the_bound() {
    let (desk, _) = desk();
    let first = claimed(&desk).await;
    assert_eq!(desk.settle(first, completed()).await, Settled::Done);
    let _bound = (desk.in_flight().try_hold(), desk.in_flight().try_hold());
    assert!(matches!(board(&desk).await.unwrap(), Boarding::Replay(_)));
    let other = RecordId([8; 32]);
    let (policy, route) = (Policy::default(), route());
    let keep = Keep::of(&policy, None);
    let booking =
        Booking { id: &other, fingerprint: fingerprint(1), policy: &policy, route: &route, keep, observed: false };
    assert!(matches!(desk.board(booking).await.unwrap(), Boarding::Overloaded));
}

// contract: R-23
#[tokio::test(start_paused = true)]
async fn a_drain_sends_waiters_away_and_counts_what_is_left() {
    let (desk, _) = desk();
    let mut claim = claimed(&desk).await;
    let waiter = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move { board(&desk).await }
    });
    let owner = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move {
            desk.tend(&mut claim, desk.drain_ended()).await;
            let lost = Attempt::Lost(crate::rule::Loss::Drained);
            let record = rule::settle(&Policy::default(), fingerprint(1), lost);
            desk.settle(claim, record).await
        }
    });
    tokio::time::sleep(SECOND).await;
    desk.drain();
    assert!(matches!(waiter.await.unwrap().unwrap(), Boarding::Draining));
    assert_eq!(desk.drained(clock::now() + 5 * SECOND, async {}).await, 1);
    assert_eq!(owner.await.unwrap(), Settled::Done);
    let Some(Record::Unknown { reason, .. }) = held(desk.store()).await else { panic!("written unknown") };
    assert_eq!(reason, UnknownReason::Drained);
}
