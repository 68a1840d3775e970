//! The exchange with the upstream, from the first byte to the record.

use super::harness::*;

// contract: R-9
// contract: P-4
#[tokio::test]
async fn a_client_that_goes_away_loses_nothing() {
    let upstream = Upstream::start().await;
    upstream.program(|_| Script::hold());
    let proxy = Proxy::before(&upstream).await;
    for (number, key) in ["reset", "closed"].into_iter().enumerate() {
        let connection = proxy.charge(key).begin().await;
        upstream.saw(number + 1).await;
        if key == "reset" {
            connection.reset()
        } else {
            drop(connection)
        }
        pass(50).await;
        upstream.release();
        let reply = proxy.charge(key).send().await;
        assert_eq!(reply.was(200, "replayed").text(), format!("tok_{}", number + 1));
    }
    assert_eq!(upstream.executions(), 2);
}

// contract: R-9
// contract: P-4
#[tokio::test]
async fn a_client_that_is_reset_while_it_reads_its_answer_gets_it_again() {
    let upstream = Upstream::start().await;
    let body = vec![b'x'; 1 << 20];
    upstream.next(Script::answer(200).body(&body));
    let proxy = Proxy::before(&upstream).await;
    let mut connection = proxy.charge("k").begin().await;
    soon(connection.head()).await.unwrap().was(200, "executed");
    connection.reset();
    let again = proxy.charge("k").send().await;
    again.was(200, "replayed");
    assert!(again.body == body);
    assert_eq!(upstream.executions(), 1);
}

// contract: R-10
#[tokio::test]
async fn after_response_timeout_the_client_gets_504_and_a_retry_the_answer() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let proxy =
        Proxy::start(Config::new(&upstream).policy("response_timeout = \"200ms\"\nwait_timeout = \"5s\"")).await;
    let first = proxy.charge("k").send().await;
    first.refused(504, "still-running");
    assert_eq!(first.outcome(), "in-flight");
    let retry = proxy.charge("k").spawn();
    eventually("the retry waits", || async { proxy.metrics().await.sum("oncegate_waiters", &[]) == 1.0 }).await;
    upstream.release();
    let retry = retry.await.unwrap();
    retry.was(200, "replayed");
    assert_eq!(retry.parameter("waited"), Some(""));
    assert_eq!(upstream.executions(), 1);
}

// contract: R-10
#[tokio::test]
async fn a_retry_during_a_long_exchange_meets_in_flight_then_the_answer() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let proxy =
        Proxy::start(Config::new(&upstream).policy("response_timeout = \"100ms\"\nwait_timeout = \"100ms\"")).await;
    proxy.charge("k").send().await.refused(504, "still-running");
    proxy.charge("k").send().await.refused(409, "in-flight");
    upstream.release();
    proxy.settles("completed").await;
    proxy.charge("k").send().await.was(200, "replayed");
}

// contract: R-11
#[tokio::test]
async fn a_refused_connection_frees_the_key() {
    let upstream = Upstream::start().await;
    let url = upstream.url();
    let address = upstream.stop().await;
    let proxy = Proxy::start(Config::at(&url)).await;
    let reply = proxy.charge("k").send().await;
    reply.refused(502, "upstream-unreachable");
    assert_eq!((reply.outcome(), reply.field("retry-after")), ("released", Some("1")));
    assert!(proxy.records("").await.is_empty());
    assert_eq!(proxy.metrics().await.sum("oncegate_released_total", &[("reason", "not_sent")]), 1.0);
    // Once the server is back, the same key runs.
    let upstream = Upstream::at(address).await;
    proxy.charge("k").send().await.was(200, "executed");
    assert_eq!(upstream.executions(), 1);
}

