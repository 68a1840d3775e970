//! What stands in Redis, and what becomes of it when others lay hands on it.

use super::{charge, shared};
use crate::harness::{Proxy, Script, eventually, pass, soon};

// contract: S-6
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_no_record_is_never_replayed_and_its_request_never_run_again() {
    let shared = shared!();
    // A store that holds what nobody can read is not down.
    let proxy = Proxy::start(shared.config().policy("on_store_down = \"forward\"")).await;
    charge(&proxy, "k").send().await.was(200, "executed");
    let key = shared.records().remove(0);
    let ways: [&[&str]; 6] = [
        &["SET", &key, "a stranger's value, longer than a version"],
        &["SET", &key, ""],
        &["SETRANGE", &key, "30", "X"],
        &["APPEND", &key, "X"],
        &["PERSIST", &key],
        &["SET", &key, "short"],
    ];
    for way in ways {
        let copy = format!("{key}-copy");
        shared.cli(&["COPY", &key, &copy]);
        shared.cli(way);
        let refused = charge(&proxy, "k").send().await;
        // It may have been executed: here it was.
        assert_eq!(refused.refused(503, "store-unavailable").json()["executed"], "maybe");
        shared.cli(&["COPY", &copy, &key, "REPLACE"]);
        shared.cli(&["DEL", &copy]);
        charge(&proxy, "k").send().await.was(200, "replayed");
    }
    shared.cli(&["DEL", &key]);
    shared.cli(&["LPUSH", &key, "another type"]);
    charge(&proxy, "k").send().await.refused(503, "store-unavailable");
    assert_eq!(shared.upstream.executions(), 1);
}

// contract: S-6
#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_a_newer_format_is_refused_and_said() {
    let shared = shared!();
    let proxy = shared.proxy().await;
    charge(&proxy, "k").send().await.was(200, "executed");
    // The format stands after the version and the replays.
    shared.cli(&["SETRANGE", &shared.records()[0], "20", "\x02"]);
    charge(&proxy, "k").send().await.refused(503, "store-unavailable");
    proxy.says(&["ERROR", "newer Oncegate"]).await;
    assert_eq!(shared.upstream.executions(), 1);
}

// contract: S-6, P-3
#[tokio::test(flavor = "multi_thread")]
async fn a_value_moved_to_another_record_is_not_that_records() {
    let shared = shared!();
    let proxy = shared.proxy().await;
    charge(&proxy, "a").send().await.was(200, "executed");
    let first = shared.records().remove(0);
    let bobs = || proxy.post("/v1/charges").auth("bob").key("b");
    bobs().send().await.was(200, "executed");
    let second = shared.records().into_iter().find(|key| *key != first).unwrap();
    shared.cli(&["COPY", &first, &second, "REPLACE"]);
    bobs().send().await.refused(503, "store-unavailable");
    charge(&proxy, "a").send().await.was(200, "replayed");
}

// contract: S-5
#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_takes_outcomes_and_no_claims() {
    let shared = shared!();
    let proxy = shared.proxy().await;
    charge(&proxy, "before").send().await.was(200, "executed");
    shared.upstream.next(Script::hold());
    let under_way = charge(&proxy, "under-way").spawn();
    shared.upstream.saw(2).await;
    shared.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = charge(&proxy, "new").send().await;
    refused.refused(503, "store-full");
    assert_eq!(refused.field("Retry-After"), Some("30"));
    charge(&proxy, "before").send().await.was(200, "replayed");
    shared.upstream.release();
    under_way.await.unwrap().was(200, "executed");
    charge(&proxy, "under-way").send().await.was(200, "replayed");
    shared.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    charge(&proxy, "new").send().await.was(200, "executed");
    assert_eq!(shared.upstream.executions(), 3);
}

