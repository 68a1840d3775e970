//! What tells a retry from a misuse of the key.

use super::harness::*;

// contract: R-6
#[tokio::test]
async fn another_request_under_the_key_is_422_and_shows_nothing_of_what_is_stored() {
    let upstream = Upstream::start().await;
    upstream.next(Script::answer(201).field("X-Secret", "stored").body("stored-body"));
    let proxy = Proxy::before(&upstream).await;
    let charge = proxy.charge("k");
    charge.send().await.was(201, "executed");
    for other in [
        charge.clone().body("amount=101"),
        charge.clone().without("content-type").field("Content-Type", "text/html"),
        proxy
            .request("PATCH", "/v1/charges")
            .auth("alice")
            .key("k")
            .field("Content-Type", "text/plain")
            .body("amount=100"),
        proxy.post("/v1/refunds").auth("alice").key("k"),
        proxy.post("/v1/charges?x=1").auth("alice").key("k"),
        proxy.post("/v1/charges?").auth("alice").key("k"),
    ] {
        let reply = other.send().await;
        reply.refused(422, "key-reused");
        assert!(!reply.text().contains("stored") && !reply.has("x-secret"), "{reply:?}");
        assert_eq!(reply.outcome(), "rejected");
    }
    charge.send().await.was(201, "replayed");
    assert_eq!(upstream.executions(), 1);
}

// contract: R-6
#[tokio::test]
async fn the_fingerprint_is_looked_at_first_in_every_state() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    // In flight.
    upstream.next(Script::hold());
    let owner = proxy.charge("a").spawn();
    upstream.saw(1).await;
    proxy.charge("a").body("other").send().await.refused(422, "key-reused");
    upstream.release();
    owner.await.unwrap().was(200, "executed");
    // Unknown.
    upstream.next(Script::reset());
    proxy.charge("b").send().await.refused(502, "outcome-unknown");
    proxy.charge("b").body("other").send().await.refused(422, "key-reused");
    proxy.charge("b").send().await.refused(409, "outcome-unknown");
    // Not kept.
    upstream.next(Script::answer(200).field("Content-Type", "text/event-stream").body("data: 1\n\n"));
    proxy.charge("c").send().await.was(200, "not-kept");
    proxy.charge("c").body("other").send().await.refused(422, "key-reused");
    assert_eq!(upstream.executions(), 3);
}

// contract: R-6
#[tokio::test]
async fn the_query_is_compared_as_it_was_sent() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let to = |target: &str| proxy.post(target).auth("alice").key("k");
    to("/v1/charges?a=1&b=2").send().await.was(200, "executed");
    to("/v1/charges?b=2&a=1").send().await.refused(422, "key-reused");
    to("/v1/charges?a=1&b=%32").send().await.refused(422, "key-reused");
    to("/v1/charges?a=1&b=2").send().await.was(200, "replayed");
}

// contract: R-6
#[tokio::test]
async fn multipart_is_compared_by_its_parts_whatever_the_boundary() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let form = |boundary: &str, value: &str| {
        let body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"amount\"\r\n\r\n{value}\r\n--{boundary}--\r\n"
        );
        let kind = format!("multipart/form-data; boundary={boundary}");
        proxy.request("POST", "/v1/files").auth("alice").key("k").field("Content-Type", &kind).body(body)
    };
    form("one", "100").send().await.was(200, "executed");
    form("two", "100").send().await.was(200, "replayed");
    form("one", "101").send().await.refused(422, "key-reused");
}

// contract: R-6
#[tokio::test]
async fn json_bodies_are_compared_in_their_canonical_form_only_where_nothing_is_lost() {
    let upstream = Upstream::start().await;
    let proxy =
        Proxy::start(Config::new(&upstream).policy("fingerprint = [\"method\", \"path\", \"json-body\"]")).await;
    let with = |key: &str, body: &str| proxy.post("/v1/charges").auth("alice").key(key).json(body);
    with("a", r#"{"a": 1, "b": [true, null]}"#).send().await.was(200, "executed");
    with("a", r#"{"b":[true,null],"a":1}"#).send().await.was(200, "replayed");
    with("a", r#"{"a":1,"b":[null,true]}"#).send().await.refused(422, "key-reused");
    // A double cannot tell these two apart; money can.
    with("b", r#"{"amount":9007199254740993}"#).send().await.was(200, "executed");
    with("b", r#"{"amount":9007199254740992}"#).send().await.refused(422, "key-reused");
    with("c", r#"{"amount":1,"amount":2}"#).send().await.was(200, "executed");
    with("c", r#"{"amount":2}"#).send().await.refused(422, "key-reused");
    with("d", "{broken").send().await.was(200, "executed");
    with("d", "{broken ").send().await.refused(422, "key-reused");
}

// contract: R-6
#[tokio::test]
async fn listed_fields_belong_to_the_fingerprint_and_others_do_not() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("fingerprint = [\"body\", \"header:x-amount\"]")).await;
    let with = |amount: &str| proxy.charge("k").field("X-Amount", amount);
    with("1").field("X-Attempt", "1").send().await.was(200, "executed");
    with("1").field("X-Attempt", "2").send().await.was(200, "replayed");
    with("2").send().await.refused(422, "key-reused");
}
