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
fn a_route_that_guards_none_of_its_methods_is_shown_so() {
    let shown =
        |lines: &str| run(&format!("{BASE}[[routes]]\nname = \"r\"\npath = \"/r\"\n{lines}\n"), None, false).out;
    assert!(shown("methods = [\"GET\", \"PUT\"]").contains("passes everything"));
    assert!(!shown("methods = [\"GET\", \"POST\"]").contains("passes everything"));
    assert!(!shown("methods = [\"PUT\"]\nguard = [\"PUT\"]").contains("passes everything"));
}

#[test]
fn columns_stand_below_each_other_whatever_is_in_them() {
    let wide = run(&ROUTES.replace("create charge", "注文を作成する"), None, false).out;
    assert!(wide.contains("\n注文を作成する        POST  "), "{wide}");
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
     = help: name a file that is there, and that this user may read: FILE,
             -c FILE, or ONCEGATE_CONFIG

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

/// What a change puts out of reach, as scripts see it: routes, moved and unguarded requests, keys of the store.
fn lost(old: &str, new: &str) -> [Vec<String>; 4] {
    let run = run(new, Some(old), true);
    let value: Value = serde_json::from_str(&run.out).unwrap();
    let texts = |list: &str, member: &str| {
        let found = value[list].as_array().unwrap_or_else(|| panic!("{list}: {}", run.out));
        found.iter().map(|found| found[member].as_str().unwrap_or("-").to_owned()).collect()
    };
    [
        texts("identity_changes", "route"),
        texts("moved_requests", "to"),
        texts("unguarded_requests", "from"),
        texts("store_changes", "key"),
    ]
}

fn nothing_but<const AT: usize>(of: &str) -> [Vec<String>; 4] {
    let mut lost: [Vec<String>; 4] = Default::default();
    lost[AT].push(of.to_owned());
    lost
}

const REDIS: &str = "kind = \"redis\"\n[store.redis]\n";

fn redis(store: &str, redis: &str) -> String {
    format!("[store]\n{store}\n{REDIS}{redis}\n{BASE}")
}

#[test]
fn a_change_that_loses_nothing_is_fine() {
    let same = run(&redis("lease = \"30s\"", ""), Some(&redis("", "")), false);
    assert_eq!(same.code, OK);
    assert!(same.out.contains("no live record would be out of reach"), "{}", same.out);
    assert!(same.out.contains("needs a restart: [store]"), "{}", same.out);
}

// contract: P-1 (d)
#[test]
fn a_change_that_restarts_the_memory_store_loses_everything() {
    let told = run(&format!("[store]\nlease = \"30s\"\n{BASE}"), Some(BASE), false);
    assert_eq!(told.code, OK);
    insta::assert_snapshot!(told.out, @"
    ROUTE    MATCHES          HANDLING
    default  everything else  guards non-idempotent
                              key header:idempotency-key
                              scope header:authorization

    the memory store's records end with its process: the restart forgets them all,
    and retries of earlier requests run again

    needs a restart: [store]

    new.toml: ok, 1 warning
    ");
    assert_eq!(lost(BASE, &format!("[admin]\nlisten = \"127.0.0.1:9465\"\n{BASE}")), nothing_but::<3>("store.kind"));
    assert_eq!(lost(BASE, &redis("", "")), nothing_but::<3>("store.kind"));
    assert_eq!(lost(&redis("", ""), BASE), nothing_but::<3>("store.kind"));
    assert_eq!(lost(BASE, &format!("[log]\nlevel = \"debug\"\n{BASE}")), <[Vec<String>; 4]>::default());
}

#[test]
fn records_that_stay_in_another_redis_are_told() {
    const CLUSTER: &str = "cluster = [\"redis://a\", \"redis://b\"]";
    const SENTINEL: &str = "sentinel = { master = \"m\", nodes = [\"redis://s\"] }";
    for (old, new, key) in [
        ("url = \"redis://a\"", "url = \"redis://b\"", "url"),
        ("url = \"redis://a/0\"", "url = \"redis://a/1\"", "url"),
        ("url = \"redis://a\"", CLUSTER, "cluster"),
        (CLUSTER, "cluster = [\"redis://c\"]", "cluster"),
        (CLUSTER, SENTINEL, "sentinel"),
        (SENTINEL, "sentinel = { master = \"n\", nodes = [\"redis://s\"] }", "sentinel"),
        (SENTINEL, "sentinel = { master = \"m\", nodes = [\"redis://s/3\"] }", "sentinel"),
        ("", "prefix = \"other:\"", "prefix"),
    ] {
        assert_eq!(
            lost(&redis("", old), &redis("", new)),
            nothing_but::<3>(&format!("store.redis.{key}")),
            "{old} to {new}"
        );
    }
    for (old, new) in [
        ("url = \"redis://a\"", "url = \"redis://u:p@a:6379/0\""),
        (CLUSTER, "cluster = [\"redis://b:6379\", \"redis://c\"]"),
        (SENTINEL, "sentinel = { master = \"m\", nodes = [\"redis://t\", \"redis://s\"] }"),
    ] {
        assert_eq!(lost(&redis("", old), &redis("", new)), <[Vec<String>; 4]>::default(), "{old} to {new}");
    }
}

// contract: R-5
#[test]
fn another_key_of_record_ids_is_told_and_a_new_sealing_secret_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("secret_file = \"{}\"", path.display())
    };
    let (one, rotated) = (file("one", "one\n"), file("rotated", "two\none\n"));
    let (appended, two) = (file("appended", "one\ntwo\n"), file("two", "two\n"));
    let is_told = |old: &str, new: &str, encrypt: &str| {
        let lost = lost(&redis(old, encrypt), &redis(new, encrypt));
        assert!(lost[..3].iter().all(Vec::is_empty), "{lost:?}");
        lost[3] == ["store.secret_file"]
    };
    assert!(is_told(&one, &appended, "") && is_told(&one, &two, "") && is_told("", &one, "") && is_told(&one, "", ""));
    assert!(!is_told(&one, &rotated, "") && !is_told(&rotated, &one, ""));
    // Answers that were sealed with the second.
    assert!(is_told(&rotated, &one, "encrypt = true") && !is_told(&one, &rotated, "encrypt = true"));
    // The old file may be another machine's: its name is all there is.
    assert!(is_told("secret_file = \"/nowhere/secret\"", &one, ""));
}

