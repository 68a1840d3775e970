//! What is not guarded passes, unchanged and streaming.

use super::harness::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

// contract: R-3
// contract: P-7
#[tokio::test]
async fn safe_and_idempotent_methods_pass_with_their_key() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        for count in 1..=2 {
            let reply = proxy.request(method, "/v1/charges/1").auth("alice").key("k").body("x").send().await;
            reply.was(200, "");
            let same = upstream.requests().iter().filter(|seen| seen.method == method).count();
            assert_eq!(same, count, "{method}");
        }
        assert_eq!(upstream.last().field("idempotency-key"), Some("k"));
    }
    assert!(proxy.records("").await.is_empty());
}

// contract: R-3
#[tokio::test]
async fn listed_methods_are_guarded_even_when_idempotent() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("guard = [\"PUT\"]")).await;
    let put = proxy.request("PUT", "/v1/a").auth("alice").key("k").body("x");
    put.send().await.was(200, "executed");
    put.send().await.was(200, "replayed");
    let post = proxy.charge("k2");
    post.send().await.was(200, "");
    post.send().await.was(200, "");
    assert_eq!(upstream.executions(), 3);
}

// contract: R-3
#[tokio::test]
async fn a_request_without_a_key_passes_where_none_is_required() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for _ in 0..2 {
        proxy.post("/v1/charges").auth("alice").send().await.was(200, "");
    }
    assert_eq!(upstream.executions(), 2);
}

// contract: R-3
#[tokio::test]
async fn mode_off_passes_everything() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("mode = \"off\"")).await;
    for _ in 0..2 {
        proxy.charge("k").send().await.was(200, "");
    }
    proxy.charge("not, one").send().await.was(200, "");
    assert_eq!(upstream.executions(), 3);
    assert_eq!(upstream.last().field("idempotency-key"), Some("not, one"));
}

// contract: R-3
#[tokio::test]
async fn grpc_passes_and_is_counted() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for kind in ["application/grpc", "application/grpc+proto"] {
        let reply = proxy.charge("k").without("content-type").field("Content-Type", kind).send().await;
        assert!(matches!(reply.outcome(), "" | "unguarded"), "{reply:?}");
    }
    assert_eq!(upstream.executions(), 2);
    assert_eq!(proxy.metrics().await.sum("oncegate_unguarded_total", &[("why", "grpc")]), 2.0);
}

// contract: P-7
#[tokio::test]
async fn a_passed_request_streams_both_ways() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    // The answer's beginning arrives while its end is held back.
    upstream.next(
        Script::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .then_hold()
            .then(Script::raw("0\r\n\r\n")),
    );
    let mut connection = proxy.get("/stream").begin().await;
    assert_eq!(soon(connection.head()).await.unwrap().status, 200);
    assert_eq!(soon(connection.line()).await.unwrap().as_deref(), Some("5"));
    assert_eq!(soon(connection.line()).await.unwrap().as_deref(), Some("first"));
    upstream.release();
    assert_eq!(soon(connection.line()).await.unwrap().as_deref(), Some("0"));

    // The request's head arrives upstream while the client still holds its body back.
    let mut connection = proxy.connect().await;
    connection.write("PUT /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc").await;
    upstream.saw(2).await;
    connection.write("def").await;
    assert_eq!(soon(connection.reply()).await.unwrap().status, 200);
    assert_eq!(upstream.last().body, b"abcdef");
}

// contract: P-7
#[tokio::test]
async fn bodies_of_passed_requests_have_no_bound() {
    let upstream = Upstream::start().await;
    let proxy =
        Proxy::start(Config::new(&upstream).policy("max_request_body = \"1KiB\"\nmax_response_body = \"1KiB\"")).await;
    let body = vec![b'x'; 3 << 20];
    upstream.next(Script::answer(200).body(&body));
    let reply = proxy.request("PUT", "/v1/big").body(&body).send().await;
    assert!(reply.whole && reply.body == body);
    assert_eq!(upstream.last().body.len(), body.len());
}

// contract: P-7
#[tokio::test]
async fn a_slow_reader_holds_the_upstream_back() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let before = proxy.resident_bytes();
    let big = vec![b'x'; 64 << 20];
    upstream.next(Script::answer(200).body(&big));
    let mut connection = proxy.get("/big").begin().await;
    soon(connection.head()).await.unwrap();
    pass(500).await;
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more while the client does not read");
}

// contract: P-7
#[tokio::test]
async fn answers_that_nobody_reads_take_little_memory_each() {
    const READERS: usize = 100;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                _ = stream.read(&mut [0; 4096]).await;
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
                let mut written = stream.write_all(head).await;
                while written.is_ok() {
                    written = stream.write_all(&[b'x'; 1 << 20]).await;
                }
            });
        }
    });
    let proxy = Proxy::start(Config::at(&url)).await;
    let before = proxy.resident_bytes();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut connection = proxy.get("/big").begin().await;
        assert_eq!(soon(connection.head()).await.unwrap().status, 200);
        readers.push(connection);
    }
    pass(1000).await;
    let each = proxy.resident_bytes().saturating_sub(before) / READERS as u64;
    assert!(each < 640 << 10, "{each} bytes for each client that does not read");
}

