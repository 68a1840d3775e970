//! Redis away, slow, wrong or empty.

use std::time::Instant;

use super::{QUICK, WITHIN, charge, shared};
use crate::{
    harness::{Proxy, Script, eventually, pass},
    servers::Options,
};

// contract: S-3
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_when_full_gets_no_claims_until_it_is_mended() {
    let shared = shared!(Options::new().set("maxmemory-policy", "allkeys-lru"));
    let proxy = shared.proxy().await;
    charge(&proxy, "k").send().await.refused(503, "store-unavailable");
    proxy.says(&["ERROR", "guarded requests are refused", "allkeys-lru", "noeviction"]).await;
    proxy.get("/v1/charges").send().await.was(200, "");
    is_up(&proxy, false).await;
    shared.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    eventually("it is looked at again", || async {
        let reply = charge(&proxy, "k").send().await;
        reply.status == 200
    })
    .await;
    is_up(&proxy, true).await;
    let allowed = Proxy::start(shared.config().store("allow_eviction = true")).await;
    shared.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    charge(&allowed, "other").send().await.was(200, "executed");
    is_up(&allowed, true).await;
    eventually("it is found out", || async { charge(&proxy, "new").send().await.status == 503 }).await;
    is_up(&proxy, false).await;
}

// contract: R-5
#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_another_id_keys_mark_is_down_while_claims_are_refused() {
    let shared = shared!();
    let proxy = shared.proxy().await;
    charge(&proxy, "k").send().await.was(200, "executed");
    is_up(&proxy, true).await;
    let mark = shared.cli(&["KEYS", "oncegate:*mark"]);
    shared.cli(&["SET", &mark, "of another id key, longer than its check"]);
    eventually("it is found out", || async { charge(&proxy, "new").send().await.status == 503 }).await;
    is_up(&proxy, false).await;
    shared.cli(&["DEL", &mark]);
    eventually("it is mended", || async { charge(&proxy, "new").send().await.status == 200 }).await;
    is_up(&proxy, true).await;
}

/// Fails unless metrics and `/readyz?store` say so; a store that is down makes no process unready (P-7).
async fn is_up(proxy: &Proxy, is_up: bool) {
    assert_eq!(proxy.metrics().await.sum("oncegate_store_up", &[]), f64::from(u8::from(is_up)));
    let status = if is_up { 200 } else { 503 };
    assert_eq!(proxy.admin("GET", "/readyz?store").send().await.status, status);
    assert_eq!(proxy.admin("GET", "/readyz").send().await.status, 200);
}

// contract: S-4
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_data_is_an_alarm_at_every_replica() {
    let shared = shared!();
    let (one, other) = (shared.proxy().await, shared.proxy().await);
    charge(&one, "k").send().await.was(200, "executed");
    charge(&other, "k").send().await.was(200, "replayed");
    for way in ["FLUSHALL", "a restart without persistence"] {
        let before = one.metrics().await.sum("oncegate_store_wiped_total", &[]);
        if way == "FLUSHALL" {
            shared.cli(&["FLUSHALL"]);
        } else {
            tokio::task::block_in_place(|| shared.redis.restart());
        }
        for proxy in [&one, &other] {
            eventually(way, || async {
                let wiped = proxy.metrics().await.sum("oncegate_store_wiped_total", &[]);
                wiped == before + 1.0
            })
            .await;
            proxy.says(&["ERROR", "came back empty"]).await;
        }
    }
}

// contract: S-8, P-7
#[tokio::test(flavor = "multi_thread")]
async fn at_start_redis_may_be_away() {
    let shared = shared!();
    tokio::task::block_in_place(|| shared.redis.kill());
    let proxy = shared.proxy().await;
    proxy.get("/v1/charges").send().await.was(200, "");
    proxy.post("/v1/charges").auth("alice").send().await.was(200, "");
    charge(&proxy, "k").send().await.refused(503, "store-unavailable");
    assert_eq!(proxy.metrics().await.sum("oncegate_store_up", &[]), 0.0);
    tokio::task::block_in_place(|| shared.redis.restart());
    let back = Instant::now();
    eventually("guarded requests are served", || async {
        let reply = charge(&proxy, "k").send().await;
        reply.status == 200
    })
    .await;
    assert!(back.elapsed() < WITHIN, "{:?} after its return", back.elapsed());
    assert_eq!(proxy.metrics().await.sum("oncegate_store_up", &[]), 1.0);
    assert_eq!(shared.upstream.executions_by_key().get("k"), Some(&1));
}

