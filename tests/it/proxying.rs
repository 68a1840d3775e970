//! What any proxy owes HTTP/1.1.

use super::harness::*;

// contract: P-7
#[tokio::test]
async fn path_query_and_body_go_through_byte_for_byte() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for target in ["/", "//", "/a/../b", "/a%2Fb/%7e?x=%20&y=+&z", "/v1/a;p=1?", "/%C3%A4?q='", "/v1/%2e%2e/x"] {
        proxy.request("PUT", target).body("a\0b\r\n").send().await;
        assert_eq!((upstream.last().target.as_str(), upstream.last().body.as_slice()), (target, &b"a\0b\r\n"[..]));
        proxy.post(target).auth("a").key(format!("k-{}", upstream.executions())).send().await.was(200, "executed");
        assert_eq!(upstream.last().target, target);
    }
}

#[tokio::test]
async fn hop_by_hop_fields_are_removed_both_ways() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let hops = ["Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "TE", "Upgrade", "X-Named"];
    upstream.program(|_| {
        Script::answer(200)
            .field("Connection", "X-Named")
            .field("Keep-Alive", "timeout=9")
            .field("Proxy-Authenticate", "Basic")
            .field("X-Named", "1")
            .field("X-Kept", "1")
    });
    for request in [proxy.get("/v1/a"), proxy.charge("k")] {
        let mut request = request.field("Connection", "X-Named, keep-alive").field("X-Kept", "1");
        for name in hops {
            request = request.field(name, if name == "TE" { "gzip" } else { "x" });
        }
        let reply = request.send().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let seen = upstream.last();
        for name in hops {
            assert!(!seen.has(name), "{name}: {seen:?}");
            assert!(!reply.has(name), "{name}: {reply:?}");
        }
        assert!(!reply.has("proxy-authenticate"));
        assert_eq!((seen.field("x-kept"), reply.field("x-kept")), (Some("1"), Some("1")));
    }
}

#[tokio::test]
async fn connections_are_kept_and_pooled() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut connection = proxy.connect().await;
    for number in 0..50 {
        let reply = connection.exchange(proxy.get("/v1/a").bytes()).await;
        assert_eq!(reply.status, 200);
        connection.exchange(proxy.charge(format!("k-{number}")).bytes()).await.was(200, "executed");
    }
    assert!(upstream.connections() <= 2, "{} connections for 100 requests in a row", upstream.connections());
}

// contract: P-6
#[tokio::test]
async fn a_guarded_request_does_not_use_a_connection_that_was_idle_for_long() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).upstream("max_idle_guarded = \"50ms\"")).await;
    let mut connection = proxy.connect().await;
    connection.exchange(proxy.charge("a").bytes()).await.was(200, "executed");
    pass(120).await;
    connection.exchange(proxy.charge("b").bytes()).await.was(200, "executed");
    let seen = upstream.requests();
    assert_ne!(seen[0].connection, seen[1].connection);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start().await;
    upstream.program(|seen| Script::answer(200).body(&seen.target));
    let proxy = Proxy::before(&upstream).await;
    let mut connection = proxy.connect().await;
    let all: Vec<u8> = (0..5).flat_map(|number| proxy.get(&format!("/v1/{number}")).bytes()).collect();
    connection.write(all).await;
    for number in 0..5 {
        assert_eq!(soon(connection.reply()).await.unwrap().text(), format!("/v1/{number}"));
    }
}

#[tokio::test]
async fn connection_close_and_http_1_0_are_honoured() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut connection = proxy.connect().await;
    assert_eq!(connection.exchange(proxy.get("/v1/a").field("Connection", "close").bytes()).await.status, 200);
    assert!(connection.is_closed().await);
    let mut connection = proxy.connect().await;
    upstream.next(Script::answer(200).chunked("hello"));
    let reply = connection.exchange("GET /v1/a HTTP/1.0\r\nHost: h\r\n\r\n").await;
    assert_eq!(reply.text(), "hello");
    assert!(!reply.has("transfer-encoding"), "HTTP/1.0 knows no chunks: {reply:?}");
}

#[tokio::test]
async fn expect_100_continue_is_answered_and_not_forwarded() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for key in ["", "Idempotency-Key: k\r\nAuthorization: a\r\n"] {
        let mut connection = proxy.connect().await;
        connection
            .write(format!("POST /v1/a HTTP/1.1\r\nHost: h\r\n{key}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"))
            .await;
        assert_eq!(soon(connection.line()).await.unwrap().as_deref(), Some("HTTP/1.1 100 Continue"));
        assert_eq!(soon(connection.line()).await.unwrap().as_deref(), Some(""));
        connection.write("abc").await;
        assert_eq!(soon(connection.reply()).await.unwrap().status, 200);
        assert!(!upstream.last().has("expect"));
        assert_eq!(upstream.last().body, b"abc");
    }
}