// contract: P-7
#[tokio::test]
async fn clients_that_take_nothing_give_their_connections_up_to_others() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).upstream("max_connections = 3")).await;
    let big = vec![b'x'; 64 << 20];
    upstream.program(move |seen| match seen.target.as_str() {
        "/big" => Script::answer(200).body(&big),
        _ => Script::token(),
    });
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut connection = proxy.get("/big").begin().await;
        soon(connection.head()).await.unwrap();
        idle.push(connection);
    }
    pass(2500).await;
    proxy.get("/v1/a").send().await.was(200, "");
    proxy.charge("k").send().await.was(200, "executed");
    proxy.says(&["WARN", "an answer was broken off whose client took nothing of it"]).await;
}

// contract: R-13, P-7
#[tokio::test]
async fn an_answer_that_is_broken_off_does_not_end() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).upstream("max_connections = 1")).await;
    // Without a length, only its last chunk says that it is whole.
    let big = ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4000000\r\n", &"x".repeat(64 << 20)].concat();
    upstream.next(Script::raw(big));
    let mut idle = proxy.get("/big").begin().await;
    upstream.saw(1).await;
    pass(1500).await;
    proxy.get("/v1/a").send().await.was(200, "");
    proxy.says(&["WARN", "an answer was broken off whose client took nothing of it"]).await;
    let reply = soon(idle.reply()).await;
    assert!(reply.as_ref().is_ok_and(|reply| reply.status == 200 && !reply.whole), "it looks whole");
}

// contract: R-23, P-7
#[tokio::test]
async fn an_upload_that_the_end_cuts_off_does_not_end() {
    let upstream = Upstream::start().await;
    for _ in 0..5 {
        let mut proxy = Proxy::start(Config::new(&upstream).server("drain_timeout = \"100ms\"")).await;
        let before = upstream.requests().len();
        let mut client = proxy.connect().await;
        client.write("PUT /v1/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        upstream.saw(before + 1).await;
        proxy.signal("TERM").await;
        assert_eq!(proxy.exit().await, Some(1), "{}", proxy.said());
    }
    pass(100).await;
    assert_eq!(upstream.executions(), 0);
}

// contract: P-7
#[tokio::test]
async fn clients_that_wait_for_the_upstream_keep_their_connections() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).upstream("max_connections = 1\nqueue_timeout = \"100ms\"")).await;
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
    upstream.next(Script::raw(half).then_hold().then(Script::raw("rest")));
    let mut connection = proxy.get("/v1/slow").begin().await;
    upstream.saw(1).await;
    pass(1500).await;
    proxy.get("/v1/a").send().await.refused(502, "upstream-unreachable");
    upstream.release();
    let reply = soon(connection.reply()).await.unwrap();
    assert!(reply.whole && reply.body == b"halfrest", "{reply:?}");
    // What was lent to it is not given up while it rests.
    pass(1500).await;
    upstream.next(Script::hold());
    let owner = proxy.charge("k").spawn();
    upstream.saw(2).await;
    proxy.get("/v1/a").send().await.refused(502, "upstream-unreachable");
    upstream.release();
    owner.await.unwrap().was(200, "executed");
}

#[tokio::test]
async fn a_passed_request_whose_upstream_fails_is_502_upstream_failed() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    upstream.next(Script::reset());
    let reply = proxy.request("POST", "/v1/a").body("x").send().await;
    reply.refused(502, "upstream-failed");
    assert!(!reply.has("retry-after"), "{reply:?}");
    assert_eq!(upstream.executions(), 1);
}

#[tokio::test]
async fn a_passed_request_is_504_after_pass_timeout() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("pass_timeout = \"100ms\"")).await;
    upstream.next(Script::hang());
    proxy.get("/v1/a").send().await.refused(504, "upstream-failed");
}

#[tokio::test]
async fn a_passed_answer_that_breaks_off_breaks_the_clients() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for script in [
        Script::cut_body(),
        Script::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").close_after(),
        Script::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").then_pause(20).reset_after(),
    ] {
        upstream.next(script);
        let reply = proxy.get("/v1/a").try_send().await;
        assert!(!reply.is_ok_and(|reply| reply.whole && reply.status == 200));
    }
}

// contract: P-6
#[tokio::test]
async fn a_post_is_never_sent_twice_by_itself_not_even_on_a_stale_connection() {
    let upstream = Upstream::start().await;
    upstream.program(|seen| if seen.number % 2 == 0 { Script::close() } else { Script::token() });
    let proxy = Proxy::before(&upstream).await;
    for round in 0..4 {
        // The first leaves a pooled connection behind; on it, the second finds a server that reads and closes.
        assert_eq!(proxy.post("/v1/unkeyed").send().await.status, 200);
        proxy.post("/v1/unkeyed").send().await.refused(502, "upstream-failed");
        assert_eq!(upstream.executions(), 2 * round + 2);
    }
    // And guarded likewise.
    proxy.charge("a").send().await.was(200, "executed");
    proxy.charge("b").send().await.refused(502, "outcome-unknown");
    assert_eq!(upstream.executions(), 10);
}

#[tokio::test]
async fn an_idempotent_request_is_sent_once_more_when_its_pooled_connection_was_stale() {
    let upstream = Upstream::start().await;
    upstream.program(|_| Script::token());
    let proxy = Proxy::before(&upstream).await;
    for _ in 0..5 {
        upstream.next(Script::token().then_pause(20).close_after());
        assert_eq!(proxy.get("/v1/a").send().await.status, 200);
        // At any moment around the closing, a GET finds an answer.
        pass(18).await;
        assert_eq!(proxy.get("/v1/a").send().await.status, 200);
    }
}
