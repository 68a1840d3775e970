//! Metrics and log lines: everything is there from the start, and tells the truth afterwards.

use super::harness::*;

#[tokio::test]
async fn every_series_exists_from_the_start() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let metrics = proxy.metrics().await;
    let route = ("route", "charges");
    for outcome in [
        "executed",
        "replayed",
        "released",
        "unknown",
        "in-flight",
        "rejected",
        "not-kept",
        "fenced",
        "unsettled",
        "unguarded",
        "passed",
        "failed",
    ] {
        let sum = |class| metrics.has("oncegate_requests_total", &[route, ("class", class), ("outcome", outcome)]);
        assert!(sum("non-idempotent"), "requests_total {outcome}");
        assert!(
            metrics.has("oncegate_request_duration_seconds_count", &[route, ("outcome", outcome)]),
            "duration {outcome}"
        );
    }
    for class in ["safe", "idempotent", "non-idempotent"] {
        assert!(metrics.has("oncegate_requests_total", &[route, ("class", class), ("outcome", "passed")]), "{class}");
    }
    for how in ["replayed", "waited", "rejected", "held"] {
        assert!(metrics.has("oncegate_duplicates_prevented_total", &[route, ("how", how)]), "{how}");
    }
    for reason in [
        "key-missing",
        "key-malformed",
        "scope-missing",
        "scope-unstable",
        "bad-request",
        "key-reused",
        "in-flight",
        "outcome-unknown",
        "body-too-large",
        "store-full",
        "overloaded",
        "draining",
    ] {
        assert!(metrics.has("oncegate_refused_total", &[route, ("reason", reason)]), "{reason}");
    }
    for why in ["store_down", "body_too_large", "scope_unstable", "grpc"] {
        assert!(metrics.has("oncegate_unguarded_total", &[route, ("why", why)]), "{why}");
    }
    for would in ["executed", "replayed", "in-flight", "key-reused", "unknown", "not-kept", "rejected"] {
        assert!(metrics.has("oncegate_observed_total", &[route, ("would", would)]), "{would}");
    }
    for reason in ["not_sent", "401", "403", "407", "421", "425", "429", "503"] {
        assert!(metrics.has("oncegate_released_total", &[route, ("reason", reason)]), "{reason}");
    }
    for reason in ["lost", "timed_out", "answered", "lapsed", "drained"] {
        assert!(metrics.has("oncegate_unknown_total", &[route, ("reason", reason)]), "{reason}");
    }
    for state in ["in_flight", "completed", "unknown"] {
        assert!(metrics.has("oncegate_store_records", &[("state", state)]), "{state}");
    }
    for what in ["body", "record"] {
        assert!(metrics.has("oncegate_store_evictions_total", &[("what", what)]), "{what}");
    }
    for result in ["ok", "refused", "failed"] {
        assert!(metrics.has("oncegate_config_reloads_total", &[("result", result)]), "{result}");
    }
    assert!(metrics.has("oncegate_upstream_duration_seconds_count", &[("upstream", "main")]));
    assert!(metrics.has("oncegate_fenced_total", &[route]));
    assert!(metrics.has("oncegate_build_info", &[("version", env!("CARGO_PKG_VERSION"))]));
    for name in [
        "in_flight",
        "waiters",
        "leases_lapsed_total",
        "settled_late_total",
        "claims_abandoned_total",
        "unknown_expiring",
        "store_up",
        "store_operation_duration_seconds_count",
        "unknown_oldest_age_seconds",
        "store_bytes",
        "store_bytes_max",
        "store_wiped_total",
        "redis_evicted_keys_total",
        "connections",
        "config_loaded_timestamp_seconds",
    ] {
        assert!(metrics.has(&format!("oncegate_{name}"), &[]), "{name}");
    }
    let process = proxy.open_admin("GET", "/metrics").send().await;
    assert!(
        process.text().contains("process_cpu_seconds_total")
            && process.text().contains("process_resident_memory_bytes")
    );
    assert!(process.field("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    assert_eq!(metrics.sum("oncegate_store_up", &[]), 1.0);
}

#[tokio::test]
async fn requests_are_counted_by_route_class_and_outcome() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    proxy.charge("a").send().await.was(200, "executed");
    proxy.charge("a").send().await.was(200, "replayed");
    proxy.charge("a").body("b").send().await.refused(422, "key-reused");
    upstream.next(Script::reset());
    proxy.charge("b").send().await.refused(502, "outcome-unknown");
    upstream.next(Script::answer(429));
    proxy.charge("c").send().await.was(429, "released");
    proxy.get("/v1/a").send().await.was(200, "");
    proxy.request("PUT", "/v1/a").send().await.was(200, "");
    upstream.next(Script::reset());
    proxy.post("/v1/a").send().await.refused(502, "upstream-failed");
    let metrics = proxy.metrics().await;
    let count = |class, outcome| {
        metrics.sum("oncegate_requests_total", &[("route", "charges"), ("class", class), ("outcome", outcome)])
    };
    for outcome in ["executed", "replayed", "rejected", "unknown", "released", "failed"] {
        assert_eq!(count("non-idempotent", outcome), 1.0, "{outcome}");
    }
    assert_eq!((count("safe", "passed"), count("idempotent", "passed")), (1.0, 1.0));
    assert_eq!(metrics.sum("oncegate_requests_total", &[]), 8.0);
    assert_eq!(metrics.sum("oncegate_request_duration_seconds_count", &[("route", "charges")]), 8.0);
    assert_eq!(metrics.sum("oncegate_refused_total", &[("reason", "key-reused")]), 1.0);
    assert_eq!(metrics.sum("oncegate_duplicates_prevented_total", &[("how", "replayed")]), 1.0);
    assert_eq!(metrics.sum("oncegate_store_records", &[("state", "completed")]), 1.0);
    assert_eq!(metrics.sum("oncegate_store_records", &[("state", "unknown")]), 1.0);
    assert!(metrics.sum("oncegate_upstream_duration_seconds_count", &[("upstream", "main")]) >= 3.0);
    assert!(metrics.sum("oncegate_store_bytes", &[]) > 0.0);
}

