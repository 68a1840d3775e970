//! Duplicates that meet: in flight, after completion, and when the owner is silent.

use super::harness::*;

async fn waiters(proxy: &Proxy, count: u32) {
    eventually(&format!("{count} wait"), || async {
        proxy.metrics().await.sum("oncegate_waiters", &[]) == f64::from(count)
    })
    .await;
}

// contract: R-15
// contract: P-2
#[tokio::test]
async fn duplicates_wait_for_the_owner_and_get_its_answer() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let proxy = Proxy::before(&upstream).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    let others: Vec<_> = (0..10).map(|_| proxy.charge("k").spawn()).collect();
    waiters(&proxy, 10).await;
    upstream.release();
    assert_eq!(owner.await.unwrap().was(200, "executed").text(), "tok_1");
    for other in others {
        let other = other.await.unwrap();
        assert_eq!(other.was(200, "replayed").text(), "tok_1");
        assert_eq!(other.parameter("waited"), Some(""));
    }
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("oncegate_duplicates_prevented_total", &[("how", "waited")]), 10.0);
    assert_eq!(metrics.sum("oncegate_waiters", &[]), 0.0);
}

// contract: R-15
#[tokio::test]
async fn a_duplicate_is_409_after_wait_timeout() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let proxy = Proxy::start(Config::new(&upstream).policy("wait_timeout = \"150ms\"")).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    let start = std::time::Instant::now();
    let reply = proxy.charge("k").send().await;
    assert!(start.elapsed().as_millis() >= 140);
    reply.refused(409, "in-flight");
    assert_eq!(reply.outcome(), "in-flight");
    upstream.release();
    owner.await.unwrap().was(200, "executed");
}

// contract: R-15
#[tokio::test]
async fn beyond_max_waiters_a_duplicate_is_409_at_once() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let proxy = Proxy::start(Config::new(&upstream).policy("max_waiters = 2")).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    let others = [proxy.charge("k").spawn(), proxy.charge("k").spawn()];
    waiters(&proxy, 2).await;
    proxy.charge("k").send().await.refused(409, "in-flight");
    upstream.release();
    owner.await.unwrap().was(200, "executed");
    for other in others {
        other.await.unwrap().was(200, "replayed");
    }
}

// contract: R-15
#[tokio::test]
async fn on_in_flight_reject_is_409_at_once() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let proxy = Proxy::start(Config::new(&upstream).policy("on_in_flight = \"reject\"")).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    proxy.charge("k").send().await.refused(409, "in-flight");
    assert_eq!(proxy.metrics().await.sum("oncegate_duplicates_prevented_total", &[("how", "rejected")]), 1.0);
    upstream.release();
    owner.await.unwrap().was(200, "executed");
    proxy.charge("k").send().await.was(200, "replayed");
}

// contract: R-15
#[tokio::test]
async fn of_waiters_on_a_released_key_exactly_one_goes_next() {
    let upstream = Upstream::start().await;
    upstream.next(Script::raw("").then_hold().then(Script::answer(429)));
    upstream.program(|_| Script::slow(100));
    let proxy = Proxy::before(&upstream).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    let others: Vec<_> = (0..20).map(|_| proxy.charge("k").spawn()).collect();
    waiters(&proxy, 20).await;
    upstream.release();
    owner.await.unwrap().was(429, "released");
    let mut executed = 0;
    for other in others {
        let other = other.await.unwrap();
        assert_eq!((other.status, other.text()), (200, "tok_2"), "{other:?}");
        executed += usize::from(other.outcome() == "executed");
    }
    assert_eq!((executed, upstream.executions()), (1, 2));
}

// contract: R-15
#[tokio::test]
async fn waiters_on_an_exchange_that_is_lost_are_told_that_its_outcome_is_unknown() {
    let upstream = Upstream::start().await;
    upstream.next(Script::raw("").then_hold().reset_after());
    let proxy = Proxy::before(&upstream).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    let others = [proxy.charge("k").spawn(), proxy.charge("k").spawn()];
    waiters(&proxy, 2).await;
    upstream.release();
    owner.await.unwrap().refused(502, "outcome-unknown");
    for other in others {
        other.await.unwrap().refused(409, "outcome-unknown");
    }
    assert_eq!(upstream.executions(), 1);
}

// contract: R-15
#[tokio::test]
async fn a_waiter_that_goes_away_gives_its_place_back() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let proxy = Proxy::start(Config::new(&upstream).policy("max_waiters = 1")).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    for _ in 0..2 {
        let connection = proxy.charge("k").begin().await;
        waiters(&proxy, 1).await;
        connection.reset();
        waiters(&proxy, 0).await;
    }
    upstream.release();
    owner.await.unwrap().was(200, "executed");
}

