//! A guarded request's body is read whole before anything is claimed.

use super::harness::*;

// contract: R-7
#[tokio::test]
async fn a_client_that_leaves_before_its_body_is_complete_leaves_no_record() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let whole = proxy.charge("k").bytes();
    for cut in (1..whole.len()).step_by(9) {
        let mut connection = proxy.connect().await;
        connection.write(&whole[..cut]).await;
        if cut % 2 == 0 { connection.reset() } else { connection.half_close().await }
    }
    pass(100).await;
    assert_eq!(upstream.requests().len(), 0);
    assert!(proxy.records("").await.is_empty());
    proxy.charge("k").send().await.was(200, "executed");
}

// contract: R-7
#[tokio::test]
async fn a_body_over_the_bound_is_413_from_its_length_alone() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("max_request_body = \"1KiB\"")).await;
    let mut connection = proxy.connect().await;
    // Not one byte of the body is sent.
    connection
        .write(
            "POST /v1/a HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nAuthorization: a\r\nContent-Length: 1025\r\n\r\n",
        )
        .await;
    soon(connection.reply()).await.unwrap().refused(413, "body-too-large");
    assert!(connection.is_closed().await);
    let exact = proxy.charge("k").body(vec![b'x'; 1024]);
    exact.send().await.was(200, "executed");
    assert_eq!(upstream.executions(), 1);
}

// contract: R-7
#[tokio::test]
async fn a_chunked_body_over_the_bound_is_413() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("max_request_body = \"1KiB\"")).await;
    let mut connection = proxy.connect().await;
    connection.write("POST /v1/a HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nAuthorization: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    for _ in 0..3 {
        connection.write(&chunk).await;
    }
    soon(connection.reply()).await.unwrap().refused(413, "body-too-large");
    assert_eq!(upstream.requests().len(), 0);
    assert!(proxy.records("").await.is_empty());
}

// contract: R-7
#[tokio::test]
async fn on_body_too_large_pass_streams_it_unguarded_marked_and_counted() {
    let upstream = Upstream::start().await;
    let lines = "max_request_body = \"1KiB\"\non_body_too_large = \"pass\"";
    let proxy = Proxy::start(Config::new(&upstream).policy(lines)).await;
    let big = proxy.charge("k").body(vec![b'x'; 100_000]);
    for count in 1..=2 {
        big.send().await.was(200, "unguarded");
        assert_eq!(upstream.last().body.len(), 100_000);
        assert_eq!(
            proxy.metrics().await.sum("oncegate_unguarded_total", &[("why", "body_too_large")]),
            f64::from(count)
        );
    }
    // Chunked: found out only on the way.
    let mut chunked = b"POST /v1/a HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nAuthorization: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..10 {
        chunked.extend(format!("200\r\n{}\r\n", "y".repeat(512)).bytes());
    }
    chunked.extend(b"0\r\n\r\n");
    proxy.raw(&chunked).await.was(200, "unguarded");
    assert_eq!(upstream.last().body, vec![b'y'; 5120]);
}

// contract: R-7
#[tokio::test]
async fn trailers_on_a_guarded_request_are_400() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let reply = proxy
        .raw("POST /v1/a HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nAuthorization: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n")
        .await;
    reply.refused(400, "bad-request");
    assert_eq!(upstream.requests().len(), 0);
}

// contract: R-7
#[tokio::test]
async fn early_data_is_425() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    // RFC 8470 s5.1: whatever else it says is taken for 1.
    for value in ["1", "0", "?1", "1, 1", ""] {
        proxy.charge("k").field("Early-Data", value).send().await.refused(425, "too-early");
    }
    assert_eq!(upstream.requests().len(), 0);
    proxy.get("/v1/a").field("Early-Data", "1").send().await.was(200, "");
    proxy.charge("k").send().await.was(200, "executed");
}

