//! HTTP/1.0 on either side: what it cannot say must not be lost on those who can.

use super::harness::*;

const BROKEN: &str = "HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nbroken off";

// contract: R-13
#[tokio::test]
async fn a_broken_answer_of_an_old_upstream_is_not_whole() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let events = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    for (script, request, outcome) in [
        (BROKEN, proxy.get("/v1/a"), ""),
        (events, proxy.get("/v1/a"), ""),
        (events, proxy.charge("events"), "not-kept"),
    ] {
        upstream.next(Script::raw(script).then_pause(50).then(Script::reset_before_body()));
        let mut connection = request.begin().await;
        let reply = soon(connection.reply()).await.unwrap();
        assert_eq!((reply.status, reply.outcome(), reply.whole), (200, outcome, false), "{reply:?}");
        assert_eq!(reply.field("transfer-encoding"), Some("chunked"), "{reply:?}");
    }
}

#[tokio::test]
async fn an_old_upstreams_answer_comes_in_our_version_and_its_replay_too() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    upstream.next(Script::raw("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    for (outcome, via) in [("executed", "1.0 oncegate"), ("replayed", "1.1 oncegate")] {
        let mut connection = proxy.charge("k").begin().await;
        assert_eq!(soon(connection.line()).await.unwrap().as_deref(), Some("HTTP/1.1 200 OK"));
        let mut fields = Vec::new();
        while let Some(line) = soon(connection.line()).await.unwrap().filter(|line| !line.is_empty()) {
            fields.push(line);
        }
        assert!(fields.iter().any(|line| line.starts_with(&format!("idempotency-status: {outcome}"))), "{fields:?}");
        assert!(fields.contains(&format!("via: {via}")), "{fields:?}");
    }
}

// contract: R-13
#[tokio::test]
async fn an_answer_that_breaks_off_resets_the_connection_of_a_client_that_knows_no_chunks() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let half = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    upstream.next(Script::raw(half).then_pause(200).then(Script::reset_before_body()));
    let mut connection = proxy.connect().await;
    connection.write("GET /v1/a HTTP/1.0\r\nHost: h\r\n\r\n").await;
    let reply = soon(connection.reply()).await.unwrap();
    assert!(reply.status == 200 && !reply.whole && !reply.has("transfer-encoding"), "{reply:?}");
}

#[tokio::test]
async fn what_an_old_client_asks_to_switch_to_is_ignored() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let asks = "GET /v1/a HTTP/1.0\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(proxy.raw(asks).await.status, 200);
    assert!(!upstream.last().has("upgrade"), "{:?}", upstream.last());
    assert_eq!(upstream.last().field("via"), Some("1.0 oncegate"));
}

#[tokio::test]
async fn an_answer_that_switches_to_what_nobody_asked_for_is_none() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let switches = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n";
    let plain = proxy.get("/v1/a");
    let unasked = plain.clone().field("Upgrade", "other");
    let another = plain.clone().field("Connection", "upgrade").field("Upgrade", "websocket");
    for request in [plain, unasked, another] {
        upstream.next(Script::raw(switches).then_hold());
        request.send().await.refused(502, "upstream-failed");
    }
}

// contract: P-4
#[tokio::test]
async fn an_outcome_is_not_lost_to_the_interim_answers_before_it() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let working = "HTTP/1.1 102 Processing\r\n\r\n".repeat(40);
    for request in [proxy.charge("k"), proxy.get("/v1/a")] {
        upstream.next(Script::raw(working.as_str()).then(Script::token()));
        assert_eq!(request.send().await.status, 200);
    }
    proxy.charge("k").send().await.was(200, "replayed");
}