// contract: R-15
#[tokio::test]
async fn a_herd_on_one_key_yields_one_execution_and_two_kinds_of_answer() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let proxy = Proxy::before(&upstream).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    let herd: Vec<_> = (0..1000).map(|_| proxy.charge("k").spawn()).collect();
    waiters(&proxy, 100).await;
    eventually("the rest was refused", || async {
        proxy.metrics().await.sum("oncegate_duplicates_prevented_total", &[("how", "rejected")]) == 900.0
    })
    .await;
    upstream.release();
    owner.await.unwrap().was(200, "executed");
    let mut replayed = 0;
    for reply in herd {
        let reply = reply.await.unwrap();
        match reply.status {
            200 => replayed += usize::from(reply.outcome() == "replayed"),
            _ => _ = reply.refused(409, "in-flight"),
        }
    }
    assert_eq!((replayed, upstream.executions()), (100, 1));
}

// contract: R-16
#[tokio::test]
async fn a_replay_is_marked_and_does_not_touch_the_upstream() {
    let upstream = Upstream::start().await;
    upstream.next(Script::answer(201).field("Location", "/v1/charges/1").field("X-A", "1").body("done"));
    let proxy = Proxy::before(&upstream).await;
    let first = proxy.charge("k").send().await;
    first.was(201, "executed");
    assert!(!first.has("idempotent-replayed"));
    upstream.stop().await;
    let again = proxy.charge("k").send().await;
    again.was(201, "replayed");
    assert_eq!(again.all("idempotent-replayed"), ["true"]);
    assert_eq!((again.text(), again.field("location"), again.field("x-a")), ("done", Some("/v1/charges/1"), Some("1")));
}

// contract: R-16
#[tokio::test]
async fn on_duplicate_reject_is_409_and_ack_an_empty_200() {
    let upstream = Upstream::start().await;
    let reject = Proxy::start(Config::new(&upstream).policy("on_duplicate = \"reject\"")).await;
    reject.charge("k").send().await.was(200, "executed");
    reject.charge("k").send().await.refused(409, "duplicate");
    let ack = Proxy::start(Config::new(&upstream).policy("on_duplicate = \"ack\"")).await;
    upstream.next(Script::answer(201).body("hello"));
    ack.charge("k").send().await.was(201, "executed");
    let again = ack.charge("k").send().await;
    assert_eq!((again.status, again.text()), (200, ""));
    // Of what was not kept, the status.
    upstream.next(Script::answer(202).field("Content-Type", "text/event-stream").body("data: 1\n\n"));
    ack.charge("stream").send().await.was(202, "not-kept");
    let again = ack.charge("stream").send().await;
    assert_eq!((again.status, again.text()), (202, ""));
    assert_eq!(upstream.executions(), 3);
}

// contract: R-18
#[tokio::test]
async fn a_working_owner_renews_its_lease() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let config = Config::new(&upstream).store("lease = \"1s\"").policy("on_in_flight = \"reject\"");
    let proxy = Proxy::start(config).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    pass(2500).await;
    proxy.charge("k").send().await.refused(409, "in-flight");
    assert!(proxy.record().await["lease_left_seconds"].as_f64().unwrap() <= 1.0);
    upstream.release();
    owner.await.unwrap().was(200, "executed");
    assert_eq!(proxy.metrics().await.sum("oncegate_leases_lapsed_total", &[]), 0.0);
}

// contract: R-18
#[tokio::test]
async fn a_frozen_owner_settles_late_and_nobody_runs_it_again() {
    let upstream = Upstream::start().await;
    upstream.next(Script::slow(300));
    let proxy = Proxy::start(Config::new(&upstream).store("lease = \"1s\"")).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    proxy.signal("STOP").await;
    pass(1500).await;
    let duplicate = proxy.charge("k").spawn();
    proxy.signal("CONT").await;
    owner.await.unwrap().was(200, "executed");
    let duplicate = duplicate.await.unwrap();
    assert!(duplicate.outcome() == "replayed" || duplicate.code() == "outcome-unknown", "{duplicate:?}");
    proxy.charge("k").send().await.was(200, "replayed");
    assert_eq!(upstream.executions(), 1);
}

// contract: R-22
#[tokio::test]
async fn ages_are_those_of_the_store() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("retention = \"100s\"")).await;
    proxy.charge("k").send().await.was(200, "executed");
    pass(1100).await;
    let again = proxy.charge("k").send().await;
    again.was(200, "replayed");
    let age: u64 = again.parameter("age").unwrap().parse().unwrap();
    let ttl: u64 = again.parameter("ttl").unwrap().parse().unwrap();
    assert!((1..5).contains(&age) && (95..100).contains(&ttl), "{again:?}");
}