// contract: R-11
#[tokio::test]
async fn a_connection_that_is_not_made_in_time_frees_the_key() {
    // A listener whose backlog is full drops what comes next.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fill = Vec::new();
    for _ in 0..4 {
        fill.push(tokio::spawn(tokio::net::TcpStream::connect(address)));
    }
    pass(50).await;
    let config = Config::at(&format!("http://{address}")).upstream("connect_timeout = \"100ms\"");
    let proxy = Proxy::start(config).await;
    let reply = proxy.charge("k").send().await;
    reply.refused(504, "upstream-connect-timeout");
    assert_eq!(reply.outcome(), "released");
    assert!(proxy.records("").await.is_empty());
}

// contract: R-9
// contract: P-4
#[tokio::test]
async fn an_answer_that_was_let_go_is_read_to_its_end_though_its_client_leaves() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).upstream("max_idle_guarded = \"30s\"")).await;
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 8\r\n\r\nhalf";
    upstream.next(Script::raw(events).then_hold().then(Script::raw("re")).then_hold().then(Script::raw("st")));
    let mut client = proxy.charge("k").begin().await;
    assert_eq!(soon(client.head()).await.unwrap().outcome(), "not-kept");
    client.reset();
    pass(100).await;
    let in_flight = || async { proxy.metrics().await.sum("oncegate_in_flight", &[]) };
    // It is when something is written to it that the client is found to be gone.
    upstream.release();
    eventually("somebody else reads", || async { in_flight().await == 1.0 }).await;
    upstream.release();
    eventually("it has ended", || async { in_flight().await == 0.0 }).await;
    // The connection was not cut: it waits for another request.
    assert_eq!(proxy.metrics().await.sum("oncegate_connections", &[("side", "upstream")]), 1.0);
    proxy.charge("k").send().await.refused(409, "response-not-kept");
}

// contract: R-11
#[tokio::test]
async fn no_free_connection_in_time_frees_the_key() {
    let upstream = Upstream::start().await;
    let lines = "max_connections = 1\nqueue_timeout = \"100ms\"";
    let proxy = Proxy::start(Config::new(&upstream).upstream(lines)).await;
    upstream.next(Script::hold());
    let owner = proxy.charge("a").spawn();
    upstream.saw(1).await;
    let reply = proxy.charge("b").send().await;
    assert!(matches!(reply.code().as_str(), "upstream-unreachable" | "upstream-connect-timeout"), "{reply:?}");
    assert_eq!(reply.outcome(), "released");
    upstream.release();
    owner.await.unwrap().was(200, "executed");
    proxy.charge("b").send().await.was(200, "executed");
}

// contract: R-11
#[tokio::test]
async fn of_several_urls_another_is_tried_when_nothing_was_sent() {
    let gone = Upstream::start().await;
    let gone_url = gone.url();
    gone.stop().await;
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream);
    let both = format!("[\"{gone_url}\", \"{}\"]", upstream.url());
    let config =
        Config::raw(config.toml().replace(&format!("url = \"{}\"", upstream.url()), &format!("urls = {both}")));
    let proxy = Proxy::start(config).await;
    for key in ["a", "b", "c", "d"] {
        proxy.charge(key).send().await.was(200, "executed");
    }
    assert_eq!(upstream.executions(), 4);
}

// contract: R-11
// contract: R-12
// contract: P-1
// contract: P-5
#[tokio::test]
async fn whatever_breaks_after_the_first_byte_is_unknown_and_never_run_again() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let breaks = [
        ("reset after reading", Script::reset()),
        ("reset before the body was read", Script::reset_before_body()),
        ("closed", Script::close()),
        ("cut in the status line", Script::cut(5)),
        ("cut in the head", Script::cut(30)),
        ("cut before the body", Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").close_after()),
        ("cut in the body", Script::cut_body()),
        (
            "cut between chunks",
            Script::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").close_after(),
        ),
        (
            "cut before the last chunk",
            Script::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n").close_after(),
        ),
        ("cut after 1xx", Script::raw("HTTP/1.1 103 Early Hints\r\n\r\n").close_after()),
    ];
    for (number, (what, script)) in breaks.into_iter().enumerate() {
        upstream.next(script);
        let charge = proxy.charge(what.replace(' ', "-"));
        let first = charge.send().await;
        assert_eq!(
            (first.status, first.code().as_str(), first.outcome()),
            (502, "outcome-unknown", "unknown"),
            "{what}: {first:?}"
        );
        charge.send().await.refused(409, "outcome-unknown");
        assert_eq!(upstream.requests().len(), number + 1, "{what}");
    }
    assert_eq!(proxy.metrics().await.sum("oncegate_unknown_total", &[("reason", "lost")]), 10.0);
    assert_eq!(proxy.records("state=unknown").await.len(), 10);
}