// contract: S-8, P-7
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_holds_up_guarded_requests_only_and_only_until_it_thaws() {
    let shared = shared!();
    let proxy = Proxy::start(shared.config().table("[store.redis]", QUICK)).await;
    charge(&proxy, "before").send().await.was(200, "executed");
    tokio::task::block_in_place(|| shared.redis.freeze());
    let refused = charge(&proxy, "meanwhile").send().await;
    refused.refused(503, "store-unavailable");
    charge(&proxy, "before").send().await.refused(503, "store-unavailable");
    proxy.get("/v1/charges").send().await.was(200, "");
    assert_eq!(shared.upstream.executions_by_key().get("meanwhile"), None);
    pass(3000).await;
    tokio::task::block_in_place(|| shared.redis.thaw());
    let back = Instant::now();
    eventually("it is served again", || async {
        let reply = charge(&proxy, "before").send().await;
        reply.outcome() == "replayed"
    })
    .await;
    assert!(back.elapsed() < WITHIN, "{:?} after its return", back.elapsed());
    // The claim that was under way when it froze may have been made; it is taken back.
    eventually("no claim is left", || async {
        let reply = charge(&proxy, "meanwhile").send().await;
        reply.status == 200
    })
    .await;
    assert_eq!(shared.upstream.executions_by_key().get("meanwhile"), Some(&1));
}

// contract: S-7
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_never_asked() {
    let shared = shared!();
    let master = tokio::task::block_in_place(|| crate::servers::Single::start(Options::new()));
    let proxy = shared.proxy().await;
    charge(&proxy, "k").send().await.was(200, "executed");
    shared.cli(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    charge(&proxy, "k").send().await.refused(503, "store-unavailable");
    charge(&proxy, "new").send().await.refused(503, "store-unavailable");
    shared.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(shared.upstream.executions(), 1);
}

// contract: S-2
#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_for_a_claim_refuse_it_and_nothing_is_sent() {
    let shared = shared!();
    let proxy = Proxy::start(shared.config().table("[store.redis]", "replicas = 1\ntimeout = \"1s\"")).await;
    let refused = charge(&proxy, "k").send().await;
    refused.refused(503, "store-unavailable");
    assert_eq!(shared.upstream.executions(), 0);
    eventually("the claim is taken back", || async {
        let abandoned = proxy.metrics().await.sum("oncegate_claims_abandoned_total", &[("result", "ok")]);
        abandoned == 1.0
    })
    .await;
    assert!(shared.records().is_empty());
    let follower = tokio::task::block_in_place(|| crate::servers::Single::start(Options::new()));
    tokio::task::block_in_place(|| {
        follower.cli(&["REPLICAOF", "127.0.0.1", &shared.redis.port().to_string()]);
    });
    // On a busy machine the completion may wait for the replica longer than the claim did: then it is settled late.
    eventually("the replica follows", || async { charge(&proxy, "k").send().await.status == 200 }).await;
    assert_eq!(shared.upstream.executions(), 1);
}

// contract: R-14
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_could_not_be_written_is_settled_late() {
    let shared = shared!(Options::new().append_only("always"));
    let proxy = shared.proxy().await;
    shared.upstream.next(Script::hold());
    let call = charge(&proxy, "k").spawn();
    shared.upstream.saw(1).await;
    tokio::task::block_in_place(|| shared.redis.kill());
    shared.upstream.release();
    let first = call.await.unwrap();
    first.was(200, "unsettled");
    // Nothing was sent on, and something was executed: who took a new key would be charged again.
    assert_eq!(charge(&proxy, "k").send().await.refused(503, "store-unavailable").json()["executed"], "maybe");
    assert_eq!(charge(&proxy, "another").send().await.refused(503, "store-unavailable").json()["executed"], "no");
    tokio::task::block_in_place(|| shared.redis.restart());
    eventually("the outcome is stored", || async {
        let reply = charge(&proxy, "k").send().await;
        reply.outcome() == "replayed" && reply.body == first.body
    })
    .await;
    assert_eq!(shared.upstream.executions(), 1);
}

// contract: R-8, P-1
#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_nothing_is_forwarded_that_is_under_way_or_was_executed_here() {
    let shared = shared!(Options::new().append_only("always"));
    let proxy = Proxy::start(shared.config().policy("on_store_down = \"forward\"")).await;
    shared.upstream.next(Script::hold());
    let owner = charge(&proxy, "k").spawn();
    shared.upstream.saw(1).await;
    tokio::task::block_in_place(|| shared.redis.kill());
    charge(&proxy, "k").send().await.refused(409, "in-flight");
    assert_eq!(proxy.metrics().await.sum("oncegate_refused_total", &[("reason", "in-flight")]), 1.0);
    shared.upstream.release();
    let first = owner.await.unwrap();
    first.was(200, "unsettled");
    charge(&proxy, "k").send().await.refused(409, "in-flight");
    charge(&proxy, "other").send().await.was(200, "unguarded");
    tokio::task::block_in_place(|| shared.redis.restart());
    eventually("the outcome is stored", || async { charge(&proxy, "k").send().await.body == first.body }).await;
    assert_eq!(shared.upstream.executions(), 2);
}

