//! Which route a request takes, and what its method is.

use super::harness::*;

/// Two upstreams, so that what answered tells the route.
async fn two() -> (Upstream, Upstream, Config) {
    let one = Upstream::start().await;
    one.program(|_| Script::answer(200).body("one"));
    let two = Upstream::start().await;
    two.program(|_| Script::answer(200).body("two"));
    let config = Config::new(&one).no_routes().table("[upstreams.second]", &format!("url = \"{}\"", two.url()));
    (one, two, config)
}

fn route(name: &str, upstream: &str, more: &str) -> String {
    format!("name = \"{name}\"\nupstream = \"{upstream}\"\n{more}")
}

// contract: R-1
#[tokio::test]
async fn no_route_among_several_upstreams_is_404() {
    let (one, two, config) = two().await;
    let proxy = Proxy::start(config.route(&route("a", "main", "path = \"/a\""))).await;
    proxy.post("/b").send().await.refused(404, "no-route");
    proxy.get("/").send().await.refused(404, "no-route");
    assert_eq!((one.executions(), two.executions()), (0, 0));
}

// contract: R-1
#[tokio::test]
async fn the_only_upstream_takes_what_no_route_matches_with_the_defaults() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let charge = proxy.post("/elsewhere").auth("alice").key("k");
    charge.send().await.was(200, "executed");
    charge.send().await.was(200, "replayed");
    assert_eq!(upstream.executions(), 1);
}

// contract: R-1
#[tokio::test]
async fn a_literal_segment_beats_a_parameter_beats_the_rest() {
    let (_one, _two, config) = two().await;
    let config = config
        .route(&route("rest", "main", "path = \"/v1/{*rest}\""))
        .route(&route("parameter", "second", "path = \"/v1/{id}\""))
        .route(&route("literal", "main", "path = \"/v1/me\""))
        .route(&route("deep", "second", "path = \"/v1/{id}/lines/{*rest}\""));
    let proxy = Proxy::start(config).await;
    for (path, answer) in
        [("/v1/a/b", "one"), ("/v1/a", "two"), ("/v1/me", "one"), ("/v1/a/lines/3/x", "two"), ("/v1/a/lines", "one")]
    {
        assert_eq!(proxy.get(path).send().await.text(), answer, "{path}");
    }
    proxy.get("/v2/a").send().await.refused(404, "no-route");
}

// contract: R-1
#[tokio::test]
async fn an_exact_host_beats_a_wildcard_beats_none() {
    let (_one, _two, config) = two().await;
    let config = config
        .route(&route("any", "main", "path = \"/{*rest}\""))
        .route(&route("wild", "second", "path = \"/{*rest}\"\nhost = \"*.example.com\""))
        .route(&route("exact", "main", "path = \"/{*rest}\"\nhost = \"api.example.com\""));
    let proxy = Proxy::start(config).await;
    for (host, answer) in [
        ("other.test", "one"),
        ("www.example.com", "two"),
        ("a.b.example.com", "two"),
        ("api.example.com", "one"),
        ("WWW.EXAMPLE.COM:8080", "two"),
        ("example.com", "one"),
    ] {
        assert_eq!(proxy.get("/x").host(host).send().await.text(), answer, "{host}");
    }
}

// contract: R-1
#[tokio::test]
async fn a_route_for_the_method_beats_one_for_all() {
    let (_one, _two, config) = two().await;
    let config = config.route(&route("all", "main", "path = \"/v1/{*rest}\"")).route(&route(
        "posts",
        "second",
        "path = \"/v1/{*rest}\"\nmethods = [\"POST\"]",
    ));
    let proxy = Proxy::start(config).await;
    assert_eq!(proxy.post("/v1/a").send().await.text(), "two");
    assert_eq!(proxy.get("/v1/a").send().await.text(), "one");
}

// contract: R-2
#[tokio::test]
async fn every_registered_method_is_guarded_exactly_when_it_is_neither_safe_nor_idempotent() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    // The IANA HTTP Method Registry, RFC 9110 s16.1: name, and whether it is idempotent.
    let registry = [
        ("ACL", true),
        ("BASELINE-CONTROL", true),
        ("BIND", true),
        ("CHECKIN", true),
        ("CHECKOUT", true),
        ("COPY", true),
        ("DELETE", true),
        ("GET", true),
        ("LABEL", true),
        ("LINK", true),
        ("LOCK", false),
        ("MERGE", true),
        ("MKACTIVITY", true),
        ("MKCALENDAR", true),
        ("MKCOL", true),
        ("MKREDIRECTREF", true),
        ("MKWORKSPACE", true),
        ("MOVE", true),
        ("OPTIONS", true),
        ("ORDERPATCH", true),
        ("PATCH", false),
        ("POST", false),
        ("PROPFIND", true),
        ("PROPPATCH", true),
        ("PUT", true),
        ("QUERY", true),
        ("REBIND", true),
        ("REPORT", true),
        ("SEARCH", true),
        ("UNBIND", true),
        ("UNCHECKOUT", true),
        ("UNLINK", true),
        ("UPDATE", true),
        ("UPDATEREDIRECTREF", true),
        ("VERSION-CONTROL", true),
        // Not registered, or registered in other letters: neither.
        ("post", false),
        ("get", false),
        ("CHARGE", false),
    ];
    for (method, idempotent) in registry {
        let request = proxy.request(method, "/v1/a").auth("alice").key(format!("key-{method}"));
        let (first, second) = (request.send().await, request.send().await);
        let expected = if idempotent { ["", ""] } else { ["executed", "replayed"] };
        assert_eq!([first.outcome(), second.outcome()], expected, "{method}: {first:?} {second:?}");
    }
}

// contract: R-2
#[tokio::test]
async fn connect_is_405_and_pri_is_400() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    assert_eq!(proxy.raw("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n").await.status, 405);
    assert_eq!(proxy.raw("PRI / HTTP/1.1\r\nHost: example.com\r\n\r\n").await.status, 400);
    assert_eq!(upstream.requests().len(), 0);
}

// contract: R-2
#[tokio::test]
async fn query_is_passed_with_its_body() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let reply = proxy.request("QUERY", "/v1/search").key("k").auth("a").body("select").send().await;
    reply.was(200, "");
    assert_eq!(upstream.last().body, b"select");
}
