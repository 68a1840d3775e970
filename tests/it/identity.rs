//! Whose key it is.

use super::harness::*;

// contract: R-5
// contract: P-3
#[tokio::test]
async fn the_same_key_of_another_caller_is_another_record() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let alice = proxy.charge("k").send().await;
    let bob = proxy.charge("k").without("authorization").auth("bob").send().await;
    alice.was(200, "executed");
    bob.was(200, "executed");
    assert_ne!(alice.text(), bob.text());
    let again = proxy.charge("k").without("authorization").auth("bob").send().await;
    assert_eq!(again.was(200, "replayed").text(), bob.text());
    // Nor does another caller learn from a mismatch that the key exists.
    proxy.charge("k").without("authorization").auth("carol").body("other").send().await.was(200, "executed");
}

// contract: R-5
// contract: P-3
#[tokio::test]
async fn another_authority_is_another_record_and_case_and_default_port_do_not_matter() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    let at = |host: &str| proxy.charge("k").host(host);
    at("api.test").send().await.was(200, "executed");
    at("API.test").send().await.was(200, "replayed");
    at("api.test:80").send().await.was(200, "replayed");
    at("api.test:81").send().await.was(200, "executed");
    at("other.test").send().await.was(200, "executed");
}

// contract: R-5
#[tokio::test]
async fn authority_ignore_shares_records_between_hosts() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("authority = \"ignore\"")).await;
    proxy.charge("k").host("a.test").send().await.was(200, "executed");
    proxy.charge("k").host("b.test").send().await.was(200, "replayed");
}

// contract: R-5
#[tokio::test]
async fn another_route_is_another_record_unless_they_share_an_id() {
    let upstream = Upstream::start().await;
    let config = Config::new(&upstream)
        .policy("fingerprint = [\"body\"]")
        .no_routes()
        .route("name = \"a\"\npath = \"/a\"")
        .route("name = \"b\"\npath = \"/b\"");
    let proxy = Proxy::start(config).await;
    let to = |path: &str| proxy.post(path).auth("alice").key("k");
    to("/a").send().await.was(200, "executed");
    to("/b").send().await.was(200, "executed");
    to("/a").send().await.was(200, "replayed");
}

// contract: R-5
#[tokio::test]
async fn a_missing_scope_part_is_a_value_of_its_own() {
    let upstream = Upstream::start().await;
    let proxy =
        Proxy::start(Config::new(&upstream).policy("scope = [\"header:authorization\", \"header:x-tenant\"]")).await;
    let bare = proxy.charge("k");
    bare.send().await.was(200, "executed");
    bare.clone().field("X-Tenant", "").send().await.was(200, "executed");
    bare.clone().field("X-Tenant", "t").send().await.was(200, "executed");
    bare.send().await.was(200, "replayed");
    let nobody = proxy.post("/v1/charges").key("k");
    nobody.send().await.was(200, "executed");
    nobody.send().await.was(200, "replayed");
}

// contract: R-5
#[tokio::test]
async fn a_credential_that_no_scope_part_reads_is_400_scope_missing() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for name in ["Cookie", "Proxy-Authorization", "X-Api-Key", "Api-Key", "X-Auth-Token"] {
        proxy.post("/v1/charges").key("k").field(name, "secret").send().await.refused(400, "scope-missing");
    }
    assert_eq!(upstream.requests().len(), 0);
    // With its scope there, a second credential does no harm.
    proxy.charge("k").field("Cookie", "a=b").send().await.was(200, "executed");
}

// contract: R-5
#[tokio::test]
async fn two_lines_of_a_scope_source_are_400() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    proxy.charge("k").auth("bob").send().await.refused(400, "bad-request");
    assert_eq!(upstream.requests().len(), 0);
}