// contract: R-11
#[tokio::test]
async fn an_answer_cut_at_any_byte_is_never_taken_for_whole() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let whole = "HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello world";
    for bytes in (0..whole.len()).step_by(3) {
        upstream.next(Script::raw(&whole.as_bytes()[..bytes]).close_after());
        proxy.charge(format!("cut-{bytes}")).send().await.refused(502, "outcome-unknown");
    }
    upstream.next(Script::raw(whole));
    proxy.charge("whole").send().await.was(201, "executed");
}

// contract: R-11
// contract: R-12
#[tokio::test]
async fn answers_that_are_not_http_are_unknown_and_not_stored() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let bad = [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: 1\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "\0\0\0\0\0\0\0\0",
    ];
    for (number, text) in bad.iter().enumerate() {
        upstream.next(Script::raw(*text).close_after());
        let charge = proxy.charge(format!("bad-{number}"));
        let reply = charge.send().await;
        assert_eq!((reply.status, reply.code().as_str()), (502, "outcome-unknown"), "{text:?}: {reply:?}");
        charge.send().await.refused(409, "outcome-unknown");
    }
    assert_eq!(upstream.requests().len(), bad.len());
}

// contract: R-11
#[tokio::test]
async fn an_answer_with_both_lengths_is_never_trusted() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    upstream.next(
        Script::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )
        .close_after(),
    );
    let reply = proxy.charge("k").send().await;
    // Either nobody is told anything, or the chunked reading is (RFC 9112 s6.3); never the shorter one.
    assert!(reply.code() == "outcome-unknown" || (reply.text() == "hello" && reply.whole), "{reply:?}");
    let again = proxy.charge("k").send().await;
    assert!(again.code() == "outcome-unknown" || (again.text() == "hello" && again.whole), "{again:?}");
    // Passed, it is read likewise or broken off: whoever comes next on this connection must not find the rest.
    upstream.next(
        Script::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )
        .close_after(),
    );
    let passed = proxy.get("/v1/a").try_send().await;
    assert!(!passed.is_ok_and(|reply| reply.status == 200 && reply.text() != "hello"), "the shorter reading");
}

// contract: R-12
#[tokio::test]
async fn statuses_of_release_on_free_the_key_and_are_passed_on() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let mut count = 0;
    for status in [401, 403, 407, 421, 425, 429] {
        let charge = proxy.charge(format!("s-{status}"));
        for _ in 0..2 {
            upstream.next(Script::answer(status).field("X-Why", "no").body("denied"));
            let reply = charge.send().await;
            reply.was(status, "released");
            assert_eq!((reply.text(), reply.field("x-why")), ("denied", Some("no")));
            count += 1;
        }
        charge.send().await.was(200, "executed");
        count += 1;
    }
    assert_eq!(upstream.executions(), count);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("oncegate_released_total", &[("reason", "429")]), 2.0);
}

// contract: R-12
#[tokio::test]
async fn a_503_frees_the_key_only_with_retry_after() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    upstream.next(Script::answer(503).field("Retry-After", "3"));
    let reply = proxy.charge("a").send().await;
    assert_eq!(reply.was(503, "released").field("retry-after"), Some("3"));
    proxy.charge("a").send().await.was(200, "executed");
    upstream.next(Script::answer(503));
    proxy.charge("b").send().await.was(503, "unknown");
    proxy.charge("b").send().await.refused(409, "outcome-unknown");
}

