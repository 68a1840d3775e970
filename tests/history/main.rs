//! Whole rounds: three real processes of Oncegate share one Redis, many clients retry on whichever of them, something goes
//! wrong, and a checker that knows nothing of the proxy compares what everybody saw.
//!
//! Each kind of trouble is a [`fault::Kind`], with a short round in the suite and a long one by hand:
//!
//! ```console
//! $ cargo nextest run --test history                                  # a short round of each
//! $ ONCEGATE_ROUNDS=5 ONCEGATE_SECONDS=60 cargo nextest run --release --test history --run-ignored only --no-capture
//! $ ONCEGATE_SEED=7 cargo nextest run --test history short::a_frozen_process --no-capture
//! ```
//!
//! A round prints its seed and what it saw. The seed draws what every client asks of whom, what the upstream does with
//! each record, and what is done to whom when; how these meet in time is the machine's.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(clippy::disallowed_methods, reason = "these tests look at other processes from outside: time is real here")]

#[path = "../support/history.rs"]
mod history;
#[path = "../support/luck.rs"]
mod luck;
#[path = "../support/relay.rs"]
mod relay;
#[path = "../support/redis.rs"]
mod servers;
#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../it/harness/wire.rs"]
mod wire;

mod client;
mod fault;
mod log;
mod process;
mod round;
mod upstream;
mod world;

/// A short and a long round of each kind, each its own `#[test]`.
macro_rules! rounds {
    ($($name:ident: $kind:ident)+) => {
        mod short {
            $(
                #[test]
                fn $name() {
                    crate::round::short(crate::fault::Kind::$kind);
                }
            )+
        }

        mod long {
            $(
                #[test]
                #[ignore = "takes minutes"]
                fn $name() {
                    crate::round::long(crate::fault::Kind::$kind);
                }
            )+
        }
    };
}

rounds! {
    one_process_alone: Alone
    // contract: P-1, P-2, P-3
    nothing_goes_wrong: Quiet
    // contract: P-4, P-5
    a_killed_process: ProcessKilled
    // contract: R-18
    a_frozen_process: ProcessFrozen
    // contract: R-23
    processes_replaced_one_by_one: ProcessesReplaced
    // contract: S-8, R-8, R-14
    a_killed_redis: RedisKilled
    a_killed_redis_that_syncs_every_second: RedisKilledEverysec
    a_frozen_redis: RedisFrozen
    // contract: S-5
    a_full_redis: RedisFull
    // contract: S-4
    a_flushed_redis: RedisFlushed
    // contract: S-1
    flushed_scripts: ScriptsFlushed
    // contract: R-8, R-14
    a_network_that_cuts: NetworkCuts
    // contract: S-2, S-9
    a_killed_master: MasterKilled
    a_killed_master_whose_replicas_lag: MasterKilledLagging
    a_frozen_master: MasterFrozen
    a_failover_that_nobody_acknowledged: FailoverUnacknowledged
    a_failover_that_nobody_acknowledged_while_replicas_lag: FailoverUnacknowledgedLagging
    // contract: S-2, S-7
    a_killed_master_of_a_cluster: ClusterMasterKilled
    a_cluster_whose_slots_move: ClusterResharded
}