// contract: R-5
#[tokio::test]
async fn schemes_that_change_with_each_request_are_400_where_the_key_is_required_and_pass_elsewhere() {
    let upstream = Upstream::start().await;
    let required = Proxy::start(Config::new(&upstream).policy("key_required = true")).await;
    let optional = Proxy::before(&upstream).await;
    let schemes = [
        "AWS4-HMAC-SHA256 Credential=x",
        "OAuth oauth_nonce=1",
        "Digest nonce=1",
        "Hawk id=1",
        "Signature keyId=1",
        "DPoP abc",
        "Negotiate abc",
        "digest nonce=1",
    ];
    for value in schemes {
        let post = |proxy: &Proxy| proxy.post("/v1/charges").key("k").field("Authorization", value);
        post(&required).send().await.refused(400, "scope-unstable");
        for _ in 0..2 {
            post(&optional).send().await.was(200, "unguarded");
        }
    }
    assert_eq!(upstream.executions(), 2 * schemes.len());
    let counted = optional.metrics().await.sum("oncegate_unguarded_total", &[("why", "scope_unstable")]);
    assert_eq!(counted, 2.0 * schemes.len() as f64);
}

// contract: R-5
#[tokio::test]
async fn cookies_queries_and_shared_are_scopes() {
    let upstream = Upstream::start().await;
    let cookie = Proxy::start(Config::new(&upstream).policy("scope = [\"cookie:session\"]")).await;
    let by = |value: &str| cookie.post("/v1/charges").key("k").field("Cookie", value);
    by("session=s1; theme=dark").send().await.was(200, "executed");
    by("theme=light; session=s1").send().await.was(200, "replayed");
    by("session=s2").send().await.was(200, "executed");
    by("theme=dark").send().await.refused(400, "scope-missing");

    let query =
        Proxy::start(Config::new(&upstream).policy("scope = [\"query:account\"]\nfingerprint = [\"body\"]")).await;
    let of = |value: &str| query.post(&format!("/v1/charges?account={value}")).key("k");
    of("a1").send().await.was(200, "executed");
    of("a1").send().await.was(200, "replayed");
    of("a2").send().await.was(200, "executed");

    let shared = Proxy::start(Config::new(&upstream).policy("scope = \"shared\"")).await;
    shared.charge("k").send().await.was(200, "executed");
    shared.charge("k").without("authorization").auth("bob").send().await.was(200, "replayed");
}

// contract: R-5
#[tokio::test]
async fn keys_and_scopes_are_in_no_log_no_metric_and_no_record() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).log("level = \"trace\"")).await;
    let post = proxy.post("/v1/charges?secret-query=1").key("secret-key").auth("secret-caller").body("secret-body");
    post.send().await.was(200, "executed");
    post.send().await.was(200, "replayed");
    post.clone().body("secret-other").send().await.refused(422, "key-reused");
    upstream.next(Script::reset());
    post.clone().without("idempotency-key").key("secret-lost").send().await.refused(502, "outcome-unknown");
    proxy.says(&["POST"]).await;
    let metrics = proxy.open_admin("GET", "/metrics").send().await;
    let records = proxy.admin("GET", "/records").send().await;
    let config = proxy.admin("GET", "/config").send().await;
    for text in [proxy.said().as_str(), metrics.text(), records.text(), config.text()] {
        assert!(!text.contains("secret-"), "{text}");
    }
}

// contract: R-5
// contract: P-3
#[tokio::test]
async fn a_cookie_is_the_same_caller_however_http2_splits_it() {
    let upstream = Upstream::start().await;
    let policy = "scope = [\"header:cookie\"]\nfingerprint = [\"method\", \"path\", \"header:cookie\", \"body\"]";
    let proxy = Proxy::start(Config::new(&upstream).policy(policy)).await;
    let http1 = proxy.request("POST", "/v1/charges").host("api.example").key("k").field("Cookie", "a=1; sid=7");
    let first = http1.body("amount=100").send().await;
    first.was(200, "executed");
    let mut client = http2(proxy.address(), 1 << 16).await;
    for crumbs in [&["a=1", "sid=7"][..], &["a=1; sid=7"]] {
        let post = proxy.request("POST", "/v1/charges").host("api.example").key("k").body("amount=100");
        let post = crumbs.iter().fold(post, |post, crumb| post.field("Cookie", crumb));
        let answer = soon(client.send_request(post.http2())).await.unwrap();
        let status = answer.headers()["idempotency-status"].to_str().unwrap();
        assert!(status.starts_with("replayed"), "{crumbs:?}: {status}");
    }
    assert_eq!(upstream.executions(), 1);
}
