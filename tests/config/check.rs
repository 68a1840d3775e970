//! `oncegate check`, as people and scripts see it.

use std::path::Path;

use oncegate::cli::check::{self, BAD_CONFIG, OK};
use serde_json::Value;

use super::BASE;

struct Run {
    code: u8,
    out: String,
    err: String,
}

fn run(file: &str, against: Option<&str>, json: bool) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new.toml");
    std::fs::write(&path, file).unwrap();
    let old = against.map(|text| {
        let path = directory.path().join("old.toml");
        std::fs::write(&path, text).unwrap();
        path
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = check::run(&path, old.as_deref(), json, false, &|_| None, &mut out, &mut err).unwrap();
    let place = format!("{}/", directory.path().display());
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(&place, "");
    Run { code, out: text(out), err: text(err) }
}

const ROUTES: &str = r#"
[upstreams.payments]
url = "http://127.0.0.1:9000"
[upstreams.ledger]
url = "http://127.0.0.1:9001"
[defaults]
scope = ["header:authorization"]
[[routes]]
name = "create charge"
host = "api.example.com"
path = "/v1/charges"
methods = ["POST"]
upstream = "payments"
[[routes]]
name = "a name that is longer than any column may become in the table"
path = "/v1/{*rest}"
upstream = "ledger"
key = ["header:ce-source+header:ce-id", "json:/event/id"]
mode = "observe"
[[routes]]
name = "files"
path = "/files/{*rest}"
upstream = "ledger"
mode = "off"
"#;

#[test]
fn the_routes_fit_eighty_columns() {
    let run = run(ROUTES, None, false);
    assert_eq!(run.code, OK);
    assert!(run.out.lines().all(|line| line.chars().count() <= 80), "{}", run.out);
    insta::assert_snapshot!(run.out, @"
    ROUTE                 MATCHES                     HANDLING
    create charge         POST                        guards non-idempotent
                          api.example.com/v1/charges  key header:idempotency-key
                                                      scope header:authorization
                                                      to payments
    a name that is        /v1/{*rest}                 observes non-idempotent
    longer than any                                   key header:ce-source+header:
    column may become                                 ce-id
    in the table                                       or json:/event/id
                                                      scope header:authorization
                                                      to ledger
    files                 /files/{*rest}              passes everything
                                                      to ledger

    new.toml: ok, 1 warning
    ");
}

#[test]
fn a_bad_file_exits_78_and_says_so_on_stderr() {
    let run = run("[server]\nlistne = \"0.0.0.0:80\"\n", None, false);
    assert_eq!((run.code, run.out.as_str()), (BAD_CONFIG, ""));
    assert!(run.err.contains("did you mean `listen`?"), "{}", run.err);
    assert!(run.err.contains("new.toml:2:1"), "{}", run.err);
}

#[test]
fn a_file_that_is_not_there_is_said_in_words() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = check::run(Path::new("/nowhere/x.toml"), None, false, false, &|_| None, &mut out, &mut err).unwrap();
    assert_eq!(code, BAD_CONFIG);
    insta::assert_snapshot!(String::from_utf8(err).unwrap(), @"
    error: /nowhere/x.toml cannot be read: no such file or directory
     |
     = help: name a configuration file: oncegate run -c FILE

    1 error; the configuration is not usable
    ");
}

#[test]
fn scripts_get_every_error_with_its_place() {
    let run = run("[server]\nlistne = \"0.0.0.0:80\"\nmax_head = 5\n", None, true);
    let value: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(value["ok"], false);
    let places: Vec<_> =
        value["errors"].as_array().unwrap().iter().map(|error| (&error["line"], &error["column"])).collect();
    assert_eq!(places[..2], [(&2.into(), &1.into()), (&3.into(), &12.into())]);
    assert_eq!(value["errors"][0]["label"], "did you mean `listen`?");
}

// contract: R-5
#[test]
fn a_change_that_a_reload_refuses_exits_78() {
    let new = BASE.replace("header:authorization", "cookie:session");
    let refused = run(&new, Some(BASE), false);
    assert_eq!(refused.code, BAD_CONFIG);
    assert!(refused.out.contains("route `default`: `scope` changes"), "{}", refused.out);
    assert!(refused.err.contains("accept_identity_change"), "{}", refused.err);
    let accepted = run(&format!("[server]\naccept_identity_change = true\n{new}"), Some(BASE), true);
    assert_eq!(accepted.code, OK);
    let value: Value = serde_json::from_str(&accepted.out).unwrap();
    assert_eq!(value["identity_changes"][0]["key"], "scope");
}

#[test]
fn a_change_that_loses_nothing_is_fine() {
    let same = run(&format!("[store]\nlease = \"30s\"\n{BASE}"), Some(BASE), false);
    assert_eq!(same.code, OK);
    assert!(same.out.contains("no live record would be out of reach"), "{}", same.out);
    assert!(same.out.contains("needs a restart: [store]"), "{}", same.out);
}

// contract: R-5
#[test]
fn a_new_route_that_takes_requests_from_another_is_told() {
    let route = "[[routes]]\nname = \"refunds\"\npath = \"/v1/refunds\"\n";
    let told = run(&format!("{BASE}{route}"), Some(BASE), false);
    assert_eq!(told.code, OK, "a reload lets it pass");
    assert!(
        told.out.contains("route `refunds` takes requests from `default`, such as POST /v1/refunds"),
        "{}",
        told.out
    );
    let kept = run(&format!("{BASE}{route}id = \"default\"\n"), Some(BASE), false);
    assert!(kept.out.contains("no live record would be out of reach"), "{}", kept.out);
    let read_only = run(&format!("{BASE}{route}methods = [\"GET\"]\n"), Some(BASE), true);
    let value: Value = serde_json::from_str(&read_only.out).unwrap();
    assert_eq!(value["moved_requests"], serde_json::json!([]));
}