#[tokio::test]
async fn gauges_come_back_to_nothing() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    upstream.next(Script::hold());
    let connection = proxy.charge("k").begin().await;
    upstream.saw(1).await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("oncegate_in_flight", &[]), 1.0);
    assert_eq!(metrics.sum("oncegate_store_records", &[("state", "in_flight")]), 1.0);
    assert!(metrics.sum("oncegate_connections", &[]) >= 2.0);
    connection.reset();
    pass(50).await;
    assert_eq!(proxy.metrics().await.sum("oncegate_in_flight", &[]), 1.0, "client or no client");
    upstream.release();
    eventually("nothing is under way", || async {
        let metrics = proxy.metrics().await;
        metrics.sum("oncegate_in_flight", &[]) == 0.0
            && metrics.sum("oncegate_store_records", &[("state", "in_flight")]) == 0.0
    })
    .await;
}

#[tokio::test]
async fn one_line_a_request_with_what_an_operator_asks_for() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).log("format = \"json\"")).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = proxy.post("/v1/charges?card=4242").auth("alice").key("k");
    request.field("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01")).send().await.was(200, "executed");
    let id = proxy.record().await["id"].as_str().unwrap()[..16].to_owned();
    let line = proxy.says(&["/v1/charges", "executed"]).await;
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    for word in ["POST", "charges", "200", &id, trace] {
        assert!(line.contains(word), "{word}: {json:#}");
    }
    assert!(!line.contains("4242"), "{json:#}");
    assert_eq!(proxy.said().lines().filter(|line| line.contains(&id)).count(), 1, "{}", proxy.said());
}

#[tokio::test]
async fn the_access_log_can_be_silenced() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).log("access = false")).await;
    proxy.charge("k").send().await.was(200, "executed");
    proxy.get("/v1/quiet").send().await;
    pass(100).await;
    assert!(!proxy.said().contains("/v1/quiet"), "{}", proxy.said());
}

#[tokio::test]
async fn what_a_client_sends_is_no_label() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let before = proxy.open_admin("GET", "/metrics").send().await.text().lines().count();
    for number in 0..50 {
        proxy
            .request(&format!("METHOD{number}"), &format!("/path-{number}"))
            .host(&format!("h{number}.test"))
            .key(format!("k-{number}"))
            .auth("a")
            .send()
            .await;
    }
    let after = proxy.open_admin("GET", "/metrics").send().await.text().lines().count();
    assert_eq!(before, after);
}
