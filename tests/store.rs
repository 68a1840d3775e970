//! What every store must do, and what the memory store must do besides.
//!
//! `cases` is the conformance suite: generic over [`subject::Subject`], one `#[test]` a case, and each case once more
//! through a store that loses requests and replies, and on real Redis servers. Another store joins with one line at the
//! end of this file.
//! `against_model` gives the same random operations to a plain model and to the store; `full`, `race` and `memory` are
//! about what only this process can know: bytes, threads, and the answer's allocation; `faulty` is about the faults.

#![expect(clippy::unwrap_used, reason = "a step that a case cannot go on without")]

#[path = "store/against_model.rs"]
mod against_model;
#[path = "store/cases.rs"]
mod cases;
#[path = "store/cluster_away.rs"]
mod cluster_away;
#[path = "store/events.rs"]
mod events;
#[path = "store/faulty.rs"]
mod faulty;
#[path = "store/full.rs"]
mod full;
#[path = "store/managing.rs"]
mod managing;
#[path = "store/memory.rs"]
mod memory;
#[path = "store/race.rs"]
mod race;
#[path = "store/redis.rs"]
mod redis;
#[path = "store/redis_model.rs"]
mod redis_model;
#[path = "store/script.rs"]
mod script;
#[path = "support/redis.rs"]
mod servers;
#[path = "store/subject.rs"]
mod subject;

/// Gives the suite's cases to a macro, with what that needs besides.
macro_rules! suite {
    ($macro:ident $with:tt) => {
        $macro! { $with
            cases {
                an_unseen_key_is_absent
                every_record_comes_back_as_it_was_written
                exactly_one_of_many_claims_wins
                exactly_one_of_many_who_saw_the_same_version_wins
                a_stale_claim_brings_the_cell
                a_stale_version_brings_the_cell_and_writes_nothing
                a_claim_sent_twice_is_one_write
                a_settlement_sent_twice_is_one_write
                a_claim_sent_again_after_its_settlement_is_stale
                a_version_expected_of_an_absent_key_is_stale
                a_freed_key_is_new
                a_free_by_another_version_is_refused
                freeing_an_absent_key_changes_nothing
                a_late_owner_is_fenced_by_who_wrote_since
                an_expired_record_is_absent
                an_expired_record_is_never_compared_with
                a_record_lives_until_its_time
                a_record_kept_for_no_time_is_absent
                each_write_begins_a_new_retention
                ages_begin_anew_with_each_write
                a_lapsed_lease_never_frees_the_key
                the_owner_of_a_lapsed_lease_may_renew_it
                the_owner_of_a_lapsed_lease_may_settle_it
                keys_that_begin_alike_are_two_keys
                waiting_ends_with_the_settlement
                waiting_ends_when_the_key_is_freed
                waiting_ends_with_a_renewal
                waiting_ends_at_once_where_another_has_written
                waiting_ends_at_once_for_an_absent_key
                waiting_ends_when_the_lease_lapses
                waiting_ends_when_the_record_expires
                waiting_lasts_while_nothing_changes
                all_who_wait_are_woken
                a_waiter_that_leaves_harms_nobody
                who_was_woken_takes_no_other_waiters_place
                no_change_is_missed_however_it_falls
            }
            events {
                a_lapse_is_reported_once_and_writes_nothing
                a_renewed_lease_does_not_lapse
                a_lease_that_lapses_again_is_reported_again
                a_lapse_is_reported_though_its_owner_came_back_first
                the_end_of_an_unknown_record_is_announced_a_day_before
                an_unknown_record_of_a_few_hours_is_not_announced
                the_end_of_an_unknown_record_is_reported_with_its_reason
                the_end_of_a_lapsed_record_is_reported
                an_unknown_record_resolved_in_time_is_not_reported
                a_completed_record_ends_quietly
                an_unknown_record_whose_key_is_claimed_anew_is_reported
                figures_follow_the_records
                figures_forget_what_expired
            }
            managing {
                pages_hold_every_record_once
                a_record_that_stays_is_seen_once_while_others_come_and_go
                a_page_holds_only_what_the_filter_asks_for
                a_lapsed_record_is_listed_as_unknown
                an_owner_is_as_old_as_its_claim_however_often_it_renews_its_lease
                an_expired_record_is_not_listed
                a_cursor_of_elsewhere_is_refused
                a_record_is_found_by_its_short_id
                a_record_that_is_gone_is_not_found
                replays_are_counted
            }
        }
    };
}

/// One `#[test]` a case, with time paused.
macro_rules! each_case {
    ([$subject:ty] $($module:ident { $($case:ident)+ })+) => {$(
        mod $module {
            $(
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    crate::$module::$case(<$subject as crate::subject::Subject>::empty().await).await;
                }
            )+
        }
    )+};
}

/// One `#[test]` a case, on a server of its own, as time goes by; those about what only one process can know are left
/// out.
macro_rules! each_case_for_real {
    ([$subject:ty] $($module:ident { $($case:ident)+ })+) => {$(
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    if crate::servers::is_installed() && !crate::redis::LEFT_OUT.contains(&stringify!($case)) {
                        crate::$module::$case(<$subject as crate::subject::Subject>::empty().await).await;
                    }
                }
            )+
        }
    )+};
}

/// All cases one after the other, on servers that take their time to start.
macro_rules! all_cases_for_real {
    ([$subject:ty, $servers:expr] $($module:ident { $($case:ident)+ })+) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn every_case() {
            if !crate::servers::is_installed() {
                return;
            }
            let _shared = crate::redis::Share::new(tokio::task::block_in_place(|| $servers));
            $($(
                if !crate::redis::LEFT_OUT.contains(&stringify!($case)) {
                    println!("{}", stringify!($case));
                    crate::$module::$case(<$subject as crate::subject::Subject>::empty().await).await;
                }
            )+)+
        }
    };
}

mod memory_store {
    suite! { each_case [crate::subject::Memory] }
}

mod memory_store_behind_faults {
    suite! { each_case [crate::subject::Faulty<crate::subject::Memory>] }
}

mod redis_single {
    suite! { each_case_for_real [crate::redis::OnRedis] }
}

mod redis_sentinel {
    use crate::{
        redis::Servers,
        servers::{Options, Sentinel},
    };
    suite! { all_cases_for_real [crate::redis::OnRedis, Servers::Sentinel(Sentinel::start(Options::new()))] }
}

mod redis_cluster {
    use crate::{
        redis::Servers,
        servers::{Cluster, Options},
    };
    suite! { all_cases_for_real [crate::redis::OnRedis, Servers::Cluster(Cluster::start(Options::new()))] }
}
