//! The ACL line of `docs/redis.md` is enough for all that Oncegate does in Redis, and `oncegate doctor` names the same.

use std::collections::BTreeSet;

use serde_json::json;

use super::harness::*;

use crate::servers::{Cluster, Options, Sentinel, Server, Single, is_installed};

/// What this test cannot bring about: the others' turn to be prolonged, a slot on its way.
const NOT_BROUGHT_ABOUT: [&str; 2] = ["pexpire", "asking"];

/// What `oncegate doctor` asks for besides, as `docs/redis.md` has it.
const FOR_DOCTOR: [&str; 4] = ["+time", "+config|get", "+cluster|info", "+cluster|nodes"];

/// What stands after the password in the documentation's `ACL SETUSER`, as a shell reads it.
fn rules() -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md")).unwrap();
    let (_, after) = page.split_once("```sh\nredis-cli ").unwrap();
    let (command, _) = after.split_once("\n```").unwrap();
    let words = std::process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {command}")]).output().unwrap();
    let words = String::from_utf8(words.stdout).unwrap();
    let words: Vec<_> = words.lines().collect();
    let (user, rules) = words.split_at(5);
    assert_eq!(user, ["ACL", "SETUSER", "oncegate", "on", ">PASSWORD"]);
    // A new user has neither keys nor channels.
    rules.iter().filter(|rule| !rule.starts_with("reset")).copied().collect::<Vec<_>>().join(" ")
}

/// Its commands: `cluster|slots`.
fn commands() -> BTreeSet<String> {
    rules().split(' ').filter_map(|rule| rule.strip_prefix('+')).map(str::to_owned).collect()
}

fn options() -> Options {
    Options::new().user("oncegate", "secret", &rules())
}

fn config(upstream: &Upstream, redis: &str) -> Config {
    Config::new(upstream).store("kind = \"redis\"\nlease = \"2s\"").table("[store.redis]", redis)
}

/// What a day brings: a claim and its answer, a replay, a release, a lease that lapses, an operator's questions.
async fn a_day(upstream: &Upstream, config: &Config, servers: &[&Server], database: &str) {
    let first = Proxy::start(config.clone()).await;
    upstream.next(Script::answer(201).body("x".repeat(1024)));
    first.charge("order-1").send().await.was(201, "executed");
    first.charge("order-1").send().await.was(201, "replayed");
    upstream.next(Script::answer(429));
    first.charge("order-2").send().await.was(429, "released");
    for server in servers {
        if let Some(key) =
            server.cli(&["-n", database, "--scan", "--pattern", "oncegate:*"]).lines().find(|key| key.len() > 64)
        {
            let bytes: u32 = server.cli(&["-n", database, "MEMORY", "USAGE", key]).parse().unwrap();
            assert!((1350..1500).contains(&bytes), "docs/redis.md says 1416: {bytes}");
        }
    }
    eventually("the replay is written down", || async { ran(servers).contains("setrange") }).await;
    assert_eq!(first.records("limit=10").await.len(), 1);
    let asked = json!({"route": "charges", "authority": "api.test", "key": "order-1",
                       "scope": {"header:authorization": "Bearer alice"}});
    assert_eq!(first.admin("POST", "/records/find").json(&asked.to_string()).send().await.status, 200);
    let id = first.record().await["id"].as_str().unwrap().to_owned();
    assert_eq!(first.admin("GET", &format!("/records/{}", &id[..16])).send().await.status, 200);
    // Its owner dies, and another finds out.
    upstream.next(Script::hold());
    let _held = first.charge("order-3").spawn();
    eventually("the charge is under way", || async { upstream.executions() == 3 }).await;
    first.signal("KILL").await;
    for server in servers {
        let _not_this_ones = ["0", "1"].map(|db| server.try_cli(&["-n", db, "DEL", "oncegate:{000}census"]));
    }
    pass(2100).await;
    let second = Proxy::start(config.clone()).await;
    eventually("the lapse is told", || async {
        second.metrics().await.sum("oncegate_leases_lapsed_total", &[]) == 1.0
    })
    .await;
    assert_eq!(second.records("state=unknown&limit=10").await.len(), 1);
    for said in [first.said(), second.said()] {
        assert!(!said.contains("NOPERM"), "{said}");
    }
    for server in servers {
        assert_eq!(server.cli(&["ACL", "LOG"]), "", "{}", rules());
        server.cli(&[&["ACL", "SETUSER", "oncegate"][..], &FOR_DOCTOR].concat());
    }
    let (_, said) = doctor(&second).await;
    assert!(said.contains("writes and reads") && !said.contains("round trip failed"), "{said}");
    for server in servers {
        assert_eq!(server.cli(&["ACL", "LOG"]), "", "{said}");
    }
}