// contract: P-5, R-14
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_counted_and_told_though_it_waits_for_the_store() {
    let shared = shared!();
    let proxy = Proxy::start(shared.config().policy("unknown_on = [200]")).await;
    shared.upstream.next(Script::hold());
    let call = charge(&proxy, "k").spawn();
    shared.upstream.saw(1).await;
    tokio::task::block_in_place(|| shared.redis.kill());
    shared.upstream.release();
    call.await.unwrap().was(200, "unsettled");
    assert_eq!(proxy.metrics().await.sum("oncegate_unknown_total", &[("reason", "answered")]), 1.0);
    proxy.says(&["WARN", "nobody can say whether a request was executed"]).await;
}

// contract
#[tokio::test(flavor = "multi_thread")]
async fn a_stall_of_300_ms_at_500_claims_a_second_leaves_nothing_unknown_and_runs_nothing_twice() {
    let shared = shared!();
    let config = shared.config().table("[store.redis]", QUICK).descriptors(4096).log("access = false");
    let proxy = Proxy::start(config).await;
    let mut calls = Vec::new();
    for number in 0..600_u32 {
        calls.push((number, charge(&proxy, &format!("k{number}")).spawn()));
        if number == 250 {
            shared.cli(&["CLIENT", "PAUSE", "300", "ALL"]);
        }
        pass(2).await;
    }
    for (number, call) in calls {
        let reply = call.await.unwrap();
        let fine = reply.status == 200 || reply.code() == "store-unavailable";
        assert!(fine, "k{number}: {reply:?}");
    }
    eventually("nothing is under way", || async {
        let open = proxy.records("state=in_flight&limit=1").await.len();
        open == 0
    })
    .await;
    assert!(proxy.records("state=unknown").await.is_empty());
    assert!(shared.upstream.executions_by_key().values().all(|times| *times == 1));
    for number in 0..600 {
        let reply = charge(&proxy, &format!("k{number}")).send().await;
        assert!(matches!(reply.outcome(), "executed" | "replayed"), "k{number}: {reply:?}");
    }
    assert!(shared.upstream.executions_by_key().values().all(|times| *times == 1));
}

// contract
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_whose_record_the_server_lost_meanwhile_is_written_anew() {
    for how in ["DEL", "FLUSHALL", "a restart without persistence"] {
        let shared = shared!();
        let proxy = shared.proxy().await;
        shared.upstream.next(Script::hold());
        let owner = charge(&proxy, "k").spawn();
        shared.upstream.saw(1).await;
        match how {
            "DEL" => _ = shared.cli(&["DEL", &shared.records()[0]]),
            "FLUSHALL" => _ = shared.cli(&["FLUSHALL"]),
            _ => tokio::task::block_in_place(|| shared.redis.restart()),
        }
        shared.upstream.release();
        let first = owner.await.unwrap();
        assert!(matches!(first.outcome(), "executed" | "unsettled"), "{how}: {first:?}");
        eventually("the retry is answered by the record", || async {
            let again = charge(&proxy, "k").send().await;
            again.outcome() == "replayed" && again.body == first.body
        })
        .await;
        assert_eq!(shared.upstream.executions(), 1, "{how}");
        proxy.says(&["WARN", "the store lost the record of a request under way"]).await;
    }
}

// contract: R-12
#[tokio::test(flavor = "multi_thread")]
async fn a_release_whose_record_the_server_lost_meanwhile_is_a_release() {
    let shared = shared!();
    let proxy = shared.proxy().await;
    shared.upstream.next(Script::raw("").then_hold().then(Script::answer(429)));
    let owner = charge(&proxy, "k").spawn();
    shared.upstream.saw(1).await;
    shared.cli(&["FLUSHALL"]);
    shared.upstream.release();
    owner.await.unwrap().was(429, "released");
}

// contract: S-7
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_claims_is_down_until_it_takes_them() {
    let shared = shared!();
    let proxy = shared.proxy().await;
    shared.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    charge(&proxy, "k").send().await.refused(503, "store-unavailable");
    is_up(&proxy, false).await;
    shared.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    charge(&proxy, "k").send().await.was(200, "executed");
    eventually("it is up again", || async { proxy.metrics().await.sum("oncegate_store_up", &[]) == 1.0 }).await;
    assert_eq!(shared.upstream.executions(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_is_read_for_new_connections() {
    let shared = shared!();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "old\n").unwrap();
    shared.cli(&["ACL", "SETUSER", "og", "on", ">old", "~*", "&*", "+@all"]);
    let lines = format!("username = \"og\"\npassword_file = \"{}\"", file.display());
    let proxy = Proxy::start(shared.config().table("[store.redis]", &lines)).await;
    charge(&proxy, "k").send().await.was(200, "executed");
    shared.cli(&["ACL", "SETUSER", "og", ">new", "<old"]);
    std::fs::write(&file, "new\n").unwrap();
    shared.cli(&["CLIENT", "KILL", "USER", "og"]);
    eventually("it is served by the new password", || async { charge(&proxy, "k").send().await.status == 200 }).await;
    assert_eq!(shared.upstream.executions(), 1);
}
