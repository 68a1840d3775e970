//! `mode = "observe"` changes nothing and tells what enforcing would have done.

use super::harness::*;

/// Fields that differ between any two answers.
fn comparable(reply: &Reply) -> (u16, Vec<(String, String)>, Vec<u8>, bool) {
    let fields = reply.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("date"));
    (
        reply.status,
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect(),
        reply.body.clone(),
        reply.whole,
    )
}

// contract: R-24
#[tokio::test]
async fn observed_answers_equal_those_of_mode_off() {
    let mut told = Vec::new();
    for mode in ["off", "observe"] {
        let upstream = Upstream::start().await;
        let proxy = Proxy::start(
            Config::new(&upstream)
                .policy(&format!("mode = \"{mode}\"\nkey_required = true\nmax_request_body = \"1KiB\"")),
        )
        .await;
        let scripts = [
            Script::answer(201).field("Set-Cookie", "a=b").field("Idempotency-Status", "executed").body("one"),
            Script::answer(200).chunked("two"),
            Script::answer(429),
            Script::answer(503),
            Script::answer(200).field("Content-Type", "text/event-stream").body("data: 1\n\n"),
        ];
        let requests = [
            proxy.charge("k"),
            proxy.charge("k").body("other"),
            proxy.charge("k"),
            proxy.charge("not, a key"),
            proxy.post("/v1/charges"),
            proxy.charge("k").auth("bob"),
            proxy.charge("big").body(vec![b'x'; 5000]),
            proxy.charge("early").field("Early-Data", "1"),
            proxy.get("/v1/charges").key("k"),
            proxy.post("/v1/charges").key("k").field("Cookie", "a=b"),
        ];
        let mut answers = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            upstream.next(scripts[number % scripts.len()].clone());
            answers.push(comparable(&request.send().await));
        }
        let bodies: Vec<_> =
            upstream.requests().into_iter().map(|seen| (seen.method, seen.target, seen.body)).collect();
        told.push((answers, bodies));
    }
    assert_eq!(told[0].0, told[1].0);
    assert_eq!(told[0].1, told[1].1);
}

// contract: R-24
#[tokio::test]
async fn observing_counts_what_enforcing_would_have_done() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("mode = \"observe\"")).await;
    let would = |word: &'static str| {
        let proxy = &proxy;
        async move { proxy.metrics().await.sum("oncegate_observed_total", &[("route", "charges"), ("would", word)]) }
    };
    proxy.charge("k").send().await.was(200, "");
    eventually("executed", || async { would("executed").await == 1.0 }).await;
    proxy.charge("k").send().await.was(200, "");
    eventually("replayed", || async { would("replayed").await == 1.0 }).await;
    proxy.charge("k").body("other").send().await.was(200, "");
    eventually("key-reused", || async { would("key-reused").await == 1.0 }).await;
    upstream.next(Script::hold());
    let owner = proxy.charge("held").spawn();
    upstream.saw(4).await;
    proxy.charge("held").send().await.was(200, "");
    eventually("in-flight", || async { would("in-flight").await == 1.0 }).await;
    upstream.release();
    owner.await.unwrap().was(200, "");
    proxy.charge("not, one").send().await.was(200, "");
    eventually("rejected", || async { would("rejected").await == 1.0 }).await;
    proxy.charge("early").field("Early-Data", "1").send().await.was(200, "");
    eventually("rejected too", || async { would("rejected").await == 2.0 }).await;
    let trailers = "POST /v1/charges HTTP/1.1\r\nHost: h\r\nIdempotency-Key: trailers\r\nAuthorization: alice\r\n\
                    Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n";
    proxy.connect().await.exchange(trailers).await.was(200, "");
    eventually("rejected for its trailers", || async { would("rejected").await == 3.0 }).await;
    assert_eq!(upstream.executions(), 8);
}

// contract: R-24
#[tokio::test]
async fn observing_logs_what_enforcing_would_have_done() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("mode = \"observe\"")).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    proxy.charge("k").field("traceparent", trace).send().await.was(200, "");
    let first = proxy.says(&["observed", "would=\"executed\""]).await;
    for part in ["method=\"POST\"", "route=\"charges\"", "path=\"/v1/charges\"", "trace_id=\"4bf92f35"] {
        assert!(first.contains(part), "{part}: {first}");
    }
    let record = first.split_once("record=").unwrap().1.split(' ').next().unwrap();
    eventually("it is settled", || async { proxy.records("state=in_flight").await.is_empty() }).await;
    proxy.charge("k").send().await.was(200, "");
    let second = proxy.says(&["observed", "would=\"replayed\""]).await;
    assert!(second.contains(record), "{second}");
    proxy.charge("not, one").send().await.was(200, "");
    let third = proxy.says(&["observed", "would=\"rejected\""]).await;
    assert!(third.contains("why=\"key-malformed\""), "{third}");
    assert!(!proxy.said().contains("not, one"));
}

// contract: R-24
#[tokio::test]
async fn an_observed_record_holds_no_answer_and_says_so() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("mode = \"observe\"")).await;
    let stream = || Script::answer(200).field("Content-Type", "text/event-stream").body("data: 1\n\n");
    for (key, script, would) in [("a", Script::answer(201), "replayed"), ("b", stream(), "not-kept")] {
        for (script, would) in [(script, "executed"), (Script::token(), would)] {
            let count = || async { proxy.metrics().await.sum("oncegate_observed_total", &[("would", would)]) };
            let before = count().await;
            upstream.next(script);
            proxy.charge(key).send().await;
            eventually(would, || async { count().await == before + 1.0 }).await;
            eventually("it is settled", || async { proxy.records("state=in_flight").await.is_empty() }).await;
        }
    }
    let records = proxy.records("state=completed").await;
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!((&record["kept"], record.get("body_bytes")), (&false.into(), None), "{record}");
    }
}

// contract: R-24
#[tokio::test]
async fn enforcing_never_reads_what_observing_wrote() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("mode = \"observe\"")).await;
    proxy.charge("k").send().await.was(200, "");
    eventually("it was observed", || async {
        proxy.metrics().await.sum("oncegate_observed_total", &[("would", "executed")]) == 1.0
    })
    .await;
    proxy.reload(&Config::new(&upstream).policy("mode = \"enforce\""), "ok").await;
    proxy.charge("k").send().await.was(200, "executed");
    proxy.charge("k").send().await.was(200, "replayed");
}

// contract: R-24
#[tokio::test]
async fn an_observed_request_streams() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("mode = \"observe\"")).await;
    let mut connection = proxy.connect().await;
    connection
        .write(
            "POST /v1/a HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nIdempotency-Key: k\r\nContent-Length: 6\r\n\r\nabc",
        )
        .await;
    upstream.saw(1).await;
    connection.write("def").await;
    soon(connection.reply()).await.unwrap().was(200, "");
    assert_eq!(upstream.last().body, b"abcdef");
}
