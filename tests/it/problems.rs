//! Every refusal, member by member, in both formats.
//!
//! Each row of the contract's table is provoked once with `error_format = "problem"` and once with `"stripe"`, and the
//! answer compared with a table of its own below, written from the contract and not from the code.

use super::harness::*;

struct Row {
    code: &'static str,
    status: u16,
    title: &'static str,
    executed: Option<&'static str>,
    /// `-`: none; `1-10`: that range; else exactly this.
    retry_after: &'static str,
    retry: Option<&'static str>,
    outcome: &'static str,
    instance: bool,
}

#[expect(clippy::too_many_arguments, reason = "a row of a table, in the table's order")]
const fn row(
    code: &'static str,
    status: u16,
    title: &'static str,
    executed: Option<&'static str>,
    retry_after: &'static str,
    retry: Option<&'static str>,
    outcome: &'static str,
    instance: bool,
) -> Row {
    Row { code, status, title, executed, retry_after, retry, outcome, instance }
}

const NO: Option<&str> = Some("no");
const MAYBE: Option<&str> = Some("maybe");
const YES: Option<&str> = Some("yes");
const NEVER: Option<&str> = Some("never");
const SAFE: Option<&str> = Some("safe");
const WAIT: Option<&str> = Some("wait");

const CALLER: &str = "The caller cannot be told apart";
const UNKNOWN: &str = "The outcome of the request is unknown";
const UNREACHABLE: &str = "The upstream could not be reached; nothing was executed";
const KEPT: &str = "The request was executed; its response was not kept";
const BUSY: &str = "A request is outstanding for this Idempotency-Key";

