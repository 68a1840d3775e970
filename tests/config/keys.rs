//! Every key of the reference: read, shown, in the schema and in `config/full.toml`, with one default.

use std::collections::BTreeSet;

use oncegate::{
    cli::schema,
    config::{self, KeyDoc, Kind, Overrides, Table, reference},
};
use proptest::prelude::*;
use serde_json::Value;

use super::{BASE, env, parse, sound};

/// A sound text in which one key has this value.
fn with(doc: &KeyDoc, value: &str) -> String {
    let KeyDoc { table, key, .. } = doc;
    let line = format!("{key} = {value}");
    let upstream = "[upstreams.api]\nurl = \"http://127.0.0.1:9000\"\n";
    let payments = "[upstreams.payments]\nurl = \"http://127.0.0.1:9001\"\n";
    let redis = "[store]\nkind = \"redis\"\nsecret_file = \"s\"\n[store.redis]\n";
    let route = format!("{BASE}[[routes]]\nname = \"r\"\npath = \"/\"\n{payments}");
    match table {
        Table::Top => format!("{line}\n{BASE}"),
        Table::Server if *key == "proxy_protocol" => {
            format!("[server]\n{line}\ntrusted_proxies = [\"10.0.0.0/8\"]\n{BASE}")
        }
        Table::Server => format!("[server]\n{line}\n{BASE}"),
        Table::ServerTls if *key == "client_ca" => {
            format!("[server]\ntls = {{ cert = \"a\", key = \"b\", {line} }}\n{BASE}")
        }
        Table::ServerTls if *key == "client_certificate" => {
            format!("[server]\ntls = {{ cert = \"a\", key = \"b\", client_ca = \"c\", {line} }}\n{BASE}")
        }
        Table::ServerTls => {
            format!("[server]\ntls = {{ cert = \"a\", key = \"b\" }}\n{BASE}").replace(&line_of(key), &line)
        }
        Table::Admin => format!("[admin]\n{line}\n{BASE}"),
        Table::Log => format!("[log]\n{line}\n{BASE}"),
        Table::Store => format!("[store]\n{line}\n{BASE}"),
        Table::StoreMemory => format!("[store.memory]\n{line}\n{BASE}"),
        Table::StoreRedis => format!("{redis}{line}\n{BASE}"),
        Table::Sentinel if *key == "master" => {
            format!("{redis}sentinel = {{ {line}, nodes = [\"redis://x:1\"] }}\n{BASE}")
        }
        Table::Sentinel => format!("{redis}sentinel = {{ master = \"x\", {line} }}\n{BASE}"),
        Table::Upstream if *key == "url" => format!("[upstreams.api]\n{line}\n{}", BASE.replace(upstream, "")),
        Table::Upstream if *key == "urls" => format!("[upstreams.api]\n{line}\n{}", BASE.replace(upstream, "")),
        Table::Upstream => {
            format!("[upstreams.api]\nurl = \"https://api.internal\"\n{line}\n{}", BASE.replace(upstream, ""))
        }
        Table::UpstreamTls => {
            let pair = match *key {
                "cert" => ", key = \"k\"",
                "key" => ", cert = \"c\"",
                _ => "",
            };
            format!(
                "[upstreams.api]\nurl = \"https://api.internal\"\ntls = {{ {line}{pair} }}\n{}",
                BASE.replace(upstream, "")
            )
        }
        Table::Route => {
            let route = if *key == "upstream" { route } else { route.replace(payments, "") };
            let route = route.replace("name = \"r\"\n", if *key == "name" { "" } else { "name = \"r\"\n" });
            let route = route.replace("path = \"/\"\n", if *key == "path" { "" } else { "path = \"/\"\n" });
            route.replace("[[routes]]\n", &format!("[[routes]]\n{line}\n"))
        }
        Table::Policy if *key == "scope" => BASE.replace("scope = [\"header:authorization\"]", &line),
        Table::Policy => format!("{BASE}{line}\n"),
    }
}

fn line_of(key: &str) -> String {
    if key == "cert" { "cert = \"a\"".to_owned() } else { "key = \"b\"".to_owned() }
}

fn is_value(doc: &&KeyDoc) -> bool {
    doc.table != Table::Top && !matches!(doc.kind, Kind::Table(_) | Kind::Named(_) | Kind::Tables(_))
}

fn shown(text: &str) -> Value {
    config::show(&sound(text))
}