// contract: R-24
#[test]
fn requests_that_nothing_guards_any_more_are_told() {
    const ROUTE: &str = "[[routes]]\nname = \"c\"\npath = \"/c\"\n";
    let file = |lines: &str| format!("{BASE}{ROUTE}{lines}\n");
    for (old, new) in [
        ("", "mode = \"observe\""),
        ("", "mode = \"off\""),
        ("guard = [\"POST\", \"PUT\"]", "guard = [\"POST\"]"),
        ("guard = [\"LOCK\"]", "guard = [\"POST\"]"),
        ("guard = [\"PUT\"]\nmethods = [\"POST\", \"PUT\"]", "guard = [\"PUT\"]\nmethods = [\"POST\"]"),
    ] {
        assert_eq!(lost(&file(old), &file(new)), nothing_but::<2>("c"), "{old} to {new}");
        assert_eq!(run(&file(new), Some(&file(old)), false).code, OK, "a reload lets it pass");
    }
    let defaults = lost(BASE, &format!("{BASE}mode = \"observe\"\n"));
    assert_eq!(defaults, nothing_but::<2>("default"));
    assert_eq!(lost(&file("mode = \"observe\""), &file("")), <[Vec<String>; 4]>::default());
    let told = run(&file("mode = \"observe\""), Some(&file("")), false).out;
    let told = told.split("\n\n").nth(1).unwrap();
    insta::assert_snapshot!(told, @"
    route `c` observes requests that it guarded, such as POST /c: the records of
    enforcing are not looked at meanwhile, so a retry of what was executed before
    runs again
    ");
}

#[test]
fn what_is_lost_is_told_in_eighty_columns() {
    let route = |path: &str| format!("{BASE}[[routes]]\nname = \"c\"\npath = \"{path}\"\n");
    let told = run(&route("/v1/payments/charges"), Some(&route("/v1/charges")), false).out;
    let wide = told.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None);
    // What no route matches has its own id, and no other can be given to it.
    insta::assert_snapshot!(told.split("\n\n").skip(1).collect::<Vec<_>>().join("\n\n"), @r#"
    `default` takes requests from `c`, such as POST /v1/charges: retries of earlier
    ones run again; keep a route of that path with id = "c" to keep their records in
    reach

    route `c` takes requests from `default`, such as POST /v1/payments/charges:
    retries of earlier ones run again; give it id = "default" to keep their records
    in reach

    new.toml: ok, 1 warning
    "#);
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
