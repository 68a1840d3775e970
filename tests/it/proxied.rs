//! Behind a proxy that speaks the PROXY protocol.

use super::harness::*;

const LINE: &str = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 8443\r\n";

fn expecting(upstream: &Upstream) -> Config {
    Config::new(upstream).server("proxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]")
}

#[tokio::test]
async fn the_client_that_the_header_names_is_told_to_the_upstream_and_logged() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(expecting(&upstream)).await;
    let mut connection = proxy.connect().await;
    connection.write(LINE).await;
    connection.exchange(proxy.charge("k").field("X-Forwarded-For", "6.6.6.6").bytes()).await.was(200, "executed");
    let seen = upstream.last();
    assert_eq!(seen.field("x-forwarded-for"), Some("203.0.113.9"), "a client's own word is not believed");
    assert_eq!(seen.field("x-forwarded-port"), Some("8443"));
    assert_eq!(seen.field("forwarded"), Some("for=203.0.113.9;host=api.test;proto=http"));
    proxy.says(&["access client=203.0.113.9 method=POST", "outcome=executed"]).await;

    connection.exchange(proxy.charge("k").bytes()).await.was(200, "replayed");
    assert_eq!(upstream.executions(), 1);
}

#[tokio::test]
async fn a_connection_without_the_header_is_closed_counted_and_logged() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(expecting(&upstream)).await;
    let mut connection = proxy.connect().await;
    connection.write(proxy.charge("k").bytes()).await;
    assert!(connection.is_closed().await);
    let line = proxy.says(&["turned away", "PROXY header"]).await;
    assert!(line.contains("proxy-header") && line.contains("127.0.0.1:"), "{line}");
    let refused = [("route", "none"), ("reason", "proxy-header")];
    assert_eq!(proxy.metrics().await.sum("oncegate_refused_total", &refused), 1.0);
    assert_eq!(upstream.executions(), 0);
}

#[tokio::test]
async fn the_header_is_no_way_in_for_strangers() {
    let upstream = Upstream::start().await;
    let config = expecting(&upstream).server("trusted_proxies = [\"10.0.0.0/8\"]");
    let proxy = Proxy::start(config).await;
    let forged = [LINE.as_bytes(), &proxy.charge("k").bytes()].concat();
    proxy.raw(forged).await.refused(400, "bad-request");
    proxy.charge("k").send().await.was(200, "executed");
    assert_eq!(upstream.last().field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(upstream.executions(), 1);
}

#[tokio::test]
async fn one_client_has_so_many_connections() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).server("max_connections_per_address = 1")).await;
    let mut first = proxy.connect().await;
    first.exchange(proxy.get("/v1/a").bytes()).await.was(200, "");
    proxy.get("/v1/a").send().await.refused(503, "overloaded");
    proxy.says(&["turned away", "max-connections-per-address", "127.0.0.1:"]).await;
    let refused = [("route", "none"), ("reason", "max-connections-per-address")];
    assert_eq!(proxy.metrics().await.sum("oncegate_refused_total", &refused), 1.0);
    first.exchange(proxy.get("/v1/a").bytes()).await.was(200, "");

    // A reload brings the limit to those who connect from then on.
    proxy.reload(&Config::new(&upstream).server("max_connections_per_address = 2"), "ok").await;
    proxy.get("/v1/a").send().await.was(200, "");
}
