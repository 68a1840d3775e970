//! Where the key comes from, and what is one.

use super::harness::*;

/// Sends the key's field as it is, twice: with one value, then another.
async fn are_one(proxy: &Proxy, one: &str, other: &str) -> bool {
    let first = proxy.charge(one).send().await;
    first.was(200, "executed");
    let second = proxy.charge(other).send().await;
    match second.outcome() {
        "replayed" => true,
        "executed" => false,
        _ => panic!("{one:?}, {other:?}: {second:?}"),
    }
}

// contract: R-4
#[tokio::test]
async fn quoted_and_bare_keys_are_one_key() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for (one, other, same) in [
        ("\"a\"", "a", true),
        ("\"b\";x=1", "b", true),
        ("c;a=1", "c", false),
        ("d;a=1", "\"d;a=1\"", true),
        (r#""e\"\\""#, r#""e\"\\";p"#, true),
        ("\"f g\"", "\"fg\"", false),
        ("H", "h", false),
        ("1", "\"1\"", true),
        ("1.0", "1", false),
    ] {
        // Each pair has keys that no other pair has, except for these two numbers.
        if one == "1.0" {
            assert!(!are_one(&proxy, "v1.0", "v1").await);
        } else {
            assert_eq!(are_one(&proxy, one, other).await, same, "{one} {other}");
        }
    }
}

// contract: R-4
#[tokio::test]
async fn malformed_keys_are_400_and_nothing_reaches_the_upstream() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let long = "k".repeat(256);
    let quoted = format!("\"{}\"", "k".repeat(256));
    for key in [
        "",
        "\"\"",
        "a,b",
        "\"a\", \"b\"",
        "\"a",
        r#""a\x""#,
        "k\u{e9}",
        "a b",
        "\"a\"b",
        long.as_str(),
        quoted.as_str(),
        "\"a\tb\"",
        "a\tb",
    ] {
        proxy.charge(key).send().await.refused(400, "key-malformed");
    }
    proxy.charge("a").field("Idempotency-Key", "a").send().await.refused(400, "key-malformed");
    proxy.charge("a").field("idempotency-key", "b").send().await.refused(400, "key-malformed");
    assert_eq!(upstream.requests().len(), 0);
    let most = "k".repeat(255);
    proxy.charge(&most).send().await.was(200, "executed");
    proxy.charge("\"k k\"").send().await.was(200, "executed");
}

// contract: R-4
#[tokio::test]
async fn a_required_key_that_is_missing_is_400() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("key_required = true")).await;
    proxy.post("/v1/charges").auth("alice").send().await.refused(400, "key-missing");
    proxy.get("/v1/charges").send().await.was(200, "");
    assert_eq!(upstream.executions(), 1);
}

// contract: R-4
#[tokio::test]
async fn with_key_format_uuid_other_keys_are_malformed() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("key_format = \"uuid\"")).await;
    proxy.charge("order-17").send().await.refused(400, "key-malformed");
    proxy.charge("f81d4fae-7dec-11d0-a765-00a0c91e6bf6").send().await.was(200, "executed");
    assert_eq!(upstream.executions(), 1);
}

async fn with_key(upstream: &Upstream, key: &str) -> Proxy {
    Proxy::start(Config::new(upstream).policy(&format!("key = {key}"))).await
}