#[tokio::test]
async fn absolute_form_and_asterisk_are_understood() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let reply = proxy.raw("GET http://api.test/v1/a?x=1 HTTP/1.1\r\nHost: api.test\r\n\r\n").await;
    assert_eq!(reply.status, 200);
    assert_eq!(upstream.last().target, "/v1/a?x=1");
    let reply = proxy.raw("OPTIONS * HTTP/1.1\r\nHost: api.test\r\n\r\n").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!((upstream.last().method.as_str(), upstream.last().target.as_str()), ("OPTIONS", "*"));
}

// contract: R-5
#[tokio::test]
async fn absolute_form_and_origin_form_are_one_record() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let with = |target: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: api.test\r\nAuthorization: a\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nx"
        )
    };
    proxy.raw(with("/v1/a")).await.was(200, "executed");
    proxy.raw(with("http://api.test/v1/a")).await.was(200, "replayed");
}

#[tokio::test]
async fn max_forwards_ends_options_and_trace_here() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let reply = proxy.request("OPTIONS", "/v1/a").field("Max-Forwards", "0").send().await;
    assert!(reply.status < 300, "{reply:?}");
    assert_eq!(upstream.requests().len(), 0);
    proxy.request("OPTIONS", "/v1/a").field("Max-Forwards", "5").send().await;
    assert_eq!(upstream.last().field("max-forwards"), Some("4"));
    proxy.get("/v1/a").field("Max-Forwards", "0").send().await;
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn redirects_and_codings_are_the_clients_business() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    upstream.next(Script::answer(302).field("Location", "/elsewhere"));
    assert_eq!(proxy.get("/v1/a").send().await.status, 302);
    upstream.next(Script::answer(200).field("Content-Encoding", "gzip").body(b"\x1f\x8b not really"));
    assert_eq!(proxy.get("/v1/a").send().await.body, b"\x1f\x8b not really");
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn interim_answers_pass() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let early = Script::raw("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    upstream.next(early.then(Script::answer(200)));
    let reply = proxy.get("/v1/a").send().await;
    assert_eq!((reply.status, reply.text()), (200, "tok_1"));
    assert_eq!(reply.interim.len(), 1, "{reply:?}");
    assert_eq!(reply.interim[0].start, "HTTP/1.1 103 Early Hints");
    assert_eq!(reply.interim[0].fields, [("link".to_owned(), "</a.css>; rel=preload".to_owned())]);
}

#[tokio::test]
async fn interim_answers_pass_before_the_answer_is_there() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let early = Script::raw("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Own\r\nX-Own: 1\r\n\r\n");
    upstream.next(early.then(Script::hold()));
    let mut connection = proxy.get("/v1/a").begin().await;
    assert_eq!(soon(connection.line()).await.unwrap().as_deref(), Some("HTTP/1.1 103 Early Hints"));
    assert_eq!(soon(connection.line()).await.unwrap().as_deref(), Some("link: </a.css>"));
    assert_eq!(soon(connection.line()).await.unwrap().as_deref(), Some(""), "hop-by-hop fields end here");
    upstream.release();
    soon(connection.reply()).await.unwrap().was(200, "");
}

#[tokio::test]
async fn interim_answers_end_here_where_they_have_no_place() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    // 100 is for whoever asked for it: us.
    upstream.next(Script::raw("HTTP/1.1 100 Continue\r\n\r\n").then(Script::answer(200)));
    let reply = proxy.get("/v1/a").send().await;
    assert_eq!((reply.status, reply.interim.len()), (200, 0));
    // The answer to a guarded request is held until it is settled, and what is stored is the answer alone.
    upstream.next(Script::raw(hint).then(Script::answer(200)));
    for outcome in ["executed", "replayed"] {
        let reply = proxy.charge("k").send().await;
        reply.was(200, outcome);
        assert!(reply.interim.is_empty() && !reply.has("link"), "{reply:?}");
    }
    upstream.next(Script::raw(hint).then(Script::answer(200)));
    let reply = proxy.raw("GET /v1/a HTTP/1.0\r\nHost: api.test\r\n\r\n").await;
    assert_eq!((reply.status, reply.interim.len()), (200, 0));
}

