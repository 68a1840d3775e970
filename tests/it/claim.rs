//! No claim, no forwarding; and what a full store does.

use super::harness::*;

/// Fills the store until it refuses, and returns how many requests it took.
async fn fill(proxy: &Proxy) -> usize {
    let mut connection = proxy.connect().await;
    for count in 0..20_000 {
        let reply = connection.exchange(proxy.charge(format!("fill-{count}")).bytes()).await;
        if reply.status == 503 {
            reply.refused(503, "store-full");
            assert_eq!((reply.field("retry-after"), reply.outcome()), (Some("30"), "rejected"));
            return count;
        }
        // What the store has no room for is executed all the same, and the answer says that it is not kept.
        assert!(reply.status == 200 && matches!(reply.outcome(), "executed" | "not-kept"), "{reply:?}");
    }
    panic!("the store never filled up");
}

// contract: R-8
// contract: R-21
// contract: P-1
#[tokio::test]
async fn a_full_store_refuses_new_keys_and_sends_nothing_and_keeps_every_record() {
    let upstream = Upstream::start().await;
    let body = "x".repeat(4000);
    upstream.program(move |_| Script::answer(200).body(&body));
    let proxy = Proxy::start(Config::new(&upstream).memory("max_bytes = \"1MiB\"")).await;
    let taken = fill(&proxy).await;
    assert_eq!(upstream.executions(), taken, "nothing is sent without a claim");
    assert!(taken > 1000, "bodies go before records: {taken}");
    for count in 0..taken {
        let reply = proxy.charge(format!("fill-{count}")).send().await;
        assert!(matches!(reply.outcome(), "replayed" | "not-kept"), "{reply:?}");
    }
    assert_eq!(upstream.executions(), taken);
    // What needs no record is not disturbed.
    proxy.get("/v1/a").send().await.was(200, "");
    proxy.post("/v1/a").send().await.was(200, "");
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("oncegate_store_evictions_total", &[("what", "body")]) > 0.0);
    assert_eq!(metrics.sum("oncegate_store_evictions_total", &[("what", "record")]), 0.0);
    assert!(metrics.sum("oncegate_store_bytes", &[]) <= f64::from(1 << 20));
    assert_eq!(metrics.sum("oncegate_store_bytes_max", &[]), f64::from(1 << 20));
}

// contract: R-14
// contract: R-21
#[tokio::test]
async fn an_exchange_under_way_settles_in_a_store_that_filled_up_meanwhile() {
    let upstream = Upstream::start().await;
    // The held request outlasts the filling, however slow the machine.
    let config = Config::new(&upstream).memory("max_bytes = \"1MiB\"");
    let proxy = Proxy::start(config.policy("response_timeout = \"80s\"\noutcome_timeout = \"80s\"")).await;
    upstream.next(Script::token());
    upstream.next(Script::hold());
    proxy.charge("first").send().await.was(200, "executed");
    let mut owner = proxy.charge("held").begin().await;
    upstream.saw(2).await;
    fill(&proxy).await;
    upstream.release();
    let first = soon(owner.reply()).await.unwrap();
    assert_eq!(first.status, 200, "{first:?}");
    let again = proxy.charge("held").send().await;
    let told = (first.outcome(), again.outcome());
    assert!(matches!(told, ("executed", "replayed") | ("not-kept", "not-kept")), "{told:?}");
    assert_eq!(upstream.executions_by_key()["held"], 1);
}

// contract: R-21
#[tokio::test]
async fn with_allow_eviction_the_longest_settled_are_forgotten_and_unknown_ones_never() {
    let upstream = Upstream::start().await;
    // The held request outlasts the filling, however slow the machine.
    let config = Config::new(&upstream).memory("max_bytes = \"1MiB\"").store("allow_eviction = true");
    let proxy = Proxy::start(config.policy("response_timeout = \"80s\"\noutcome_timeout = \"80s\"")).await;
    upstream.next(Script::reset());
    proxy.charge("unknown").send().await.refused(502, "outcome-unknown");
    upstream.next(Script::hold());
    let mut owner = proxy.charge("held").begin().await;
    upstream.saw(2).await;
    let mut connection = proxy.connect().await;
    let mut forgotten = 0.0;
    for count in 0..20_000 {
        connection.exchange(proxy.charge(format!("fill-{count}")).bytes()).await.was(200, "executed");
        if count % 500 == 499 {
            forgotten = proxy.metrics().await.sum("oncegate_store_evictions_total", &[("what", "record")]);
            if forgotten > 200.0 {
                break;
            }
        }
    }
    assert!(forgotten > 0.0, "nothing was evicted");
    upstream.release();
    soon(owner.reply()).await.unwrap().was(200, "executed");
    proxy.charge("unknown").send().await.refused(409, "outcome-unknown");
    proxy.charge("held").send().await.was(200, "replayed");
}

