//! The admin API: health, metrics, configuration, and the operator's hand on the records.

use super::harness::*;
use serde_json::json;

async fn with_unknown(upstream: &Upstream, key: &str) -> (Proxy, String, u64) {
    let proxy = Proxy::before(upstream).await;
    upstream.next(Script::reset());
    proxy.charge(key).send().await.refused(502, "outcome-unknown");
    let record = proxy.record().await;
    (proxy, record["id"].as_str().unwrap().to_owned(), 0)
}

#[tokio::test]
async fn health_and_metrics_are_open_and_the_rest_is_not() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for target in ["/livez", "/readyz", "/readyz?store", "/metrics"] {
        assert_eq!(proxy.open_admin("GET", target).send().await.status, 200, "{target}");
    }
    for (method, target) in
        [("GET", "/records"), ("GET", "/config"), ("POST", "/records/find"), ("DELETE", "/records/0123456789abcdef")]
    {
        assert_eq!(proxy.open_admin(method, target).send().await.status, 401, "{target}");
        let wrong = proxy.open_admin(method, target).field("Authorization", "Bearer wrong");
        assert_eq!(wrong.send().await.status, 401, "{target}");
        let basic = proxy.open_admin(method, target).field("Authorization", "Basic dDBrM24=");
        assert_eq!(basic.send().await.status, 401, "{target}");
    }
    // Never on the data port.
    assert_eq!(proxy.get("/livez").send().await.text(), "tok_1");
}

#[tokio::test]
async fn without_a_token_records_and_config_are_403() {
    let upstream = Upstream::start().await;
    let text = Config::new(&upstream).toml().replace("token_file = \"admin.token\"\n", "");
    let proxy = Proxy::start(Config::raw(text)).await;
    for target in ["/records", "/config"] {
        assert_eq!(proxy.open_admin("GET", target).send().await.status, 403);
        assert_eq!(proxy.admin("GET", target).send().await.status, 403);
    }
}

#[tokio::test]
async fn a_unix_admin_socket_needs_no_token_is_for_its_owner_alone_and_goes_with_the_process() {
    use std::os::unix::fs::PermissionsExt as _;
    let upstream = Upstream::start().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let text = Config::new(&upstream).toml().replace("token_file = \"admin.token\"\n", "");
    let text =
        text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"unix:{}\"", socket.display()));
    let file = directory.path().join("oncegate.toml");
    std::fs::write(&file, text).unwrap();
    let mut child = tokio::process::Command::new(binary());
    let mut child =
        child.arg("run").arg("-c").arg(&file).stderr(std::process::Stdio::null()).kill_on_drop(true).spawn().unwrap();
    eventually("the socket is there", || async { tokio::net::UnixStream::connect(&socket).await.is_ok() }).await;
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut connection = Connection::open_unix(&socket).await;
    let reply = connection.exchange("GET /records HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!((reply.status, reply.json()["records"].clone()), (200, json!([])));
    let pid = child.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-s", "TERM", &pid]).status().await.unwrap().success());
    assert_eq!(soon(child.wait()).await.unwrap().code(), Some(0));
    assert!(!socket.exists(), "nobody listens there any more");
}

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    assert_eq!(proxy.admin("GET", "/nothing").send().await.status, 404);
    assert!(matches!(proxy.admin("POST", "/livez").send().await.status, 404 | 405));
    assert_eq!(proxy.admin("GET", "/records/0123456789abcdef").send().await.status, 404);
}

#[tokio::test]
async fn a_record_is_shown_in_each_state() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    upstream.next(Script::hold());
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    let record = proxy.record().await;
    assert_eq!((record["state"].as_str(), record["route"].as_str()), (Some("in_flight"), Some("charges")));
    assert!(record["lease_left_seconds"].as_f64().is_some_and(|left| left > 0.0 && left <= 15.0), "{record:#}");
    upstream.release();
    owner.await.unwrap().was(200, "executed");
    proxy.charge("k").send().await.was(200, "replayed");
    let record = proxy.record().await;
    assert_eq!(record["state"], "completed");
    assert_eq!(
        (record["status"].as_u64(), record["kept"].as_bool(), record["body_bytes"].as_u64()),
        (Some(200), Some(true), Some(5))
    );
    assert_eq!(record["replays"], 1);
    assert!(
        record["expires_in_seconds"].as_f64().is_some_and(|left| (86_000.0..=86_400.0).contains(&left)),
        "{record:#}"
    );
    assert!(record["age_seconds"].is_number() && !record["version"].is_null());
    let id = record["id"].as_str().unwrap();
    assert_eq!(id.len(), 64);
    for id in [id, &id[..16]] {
        let one = proxy.admin("GET", &format!("/records/{id}")).send().await;
        assert_eq!((one.status, one.json()["id"].clone()), (200, record["id"].clone()));
    }
    let known = [
        "id",
        "state",
        "route",
        "version",
        "age_seconds",
        "expires_in_seconds",
        "lease_left_seconds",
        "status",
        "kept",
        "body_bytes",
        "replays",
        "reason",
    ];
    for member in record.as_object().unwrap().keys() {
        assert!(known.contains(&member.as_str()), "{member}");
    }
}