#[tokio::test]
async fn trailers_of_a_passed_answer_go_on() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let head = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    upstream.next(Script::raw(format!("{head}3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n")));
    let reply = proxy.get("/v1/a").field("TE", "trailers").field("Connection", "TE").send().await;
    let trailers: Vec<_> =
        reply.trailers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
    assert_eq!((reply.text(), trailers), ("abc", vec![("x-sum".to_owned(), "9")]));
}

#[tokio::test]
async fn trailers_of_a_passed_request_go_on() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    proxy.raw("PUT /v1/a HTTP/1.1\r\nHost: h\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n").await;
    let seen = upstream.last();
    assert_eq!(seen.body, b"abc");
    assert!(seen.trailers.iter().any(|(name, value)| name.eq_ignore_ascii_case("x-sum") && value == "9"), "{seen:?}");
}

#[tokio::test]
async fn a_head_that_is_too_long_or_too_slow_is_refused() {
    let upstream = Upstream::start().await;
    let config =
        Config::new(&upstream).server("max_head = \"8KiB\"\nheader_timeout = \"200ms\"\nidle_timeout = \"200ms\"");
    let proxy = Proxy::start(config).await;
    let reply = proxy.get("/v1/a").field("X-Long", &"x".repeat(12_000)).try_send().await;
    assert!(!reply.is_ok_and(|reply| reply.status < 400), "over max_head");
    // Silence after accept, in mid-head, and after an answer.
    let mut silent = proxy.connect().await;
    assert!(silent.is_closed().await);
    let mut half = proxy.connect().await;
    half.write("GET /v1/a HTTP/1.1\r\nHo").await;
    match soon(half.reply()).await {
        Ok(reply) => assert_eq!(reply.status, 408),
        Err(_closed) => {}
    }
    let mut idle = proxy.connect().await;
    assert_eq!(idle.exchange(proxy.get("/v1/a").bytes()).await.status, 200);
    assert!(idle.is_closed().await);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn beyond_max_connections_is_503_and_close() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).server("max_connections = 3")).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut connection = proxy.connect().await;
        assert_eq!(connection.exchange(proxy.get("/v1/a").bytes()).await.status, 200);
        kept.push(connection);
    }
    let mut beyond = proxy.connect().await;
    beyond.try_write(proxy.get("/v1/a").bytes()).await.ok();
    if let Ok(reply) = soon(beyond.reply()).await {
        assert_eq!(reply.status, 503);
        assert!(beyond.is_closed().await);
    }
    drop(kept);
    eventually("there is room again", || async {
        proxy.get("/v1/a").try_send().await.is_ok_and(|reply| reply.status == 200)
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_serves_and_is_served() {
    let upstream = Upstream::start().await;
    let directory = tempfile::tempdir().unwrap();
    let front = directory.path().join("front.sock");
    let behind = Proxy::start(Config::new(&upstream)).await;
    assert_eq!(behind.get("/v1/a").send().await.status, 200);
    // The harness reads the port of a first proxy; the second listens on a path and is its upstream's client.
    let config = Config::new(&upstream).server(&format!("listen = \"unix:{}\"", front.display()));
    let mut child = tokio::process::Command::new(binary());
    let file = directory.path().join("oncegate.toml");
    std::fs::write(directory.path().join("admin.token"), "token").unwrap();
    std::fs::write(&file, config.toml()).unwrap();
    let child = child.arg("run").arg("-c").arg(&file).current_dir(directory.path()).stderr(std::process::Stdio::null());
    let _child = child.kill_on_drop(true).spawn().unwrap();
    eventually("the socket is there", || async { tokio::net::UnixStream::connect(&front).await.is_ok() }).await;
    let mut connection = Connection::open_unix(&front).await;
    connection.exchange(behind.charge("k").bytes()).await.was(200, "executed");
    connection.exchange(behind.charge("k").bytes()).await.was(200, "replayed");
}

#[tokio::test]
async fn bad_framing_never_reaches_the_upstream() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let bad = [
        "Content-Length: x\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 5,6\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "X: a\0b\r\n",
        "Bad Name: 1\r\n",
        "Content-Length : 1\r\n",
        "no colon\r\n",
    ];
    for lines in bad {
        let mut connection = proxy.connect().await;
        connection.write(format!("POST /v1/a HTTP/1.1\r\nHost: h\r\n{lines}\r\nx")).await;
        let reply = soon(connection.reply()).await.unwrap();
        assert_eq!(reply.status, 400, "{lines:?}: {reply:?}");
        assert!(connection.is_closed().await, "{lines:?}");
    }
    assert_eq!(upstream.requests().len(), 0);
}