/// Checks a refusal against its row, whichever of the formats it is in.
#[track_caller]
fn check(reply: &Reply, row: &Row, stripe: bool) {
    let Row { code, status, title, executed, retry_after, retry, outcome, instance } = *row;
    let json = reply.json();
    let context = format!("{code}: {reply:?}\n{json:#}");
    match (retry_after, reply.field("retry-after")) {
        ("-", after) => assert_eq!(after, None, "{context}"),
        ("1-10", after) => assert!((1..=10).contains(&after.unwrap().parse::<u64>().unwrap()), "{context}"),
        (expected, after) => assert_eq!(after, Some(expected), "{context}"),
    }
    assert_eq!(reply.outcome(), outcome, "{context}");
    assert!(!reply.has("idempotent-replayed"), "{context}");
    if stripe {
        let status = if code == "key-reused" { 400 } else { status };
        assert_eq!(reply.status, status, "{context}");
        assert!(reply.field("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{context}");
        let kind = match (code, status) {
            ("key-reused", _) => "idempotency_error",
            (_, 409 | 500..) => "api_error",
            (_, _) => "invalid_request_error",
        };
        assert_eq!(json["error"]["type"], kind, "{context}");
        assert_eq!(json["error"]["code"], code, "{context}");
        assert!(json["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{context}");
        let should = retry.map(|retry| if retry == "never" { "false" } else { "true" });
        assert_eq!(reply.field("stripe-should-retry"), should, "{context}");
        return;
    }
    assert_eq!(reply.status, status, "{context}");
    assert_eq!(reply.field("content-type"), Some("application/problem+json"), "{context}");
    assert_eq!(json["type"], format!("urn:oncegate:problem:{code}"), "{context}");
    assert_eq!(json["title"], title, "{context}");
    assert_eq!(json["status"], status, "{context}");
    assert_eq!(json["code"], code, "{context}");
    assert!(json["detail"].as_str().is_some_and(|text| text.ends_with('.')), "{context}");
    assert_eq!(json["executed"].as_str(), executed, "{context}");
    assert_eq!(json["retry"].as_str(), retry, "{context}");
    assert!(!reply.has("stripe-should-retry"), "{context}");
    match json["instance"].as_str() {
        None => assert!(!instance, "no instance: {context}"),
        Some(text) => {
            let digits = text.strip_prefix("urn:oncegate:record:").unwrap_or_else(|| panic!("{context}"));
            assert!(digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{context}");
        }
    }
    let members = ["type", "title", "status", "detail", "code", "executed", "retry", "instance", "original_status"];
    for member in json.as_object().unwrap().keys() {
        assert!(members.contains(&member.as_str()), "{member}: {context}");
    }
}

async fn formats(lines: &str, upstream: &Upstream) -> [(bool, Proxy); 2] {
    let config = Config::new(upstream).policy(lines);
    [
        (false, Proxy::start(config.clone()).await),
        (true, Proxy::start(config.policy("error_format = \"stripe\"")).await),
    ]
}

#[tokio::test]
async fn refusals_of_the_request_itself() {
    let upstream = Upstream::start().await;
    for (stripe, proxy) in formats("key_required = true\nmax_request_body = \"1KiB\"", &upstream).await {
        let reply = proxy.post("/v1/a").auth("alice").send().await;
        check(
            &reply,
            &row("key-missing", 400, "Idempotency-Key is missing", NO, "-", NEVER, "rejected", false),
            stripe,
        );
        let reply = proxy.charge("a,b").send().await;
        check(
            &reply,
            &row("key-malformed", 400, "Idempotency-Key is malformed", NO, "-", NEVER, "rejected", false),
            stripe,
        );
        let reply = proxy.post("/v1/a").key("k").field("Cookie", "a=b").send().await;
        check(&reply, &row("scope-missing", 400, CALLER, NO, "-", NEVER, "rejected", false), stripe);
        let reply = proxy.post("/v1/a").key("k").field("Authorization", "DPoP x").send().await;
        check(&reply, &row("scope-unstable", 400, CALLER, NO, "-", NEVER, "rejected", false), stripe);
        let reply = proxy.charge("k").auth("bob").send().await;
        check(&reply, &row("bad-request", 400, "The request is malformed", NO, "-", NEVER, "rejected", false), stripe);
        let reply = proxy.charge("k").body(vec![0; 2000]).send().await;
        check(
            &reply,
            &row("body-too-large", 413, "The request body is too large", NO, "-", NEVER, "rejected", false),
            stripe,
        );
        let reply = proxy.charge("k").field("Early-Data", "1").send().await;
        let title = "The request came as early data";
        check(&reply, &row("too-early", 425, title, NO, "-", SAFE, "rejected", false), stripe);
        proxy.charge("k").send().await.was(200, "executed");
        let reply = proxy.charge("k").body("other").send().await;
        check(
            &reply,
            &row("key-reused", 422, "Idempotency-Key is already used", None, "-", NEVER, "rejected", false),
            stripe,
        );
    }
}

#[tokio::test]
async fn refusals_of_duplicates() {
    let upstream = Upstream::start().await;
    for (stripe, proxy) in
        formats("response_timeout = \"100ms\"\nwait_timeout = \"50ms\"\non_duplicate = \"reject\"", &upstream).await
    {
        upstream.next(Script::hold());
        let reply = proxy.charge("slow").send().await;
        check(
            &reply,
            &row("still-running", 504, "The request is still running", MAYBE, "1-10", WAIT, "in-flight", true),
            stripe,
        );
        let reply = proxy.charge("slow").send().await;
        check(&reply, &row("in-flight", 409, BUSY, MAYBE, "1-10", WAIT, "in-flight", true), stripe);
        upstream.release();
        proxy.settles("completed").await;
        let reply = proxy.charge("slow").send().await;
        check(
            &reply,
            &row("duplicate", 409, "This request was already executed", YES, "-", NEVER, "rejected", true),
            stripe,
        );
    }
    for (stripe, proxy) in formats("", &upstream).await {
        upstream.next(Script::answer(207).field("Content-Type", "text/event-stream").body("data: 1\n\n"));
        proxy.charge("stream").send().await.was(207, "not-kept");
        let reply = proxy.charge("stream").send().await;
        check(&reply, &row("response-not-kept", 409, KEPT, YES, "-", NEVER, "not-kept", true), stripe);
        if !stripe {
            assert_eq!(reply.json()["original_status"], 207);
        }
    }
}

#[tokio::test]
async fn refusals_about_unknown_outcomes() {
    let upstream = Upstream::start().await;
    for (stripe, proxy) in formats("", &upstream).await {
        upstream.next(Script::reset());
        let reply = proxy.charge("k").send().await;
        check(&reply, &row("outcome-unknown", 502, UNKNOWN, MAYBE, "-", NEVER, "unknown", true), stripe);
        let reply = proxy.charge("k").send().await;
        check(&reply, &row("outcome-unknown", 409, UNKNOWN, MAYBE, "-", NEVER, "unknown", true), stripe);
    }
    for (stripe, proxy) in formats("on_unknown = \"retry\"", &upstream).await {
        upstream.next(Script::reset());
        let reply = proxy.charge("k").send().await;
        check(&reply, &row("outcome-unknown", 502, UNKNOWN, MAYBE, "1", SAFE, "unknown", true), stripe);
    }
}

// contract: R-12
#[tokio::test]
async fn a_timed_out_outcome_is_504_to_the_request_that_ran() {
    let upstream = Upstream::start().await;
    upstream.program(|_| Script::hang());
    // The waiter's patience outlasts the exchange, so what it is told is how that ended.
    for (stripe, proxy) in formats("response_timeout = \"300ms\"\noutcome_timeout = \"300ms\"", &upstream).await {
        let reply = proxy.charge("k").send().await;
        let still = row("still-running", 504, "The request is still running", MAYBE, "1-10", WAIT, "in-flight", true);
        let unknown = row("outcome-unknown", 504, UNKNOWN, MAYBE, "-", NEVER, "unknown", true);
        check(&reply, if reply.outcome() == "unknown" { &unknown } else { &still }, stripe);
    }
}

#[tokio::test]
async fn refusals_about_the_upstream_and_load() {
    let upstream = Upstream::start().await;
    let gone = Upstream::start().await;
    let url = gone.url();
    gone.stop().await;
    for stripe in [false, true] {
        let format = if stripe { "error_format = \"stripe\"" } else { "error_format = \"problem\"" };
        let proxy = Proxy::start(Config::at(&url).policy(format)).await;
        let reply = proxy.charge("k").send().await;
        check(&reply, &row("upstream-unreachable", 502, UNREACHABLE, NO, "1", SAFE, "released", false), stripe);
        // A passed request is told as much: it was not sent.
        let reply = proxy.get("/v1/a").send().await;
        check(&reply, &row("upstream-unreachable", 502, UNREACHABLE, NO, "1", SAFE, "", false), stripe);

        upstream.next(Script::hold());
        let config = Config::new(&upstream).policy(format).server("max_in_flight = 1");
        let proxy = Proxy::start(config).await;
        let seen = upstream.requests().len();
        let owner = proxy.charge("a").spawn();
        upstream.saw(seen + 1).await;
        let reply = proxy.charge("b").send().await;
        check(
            &reply,
            &row("overloaded", 503, "Too many requests are under way", NO, "1", SAFE, "rejected", false),
            stripe,
        );
        let waiter = proxy.charge("a").spawn();
        eventually("one waits", || async { proxy.metrics().await.sum("oncegate_waiters", &[]) == 1.0 }).await;
        proxy.signal("TERM").await;
        let reply = waiter.await.unwrap();
        check(&reply, &row("draining", 503, "Oncegate is shutting down", MAYBE, "1", WAIT, "rejected", false), stripe);
        upstream.release();
        owner.await.unwrap().was(200, "executed");
    }
}

#[tokio::test]
async fn refusals_of_a_full_store() {
    let upstream = Upstream::start().await;
    for stripe in [false, true] {
        let format = if stripe { "error_format = \"stripe\"" } else { "error_format = \"problem\"" };
        let proxy = Proxy::start(Config::new(&upstream).policy(format).memory("max_bytes = \"1MiB\"")).await;
        let mut connection = proxy.connect().await;
        let mut number = 0;
        let reply = loop {
            let reply = connection.exchange(proxy.charge(format!("k-{number}")).bytes()).await;
            number += 1;
            if reply.status != 200 {
                break reply;
            }
        };
        check(
            &reply,
            &row("store-full", 503, "The idempotency store is full", NO, "30", SAFE, "rejected", false),
            stripe,
        );
    }
}

/// What has no route looks as `[defaults]` say.
#[tokio::test]
async fn no_route_is_404_and_a_head_that_cannot_be_read_400() {
    let upstream = Upstream::start().await;
    let docs = "docs_url = \"https://docs.example.com/a\"";
    for (stripe, lines) in [(false, docs.to_owned()), (true, format!("{docs}\nerror_format = \"stripe\""))] {
        let config = Config::new(&upstream).policy(&lines);
        let config = config.table("[upstreams.second]", &format!("url = \"{}\"", upstream.url()));
        let text = config.toml().replace("name = \"charges\"", "name = \"charges\"\nupstream = \"main\"");
        let proxy = Proxy::start(Config::raw(text)).await;
        let reply = proxy.get("/nowhere").send().await;
        check(&reply, &row("no-route", 404, "No route matches", NO, "-", NEVER, "", false), stripe);
        assert_eq!(reply.field("link"), Some("<https://docs.example.com/a>; rel=\"describedby\""));
        let reply = proxy.connect().await.exchange("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
        check(&reply, &row("bad-request", 400, "The request is malformed", NO, "-", NEVER, "rejected", false), stripe);
    }
}

#[tokio::test]
async fn docs_url_is_linked() {
    let upstream = Upstream::start().await;
    for (_, proxy) in formats("docs_url = \"https://docs.example.com/idempotency\"", &upstream).await {
        let reply = proxy.charge("a,b").send().await;
        assert_eq!(reply.field("link"), Some("<https://docs.example.com/idempotency>; rel=\"describedby\""));
        assert!(!proxy.charge("k").send().await.has("link"));
    }
    let proxy = Proxy::before(&upstream).await;
    assert!(!proxy.charge("a,b").send().await.has("link"));
}

#[tokio::test]
async fn retry_after_is_half_the_owners_age() {
    let upstream = Upstream::start().await;
    upstream.program(|_| Script::hang());
    let lines = "on_in_flight = \"reject\"\nresponse_timeout = \"9s\"";
    let proxy = Proxy::start(Config::new(&upstream).policy(lines)).await;
    let owner = proxy.charge("k").begin().await;
    upstream.saw(1).await;
    assert_eq!(proxy.charge("k").send().await.refused(409, "in-flight").field("retry-after"), Some("1"));
    pass(6200).await;
    assert_eq!(proxy.charge("k").send().await.refused(409, "in-flight").field("retry-after"), Some("3"));
    drop(owner);
}

#[tokio::test]
async fn the_access_line_says_what_was_wrong_with_the_request() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let refused = [
        (proxy.charge("k").field("Authorization", "Bearer other"), "a part of the scope comes twice"),
        (proxy.charge("k").field("Idempotency_Key", "x"), "differs by underscores alone"),
        (proxy.charge("k").field("Upgrade", "websocket").field("Connection", "upgrade"), "an upgrade with a key"),
        (proxy.charge("k").field("Idempotency-Key", "other"), "key-malformed"),
    ];
    for (post, cause) in refused {
        let reply = post.send().await;
        assert_eq!(reply.status, 400, "{reply:?}");
        proxy.says(&["access", &format!("why={}", reply.code()), "cause=", cause]).await;
    }
    assert_eq!(upstream.executions(), 0);
}