#[tokio::test]
async fn the_list_is_filtered_and_paged() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).route("name = \"refunds\"\npath = \"/v1/refunds\"")).await;
    for number in 0..25 {
        proxy.charge(format!("k-{number}")).send().await.was(200, "executed");
    }
    upstream.next(Script::reset());
    proxy.post("/v1/refunds").auth("alice").key("k").send().await.refused(502, "outcome-unknown");
    assert_eq!(proxy.records("state=unknown&limit=100").await.len(), 1);
    assert_eq!(proxy.records("route=refunds").await.len(), 1);
    assert_eq!(proxy.records("route=charges&state=completed&limit=100").await.len(), 25);
    assert_eq!(proxy.records("route=charges&state=unknown").await.len(), 0);
    let mut ids = std::collections::BTreeSet::new();
    let mut after = String::new();
    for _page in 0..20 {
        let page = proxy.admin("GET", &format!("/records?limit=7{after}")).send().await.json();
        let records = page["records"].as_array().unwrap();
        assert!(records.len() <= 7);
        ids.extend(records.iter().map(|record| record["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(ids.len(), 26);
    assert_eq!(proxy.admin("GET", "/records?state=nonsense").send().await.status, 400);
}

#[tokio::test]
async fn a_record_is_found_by_what_the_client_sent() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    proxy.charge("order-17").send().await.was(200, "executed");
    let find = |key: &str, who: &str| {
        let body =
            json!({"route": "charges", "authority": "api.test", "key": key, "scope": {"header:authorization": who}});
        proxy.admin("POST", "/records/find").json(&body.to_string())
    };
    let found = find("order-17", "Bearer alice").send().await;
    assert_eq!(found.status, 200, "{found:?}");
    let id = proxy.record().await["id"].clone();
    assert!(found.text().contains(id.as_str().unwrap()), "{found:?}");
    for missing in [find("order-18", "Bearer alice"), find("order-17", "Bearer bob")] {
        let reply = missing.send().await;
        assert!(reply.status == 404 || !reply.text().contains(id.as_str().unwrap()), "{reply:?}");
    }
}

#[tokio::test]
async fn resolve_completes_or_frees_only_what_is_unknown() {
    let upstream = Upstream::start().await;
    let (proxy, id, _) = with_unknown(&upstream, "k").await;
    let resolve = proxy.admin("POST", &format!("/records/{id}/resolve"));
    let full = json!({"executed": true, "response": {"status": 201, "headers": [["X-A", "1"], ["X-A", "2"]], "body_base64": "aGk="}});
    assert!(resolve.clone().json(&full.to_string()).send().await.status < 300);
    let again = proxy.charge("k").send().await;
    again.was(201, "replayed");
    assert_eq!((again.text(), again.all("x-a")), ("hi", vec!["1", "2"]));
    // It is completed now.
    let conflict = resolve.json("{\"executed\": false}").send().await;
    assert_eq!(conflict.status, 409);
    assert!(conflict.text().contains("completed"), "{conflict:?}");
    assert_eq!(upstream.executions(), 1);
    // Who did what stands in the log, and that somebody did in the metrics.
    proxy.says(&["resolve"]).await;
    let changes = proxy.metrics().await;
    let count = |change| changes.sum("oncegate_operator_changes_total", &[("change", change)]);
    let words = ["resolved_executed", "resolved_not_executed", "forgotten"];
    assert_eq!(words.map(count), [1.0, 0.0, 0.0]);
}

#[tokio::test]
async fn resolve_as_executed_without_a_response_is_not_kept() {
    let upstream = Upstream::start().await;
    let (proxy, id, _) = with_unknown(&upstream, "k").await;
    let reply = proxy.admin("POST", &format!("/records/{id}/resolve")).json("{\"executed\": true}").send().await;
    if reply.status < 300 {
        proxy.charge("k").send().await.refused(409, "response-not-kept");
    } else {
        assert_eq!(reply.status, 400, "{reply:?}");
        proxy.charge("k").send().await.refused(409, "outcome-unknown");
    }
    assert_eq!(upstream.executions(), 1);
}

#[tokio::test]
async fn a_malformed_resolution_changes_nothing() {
    let upstream = Upstream::start().await;
    let (proxy, id, _) = with_unknown(&upstream, "k").await;
    for body in [
        "",
        "{",
        "[]",
        "{}",
        "{\"executed\": \"yes\"}",
        "{\"executed\": true, \"response\": {\"status\": 9000}}",
        "{\"executed\": true, \"response\": {\"status\": 200, \"headers\": [[\"a b\", \"1\"]]}}",
    ] {
        let reply = proxy.admin("POST", &format!("/records/{id}/resolve")).json(body).send().await;
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
    }
    proxy.charge("k").send().await.refused(409, "outcome-unknown");
}

#[tokio::test]
async fn changes_with_another_version_are_412() {
    let upstream = Upstream::start().await;
    let (proxy, id, _) = with_unknown(&upstream, "k").await;
    let record = proxy.record().await;
    let version = record["version"].as_str().map_or_else(|| record["version"].to_string(), str::to_owned);
    let stale: String = version.chars().map(|c| if c == '1' { '2' } else { '1' }).collect();
    for (method, target) in [("POST", format!("/records/{id}/resolve")), ("DELETE", format!("/records/{id}"))] {
        let reply = proxy.admin(method, &target).field("If-Match", &stale).json("{\"executed\": false}").send().await;
        assert_eq!(reply.status, 412, "{reply:?}");
    }
    let resolve = proxy.admin("POST", &format!("/records/{id}/resolve")).field("If-Match", &version);
    assert!(resolve.json("{\"executed\": false}").send().await.status < 300);
    proxy.charge("k").send().await.was(200, "executed");
}

// contract: P-1
#[tokio::test]
async fn forgetting_an_exchange_under_way_needs_force_and_fences_its_owner() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let proxy = Proxy::before(&upstream).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    let id = proxy.record().await["id"].as_str().unwrap().to_owned();
    let refused = proxy.admin("DELETE", &format!("/records/{id}")).send().await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(proxy.admin("DELETE", &format!("/records/{id}?force=true")).send().await.status < 300);
    proxy.charge("k").send().await.was(200, "executed");
    upstream.release();
    let first = owner.await.unwrap();
    assert_eq!(first.was(200, "fenced").text(), "tok_1");
    assert_eq!(proxy.charge("k").send().await.was(200, "replayed").text(), "tok_2");
    assert_eq!(proxy.metrics().await.sum("oncegate_fenced_total", &[("route", "charges")]), 1.0);
}

// contract: R-18
#[tokio::test]
async fn an_owner_whose_record_was_forgotten_does_not_write_it_anew() {
    let upstream = Upstream::start().await;
    upstream.next(Script::hold());
    let proxy = Proxy::before(&upstream).await;
    let owner = proxy.charge("k").spawn();
    upstream.saw(1).await;
    let id = proxy.record().await["id"].as_str().unwrap().to_owned();
    assert!(proxy.admin("DELETE", &format!("/records/{id}?force=true")).send().await.status < 300);
    upstream.release();
    assert_eq!(owner.await.unwrap().status, 200);
    assert!(proxy.records("").await.is_empty());
}

#[tokio::test]
async fn a_settled_record_is_forgotten_at_a_word() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    proxy.charge("k").send().await.was(200, "executed");
    let id = proxy.record().await["id"].as_str().unwrap().to_owned();
    assert!(proxy.admin("DELETE", &format!("/records/{}", &id[..16])).send().await.status < 300);
    proxy.charge("k").send().await.was(200, "executed");
}

#[tokio::test]
async fn config_is_shown_settled() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).policy("retention = \"3h\"")).await;
    let reply = proxy.admin("GET", "/config").send().await;
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains("charges") && reply.text().contains("/v1/{*rest}"), "{}", reply.text());
    assert!(!reply.text().contains("t0k3n"), "the token is a secret");
}

#[tokio::test]
async fn the_admin_port_survives_rubbish() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream).await;
    for bytes in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET /records?limit=99999999999999999999 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /records/%00 HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let mut connection = Connection::open(proxy.admin_address()).await;
        connection.write(bytes).await;
        if let Ok(reply) = soon(connection.reply()).await {
            assert!((400..500).contains(&reply.status), "{reply:?}");
        }
    }
    let huge = proxy.admin("POST", "/records/find").json(&format!("\"{}\"", "x".repeat(8 << 20))).try_send().await;
    assert!(!huge.is_ok_and(|reply| reply.status < 400));
    assert_eq!(proxy.open_admin("GET", "/livez").send().await.status, 200);
}