// contract: R-21
// contract: P-2
#[tokio::test]
async fn with_allow_eviction_the_newest_answer_of_a_full_store_is_replayed() {
    let upstream = Upstream::start().await;
    let proxy =
        Proxy::start(Config::new(&upstream).memory("max_bytes = \"64KiB\"").store("allow_eviction = true")).await;
    for count in 0..500 {
        let first = proxy.charge(format!("k-{count}")).send().await;
        first.was(200, "executed");
        let again = proxy.charge(format!("k-{count}")).send().await;
        assert_eq!(again.was(200, "replayed").body, first.body);
    }
    assert_eq!(upstream.executions(), 500);
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("oncegate_store_evictions_total", &[("what", "record")]) > 0.0);
    assert!(metrics.sum("oncegate_store_bytes", &[]) <= 65536.0);
}

// contract: R-16
// contract: R-21
#[tokio::test]
async fn a_first_answer_that_the_store_has_no_room_for_says_so_itself() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).memory("max_bytes = \"64KiB\"")).await;
    upstream.next(Script::answer(201).field("Location", "/v1/charges/1").body("x".repeat(100_000)));
    let first = proxy.charge("k").send().await;
    assert_eq!(first.was(201, "not-kept").body.len(), 100_000);
    assert_eq!(first.all("idempotency-status"), ["not-kept"]);
    let again = proxy.charge("k").send().await;
    again.refused(409, "response-not-kept");
    assert_eq!((again.outcome(), again.field("location")), ("not-kept", Some("/v1/charges/1")));
    assert_eq!(proxy.record().await["kept"], false);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("oncegate_requests_total", &[("outcome", "not-kept")]), 2.0);
    assert_eq!(metrics.sum("oncegate_requests_total", &[("outcome", "executed")]), 0.0);
    assert_eq!(upstream.executions(), 1);
}

// contract: R-8
#[tokio::test]
async fn one_hundred_claims_at_once_yield_one_execution() {
    let upstream = Upstream::start().await;
    upstream.program(|_| Script::slow(50));
    let proxy = Proxy::before(&upstream).await;
    let all: Vec<_> = (0..100).map(|_| proxy.charge("k").spawn()).collect();
    let mut executed = 0;
    for reply in all {
        let reply = reply.await.unwrap();
        assert_eq!((reply.status, reply.text()), (200, "tok_1"), "{reply:?}");
        executed += usize::from(reply.outcome() == "executed");
    }
    assert_eq!((executed, upstream.executions()), (1, 1));
}

#[tokio::test]
async fn max_in_flight_counts_exchanges_and_not_waiters() {
    let upstream = Upstream::start().await;
    upstream.program(|_| Script::hold());
    let proxy = Proxy::start(Config::new(&upstream).server("max_in_flight = 2")).await;
    let owners = [proxy.charge("a").spawn(), proxy.charge("b").spawn()];
    upstream.saw(2).await;
    let waiters = [proxy.charge("a").spawn(), proxy.charge("b").spawn()];
    proxy.charge("c").send().await.refused(503, "overloaded");
    assert_eq!(upstream.requests().len(), 2);
    eventually("both wait", || async { proxy.metrics().await.sum("oncegate_waiters", &[]) == 2.0 }).await;
    upstream.release();
    for reply in owners {
        reply.await.unwrap().was(200, "executed");
    }
    for reply in waiters {
        reply.await.unwrap().was(200, "replayed");
    }
    upstream.program(|_| Script::token());
    proxy.charge("c").send().await.was(200, "executed");
}
