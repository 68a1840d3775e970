//! What a reload refuses (contract: R-5 and section 4).

use oncegate::config::{identity_changes, needs_restart};

use super::{BASE, sound};

/// What is refused when a route's lines change.
fn changes(old: &str, new: &str) -> Vec<(String, Option<&'static str>)> {
    let config = |lines: &str| sound(&format!("{BASE}{lines}"));
    let found = identity_changes(&config(old), &config(new));
    found.into_iter().map(|change| (change.route.clone(), change.change.key())).collect()
}

fn route(lines: &str) -> String {
    format!("[[routes]]\nname = \"r\"\npath = \"/a\"\n{lines}\n")
}

// contract: R-5
#[test]
fn a_change_of_each_part_of_the_identity_is_found() {
    for (key, line) in [
        ("id", "id = \"other\""),
        ("scope", "scope = [\"cookie:session\"]"),
        ("key", "key = [\"header:X-Request-Id\"]"),
        ("fingerprint", "fingerprint = [\"body\"]"),
        ("authority", "authority = \"ignore\""),
    ] {
        assert_eq!(changes(&route(""), &route(line)), [("r".to_owned(), Some(key))]);
    }
}

#[test]
fn a_dropped_route_is_found() {
    assert_eq!(changes(&route(""), ""), [("r".to_owned(), None)]);
}

#[test]
fn a_route_renamed_without_its_id_is_found() {
    let renamed = route("").replace("\"r\"", "\"s\"");
    assert_eq!(changes(&route(""), &renamed), [("r".to_owned(), Some("id"))]);
    let kept = route("id = \"r\"").replace("name = \"r\"", "name = \"s\"");
    assert_eq!(changes(&route(""), &kept), []);
}

#[test]
fn what_is_no_part_of_the_identity_may_change() {
    assert_eq!(changes(&route(""), &route("retention = \"48h\"\nmethods = [\"POST\"]")), []);
}

#[test]
fn a_route_that_keeps_no_answers_has_none_to_lose() {
    assert_eq!(changes(&route("mode = \"off\""), ""), []);
    assert_eq!(changes(&route("mode = \"observe\""), &route("scope = \"shared\"")), []);
}

#[test]
fn a_second_upstream_takes_the_fallback_away() {
    let second = "[upstreams.b]\nurl = \"http://127.0.0.1:9001\"\n";
    assert_eq!(changes("", second), [("default".to_owned(), None)]);
}

#[test]
fn a_route_that_catches_all_takes_the_fallback_away_unless_it_keeps_its_id() {
    let all = "[[routes]]\nname = \"all\"\npath = \"/{*rest}\"\n";
    assert_eq!(changes("", all), [("default".to_owned(), Some("id"))]);
    assert_eq!(changes("", &format!("{all}id = \"default\"\n")), []);
}

#[test]
fn a_change_of_defaults_reaches_the_routes_that_inherit_it() {
    let old = sound(&format!("{BASE}{}", route("")));
    let new = sound(&format!("{BASE}{}", route("")).replace("header:authorization", "cookie:session"));
    let found: Vec<_> = identity_changes(&old, &new).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(found.join("\n"), @"
    route `r`: `scope` changes: its records are out of reach, and retries of earlier requests run again
    route `default`: `scope` changes: its records are out of reach, and retries of earlier requests run again
    ");
}

// contract: section 4
#[test]
fn what_a_running_process_cannot_change_needs_a_restart() {
    let old = sound(BASE);
    let restart = |table: &str| needs_restart(&old, &sound(&format!("{table}\n{BASE}")));
    assert_eq!(restart("[server]\nlisten = \"0.0.0.0:8081\""), ["[server] listen"]);
    assert_eq!(restart("[admin]\nlisten = \"127.0.0.1:9465\""), ["[admin]"]);
    assert_eq!(restart("[store]\nlease = \"30s\""), ["[store]"]);
    assert_eq!(restart("[server]\nmax_connections = 5\n[log]\nlevel = \"debug\""), [""; 0]);
}
