//! Who may ask, what they see, and what is refused.

use std::time::Duration;

use oncegate::{
    rule::{RecordId, identity::Space},
    store::faulty::{Fault, Step},
};
use serde_json::json;

use crate::harness::{DAY, Served, TOKEN, completed, first_version, id, id_of, unknown};

#[tokio::test]
async fn a_challenge_says_how_to_come_in() {
    let served = Served::start();
    let reply = served.send("GET /records HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    reply.problem(401);
    assert!(reply.field("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer")), "{reply:?}");
    Served::without_token().get("/records").await.problem(403);
}

#[tokio::test]
async fn a_new_token_holds_without_a_restart() {
    let served = Served::start();
    assert_eq!(served.get("/records").await.status, 200);
    std::fs::write(served.token_file(), "another").unwrap();
    served.get("/records").await.problem(401);
    std::fs::remove_file(served.token_file()).unwrap();
    let reply = served.get("/records").await;
    reply.problem(503);
    assert!(!reply.body.contains("night-shift"), "files are the operator's own affair: {reply:?}");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let served = Served::start();
    for (method, target, allowed) in [
        ("POST", "/livez", "GET, HEAD"),
        ("GET", "/records/find", "POST"),
        ("PUT", "/records/0123456789abcdef", "GET, HEAD, DELETE"),
        ("GET", "/records/0123456789abcdef/resolve", "POST"),
    ] {
        let reply = served.ask(method, target, "", "").await;
        reply.problem(405);
        assert_eq!(reply.field("allow"), Some(allowed), "{method} {target}");
    }
    served.get("/record").await.problem(404);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let served = Served::start();
    let (get, head) = (served.get("/livez").await, served.ask("HEAD", "/livez", "", "").await);
    assert_eq!((get.status, head.status), (200, 200));
    assert_eq!(head.field("content-length"), get.field("content-length"));
    assert!(head.body.is_empty() && !get.body.is_empty());
    assert_eq!(get.field("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_store_that_is_down_makes_unready_only_who_asks_for_it() {
    let served = Served::start();
    assert_eq!(served.get("/readyz?store").await.status, 200);
    served.store.set_down(true);
    assert_eq!(served.get("/readyz").await.status, 200);
    served.get("/readyz?store").await.problem(503);
    served.get("/records").await.problem(503);
    served.readiness.draining();
    assert!(served.get("/readyz").await.problem(503)["detail"].as_str().unwrap().contains("draining"));
    assert_eq!(served.get("/livez").await.status, 200);
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let served = Served::start();
    let reply = served.get("/config").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["routes"][0]["retention"], "3h");
    assert!(!reply.body.contains(TOKEN), "{}", reply.body);
}

#[tokio::test]
async fn a_body_beyond_bounds_is_413_and_nothing_is_held() {
    let served = Served::start();
    let reply = served.ask("POST", "/records/find", "", &"x".repeat((2 << 20) + 1)).await;
    reply.problem(413);
}

#[tokio::test]
async fn a_record_is_shown_with_its_version_as_entity_tag() {
    let served = Served::start();
    served.put(id(1), "charges", completed(201), DAY).await;
    let reply = served.get(&format!("/records/{}", id(1))).await;
    let record = reply.json();
    assert_eq!(reply.field("etag"), Some(format!("\"{}\"", first_version(id(1))).as_str()));
    assert_eq!(record["version"], first_version(id(1)).to_string());
    assert_eq!(
        (&record["state"], &record["status"], &record["kept"]),
        (&json!("completed"), &json!(201), &json!(false))
    );
    assert!(record["body_bytes"].is_null(), "there is no body: {record}");
}

// contract: R-18
#[tokio::test]
async fn a_lapsed_lease_reads_as_unknown() {
    let served = Served::start();
    served.put_in_flight(id(1), Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let record = served.get(&format!("/records/{}", id(1))).await.json();
    assert_eq!((record["state"].as_str(), record["reason"].as_str()), (Some("unknown"), Some("lapsed")));
    assert!(record["lease_left_seconds"].is_null(), "{record}");
    assert_eq!(served.get("/records?state=unknown").await.json()["records"][0]["id"], record["id"]);
}

#[tokio::test]
async fn digits_that_several_records_begin_with_name_none_of_them() {
    let served = Served::start();
    let twin = |last| {
        let mut bytes = [5; 32];
        bytes[31] = last;
        RecordId(bytes)
    };
    for last in [1, 2] {
        served.put_unknown(twin(last)).await;
    }
    let short = twin(1).short();
    let problem = served.get(&format!("/records/{short}")).await.problem(409);
    let mut ids: Vec<_> = problem["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [twin(1).to_string(), twin(2).to_string()]);
    served.resolve(short, r#"{"executed": false}"#).await.problem(409);
    assert_eq!(served.get(&format!("/records/{}", twin(2))).await.status, 200);
}

#[tokio::test]
async fn a_mistyped_filter_is_refused_rather_than_left_out() {
    let served = Served::start();
    for query in ["sate=unknown", "state=unknwon", "limit=0", "limit=x", "older=5", "after=no-cursor"] {
        served.get(&format!("/records?{query}")).await.problem(400);
    }
    served.put_unknown(id(1)).await;
    for query in ["forced=true", "force=yes", "force"] {
        served.ask("DELETE", &format!("/records/{}?{query}", id(1)), "", "").await.problem(400);
    }
    assert_eq!(served.held(id(1)).await, Some(unknown()));
}

#[tokio::test]
async fn older_counts_from_the_last_write() {
    let served = Served::start();
    served.put_unknown(id(1)).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(served.get("/records?older=20ms").await.json()["records"].as_array().unwrap().len(), 1);
    assert_eq!(served.get("/records?older=1h").await.json()["records"], json!([]));
}

/// The id is that of the proxy: header values without the whitespace around them, hosts in any case and with the
/// scheme's own port, parts that were not sent left out.
#[tokio::test]
async fn a_record_is_found_by_what_its_client_sent() {
    let served = Served::start();
    let charge = id_of("charges", Space::Enforce, Some("api.example.com"), "order-17");
    served.put(charge, "charges", completed(201), DAY).await;
    let find = |body: serde_json::Value| {
        let body = body.to_string();
        async { served.ask("POST", "/records/find", "", &{ body }).await }
    };
    for authority in ["api.example.com", "API.example.com:80", "api.example.com."] {
        let body = json!({"route": "charges", "authority": authority, "key": "order-17",
            "scope": {"Header:Authorization": " Bearer alice\t"}});
        assert_eq!(find(body).await.json()["id"], charge.to_string(), "{authority}");
    }
    for (member, value) in [("authority", json!("b.example.com")), ("key", json!("order-18")), ("scope", json!({}))] {
        let mut body = json!({"route": "charges", "authority": "api.example.com", "key": "order-17",
            "scope": {"header:authorization": "Bearer alice"}});
        body[member] = value;
        assert_ne!(find(body).await.problem(404)["id"], charge.to_string(), "{member}");
    }
}

/// A key is often copied as its client sent it, quotes and all. Not to find it would say that the request never ran.
// contract: R-4
#[tokio::test]
async fn a_key_is_found_as_it_stood_in_its_field() {
    let served = Served::start();
    let find = |route: &str, key: serde_json::Value| {
        let body = json!({"route": route, "authority": "h", "key": key,
            "scope": if route == "charges" { json!({"header:authorization": "Bearer alice"}) } else { json!({}) }});
        let served = &served;
        async move { served.ask("POST", "/records/find", "", &body.to_string()).await }
    };
    let charge = |key| id_of("charges", Space::Enforce, Some("h"), key);
    for key in ["order-17", "\"order-18\"", "k;a=1"] {
        served.put(charge(key), "charges", completed(201), DAY).await;
    }
    for (sent, key) in [
        ("order-17", "order-17"),
        ("\"order-17\"", "order-17"),
        (" \"order-17\"; v=1 ", "order-17"),
        ("\"\\\"order-18\\\"\"", "\"order-18\""),
        // As another of our tools may show it, without the quotes of the field.
        ("\"order-18\"", "\"order-18\""),
        ("k;a=1", "k;a=1"),
    ] {
        assert_eq!(find("charges", json!(sent)).await.json()["id"], charge(key).to_string(), "{sent}");
    }
    // Quotes within a JSON string are part of it.
    let event = id_of("events", Space::Enforce, None, "\"evt\"");
    served.put(event, "events", completed(201), DAY).await;
    assert_eq!(find("events", json!("\"evt\"")).await.json()["id"], event.to_string());
    find("events", json!("evt")).await.problem(404);
    let parts = find("events", json!(["a", "b"])).await.problem(404)["id"].clone();
    assert_eq!(find("events", json!(["\"a\"", "b"])).await.problem(404)["id"], parts);
    assert_ne!(find("events", json!(["b", "a"])).await.problem(404)["id"], parts);
}

#[tokio::test]
async fn records_of_observed_requests_are_found_too() {
    let served = Served::start();
    let observed = id_of("watched", Space::Observe, Some("h"), "k");
    served.put(observed, "watched", completed(200), DAY).await;
    let body =
        r#"{"route": "watched", "authority": "h", "key": "k", "scope": {"header:authorization": "Bearer alice"}}"#;
    assert_eq!(served.ask("POST", "/records/find", "", body).await.json()["id"], observed.to_string());
}

#[tokio::test]
async fn a_question_that_no_request_could_ask_is_refused() {
    let served = Served::start();
    for (body, says) in [
        (r#"{"route": "nothing", "key": "k"}"#, "\"charges\""),
        (r#"{"route": "charges", "key": "k"}"#, "`authority` is missing"),
        (r#"{"route": "charges", "authority": "h", "key": "k", "scope": {"header:x": ""}}"#, "header:authorization"),
        (r#"{"route": "events", "key": ["a", "b", "c"]}"#, "composite"),
        (r#"{"route": "charges", "authority": "h", "key": ["a", "b"]}"#, "composite"),
        (r#"{"route": "legacy", "key": "k", "authority": "h"}"#, "only the id finds"),
        (r#"{"route": "charges", "authority": "h", "key": ""}"#, "can have this key: the key is empty"),
        (r#"{"route": "charges", "authority": "h", "key": "\u00e9"}"#, "other than visible ASCII"),
        (r#"{"route": "events", "key": ["a", ""]}"#, "the key is empty"),
        (r#"{"route": "either", "key": "k"}"#, "not a UUID"),
        (r#"{"route": "charges", "authority": "h", "key": 12}"#, "`key` is a text"),
        (r#"{"route": "events", "key": ["a", 1]}"#, "list of texts"),
        (r#"{"route": "charges", "authority": "h"}"#, "key"),
        (r#"{"route": "charges", "authority": "h", "key": "k", "scpoe": {}}"#, "scpoe"),
        ("", "body"),
    ] {
        let problem = served.ask("POST", "/records/find", "", body).await.problem(400);
        assert!(problem.to_string().contains(says), "{body}: {problem}");
    }
    let none = served.ask("POST", "/records/find", "", r#"{"route": "events", "key": ["a", "b"]}"#).await;
    assert_eq!(none.problem(404)["id"].as_str().map(str::len), Some(64));
}

/// That there is no record is said to operators who decide by it whether a request ran.
#[tokio::test]
async fn what_may_be_wrong_with_a_question_is_said_with_its_answer() {
    let served = Served::start();
    let find = |body: &'static str| {
        let served = &served;
        async move { served.ask("POST", "/records/find", "", body).await.problem(404) }
    };
    let none = find(r#"{"route": "charges", "authority": "h", "key": "k", "scope": {"query:tenant": "7"}}"#).await;
    assert_eq!(none["scope_missing"], json!(["header:authorization"]));
    assert!(
        none["detail"].as_str().unwrap().ends_with("Taken as not sent by the client: header:authorization."),
        "{none}"
    );
    let all = find(r#"{"route": "events", "key": "k"}"#).await;
    assert_eq!(all["scope_missing"], json!([]));
    assert!(all["detail"].as_str().unwrap().ends_with("its retention is over."), "{all}");
    let off = find(r#"{"route": "unguarded", "authority": "h", "key": "k"}"#).await;
    assert!(off["detail"].as_str().unwrap().contains("mode is off"), "{off}");
    let either = find(r#"{"route": "either", "key": "b1946ac9-2492-4d23-8c5e-0f4bd3c2b8a1"}"#).await;
    assert!(either["detail"].as_str().unwrap().contains("has its content for one"), "{either}");
}

#[tokio::test]
async fn a_store_that_cannot_tell_is_said_to_be_so() {
    let served = Served::start();
    served.put(id(1), "charges", unknown(), DAY).await;
    served.store.script(Step::Manage, Fault::LoseReply);
    served.get(&format!("/records/{}", id(1))).await.problem(503);
    assert_eq!(served.get(&format!("/records/{}", id(1))).await.status, 200);
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let served = Served::start();
    let once = "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";
    let last = "GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let reply = served.send(&format!("{once}{once}{last}")).await;
    assert_eq!(reply.body.matches("HTTP/1.1 200").count(), 2, "{reply:?}");
}