// contract: R-4
#[tokio::test]
async fn sources_are_tried_in_order() {
    let upstream = Upstream::start().await;
    let proxy = with_key(&upstream, r#"["header:Idempotency-Key", "header:X-Request-Id", "query:nonce"]"#).await;
    let post = proxy.post("/v1/charges").auth("alice");
    post.clone().key("a").field("X-Request-Id", "1").send().await.was(200, "executed");
    post.clone().key("a").field("X-Request-Id", "2").send().await.was(200, "replayed");
    post.clone().field("X-Request-Id", "1").send().await.was(200, "executed");
    post.clone().field("X-Request-Id", "1").send().await.was(200, "replayed");
    let nonce = proxy.post("/v1/charges?nonce=n%2d1&x=1").auth("alice");
    nonce.send().await.was(200, "executed");
    nonce.send().await.was(200, "replayed");
    post.send().await.was(200, "");
    assert_eq!(upstream.executions(), 4);
}

// contract: R-4
#[tokio::test]
async fn query_keys_are_percent_decoded_once_and_two_are_malformed() {
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream).policy("key = [\"query:k\"]\nfingerprint = [\"body\"]");
    let proxy = Proxy::start(config).await;
    let with = |query: &str| proxy.post(&format!("/v1/charges?{query}")).auth("alice");
    with("k=a%2Db").send().await.was(200, "executed");
    with("x=1&k=a-b").send().await.was(200, "replayed");
    with("k=a%252Db").send().await.was(200, "executed");
    with("k=a&k=b").send().await.refused(400, "key-malformed");
    with("k=").send().await.refused(400, "key-malformed");
    assert_eq!(upstream.executions(), 2);
}