// contract: R-12
#[tokio::test]
async fn statuses_of_unknown_on_are_passed_on_marked_and_held() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for status in [408, 502, 503, 504] {
        upstream.next(Script::answer(status).field("X-Hop", "lb").body("hop"));
        let charge = proxy.charge(format!("s-{status}"));
        let reply = charge.send().await;
        reply.was(status, "unknown");
        assert_eq!((reply.text(), reply.field("x-hop")), ("hop", Some("lb")));
        charge.send().await.refused(409, "outcome-unknown");
    }
    assert_eq!(upstream.executions(), 4);
    assert_eq!(proxy.metrics().await.sum("oncegate_unknown_total", &[("reason", "answered")]), 4.0);
}

// contract: R-12
#[tokio::test]
async fn release_on_wins_over_unknown_on() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("release_on = [503]\nunknown_on = [503, 500]")).await;
    upstream.next(Script::answer(503));
    proxy.charge("a").send().await.was(503, "released");
    upstream.next(Script::answer(500));
    proxy.charge("b").send().await.was(500, "unknown");
    // And what is no longer listed is an outcome.
    upstream.next(Script::answer(401));
    proxy.charge("c").send().await.was(401, "executed");
}

// contract: R-12
// contract: P-2
#[tokio::test]
async fn every_other_status_is_the_outcome_500_too() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for status in [200, 201, 202, 204, 301, 303, 400, 402, 404, 409, 410, 422, 500, 501] {
        upstream.next(Script::answer(status));
        let charge = proxy.charge(format!("s-{status}"));
        let first = charge.send().await;
        first.was(status, "executed");
        let second = charge.send().await;
        second.was(status, "replayed");
        assert_eq!(first.body, second.body);
    }
    assert_eq!(upstream.executions(), 14);
}

// contract: R-9
// contract: R-12
#[tokio::test]
async fn outcome_timeout_ends_the_exchange_as_unknown() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hang());
    let lines = "response_timeout = \"300ms\"\noutcome_timeout = \"300ms\"";
    let proxy = Proxy::start(Config::new(&upstream).policy(lines)).await;
    let first = proxy.charge("k").send().await;
    assert_eq!(first.status, 504);
    assert!(matches!(first.code().as_str(), "outcome-unknown" | "still-running"), "{first:?}");
    proxy.settles("unknown").await;
    assert_eq!(proxy.record().await["reason"], "timed_out");
    proxy.charge("k").send().await.refused(409, "outcome-unknown");
    assert_eq!(proxy.metrics().await.sum("oncegate_unknown_total", &[("reason", "timed_out")]), 1.0);
}

// contract: R-9
#[tokio::test]
async fn a_dripping_answer_ends_with_outcome_timeout() {
    let upstream = Upstream::start().await;
    upstream.next(Script::drip(5));
    let lines = "response_timeout = \"300ms\"\noutcome_timeout = \"500ms\"";
    let proxy = Proxy::start(Config::new(&upstream).policy(lines)).await;
    proxy.charge("k").send().await.refused(504, "still-running");
    proxy.settles("unknown").await;
    proxy.charge("k").send().await.refused(409, "outcome-unknown");
}

// contract: R-13
#[tokio::test]
async fn the_answer_is_settled_before_it_is_told() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    // The head and half of the body are there, and the client is told nothing.
    upstream.next(Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc").then_hold().then(Script::raw("def")));
    let mut connection = proxy.charge("k").begin().await;
    upstream.saw(1).await;
    assert!(tokio::time::timeout(std::time::Duration::from_millis(150), connection.head()).await.is_err());
    upstream.release();
    let mut connection = proxy.charge("k").begin().await;
    soon(connection.head()).await.unwrap().was(200, "replayed");
    // Every time that an answer is told, its record is there.
    for number in 0..20 {
        proxy.charge(format!("n-{number}")).send().await.was(200, "executed");
        proxy.charge(format!("n-{number}")).send().await.was(200, "replayed");
    }
}