// contract: R-18, S-5
#[tokio::test(flavor = "multi_thread")]
async fn a_lapse_is_found_and_counted_at_a_full_server_too() {
    let shared = shared!();
    let config = shared.config().store("lease = \"1s\"");
    let (dies, other) = (Proxy::start(config.clone()).await, Proxy::start(config).await);
    charge(&other, "done").send().await.was(200, "executed");
    shared.upstream.next(Script::hold());
    let _lost = charge(&dies, "lost").spawn();
    shared.upstream.saw(2).await;
    shared.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    dies.signal("KILL").await;
    charge(&other, "done").send().await.was(200, "replayed");
    // Whose turn it was must not matter: what it left goes with it.
    shared.cli(&["DEL", "oncegate:{000}census", "oncegate:{000}figures"]);
    pass(1100).await;
    eventually("the lapse is counted", || async {
        other.metrics().await.sum("oncegate_leases_lapsed_total", &[]) == 1.0
    })
    .await;
    other.says(&["WARN", "a lease lapsed"]).await;
    let third = shared.proxy().await;
    for proxy in [&other, &third] {
        eventually("the figures follow, at others too", || async {
            proxy.metrics().await.sum("oncegate_store_records", &[("state", "unknown")]) == 1.0
        })
        .await;
    }
    eventually("the replay is counted", || async {
        other.records("state=completed").await.first().is_some_and(|record| record["replays"] == 1)
    })
    .await;
    assert_eq!(other.metrics().await.sum("oncegate_leases_lapsed_total", &[]), 1.0, "told once");
    assert!(!other.said().contains("could not be looked after"), "{}", other.said());
}

// contract: S-6
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_throw_a_value_away_that_is_no_record_and_only_by_force() {
    let shared = shared!();
    let proxy = shared.proxy().await;
    charge(&proxy, "k").send().await.was(200, "executed");
    let key = shared.records().remove(0);
    let id = key.rsplit_once('}').unwrap().1.to_owned();
    let ways: [&[&str]; 6] = [
        &["SET", &key, "a stranger's value, longer than a version"],
        &["SET", &key, ""],
        &["SETRANGE", &key, "30", "X"],
        &["PERSIST", &key],
        &["SET", &key, "short"],
        &["LPUSH", &key, "another type"],
    ];
    for (way, name) in ways.into_iter().zip([&id[..], &id[..16]].into_iter().cycle()) {
        if way[0] == "LPUSH" {
            shared.cli(&["DEL", &key]);
        }
        let before = shared.upstream.executions();
        shared.cli(way);
        let target = format!("/records/{name}");
        let unforced = proxy.admin("DELETE", &target).send().await;
        assert_eq!(unforced.status, 503, "{way:?}: {unforced:?}");
        assert!(unforced.json()["detail"].as_str().unwrap().contains("force=true"), "{unforced:?}");
        charge(&proxy, "k").send().await.refused(503, "store-unavailable");
        let other = proxy.admin("DELETE", &format!("{target}?force=true")).field("If-Match", "\"00\"").send().await;
        assert_eq!(other.status, 412, "{way:?}: {other:?}");
        let forgotten = proxy.admin("DELETE", &format!("{target}?force=true")).send().await;
        assert_eq!(forgotten.status, 200, "{way:?}: {forgotten:?}");
        let told = forgotten.json();
        assert_eq!((&told["id"], &told["state"]), (&id.clone().into(), &"absent".into()));
        assert!(shared.records().is_empty(), "{way:?}");
        charge(&proxy, "k").send().await.was(200, "executed");
        assert_eq!(shared.upstream.executions(), before + 1);
    }
    proxy.says(&["INFO", "an operator threw away", &id[..16]]).await;
    let forgotten = &[("change", "forgotten")];
    assert_eq!(proxy.metrics().await.sum("oncegate_operator_changes_total", forgotten), ways.len() as f64);
    // What can be read is no such value: it goes as it always did.
    assert_eq!(proxy.admin("DELETE", &format!("/records/{id}")).send().await.status, 200);
    assert_eq!(proxy.admin("DELETE", &format!("/records/{id}?force=true")).send().await.status, 404);
}

// contract: S-1
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgot_the_script_is_told_it_again() {
    let shared = shared!();
    let proxy = shared.proxy().await;
    for round in 0..3 {
        charge(&proxy, &format!("k{round}")).send().await.was(200, "executed");
        shared.cli(&["SCRIPT", "FLUSH"]);
        charge(&proxy, &format!("k{round}")).send().await.was(200, "replayed");
        shared.cli(&["SCRIPT", "FLUSH"]);
    }
}