/// The commands that these servers ran.
fn ran(servers: &[&Server]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for server in servers {
        let text = server.try_cli(&["INFO", "commandstats"]).unwrap_or_default();
        let lines = text.lines().filter_map(|line| Some(line.strip_prefix("cmdstat_")?.split_once(':')?.0.to_owned()));
        names.extend(lines);
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_user_may_do_all_that_oncegate_does_and_no_more() {
    if !is_installed() {
        return;
    }
    let mut used: BTreeSet<_> = NOT_BROUGHT_ABOUT.map(str::to_owned).into();
    {
        let (upstream, redis) = (Upstream::start().await, Single::start(options()));
        let lines = redis.toml_by(&format!("{}/1", redis.url()));
        a_day(&upstream, &config(&upstream, &lines), &[&redis], "1").await;
        used.extend(ran(&[&redis]));
    }
    {
        let (upstream, set) = (Upstream::start().await, Sentinel::start(options()));
        let lines = format!("{}replicas = 1\ntimeout = \"1s\"\n", set.toml());
        a_day(&upstream, &config(&upstream, &lines), &[set.master()], "0").await;
        used.extend(ran(&[set.master()]));
    }
    let (upstream, cluster) = (Upstream::start().await, Cluster::start(options()));
    let masters = cluster.masters();
    a_day(&upstream, &config(&upstream, &cluster.toml()), &masters, "0").await;
    used.extend(ran(&masters));
    let idle: Vec<_> = commands().into_iter().filter(|command| !used.contains(command)).collect();
    assert!(idle.is_empty(), "not needed: {idle:?}");
}

#[test]
fn doctor_names_the_same_commands() {
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/doctor/redis.rs")).unwrap();
    let (_, after) = source.split_once("const COMMANDS: &str = \"").unwrap();
    let named = after.split_once('"').unwrap().0.replace("\\\n", " ");
    let named: BTreeSet<_> = named.split_whitespace().map(|name| name.trim_start_matches('+').to_owned()).collect();
    assert_eq!(named, commands());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_may_do_less_is_refused() {
    if !is_installed() {
        return;
    }
    let redis = Single::start(options());
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(config(&upstream, &redis.toml())).await;
    proxy.charge("order-1").send().await.was(200, "executed");
    redis.cli(&["ACL", "SETUSER", "oncegate", "-getrange", "-zadd", "-set"]);
    proxy.charge("order-2").send().await.refused(503, "store-unavailable");
    assert!(!redis.cli(&["ACL", "LOG"]).is_empty(), "so the log above would have told");
    let (code, said) = doctor(&proxy).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("may not run set, getrange, zadd:"), "{said}");
    redis.cli(&["ACL", "SETUSER", "oncegate", "+getrange", "+set"]);
    // Nobody would ever find what is not in the index.
    proxy.charge("order-3").send().await.refused(503, "store-unavailable");
    assert_eq!(proxy.metrics().await.sum("oncegate_store_up", &[]), 0.0);
    redis.cli(&["ACL", "SETUSER", "oncegate", "+zadd", "-zrange"]);
    upstream.next(Script::answer(502));
    proxy.charge("order-4").send().await.was(502, "unknown");
    // What cannot be looked through is not empty.
    assert_eq!(proxy.admin("GET", "/records?state=unknown").send().await.status, 503);
    proxy.says(&["WARN", "cannot all be looked through"]).await;
    redis.cli(&["ACL", "SETUSER", "oncegate", "+zrange"]);
    assert_eq!(proxy.records("state=unknown").await.len(), 1);
    assert_eq!(upstream.executions(), 2);
}

async fn doctor(proxy: &Proxy) -> (Option<i32>, String) {
    let output = tokio::process::Command::new(binary()).arg("doctor").arg(proxy.file()).output();
    let output = soon(output).await.unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_looks_at_a_cluster_as_the_documented_user() {
    if !is_installed() {
        return;
    }
    let (upstream, cluster) = (Upstream::start().await, Cluster::start(options()));
    let proxy = Proxy::start(config(&upstream, &cluster.toml())).await;
    let (_, said) = doctor(&proxy).await;
    assert!(said.contains("may not ask whether it is whole"), "{said}");
    assert_eq!(said.matches("writes and reads").count(), 3, "{said}");
    assert!(!said.contains("may not run") && !said.contains("no node of the cluster answers"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_sees_a_replica_that_acknowledges_nothing() {
    if !is_installed() {
        return;
    }
    let (upstream, set) = (Upstream::start().await, Sentinel::start(options()));
    let lines = format!("{}replicas = 2\ntimeout = \"2s\"\n", set.toml());
    let proxy = Proxy::start(config(&upstream, &lines)).await;
    eventually("both acknowledge", || async { !doctor(&proxy).await.1.contains("acknowledged a write") }).await;
    set.replicas()[0].freeze();
    let (code, said) = doctor(&proxy).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("replicas that acknowledged a write: 1; store.redis.replicas wants 2"), "{said}");
}