// contract: R-13
#[tokio::test]
async fn an_answer_past_the_bound_is_let_go_and_not_kept() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("max_response_body = \"1KiB\"")).await;
    let body = vec![b'x'; 300_000];
    let answers = [
        Script::answer(201).field("Location", "/v1/charges/7").body(&body),
        Script::answer(201).field("Location", "/v1/charges/7").chunked(&body),
    ];
    for (number, script) in answers.into_iter().enumerate() {
        upstream.next(script);
        let charge = proxy.charge(format!("k-{number}"));
        let first = charge.send().await;
        first.was(201, "not-kept");
        assert!(first.whole && first.body == body);
        let second = charge.send().await;
        second.refused(409, "response-not-kept");
        assert_eq!((second.outcome(), second.field("location")), ("not-kept", Some("/v1/charges/7")));
        assert_eq!(second.json()["original_status"], 201);
    }
    let exact = vec![b'y'; 1024];
    upstream.next(Script::answer(200).chunked(&exact));
    proxy.charge("exact").send().await.was(200, "executed");
    proxy.charge("exact").send().await.was(200, "replayed");
    assert_eq!(upstream.executions(), 3);
}

// contract: R-13
#[tokio::test]
async fn stream_types_are_let_go_at_once() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for (number, kind) in
        ["text/event-stream", "application/x-ndjson; charset=utf-8", "Multipart/X-Mixed-Replace; boundary=b"]
            .iter()
            .enumerate()
    {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ntick\n\r\n");
        upstream.next(Script::raw(head).then_hold().then(Script::raw("0\r\n\r\n")));
        let charge = proxy.charge(format!("k-{number}"));
        let mut connection = charge.begin().await;
        soon(connection.head()).await.unwrap().was(200, "not-kept");
        assert_eq!(soon(connection.line()).await.unwrap().as_deref(), Some("5"));
        // The record is completed before the head has left.
        charge.send().await.refused(409, "response-not-kept");
        upstream.release();
    }
}

// contract: R-13
#[tokio::test]
async fn a_break_after_the_head_was_let_go_breaks_the_clients_connection() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let heads = ["Transfer-Encoding: chunked\r\n\r\n5\r\ntick\n\r\n", "Content-Length: 100\r\n\r\ntick\n"];
    for (number, rest) in heads.iter().enumerate() {
        let script = Script::raw(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{rest}"));
        upstream.next(script.then_pause(50).reset_after());
        let charge = proxy.charge(format!("k-{number}"));
        let first = charge.send().await;
        first.was(200, "not-kept");
        assert!(!first.whole, "a broken stream must not end cleanly: {first:?}");
        charge.send().await.refused(409, "response-not-kept");
    }
}

// contract: R-12
#[tokio::test]
async fn interim_answers_are_passed_on_and_never_stored() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    upstream.next(Script::raw(format!("HTTP/1.1 102 Processing\r\n\r\n{interim}{interim}")).then(Script::answer(201)));
    proxy.charge("k").send().await.was(201, "executed");
    let again = proxy.charge("k").send().await;
    again.was(201, "replayed");
    assert!(again.interim.is_empty());
}

// contract: R-12
#[tokio::test]
async fn interim_answers_without_end_do_not_hold_a_request_for_ever() {
    let upstream = Upstream::start().await;
    let lines = "response_timeout = \"300ms\"\noutcome_timeout = \"600ms\"";
    let proxy = Proxy::start(Config::new(&upstream).policy(lines)).await;
    let mut script = Script::raw("");
    for _ in 0..400 {
        script = script.then(Script::raw("HTTP/1.1 102 Processing\r\n\r\n")).then_pause(5);
    }
    upstream.next(script);
    let reply = proxy.charge("k").send().await;
    assert!(matches!(reply.code().as_str(), "still-running" | "outcome-unknown"), "{reply:?}");
    proxy.settles("unknown").await;
    proxy.charge("k").send().await.refused(409, "outcome-unknown");
    assert_eq!(upstream.requests().len(), 1);
}