// contract: S-1, P-1
#[tokio::test(flavor = "multi_thread")]
async fn claims_replays_and_settlements_are_one_script_call_each() {
    let shared = shared!();
    let proxy = Proxy::start(shared.config().store("lease = \"60s\"")).await;
    charge(&proxy, "warm").send().await.was(200, "executed");
    let calls = || {
        let stats = shared.cli(&["INFO", "commandstats"]);
        let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap().to_owned();
        line.split("calls=").nth(1).unwrap().split(',').next().unwrap().parse::<u64>().unwrap()
    };
    let before = calls();
    charge(&proxy, "k").send().await.was(200, "executed");
    assert_eq!(calls() - before, 2, "a claim and a settlement");
    charge(&proxy, "k").send().await.was(200, "replayed");
    assert!(calls() - before <= 4, "a replay, and its count at some time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_tls_serves_a_user_with_a_password() {
    let shared = shared!(crate::servers::Options::new().tls().user("oncegate", "pa55", "~oncegate:* +@all"));
    let proxy = shared.proxy().await;
    charge(&proxy, "k").send().await.was(200, "executed");
    charge(&proxy, "k").send().await.was(200, "replayed");
    assert!(!proxy.said().contains("pa55"));
}

// contract: R-18, S-6
#[tokio::test(flavor = "multi_thread")]
async fn values_that_cannot_be_read_hide_no_other_record() {
    let shared = shared!();
    let config = shared.config().store("lease = \"1s\"");
    let (dies, other) = (Proxy::start(config.clone()).await, Proxy::start(config).await);
    shared.upstream.program(|_| Script::hang());
    let lost: Vec<_> = ["a", "b", "c", "d"].map(|key| charge(&dies, key).spawn()).into();
    shared.upstream.saw(4).await;
    dies.signal("KILL").await;
    drop(lost);
    let keys = shared.records();
    let size: usize = shared.cli(&["STRLEN", &keys[1]]).parse().unwrap();
    shared.cli(&["DEL", &keys[0]]);
    shared.cli(&["LPUSH", &keys[0], "another type"]);
    // Its beginning can be read, and it is still known whose it is and how it stands.
    shared.cli(&["SETRANGE", &keys[1], &(size - 1).to_string(), "X"]);
    shared.cli(&["PERSIST", &keys[2]]);
    // Whose turn it was must not matter: what it left goes with it.
    shared.cli(&["DEL", "oncegate:{000}census", "oncegate:{000}figures"]);
    eventually("the other lapses are counted", || async {
        other.metrics().await.sum("oncegate_leases_lapsed_total", &[]) == 3.0
            && other.metrics().await.sum("oncegate_store_records", &[("state", "unknown")]) == 3.0
    })
    .await;
    assert_eq!(other.records("state=unknown").await.len(), 3);
    assert_eq!(other.records("").await.len(), 3);
    let id = keys[0].rsplit_once('}').unwrap().1;
    assert_eq!(other.admin("GET", &format!("/records/{id}")).send().await.status, 503);
    other.says(&["ERROR", &id[..16], "cannot be used"]).await;
}

// contract: S-6, R-15
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_record_that_is_damaged_meanwhile_is_told_so() {
    let shared = shared!();
    let (one, other) = (shared.proxy().await, shared.proxy().await);
    shared.upstream.next(Script::hold());
    let _owner = charge(&one, "k").spawn();
    shared.upstream.saw(1).await;
    let waiter = charge(&other, "k").spawn();
    eventually("it waits", || async { other.metrics().await.sum("oncegate_waiters", &[]) == 1.0 }).await;
    shared.cli(&["SETRANGE", &shared.records()[0], "0", "XX"]);
    shared.cli(&["SETRANGE", &shared.records()[0], "60", "XX"]);
    soon(waiter).await.unwrap().refused(503, "store-unavailable");
    assert!(other.said().matches("cannot be used").count() < 5, "{}", other.said());
    shared.upstream.release();
}
