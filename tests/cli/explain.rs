//! `oncegate explain`: what it says of each kind of request, and that it says nothing of what is secret.

use serde_json::{Value, json};

use super::*;

fn text(arguments: &[&str]) -> String {
    let config = file(CONFIG);
    oncegate(&[&["explain", config.name()], arguments].concat()).prints()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&text(&[arguments, &["--json"]].concat())).expect("JSON")
}

const CHARGES: &str = "http://api.example.com/v1/charges?tenant=7";
const WEBSOCKET: &[&str] = &["-H", "Upgrade: websocket", "-H", "Connection: Upgrade"];

#[test]
fn a_guarded_request() {
    let text =
        text(&["POST", CHARGES, "-H", "Idempotency-Key: key-1", "-H", "Authorization: Bearer s3cret", "--data", "{}"]);
    insta::assert_snapshot!(text, @r"
    POST api.example.com/v1/charges

    route        create charge (/v1/charges)
                 not events: for other paths
                 not legacy: for other paths
                 not watched: for other paths
                 not short: for other paths
                 not default: for what no route matches
    class        non-idempotent
    guarded      yes
    key          header:idempotency-key, 5 bytes
    scope        header:authorization, query:tenant
    fingerprint  method, path, query, content-type (absent), body (2 bytes)

    first        sent to payments once; its answer is stored, then given, and kept
                 for 24 h
    retry        the stored answer; payments is not asked again
    concurrent   waits up to 30 s for the first one's answer, then 409 in-flight
    changed      422 key-reused, whatever became of the first one
    no answer    outcome-unknown: each retry gets 409 until an operator resolves it,
                 or 30 days have passed
    ");
}

#[test]
fn a_request_that_is_passed() {
    insta::assert_snapshot!(text(&["GET", CHARGES]), @r"
    GET api.example.com/v1/charges

    route        default (/{*rest})
                 not create charge: for other methods
                 not events: for other paths
                 not legacy: for other paths
                 not watched: for other paths
                 not short: for other paths
    class        safe
    guarded      no: the method is safe

    every time   streamed to payments and back, a repetition too
    ");
}

#[test]
fn a_request_that_is_refused() {
    insta::assert_snapshot!(text(&["POST", CHARGES]), @r"
    POST api.example.com/v1/charges

    route        create charge (/v1/charges)
                 not events: for other paths
                 not legacy: for other paths
                 not watched: for other paths
                 not short: for other paths
                 not default: for what no route matches
    class        non-idempotent
    guarded      refused
    key          none; looked at header:idempotency-key
    scope        header:authorization (missing), query:tenant

    every time   400 key-missing: it has no key, and the route requires one; nothing
                 is sent
    ");
}

// contract: R-5
#[test]
fn what_comes_of_a_scope_that_is_missing_is_said() {
    let said = |url, more: &[&str]| {
        let text = text(&[&["POST", url, "-H", "Idempotency-Key: a"], more].concat());
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(said(CHARGES, &[]).contains("header:authorization (missing), query:tenant a missing part is a value"));
    let none = said("http://a/v1/charges", &[]);
    assert!(none.contains("query:tenant (missing) shared with every caller who sends none of this"), "{none}");
    let all = said(CHARGES, &["-H", "Authorization: Bearer a"]);
    assert!(!all.contains("missing"), "{all}");
}

#[test]
fn policies_change_what_would_happen() {
    let text = text(&["POST", "http://a/hooks/x/y", "-H", "X-Event: 12", "-H", "X-Part: 3"]);
    insta::assert_snapshot!(text, @r#"
    POST a/hooks/x/y

    route        events (/hooks/{*rest})
                 not create charge: for other paths
                 not legacy: for other paths
                 not watched: for other paths
                 not short: for other paths
                 not default: for what no route matches
    class        non-idempotent
    guarded      yes
    key          header:x-event+header:x-part, 3 bytes
    scope        shared
    fingerprint  method, path, query (absent), content-type (absent), body (0 bytes)

    first        sent to payments once; its answer is stored, then given, and kept
                 for 24 h
    retry        200, empty; payments is not asked again
    concurrent   409 in-flight at once
    changed      422 key-reused, whatever became of the first one
    no answer    a retry is sent to payments again (on_unknown = "retry")
    "#);
}

#[test]
fn content_as_the_key() {
    insta::assert_snapshot!(text(&["POST", "http://a/legacy", "--data", "order=1"]), @r"
    POST a/legacy

    route        legacy (/legacy)
                 not create charge: for other paths
                 not events: for other paths
                 not watched: for other paths
                 not short: for other paths
                 not default: for what no route matches
    class        non-idempotent
    guarded      yes
    key          content:10s, 32 bytes
    scope        shared
    fingerprint  method, path, query (absent), content-type (absent), body (7 bytes)

    first        sent to payments once; its answer is stored, then given, and kept
                 for 10 s
    retry        the stored answer; payments is not asked again
    concurrent   waits up to 30 s for the first one's answer, then 409 in-flight
    changed      another content is another key: sent, as a first one
    no answer    outcome-unknown: each retry gets 409 until an operator resolves it,
                 or 10 s have passed
    ");
}

#[test]
fn json_has_the_members_of_the_contract() {
    let arguments = ["POST", CHARGES, "-H", "Idempotency-Key: key-1", "--data", "{}"];
    assert_eq!(
        json(&arguments),
        json!({
            "route": "create charge",
            "considered": [
                { "route": "create charge", "because": "it is the one" },
                { "route": "events", "because": "for other paths" },
                { "route": "legacy", "because": "for other paths" },
                { "route": "watched", "because": "for other paths" },
                { "route": "short", "because": "for other paths" },
                { "route": "default", "because": "for what no route matches" },
            ],
            "upstream": "payments",
            "class": "non-idempotent",
            "guarded": true,
            "key": { "source": "header:idempotency-key", "length": 5 },
            "scope": [
                { "part": "header:authorization", "present": false },
                { "part": "query:tenant", "present": true },
            ],
            "fingerprint": ["method", "path", "query", "content-type (absent)", "body (2 bytes)"],
            "would": { "first": "executed", "retry": "replayed", "concurrent": "waited", "changed": "key-reused" },
        })
    );
}

#[test]
fn refusals_name_their_problem() {
    for (arguments, code) in [
        (&["POST", CHARGES][..], "key-missing"),
        (&["POST", CHARGES, "-H", "Idempotency-Key: a,b"], "key-malformed"),
        (&["POST", CHARGES, "-H", "Idempotency-Key: a", "-H", "Idempotency-Key: b"], "key-malformed"),
        (&["POST", CHARGES, "-H", "Idempotency-Key: a", "-H", "Authorization: Digest x"], "scope-unstable"),
        (&["POST", "http://a/v1/charges", "-H", "Idempotency-Key: a", "-H", "Cookie: a=b"], "scope-missing"),
        (&["POST", CHARGES, "-H", "Idempotency-Key: a", "-H", "Idempotency_Key: b"], "bad-request"),
        (&["POST", CHARGES, "-H", "Idempotency-Key: a", "-H", "Early-Data: 1"], "too-early"),
        (&["POST", CHARGES, "-H", "Early-Data: 1"], "key-missing"),
        (&[&["POST", CHARGES, "-H", "Idempotency-Key: a"], WEBSOCKET].concat(), "bad-request"),
        (&["GET", CHARGES, "-H", "Content-Length: 1", "-H", "Transfer-Encoding: chunked"], "bad-request"),
        (&["POST", CHARGES, "-H", "Content-Length: 1", "-H", "Content-Length: 2"], "bad-request"),
        (&["POST", CHARGES, "-H", "Transfer-Encoding: gzip"], "bad-request"),
        (&["POST", CHARGES, "-H", "Host: a", "-H", "Host: b"], "bad-request"),
    ] {
        let explained = json(arguments);
        assert_eq!(explained["would"]["first"], code, "{arguments:?}");
        assert_eq!(explained["guarded"], false, "{arguments:?}");
    }
}

// contract: R-24
#[test]
fn observing_refuses_nothing_and_says_what_enforcing_would_do() {
    const WATCHED: &str = "http://a/watched?tenant=7";
    let long = "x".repeat(2 << 20);
    let body = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&body, long).expect("written");
    let body = format!("@{}", body.path().display());
    for (arguments, would) in [
        (&["POST", WATCHED][..], "400 key-missing: it has no key, and the route requires one"),
        (&["POST", WATCHED, "-H", "Idempotency-Key: a,b"], "400 key-malformed: "),
        (&["POST", WATCHED, "-H", "Idempotency-Key: a", "-H", "Idempotency_Key: b"], "400 bad-request: "),
        (&["POST", WATCHED, "-H", "Idempotency-Key: a", "-H", "Early-Data: 1"], "425 too-early: "),
        (&["POST", WATCHED, "-H", "Idempotency-Key: a", "-H", "Authorization: Digest x"], "400 scope-unstable: "),
        (&["POST", "http://a/watched", "-H", "Idempotency-Key: a", "-H", "Cookie: a=b"], "400 scope-missing: "),
        (&["POST", WATCHED, "-H", "Idempotency-Key: a", "--data", &body], "413 body-too-large: "),
        (&[&["POST", WATCHED, "-H", "Idempotency-Key: a"], WEBSOCKET].concat(), "400 bad-request: "),
    ] {
        let said = text(arguments).split_whitespace().collect::<Vec<_>>().join(" ");
        let every = format!("guarded observed only {}", said.split_once("observed only ").expect(&said).1);
        let expected = format!("every time streamed to payments and back; enforcing would refuse it: {would}");
        assert!(every.contains(&expected) && !every.contains("nothing is sent"), "{arguments:?}: {said}");
        assert_eq!(json(arguments)["would"]["first"], "passed", "{arguments:?}");
    }
    // What is ambiguous is refused before anybody knows its route.
    let both = ["POST", WATCHED, "-H", "Content-Length: 1", "-H", "Transfer-Encoding: chunked"];
    assert_eq!(json(&both)["would"]["first"], "bad-request");
}

#[test]
fn what_passes_with_a_key_is_unguarded() {
    let unstable = ["POST", "http://a/else", "-H", "Idempotency-Key: a", "-H", "Authorization: Digest x"];
    let long = ["POST", "http://a/short", "-H", "Idempotency-Key: a", "--data", "more than 8"];
    let declared = ["POST", "http://a/short", "-H", "Idempotency-Key: a", "-H", "Content-Length: 9"];
    for arguments in [&unstable[..], &long, &declared] {
        assert_eq!(json(arguments)["would"]["first"], "unguarded", "{arguments:?}");
        assert!(text(arguments).contains("and counted\n             as unguarded"), "{}", text(arguments));
    }
    let without = ["POST", "http://a/short", "--data", "more than 8"];
    assert_eq!(json(&without)["would"]["first"], "passed");
}

#[test]
fn the_length_that_a_request_declares_counts() {
    let arguments = ["POST", CHARGES, "-H", "Idempotency-Key: a", "-H", "Content-Length: 2000000"];
    assert_eq!(json(&arguments)["would"]["first"], "body-too-large");
}

#[test]
fn connect_is_refused_as_the_proxy_refuses_it() {
    let explained = json(&["CONNECT", "a:443"]);
    assert_eq!(explained["would"]["first"], "bad-request");
    assert!(text(&["CONNECT", "a:443"]).contains("405 bad-request: Oncegate opens no tunnels"));
}

// contract: R-15
#[test]
fn where_nobody_may_wait_nobody_does() {
    let arguments = ["POST", "http://a/short", "-H", "Idempotency-Key: a"];
    assert_eq!(json(&arguments)["would"]["concurrent"], "in-flight");
    assert!(text(&arguments).contains("concurrent   409 in-flight at once"));
}

#[test]
fn an_ambiguous_request_is_refused_with_the_reason_that_run_gives() {
    let both = ["POST", CHARGES, "-H", "Content-Length: 1", "-H", "Transfer-Encoding: chunked"];
    let said = text(&both);
    let reason = oncegate::server::Refusal::from(oncegate::server::Reason::LengthWithCoding);
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(reason.detail.trim_end_matches('.')), "{said}");
}

// contract: R-4
#[test]
fn a_key_in_a_body_that_is_too_long_is_not_looked_at() {
    let config = |required| {
        file(&format!(
            "[upstreams.a]\nurl = \"http://127.0.0.1:1\"\n[defaults]\nscope = \"shared\"\nkey = [\"json:/id\", \
             \"header:x-id\"]\nkey_required = {required}\nmax_request_body = \"8B\"\n"
        ))
    };
    let explained = |required, data| {
        let config = config(required);
        let json = ["-H", "Content-Type: application/json"];
        let arguments = [&["explain", config.name(), "POST", "http://a/b", "--data", data][..], &json].concat();
        oncegate(&arguments).prints()
    };
    let (long, short) = ("{\"id\": \"a-long-one\"}", "{}");
    let said = explained(false, long);
    assert!(said.contains("none; looked at header:x-id; not looked at json:/id"), "{said}");
    assert!(said.contains("guarded      no: its body is longer than max_request_body"), "{said}");
    let said = explained(true, long);
    assert!(said.contains("not looked at json:/id") && said.contains("413 body-too-large"), "{said}");
    let said = explained(true, short);
    assert!(said.contains("none; looked at json:/id") && said.contains("400 key-missing"), "{said}");
}

#[test]
fn what_is_not_guarded_passes() {
    for arguments in [
        &["GET", CHARGES][..],
        &["PUT", CHARGES],
        &["POST", "http://a/elsewhere"],
        &["POST", "http://a/elsewhere", "-H", "Idempotency-Key: a", "-H", "Content-Type: application/grpc"],
        &["POST", "http://a/watched?tenant=7", "-H", "Idempotency-Key: a"],
        &["POST", "http://a/elsewhere", "-H", "Early-Data: 1"],
        &[&["POST", "http://a/elsewhere"], WEBSOCKET].concat(),
    ] {
        assert_eq!(json(arguments)["would"]["first"], "passed", "{arguments:?}");
    }
}

#[test]
fn neither_keys_nor_scope_values_nor_bodies_are_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let body = dir.path().join("body.json");
    fs::write(&body, "{\"id\": \"hidden-body\"}").expect("a file");
    let body = format!("@{}", body.display());
    for last in ["--data", "--json"] {
        let arguments = [
            "POST",
            "http://a/v1/charges?tenant=hidden-tenant",
            "-H",
            "Idempotency-Key: hidden-key",
            "-H",
            "Authorization: Bearer hidden-token",
            "--data",
            &body,
            "--json",
        ];
        let text = text(&arguments[..if last == "--json" { arguments.len() } else { arguments.len() - 1 }]);
        assert!(!text.contains("hidden") && text.contains("21 bytes"), "{text}");
    }
}