// contract: R-7
#[tokio::test]
async fn a_refused_body_is_read_or_the_connection_closes() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("key_required = true")).await;
    // The body looks like a request: if it stayed on the wire, it would be taken for one.
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let post = |key: &str| {
        format!(
            "POST /v1/a HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\n{key}Content-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        )
    };
    for key in [
        "",
        "Idempotency-Key: a,b\r\n",
        "Idempotency-Key: ok\r\n",
        "Idempotency-Key: ok\r\n",
        "Idempotency-Key: ok\r\nEarly-Data: 1\r\n",
    ] {
        let mut connection = proxy.connect().await;
        let first = connection.exchange(post(key)).await;
        assert!(first.whole);
        connection.try_write("GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await.ok();
        if let Ok(reply) = soon(connection.reply()).await {
            assert_eq!((reply.status, upstream.last().target.as_str()), (200, "/next"));
        }
    }
    assert!(upstream.requests().iter().all(|seen| seen.target != "/smuggled"));
}

// contract: R-7
#[tokio::test]
async fn a_silent_body_is_given_up_after_body_timeout() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).server("body_timeout = \"200ms\"")).await;
    // Of one that was streaming through, the upstream may have acted on what it had.
    let expected =
        [("Idempotency-Key: k\r\nAuthorization: a\r\n", "no", "not sent on"), ("", "maybe", "had been sent on")];
    for (key, executed, said) in expected {
        let mut connection = proxy.connect().await;
        connection.write(format!("POST /v1/a HTTP/1.1\r\nHost: h\r\n{key}Content-Length: 5\r\n\r\nab")).await;
        let reply = soon(connection.reply()).await.unwrap();
        let problem = reply.refused(408, "bad-request").json();
        assert_eq!(problem["executed"], executed, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
        assert!(connection.is_closed().await);
    }
    assert_eq!(upstream.executions(), 0);
    assert!(proxy.records("").await.is_empty());
}

// contract: R-7
#[tokio::test]
async fn a_dripped_body_is_given_up_when_it_has_an_end() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).server("body_timeout = \"900ms\"")).await;
    // Ten seconds, or ten silences, is what a body may take that brings less than a KiB a second. One of no stated length that passes may
    // be a stream that stays open by design.
    let key = "Idempotency-Key: k\r\nAuthorization: a\r\n";
    let (length, chunked) = ("Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n");
    let cases = [
        (key, length, "x", true),
        (key, chunked, "1\r\nx\r\n", true),
        ("", length, "x", true),
        ("", chunked, "1\r\nx\r\n", false),
    ];
    let drips = cases.map(|(key, framing, drip, ends)| {
        let proxy = &proxy;
        async move {
            let mut connection = proxy.connect().await;
            connection.write(format!("POST /v1/a HTTP/1.1\r\nHost: h\r\n{key}{framing}\r\n")).await;
            for _ in 0..120 {
                pass(100).await;
                if connection.try_write(drip).await.is_err() {
                    break;
                }
            }
            if ends {
                let reply = soon(connection.reply()).await.unwrap();
                let problem = reply.refused(408, "bad-request").json();
                assert!(problem["detail"].as_str().unwrap().contains("arrived too slowly"), "{problem}");
            } else {
                connection.write("0\r\n\r\n").await;
                soon(connection.reply()).await.unwrap().was(200, "");
            }
        }
    });
    let [guarded, guarded_chunked, passed, stream] = drips;
    tokio::join!(guarded, guarded_chunked, passed, stream);
    let refused = proxy.metrics().await.sum("oncegate_refused_total", &[("reason", "body-timeout")]);
    assert_eq!((refused, upstream.executions()), (3.0, 1));
    assert!(proxy.records("").await.is_empty());
}

// contract: R-7
#[tokio::test]
async fn max_buffered_refuses_with_overloaded_and_gives_back_what_it_took() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).server("max_buffered = \"1MiB\"")).await;
    let big = |key: &str| proxy.charge(key).body(vec![b'x'; 700 << 10]);
    // One client's body is nearly all there.
    let mut half = proxy.connect().await;
    let bytes = big("a").bytes();
    half.write(&bytes[..bytes.len() - 10]).await;
    pass(200).await;
    let second = big("b").send().await;
    second.refused(503, "overloaded");
    assert_eq!(second.field("retry-after"), Some("1"));
    half.write(&bytes[bytes.len() - 10..]).await;
    soon(half.reply()).await.unwrap().was(200, "executed");
    for key in ["c", "d", "e"] {
        big(key).send().await.was(200, "executed");
    }
    // So are answers counted while they come.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 716801\r\n\r\n".to_owned();
    upstream.next(Script::raw(head + &"x".repeat(716_800)).then_hold().then(Script::raw("x")));
    let first = proxy.charge("answer").spawn();
    upstream.saw(5).await;
    pass(200).await;
    big("f").send().await.refused(503, "overloaded");
    upstream.release();
    first.await.unwrap().was(200, "executed");
    big("f").send().await.was(200, "executed");
}