#[test]
fn every_default_is_what_is_used_when_the_key_is_left_out() {
    for doc in reference().iter().filter(is_value) {
        let Some(default) = doc.default else { continue };
        let (given, other) = (shown(&with(doc, default)), shown(&with(doc, doc.example)));
        let absent = with(doc, default).replace(&format!("{} = {default}", doc.key), "");
        // A table without its only key, and an upstream without its url, are told apart elsewhere.
        assert_eq!(given, shown(&absent), "the default of {} in {}", doc.key, doc.table.title());
        assert_ne!(given, other, "the example of {} in {} changes nothing", doc.key, doc.table.title());
    }
}

#[test]
fn every_example_is_read_and_shown() {
    for doc in reference().iter().filter(is_value).filter(|doc| doc.default.is_none()) {
        let text = shown(&with(doc, doc.example)).to_string();
        let value: toml::Table = format!("v = {}", doc.example).parse().unwrap();
        let words = match &value["v"] {
            toml::Value::String(text) => vec![text.clone()],
            toml::Value::Array(items) => items.iter().map(|item| item.as_str().unwrap().to_owned()).collect(),
            toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Table(_) => panic!("{} has no default", doc.key),
        };
        for word in words {
            assert!(text.contains(word.trim_start_matches("unix:")), "{} in {}: {text}", doc.key, doc.table.title());
        }
    }
}

#[test]
fn no_key_is_listed_twice_and_every_one_is_explained() {
    let mut seen = BTreeSet::new();
    for doc in reference() {
        assert!(seen.insert((doc.table, doc.key)), "{}", doc.key);
        assert!(doc.meaning.ends_with('.') && doc.meaning.len() > 10, "{}: {}", doc.key, doc.meaning);
    }
    let policy: BTreeSet<_> = Table::Policy.keys().map(|doc| doc.key).collect();
    assert!(Table::Route.keys().all(|doc| !policy.contains(doc.key)), "a route's own keys are no policy keys");
}

