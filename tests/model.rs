//! Every interleaving of four requests on one key, walked with the real rule.
//!
//! `rule::admit` and `rule::settle` are the code that runs in production; around them stands a small model of what they
//! are used by: a store of one cell with version compare-and-swap, whose replies come, are refused, get lost or come so
//! late that the write lands long after; owners that crash, freeze past their lease, renew and settle late; an upstream
//! that acts at any time after it was sent a request, or never; and an operator. The walk visits every state that these
//! can reach and checks in each step what the contract promises (P-1 to P-3, R-13, R-18).
//!
//! A walk that finds nothing proves little unless it would have found something: each [`Mutation`] is a plausible
//! mistake in the rule or in the protocol around it, and the walk must find a broken promise with every one of them.

#[path = "model/walk.rs"]
mod walk;
#[path = "model/world.rs"]
mod world;

use oncegate::rule::OnUnknown;

use self::{
    walk::walk,
    world::{Broken, Mutation, Settled, Setup},
};

/// Four requests, the last of them another request under the same key.
fn small() -> Setup {
    Setup {
        fingerprints: [0, 0, 0, 1],
        faults: 1,
        crashes: 1,
        renewals: 1,
        operations: 1,
        on_unknown: OnUnknown::Hold,
        mutation: None,
        policy: Settled::default(),
    }
}

#[track_caller]
fn holds(setup: &Setup) -> usize {
    let states = walk(setup).unwrap_or_else(|counterexample| panic!("{counterexample}"));
    println!("{states} states: {setup:?}");
    states
}

// contract: R-8 R-12 R-13 R-17 R-18
#[test]
fn no_interleaving_breaks_a_promise_while_owners_renew_and_replies_are_lost() {
    holds(&Setup { operations: 0, crashes: 0, ..small() });
}

// contract: R-18
#[test]
fn no_interleaving_breaks_a_promise_while_owners_crash_and_operators_act() {
    holds(&Setup { faults: 0, renewals: 0, ..small() });
}

// contract: R-17
#[test]
fn running_unknowns_anew_breaks_nothing_but_what_it_opts_out_of() {
    holds(&Setup { on_unknown: OnUnknown::Retry, operations: 0, renewals: 0, faults: 0, ..small() });
}

/// Fourteen million states, 2 GB, two minutes when optimised:
/// `cargo test --release --test model -- --ignored --nocapture`.
#[test]
#[ignore = "minutes: more than a million states"]
fn no_interleaving_breaks_a_promise_with_more_of_everything() {
    let more = [
        small(),
        Setup { fingerprints: [0, 0, 1, 1], ..small() },
        Setup { faults: 2, crashes: 0, ..small() },
        Setup { faults: 2, renewals: 2, crashes: 0, operations: 0, ..small() },
        Setup { on_unknown: OnUnknown::Retry, renewals: 0, operations: 0, ..small() },
    ];
    let total: usize = more.iter().map(holds).sum();
    println!("{total} states in all");
    assert!(total >= 1_000_000, "too few to be called large");
}

/// The walk must find the promise that the mistake breaks.
#[track_caller]
fn caught(mutation: Mutation, expected: Broken) {
    match walk(&Setup { mutation: Some(mutation), ..small() }) {
        Ok(states) => panic!("{mutation:?} passed unnoticed through {states} states"),
        Err(counterexample) => assert_eq!(counterexample.broken, expected, "{counterexample}"),
    }
}

macro_rules! catches {
    ($($name:ident: $mutation:ident breaks $broken:ident;)*) => {$(
        #[test]
        fn $name() {
            caught(Mutation::$mutation, Broken::$broken);
        }
    )*};
}

catches! {
    catches_a_lapsed_lease_that_frees_the_key: FreeOnLapse breaks Twice;
    catches_a_lease_that_is_the_records_expiry: LeaseIsExpiry breaks Twice;
    catches_an_ignored_fingerprint: IgnoreFingerprint breaks WrongFingerprint;
    catches_versions_that_are_counted: CountVersions breaks Unfenced;
    catches_a_lost_attempt_that_frees_the_key: FreeOnLost breaks Twice;
    catches_a_bad_gateway_taken_for_not_executed: ReleaseOnBadGateway breaks Twice;
    catches_a_renewal_that_looks_at_no_version: RenewUnchecked breaks Unfenced;
    catches_a_settlement_that_looks_at_no_version: SettleUnchecked breaks Unfenced;
    catches_a_claim_that_looks_at_no_version: ClaimUnchecked breaks Unfenced;
    catches_a_claim_taken_back_that_is_anothers: TakeBackUnchecked breaks Unfenced;
    catches_a_request_sent_on_an_uncertain_claim: SendWhenUncertain breaks Twice;
    catches_a_waiter_that_forwards_without_a_claim: WaiterForwards breaks Twice;
    catches_a_lost_attempt_sent_again: SendAgainWhenLost breaks Twice;
    catches_an_answer_told_before_it_is_settled: TellBeforeSettled breaks ToldUnsettled;
    catches_an_owner_that_takes_its_own_uncertain_renewal_for_anothers: ForgetOwnRenewal breaks ToldUnsettled;
    catches_a_bad_gateway_taken_for_the_outcome: CompleteOnBadGateway breaks NeverExecuted;
}
