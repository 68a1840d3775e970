//! How it ends: drain, second signal, and the end that nobody chose.

use super::harness::*;

// contract: R-23
// contract: P-4
#[tokio::test]
async fn sigterm_lets_exchanges_finish_and_exits_0() {
    let upstream = Upstream::start().await;
    for signal in ["TERM", "INT"] {
        let seen = upstream.requests().len();
        upstream.next(Script::hold());
        let mut proxy = Proxy::before(&upstream).await;
        let idle = proxy.connect().await;
        let mut used = proxy.connect().await;
        let owner = proxy.charge(signal).spawn();
        upstream.saw(seen + 1).await;
        let waiter = proxy.charge(signal).spawn();
        eventually("one waits", || async { proxy.metrics().await.sum("oncegate_waiters", &[]) == 1.0 }).await;
        assert_eq!(proxy.open_admin("GET", "/readyz").send().await.status, 200);
        proxy.signal(signal).await;
        waiter.await.unwrap().refused(503, "draining");
        eventually("readyz is 503", || async {
            proxy.open_admin("GET", "/readyz").try_send().await.is_ok_and(|reply| reply.status == 503)
        })
        .await;
        eventually("nobody listens", || async { Connection::try_open(proxy.address()).await.is_err() }).await;
        assert!(used.is_closed().await);
        drop(idle);
        upstream.release();
        owner.await.unwrap().was(200, "executed");
        assert_eq!(proxy.exit().await, Some(0), "{}", proxy.said());
    }
}

// contract: R-23
#[tokio::test]
async fn what_is_left_at_the_drains_end_is_counted_and_the_exit_is_1() {
    let upstream = Upstream::start().await;
    upstream.program(|_| Script::hang());
    let mut proxy = Proxy::start(Config::new(&upstream).server("drain_timeout = \"300ms\"")).await;
    let owners = [proxy.charge("a").spawn(), proxy.charge("b").spawn()];
    upstream.saw(2).await;
    proxy.signal("TERM").await;
    for owner in owners {
        // Told or cut off; never told that it was executed.
        if let Ok(reply) = owner.await {
            assert!(matches!(reply.code().as_str(), "outcome-unknown" | "still-running" | "draining"), "{reply:?}");
        }
    }
    assert_eq!(proxy.exit().await, Some(1), "{}", proxy.said());
    let said = proxy.said();
    assert!(said.lines().last().unwrap().contains("left=2"), "{said}");
}

// contract: R-23
#[tokio::test]
async fn a_client_that_has_its_answer_and_stays_is_not_waited_for() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let mut proxy = Proxy::start(Config::new(&upstream).server("drain_timeout = \"4s\"")).await;
    let mut client = proxy.charge("k").begin().await;
    upstream.saw(1).await;
    proxy.signal("TERM").await;
    eventually("nobody listens", || async { Connection::try_open(proxy.address()).await.is_err() }).await;
    upstream.release();
    soon(client.reply()).await.unwrap().was(200, "executed");
    assert_eq!(proxy.exit().await, Some(0), "{}", proxy.said());
    drop(client);
}

// contract: R-23
#[tokio::test]
async fn a_passed_request_that_is_cut_is_not_said_to_be_unknown() {
    let upstream = Upstream::start().await;
    upstream.program(|_| Script::hang());
    let mut proxy = Proxy::start(Config::new(&upstream).server("drain_timeout = \"300ms\"")).await;
    let passed = proxy.get("/v1/a").begin().await;
    upstream.saw(1).await;
    proxy.signal("TERM").await;
    assert_eq!(proxy.exit().await, Some(1), "{}", proxy.said());
    let said = proxy.said();
    let last = said.lines().last().unwrap();
    assert!(last.contains("connections=1") && !last.contains("unknown"), "{said}");
    drop(passed);
}

// contract: R-23
#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let upstream = Upstream::start().await;
    upstream.program(|_| Script::hang());
    let mut proxy = Proxy::start(Config::new(&upstream).server("drain_timeout = \"60s\"")).await;
    let owner = proxy.charge("a").begin().await;
    upstream.saw(1).await;
    proxy.signal("TERM").await;
    eventually("nobody listens", || async { Connection::try_open(proxy.address()).await.is_err() }).await;
    proxy.signal("TERM").await;
    assert_ne!(proxy.exit().await, Some(0));
    drop(owner);
}

// contract: R-23
#[tokio::test]
async fn a_passed_request_finishes_during_the_drain() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let mut proxy = Proxy::before(&upstream).await;
    let passed = proxy.get("/v1/a").spawn();
    upstream.saw(1).await;
    proxy.signal("TERM").await;
    pass(100).await;
    upstream.release();
    assert_eq!(passed.await.unwrap().text(), "tok_1");
    assert_eq!(proxy.exit().await, Some(0), "{}", proxy.said());
}

// contract: R-23
#[tokio::test]
async fn an_exchange_whose_client_left_is_finished_before_the_end() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let mut proxy = Proxy::before(&upstream).await;
    let client = proxy.charge("k").begin().await;
    upstream.saw(1).await;
    client.reset();
    proxy.signal("TERM").await;
    pass(200).await;
    assert!(!proxy.has_ended(), "it waits for the exchange");
    upstream.release();
    assert_eq!(proxy.exit().await, Some(0), "{}", proxy.said());
}

#[tokio::test]
async fn an_idle_proxy_ends_at_once() {
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::before(&upstream).await;
    proxy.charge("k").send().await.was(200, "executed");
    let mut kept = proxy.connect().await;
    assert_eq!(kept.exchange(proxy.get("/v1/a").bytes()).await.status, 200);
    let start = std::time::Instant::now();
    proxy.signal("TERM").await;
    assert_eq!(proxy.exit().await, Some(0), "{}", proxy.said());
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[tokio::test]
async fn kill_in_mid_exchange_leaves_one_execution_and_a_clean_start() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let mut proxy = Proxy::before(&upstream).await;
    let mut owner = proxy.charge("k").begin().await;
    upstream.saw(1).await;
    proxy.signal("KILL").await;
    assert_eq!(proxy.exit().await, None);
    assert!(owner.reply().await.is_err());
    upstream.release();
    assert_eq!(upstream.executions(), 1);
    // The memory store's limit, said as plainly as its promise: a restart forgets.
    let proxy = Proxy::before(&upstream).await;
    proxy.charge("k").send().await.was(200, "executed");
}

// contract: R-23
#[tokio::test]
async fn an_idle_http2_client_that_answers_no_ping_is_not_waited_for() {
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::start(Config::new(&upstream).server("drain_timeout = \"60s\"")).await;
    let mut frozen = proxy.connect().await;
    frozen.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    eventually("it is greeted", || async {
        proxy.metrics().await.sum("oncegate_connections", &[("side", "downstream")]) == 1.0
    })
    .await;
    pass(200).await;
    proxy.signal("TERM").await;
    assert_eq!(soon(proxy.exit()).await, Some(0), "{}", proxy.said());
    drop(frozen);
}