fn schema() -> Value {
    let mut out = Vec::new();
    schema::run(&mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn the_schema_has_every_key_with_its_default_and_no_other() {
    let schema = schema();
    let keys = |object: &Value| object["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let mut listed = keys(&schema);
    for definition in schema["$defs"].as_object().unwrap().values() {
        assert_eq!(definition["additionalProperties"], false);
        listed.extend(keys(definition));
    }
    assert_eq!(listed, reference().iter().map(|doc| doc.key.to_owned()).collect());
    let retention = &schema["$defs"]["route"]["properties"]["retention"];
    assert_eq!(retention["default"], "24h");
    assert_eq!(retention, &schema["$defs"]["policy"]["properties"]["retention"]);
    assert_eq!(
        schema["$defs"]["policy"]["properties"]["mode"]["anyOf"][0]["enum"],
        serde_json::json!(["enforce", "observe", "off"])
    );
}

#[test]
fn values_may_come_from_the_environment() {
    let config = sound(&format!("[server]\nmax_connections = \"${{NINE}}\"\nheader_timeout = \"${{NINE}}s\"\n{BASE}"));
    assert_eq!(config.server.max_connections, 9);
    assert_eq!(config.server.header_timeout.as_secs(), 9);
    let text = format!("{BASE}[[routes]]\nname = \"$${{NINE}} ${{NINE}}\"\npath = \"/\"\n");
    assert_eq!(&*sound(&text).routes[0].name.0, "${NINE} 9");
}

#[test]
fn a_list_laid_over_the_defaults_replaces_theirs_whole() {
    let config = sound(&format!(
        "{BASE}release_on = [429]\nretention = \"48h\"\n[[routes]]\nname = \"r\"\npath = \"/\"\nrelease_on = [401]\n"
    ));
    let policy = &config.routes[0].policy;
    assert!(policy.release_on.holds(401, false) && !policy.release_on.holds(429, false));
    assert_eq!(policy.retention.as_secs(), 48 * 3600);
}

#[test]
fn duplicates_wait_as_long_as_the_first_unless_told_otherwise() {
    let wait = |lines: &str| sound(&format!("{BASE}{lines}")).fallback.unwrap().policy.wait_timeout.as_secs();
    assert_eq!(wait("response_timeout = \"7s\"\n"), 7);
    assert_eq!(wait("response_timeout = \"7s\"\nwait_timeout = \"3s\"\n"), 3);
}

#[test]
fn a_catch_all_route_leaves_nothing_for_the_defaults_to_guard() {
    let text = "[upstreams.api]\nurl = \"http://127.0.0.1:9000\"\n[[routes]]\nname = \"all\"\npath = \"/{*rest}\"\nscope = \"shared\"\n";
    assert_eq!(sound(text).fallback.unwrap().policy.mode, oncegate::rule::policy::Mode::Off);
}

#[test]
fn bounds_that_just_hold_are_accepted() {
    sound(&format!("{BASE}response_timeout = \"5m\"\nretention = \"5m1ms\"\nunknown_retention = \"5m1ms\"\n"));
    sound(&format!("[server]\nlisten = \"127.0.0.1:9464\"\n[admin]\nlisten = \"127.0.0.2:9464\"\n{BASE}"));
    sound(&format!("[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{BASE}"));
    sound(&format!("[server]\nmax_head = \"8KiB\"\n{BASE}max_waiters = 0\nwait_timeout = \"0s\"\n"));
    let cluster = "[store]\nkind = \"redis\"\nlease = \"60s\"\n[store.redis]\ncluster = [\"redis://a:6379\"]\n";
    sound(&format!("{cluster}{BASE}on_unknown = \"retry\"\n"));
}

#[test]
fn flags_beat_the_file() {
    let overrides = Overrides {
        upstream: Some("http://127.0.0.1:1".to_owned()),
        listen: Some("127.0.0.1:2".to_owned()),
        admin: Some("unix:/run/x".to_owned()),
    };
    let config = config::parse("f", BASE, &overrides, &env).unwrap().config;
    assert_eq!(config.upstreams[0].urls[0].authority, "127.0.0.1:1");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:2");
    assert_eq!(config.admin.listen.to_string(), "unix:/run/x");
}

#[test]
fn wrong_flags_are_shown_like_wrong_lines() {
    let overrides = Overrides { upstream: Some("localhost:80".to_owned()), ..Overrides::default() };
    insta::assert_snapshot!(config::for_upstream(&overrides).unwrap_err(), @r#"
    error: `--upstream`: a URL whose scheme is not http, https or unix
     --> --upstream:1:1
      |
    1 | localhost:80
      | ^^^^^^^^^^^^
      |
      = help: say "http://127.0.0.1:9000", "https://api.internal" or
              "unix:/run/app.sock"

    1 error; the configuration is not usable
    "#);
}

#[test]
fn without_a_file_callers_are_told_apart_by_their_authorization() {
    let overrides = Overrides { upstream: Some("http://127.0.0.1:9000".to_owned()), ..Overrides::default() };
    let loaded = config::for_upstream(&overrides).unwrap();
    let shown = config::show(&loaded.config);
    assert_eq!(shown["fallback"]["scope"], serde_json::json!(["header:authorization"]));
    assert_eq!(shown["store"]["kind"], "memory");
    assert!(loaded.warnings[0].message().contains("Authorization"));
}

#[test]
fn passwords_in_urls_are_hidden() {
    let text = format!("[store]\nkind = \"redis\"\n[store.redis]\nurl = \"redis://u:hunter2@r:6379/0\"\n{BASE}");
    let config = sound(&text);
    let shown = config::show(&config).to_string();
    assert!(shown.contains("redis://***@r:6379/0") && !shown.contains("hunter2"), "{shown}");
    assert!(!format!("{config:?}").contains("hunter2"));
}

proptest! {
    #[test]
    fn no_text_panics_the_parser(text in "(?s).{0,200}") {
        let _ = parse(&text).map_err(|errors| (errors.render(true), errors.to_json()));
    }

    /// Broken anywhere, a whole file is still refused or read, and what is said of it can be shown.
    #[test]
    fn no_broken_file_panics_the_parser(start in 0..5000usize, length in 0..40usize, patch in "(?s)[\\[\\]{}=\"'#\\.\n\r\t \u{e9}a]{0,6}") {
        let full = include_str!("../../config/full.toml");
        let boundary = |at: usize| (at.min(full.len())..=full.len()).find(|at| full.is_char_boundary(*at)).unwrap();
        let text = format!("{}{patch}{}", &full[..boundary(start)], &full[boundary(start + length)..]);
        let _ = parse(&text).map_err(|errors| (errors.render(false), errors.to_json()));
    }

    /// Texts that look like configurations reach deeper.
    #[test]
    fn no_value_panics_the_parser(index in 0..reference().len(), value in "(\"[^\"\\\\\n]{0,30}\"|\\[?\"[a-z:+/{}*$~%]{0,20}\"\\]?|-?[0-9]{1,25}|true|\\{\\}|\\[\\]|1979-05-27)") {
        let _ = parse(&with(&reference()[index], &value)).map_err(|errors| errors.to_string());
    }
}
