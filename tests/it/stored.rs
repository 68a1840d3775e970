//! What is kept of an answer, and for how long.

use super::harness::*;

// contract: R-19
// contract: P-2
#[tokio::test]
async fn a_replay_has_the_kept_fields_in_order_and_the_body_byte_for_byte() {
    let upstream = Upstream::start().await;
    let body: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    upstream.next(
        Script::answer(201)
            .field("X-B", "2")
            .field("X-A", "1")
            .field("X-B", "3")
            .field("Content-Type", "application/octet-stream")
            .field("ETag", "\"v1\"")
            .field("Content-Encoding", "x-odd")
            .body(&body),
    );
    let proxy = Proxy::before(&upstream).await;
    let first = proxy.charge("k").send().await;
    let again = proxy.charge("k").send().await;
    first.was(201, "executed");
    again.was(201, "replayed");
    assert!(first.body == body && again.body == body);
    for reply in [&first, &again] {
        assert_eq!(reply.all("x-b"), ["2", "3"]);
        assert_eq!((reply.field("x-a"), reply.field("etag")), (Some("1"), Some("\"v1\"")));
        assert_eq!(reply.field("content-encoding"), Some("x-odd"));
        assert_eq!(reply.all("content-length"), ["10000"]);
        assert!(!reply.has("transfer-encoding"));
    }
}

// contract: R-19
#[tokio::test]
async fn what_is_left_out_leaves_the_others_in_their_order() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let head = "HTTP/1.1 200 OK\r\nX-A: 1\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: X-B\r\nX-B: 1\r\n\
                Idempotent-Replayed: false\r\nX-C: 1\r\nProxy-Authenticate: Basic\r\nX-D: 1\r\nSet-Cookie: s=1\r\n\
                Transfer-Encoding: chunked\r\nContent-Type: text/plain\r\nX-C: 2\r\nX-N: 1\r\n\r\n\
                2\r\nok\r\n0\r\n\r\n";
    let order = |reply: &Reply| {
        let theirs = ["x-a", "x-b", "x-c", "x-d", "content-type", "x-n"];
        let names = reply.fields.iter().map(|(name, _)| name.to_ascii_lowercase());
        names.filter(|name| theirs.contains(&name.as_str())).collect::<Vec<_>>()
    };
    for request in [proxy.charge("k"), proxy.charge("k"), proxy.get("/v1/a")] {
        upstream.next(Script::raw(head));
        let reply = request.send().await;
        assert_eq!((reply.status, reply.text(), reply.all("date").len()), (200, "ok", 1));
        assert_eq!(order(&reply), ["x-a", "x-c", "x-c", "x-d", "content-type", "x-n"], "{reply:?}");
        assert_eq!(reply.all("x-c"), ["1", "2"]);
    }
}

// contract: R-19
#[tokio::test]
async fn fields_of_one_hop_one_moment_or_one_caller_are_not_stored() {
    let upstream = Upstream::start().await;
    let dropped = [
        ("Set-Cookie", "s=1"),
        ("WWW-Authenticate", "Basic"),
        ("Authentication-Info", "x"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authentication-Info", "x"),
        ("Alt-Svc", "h3=\":443\""),
        ("Server-Timing", "db;dur=53"),
        ("Keep-Alive", "timeout=5"),
        ("X-Named", "by connection"),
        ("Idempotency-Status", "replayed"),
        ("Idempotent-Replayed", "true"),
        ("X-Mine", "secret"),
    ];
    let mut script = Script::answer(200).field("Connection", "X-Named").field("X-Kept", "1");
    for (name, value) in dropped {
        script = script.field(name, value);
    }
    upstream.next(script);
    let proxy = Proxy::start(Config::new(&upstream).policy("drop_headers = [\"set-cookie\", \"x-mine\"]")).await;
    proxy.charge("k").send().await.was(200, "executed");
    let again = proxy.charge("k").send().await;
    again.was(200, "replayed");
    assert_eq!(again.field("x-kept"), Some("1"));
    for (name, _) in dropped.into_iter().filter(|(name, _)| !name.starts_with("Idempot")) {
        assert!(!again.has(name), "{name}: {again:?}");
    }
    assert_eq!((again.all("idempotency-status").len(), again.all("idempotent-replayed").len()), (1, 1));
}

// contract: R-19
#[tokio::test]
async fn the_first_answer_keeps_what_a_replay_drops() {
    let upstream = Upstream::start().await;
    upstream
        .next(Script::answer(200).field("Set-Cookie", "s=1").field("Set-Cookie", "t=2").field("Server-Timing", "a"));
    let proxy = Proxy::before(&upstream).await;
    let first = proxy.charge("k").send().await;
    first.was(200, "executed");
    assert_eq!((first.all("set-cookie"), first.field("server-timing")), (vec!["s=1", "t=2"], Some("a")));
}

// contract: R-19
#[tokio::test]
async fn a_replay_has_a_fresh_date_and_no_store_unless_the_answer_said_otherwise() {
    let upstream = Upstream::start().await;
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    let proxy = Proxy::before(&upstream).await;
    upstream.next(Script::answer(200).field("Date", old));
    proxy.charge("a").send().await.was(200, "executed");
    let again = proxy.charge("a").send().await;
    assert_eq!((again.all("date").len(), again.all("cache-control")), (1, vec!["no-store"]));
    assert_ne!(again.field("date"), Some(old));
    upstream.next(Script::answer(200).field("Cache-Control", "max-age=60"));
    proxy.charge("b").send().await.was(200, "executed");
    assert_eq!(proxy.charge("b").send().await.all("cache-control"), ["max-age=60"]);
}

// contract: R-19
#[tokio::test]
async fn answers_without_a_body_stay_so() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("guard = [\"POST\", \"HEAD\"]")).await;
    for status in [204, 304] {
        upstream.next(Script::answer(status));
        for outcome in ["executed", "replayed"] {
            let mut connection = proxy.connect().await;
            let reply = connection.exchange(proxy.charge(format!("s-{status}")).bytes()).await;
            reply.was(status, outcome);
            assert!(status != 204 || !reply.has("content-length"), "{reply:?}");
            // Nothing stays on the wire.
            assert_eq!(connection.exchange(proxy.get("/v1/a").bytes()).await.status, 200);
        }
    }
    upstream.next(Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"));
    for outcome in ["executed", "replayed"] {
        let reply = proxy.request("HEAD", "/v1/a").auth("alice").key("h").send().await;
        assert_eq!(reply.was(200, outcome).all("content-length"), ["1234"]);
    }
}