// contract: R-4
#[tokio::test]
async fn a_json_pointer_yields_the_key() {
    let upstream = Upstream::start().await;
    let proxy = with_key(&upstream, r#"["json:/event/id"]"#).await;
    let event = |body: &str| proxy.post("/v1/hooks").auth("alice").json(body);
    event(r#"{"event":{"id":"e1"},"n":1}"#).send().await.was(200, "executed");
    event(r#"{"event":{"id":"e1"},"n":1}"#).send().await.was(200, "replayed");
    event(r#"{"event":{"id":"e1"},"n":2}"#).send().await.refused(422, "key-reused");
    event(r#"{"event":{"id":7}}"#).send().await.was(200, "executed");
    // `7` and `"7"` are one key, so this is the same key with another body; `7.0` is a key of its own.
    event(r#"{"event":{"id":"7"}}"#).send().await.refused(422, "key-reused");
    event(r#"{"event":{"id":7.0}}"#).send().await.was(200, "executed");
    event(r#"{"event":{"id":"a","id":"b"}}"#).send().await.refused(400, "key-malformed");
    // None of these yields a key, so they pass.
    for body in ["{\"event\":", "{}", r#"{"event":{"id":null}}"#, "[1]"] {
        event(body).send().await.was(200, "");
        assert_eq!(upstream.last().body, body.as_bytes());
    }
    let text = proxy.post("/v1/hooks").auth("alice").body(r#"{"event":{"id":"e1"}}"#);
    text.send().await.was(200, "");
}

// contract: R-4
#[tokio::test]
async fn a_body_too_large_for_a_body_source_streams_on_or_is_413_where_a_key_is_required() {
    let upstream = Upstream::start().await;
    let big = format!(r#"{{"id":"a","fill":"{}"}}"#, "x".repeat(200_000));
    let lines = "key = [\"json:/id\"]\nmax_request_body = \"64KiB\"";
    let proxy = Proxy::start(Config::new(&upstream).policy(lines)).await;
    let post = proxy.post("/v1/hooks").auth("alice").json(&big);
    post.send().await.was(200, "");
    assert_eq!(upstream.last().body, big.as_bytes());
    // Chunked, so that the length is not known beforehand.
    let mut chunked = b"POST /v1/hooks HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in big.as_bytes().chunks(10_000) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).bytes());
        chunked.extend(chunk);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    proxy.raw(&chunked).await.was(200, "");
    assert_eq!(upstream.last().body, big.as_bytes());

    let proxy = Proxy::start(Config::new(&upstream).policy(lines).policy("key_required = true")).await;
    proxy.post("/v1/hooks").auth("alice").json(&big).send().await.refused(413, "body-too-large");
    assert_eq!(upstream.executions(), 2);
}

// contract: R-4
#[tokio::test]
async fn a_form_field_yields_the_key() {
    let upstream = Upstream::start().await;
    let proxy = with_key(&upstream, r#"["form:token"]"#).await;
    let form = |body: &str| {
        proxy
            .request("POST", "/v1/forms")
            .auth("alice")
            .field("Content-Type", "application/x-www-form-urlencoded")
            .body(body)
    };
    form("a=1&token=t%2D1").send().await.was(200, "executed");
    form("a=1&token=t%2D1").send().await.was(200, "replayed");
    form("a=2&token=t-1").send().await.refused(422, "key-reused");
    form("token=a&token=b").send().await.refused(400, "key-malformed");
    form("a=1").send().await.was(200, "");
    assert_eq!(upstream.executions(), 2);
}

// contract: R-4
#[tokio::test]
async fn a_composite_needs_all_its_parts() {
    let upstream = Upstream::start().await;
    let proxy = with_key(&upstream, r#"["header:ce-source+header:ce-id"]"#).await;
    let event =
        |source: &str, id: &str| proxy.post("/v1/events").auth("alice").field("ce-source", source).field("ce-id", id);
    event("ab", "c").send().await.was(200, "executed");
    event("ab", "c").send().await.was(200, "replayed");
    event("a", "bc").send().await.was(200, "executed");
    let half = proxy.post("/v1/events").auth("alice").field("ce-id", "c");
    half.send().await.was(200, "");
    half.send().await.was(200, "");
    assert_eq!(upstream.executions(), 4);
}

// contract: R-4
#[tokio::test]
async fn content_is_a_key_within_its_window() {
    let upstream = Upstream::start().await;
    let proxy = with_key(&upstream, r#"["header:Idempotency-Key", "content:1s"]"#).await;
    let post = proxy.post("/v1/charges").auth("alice").body("pay 5");
    post.send().await.was(200, "executed");
    let again = post.send().await;
    again.was(200, "replayed");
    assert_eq!(again.parameter("key"), Some("content"));
    post.clone().body("pay 6").send().await.was(200, "executed");
    proxy.post("/v1/charges").auth("bob").body("pay 5").send().await.was(200, "executed");
    // Never without a caller, never without a body.
    let nobody = proxy.post("/v1/charges").body("pay 5");
    nobody.send().await.was(200, "");
    let empty = proxy.post("/v1/charges").auth("alice").body("");
    empty.send().await.was(200, "");
    empty.send().await.was(200, "");
    pass(1200).await;
    post.send().await.was(200, "executed");
    assert_eq!(upstream.executions(), 7);
}

// contract: R-4
#[tokio::test]
async fn names_that_look_like_the_keys_are_400_on_guarded_methods() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for (name, value) in [
        ("Idempotency_Key", "k"),
        ("IDEMPOTENCY_KEY", "k"),
        ("content_length", "5"),
        ("Transfer_Encoding", "chunked"),
        ("Connection", "idempotency-key"),
        ("Connection", "close, Authorization"),
    ] {
        proxy.charge("k").field(name, value).send().await.refused(400, "bad-request");
    }
    assert_eq!(upstream.requests().len(), 0);
    proxy.get("/v1/a").field("Idempotency_Key", "k").send().await.was(200, "");
}

// contract: R-4
#[tokio::test]
async fn json_that_others_read_has_its_key_however_it_is_dressed() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("key = [\"json:/id\"]")).await;
    let deep = format!("{{\"id\":\"deep\",\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let json = |body: &str| proxy.post("/v1/charges").auth("alice").json(body);
    let marked = json("\u{feff}{\"id\":\"marked\"}");
    let twice = json("{\"id\":\"twice\"}").field("Content-Type", "application/json");
    for request in [json(&deep), marked, twice] {
        request.send().await.was(200, "executed");
        request.send().await.was(200, "replayed");
    }
    assert_eq!(upstream.executions(), 3);
}
