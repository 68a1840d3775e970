//! The fields that Oncegate adds.

use super::harness::*;

#[tokio::test]
async fn idempotency_status_has_age_and_ttl() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("retention = \"24h\"")).await;
    let first = proxy.charge("k").send().await;
    assert_eq!(first.all("idempotency-status"), ["executed;ttl=86400"]);
    let again = proxy.charge("k").send().await;
    let text = again.field("idempotency-status").unwrap();
    assert!(
        text == "replayed;age=0;ttl=86400" || text == "replayed;age=0;ttl=86399" || text == "replayed;age=1;ttl=86399",
        "{text}"
    );
}

#[tokio::test]
async fn an_upstream_that_replays_by_itself_is_reported() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    upstream.next(Script::answer(200).field("Idempotent-Replayed", "true"));
    let reply = proxy.charge("a").send().await;
    assert_eq!(reply.was(200, "executed").parameter("upstream"), Some("replayed"));
    assert!(!reply.has("idempotent-replayed"), "ours says whether we replayed: {reply:?}");
    upstream.next(Script::answer(429).field("Idempotent-Replayed", "true"));
    assert_eq!(proxy.charge("b").send().await.was(429, "released").parameter("upstream"), Some("replayed"));
}

#[tokio::test]
async fn passed_answers_have_none_of_it() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for reply in [proxy.get("/v1/a").send().await, proxy.post("/v1/a").send().await] {
        assert!(!reply.has("idempotency-status") && !reply.has("idempotent-replayed"), "{reply:?}");
    }
}

#[tokio::test]
async fn via_is_added_both_ways() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for reply in [proxy.get("/v1/a").send().await, proxy.charge("k").send().await, proxy.charge("k").send().await] {
        assert!(reply.field("via").is_some_and(|via| via.starts_with("1.1 ")), "{reply:?}");
    }
    for seen in upstream.requests() {
        assert!(seen.field("via").is_some_and(|via| via.starts_with("1.1 ")), "{seen:?}");
    }
    proxy.get("/v1/a").field("Via", "1.0 before").send().await;
    let seen = upstream.last();
    let all: Vec<_> =
        seen.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("via")).map(|(_, v)| v.as_str()).collect();
    assert!(all.join(", ").starts_with("1.0 before, 1.1 "), "{all:?}");
}

#[tokio::test]
async fn forwarded_fields_are_replaced_unless_the_proxy_before_us_is_trusted() {
    let upstream = Upstream::start().await;
    let untrusting = Proxy::before(&upstream).await;
    let trusting = Proxy::start(Config::new(&upstream).server("trusted_proxies = [\"127.0.0.0/8\"]")).await;
    let send = |proxy: &Proxy, key: &str| {
        proxy
            .charge(key)
            .field("X-Forwarded-For", "6.6.6.6")
            .field("X-Forwarded-Proto", "https")
            .field("X-Forwarded-Host", "front.test")
            .field("Forwarded", "for=6.6.6.6;proto=https")
    };
    send(&untrusting, "a").send().await.was(200, "executed");
    let seen = upstream.last();
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!((seen.field("x-forwarded-proto"), seen.field("x-forwarded-host")), (Some("http"), Some("api.test")));
    let forwarded = seen.field("forwarded").unwrap();
    assert!(!forwarded.contains("6.6.6.6") && forwarded.contains("for=127.0.0.1"), "{forwarded}");

    send(&trusting, "b").send().await.was(200, "executed");
    let seen = upstream.last();
    assert_eq!(seen.field("x-forwarded-for"), Some("6.6.6.6, 127.0.0.1"));
    assert_eq!((seen.field("x-forwarded-proto"), seen.field("x-forwarded-host")), (Some("https"), Some("front.test")));
    let forwarded = seen.field("forwarded").unwrap();
    assert!(forwarded.starts_with("for=6.6.6.6;proto=https") && forwarded.contains("for=127.0.0.1"), "{forwarded}");
}

#[tokio::test]
async fn the_host_is_the_clients_or_the_urls() {
    let upstream = Upstream::start().await;
    let preserve = Proxy::before(&upstream).await;
    preserve.get("/v1/a").host("shop.test:8443").send().await;
    assert_eq!(upstream.last().field("host"), Some("shop.test:8443"));
    let own = Proxy::start(Config::new(&upstream).upstream("host = \"upstream\"")).await;
    own.get("/v1/a").host("shop.test").send().await;
    assert_eq!(upstream.last().field("host"), Some(upstream.address().to_string().as_str()));
    assert_eq!(upstream.last().field("x-forwarded-host"), Some("shop.test"));
}

#[tokio::test]
async fn a_guarded_request_goes_on_with_its_fields() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    proxy
        .charge("\"k\"")
        .field("X-A", "1")
        .field("X-A", "2")
        .field("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .send()
        .await;
    let seen = upstream.last();
    assert_eq!(seen.field("idempotency-key"), Some("\"k\""));
    assert_eq!(seen.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-a")).count(), 2);
    assert_eq!((seen.field("content-length"), seen.has("transfer-encoding")), (Some("10"), false));
    assert_eq!(seen.field("traceparent"), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    assert_eq!(seen.field("authorization"), Some("Bearer alice"));
}