// contract: R-19
#[tokio::test]
async fn a_chunked_answer_is_replayed_with_one_length() {
    let upstream = Upstream::start().await;
    upstream.next(Script::answer(200).chunked("twelve bytes"));
    let proxy = Proxy::before(&upstream).await;
    for outcome in ["executed", "replayed"] {
        let reply = proxy.charge("k").send().await;
        assert_eq!(reply.was(200, outcome).text(), "twelve bytes");
        assert_eq!((reply.all("content-length"), reply.has("transfer-encoding")), (vec!["12"], false));
    }
    // One that ends with its connection is whole too.
    upstream.next(Script::raw("HTTP/1.1 200 OK\r\n\r\nuntil the end").close_after());
    for outcome in ["executed", "replayed"] {
        assert_eq!(proxy.charge("close").send().await.was(200, outcome).text(), "until the end");
    }
}

// contract: R-19
#[tokio::test]
async fn an_answer_with_trailers_is_not_kept() {
    let upstream = Upstream::start().await;
    upstream.next(Script::raw(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n",
    ));
    let proxy = Proxy::before(&upstream).await;
    let first = proxy.charge("k").field("TE", "trailers").send().await;
    assert_eq!(first.was(200, "not-kept").text(), "abc");
    proxy.charge("k").send().await.refused(409, "response-not-kept");
}

// contract: R-20
#[tokio::test]
async fn after_its_retention_a_key_is_new_and_its_memory_is_back() {
    let upstream = Upstream::start().await;
    let lines =
        "retention = \"1s\"\nunknown_retention = \"1s\"\noutcome_timeout = \"500ms\"\nresponse_timeout = \"500ms\"";
    let proxy = Proxy::start(Config::new(&upstream).policy(lines)).await;
    proxy.charge("k").send().await.was(200, "executed");
    proxy.charge("k").send().await.was(200, "replayed");
    upstream.next(Script::reset());
    proxy.charge("lost").send().await.refused(502, "outcome-unknown");
    proxy.charge("lost").send().await.refused(409, "outcome-unknown");
    pass(1100).await;
    // The same key, and even another request under it.
    proxy.charge("k").body("other").send().await.was(200, "executed");
    proxy.charge("lost").send().await.was(200, "executed");
    pass(1100).await;
    assert!(proxy.records("").await.is_empty(), "an expired record is never shown");
    assert_eq!(upstream.executions(), 4);
}

// contract: R-20
#[tokio::test]
async fn retention_runs_from_settlement_and_replays_do_not_prolong_it() {
    let upstream = Upstream::start().await;
    let lines = "retention = \"1s\"\noutcome_timeout = \"900ms\"\nresponse_timeout = \"900ms\"";
    let proxy = Proxy::start(Config::new(&upstream).policy(lines)).await;
    upstream.next(Script::slow(600));
    proxy.charge("k").send().await.was(200, "executed");
    pass(600).await;
    proxy.charge("k").send().await.was(200, "replayed");
    pass(600).await;
    proxy.charge("k").send().await.was(200, "executed");
}
