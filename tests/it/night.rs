//! A night on call: an upstream dies in the middle of fifty charges, and one person settles them all with
//! `oncegate records`. What retries meet afterwards is what that person said, and nothing else.

use super::harness::*;

const ALL: usize = 50;
/// The first so many had been charged, says the upstream's own ledger.
const CHARGED: usize = 25;

/// Runs `oncegate records …` as somebody would beside the proxy's own configuration; what it printed.
async fn records(proxy: &Proxy, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(binary());
    command.arg("records").args(arguments).env_clear().kill_on_drop(true).stdin(std::process::Stdio::null());
    let token = proxy.file().with_file_name("admin.token");
    command.arg("--admin").arg(proxy.admin_address().to_string()).arg("--token-file").arg(token);
    let output = soon(command.output()).await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn key(number: usize) -> String {
    format!("order-{number}")
}

// contract: R-17
#[tokio::test]
async fn fifty_unknown_records_are_settled_and_retries_see_just_that() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(Config::new(&upstream).route("name = \"refunds\"\npath = \"/v1/refunds\"")).await;
    proxy.charge("before").send().await.was(200, "executed");
    proxy.post("/v1/refunds").auth("alice").key("other").send().await.was(200, "executed");

    // Each answer is lost after its charge was made or, as far as anybody can tell, before.
    upstream.program(|_| Script::reset());
    let mut instances = Vec::with_capacity(ALL);
    for number in 0..ALL {
        let lost = proxy.charge(key(number)).send().await;
        let problem = lost.refused(502, "outcome-unknown").json();
        instances.push(problem["instance"].as_str().unwrap().to_owned());
    }
    proxy.says(&["WARN", "nobody can say", "route=charges", "reason=\"lost\"", &instances[7][21..]]).await;
    upstream.program(|_| Script::token());
    let before = upstream.executions();
    for number in [0, ALL - 1] {
        proxy.charge(key(number)).send().await.refused(409, "outcome-unknown");
    }

    // The list has each of them, under the name that its client was told.
    let list = records(&proxy, &["list", "--state", "unknown"]).await;
    assert_eq!(list.lines().count(), 1 + ALL, "{list}");
    assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    for instance in &instances {
        let digits = instance.strip_prefix("urn:oncegate:record:").unwrap();
        assert!(list.contains(digits), "{digits} is missing:\n{list}");
    }
    // What the client says it sent leads there too, quotes and all.
    let sent = ["--authority", "api.test", "--key", "\"order-7\"", "--scope", "header:authorization=Bearer alice"];
    let found = records(&proxy, &[&["find", "--route", "charges", "--json"][..], &sent].concat()).await;
    assert!(found.contains(&instances[7]["urn:oncegate:record:".len()..]), "{found}");

    // Each charge that was made gets its own answer.
    for (number, instance) in instances.iter().enumerate().take(CHARGED) {
        let answer = proxy.file().with_file_name(format!("answer-{number}"));
        std::fs::write(&answer, format!("charge {number}")).unwrap();
        let resolution = ["--executed", "--response", answer.to_str().unwrap(), "--status", "201", "-H", "X-By: hand"];
        let said = records(&proxy, &[&["resolve", instance][..], &resolution].concat()).await;
        assert!(said.contains("now completed"), "{said}");
    }
    // The rest is freed at once: looked at first.
    let rest = ["resolve", "--state", "unknown", "--route", "charges", "--older", "0s", "--not-executed"];
    let dry = records(&proxy, &[&rest[..], &["--dry-run"]].concat()).await;
    assert_eq!(dry.lines().count(), 1 + ALL - CHARGED, "{dry}");
    assert_eq!(proxy.records("state=unknown&limit=1000").await.len(), ALL - CHARGED);
    let freed = records(&proxy, &[&rest[..], &["--yes"]].concat()).await;
    assert!(freed.contains("25 records resolved as not executed"), "{freed}");
    assert_eq!(proxy.records("state=unknown").await.len(), 0);

    for number in 0..ALL {
        let retry = proxy.charge(key(number)).send().await;
        if number < CHARGED {
            let retry = retry.was(201, "replayed");
            assert_eq!((retry.text(), retry.field("x-by")), (format!("charge {number}").as_str(), Some("hand")));
        } else {
            retry.was(200, "executed");
            proxy.charge(key(number)).send().await.was(200, "replayed");
        }
    }
    assert_eq!(upstream.executions() - before, ALL - CHARGED, "only what was freed ran again, each once");
    proxy.charge("before").send().await.was(200, "replayed");
    // Who did what stands in the log, and no secret does.
    proxy.says(&["admin.token@127.0.0.1", "as executed", "201"]).await;
    proxy.says(&["admin.token@127.0.0.1", "as not executed"]).await;
    for secret in ["Bearer alice", "order-7", "charge 7"] {
        assert!(!proxy.said().contains(secret), "{secret:?} is in the log");
    }
}