// contract: R-11
#[tokio::test]
async fn switching_protocols_on_a_guarded_request_is_unknown() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    upstream.next(Script::raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"));
    // Some clients ask for h2c with every request; it is ignored.
    let charge = proxy.charge("k").field("Connection", "Upgrade, HTTP2-Settings").field("Upgrade", "h2c");
    charge.send().await.refused(502, "outcome-unknown");
    assert!(!upstream.last().has("upgrade"));
    charge.send().await.refused(409, "outcome-unknown");
    assert_eq!(upstream.requests().len(), 1);
}

// contract: R-11
#[tokio::test]
async fn an_answer_before_the_body_was_read_is_an_answer() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    upstream.next(
        Script::raw("HTTP/1.1 402 Payment Required\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            .early()
            .then_pause(100)
            .close_after(),
    );
    let charge = proxy.charge("k").body(vec![b'x'; 900_000]);
    charge.send().await.was(402, "executed");
    charge.send().await.was(402, "replayed");
    assert_eq!(upstream.requests().len(), 1);
}

// contract: P-5
// contract: R-17
#[tokio::test]
async fn an_unknown_outcome_is_held_shown_counted_and_resolvable() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for key in ["ran", "did-not-run"] {
        upstream.next(Script::reset());
        proxy.charge(key).send().await.refused(502, "outcome-unknown");
    }
    let held = proxy.charge("ran").send().await;
    held.refused(409, "outcome-unknown");
    assert_eq!(held.outcome(), "unknown");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("oncegate_store_records", &[("state", "unknown")]), 2.0);
    assert_eq!(metrics.sum("oncegate_duplicates_prevented_total", &[("how", "held")]), 1.0);
    // The operator finds the record by the instance that the client quotes.
    let instance = held.json()["instance"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let resolve = proxy.admin("POST", &format!("/records/{instance}/resolve"));
    let answer = r#"{"executed": true, "response": {"status": 201, "headers": [["X-By", "hand"]], "body": "found"}}"#;
    assert!(resolve.json(answer).send().await.status < 300);
    let resolved = proxy.charge("ran").send().await;
    assert_eq!((resolved.was(201, "replayed").text(), resolved.field("x-by")), ("found", Some("hand")));
    let instance = proxy.charge("did-not-run").send().await.json()["instance"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let resolve = proxy.admin("POST", &format!("/records/{instance}/resolve"));
    assert!(resolve.json(r#"{"executed": false}"#).send().await.status < 300);
    proxy.charge("did-not-run").send().await.was(200, "executed");
}

// contract: P-5
#[tokio::test]
async fn the_end_of_an_unknown_record_is_announced_a_day_before() {
    let upstream = Upstream::start().await;
    for (retention, expiring) in [("48h", 0.0), ("23h", 1.0)] {
        let proxy = Proxy::start(Config::new(&upstream).policy(&format!("unknown_retention = \"{retention}\""))).await;
        upstream.next(Script::reset());
        proxy.charge("k").send().await.refused(502, "outcome-unknown");
        proxy.charge("executed").send().await.was(200, "executed");
        assert_eq!(proxy.metrics().await.sum("oncegate_unknown_expiring", &[]), expiring, "{retention}");
        pass(1100).await;
        let age = proxy.metrics().await.sum("oncegate_unknown_oldest_age_seconds", &[]);
        assert!((1.0..9.0).contains(&age), "{age}");
    }
}

// contract: R-17
#[tokio::test]
async fn on_unknown_retry_runs_it_again_and_says_so() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("on_unknown = \"retry\"")).await;
    upstream.next(Script::reset());
    let first = proxy.charge("k").send().await;
    first.refused(502, "outcome-unknown");
    assert_eq!((first.field("retry-after"), first.json()["retry"].as_str()), (Some("1"), Some("safe")));
    proxy.charge("k").send().await.was(200, "executed");
    proxy.charge("k").send().await.was(200, "replayed");
    assert_eq!(upstream.executions(), 2);
    proxy.says(&["WARN", "is run anew", "route=charges"]).await;
    assert_eq!(proxy.metrics().await.sum("oncegate_unknown_run_anew_total", &[]), 1.0);
}
